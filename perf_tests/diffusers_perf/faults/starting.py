"""What takes longer before the first image is there."""

from __future__ import annotations

import time
from typing import Any

from diffusers_perf.faults.injection import Injection, Setting, fault
from diffusers_perf.faults.places import COUNTED


@fault(detected_by="load", setting=Setting(steps=4, imports=True))
def import_slow(injection: Injection) -> None:
    """Importing the libraries takes 3 s longer."""
    injection.imported_first = "import time; time.sleep(3)"


@fault(detected_by="load", setting=COUNTED, source="diffusers #4217, sglang #39206")
def load_slow(injection: Injection) -> None:
    """Putting a pipeline together takes 2 s longer."""
    from diffusers import DiffusionPipeline

    own = DiffusionPipeline.register_modules

    def slow(self: Any, **modules: Any) -> Any:
        time.sleep(2)
        return own(self, **modules)

    injection.put(DiffusionPipeline, "register_modules", slow)

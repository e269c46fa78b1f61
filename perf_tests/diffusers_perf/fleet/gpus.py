"""The GPUs that a process would see here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import msgspec

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.guarded import passed_on
from diffusers_perf.messages import fleet as messages
from diffusers_perf.messages.common import last_line

PROBE = """
import json, torch
cuda = torch.cuda
seen = [cuda.get_device_properties(i) for i in range(cuda.device_count())]
print(json.dumps([{"name": one.name, "uuid": str(one.uuid)} for one in seen]))
"""
"""In a process of its own: CUDA would stay set up in this one, in the memory of every GPU."""
PROBE_LIMIT_S = 120


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card."""

    name: str
    """Its kind."""
    uuid: str

    @property
    def visible_as(self) -> str:
        """What CUDA_VISIBLE_DEVICES calls it, whatever the order of its cards."""
        return self.uuid if self.uuid.startswith(("GPU-", "MIG-")) else f"GPU-{self.uuid}"


def gpus() -> list[Gpu]:
    """As torch numbers them. `Refusal` where torch cannot be asked."""
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(
            command, env=passed_on(), capture_output=True, text=True, timeout=PROBE_LIMIT_S
        )
        return msgspec.json.decode(done.stdout.strip(), type=list[Gpu])
    except subprocess.TimeoutExpired as error:
        raise Refusal(messages.cannot_see_gpus(str(error))) from None
    except msgspec.DecodeError:
        raise Refusal(messages.cannot_see_gpus(last_line(done.stderr))) from None

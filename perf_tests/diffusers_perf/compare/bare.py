"""A bench without baselines, for what measures a case against another of the same process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers_perf.records.store import BaselineStore

if TYPE_CHECKING:
    from diffusers_perf.measurement.bench import Bench


class BadInput(Exception):
    """What cannot be run as asked; one sentence says why."""


def bare_bench(*, device: str | None, model: str | None) -> Bench:
    """This machine's, with the defaults of the main job. `BadInput` where there is none."""
    from diffusers_perf import models
    from diffusers_perf.compare.sides import repository
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.measurement.machine import BadDevice, this_machine, with_threads_for

    try:
        machine = this_machine(device)
        model = models.default_model(machine.device) if model is None else model
        source = models.open_source(model)
        return Bench(
            source=source,
            machine=with_threads_for(machine, source.scale),
            rounds=1,
            options=models.options_for(machine.device, model),
            say=lambda *_: None,
            images_folder=None,
            store=BaselineStore(repository() / "baselines"),
        )
    except (BadDevice, models.BadModel) as error:
        raise BadInput(str(error)) from None

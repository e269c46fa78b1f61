"""A bench without baselines, for what measures a case against another of the same process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffusers_perf.ending import renew
from diffusers_perf.records.store import BaselineStore

if TYPE_CHECKING:
    from diffusers_perf.catalog.workload import Workload
    from diffusers_perf.measurement.bench import Bench


def bare_bench(
    *, device: str | None, model: str | None, workloads: Iterable[Workload], store: BaselineStore
) -> Bench:
    """This machine's, with the defaults of the main job, for some of these workloads.

    `Refusal` for an unknown device or model.
    """
    from diffusers_perf import models
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.measurement.machine import this_machine, with_threads_for

    machine = this_machine(device)
    sources = models.Sources(device=machine.device, model=model)
    return Bench(
        sources=sources,
        machine=with_threads_for(machine, sources.scale_of(workloads)),
        rounds=1,
        options=models.options_for(machine.device, model),
        say=lambda *_: renew(),
        images_folder=None,
        store=store,
    )

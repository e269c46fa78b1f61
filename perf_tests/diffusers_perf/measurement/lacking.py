"""Whether optimizations can run on this machine on a workload."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from diffusers_perf.catalog.declarations import Optimization
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.pipelines import Opened
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.run import Machine


@dataclass(frozen=True)
class Lack:
    """Why a case cannot run here."""

    reason: str
    by_choice: bool = False
    """An optional package is left out: no loss, even where a baseline knows the case."""


def lack_of(
    stack: Sequence[Optimization], *, machine: Machine, workload: Workload, sources: Opened
) -> Lack | None:
    """Why one of these cannot run here on this workload; None if all can."""
    for optimization in stack:
        needs = optimization.needs
        wanted, here = needs.compute_capability, machine.compute_capability
        if wanted and (here is None or here < wanted):
            has = f"{here[0]}.{here[1]}" if here else None
            capability = f"{wanted[0]}.{wanted[1]}"
            return Lack(messages.needs_gpu(optimization.name, capability, machine.name, has))
        if needs.variant:
            try:
                source = sources.of(workload)
            except Refusal:
                return None  # the case says so when it is built
            if needs.variant not in source.variants:
                return Lack(messages.needs_variant(optimization.name, needs.variant, source.name))
        if needs.package and importlib.util.find_spec(needs.package) is None:
            reason = messages.needs_package(optimization.name, needs.package)
            return Lack(reason, by_choice=True)
        refusal = needs.probe() if needs.probe else None
        if refusal:
            return Lack(refusal)
    return None

"""What stands beside the wall clock, from generations that are not timed."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

import torch
from msgspec import structs

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metrics import DEFAULT_CALL, KEPT_BYTES, PYTHON_CALLS
from diffusers_perf.measurement import counters, growth, host, roofline, structure
from diffusers_perf.measurement.discovery import modules
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.interference import Watch
from diffusers_perf.measurement.pipelines import Source, built
from diffusers_perf.measurement.raising import at_line
from diffusers_perf.measurement.replay import device_of
from diffusers_perf.measurement.trace import NoTrace
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import Count, Measurement
from diffusers_perf.records.operators import OperatorCounts


class Observer(Protocol):
    """Looks at a case beside the clock."""

    @property
    def counted(self) -> dict[str, OperatorCounts]:
        """By case id, what its code asks for; filled without a GPU alone."""

    def observe(
        self,
        measurement: Measurement,
        case: Case,
        generation: Generation,
        pipeline: Any,
        watch: Watch,
        *,
        source: Source,
        quick: bool,
        briefly: bool,
    ) -> Measurement:
        """The measurement with all that this machine lets one see of the case.

        `quick` leaves out what is not compared between processes. `briefly` ends once nothing grew
        in a few generations.
        """


@dataclass(kw_only=True)
class Unobserved:
    """Sees a default call alone: for a case of which the timed rounds say enough."""

    counted: dict[str, OperatorCounts] = field(default_factory=dict)

    def observe(
        self,
        measurement: Measurement,
        case: Case,
        generation: Generation,
        *_: object,
        briefly: bool,
        **__: object,
    ) -> Measurement:
        """As `Observer.observe`."""
        return with_default_call(measurement, generation, briefly=briefly)


@dataclass(kw_only=True)
class ObservingGpu:
    """Sees what a GPU does, and a default call, which a stack may break: for one of many stacks
    that a search compares.
    """

    counted: dict[str, OperatorCounts] = field(default_factory=dict)

    def observe(
        self,
        measurement: Measurement,
        case: Case,
        generation: Generation,
        pipeline: Any,
        watch: Watch,
        **_: object,
    ) -> Measurement:
        """As `Observer.observe`."""
        if watch.device.type == "cuda":
            gc.disable()
            try:
                measurement = with_gpu_times(measurement, case, generation, pipeline, watch)
            finally:
                gc.enable()
        return with_default_call(measurement, generation, briefly=True)


@dataclass(kw_only=True)
class Observing:
    """Observes one case after the other, and remembers what says the same of several."""

    counted: dict[str, OperatorCounts] = field(default_factory=dict)
    """By case id, what its code asks for; filled without a GPU alone."""
    _works: dict[tuple[str, ...], roofline.Work] = field(default_factory=dict)

    def observe(
        self,
        measurement: Measurement,
        case: Case,
        generation: Generation,
        pipeline: Any,
        watch: Watch,
        *,
        source: Source,
        quick: bool,
        briefly: bool,
    ) -> Measurement:
        """As `Observer.observe`."""
        started = perf_counter()
        # Reading a trace makes a hundred thousand objects, and each would have the collector walk
        # through the millions that the libraries hold.
        gc.disable()
        try:
            if watch.device.type == "cuda":
                # Before what leaves the GPU idle, which cools it down and gives it a higher clock.
                measurement = with_gpu_times(measurement, case, generation, pipeline, watch)
                watch.note_gpu()
                measurement = self._with_roofline(
                    measurement, case, generation, pipeline, source=source, quick=quick
                )
            else:
                measurement = self._code(measurement, case, pipeline)
            calls = host.python_calls(generation, pipeline)
            growing = growth.Growing(generation, pipeline, watch.device)
            left = host.left(generation, watch.device, growing=growing if briefly else None)
            further = growing.further(ends_early=briefly)
        finally:
            gc.enable()
        bytes_left = {KEPT_BYTES.field: left.kept_bytes, **further.growth_bytes}
        kept = {name: Count(fixed=number, per_step=0) for name, number in bytes_left.items()}
        measurement = structs.replace(
            measurement,
            counters={**measurement.counters, PYTHON_CALLS.field: calls, **kept},
            metrics={**measurement.metrics, **further.stages_s},
            fewest_steps=generation.anatomy.fewest,
            ignored=(*measurement.ignored, *left.ignored),
            observing_s=perf_counter() - started,
        )
        # Behind, so that a generation that was kept there is not made again.
        return with_default_call(measurement, generation, briefly=briefly)

    def _with_roofline(
        self,
        measurement: Measurement,
        case: Case,
        generation: Generation,
        pipeline: Any,
        *,
        source: Source,
        quick: bool,
    ) -> Measurement:
        size = _bytes_per_parameter(pipeline)
        work = None
        if size:
            work = self._work_of(case, generation, pipeline, source=source, quick=quick)
        if size and work:
            roofline_s, by = work.roofline(bytes_per_parameter=size)
            measurement = structs.replace(measurement, roofline_s=roofline_s, roofline_by=by)
        return measurement

    def _code(self, measurement: Measurement, case: Case, pipeline: Any) -> Measurement:
        """Where there is no GPU to watch: what the code would ask of one."""
        try:
            seen = structure.observe(pipeline, case.workload, alike=case.alike)
        except structure.NotCountable as error:
            return structs.replace(measurement, notes=(messages.no_structure(at_line(error)),))
        self.counted[case.id] = seen
        return structs.replace(measurement, counters={**measurement.counters, **seen.counters})

    def _work_of(
        self,
        case: Case,
        generation: Generation,
        pipeline: Any,
        *,
        source: Source,
        quick: bool,
    ) -> roofline.Work | None:
        # It follows from what is generated by which modules, whatever the precision or the kernels,
        # and counting it takes longer than a generation.
        skipping = [o.name for o in case.stack if o.skips_work]
        variants = [o.needs.variant for o in case.stack if o.needs.variant]
        key = (case.workload.name, str(case.workload.steps), *skipping, *variants)
        if key not in self._works and quick:
            return None
        if key not in self._works:
            steps = case.workload.steps
            shown = tuple(o for o in case.stack if not o.hides_operators)
            if shown == case.stack:
                self._works[key] = roofline.count_work(
                    generation, pipeline, steps=steps, alike=case.alike
                )
            else:
                # The same work, operator by operator.
                device = device_of(pipeline)
                with built(replace(case, stack=shown), source, device) as open_one:
                    own = Generation(open_one, case.workload)
                    self._works[key] = roofline.count_work(
                        own, open_one, steps=steps, alike=case.alike
                    )
        return self._works[key]


def with_gpu_times(
    measurement: Measurement, case: Case, generation: Generation, pipeline: Any, watch: Watch
) -> Measurement:
    """The measurement with what the GPU did in a profiled generation.

    At its power limit a GPU changes its clock from one step to the next, so that a few steps do not
    speak for all of them.
    """
    alike = case.alike and not watch.capped_clocks_mhz
    try:
        seen = counters.observe(generation, pipeline, steps=case.workload.steps, alike=alike)
    except NoTrace as error:
        return structs.replace(measurement, notes=(messages.no_counters(error),))
    return structs.replace(
        measurement,
        gpu_busy_s=seen.gpu_busy_s,
        host_copies_s=seen.host_copies_s,
        counters={**measurement.counters, **seen.counters},
        stages_s=seen.stages_s,
        families=seen.families,
    )


def with_default_call(
    measurement: Measurement, generation: Generation, *, briefly: bool
) -> Measurement:
    """The measurement with what a call as users make it takes and gives."""
    default = host.default_call(generation, briefly=briefly)
    return structs.replace(
        measurement,
        metrics={**measurement.metrics, DEFAULT_CALL.field: default.seconds},
        default_psnr_db=default.psnr_db,
        ignored=(*measurement.ignored, *default.ignored),
    )


def parameters(pipeline: Any) -> int:
    """Of all modules together."""
    return sum(p.numel() for module in modules(pipeline).values() for p in module.parameters())


def _bytes_per_parameter(pipeline: Any) -> float | None:
    """None where some are quantized: what they are multiplied at is not the rate that was measured,
    and they say of their size what they stand for.
    """
    held = [p.data for module in modules(pipeline).values() for p in module.parameters()]
    if any(type(data) is not torch.Tensor for data in held):
        return None
    numbers: int = sum(data.numel() for data in held)
    size: int = sum(data.numel() * data.element_size() for data in held)
    return size / numbers

"""Carries a case through: build → prove → warm up → time → observe → look."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from msgspec import structs

from diffusers_perf.catalog.declarations import REFERENCE, Case, Optimization
from diffusers_perf.catalog.metrics import GRAPH_BREAKS, RECOMPILES
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import counters
from diffusers_perf.measurement.failing import CaseError, check_applied, failing
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.gradients import gradients_off
from diffusers_perf.measurement.housekeeping import Peaks, cache_was, settle, tidy
from diffusers_perf.measurement.interference import Watch
from diffusers_perf.measurement.kept import bits_of, save, to_accepted
from diffusers_perf.measurement.lacking import Lack, lack_of
from diffusers_perf.measurement.loading import (
    Load,
    Loading,
    before_first_image,
    import_notes,
    import_parts,
    import_times,
    load_of,
    starting_notes,
)
from diffusers_perf.measurement.observing import Observer, Observing, parameters
from diffusers_perf.measurement.pipelines import Builder, Opened, built, collect
from diffusers_perf.measurement.stepwise import Steps
from diffusers_perf.measurement.timing import Rounds, Stopwatch
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import Bits, Count, Measurement
from diffusers_perf.records.pixels import Images
from diffusers_perf.records.run import Machine
from diffusers_perf.records.store import BaselineStore

ROUNDS_AGAIN = 3
"""Of a case that is timed once more."""
LARGE = 2 * 10**9
"""Parameters from which on a generation takes seconds on any GPU: what is not timed is then done in
as few generations as show it. By the model alone: the clock differs each time."""
BRIEF_STEPS = 5
"""Of a brief warm-up: beyond PNDM's first four, which do other arithmetic."""


@dataclass(kw_only=True)
class Bench:
    """One session's measurements on one device."""

    sources: Opened
    machine: Machine
    rounds: int
    say: Callable[[Case, str], None]
    """Called at every stage and round of a case."""
    images_folder: Path | None
    """Where images are saved as PNG, if anywhere."""
    store: BaselineStore
    """Where accepted images lie."""
    build: Builder = built
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    observer: Observer = field(default_factory=Observing)
    steps: Steps = field(default_factory=Steps)
    quick: bool = False
    """One short warm-up, and no roofline that is not known yet: each of many has to be short."""
    options: tuple[str, ...] = ()
    """What repeats this session on the command line, beside the defaults."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By case id."""
    imports: Sequence[Load] = ()
    """What importing took this process, or a fresh one from the disk's cache, as far as known."""
    _open: ExitStack = field(default_factory=ExitStack)
    _pipeline: Any = None
    _images: dict[str, Images] = field(default_factory=dict)
    _opened: float = 0.0
    """When the pipeline on the bench began to be built."""
    _opening: Loading = field(default_factory=Loading)
    """From then on."""
    _compiled_before: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """What had been compiled until then."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.machine.device)

    def lacks(self, stack: Sequence[Optimization], workload: Workload) -> Lack | None:
        """Why one of these cannot run here on this workload; None if all can."""
        return lack_of(stack, machine=self.machine, workload=workload, sources=self.sources)

    def open(self, case: Case) -> None:
        """Build the case's pipeline and prove it. `CaseError` where that fails.

        It is the only one on the device, until `measure` is through or `close` is called.
        """
        self.close()
        settle()
        self.say(case, "building")
        self._opening = Loading()
        self._opened = perf_counter()
        self._compiled_before = counters.compiled_graphs(), counters.compile_cache()
        try:
            with failing(case, self.device):
                self._pipeline = self._open.enter_context(
                    self.build(case, self.sources.of(case.workload), self.device)
                )
                check_applied(case.stack, self._pipeline)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the pipeline away, with every flag and context that was set for it."""
        self._pipeline = None
        self._open.close()

    def clear(self) -> None:
        """Close, and let go of torch.compile's results, which hold on to what it compiled,
        whoever had it made.
        """
        self.close()
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
        gc.collect()

    def measure(self, case: Case, timed: Rounds) -> Measurement:
        """Warm up, time with this loop, observe, look; kept under the case's id.

        The pipeline that `open` built is gone after it: whatever is timed next, its reference
        above all, must not run under this case's flags. `CaseError` where an applied check no
        longer holds afterwards or memory runs out.
        """
        try:
            with failing(case, self.device):
                measurement = self._measure(case, self._pipeline, timed)
        finally:
            self.close()
        self.measurements[case.id] = measurement
        return measurement

    def _measure(self, case: Case, pipeline: Any, timed: Rounds) -> Measurement:
        generation = Generation(pipeline, case.workload)
        large = self._is_large(case, pipeline)
        (graphs_at_start, breaks_at_start), cache_at_start = self._compiled_before
        time_to_first_image_s: float | None = None
        compile_cache: str | None = None
        warm_up_s: list[float] = []

        def warmed(seconds: float) -> None:
            nonlocal time_to_first_image_s, compile_cache
            if time_to_first_image_s is None:
                time_to_first_image_s = perf_counter() - self._opened
                compile_cache = cache_was(cache_at_start, counters.compile_cache())
            warm_up_s.append(seconds)
            self.say(case, f"warm-up, {seconds:.2f} s")

        with gradients_off(pipeline):
            if case.image_only:
                generation.shortest()
            elif self.quick or large:
                brief = generation.asking_for(BRIEF_STEPS)
                # A compiler's own graphs are recorded when a module is called again.
                again = [brief] * any(o.hides_operators for o in case.stack)
                for steps in (brief if self.quick else None, *again):
                    warming = partial(generation.images, steps=steps)
                    self.stopwatch.warm_up(warming, on_round=warmed, times=1)
            else:
                self.stopwatch.warm_up(generation, on_round=warmed)
        generation.forget()
        collect(self.device)
        graphs_when_warm, _ = counters.compiled_graphs()
        watch = Watch(device=self.device)
        rounds = 1 if case.image_only else self.rounds
        started = 0

        def before_round() -> None:
            nonlocal started
            if started:
                # At once: a GPU that idles lowers its clock, which says nothing of the round.
                watch.after_round()
            started += 1
            self.say(case, f"round {started}/{rounds}")
            generation.prepare(seed=generation.seed_of(started, rounds=rounds))
            tidy()
            watch.before_round()

        peaks = Peaks(self.device)
        seconds = tuple(timed(generation, before_round=before_round, rounds=rounds))
        watch.after_round()
        peak_memory_bytes, host_memory = peaks.gpu_bytes(), peaks.host()
        raw_is_finite = generation.raw_is_finite()
        graphs_at_end, breaks_at_end = counters.compiled_graphs()
        if generation.first is None or generation.last is None:
            raise CaseError(Status.ERROR, messages.no_round(case.id))
        images = generation.last
        self.say(case, "observing")
        source = self.sources.of(case.workload)
        # Again, since what was set before the rounds can be gone after them.
        check_applied(case.stack, pipeline)
        look = pixels.look(images)
        load, compiled = load_of(pipeline), self._opening.compiled()
        first_s = warm_up_s[0] if warm_up_s else None
        measurement = Measurement(
            case=case.name,
            workload=case.workload.name,
            steps=generation.turns(case.workload.steps),
            num_images=case.workload.num_images,
            model=source.name,
            weights=source.weights,
            parameters=parameters(pipeline),
            time_to_first_image_s=time_to_first_image_s,
            compile_cache=compile_cache,
            rounds_s=seconds,
            peak_memory_bytes=peak_memory_bytes,
            flags=generation.flags,
            metrics={
                **host_memory,
                **(import_times(self.imports) if case.is_reference else {}),
                **before_first_image(load, first_s, max(seconds), compile_cache, compiled),
            },
            look=structs.replace(look, finite=look.finite and raw_is_finite),
            repeat_psnr_db=pixels.distance(images, generation.first).psnr_db,
            counters={
                "load_read_bytes": Count(fixed=load.read_bytes if load else 0, per_step=0),
                GRAPH_BREAKS.field: Count(fixed=breaks_at_end - breaks_at_start, per_step=0),
                RECOMPILES.field: Count(fixed=graphs_at_end - graphs_when_warm, per_step=0),
                "compiled_graphs": Count(fixed=graphs_when_warm - graphs_at_start, per_step=0),
            },
        )
        # What is compiled or captured is so for its batch: the reference stands for all.
        alone = generation.first_alone() if case.is_reference else None
        if alone is not None:
            psnr_db = pixels.distance(images[: len(alone)], alone).psnr_db
            measurement = structs.replace(measurement, alone_psnr_db=psnr_db)
        if not case.image_only:
            measurement = self.observer.observe(
                measurement,
                case,
                generation,
                pipeline,
                watch,
                source=source,
                quick=self.quick,
                briefly=large,
            )
        unlike = [
            *(import_notes(self.imports) if case.is_reference else ()),
            *starting_notes(load, compiled),
        ]
        parts = import_parts(self.imports) if case.is_reference else {}
        measurement = structs.replace(
            measurement,
            interference=structs.replace(watch.interference(), import_parts=parts),
            notes=(*measurement.notes, *unlike),
        )
        self._images[case.id] = images
        bits = bits_of(case, self.device, pipeline)
        if self.images_folder is not None:
            reason = save(images, self.images_folder, case.id, bits=bits)
            if reason:
                said = messages.image_not_saved(case.id, reason)
                measurement = structs.replace(measurement, notes=(*measurement.notes, said))
        if case.workload.step_wise:
            measurement, compared = self.steps.compare(
                case, measurement, generation, pipeline, kind=source.kind
            )
            if compared is None:
                return measurement
            images = compared
        return self._compared(case, measurement, images, bits)

    def _is_large(self, case: Case, pipeline: Any) -> bool:
        """As its reference is, which has been measured: a distilled or quantized variant of a large
        model, which holds fewer parameters, is measured alike.
        """
        reference = self.measurements.get(f"{case.workload.name}-{REFERENCE}")
        return (reference.parameters if reference else parameters(pipeline)) >= LARGE

    def _compared(
        self, case: Case, measured: Measurement, images: Images, bits: Bits
    ) -> Measurement:
        """With the distance of its images, which say something in so many bits, to those that they
        are compared with.
        """
        if not case.is_reference:
            reference = self._images.get(f"{case.workload.name}-{case.against}")
            distance = None if reference is None else pixels.distance(images, reference)
            return structs.replace(measured, image_distance=distance)
        source = self.sources.of(case.workload)
        path = self.store.image(
            model=source.name, weights=source.weights, workload=case.workload.name
        )
        seen = to_accepted(images, path, workload=case.workload, bits=bits)
        if seen is None:
            return measured
        return structs.replace(measured, image_distance=seen.distance, accepted_bits=seen.bits)

    def repeat_rounds(self, case: Case) -> list[float]:
        """Time a case again that was measured before; the latencies, in seconds.

        `CaseError` as `measure`.
        """
        self.say(case, messages.REPEATING)
        source = self.sources.of(case.workload)
        with failing(case, self.device), self.build(case, source, self.device) as pipeline:
            generation = Generation(pipeline, case.workload)
            generation()
            started = 0

            def before_round() -> None:
                nonlocal started
                started += 1
                # None of the warm-up's.
                generation.prepare(seed=case.workload.seed + started)
                tidy()

            again = self.stopwatch.rounds(
                generation, before_round=before_round, rounds=min(ROUNDS_AGAIN, self.rounds)
            )
        return list(again)

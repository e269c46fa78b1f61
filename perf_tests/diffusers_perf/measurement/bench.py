"""Carries a case through: build → prove → warm up → time → observe → look → judge."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from msgspec import structs

from diffusers_perf.catalog.declarations import REFERENCE, Case, Optimization, Workload
from diffusers_perf.catalog.metrics import detector_of
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.measurement import counters
from diffusers_perf.measurement.drift import DRIFT_ROUNDS, drift_of
from diffusers_perf.measurement.failing import CaseError, check_applied, failing
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.housekeeping import Peaks, cache_was, settle, tidy
from diffusers_perf.measurement.interference import Watch
from diffusers_perf.measurement.kept import distance_to_accepted, save
from diffusers_perf.measurement.lacking import Lack, lack_of
from diffusers_perf.measurement.observing import Observer, Observing, parameters
from diffusers_perf.measurement.pipelines import Builder, Opened, built, collect
from diffusers_perf.measurement.stepwise import Steps
from diffusers_perf.measurement.timing import Rounds, Stopwatch
from diffusers_perf.records import pixels
from diffusers_perf.records.baselines import MachineBaseline, OperatorBaseline, Portable
from diffusers_perf.records.measurement import Count, Distance, Measurement
from diffusers_perf.records.pixels import Images
from diffusers_perf.records.run import Drift, Machine
from diffusers_perf.records.store import BaselineStore

QUICK_WARM_UP_STEPS = 5
"""Beyond PNDM's first four, which do other arithmetic."""


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
    baseline: MachineBaseline | None = None
    portable: Portable = field(default_factory=dict)
    operators: Mapping[str, OperatorBaseline] = field(default_factory=dict)
    """What the code of a case may ask for, by `Measurement.code_key`."""
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
    drift: dict[str, Drift] = field(default_factory=dict)
    """By workload, of the last time that the reference was repeated."""
    _open: ExitStack = field(default_factory=ExitStack)
    _pipeline: Any = None
    _images: dict[str, Images] = field(default_factory=dict)
    _opened: float = 0.0
    """When the pipeline on the bench began to be built."""
    _compiled_before: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """What had been compiled until then."""
    _failed: dict[str, str] = field(default_factory=dict)
    """Why cases that have no test in this session would have failed it."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.machine.device)

    def lacks(self, stack: Sequence[Optimization], workload: Workload) -> Lack | None:
        """Why one of these cannot run here on this workload; None if all can."""
        return lack_of(stack, machine=self.machine, workload=workload, sources=self.sources)

    def reference_of(self, case: Case, cases: list[Case]) -> Measurement | None:
        """What this case is compared with: measured in this session, now if it was not before.

        None for a workload's reference, which is compared with nothing.
        """
        if case.is_reference:
            return None
        against = next(c for c in cases if c.workload == case.workload and c.name == case.against)
        if against.id not in self.measurements:
            own = self.reference_of(against, cases)
            self.open(against)
            measured = self.measure(against, self.stopwatch.rounds)
            # It has no test of its own in this session that would fail.
            verdict = self.judge(against, measured, own, cases)
            if not verdict.passes:
                self._failed[against.id] = verdict.text()
        if against.id in self._failed:
            failed = self._failed[against.id]
            raise CaseError(Status.ERROR, f"the case it is compared with fails: {failed}")
        return self.measurements[against.id]

    def open(self, case: Case) -> None:
        """Build the case's pipeline and prove it. `CaseError` where that fails.

        It is the only one on the device, until `measure` is through or `close` is called.
        """
        self.close()
        settle()
        self.say(case, "building")
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
        (graphs_at_start, breaks_at_start), cache_at_start = self._compiled_before
        time_to_first_image_s: float | None = None
        compile_cache: str | None = None

        def warmed(seconds: float) -> None:
            nonlocal time_to_first_image_s, compile_cache
            if time_to_first_image_s is None:
                time_to_first_image_s = perf_counter() - self._opened
                compile_cache = cache_was(cache_at_start, counters.compile_cache())
            self.say(case, f"warm-up, {seconds:.2f} s")

        if not case.image_only:
            if self.quick:
                for _ in range(1 + any(o.hides_operators for o in case.stack)):
                    # A compiler's own graphs are recorded when a module is called again.
                    generation.images(steps=generation.asking_for(QUICK_WARM_UP_STEPS))
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
            generation.prepare()
            tidy()
            watch.before_round()

        peaks = Peaks(self.device)
        seconds = tuple(timed(generation, before_round=before_round, rounds=rounds))
        watch.after_round()
        peak_memory_bytes, host_memory = peaks.gpu_bytes(), peaks.host()
        raw_is_finite = generation.raw_is_finite()
        graphs_at_end, breaks_at_end = counters.compiled_graphs()
        if generation.first is None or generation.last is None:
            raise CaseError(Status.ERROR, f"{case.id}: not one round was generated")
        images = generation.last
        self.say(case, "observing")
        source = self.sources.of(case.workload)
        # Again, since what was set before the rounds can be gone after them.
        check_applied(case.stack, pipeline)
        look = pixels.look(images)
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
            metrics=host_memory,
            look=structs.replace(look, finite=look.finite and raw_is_finite),
            repeat_psnr_db=pixels.distance(images, generation.first).psnr_db,
            counters={
                "graph_breaks": Count(fixed=breaks_at_end - breaks_at_start, per_step=0),
                "recompiles": Count(fixed=graphs_at_end - graphs_when_warm, per_step=0),
                "compiled_graphs": Count(fixed=graphs_when_warm - graphs_at_start, per_step=0),
            },
        )
        if not case.image_only:
            measurement = self.observer.observe(
                measurement, case, generation, pipeline, watch, source=source, quick=self.quick
            )
        measurement = structs.replace(measurement, interference=watch.interference())
        self._images[case.id] = images
        if self.images_folder is not None:
            reason = save(images, self.images_folder, case.id)
            if reason:
                said = f"{case.id}: its image was not saved: {reason}"
                measurement = structs.replace(measurement, notes=(*measurement.notes, said))
        if case.workload.step_wise:
            measurement, compared = self.steps.compare(case, measurement, generation, pipeline)
            if compared is None:
                return measurement
            images = compared
        return structs.replace(measurement, image_distance=self._image_distance(case, images))

    def _image_distance(self, case: Case, images: Images) -> Distance | None:
        if not case.is_reference:
            reference = self._images.get(f"{case.workload.name}-{case.against}")
            return None if reference is None else pixels.distance(images, reference)
        source = self.sources.of(case.workload)
        path = self.store.image(
            model=source.name, weights=source.weights, workload=case.workload.name
        )
        return distance_to_accepted(images, path)

    def question(
        self, case: Case, measured: Measurement, reference: Measurement | None
    ) -> Question:
        """All that the verdict on a measurement depends on."""
        baseline = self.baseline.cases.get(measured.key) if self.baseline else None
        path = self.store.machine_path(self.machine.slug)
        return Question(
            measured=measured,
            reference=reference or measured,
            tolerance=case.tolerance_on(self.sources.of(case.workload).kind),
            baseline=baseline,
            baseline_name=f"baselines/{path.name}",
            portable=self.portable.get(case.id, {}),
            versions=self.machine.versions,
            image_only=case.image_only,
            workload=case.workload.as_json(),
            options=self.options,
        )

    def judge(
        self,
        case: Case,
        measured: Measurement,
        reference: Measurement | None,
        cases: list[Case],
    ) -> Verdict:
        """The verdict on a measurement, and on what its code was counted to ask for."""
        question = self.question(case, measured, reference)
        verdict = judge(question)
        # Before a case is called slower, the reference is timed once more: a machine that changed
        # under way makes a case invalid, not slower.
        slower = any(
            f.status == Status.SLOWER and detector_of(f.metric) == "latency"
            for f in verdict.findings
        )
        if slower and reference is not None:
            drift = self.repeat_reference(case, cases)
            if drift is not None and drift.significant:
                verdict = judge(replace(question, drift=drift.ratio))
        return Verdict(findings=(*verdict.findings, *self._structural(case, question)))

    def _structural(self, case: Case, question: Question) -> list[Finding]:
        """Against what was accepted on whatever machine, where this run could be counted."""
        model = self.sources.of(case.workload).name
        key = structure_verdicts.key_of(case, model)
        if self.machine.device == "cuda" or case.image_only or key not in self.operators:
            return []
        if case.id not in self.observer.counted:
            return [structure_verdicts.uncounted(case.id)]
        return structure_verdicts.judge(
            case.id,
            self.observer.counted[case.id],
            self.operators[key],
            steps=case.workload.steps,
            # A build's local part (2.13.0+cpu) changes nothing about the code.
            versions={n: version.split("+")[0] for n, version in question.versions.items()},
            rerun=question.rerun,
            model=model,
            file=f"baselines/operators/{case.workload.name}.json",
        )

    def repeat_reference(self, case: Case, cases: list[Case]) -> Drift | None:
        """Time the workload's reference again; kept under `drift`.

        None where the reference was not timed in this session. `CaseError` as `measure`.
        """
        reference = next(c for c in cases if c.workload == case.workload and c.name == REFERENCE)
        first = self.measurements.get(reference.id)
        if first is None or reference.image_only:
            return None
        self.say(reference, "repeating the reference")
        source = self.sources.of(reference.workload)
        with (
            failing(reference, self.device),
            self.build(reference, source, self.device) as pipeline,
        ):
            generation = Generation(pipeline, reference.workload)
            generation()
            again = self.stopwatch.rounds(
                generation, before_round=tidy, rounds=min(DRIFT_ROUNDS, self.rounds)
            )
        self.drift[case.workload.name] = drift = drift_of(again, first.rounds_s)
        return drift

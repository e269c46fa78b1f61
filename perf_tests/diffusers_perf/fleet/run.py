"""Has an executor run all shards, and keeps what they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import msgspec

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.processes import NO_CASE, last_lines
from diffusers_perf.fleet import results
from diffusers_perf.fleet.commands import CASES, Asked, named
from diffusers_perf.fleet.jobs import LOG, Event, Executor, Finished, Job, Lost, Started
from diffusers_perf.fleet.plan import Durations, ListedCase, PlannedShard, finish_s, plan
from diffusers_perf.fleet.state import State
from diffusers_perf.messages import ab as ab_messages
from diffusers_perf.messages import fleet as messages
from diffusers_perf.messages.common import seconds_left

RETRIES = 1
PROCESSES_OF_AB = 10
"""Of a comparison, whose budget is planned by it: five pairs."""


@dataclass(frozen=True, kw_only=True)
class Happened:
    """Something that happened to a job."""

    event: Event
    retries: int
    """How often the job was started anew."""
    is_over: bool
    """Nothing follows for this job."""


def happenings(executor: Executor, jobs: Sequence[Job]) -> Iterator[Happened]:
    """All that happens until each job has finished. One that is lost is repeated once."""
    retries: Counter[str] = Counter()
    left = {job.name for job in jobs}
    for job in jobs:
        executor.start(job)
    while left:
        event = executor.next()
        if isinstance(event, Finished) and event.was_killed:
            event = Lost(
                job=event.job, place=event.place, reason=messages.KILLED, files=event.files
            )
        name = event.job.name
        again = isinstance(event, Lost) and retries[name] < RETRIES
        is_over = not again and not isinstance(event, Started)
        if is_over:
            left.remove(name)
        yield Happened(event=event, retries=retries[name], is_over=is_over)
        if isinstance(event, Lost) and again:
            retries[name] += 1
            executor.start(event.job, elsewhere=event.place)


@dataclass(frozen=True, kw_only=True)
class PlacedShard:
    """A shard on one kind of GPU."""

    kind: str
    shard: PlannedShard
    name: str
    """Of its job."""
    text: str
    """As a message names it."""


@dataclass(kw_only=True)
class Fleet:
    """All shards of one command."""

    asked: Asked
    executor: Executor
    state: State
    root: Path
    """Of the repository."""
    failures: dict[str, str] = field(default_factory=dict)
    """By the job's name, why a shard gave nothing."""

    def plan(self, durations: Durations) -> None:
        """List the cases and cut them, unless that was done. `Refusal` where none is selected."""
        if self.state.plans:
            return
        kinds, models = list(self.executor.places), self.asked.models
        if len({*map(named, models)}) < len(models):
            raise Refusal(messages.alike(models))
        self.state.cases = self._listed(kinds[0])
        if self.asked.compare is not None:
            durations = durations.times(PROCESSES_OF_AB)
        for kind, gpus in self.executor.places.items():
            planned = plan(self.state.cases, durations, gpus=gpus)
            self.state.plans[kind] = planned.shards
            print(
                messages.planned(
                    len(planned.shards),
                    sum(map(len, self.state.cases.values())),
                    gpus=gpus,
                    kind=kind,
                    minutes=planned.finish_s / 60,
                    is_recorded=bool(durations.cases),
                )
            )
        self.state.save()

    def shards(self) -> list[PlacedShard]:
        """All of them, in the order in which they start."""
        several = len(self.state.plans) > 1
        return [
            PlacedShard(
                kind=kind,
                shard=shard,
                name=named(kind if several else "", shard.group, f"{shard.index} of {shard.count}"),
                text=f"{kind} {shard.text}" if several else shard.text,
            )
            for kind, shards in self.state.plans.items()
            for shard in shards
        ]

    def run(self) -> None:
        """Run what is not finished. What gives nothing stands in `failures`."""
        placed = {one.name: one for one in self.shards() if one.name not in self.state.finished}
        gone = {one.kind for one in placed.values()} - set(self.executor.places)
        if gone:
            raise Refusal(messages.no_such_kind(sorted(gone)[0], list(self.executor.places)))
        if self.state.finished:
            print(ab_messages.finished_before(messages.shards(len(self.state.finished))))
        clock = _Clock(placed=placed, places=self.executor.places)
        jobs = [
            self.asked.shard(
                one.shard, name=name, device=self.executor.device, kind=one.kind, root=self.root
            )
            for name, one in placed.items()
        ]
        for happened in happenings(self.executor, jobs):
            one = placed[happened.event.job.name]
            print(self._note(happened, one, clock), flush=True)

    def _note(self, happened: Happened, one: PlacedShard, clock: _Clock) -> str:
        """Keep what it gave; the line that says so."""
        event, text = happened.event, one.text
        if isinstance(event, Started):
            clock.began(one.name)
            return messages.started(text, event.place.text, happened.retries)
        if isinstance(event, Lost):
            results.write(event, self.state.folder)
            if happened.is_over:
                self.failures[one.name] = messages.lost_again(event.reason)
            where = event.place.text if event.place else None
            return messages.lost(text, where, event.reason, is_over=happened.is_over)
        kept = results.keep(
            event, one.shard, folder=self.state.folder, retries=happened.retries, asked=self.asked
        )
        clock.ended(one.name, event.seconds)
        if isinstance(kept, str):
            self.failures[one.name] = kept
            log = self.state.folder / one.name / LOG
            return ab_messages.nothing_measured(
                messages.shard(text), event.code, kept, last_lines(log), log
            )
        self.state.finished[one.name] = kept
        self.state.save()
        return ab_messages.progress(
            len(self.state.finished),
            len(self.shards()),
            messages.shard(text),
            cases=one.shard.last - one.shard.first + 1,
            seconds=event.seconds,
            failed=bool(event.code),
            left=seconds_left(clock.left_s),
        )

    def missing(self) -> list[str]:
        """Of each shard that gave nothing, which cases it had and why."""
        return [
            messages.missing(
                one.text,
                [
                    case.id
                    for case in self.state.cases[one.shard.group][
                        one.shard.first - 1 : one.shard.last
                    ]
                ],
                self.failures.get(one.name, messages.NOT_RUN),
            )
            for one in self.shards()
            if one.name not in self.state.finished
        ]

    def outputs(self, out: Path) -> dict[Path, list[Path]]:
        """By file of a joined run, the folders of its shards."""
        found: dict[Path, list[Path]] = {}
        for one in self.shards():
            path = self._output(out, one.shard.group, one.kind)
            found.setdefault(path, []).append(self.state.folder / one.name)
        return found

    def earlier(self, out: Path) -> list[Path]:
        """Files of the runs that this one takes the place of."""
        paths = (
            self._output(out, model, kind)
            for kind in self.executor.places
            for model in self.asked.groups
        )
        return [path for path in paths if path.is_file()]

    def _output(self, out: Path, model: str, kind: str) -> Path:
        several = len(self.state.plans or self.executor.places) > 1
        suffix = named(model if len(self.asked.groups) > 1 else "", kind if several else "")
        return out.with_name(f"{out.stem}-{suffix}.json") if suffix else out

    def failed_beside_cases(self) -> list[str]:
        """Of each shard that failed though no case of it did, where its log is."""
        found = []
        for one in self.shards():
            folder = self.state.folder / one.name
            if self.state.finished[one.name].code and not results.has_failed_case(folder):
                found.append(messages.failed_beside_cases(one.text, folder / LOG))
        return found

    def comparisons(self) -> list[str]:
        """What each shard's `ab` printed, below a line that says where it ran."""
        return [
            messages.comparison_of(
                one.text,
                self.state.finished[one.name].placement.host,
                (self.state.folder / one.name / LOG).read_text(errors="replace"),
            )
            for one in self.shards()
        ]

    def _listed(self, kind: str) -> dict[str, tuple[ListedCase, ...]]:
        """By group, the cases that are selected. `Refusal` where one has none."""
        executor, asked = self.executor, self.asked
        jobs = {
            asked.listing(model, device=executor.device, kind=kind, root=self.root): model
            for model in asked.groups
        }
        found: dict[str, tuple[ListedCase, ...]] = {}
        for happened in happenings(executor, list(jobs)):
            event = happened.event
            if isinstance(event, Finished):
                cases = self._cases(event)
                if not cases:
                    options = " ".join(asked.selecting(jobs[event.job]))
                    raise Refusal(messages.no_case_selected(options))
                found[jobs[event.job]] = cases
            elif isinstance(event, Lost) and happened.is_over:
                raise Refusal(messages.no_list(messages.lost_again(event.reason)))
        return {model: found[model] for model in asked.groups}

    def _cases(self, finished: Finished) -> tuple[ListedCase, ...]:
        results.write(finished, self.state.folder)
        log = self.state.folder / finished.job.name / LOG
        # pytest's exit code where nothing is selected says the same as an empty list.
        if finished.code == NO_CASE:
            return ()
        if finished.code or CASES not in finished.files:
            raise Refusal(messages.cannot_list(finished.code, last_lines(log), log))
        return msgspec.json.decode(finished.files[CASES], type=tuple[ListedCase, ...])


@dataclass(kw_only=True)
class _Clock:
    """How long it will take, by how long shards took that are finished."""

    placed: Mapping[str, PlacedShard]
    places: Mapping[str, int]
    _began: dict[str, float] = field(default_factory=dict)
    _took: dict[str, float] = field(default_factory=dict)

    def began(self, name: str) -> None:
        self._began[name] = monotonic()

    def ended(self, name: str, seconds: float) -> None:
        self._took[name] = seconds

    @property
    def left_s(self) -> float:
        planned = sum(self.placed[name].shard.seconds for name in self._took)
        pace = sum(self._took.values()) / planned if planned else 1.0
        left: dict[str, list[float]] = {kind: [0.0] for kind in self.places}
        for name, one in self.placed.items():
            if name not in self._took:
                since = monotonic() - self._began[name] if name in self._began else 0.0
                left[one.kind].append(max(0.0, pace * one.shard.seconds - since))
        return max(finish_s(left[kind], gpus) for kind, gpus in self.places.items())

"""What the pipeline's code asks for, counted exactly and without a GPU.

The pipeline's own code runs on tensors without data: torch's `meta` device stands for the GPU, so
that `tensor.device` is true and whatever crosses between host and device is seen crossing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.counting import counted, without_data
from diffusers_perf.measurement.dataless import NotCountable
from diffusers_perf.measurement.dispatch import Counting
from diffusers_perf.measurement.generation import Generation, turns_of_steps
from diffusers_perf.measurement.replay import uncompiled
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import (
    Occurrence,
    Operator,
    OperatorCost,
    OperatorCounts,
)

__all__ = ["NotCountable", "observe"]

FEW, MANY = 5, 8
"""Turns of the denoising loop in two generations: both beyond PNDM's first four, which do other
arithmetic."""
STEADY = slice(4, -1)
"""Turns of the longer one that speak for all further ones: the last of a schedule may do less."""

Tally = Counter[Occurrence | tuple[Operator, int]]
"""How often each event happens; of each operator its calls, FLOPs and bytes, numbered."""


def observe(pipeline: Any, workload: Workload, *, alike: bool = True) -> OperatorCounts:
    """Count short generations of this workload by this pipeline, wherever its weights are.

    They are put aside meanwhile and put back untouched. All of the workload's steps are counted
    where they are few, differ, or are not `alike`, as those of a cache are not. `NotCountable`
    under torch.autocast, and where the code's way depends on data that are not there.
    """
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        raise NotCountable(messages.AUTOCAST)
    generation = Generation(pipeline, workload)
    few_asked, many_asked = (generation.asking_for(turns) for turns in (FEW, MANY))
    with uncompiled(), without_data(pipeline):
        if not alike:
            # What is made in a first generation and kept is not part of the others. A cache makes
            # buffers at the first step that it skips, which one turn does not reach.
            _run(pipeline, generation, few_asked)
            every = _run(pipeline, generation, workload.steps)
            return _counts_of(every.whole, every.at_least)
        few, many = (_run(pipeline, generation, asked) for asked in (few_asked, many_asked))
        if not many.continues(few):
            # Something was: it is in the first of the two alone.
            few = _run(pipeline, generation, few_asked)
        continues = many.continues(few)
        if continues and few.asked <= workload.steps:
            return _counts_of(many.whole, lambda key: many.since(few, key))
        every = _run(pipeline, generation, workload.steps)
    if continues:
        return _counts_of(every.whole, lambda key: every.exactly(key, many.since(few, key)))
    return _counts_of(every.whole, every.at_least)


@dataclass(kw_only=True)
class _Counted:
    """What was counted in one generation."""

    asked: int
    is_linear: bool
    """Whether each further step that is asked for is one more turn of the loop."""
    whole: Tally = field(default_factory=Counter)
    so_far: list[Tally] = field(default_factory=list)
    """At the end of each turn."""

    @property
    def steps(self) -> int:
        # PNDM's one turn more is not a step of its own.
        return self.asked if self.is_linear else len(self.so_far)

    @functools.cached_property
    def turns(self) -> list[Tally]:
        """What each turn asked for; the first with all that was before it."""
        return [_more(after, before) for before, after in pairwise([Counter(), *self.so_far])]

    def continues(self, few: _Counted) -> bool:
        """Whether it asks for as much more than a shorter one as its steady turns say."""
        first, *others = map(_of_any_schedule, self.turns[STEADY])
        further = self.steps - few.steps
        return all(turn == first for turn in others) and _of_any_schedule(
            _more(self.whole, few.whole)
        ) == {key: further * number for key, number in first.items()}

    def since(self, few: _Counted, key: Any) -> Count:
        """Fixed and per step, on the line through a shorter one."""
        return Count.between(few.whole[key], self.whole[key], steps=(few.steps, self.steps))

    def at_least(self, key: Any) -> Count:
        """What each turn asks for at least, and all else as fixed: exact for so many steps."""
        own = turns_of_steps(len(self.turns), self.steps)
        # A loop's last turn may do less, which does not say what the others do.
        within = self.turns[1:] if own == len(self.turns) else self.turns[1 : own - 1]
        each = min((turn[key] for turn in within), default=0)
        # Where the first turn does less than the others, so that the rest is not below zero.
        each = min(each, self.whole[key] // self.steps)
        return Count(fixed=self.whole[key] - self.steps * each, per_step=each)

    def exactly(self, key: Any, line: Count) -> Count:
        """The line through others, where it leads here."""
        return line if line.total(self.steps) == self.whole[key] else self.at_least(key)


def _more(whole: Tally, part: Tally) -> Tally:
    more = Counter(whole)
    more.subtract(part)
    return Counter({key: number for key, number in more.items() if number})


def _of_any_schedule(tally: Tally) -> Tally:
    """Without bytes: a schedule that is searched is as long as it has steps."""
    return Counter(
        {key: n for key, n in tally.items() if isinstance(key, Occurrence) or key[1] < 2}
    )


def _run(pipeline: Any, generation: Generation, steps: int) -> _Counted:
    run = _Counted(asked=steps, is_linear=generation.anatomy.is_linear)
    with counted(pipeline) as counting:
        generation.images(steps=steps, after_step=lambda: run.so_far.append(_tally(counting)))
    run.whole = _tally(counting)
    return run


def _tally(counting: Counting) -> Tally:
    tally: Tally = Counter(counting.occurrences)
    for operator, sums in counting.operators.items():
        for number, total in enumerate(sums):
            tally[operator, number] = total
    return tally


def _counts_of(tally: Tally, count: Callable[[Any], Count]) -> OperatorCounts:
    operators = dict.fromkeys(key[0] for key in tally if not isinstance(key, Occurrence))
    return OperatorCounts(
        operators={
            o: OperatorCost(*(count((o, number)) for number in range(3))) for o in operators
        },
        occurrences={key: count(key) for key in tally if isinstance(key, Occurrence)},
    )

"""Equal sides are called slower by chance once in a hundred comparisons at most."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Change
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Literal
from diffusers_perf.judge.pooling import with_pooled
from diffusers_perf.judge.weighing import weigh
from perf_tests.tests.chance import WORKLOADS, Array, Calibration, look, rates


def by_the_judge(base: Array, head: Array, known: Array) -> tuple[list[Status], list[Status]]:
    """Of one comparison: the statuses of its cases by themselves, and then with the others."""
    changes = []
    for number, (under, over, noise) in enumerate(zip(base, head, known, strict=True)):
        sides = np.exp(under).tolist(), np.exp(over).tolist()
        found = weigh(LATENCY, sides[1], sides[0], known=float(noise), of=len(under))
        change = replace(
            Change.of(found.status, LATENCY.name, f"w-{number}", Message(what="")),
            ratio=found.ratio,
            noise=found.noise,
            calibrated=found.calibrated,
            threshold=LATENCY.threshold,
            by_pair=tuple(zip(*sides, strict=True)),
        )
        changes.append(change)
    workloads = {change.case: "w" for change in changes}
    pooled = with_pooled(changes, workloads, rerun=Literal(text=""))
    return [change.status for change in changes], [change.status for change in pooled]


@pytest.mark.parametrize("pairs", [4, 5, 10])
def test_simulated_rule_is_the_judges(pairs: int) -> None:
    """With cases of any noise and effect, some calibrated, some not; and with sides changed."""
    draw, seen = np.random.default_rng(pairs), Counter[str]()
    for _ in range(300):
        cases = int(draw.integers(1, 6))
        noise = 0.02 * np.exp(draw.standard_normal((cases, 1)))
        base, head = (noise * draw.standard_normal((cases, pairs)) for _ in range(2))
        # Near what one case shows by itself.
        head += noise * draw.normal(draw.normal(0, 0.6), 0.2, (cases, 1)) * 6 / pairs**0.5
        known = noise[:, 0] * draw.uniform(0.3, 1.2, cases) * (draw.random(cases) < draw.random())
        alone, together = (called[0] for called in look(base[None], head[None], known[None]))
        for way, sides in ((1, (base, head)), (-1, (head, base))):
            first, then = by_the_judge(*sides, known)
            assert [s == Status.SLOWER for s in first] == [*(alone == way)]
            assert [s == Status.FASTER for s in first] == [*(alone == -way)]
            assert [s == Status.SLOWER for s in then] == [*((alone == way) | (together == way))]
        seen["alone"] += int(np.abs(alone).sum())
        calibrated = bool(known[alone == 0].any())
        seen[f"together {calibrated}"] += int(np.abs(together).sum())
    assert set(seen) == {"alone", "together True", "together False"}
    assert min(seen.values()) > 15


@pytest.mark.parametrize("processes", [0, 3])
def test_equal_sides_are_called_slower_once_in_a_hundred_comparisons(processes: int) -> None:
    """Of the simulated workloads the worst, without a calibration, and with one of a machine that
    has become four times as noisy.
    """
    calibration = Calibration(processes=processes, grown=4)
    ((*_, called),) = rates(WORKLOADS["24, alike"], calibration, cases=240_000)
    assert 0.005 < called < 0.01

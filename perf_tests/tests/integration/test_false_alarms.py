"""How often a comparison of equal sides is called slower, by simulation of the whole rule."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from msgspec import structs

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.pairs import compare
from diffusers_perf.records.measurement import Interference
from diffusers_perf.records.run import Run
from perf_tests.tests.unit.recorded import RECORDED, parsed

CASES = 6
COMPARISONS = 80


def process(draw: random.Random, model: Run, *, noise: float, speed: float) -> Run:
    """A process whose host-bound cases vary by themselves, and by the speed of its cores."""
    case = model.by_id["ddim50-fp16"]
    core, cases = math.exp(draw.gauss(0, speed)), {}
    for number in range(CASES):
        rounds, loops = [], []
        for _ in range(2):
            slow = core * math.exp(draw.gauss(0, speed / 2))
            rounds.append(0.6 + 1.2 * slow * math.exp(draw.gauss(0, noise)))
            loops += [0.01 * slow * math.exp(abs(draw.gauss(0, 0.05))) for _ in range(2)]
        measured = structs.replace(
            case.measurement,
            case=f"case_{number}",
            rounds_s=tuple(rounds),
            gpu_busy_s=0.6 * math.exp(draw.gauss(0, 0.0016)),
            interference=Interference(cpu_loops_s=tuple(loops)),
        )
        record = structs.replace(case, measurement=measured, reference=None)
        cases[record.key] = record
    names = tuple(record.id for record in cases.values())
    session = structs.replace(model.session, expected=names, reference_drift={})
    return replace(model, cases=cases, session=session)


@pytest.mark.parametrize(("noise", "speed"), [(0.02, 0.0), (0.05, 0.1), (0.02, 0.3)])
def test_case_is_called_slower_by_chance_once_in_a_hundred_comparisons(
    noise: float, speed: float
) -> None:
    """As `ab` compares: five pairs, and ten where these are inconclusive."""
    (model,) = parsed(RECORDED[:1], "model")
    draw, wrong = random.Random(f"{noise} {speed}"), 0
    for _ in range(COMPARISONS):
        # A B B A A B …
        runs = [process(draw, model, noise=noise, speed=speed) for _ in range(20)]
        base, head = ([runs[2 * i + (i + side) % 2] for i in range(10)] for side in (0, 1))
        found: Comparison = compare(base[:5], head[:5])
        if found.inconclusive:
            found = compare(base, head)
        wrong += sum(c.status == Status.SLOWER for c in found.changes if c.metric == "latency")
    assert wrong / (COMPARISONS * CASES) <= 0.01

"""How often a comparison of equal sides is called slower, and what more pairs cost: simulations."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from msgspec import structs

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.stats import detectable, noise_of
from diffusers_perf.judge.weighing import weigh
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


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
def test_noise_without_a_calibration_is_seldom_called_slower(noise: float) -> None:
    """At five pairs and, where these are inconclusive, at ten: 0.25 % each."""
    draw, wrong = random.Random(1), 0
    for _ in range(3000):
        base, head = ([math.exp(draw.gauss(0, noise)) for _ in range(10)] for _ in range(2))
        five = weigh(LATENCY, head[:5], base[:5], known=0.0, of=5)
        ten = weigh(LATENCY, head, base, known=0.0, of=10)
        last = ten if five.status == Status.INCONCLUSIVE else five
        wrong += last.status == Status.SLOWER
    assert wrong / 3000 < 0.01


@pytest.mark.parametrize("grown", [1.0, 2.0, 1e6])
def test_noise_beyond_its_calibration_is_seldom_called_slower(grown: float) -> None:
    """By three processes, the fewest that calibrate, which since have become so much noisier."""
    draw, wrong = random.Random(3), 0
    for _ in range(3000):
        base, head = ([math.exp(draw.gauss(0, 0.05)) for _ in range(10)] for _ in range(2))
        known = noise_of([math.exp(draw.gauss(0, 0.05)) for _ in range(3)]) / grown
        five = weigh(LATENCY, head[:5], base[:5], known=known, of=5)
        ten = weigh(LATENCY, head, base, known=known, of=10)
        last = ten if five.status == Status.INCONCLUSIVE else five
        wrong += last.status == Status.SLOWER
    assert wrong / 3000 < 0.01


def test_rule_for_more_pairs_costs_little_and_saves_much() -> None:
    """README's figures: a simulation of one case, against ten pairs wherever five do not do."""

    def shares(noise: float, effect: float, draws: int = 400) -> tuple[float, float, float]:
        """Of comparisons called slower, always and by the rule; of extensions that are spared."""
        draw, always, ruled, inconclusive, spared = random.Random(2), 0, 0, 0, 0
        for _ in range(draws):
            base, head = (
                [by * math.exp(draw.gauss(0, noise)) for _ in range(10)] for by in (1, 1 + effect)
            )
            five, ten = (
                weigh(LATENCY, head[:pairs], base[:pairs], known=0.0, of=pairs) for pairs in (5, 10)
            )
            last = ten if five.more_could_tell else five
            always += (ten if five.status == "inconclusive" else five).status == "slower"
            ruled += last.status == "slower"
            inconclusive += five.status == "inconclusive"
            spared += five.status == "inconclusive" and not five.more_could_tell
        return always / draws, ruled / draws, spared / max(1, inconclusive)

    for noise in (0.02, 0.05):
        effect = detectable(math.sqrt(2) * noise, pairs=10, threshold=LATENCY.threshold)
        always, ruled, _ = shares(noise, effect)
        assert always > 0.87
        assert ruled > 0.77
    assert 0.4 < shares(0.02, 0.0)[2] < 0.65
    assert shares(0.05, 0.0)[2] > 0.9

"""The words of the judge: every message it has, as a person reads it, in ``messages/``.

Other tests assert facts. After a change run this module with ``--inline-snapshot=fix,create`` and
read what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from inline_snapshot import external_file
from msgspec import structs

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.comparable import NotComparable
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.messages.commands import (
    Command,
    CompareAgain,
    Literal,
    accept_structure,
    structure_command,
)
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.messages.measurement import image_not_saved, no_counters
from diffusers_perf.records.baselines import Bound, OperatorBaseline
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.measurement import (
    BlockDistance,
    Count,
    Distance,
    Interference,
    Look,
    Measurement,
    StepDistances,
)
from diffusers_perf.records.operators import Occurrence, OperatorCounts, Place
from perf_tests.tests.unit import recorded
from perf_tests.tests.unit.factories import FP16, GENERATES, REFERENCE, baseline_of, question


def texts(asked: Mapping[str, Question]) -> str:
    """The messages of each verdict under what it is about."""
    return listed({name: judge(one).text() for name, one in asked.items()})


def listed(messages: Mapping[str, str]) -> str:
    return "\n".join(f"[{name}]\n{text}\n" for name, text in messages.items())


def messages(name: str) -> Any:
    """The committed words."""
    return external_file(f"messages/{name}.txt")


def fp16(**changes: Any) -> Question:
    return question(structs.replace(FP16, **changes))


def prompted(**changes: Any) -> Question:
    return replace(fp16(**changes), workload={"prompt": "a dog"}, baseline=None)


def stepped(inputs_db: list[float], predictions_db: list[float], **blocks_db: float) -> Question:
    """A case of a step-wise workload."""
    kind = "FluxTransformerBlock 1x4096x3072"
    distances = StepDistances(
        inputs_db=tuple(inputs_db),
        predictions_db=tuple(predictions_db),
        blocks={name: BlockDistance(kind=kind, db=db) for name, db in blocks_db.items()},
        alike_blocks=True,
    )
    return replace(
        fp16(step_distances=distances), tolerance=Tolerance(psnr_db=40, ssim=0.97, step_db=30)
    )


def counting(**counters: tuple[int, int]) -> Question:
    counts = {n: Count(fixed=fixed, per_step=per_step) for n, (fixed, per_step) in counters.items()}
    return fp16(counters={**FP16.counters, **counts})


def test_images() -> None:
    asked = {
        "not finite": fp16(look=Look(finite=False, mean=0.5, std=0.2)),
        "black": fp16(look=Look(finite=True, mean=0.01, std=0.2)),
        "uniform": fp16(look=Look(finite=True, mean=0.5, std=0.01)),
        "repeat": fp16(repeat_psnr_db=50.0),
        "ignored": fp16(ignored=("seed", "prompt")),
        "seed ignored": prompted(ignored=("seed",)),
        "seed ignored without a prompt": replace(
            fp16(ignored=("seed",)),
            workload={"latents": "Tensor of 1x4x64x64"},
            baseline=None,
        ),
        "prompt ignored": prompted(ignored=("prompt",)),
        "guidance ignored": fp16(ignored=("guidance", "second text encoder")),
        "generator ignored": fp16(ignored=("generator",), repeat_psnr_db=20.0),
        "not as alone": fp16(alone_psnr_db=31.5),
        "default output": fp16(default_psnr_db=21.5),
        "cached": fp16(rounds_s=(1.0, 1.0, 1.0, 1.0, 0.0004)),
        "far": fp16(image_distance=Distance(psnr_db=39.9, ssim=0.99)),
        "farther than accepted": fp16(image_distance=Distance(psnr_db=45, ssim=0.99)),
        "not compared": fp16(image_distance=None),
        "step's inputs": stepped([60, 12, 11], [70, 70, 70]),
        "step's prediction": stepped([60, 60, 60], [55, 20, 18]),
        "step's tolerance unknown": replace(
            stepped([60, 12, 11], [70, 70, 70]), tolerance=Tolerance(psnr_db=40)
        ),
        "step's prediction, block": stepped(
            [60, 60, 60], [55, 20, 18], **{"blocks.0": 60, "blocks.1": 15, "blocks.2": 61}
        ),
        "block": stepped([60], [50], **{"blocks.0": 78, "blocks.1": 46.8, "blocks.2": 79}),
        "reference far": question(
            structs.replace(REFERENCE, image_distance=Distance(psnr_db=21.8, ssim=0.8))
        ),
        "reference new": question(structs.replace(REFERENCE, image_distance=None)),
        "reference accepted since": question(
            structs.replace(REFERENCE, image_distance=None), had_no_accepted_image=True
        ),
    }
    assert texts(asked) == messages("images")


SLOW_ROUNDS = (1.2, 1.21, 1.19, 1.2, 1.22)


def test_flags() -> None:
    on = {"deterministic algorithms": "on", "anomaly detection": "on"}
    threads = baseline_of(structs.replace(FP16, flags={"threads": "32"}), REFERENCE)
    asked = {
        "more work": fp16(flags=on),
        "new": fp16(flags={"default dtype": "float16"}),
        "threads": replace(
            fp16(rounds_s=SLOW_ROUNDS, flags={"threads": "1"}), baseline=threads, drift=1.26
        ),
    }
    assert texts(asked) == messages("flags")


def test_limits_of_a_baseline() -> None:
    slow = structs.replace(REFERENCE, rounds_s=(2.9, 2.91, 2.89))
    on_cpu: dict[str, Any] = {"gpu_busy_s": None, "peak_memory_bytes": None}
    heavy = structs.replace(FP16, peak_memory_bytes=2_636 * 2**20)
    loaded = structs.replace(FP16, metrics={"load_memory_bytes": 2_000 * 2.0**20})
    few_steps = structs.replace(
        FP16, fewest_steps=1, metrics={"default_call_s": 1.0, "denoising_stage_s": 1.0}
    )
    asked = {
        "latency": question(slow),
        "latency inconclusive": question(structs.replace(REFERENCE, rounds_s=(2.0, 3.2, 1.8, 2.6))),
        "latency, one round": question(structs.replace(REFERENCE, rounds_s=(2.9,))),
        "latency invalid": question(
            structs.replace(slow, interference=Interference(gpu=("hardware slowdown",)))
        ),
        "latency speedup": fp16(rounds_s=SLOW_ROUNDS),
        "slower than its reference": fp16(rounds_s=(2.5, 2.51, 2.49)),
        "latency speedup, drift": replace(fp16(rounds_s=SLOW_ROUNDS), drift=1.26),
        "latency speedup, slow core": question(
            structs.replace(
                FP16,
                rounds_s=SLOW_ROUNDS,
                interference=Interference(cpu_loops_s=(0.012, 0.012)),
                **on_cpu,
            ),
            reference=structs.replace(
                REFERENCE, interference=Interference(cpu_loops_s=(0.01, 0.01)), **on_cpu
            ),
        ),
        "GPU busy": fp16(gpu_busy_s=0.85),
        "GPU busy improved": fp16(gpu_busy_s=0.7),
        "GPU busy not measured": fp16(gpu_busy_s=None, notes=(no_counters("no CUPTI here"),)),
        "peak memory": question(
            structs.replace(heavy, peak_memory_bytes=3_000 * 2**20),
            baseline=baseline_of(heavy, REFERENCE),
        ),
        "peak memory not measured": fp16(peak_memory_bytes=None),
        "load memory": question(
            structs.replace(FP16, metrics={"load_memory_bytes": 2_100 * 2.0**20}),
            baseline=baseline_of(loaded, REFERENCE),
        ),
        "other shortest generation": question(
            structs.replace(few_steps, fewest_steps=3, metrics={"denoising_stage_s": 3.0}),
            baseline=baseline_of(few_steps, REFERENCE),
        ),
        "other versions": replace(
            fp16(gpu_busy_s=0.82), versions={"torch": "2.13.0", "diffusers": "0.43"}
        ),
        "options": replace(
            fp16(gpu_busy_s=0.82),
            job=MainJob(options=("--device", "cpu", "--model", "a folder")),
        ),
        "other workload": question(workload={**GENERATES, "steps": 25}),
    }
    assert texts(asked) == messages("limits")


def test_portable_bounds() -> None:
    def bound(measured: Measurement = FP16, **bounds: Bound) -> Question:
        return question(measured, baseline=None, portable=bounds)

    gib = {"memory_gib": Bound(at_most=4.0)}
    asked = {
        "GPU speedup": bound(
            structs.replace(FP16, gpu_busy_s=1.8, rounds_s=(1.9, 1.9, 1.9)),
            gpu_speedup=Bound(expected=1.5, at_least=1.2),
        ),
        "latency speedup": bound(
            structs.replace(FP16, rounds_s=(1.9, 1.91, 1.89)), latency_speedup=Bound(at_least=1.2)
        ),
        "GPU speedup not measured": bound(
            structs.replace(FP16, gpu_busy_s=None), gpu_speedup=Bound(at_least=1.2)
        ),
        "a warning of the guide": bound(gpu_speedup=Bound(at_most=1.0)),
        "memory ratio": bound(memory_ratio=Bound(at_most=0.4)),
        "memory": bound(structs.replace(FP16, peak_memory_bytes=4 * 2**30 + 2**20), **gib),
        "memory not measured": bound(structs.replace(FP16, peak_memory_bytes=None), **gib),
        "load memory": bound(
            structs.replace(FP16, metrics={"load_memory_bytes": 33 * 2.0**30}),
            load_memory_gib=Bound(at_most=11.5),
        ),
        "load memory not measured": bound(load_memory_gib=Bound(at_most=11.5)),
    }
    assert texts(asked) == messages("portable")


def test_counters() -> None:
    calls = structs.replace(FP16, counters={"python_calls": Count(fixed=500, per_step=1_000)})
    fixed = structs.replace(FP16, counters={"host_syncs": Count(fixed=99, per_step=6)})
    asked = {
        "one more in each step": counting(host_syncs=(3, 7)),
        "fewer fixed, more per step": question(
            structs.replace(FP16, counters={"host_syncs": Count(fixed=0, per_step=7)}),
            baseline=baseline_of(fixed, REFERENCE),
        ),
        "more launches": counting(kernels=(300, 1_020)),
        "fewer": counting(host_syncs=(3, 5)),
        "fewer launches": question(
            structs.replace(calls, counters={"python_calls": Count(fixed=0, per_step=900)}),
            baseline=baseline_of(calls, REFERENCE),
        ),
        "not counted": fp16(counters={}, notes=(no_counters("no CUPTI here"),)),
        "not accepted": counting(casts=(4, 0), recompiles=(0, 0)),
        "left behind": fp16(
            counters={**FP16.counters, "kept_bytes": Count(fixed=786_432, per_step=0)},
            fewest_steps=1,
        ),
        "growing in an older run": counting(host_growth_bytes=(5_050_496, 0)),
    }
    assert texts(asked) == messages("counters")


def test_operators() -> None:
    up, down = "float16 → float32", "float32 → float16"

    def observed(per_step: int, *kinds: tuple[str, str]) -> OperatorCounts:
        """Casts of these kinds, each in a class."""
        count = Count(fixed=0, per_step=per_step)
        same = {Occurrence("casts", down, Place("vae.conv", "Conv2d")): Count(fixed=5, per_step=0)}
        casts = same | {
            Occurrence("casts", kind, Place(f"unet.{owner.lower()}", owner)): count
            for kind, owner in kinds
        }
        return OperatorCounts(operators={}, occurrences=casts)

    def printed(now: OperatorCounts, was: OperatorCounts) -> str:
        known = OperatorBaseline(
            accepted="2026-01-31",
            reason="first",
            versions={"torch": "2.11.0"},
            counters={"casts": was.accepted()["casts"]},
        )
        findings = structure_verdicts.judge(
            "ddim50-fp16",
            now,
            known,
            steps=20,
            versions={"torch": "2.13.0"},
            rerun=Literal(text="diffusers-perf structure -k ddim50-fp16"),
            accept=structure_command("--model=sd15", accept=True),
            file="baselines/operators/ddim50.json",
        )
        return "\n".join(f.text() for f in findings if f.metric == "casts")

    few, many = observed(1, (up, "GroupNorm")), observed(3, (up, "GroupNorm"))
    mixed = observed(2, (up, "GroupNorm"), (down, "Linear"), (up, "Conv2d"), (down, "SiLU"))
    three = observed(2, (up, "GroupNorm"), (up, "Linear"), (up, "SiLU"))
    messages_of = {
        "more": printed(many, few),
        "more, of several kinds": printed(mixed, few),
        "more, in three classes": printed(three, few),
        "fewer": printed(few, many),
        "not counted": structure_verdicts.uncounted("ddim50-fp16").text(),
    }
    assert listed(messages_of) == messages("operators")


def test_measuring() -> None:
    asked = {
        "cold": fp16(rounds_s=(3.2, 1.61, 1.59, 1.62, 1.6)),
        "disturbed": fp16(
            rounds_s=(3.2, 1.61, 1.59, 1.62, 1.6),
            interference=Interference(host=("the host waited for a CPU for 40% of the rounds",)),
        ),
        "timer": fp16(rounds_s=(0.70, 0.71, 0.69)),
    }
    assert texts(asked) == messages("measuring")


# Head against base

Edit = Callable[[recorded.Content], object]
CASE = "ddim50-fp16"
AGAIN = CompareAgain(
    options=("--base", "origin/main", "--head", "HEAD", "--quick", "--device", "cuda"),
    pytest=("-m", "guide or lossless"),
)


def nothing(content: recorded.Content) -> None:
    """No edit."""


def pairs(
    head: Edit = nothing,
    *,
    base: Edit = nothing,
    only: range = range(10),
    count: int = 5,
    noise: float | None = recorded.QUIET,
    more: str = "",
    again: Command | None = None,
) -> Comparison:
    """Recorded processes, of which those of head in `only` are edited."""
    sides = [recorded.side(name, count=count, noise=noise) for name in ("base", "head")]
    for content in sides[0]:
        base(content)
    for number, content in enumerate(sides[1]):
        if number in only:
            head(content)
    return compare(
        *(recorded.parsed(one, side) for one, side in zip(sides, ("base", "head"), strict=True)),
        more=more,
        again=again,
    )


def seen(**changes: Any) -> Edit:
    """Of the measurement of fp16."""
    return lambda content: recorded.measured(content, CASE).update(changes)


def counted(name: str, *, per_step: int) -> Edit:
    def edit(content: recorded.Content) -> None:
        recorded.measured(content, CASE)["counters"][name][1] = per_step

    return edit


def slower(by: float) -> Edit:
    return lambda content: recorded.slow(content, CASE, by=by)


def on_cpu(*, loop_s: float, by: float = 1.0) -> Edit:
    """As without a GPU, on a core whose calibration loop takes so long; every case is slower."""

    def edit(content: recorded.Content) -> None:
        recorded.machine(content)["device"] = "cpu"
        for one in recorded.cases(content):
            measured = one["measurement"]
            measured.update(gpu_busy_s=None, peak_memory_bytes=None)
            measured["rounds_s"] = [by * seconds for seconds in measured["rounds_s"]]
            loops = [loop_s] * 2 * len(measured["rounds_s"])
            measured["interference"]["cpu_loops_s"] = loops
        recorded.settle(content)

    return edit


def with_cpu(model: str) -> Edit:
    return lambda content: recorded.machine(content).update(cpu=model)


def dropped(content: recorded.Content) -> None:
    recorded.drop(content, CASE)


def left_out(content: recorded.Content) -> None:
    recorded.drop(content, CASE)
    recorded.session(content)["not_selected"].append(CASE)


def interrupted(content: recorded.Content) -> None:
    recorded.drop(content, CASE)
    recorded.session(content)["expected"].append(CASE)
    other = recorded.lost("ddim50-tf32", "invalid", "interrupted")
    recorded.session(content)["not_timed"].append(other)


def untimed(status: str) -> Edit:
    def edit(content: recorded.Content) -> None:
        recorded.drop(content, CASE)
        lost = recorded.lost(CASE, status, f"{CASE}: RuntimeError: no kernel image")
        recorded.session(content)["not_timed"].append(lost)

    return edit


def affected(content: recorded.Content) -> None:
    recorded.measured(content, CASE)["interference"]["gpu"] = ["1 other process on the GPU"]


def drifted(content: recorded.Content) -> None:
    drift = {"ratio": 1.13, "significant": True}
    recorded.session(content)["reference_drift"]["ddim50"] = drift


def untolerated(psnr_db: float) -> Edit:
    def edit(content: recorded.Content) -> None:
        recorded.case(content, CASE)["tolerance"] = None
        distance = {"psnr_db": psnr_db, "ssim": 0.9}
        recorded.measured(content, CASE)["image_distance"] = distance

    return edit


def reference_at(psnr_db: float) -> Edit:
    """Of the accepted image, within its tolerance."""

    def edit(content: recorded.Content) -> None:
        one = recorded.case(content, "ddim50-reference")
        one["tolerance"] = {"psnr_db": 45.0, "ssim": 0.9}
        one["measurement"]["image_distance"] = {"psnr_db": psnr_db, "ssim": 0.99}

    return edit


def black(content: recorded.Content) -> None:
    recorded.black(content, CASE)


def test_pairs() -> None:
    host_bound = recorded.QUIET * 20
    uncounted = seen(
        gpu_busy_s=None,
        counters={},
        notes=[image_not_saved("ddim50-fp16", "disk full"), no_counters("no trace")],
    )
    compared = {
        "nothing changed": pairs(),
        "slower": pairs(slower(1.05)),
        "faster": pairs(slower(0.9)),
        "too noisy, more pairs": pairs(slower(1.05), noise=0.012, more="ab --pairs 10"),
        "too noisy, too far": pairs(slower(1.05), noise=host_bound),
        "too noisy, ten pairs": pairs(slower(1.05), count=10, noise=host_bound),
        "one pair": pairs(count=1),
        "two pairs": pairs(slower(1.05), count=2, noise=host_bound),
        "slower start": pairs(seen(metrics={"load_s": 2.3}), base=seen(metrics={"load_s": 0.3})),
        "other shortest generation": pairs(
            seen(fewest_steps=3, metrics={"denoising_stage_s": 0.3, "default_call_s": 0.3}),
            base=seen(fewest_steps=1, metrics={"denoising_stage_s": 0.1, "default_call_s": 0.1}),
        ),
        "slower, by ab": pairs(slower(1.05), again=AGAIN),
        "interference, by ab": pairs(affected, again=AGAIN),
        "missing, by ab": pairs(dropped, again=AGAIN),
        "failed, by ab": pairs(untimed("error"), again=AGAIN),
        "lost prompt, by ab": pairs(seen(ignored=["prompt"]), again=AGAIN),
        "other image than accepted, by ab": pairs(reference_at(30.0), again=AGAIN),
        "more memory": pairs(seen(peak_memory_bytes=2_900 * 2**20)),
        "more load memory": pairs(
            seen(metrics={"load_memory_bytes": 2_100 * 2.0**20}),
            base=seen(metrics={"load_memory_bytes": 2_000 * 2.0**20}),
        ),
        "more work": pairs(counted("host_syncs", per_step=7)),
        "less work": pairs(counted("host_syncs", per_step=0)),
        "more launches": pairs(counted("kernels", per_step=20_000)),
        "work of some processes": pairs(counted("host_syncs", per_step=7), only=range(2)),
        "not measured in head": pairs(uncounted),
        "not measured in base": pairs(base=uncounted),
        "not measured in one process": pairs(seen(gpu_busy_s=None), only=range(1)),
        "interference": pairs(affected),
        "interference in one": pairs(affected, only=range(1)),
        "drift": pairs(drifted),
        "slower together": pairs(on_cpu(loop_s=0.01, by=1.025), base=on_cpu(loop_s=0.01)),
        "slower host": pairs(on_cpu(loop_s=0.012, by=1.2), base=on_cpu(loop_s=0.01)),
        "host a little slower": pairs(on_cpu(loop_s=0.0108, by=1.08), base=on_cpu(loop_s=0.01)),
        "other CPU": pairs(with_cpu("AMD EPYC"), base=with_cpu("Intel Xeon")),
        "missing": pairs(dropped),
        "left out": pairs(left_out),
        "interrupted": pairs(interrupted),
        "skipped": pairs(untimed("skipped")),
        "error": pairs(untimed("error")),
        "error, as in base": pairs(untimed("error"), base=untimed("error")),
        "new": pairs(base=dropped),
        "black": pairs(black),
        "black, as in base": pairs(black, base=black),
        "far": pairs(seen(image_distance={"psnr_db": 22.0, "ssim": 0.8})),
        "farther than base's": pairs(untolerated(20.0), base=untolerated(40.0)),
        "reference farther than base's": pairs(reference_at(45.3), base=reference_at(59.1)),
    }
    printed = {
        name: "\n".join([*(text for _, text in comparison.texts()), comparison.sentence])
        for name, comparison in compared.items()
    }
    same = [change.text() for change in pairs().changes if change.case == CASE]
    without_tolerance = pairs(untolerated(40.0), base=untolerated(40.0))
    same += [c.text() for c in without_tolerance.changes if (c.case, c.metric) == (CASE, "image")]
    same += [change.text() for change in pairs().changes if change.metric == "drift"]
    assert listed({**printed, "the same": "\n".join(same)}) == messages("pairs")


def test_runs_that_are_not_comparable() -> None:
    def machine(**changes: Any) -> Edit:
        return lambda content: recorded.machine(content).update(changes)

    def session(**changes: Any) -> Edit:
        return lambda content: recorded.session(content).update(changes)

    def weights(content: recorded.Content) -> None:
        for one in recorded.cases(content):
            one["measurement"]["weights"] = "seeded-7"

    def workload(content: recorded.Content) -> None:
        recorded.case(content, CASE)["workload"]["guidance_scale"] = 1.0

    def no_case(content: recorded.Content) -> None:
        content["benchmarks"] = []
        recorded.session(content)["expected"] = []

    def refused(**asked: Any) -> str:
        with pytest.raises(NotComparable) as error:
            pairs(**asked)
        return str(error.value)

    printed = {
        "one machine per side": refused(head=machine(torch="2.12.0"), only=range(1)),
        "other machine": refused(head=machine(name="NVIDIA A100-SXM4-80GB")),
        "other memory": refused(head=machine(memory_bytes=80 * 2**30)),
        "other measuring code": refused(head=session(harness_version="ba9876543210")),
        "quick": refused(head=session(quick=True)),
        "other weights": refused(head=weights),
        "other workload": refused(head=workload),
        "other rounds": refused(head=seen(rounds_s=[1.0, 1.0])),
        "no case": refused(head=no_case, base=no_case),
        "no case in base": refused(base=no_case),
    }
    with pytest.raises(NotComparable) as error:
        compare([], [])
    printed["no run"] = str(error.value)
    assert listed(printed) == messages("not_comparable")


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("sd15", (), ""),
        ("sd15", ("--quick", "--model=sd15"), " --model=sd15"),
        # `structure` leaves out a small model unless it is named.
        ("embedded", (), " --model=embedded"),
        ("embedded", ("--model=embedded",), " --model=embedded"),
    ],
)
def test_command_that_accepts_counts_names_the_model(
    model: str, options: tuple[str, ...], named: str
) -> None:
    command = accept_structure(MainJob(options=options), model).of()
    assert command == f'diffusers-perf structure{named} --write --reason "why"'
    assert structure_command("--cpu").of() == "diffusers-perf structure --cpu"

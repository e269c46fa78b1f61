"""The words of the judge: every message it has, as a person reads it, in ``messages/``.

Other tests assert facts. After a change run this module with ``--inline-snapshot=fix,create`` and
read what it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inline_snapshot import external_file
from msgspec import structs

from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.records.baselines import Bound
from diffusers_perf.records.measurement import Count, Distance, Interference, Look, Measurement
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
        "far": fp16(image_distance=Distance(psnr_db=39.9, ssim=0.99)),
        "not compared": fp16(image_distance=None),
        "reference far": question(
            structs.replace(REFERENCE, image_distance=Distance(psnr_db=21.8, ssim=0.8))
        ),
        "reference new": question(structs.replace(REFERENCE, image_distance=None)),
    }
    assert texts(asked) == messages("images")


SLOW_ROUNDS = (1.2, 1.21, 1.19, 1.2, 1.22)


def test_limits_of_a_baseline() -> None:
    slow = structs.replace(REFERENCE, rounds_s=(2.9, 2.91, 2.89))
    on_cpu: dict[str, Any] = {"gpu_busy_s": None, "peak_memory_bytes": None}
    heavy = structs.replace(FP16, peak_memory_bytes=2_636 * 2**20)
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
        "GPU busy not measured": fp16(gpu_busy_s=None, notes=("no CUPTI here",)),
        "peak memory": question(
            structs.replace(heavy, peak_memory_bytes=3_000 * 2**20),
            baseline=baseline_of(heavy, REFERENCE),
        ),
        "peak memory not measured": fp16(peak_memory_bytes=None),
        "other versions": replace(
            fp16(gpu_busy_s=0.82), versions={"torch": "2.13.0", "diffusers": "0.43"}
        ),
        "options": replace(
            fp16(gpu_busy_s=0.82), options=("--device", "cpu", "--model", "a folder")
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
        "not counted": fp16(counters={}, notes=("no CUPTI here",)),
        "not accepted": counting(casts=(4, 0), recompiles=(0, 0)),
        "left behind": counting(kept_bytes=(786_432, 0)),
    }
    assert texts(asked) == messages("counters")


def test_measuring() -> None:
    asked = {
        "cold": fp16(rounds_s=(1.6, 1.01, 0.99, 1.02, 0.98)),
        "timer": fp16(rounds_s=(0.70, 0.71, 0.69)),
    }
    assert texts(asked) == messages("measuring")

"""What many tests judge: a reference, a case that is faster, their baseline, and the question."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.judge.question import Question
from diffusers_perf.records.baselines import CaseBaseline
from diffusers_perf.records.measurement import Count, Distance, Look, Measurement

CLOSE = Distance(psnr_db=60, ssim=0.999)
GENERATES = {"name": "ddim50", "steps": 50, "base": []}
REFERENCE = Measurement(
    case="reference",
    workload="ddim50",
    steps=50,
    num_images=1,
    model="sd15",
    weights="seeded",
    parameters=1_000,
    rounds_s=(2.00, 2.02, 1.98, 2.01, 1.99),
    look=Look(finite=True, mean=0.5, std=0.2),
    repeat_psnr_db=120,
    image_distance=CLOSE,
    gpu_busy_s=2.0,
    peak_memory_bytes=4_000,
    counters={"host_syncs": Count(fixed=3, per_step=6), "kernels": Count(fixed=300, per_step=1000)},
)
FP16 = structs.replace(
    REFERENCE,
    case="fp16",
    rounds_s=(1.00, 1.01, 0.99, 1.02, 0.98),
    gpu_busy_s=0.8,
    peak_memory_bytes=2_000,
)


def baseline_of(measured: Measurement, reference: Measurement) -> CaseBaseline:
    """What three processes that measured this are accepted as."""
    return accepted_of(
        [(measured, None if measured is reference else reference)] * 3,
        accepted="2026-11-22",
        versions={"torch": "2.11.0", "diffusers": "0.42.1"},
        workload=GENERATES,
        device="cuda",
    )


def question(measured: Measurement = FP16, **changes: Any) -> Question:
    reference = measured if measured.case == "reference" else REFERENCE
    before = baseline_of(FP16 if reference is REFERENCE else REFERENCE, REFERENCE)
    asked: dict[str, Any] = {
        "measured": measured,
        "reference": reference,
        "tolerance": Tolerance(psnr_db=40, ssim=0.97),
        "baseline": before,
        "baseline_name": "baselines/gpu.json",
        "folder": "baselines",
        "portable": {},
        "card": "",
        "versions": {"torch": "2.11.0", "diffusers": "0.42.1"},
        "image_only": False,
        "workload": GENERATES,
    } | changes
    return Question(**asked)

"""Images beside recorded runs, and runs of many cases, for tests of the report."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np

from diffusers_perf.records import pixels
from perf_tests.tests.unit.recorded import Content

SIDE = 64


def shown(content: Content, path: Path, *, side: int = SIDE) -> Path:
    """Write the run with an image of each case beside it; returns its path."""
    path.write_text(json.dumps(content))
    images: dict[str, pixels.Images] = {}
    for benchmark in content["benchmarks"]:
        info = benchmark["extra_info"]
        shape = (info["num_images"], side, side, 3)
        drawn = images.setdefault(
            info["workload"], np.random.default_rng(0).random(shape, dtype=np.float32)
        )
        dark = 0.0 if info["image"]["mean"] < 0.02 else 1.0
        closer = drawn if info["case"] == "reference" else 0.95 * drawn
        pixels.save(dark * closer, image(path, f"{info['workload']}-{info['case']}"))
    return path


def image(path: Path, case: str) -> Path:
    """Where a run's image of a case lies."""
    return path.with_name(f"{path.stem}-images") / f"{case}.png"


def many(content: Content, count: int) -> Content:
    """The same run with this many cases on its first workload, each a little faster."""
    content = deepcopy(content)
    reference, model = (benchmark["extra_info"] for benchmark in content["benchmarks"][:2])
    infos = [reference]
    for number in range(1, count):
        info = deepcopy(model) | {"case": f"case_{number}", "verdict": "same"}
        share = 1 - 0.8 * number / count
        info["latency_rounds_s"] = [share * seconds for seconds in model["latency_rounds_s"]]
        info["latency_s"] = share * model["latency_s"]
        info["gpu_busy_s"] = share * model["gpu_busy_s"]
        info["stages"] = {"denoising": 0.9 * info["gpu_busy_s"], "decoder": 0.1 * share}
        info["families"] = {
            family: {"gpu_s": 0.25 * info["gpu_busy_s"], "kernels": 100 * number}
            for family in ("attention: cudnn", "convolution", "matmul", "elementwise")
        }
        infos.append(info)
    content["benchmarks"] = [{"extra_info": info} for info in infos]
    content["perf_tests"]["expected"] = [f"{info['workload']}-{info['case']}" for info in infos]
    return content

"""Images beside recorded runs, and runs of many cases, for tests of the report."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np

from diffusers_perf.records import image_files
from diffusers_perf.records.run import KEY
from perf_tests.tests.unit.recorded import Content, case_id, cases, session

SIDE = 64


def shown(content: Content, path: Path, *, side: int = SIDE) -> Path:
    """Write the run with an image of each case beside it; returns its path."""
    path.write_text(json.dumps(content))
    for one in cases(content):
        seen = one["measurement"]
        dark = seen["look"]["mean"] < 0.02
        brightness = 0.0 if dark else 1.0 if seen["case"] == "reference" else 0.95
        file = image(path, case_id(one))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_noise(seen["num_images"], side, brightness))
    return path


@cache
def _noise(count: int, side: int, brightness: float) -> bytes:
    drawn = np.random.default_rng(0).random((count, side, side, 3), dtype=np.float32)
    return image_files.encoded(np.float32(brightness) * drawn)


def image(path: Path, case: str) -> Path:
    """Where a run's image of a case lies."""
    return path.with_name(f"{path.stem}-images") / f"{case}.png"


def many(content: Content, count: int) -> Content:
    """The same run with this many cases on its first workload, each a little faster."""
    content = deepcopy(content)
    reference, model = cases(content)[:2]
    records = [reference]
    for number in range(1, count):
        one = deepcopy(model) | {"status": "same"}
        seen, like = one["measurement"], model["measurement"]
        share = 1 - 0.8 * number / count
        seen["case"] = f"case_{number}"
        seen["rounds_s"] = [share * seconds for seconds in like["rounds_s"]]
        seen["gpu_busy_s"] = busy = share * like["gpu_busy_s"]
        seen["stages_s"] = {"denoising": 0.9 * busy, "decoder": 0.1 * share}
        seen["families"] = {
            family: {"gpu_s": 0.25 * busy, "kernels": 100 * number}
            for family in ("attention: cudnn", "convolution", "matmul", "elementwise")
        }
        records.append(one)
    content["benchmarks"] = [{"extra_info": {KEY: one}} for one in records]
    session(content)["expected"] = [case_id(one) for one in records]
    return content

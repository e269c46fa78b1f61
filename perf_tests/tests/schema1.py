"""Converts the JSON of a version 1 run (schema 1), as most recorded runs are, to schema 2.

No number changes. Version 1 said derived numbers as well (speedups, totals of counters); they
follow from the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

OLD_KEY = "perf_tests"
KEY = "diffusers_perf"
STATUSES = {"unclear": "inconclusive", "flat": "uniform", "worse picture": "worse image"}
"""Words of version 1 that are called otherwise now; all others stayed."""
INTERFERENCE = {"disturbed_by": "gpu", "host_disturbed_by": "host"}

Json = Mapping[str, Any]


class CannotUpgrade(Exception):
    """A run of schema 1 that cannot be converted."""


def is_run(content: Any) -> bool:
    """Whether this is the JSON of a version 1 run."""
    ours = content.get(OLD_KEY) if isinstance(content, dict) else None
    return isinstance(ours, dict) and ours.get("schema") == 1


def upgraded(content: Json) -> dict[str, Any]:
    """The same run in schema 2. `CannotUpgrade` for one that lacks what every run of schema 1 has.

    Values are taken as they are: whoever reads the result validates them.
    """
    try:
        return _file(content)
    except KeyError as error:
        raise CannotUpgrade(f"lacks {error}") from None
    except (TypeError, AttributeError, ValueError):
        raise CannotUpgrade("has another type somewhere") from None


def convert(path: Path) -> None:
    """Convert a file in place; one that cannot be converted stays as it is."""
    with suppress(CannotUpgrade, ValueError, RecursionError):
        if is_run(content := json.loads(path.read_bytes())):
            path.write_text(json.dumps(upgraded(content)))


def _file(content: Json) -> dict[str, Any]:
    machine_info, ours = content["machine_info"], content[OLD_KEY]
    shard = ours["shard"]
    rest = {name: value for name, value in content.items() if name != OLD_KEY}
    return {
        **rest,
        "machine_info": {KEY: machine_info[OLD_KEY]},
        "benchmarks": [
            {**benchmark, "extra_info": {KEY: _case(benchmark["extra_info"])}}
            for benchmark in content["benchmarks"]
        ],
        KEY: {
            "schema": 2,
            "quick": ours["quick"],
            "options": ours["options"],
            "harness_version": ours["measuring"],
            "scale": ours["scale"],
            "expected": ours["expected"],
            "narrowed": ours["narrowed"],
            "not_selected": ours["not_asked"],
            "shard": shard
            and {"index": shard["index"], "count": shard["of"], "cases": shard["cases"]},
            "reference_drift": ours["reference_drift"],
            "not_timed": [
                {
                    "id": f"{lost['workload']}-{lost['case']}",
                    "status": _status(lost["verdict"]),
                    "sentence": lost["sentence"],
                    "by_choice": lost["by_choice"],
                }
                for lost in ours["not_timed"]
            ],
        },
    }


def _case(info: Json) -> dict[str, Any]:
    status, sentence = info["verdict"], info.get("sentence", "")
    if sentence.startswith(f"{status}: "):
        sentence = _status(status) + sentence.removeprefix(status)
    other = info["reference"]
    return {
        "measurement": _measurement(info),
        "reference": other
        and {
            "case": info["against"],
            "rounds_s": other["latency_rounds_s"],
            "gpu_busy_s": other["gpu_busy_s"],
            "peak_memory_bytes": other["peak_memory_bytes"],
            "interference": _renamed(other["validity"], INTERFERENCE),
        },
        "status": _status(status),
        "sentence": sentence,
        "tolerance": info["promise"],
        "workload": workload_of(info["generates"]),
        "stack": info.get("stack", {}),
        "image_only": info["picture_only"],
        "reference_drift": info["reference_drift"],
    }


def workload_of(generates: Json) -> dict[str, Any]:
    """A workload by the names of `catalog.Workload`: version 1 knew Stable Diffusion's alone."""
    same = ("name", "prompt", "steps", "seed", "scheduler", "base")
    size = generates["size"]
    return {
        **{name: generates[name] for name in same},
        "height": size,
        "width": size,
        "guidance_scale": generates["guidance"],
        "num_images": generates["images"],
    }


def _measurement(info: Json) -> dict[str, Any]:
    if not math.isfinite(info.get("latency_s", 1.0)):
        raise ValueError  # nor can its rounds be trusted
    image = info["picture"]
    if not image["finite"]:
        # Such an image could have any numbers beside it, and they mean nothing.
        image = {name: _finite(value) for name, value in image.items()}
    compared = image["psnr_db"] is not None and image["ssim"] is not None
    same = ("case", "workload", "steps", "model", "weights", "parameters", "notes")
    return {
        **{name: info[name] for name in (*same, "gpu_busy_s", "peak_memory_bytes")},
        "num_images": info["images"],
        "rounds_s": info["latency_rounds_s"],
        "look": {name: image[name] for name in ("finite", "mean", "std")},
        "repeat_psnr_db": image["repeat_psnr_db"],
        "image_distance": {"psnr_db": image["psnr_db"], "ssim": image["ssim"]}
        if compared
        else None,
        "time_to_first_image_s": info.get("first_picture_s"),
        "compile_cache": info.get("compile_cache"),
        "roofline_s": info["floor_s"],
        "roofline_by": info["floor_by"],
        "ignored": image["ignored"],
        "observing_s": info.get("observing_s", 0.0),
        "counters": {
            name: [count["fixed"], count["per_step"]] for name, count in info["counters"].items()
        },
        "stages_s": info.get("stages", {}),
        "families": info["families"],
        "interference": _renamed(info["validity"], INTERFERENCE),
    }


def _status(word: str) -> str:
    return STATUSES.get(word, word)


def _renamed(content: Json, names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in content.items()}


def _finite(value: Any) -> Any:
    return 0.0 if isinstance(value, float) and not math.isfinite(value) else value

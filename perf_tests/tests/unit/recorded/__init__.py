"""Runs that version 1 recorded on H200s, converted to schema 2 as they are read: five pairs, twice,
and three stripped to a few cases, with more processes made from those three.

What was not recorded yet when the three were made stands beside it as it was: the reference's
numbers, the optimizations' tolerances, and what the workloads generate, from the catalogue of
that day. What is unknown now is null, or empty.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from diffusers_perf.cli import __main__ as command
from diffusers_perf.records import image_files
from diffusers_perf.records.reading import run_of
from diffusers_perf.records.run import KEY, Run
from perf_tests.tests import schema1

Content = dict[str, Any]
"""A run's JSON."""

FOLDER = Path(__file__).parent
RECORDED: tuple[Content, ...] = tuple(
    schema1.upgraded(json.loads((FOLDER / f"h200-{number}.json").read_text()))
    for number in (1, 2, 3)
)
_FIRST = msgspec.json.encode(RECORDED[0])
"""Decoded anew for each process, which is faster than to copy it."""
QUIET = 0.003
"""Noise of a latency that the GPU decides, as under a CUDA graph: log standard deviation."""
BUSY_NOISE = 0.0016
"""Of GPU busy between the three recorded processes, which ran on two hosts."""


def five_pairs(name: str) -> tuple[list[Content], list[Content]]:
    """Base and head, quick processes of one commit in turns, with six digits of each number and
    only what is judged.

    ``same`` is an `ab` of it against itself over seven of the guide's rows. In ``injected`` head
    had 5 % more GPU work in each step of ddim50's fp16, a sleep of 110 % of a step in its tf32+fp16
    and one of 24 % in pndm25x4's distilled_unet: twice, and half of, what `calibrate` had said of
    ``same`` that it sees.
    """
    sides = json.loads(gzip.decompress((FOLDER / f"h200-{name}.json.gz").read_bytes()))
    base, head = ([schema1.upgraded(run) for run in sides[name]] for name in ("base", "head"))
    return base, head


def served(model: str) -> list[Run]:
    """Three processes of the guide rows of `sdxl` or `flux1-dev`, of one commit."""
    runs = json.loads(gzip.decompress((FOLDER / "h200-served.json.gz").read_bytes()))[model]
    return [run_of(content, Path(f"{model}-{number}")) for number, content in enumerate(runs, 1)]


def clean(model: str) -> list[Run]:
    """Two or three processes of one commit: the guide suite of `sd15`, the rows of `flux1-schnell`,
    and of `sdxl` and `flux1-dev` those that are offloaded, in float32 or compiled per block.
    `flux1`, of both, has those in float32 or compiled per block in one process, of one round each.
    """
    runs = json.loads(gzip.decompress((FOLDER / "h200-clean.json.gz").read_bytes()))[model]
    return [run_of(content, Path(f"{model}-{number}")) for number, content in enumerate(runs, 1)]


def three_rounds(part: str) -> list[Run]:
    """Three processes of one commit, of three rounds each: rows of ``flux``, or the guide's of
    ``sd15``. The first ran both parts and FLUX.1-dev's batch of four in one process.
    """
    runs = json.loads(gzip.decompress((FOLDER / "h200-three-rounds.json.gz").read_bytes()))
    others = {"flux": ("three_2", "three_3"), "sd15": ("guide_2", "guide_3")}[part]
    first, *further = (run_of(runs[name], Path(name)) for name in ("all_1", *others))
    cases = {key: case for key, case in first.cases.items() if key in further[0].cases}
    return [replace(first, cases=cases), *further]


def slow_host() -> tuple[list[Run], dict[str, Run]]:
    """SD v1.5's reference: the processes of one commit, and two more on a host whose cores differed
    by 2.4 times. In ``sd_1`` the core was slow beside all rounds, and in ``guide_3b`` before them.
    """
    content = gzip.decompress((FOLDER / "h200-slow-host.json.gz").read_bytes())
    found = {name: run_of(run, Path(name)) for name, run in json.loads(content).items()}
    keys = found["sd_1"].cases.keys()
    before = [
        replace(run, cases={key: case for key, case in run.cases.items() if key in keys})
        for run in three_rounds("sd15")
    ]
    return before, found


def more_work() -> tuple[list[Run], list[Run]]:
    """Five pairs of quick processes of FLUX.1-dev's reference, head with one kernel more in each
    step: 1.5 % of its work. Head's last ran on a core at half of its speed.
    """
    content = gzip.decompress((FOLDER / "h200-flux-more-work.json.gz").read_bytes())
    base, head = (
        [run_of(run, Path(f"{name}-{number}")) for number, run in enumerate(runs, 1)]
        for name, runs in json.loads(content).items()
    )
    return base, head


DIFFERING = "flux1-dev, numbers that differ"


def two_percent(model: str) -> dict[str, list[Run]]:
    """Five quick processes each of the reference of `sdxl` or `flux1-dev` on an H200: base and
    head in turns, head with one kernel more in each step (2 % of its work, of ones, which take
    little power), then base again. Of `DIFFERING` four pairs, with a kernel of random numbers.
    """
    content = gzip.decompress((FOLDER / "h200-two-percent.json.gz").read_bytes())
    return {
        name: [run_of(run, Path(f"{name}-{number}")) for number, run in enumerate(runs, 1)]
        for name, runs in json.loads(content)[model].items()
    }


def process(name: str, *, noise: float | None = QUIET) -> Content:
    """One more process of the recorded kind; the same name gives the same numbers.

    Without a noise, its rounds are drawn from the recorded ones.
    """
    content, draw = msgspec.json.decode(_FIRST), random.Random(name)
    recorded = [{case_id(one): one["measurement"] for one in cases(run)} for run in RECORDED]
    for one in cases(content):
        if one["image_only"]:
            continue
        seen, name_of = one["measurement"], case_id(one)
        rounds = [s for run in recorded if name_of in run for s in run[name_of]["rounds_s"]]
        if noise is None:
            seen["rounds_s"] = draw.choices(rounds, k=5)
        else:
            quiet = median(rounds) * math.exp(draw.gauss(0, noise))
            seen["rounds_s"] = [quiet] * 5
        seen["gpu_busy_s"] *= math.exp(draw.gauss(0, BUSY_NOISE))
    for drift in session(content)["reference_drift"].values():
        drift.update(ratio=1.01, significant=False)
    return settle(content)


def side(name: str, *, count: int = 5, noise: float | None = QUIET) -> list[Content]:
    return [process(f"{name}-{number}", noise=noise) for number in range(count)]


def settle(content: Content) -> Content:
    """Have each case's reference say what the reference's own case does."""
    measured = {case_id(one): one["measurement"] for one in cases(content)}
    for one in cases(content):
        if one["reference"] is None:
            continue
        other = measured.get(f"{one['measurement']['workload']}-{one['reference']['case']}")
        if other:
            names = ("rounds_s", "gpu_busy_s", "peak_memory_bytes")
            one["reference"].update({name: other[name] for name in names})
    return content


def session(content: Content) -> Content:
    """What the run says of itself as a whole."""
    whole: Content = content[KEY]
    return whole


def machine(content: Content) -> Content:
    """The machine that it was measured on."""
    known: Content = content["machine_info"][KEY]
    return known


def cases(content: Content) -> list[Content]:
    """The records of all cases, in order."""
    return [benchmark["extra_info"][KEY] for benchmark in content["benchmarks"]]


def case_id(one: Content) -> str:
    """The id of a case's record."""
    return f"{one['measurement']['workload']}-{one['measurement']['case']}"


def key_of(one: Content) -> str:
    """The key of a case's record."""
    return "/".join(one["measurement"][name] for name in ("workload", "model", "weights", "case"))


def case(content: Content, name: str) -> Content:
    """The record of the case of this id."""
    return next(one for one in cases(content) if case_id(one) == name)


def measured(content: Content, name: str) -> Content:
    """The measurement of the case of this id."""
    seen: Content = case(content, name)["measurement"]
    return seen


def lost(name: str, status: str, sentence: str = "", *, by_choice: bool = False) -> Content:
    """A case without a measurement, as a run says it."""
    return {"id": name, "status": status, "sentence": sentence, "by_choice": by_choice}


def drop(content: Content, name: str) -> None:
    """Leave the case of this id out, as if it had never been there."""
    kept = [b for b in content["benchmarks"] if case_id(b["extra_info"][KEY]) != name]
    content["benchmarks"] = kept
    ours = session(content)
    ours["expected"] = [other for other in ours["expected"] if other != name]


def keep(content: Content, *names: str) -> None:
    """Leave every case out but those of these ids."""
    for other in [case_id(one) for one in cases(content)]:
        if other not in names:
            drop(content, other)


def slow(content: Content, name: str, *, by: float) -> None:
    """The case takes this many times as long, on the GPU and by the clock."""
    seen = measured(content, name)
    seen["rounds_s"] = [by * seconds for seconds in seen["rounds_s"]]
    seen["gpu_busy_s"] *= by
    settle(content)


def black(content: Content, name: str) -> None:
    seen = measured(content, name)
    seen["look"].update(mean=0.002, std=0.0)
    seen["image_distance"] = {"psnr_db": 5.2, "ssim": 0.01}


def write(contents: Sequence[Content], folder: Path, name: str) -> list[Path]:
    """The contents' files, in order."""
    paths = [folder / f"{name}-{number}.json" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    return paths


def with_images(contents: Sequence[Content], folder: Path, name: str) -> list[Path]:
    """The contents' files, each with its references' images, of coarse noise, beside it."""
    paths = write(contents, folder, name)
    for path in paths:
        images = path.with_name(f"{path.stem}-images")
        images.mkdir(exist_ok=True)
        for workload, count in (("ddim50", 1), ("pndm25x4", 4), ("vase25", 1)):
            (images / f"{workload}-reference.png").write_bytes(_coarse_noise(count))
    return paths


@cache
def _coarse_noise(count: int) -> bytes:
    drawn = np.random.default_rng(0).random((count, 8, 8, 3), dtype=np.float32)
    return image_files.encoded(drawn.repeat(64, axis=1).repeat(64, axis=2))


def accept(contents: Sequence[Content], folder: Path, reason: str = "first") -> int:
    """`ci accept` of these runs, written beside the folder of baselines."""
    paths = with_images(contents, folder.parent, reason.replace(" ", "-"))
    options = ["--baselines", str(folder), "--reason", reason]
    return command.main(["accept", *map(str, paths), *options])


def parsed(contents: Sequence[Content], name: str) -> list[Run]:
    """The runs that the contents describe."""
    return [run_of(one, Path(f"{name}-{number}.json")) for number, one in enumerate(contents)]

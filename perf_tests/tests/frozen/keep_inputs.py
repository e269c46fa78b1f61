# mypy: ignore-errors
"""Keeps fresh runs of the CPU main job as inputs: ``python -m ... FOLDER``, which holds cpu-1.json
to cpu-3.json, and quick-base-0.json, quick-head-0.json and so on.

What no verdict depends on is left out: pytest-benchmark's statistics and what it says of the host.
What `ci accept` makes of the three, from one undisturbed process or more, is cpu-baseline.json.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

from ci.accept import accept

from perf_tests.harness import baselines
from perf_tests.tests.frozen import INPUTS, PAIRS, Content
from perf_tests.unit.recorded import side


def main(folder: Path) -> None:
    INPUTS.mkdir(exist_ok=True)
    for number in (1, 2, 3):
        write(f"cpu-{number}", kept(folder / f"cpu-{number}.json"))
    write(
        "cpu-quick",
        {
            side: [kept(folder / f"quick-{side}-{n}.json") for n in range(PAIRS["cpu-quick"])]
            for side in ("base", "head")
        },
    )
    write("h200-quiet", {name: side(name) for name in ("base", "head")})
    accept_cpu([folder / f"cpu-{number}.json" for number in (1, 2, 3)])


def accept_cpu(paths: list[Path]) -> None:
    """Keep these runs' baseline, and leave the committed ones as they are."""
    slug = baselines.slug_of(kept(paths[0])["machine_info"]["perf_tests"]["name"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "baselines"
        shutil.copytree(baselines.FOLDER, folder)
        baselines.FOLDER = folder
        accept(paths, reason="frozen", processes=1)
        shutil.copy(baselines.machine_path(slug), INPUTS / "cpu-baseline.json")


def kept(path: Path) -> Content:
    """A run without what only pytest-benchmark reads."""
    content: Content = json.loads(path.read_text())
    machine = content["machine_info"]
    content["machine_info"] = {"perf_tests": machine["perf_tests"]}
    content["commit_info"] = {"id": content["commit_info"]["id"]}
    content["benchmarks"] = [
        {name: benchmark[name] for name in ("name", "extra_info")}
        for benchmark in content["benchmarks"]
    ]
    return content


def write(name: str, content: Content) -> None:
    # Without a time in it, the same content gives the same file.
    data = gzip.compress(json.dumps(content).encode(), 9, mtime=0)
    (INPUTS / f"{name}.json.gz").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Two environments for `diffusers-perf ab`: shell scripts that copy recorded runs instead of
measuring.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare.state import StateFile
from diffusers_perf.records.reading import load_run
from perf_tests.tests.unit.recorded import Content, side

PYTHON = """#!/bin/sh
here=${0%/*}
if [ "$1" = -c ]; then cat "$here/versions"; exit; fi
for argument in "$@"; do
    case $argument in --benchmark-json=*) path=${argument#*=} ;; esac
done
name=${path##*/} name=${name%.json}
cache=${TRITON_CACHE_DIR%/*}
echo "$name ${cache##*/} $*" >>"$here/../calls"
code=0
. "$here/../act"
cp "$here/../recorded/$name.json" "$path"
exit "$code"
"""

TURNS = [
    f"{side}-{pair}"
    for pair in range(1, 11)
    for side in (("base", "head") if pair % 2 else ("head", "base"))
]


@dataclass(frozen=True)
class Place:
    """Two fake environments, and what they were asked for."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Place:
        """Both environments, which will measure the same."""
        place = cls(folder)
        (folder / "recorded").mkdir(parents=True)
        place.record(side("base"), side("head"))
        place.act("")
        for name in ("base", "head"):
            (folder / name).mkdir()
            python = folder / name / "python"
            python.write_text(PYTHON)
            python.chmod(0o755)
            versions = '3.12.3 2.13.0 0.42.1 5.17.0\n{"diffusers": "0.42.1 0123456789ab"}\n'
            (folder / name / "versions").write_text(versions)
        return place

    def record(self, base: Sequence[Content], head: Sequence[Content]) -> None:
        """What each process will measure."""
        for name, contents in (("base", base), ("head", head)):
            for number, content in enumerate(contents, start=1):
                path = self.folder / "recorded" / f"{name}-{number}.json"
                path.write_text(json.dumps(content))

    def arguments(self, *options: str) -> list[str]:
        """Of the command that compares them."""
        pythons = [f"--{side}-python={self.folder / side / 'python'}" for side in ("base", "head")]
        # These machines are not calibrated.
        pythons.append(f"--baselines={self.folder / 'baselines'}")
        return ["ab", *pythons, f"--out={self.out}", *options]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(self, side: str, pair: int) -> Path:
        """What a process wrote."""
        return self.out / f"{side}-{pair}.json"

    def ab(self, *options: str) -> int:
        return command.main(self.arguments(*options))

    def finished(self) -> set[tuple[str, int]]:
        """Side and pair of each process that is finished; its run can be read."""
        path = self.out / "ab.json"
        if not path.exists():
            return set()
        state = msgspec.json.decode(path.read_bytes(), type=StateFile)
        for entry in state.finished:
            assert load_run(path.with_name(f"{entry.side}-{entry.pair}.json")).cases
        return {(entry.side, entry.pair) for entry in state.finished}

    def act(self, shell: str) -> None:
        """What each process does before it writes its run."""
        (self.folder / "act").write_text(shell)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def started(self) -> list[str]:
        return [call.split()[0] for call in self.calls]

"""What a job's Python is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers_perf.compare.processes import TESTS
from diffusers_perf.fleet.jobs import OUT, Device, Job
from diffusers_perf.fleet.plan import PlannedShard
from diffusers_perf.records.run import slug_of

RUN = "run.json"
"""What a shard writes."""
CASES = "cases.json"
"""What a listing writes."""
LISTING = "diffusers_perf.fleet.listing"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured."""

    models: tuple[str, ...]
    """Empty for the workloads' own."""
    suites: tuple[str, ...]
    """Empty for those of pytest's settings."""
    pytest: tuple[str, ...]
    """Further arguments of the main job."""
    compare: tuple[str, ...] | None
    """Arguments of `ab`, where each shard is a comparison; None for the main job."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Models, each of which has a list of cases and a run of its own."""
        return self.models or ("",)

    def selecting(self, model: str) -> list[str]:
        """pytest's arguments that select the cases of a model."""
        suites = ["-m", " or ".join(self.suites)] if self.suites else []
        return [*suites, *([f"--model={model}"] if model else []), *self.pytest]

    def listing(self, model: str, *, device: Device, kind: str, root: Path) -> Job:
        """Lists the cases of a model."""
        return Job(
            name=named("list", model),
            kind=kind,
            command=(
                "-u",  # so that its log ends with why pytest refuses
                *_pytest(root),
                *("--collect-only", "-qq", "-p", LISTING, f"--list-cases={OUT}/{CASES}"),
                *("--device", device, *self.selecting(model)),
            ),
        )

    def shard(
        self, shard: PlannedShard, *, name: str, device: Device, kind: str, root: Path
    ) -> Job:
        """Measures a shard, or compares two sides on it."""
        part = f"{shard.index}/{shard.count}:{shard.first}-{shard.last}"
        cases = ["--shard", part, *self.selecting(shard.group)]
        if self.compare is None:
            command = [*_pytest(root), "--device", device, *cases, f"--benchmark-json={OUT}/{RUN}"]
        else:
            ab = ["-m", "diffusers_perf.cli", "ab", *self.compare]
            command = [*ab, "--out", OUT, "--device", device, "--", *cases]
        return Job(name=name, kind=kind, command=tuple(command))


def named(*parts: str) -> str:
    """The parts that are not empty, joined into a file name."""
    return "-".join(slug_of(part) for part in parts if part)


def _pytest(root: Path) -> list[str]:
    tests = [TESTS] if (root / TESTS).is_dir() else []
    return ["-m", "pytest", *tests, "--benchmark-only"]

"""A machine, a measurement, and their JSON (schema 1, explained in README), whole or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from diffusers_perf.records.pixels import Distance, Look

SCHEMA = 1
Mode = Literal["whole", "quick"]
"""Of a process of the main job: with ``--quick`` it measures less, and with another noise."""
HOST_IDLE = 0.1
"""The host holds a case back where the GPU idles for more than this part of the time."""


def write_whole(path: Path, text: str) -> None:
    """Write all of it, or leave what was there and raise the `OSError` of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A device takes it as it comes, and must not be replaced by a file.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    draft = path.with_name(f"{path.name}.draft")
    try:
        # A command line that was no UTF-8 is no reason to write nothing.
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def slug_of(machine: str) -> str:
    """The name of a machine's file under `baselines/`."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def idle_share_of(*, gpu_busy_s: float, latency_s: float) -> float:
    """The part of the latency in which the GPU has nothing to do."""
    return max(0.0, 1 - gpu_busy_s / latency_s)


def bottleneck_of(idle_share: float) -> str:
    """What holds a case back whose GPU idles so much: ``host`` or ``gpu``."""
    return "host" if idle_share > HOST_IDLE else "gpu"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a number depends on that the suite does not choose."""

    device: str
    """``cuda`` or ``cpu``."""
    name: str
    """The GPU's name, or the CPU's."""
    compute_capability: tuple[int, int] | None
    memory_bytes: int | None
    driver: str | None
    cuda: str | None
    threads: int
    python: str
    torch: str
    diffusers: str
    transformers: str

    @property
    def slug(self) -> str:
        return slug_of(self.name)

    def is_like(self, other: Machine) -> bool:
        """Whether both are the same hardware with the same versions.

        The threads of a GPU's host change nothing that is measured; on a CPU they are the machine.
        """
        if self.device == "cuda":
            other = replace(other, threads=self.threads)
        return self == other

    @property
    def versions(self) -> dict[str, str]:
        """What a baseline is made with."""
        # Python's own decides how many calls a line makes.
        names = ("python", "torch", "diffusers", "transformers")
        versions: dict[str, str] = {name: getattr(self, name) for name in names}
        return versions | ({"driver": self.driver} if self.driver else {})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Count:
    """A counter: what happens once in a generation, and in each of its steps."""

    fixed: int
    per_step: int

    @classmethod
    def between(cls, few: int, many: int, *, steps: tuple[int, int]) -> Count:
        """From the totals at two step counts.

        Rounded up where they do not lie on a line: what happens in every other step must not
        vanish.
        """
        per_step = math.ceil((many - few) / (steps[1] - steps[0]))
        return cls(fixed=few - per_step * steps[0], per_step=per_step)

    def total(self, steps: int) -> int:
        return self.fixed + self.per_step * steps


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Everything that was observed while a case ran."""

    case: str
    workload: str
    steps: int
    num_images: int
    model: str
    weights: str
    parameters: int
    """Of all modules together."""
    rounds_s: tuple[float, ...]
    """Wall clock of each timed round, synchronized, end to end."""
    look: Look
    repeat: Distance
    """The last timed round's images against the first's: state that leaks shows here."""
    image_distance: Distance | None = None
    """To the images of the case it is compared with; the reference's to the accepted ones."""
    gpu_busy_s: float | None = None
    host_step_s: float | None = None
    """Seconds the host takes to enqueue a UNet call, nothing awaited: the median of the first calls
    of three generations. None on a CPU, and where the denoising is replayed without calling it."""
    peak_memory_bytes: int | None = None
    time_to_first_image_s: float | None = None
    """To the first image: load, prove, compile, capture, generate. What an earlier case of the
    process loaded (libraries, a seeded model's weights on the host) is there already."""
    compile_cache: str | None = None
    """Of what was compiled until then: ``cold`` if all of it, ``warm`` if it all came from the
    cache on disk, ``partly warm``; None if nothing is compiled."""
    roofline_s: float | None = None
    """What no version of it can go below on this GPU: see `roofline`."""
    roofline_by: str | None = None
    """Whether ``arithmetic`` or ``memory`` says so."""
    ignored: tuple[str, ...] = ()
    """What of seed and prompt can change without a change in the images."""
    observing_s: float = 0.0
    """What counting and profiling took, beside the timed rounds."""
    counters: Mapping[str, Count] = field(default_factory=dict)
    stages_s: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    validity: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What could not be measured here, and why."""

    @property
    def key(self) -> str:
        """What a baseline is keyed by: workload, model, weights and case."""
        return f"{self.workload}/{self.model}/{self.weights}/{self.case}"

    @property
    def latency_s(self) -> float:
        """Median of the rounds."""
        return median(self.rounds_s)

    @property
    def idle_share(self) -> float | None:
        """As `idle_share_of`; None where nobody could look."""
        if self.gpu_busy_s is None:
            return None
        return idle_share_of(gpu_busy_s=self.gpu_busy_s, latency_s=self.latency_s)

    def bottleneck(self) -> dict[str, Any] | None:
        """What holds this case back, and the share that says so."""
        if self.idle_share is None:
            return None
        return {"by": bottleneck_of(self.idle_share), "gpu_idle_share": round(self.idle_share, 4)}

    def as_json(self, *, reference: Measurement | None) -> dict[str, Any]:
        """What stands in `extra_info`, without the verdict."""
        compared = reference is not None and reference is not self
        return {
            "schema": SCHEMA,
            "case": self.case,
            "workload": self.workload,
            "model": self.model,
            "weights": self.weights,
            "against": reference.case if reference else None,
            "steps": self.steps,
            "num_images": self.num_images,
            "images_per_s": self.num_images / self.latency_s,
            "parameters": self.parameters,
            "latency_s": self.latency_s,
            "latency_rounds_s": list(self.rounds_s),
            "latency_speedup": reference.latency_s / self.latency_s if reference else None,
            "gpu_busy_s": self.gpu_busy_s,
            "gpu_speedup": gpu_speedup(self, reference) if reference else None,
            # All of it that a verdict on this case takes: the reference can be measured without a
            # test of its own, or in another shard once more.
            "reference": (
                {
                    "latency_rounds_s": list(reference.rounds_s),
                    "gpu_busy_s": reference.gpu_busy_s,
                    "peak_memory_bytes": reference.peak_memory_bytes,
                    "validity": dict(reference.validity),
                }
                if compared and reference
                else None
            ),
            "host_step_s": self.host_step_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "time_to_first_image_s": self.time_to_first_image_s,
            "compile_cache": self.compile_cache,
            "roofline_s": self.roofline_s,
            "roofline_by": self.roofline_by,
            "observing_s": self.observing_s,
            "image": {
                "finite": self.look.finite,
                "mean": self.look.mean,
                "std": self.look.std,
                "psnr_db": self.image_distance.psnr_db if self.image_distance else None,
                "ssim": self.image_distance.ssim if self.image_distance else None,
                "repeat_psnr_db": self.repeat.psnr_db,
                "ignored": list(self.ignored),
                "compared_with": reference.case if compared and reference else "accepted",
            },
            "counters": {
                name: {
                    "fixed": count.fixed,
                    "per_step": count.per_step,
                    "total": count.total(self.steps),
                }
                for name, count in self.counters.items()
            },
            "stages": dict(self.stages_s),
            "families": {
                name: {"gpu_s": seconds, "kernels": number}
                for name, (seconds, number) in self.families.items()
            },
            "bottleneck": self.bottleneck(),
            "validity": dict(self.validity),
            "notes": list(self.notes),
        }


def gpu_speedup(measured: Measurement, reference: Measurement) -> float | None:
    """How many times less the GPU works than for the reference; None where that is unknown."""
    if measured.gpu_busy_s is None or reference.gpu_busy_s is None:
        return None
    return reference.gpu_busy_s / measured.gpu_busy_s

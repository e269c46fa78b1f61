"""What seeded weights separate: `python -m perf_tests.training.separation sdxl --device cuda`.

Legitimate changes of arithmetic stand above, changes that an image check has to notice below, each
with its distance from the reference on three scales: of the image of a whole generation; step by
step, where each call of the denoiser gets what the reference's was given; and of the transformer
block that is the farthest from others of its kind, where each gets what the reference's was given,
beside their median. The table is for the model's document. With `--gain`, another gain of some
layers is tried.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.faults.places import scale_a_head
from diffusers_perf.judge.outlier import farthest
from diffusers_perf.measurement import stepwise
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import Source, built
from diffusers_perf.models import open_source, served
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import Distance
from perf_tests.cases.served import DEV4, SCHNELL4, SDXL6

WORKLOADS = {"sdxl": SDXL6, "flux1-dev": DEV4, "flux1-schnell": SCHNELL4}
OTHER = "a bowl of fruit on a wooden table"
LEGITIMATE = {
    "sdxl": ("sdpa_cudnn", "sdpa_flash", "channels_last", "compile_regional"),
    "flux1-dev": ("sdpa_cudnn", "sdpa_flash", "compile_regional"),
    "flux1-schnell": ("compile_regional",),
}
PRECISIONS = {"sdxl": ("bf16", "fp16"), "flux1-dev": ("bf16",), "flux1-schnell": ("bf16",)}
"""What is compared with float32, whose matrix products are in TF32."""
HEAD = (
    "| change | image, PSNR | SSIM | inputs, step by step | predictions | farthest block | median |"
)

Change = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One change's distances from the reference, in dB; SSIM as it is."""

    name: str
    image: Distance
    inputs_db: float
    predictions_db: float
    block_db: float
    median_db: float

    def __str__(self) -> str:
        compared = (self.inputs_db, self.predictions_db, self.block_db, self.median_db)
        numbers = (
            f"{self.image.psnr_db:.1f} dB",
            f"{self.image.ssim:.3f}",
            *("none" if math.isnan(db) else f"{db:.1f} dB" for db in compared),
        )
        return f"| {self.name} | {' | '.join(numbers)} |"


@contextmanager
def block_skipped(pipeline: Any) -> Iterator[None]:
    """A block in the middle of the denoiser gives what it is given."""

    def skip(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (kwargs["encoder_hidden_states"], given) if isinstance(output, tuple) else given

    (denoiser,) = denoisers(pipeline).values()
    blocks = [
        m
        for m in denoiser.modules()
        if type(m).__name__ in ("BasicTransformerBlock", "FluxTransformerBlock")
    ]
    handle = blocks[len(blocks) // 2].register_forward_hook(skip, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def faults(workload: Workload) -> Iterator[tuple[str, Workload]]:
    """Changes of the call that an image has to show."""
    yield "another prompt", workload.changed(prompt=OTHER, prompt_2=OTHER)
    own = workload.prompts[0]
    yield "another prompt for the first text encoder", workload.changed(prompt=OTHER, prompt_2=own)
    yield "another prompt for the second", workload.changed(prompt_2=OTHER)
    if "guidance" in workload.sensitive_to:
        yield "guidance off", workload.changed(**workload.sensitive_to["guidance"])
    yield "another seed", workload.changed(seed=workload.seed + 1)


class Separation:
    """The table of one model."""

    def __init__(self, model: str, device: torch.device) -> None:
        self._catalog = declared_in("perf_tests.cases")
        self._source: Source = open_source(model)
        self._device = device
        self.model = model
        self.workload = WORKLOADS[model]

    def rows(self, *, quick: bool = False) -> Iterator[Row]:
        """Each as it is measured; `quick` leaves out what is slow."""
        if not quick:
            exact = self._case(REFERENCE, base=("tf32",))
            trajectory, images = self._reference(exact)
            for name in PRECISIONS[self.model]:
                yield self._compared(self._case(name, base=()), trajectory, images, f"`{name}`")
            del trajectory
        case = self._case(REFERENCE)
        with built(case, self._source, self._device) as pipeline:
            generation = Generation(pipeline, self.workload)
            trajectory, images = stepwise.record(generation, pipeline), generation.images()
            yield self._row("nothing", pipeline, self.workload, trajectory, images)
            for name, changed in faults(self.workload):
                yield self._row(name, pipeline, changed, trajectory, images)
            with block_skipped(pipeline):
                yield self._row("a block skipped", pipeline, self.workload, trajectory, images)
            scale_a_head(pipeline)
            yield self._row("a head 2 % off", pipeline, self.workload, trajectory, images)
        if not quick:
            for name in LEGITIMATE[self.model]:
                case = self._case(name)
                yield self._compared(case, trajectory, images, f"`{name}`, of bfloat16's image")
                yield self._compared(
                    case, trajectory, images, f"a head 2 % off beside `{name}`", scale_a_head
                )

    def _case(self, name: str, base: tuple[str, ...] | None = None) -> Case:
        workload = self.workload if base is None else replace(self.workload, base=base)
        return self._catalog.case(workload, name)

    def _reference(self, case: Case) -> tuple[stepwise.Trajectory, pixels.Images]:
        with built(case, self._source, self._device) as pipeline:
            generation = Generation(pipeline, case.workload)
            return stepwise.record(generation, pipeline), generation.images()

    def _compared(
        self,
        case: Case,
        trajectory: stepwise.Trajectory,
        images: pixels.Images,
        name: str,
        change: Change = lambda pipeline: None,
    ) -> Row:
        with built(case, self._source, self._device) as pipeline:
            change(pipeline)
            return self._row(name, pipeline, case.workload, trajectory, images)

    def _row(
        self,
        name: str,
        pipeline: Any,
        workload: Workload,
        trajectory: stepwise.Trajectory,
        images: pixels.Images,
    ) -> Row:
        generation = Generation(pipeline, workload)
        made = generation.images()
        try:
            steps, *_ = stepwise.follow(generation, pipeline, trajectory)
            inputs, predictions = min(steps.inputs_db), min(steps.predictions_db)
            block = farthest(steps.blocks)
        except stepwise.CannotFollow:
            # Guidance that is off calls the denoiser with half of the batch, or half as often.
            inputs, predictions, block = float("nan"), float("nan"), None
        return Row(
            name=name,
            image=pixels.distance(made, images),
            inputs_db=inputs,
            predictions_db=predictions,
            block_db=block.db if block else float("nan"),
            median_db=block.median_db if block else float("nan"),
        )


def with_gains(model: str, gains: dict[str, float]) -> None:
    """Try other gains: by a module's place and the end of a layer's path."""
    family = served.FAMILIES[model]
    modules = dict(family.modules)
    for key, gain in gains.items():
        place, _, end = key.partition(":")
        own = modules[place]
        if end:
            modules[place] = replace(own, gains={**own.gains, end: gain})
        else:
            modules[place] = replace(own, gain=gain)
    served.FAMILIES[model] = replace(family, modules=modules)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[*WORKLOADS])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="without float32 and compiling")
    parser.add_argument("--gain", nargs="*", default=[], metavar="PLACE:PATH=GAIN")
    args = parser.parse_args()
    with_gains(args.model, {k: float(g) for k, _, g in (g.partition("=") for g in args.gain)})
    print(HEAD, "|---" * (HEAD.count("|") - 1) + "|", sep="\n", flush=True)
    for row in Separation(args.model, torch.device(args.device)).rows(quick=args.quick):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where a compiled FLUX differs from eager: `python -m perf_tests.training.compiled flux1-dev`.

Parts of the pipeline are compiled one by one, and the whole denoiser. Each row says how far its
image is from eager's after all steps; its predictions step by step, where each call of the denoiser
gets what eager's was given; the image that its decoder makes of eager's latents; and, of four
steps, its predictions from those in float32, beside which eager's own distance is what bfloat16
costs. A row with `casts` rounds between fused operations as eager does. The table is for the
model's document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import stepwise
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.models import open_source, served
from diffusers_perf.records import pixels
from perf_tests.cases.served import DEV28

PARTS = ("eager", "blocks", "embeddings", "embeddings, casts", "whole", "whole, casts", "decoder")
SMALL = {"height": 128, "width": 128, "max_sequence_length": 77}
STEPS = {"embedded-flux": 4, "flux1-dev": 28}
STEPS_IN_FLOAT32 = 4
RECOMPILE_LIMIT = 64
HEAD = "| compiled | image | predictions, least | first | decoder | to float32, least |"


@contextmanager
def compiled(pipeline: Any, part: str) -> Iterator[None]:
    """A part of the pipeline through torch.compile, until the context ends."""
    name, _, casts = part.partition(", ")
    denoiser, decoder = pipeline.transformer, pipeline.vae.decoder
    blocks = [*denoiser.transformer_blocks, *denoiser.single_transformer_blocks]
    parts = {
        "eager": [],
        "blocks": blocks,
        # Of timestep, guidance and pooled prompt.
        "embeddings": [denoiser.time_text_embed],
        "whole": [denoiser],
        "decoder": [decoder],
    }[name]
    with (
        torch._inductor.config.patch(emulate_precision_casts=bool(casts)),
        torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT),
    ):
        for module in parts:
            module.forward = torch.compile(module.forward, fullgraph=True, dynamic=False)
        try:
            yield
        finally:
            for module in parts:
                del module.forward
            torch.compiler.reset()


def without_gains() -> None:
    """Have each of the transformer's layers keep the scale of its input, sinusoids' alike."""
    family = served.FAMILIES["flux1-dev"]
    transformer = replace(family.modules["transformer"], slow=(), gains={})
    modules = {**family.modules, "transformer": transformer}
    served.FAMILIES["flux1-dev"] = replace(family, modules=modules)


def rows(workload: Workload, device: torch.device, parts: list[str]) -> Iterator[str]:
    """A line of the table for each part."""
    catalog, source = declared_in("perf_tests.cases"), open_source(workload.model)
    short = replace(workload, steps=STEPS_IN_FLOAT32)
    exact = replace(short, base=("tf32",) if device.type == "cuda" else ())
    with built(catalog.case(exact, REFERENCE), source, device) as pipeline:
        in_float32 = stepwise.record(Generation(pipeline, exact), pipeline)
    with built(catalog.case(workload, REFERENCE), source, device) as pipeline:
        generation, few = Generation(pipeline, workload), Generation(pipeline, short)
        eager = stepwise.record(generation, pipeline)
        for part in parts:
            with compiled(pipeline, part):
                image = pixels.distance(generation.images(), eager.images)
                steps, decoded, _ = stepwise.follow(generation, pipeline, eager)
                to_float32, *_ = stepwise.follow(few, pipeline, in_float32)
            numbers = (
                image.psnr_db,
                min(steps.predictions_db),
                steps.predictions_db[0],
                pixels.distance(decoded, eager.images).psnr_db,
                min(to_float32.predictions_db),
            )
            yield f"| {part} | {' | '.join(f'{number:.1f} dB' for number in numbers)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=STEPS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--without-gains", action="store_true", help="with plain random weights")
    parser.add_argument("--only", nargs="+", default=[*PARTS], choices=PARTS, metavar="PART")
    args = parser.parse_args()
    workload = replace(DEV28, model=args.model, steps=STEPS[args.model])
    if args.model == "embedded-flux":
        workload = workload.changed(**SMALL)
    if args.without_gains:
        without_gains()
    print(HEAD, "|---" * (HEAD.count("|") - 1) + "|", sep="\n", flush=True)
    for row in rows(workload, torch.device(args.device), args.only):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

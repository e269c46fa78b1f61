"""What optimizations cost in image: `python -m perf_tests.training.prices STACK…`.

Held-out prompts on the embedded model, each with its own noise, against the plain float32 image:
how close, and whether the evaluator still sees what the prompt asked for; then the same of faults.
The tolerance of an optimization lies between the two.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from diffusers_perf import models
from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.measurement.packages import not_installed
from diffusers_perf.measurement.pipelines import built
from perf_tests.cases import workloads
from perf_tests.training import scores
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.image_distance import SEED, distinct_captions, faulty
from perf_tests.training.shapes import Painter

PROMPTS = 24
STEPS = workloads.DDIM50_SMALL.steps
HEAD = "| change | PSNR lowest | median | highest | SSIM lowest | median | highest | obeyed |"


def row(name: str, made: Tensor, accepted: Tensor, obeyed: float) -> str:
    """A line of the table, of images (prompts, 3, 64, 64) in [0, 1]."""
    from diffusers_perf.records import pixels

    pairs = zip(*(p.permute(0, 2, 3, 1).numpy() for p in (made, accepted)), strict=True)
    each = [pixels.distance(one[None], other[None]) for one, other in pairs]
    psnr = torch.tensor([d.psnr_db for d in each])
    ssim = torch.tensor([d.ssim for d in each])
    numbers = (
        *(f"{float(psnr.quantile(q)):.1f}" for q in (0, 0.5, 1)),
        *(f"{float(ssim.quantile(q)):.3f}" for q in (0, 0.5, 1)),
        f"{obeyed:.0%}",
    )
    return f"| {name} | {' | '.join(numbers)} |"


def table(stacks: Sequence[str], device: torch.device, *, prompts: int = PROMPTS) -> Iterator[str]:
    """The lines of the table, as they come. `ValueError` for an unknown or missing stack."""
    catalog = declared_in("perf_tests.cases")
    cases = [catalog.case(workloads.DDIM50_SMALL, stack) for stack in stacks]
    for case in cases:
        _see_that_it_runs(case, device)
    source = models.open_source("embedded")
    captions = distinct_captions(prompts)
    texts = [caption.text for caption in captions]
    evaluator = Evaluator(Painter(torch.device("cpu")))
    generate = partial(scores.generate, seed=SEED, steps=STEPS)

    def priced(name: str, made: Tensor) -> str:
        return row(name, made, accepted, scores.score(evaluator, made, captions).right)

    yield HEAD
    yield "|---" * (HEAD.count("|") - 1) + "|"
    with built(catalog.case(workloads.DDIM50_SMALL, REFERENCE), source, device) as plain:
        accepted = generate(plain, texts)
        yield priced(REFERENCE, accepted)
        for stack, case in zip(stacks, cases, strict=True):
            with built(case, source, device) as pipeline:
                yield priced(stack, generate(pipeline, texts))
                for optimization in case.stack:
                    optimization.applied(pipeline)
        for name, made in faulty(plain, texts, steps=STEPS):
            yield priced(name.replace("_", " "), made)


def _see_that_it_runs(case: Case, device: torch.device) -> None:
    for optimization in case.stack:
        needs = optimization.needs
        if needs.compute_capability and device.type == "cpu":
            raise ValueError(f"{optimization.name} needs a CUDA GPU")
        if needs.package and find_spec(needs.package) is None:
            raise ValueError(
                f"{optimization.name} needs the package {needs.package}, not installed here"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.training.prices")
    parser.add_argument("stacks", nargs="*", help="names of optimizations joined by +")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    parser.add_argument(
        "--prompts", type=int, default=PROMPTS, help="the more, the finer the share that is obeyed"
    )
    arguments = parser.parse_args()
    if arguments.prompts < 1:
        parser.error("--prompts: at least 1")
    here = torch.cuda.is_available()
    if arguments.device == "cuda" and not here:
        parser.error("--device cuda: torch sees no CUDA device here; leave it out")
    device = torch.device(arguments.device or ("cuda" if here else "cpu"))
    try:
        models.quiet_libraries()
        for line in table(arguments.stacks, device, prompts=arguments.prompts):
            print(line, flush=True)
    except BrokenPipeError:
        # Whoever read the first lines wants no more; at its end Python would write the rest again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        # The workload is ours, and was not named.
        return _refuse(str(error).removeprefix(f"{workloads.DDIM50_SMALL.name}: "))
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            return _refuse(sentence)
        raise
    return 0


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

"""Is a stack lossless: `python -m perf_tests.training.lossless flux1-dev dev4 flux_best_lossless`.

Its error to float32 is to be at most 1.5 times that of eager code in the same precision: of the
denoiser's predictions, the root mean square in the worst call and the largest difference in all of
them, and of the images that the decoder makes of float32's latents, the root mean square. Each call
gets what float32's was given, so that none inherits an error. Two seeds; exit code 1 if a stack is
not lossless. The table is for the model's document.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch

from diffusers_perf import models
from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli.answers import refuse
from diffusers_perf.measurement import stepwise
from diffusers_perf.measurement.failing import CaseError, check_applied, failing
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.lacking import lack_of
from diffusers_perf.measurement.machine import this_machine
from diffusers_perf.measurement.packages import not_installed
from diffusers_perf.measurement.pipelines import Source, built
from diffusers_perf.records import pixels
from perf_tests.training import command
from perf_tests.training.kernels import cases_of
from perf_tests.training.workshop import NotReadyError

LIMIT = 1.5
"""Of eager's error: what this suite calls lossless."""
SEEDS = 2
PRECISIONS = ("tf32", "fp16", "bf16")
HEAD = "| stack | seed | predictions, least | RMS | largest | image | RMS |"


@dataclass(kw_only=True)
class Errors:
    """To float32, of one generation along its trajectory."""

    rms: list[float] = field(default_factory=list)
    """Of each call's prediction."""
    largest: list[float] = field(default_factory=list)
    step_db: float = math.nan
    image_db: float = math.nan

    def note(self, seen: torch.Tensor, wanted: torch.Tensor) -> None:
        """One call's prediction, and float32's. What is of another shape or not finite is off by
        any amount.
        """
        apart = seen.new_full((1,), math.inf)
        if seen.shape == wanted.shape:
            apart = (seen - wanted.to(seen.device)).abs().nan_to_num(nan=math.inf, posinf=math.inf)
        self.rms.append(float(apart.square().mean().sqrt()))
        self.largest.append(float(apart.max()))

    def beside(self, eager: Errors) -> tuple[float, float, float]:
        """As shares of eager's: RMS of the worst call, largest difference of all, RMS of the image.

        Of a single call the largest difference is a matter of chance.
        """
        return (
            max(share(own, theirs) for own, theirs in zip(self.rms, eager.rms, strict=True)),
            share(max(self.largest), max(eager.largest)),
            10 ** ((eager.image_db - self.image_db) / 20),
        )


def share(error: float, eager: float) -> float:
    """An error as a share of eager's, which may be none."""
    return error / eager if eager else 1.0 if not error else math.inf


def eager_of(case: Case) -> Case:
    """The case with nothing of its stack but the precision."""
    own = [o.name for o in case.stack if o.name in PRECISIONS]
    name = "+".join(name for name in own if name not in case.workload.base)
    return declared_in("perf_tests.cases").case(case.workload, name or REFERENCE)


class Lossless:
    """Errors to the float32 generations of one workload."""

    def __init__(self, workload: Workload, source: Source, device: torch.device) -> None:
        self.source, self.device = source, device
        self.seeds = [workload.changed(seed=workload.seed + number) for number in range(SEEDS)]
        exact = workload.changed(base=())
        case = declared_in("perf_tests.cases").case(exact, REFERENCE)
        self.exact = []
        self.eager: dict[str, list[Errors]] = {}
        with (
            failing(case, device),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            built(case, source, device) as pipeline,
        ):
            for seeded in self.seeds:
                generation = Generation(pipeline, seeded.changed(base=()))
                # Without the blocks: those of a model in float32 are as large as its memory.
                recorded = stepwise.record(generation, pipeline)
                self.exact.append(replace(recorded, blocks={}))

    def errors(self, case: Case) -> list[Errors]:
        """Of each seed."""
        found = []
        with (
            failing(case, self.device),
            built(case, self.source, self.device) as pipeline,
        ):
            check_applied(case.stack, pipeline)
            for seeded, exact in zip(self.seeds, self.exact, strict=True):
                seen = Errors()
                generation = Generation(pipeline, seeded)
                steps, images, _ = stepwise.follow(generation, pipeline, exact, each=seen.note)
                seen.step_db = min(steps.predictions_db)
                seen.image_db = pixels.distance(images, exact.images).psnr_db
                found.append(seen)
        return found

    def rows(self, case: Case) -> Iterator[tuple[str, bool]]:
        """Lines of the table, and whether each keeps the rule; before the first, eager's own."""
        eager = eager_of(case)
        if eager.name not in self.eager:
            self.eager[eager.name] = self.errors(eager)
            for number, each in enumerate(self.eager[eager.name]):
                yield _line(eager.name, number, each, each), True
        both = zip(self.errors(case), self.eager[eager.name], strict=True)
        for number, (own, each) in enumerate(both):
            yield _line(case.name, number, own, each), max(own.beside(each)) <= LIMIT


def _line(name: str, number: int, own: Errors, eager: Errors) -> str:
    rms, largest, image = own.beside(eager)
    return (
        f"| {name} | {number} | {own.step_db:.1f} dB | {rms:.2f}x | {largest:.2f}x | "
        f"{own.image_db:.1f} dB | {image:.2f}x |"
    )


def show(cases: Iterable[Case], table: Lossless) -> bool:
    """Print the lines as they come; whether all keep the rule."""
    print(HEAD, "|---" * (HEAD.count("|") - 1) + "|", sep="\n", flush=True)
    kept = True
    for case in cases:
        for line, is_kept in table.rows(case):
            print(line, flush=True)
            kept = kept and is_kept
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("workload")
    parser.add_argument("stacks", nargs="+", metavar="STACK")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is one"
    )
    args = parser.parse_args()
    try:
        models.quiet_libraries()
        device = command.device(args)
        cases = cases_of(args.workload, args.stacks)
        sources = models.Sources(device=device.type, model=args.model)
        machine = this_machine(device.type)
        workload = cases[0].workload
        for case in cases:
            if lack := lack_of(case.stack, machine=machine, workload=workload, sources=sources):
                return refuse(lack.reason)
        is_kept = show(cases, Lossless(workload, sources.of(workload), device))
    except (NotReadyError, ValueError, Refusal, CaseError, stepwise.CannotFollow) as error:
        return refuse(str(error))
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            return refuse(sentence)
        raise
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())

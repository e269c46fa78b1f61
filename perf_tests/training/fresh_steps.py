"""In which steps DeepCache must be whole: `python -m perf_tests.training.fresh_steps sdxl`.

A generation of the model's workload for each choice of steps in which the UNet's inner blocks are
made anew, and how far its image is from the reference's. The table is for the model's document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from types import MappingProxyType

import torch

from diffusers_perf import models
from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.packages import not_installed
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.records import pixels
from diffusers_perf.techniques.device_steps import StepKind
from perf_tests.cases import served, workloads
from perf_tests.training import command
from perf_tests.training.workshop import NotReadyError

WORKLOADS = {"sdxl": served.SDXL30, "sd15": workloads.DDIM50, "small": workloads.DDIM50_SMALL}
STACK = "device_steps+deepcache"
HEAD = "| steps | how many | image | SSIM |"

CHOICES = MappingProxyType[str, Callable[[int, int], bool]](
    {
        "all": lambda step, steps: True,
        "every second": lambda step, steps: step % 2 == 0,
        "every third": lambda step, steps: step % 3 == 0,
        "every third and the last eight": lambda step, steps: step % 3 == 0 or step >= steps - 8,
        "the first two, then every third": lambda step, steps: step < 2 or step % 3 == 1,
        "the first three and every third": lambda step, steps: step < 3 or step % 3 == 0,
        "the first four, then every fourth": lambda step, steps: step < 4 or step % 4 == 3,
        "the first eight, then every third": lambda step, steps: step < 8 or step % 3 == 1,
    }
)
"""Is this step whole, of so many?"""


def table(model: str, device: torch.device) -> Iterator[str]:
    """The lines of the table, as they come."""
    catalog, workload = declared_in("perf_tests.cases"), WORKLOADS[model]
    source = models.open_source(model)
    with built(catalog.case(workload, REFERENCE), source, device) as plain:
        accepted = Generation(plain, workload).images()
    yield HEAD
    yield "|---" * (HEAD.count("|") - 1) + "|"
    with built(catalog.case(workload, STACK), source, device) as pipeline:
        for name, is_whole in CHOICES.items():
            fresh = [is_whole(step, workload.steps) for step in range(workload.steps)]
            pipeline.plan.kinds = lambda steps, fresh=fresh: [
                StepKind(guided=True, fresh=of_step) for of_step in fresh[:steps]
            ]
            distance = pixels.distance(Generation(pipeline, workload).images(), accepted)
            yield f"| {name} | {sum(fresh)} | {distance.psnr_db:.1f} dB | {distance.ssim:.3f} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.training.fresh_steps")
    parser.add_argument("model", choices=WORKLOADS)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    arguments = parser.parse_args()
    try:
        models.quiet_libraries()
        for line in table(arguments.model, command.device(arguments)):
            print(line, flush=True)
    except NotReadyError as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            print(f"error: {sentence}", file=sys.stderr)
            return 2
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())

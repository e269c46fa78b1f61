"""What the recipes' commands share: their folder, their stages in order, and how they end."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from diffusers_perf.measurement.packages import not_installed
from perf_tests.training.training import TrainingFailedError
from perf_tests.training.workshop import NotReadyError, Workshop

Shop = TypeVar("Shop", bound=Workshop)


def parser(command: str, description: str, stages: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The options that every recipe has."""
    parser = argparse.ArgumentParser(prog=command, description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything it makes")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stage", choices=stages, help="run this stage alone")
    only.add_argument("--until", choices=stages, help="stop after this stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is one"
    )
    parser.add_argument("--eager", action="store_true", help="never capture a step as a CUDA graph")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything")
    return parser


def chosen(arguments: argparse.Namespace, stages: Mapping[str, Any]) -> list[str]:
    """The names of the stages that the arguments ask for, in order."""
    names = list(stages)
    if arguments.stage:
        return [arguments.stage]
    if arguments.until:
        return names[: names.index(arguments.until) + 1]
    return names


def device(arguments: argparse.Namespace) -> torch.device:
    """The device the arguments ask for. `NotReadyError` where there is none."""
    name = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise NotReadyError("--device cuda: torch sees no CUDA device here; leave it out")
    return torch.device(name)


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or check that the run in it has the same settings."""
    if out.exists() and not out.is_dir():
        raise NotReadyError(f"--out {out}: there is a file of that name; name a folder")
    path = out / "work" / "settings.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.is_file() else settings
        path.write_text(json.dumps(settings if before == settings else before) + "\n")
    except (OSError, ValueError) as error:
        raise NotReadyError(f"--out {out}: {error}") from error
    if before != settings:
        raise NotReadyError(
            f"--out {out} holds a run with {before}, this one has {settings}; "
            "name another folder, or remove it first"
        )


def run(
    shop: Shop,
    stages: Mapping[str, Callable[[Shop], dict[str, Any]]],
    names: list[str],
    *,
    exact: tuple[str, ...],
) -> None:
    """Run the named stages that have not finished, in order; those in `exact` without TF32."""
    for name in names:
        if shop.is_done(name):
            shop.log(f"{name}: finished before, skipped")
            continue
        start_s = time.perf_counter()
        _precision(exact=name in exact)
        report = stages[name](shop)
        wall_s = round(time.perf_counter() - start_s, 1)
        shop.finish(name, {**report, "wall_s": wall_s})
        shop.log(f"{name}: finished in {wall_s} s")


def made(shop: Workshop) -> dict[str, Any]:
    """With what a model was made, for its scores and its card."""
    import diffusers
    import transformers

    machine = (
        torch.cuda.get_device_name(shop.device)
        if shop.device.type == "cuda"
        else f"a CPU ({platform.machine()})"
    )
    return {
        "seed": shop.seed,
        "machine": machine,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def guarded(work: Callable[[], None]) -> int:
    """Do the work; the command's exit code. What the user can act on is one sentence."""
    try:
        _quiet()
        work()
    except (NotReadyError, TrainingFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        sentence = not_installed(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _precision(*, exact: bool) -> None:
    """On a GPU: TF32 and searched algorithms while training, plain float32 while judging."""
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = not exact


def _quiet() -> None:
    """Keep the libraries' bars and remarks out of the log; errors still come through."""
    import diffusers
    import transformers

    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()

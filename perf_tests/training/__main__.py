"""The command: `python -m perf_tests.training --out FOLDER`.

Runs every stage that has not finished in FOLDER, in order; the same command goes on after an
interruption. FOLDER/model is the finished model, as it is shipped: with its card, a sheet of
images for eight held-out captions, and every number in scores.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.measurement.packages import not_installed
from perf_tests.training import closeness, folder, scores, stages
from perf_tests.training.captions import held_out_captions
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.shapes import Painter
from perf_tests.training.stages import NotReadyError, Workshop
from perf_tests.training.training import Log, TrainingFailedError

SHEET_PROMPTS = 8
OTHER_GUIDANCES = (1.0, 3.0)
"""Reported for the teacher beside 7.5, to tell a weak model from too strong a guidance."""


def evaluate(shop: Workshop) -> dict[str, Any]:
    """Stage `evaluate`: save the model in float16, load it again, count what prompts got."""
    from diffusers import AutoencoderTiny, UNet2DConditionModel

    unet, text = shop.teacher()
    modules = {
        "unet": unet,
        "text_encoder": text,
        "vae": shop.vae(),
        "student": shop.student(),
        "tiny": shop.tiny_vae(),
    }
    sizes = folder.save_model(shop.model, tokenizer=shop.tokenizer(), **modules)
    shop.log(f"evaluate: the model takes {sum(sizes.values()) / 1e6:.1f} MB")

    # What is judged is what was saved: float16 weights, computed with in float32.
    pipeline = closeness.load(shop.model, shop.device, torch.float32)
    captions = held_out_captions(shop.plan.score_prompts, seed=2)
    shown = held_out_captions(SHEET_PROMPTS, seed=5)
    evaluator = Evaluator(Painter(shop.device))
    variants: dict[str, Callable[[], None]] = {
        "teacher": lambda: None,
        "student": lambda: pipeline.register_modules(
            unet=UNet2DConditionModel.from_pretrained(
                shop.model / folder.STUDENT_FOLDER, dtype=torch.float32
            ).to(shop.device)
        ),
        "student + tiny autoencoder": lambda: pipeline.register_modules(
            vae=AutoencoderTiny.from_pretrained(
                shop.model / folder.TINY_VAE_FOLDER, dtype=torch.float32
            ).to(shop.device)
        ),
    }
    results, columns, guidances = {}, {}, {}
    for guidance in OTHER_GUIDANCES:
        texts = [caption.text for caption in captions]
        steps = shop.plan.inference_steps
        images = scores.generate(pipeline, texts, seed=2, steps=steps, guidance=guidance)
        score = scores.score(evaluator, images, captions)
        shop.log(f"evaluate: teacher at guidance {guidance}: {score.line()}")
        guidances[str(guidance)] = score.rounded()
    for name, change in variants.items():
        change()
        texts = [caption.text for caption in (*captions, *shown)]
        images = scores.generate(pipeline, texts, seed=2, steps=shop.plan.inference_steps)
        score = scores.score(evaluator, images[: len(captions)], captions)
        shop.log(f"evaluate: {name}: {score.line()}")
        results[name] = score.rounded()
        columns[name] = images[len(captions) :]
    folder.save_sheet(shop.model / "sheet.png", shown, columns)
    counts = {
        name: sum(weight.numel() for weight in module.parameters())
        for name, module in modules.items()
    }
    return {"scores": results, "guidance": guidances, "bytes": sizes, "parameters": counts}


def measure_image_distance(shop: Workshop) -> dict[str, Any]:
    """Stage `closeness`: how far each harmless and each harmful change moves the image."""
    shop.report("evaluate")
    report = closeness.measure(
        shop.model,
        shop.device,
        prompts=shop.plan.closeness_prompts,
        steps=shop.plan.inference_steps,
    )
    for name, value in report.items():
        shop.log(
            f"closeness: {name}: {value['min']:.1f} / {value['median']:.1f} / {value['max']:.1f} "
            "dB (lowest, median, highest)"
        )
    return {"closeness": report}


STAGES: dict[str, Callable[[Workshop], dict[str, Any]]] = {
    "tokenizer": stages.train_vocabulary,
    "vae": stages.train_vae,
    "teacher": stages.train_teacher,
    "student": stages.train_student,
    "tiny_vae": stages.train_tiny_vae,
    "evaluate": evaluate,
    "closeness": measure_image_distance,
}


def write_summary(shop: Workshop) -> None:
    """scores.json and the model card, once there are scores."""
    import diffusers
    import transformers

    if not shop.is_done("evaluate"):
        return
    reports = {name: shop.report(name) for name in STAGES if shop.is_done(name)}
    machine = (
        torch.cuda.get_device_name(shop.device)
        if shop.device.type == "cuda"
        else f"a CPU ({platform.machine()})"
    )
    summary: dict[str, Any] = {
        "schema": 1,
        "made": {
            "seed": shop.seed,
            "machine": machine,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        "seconds": {name: report.pop("wall_s") for name, report in reports.items()},
        **reports.pop("evaluate"),
        **reports.pop("closeness", {}),
        "stages": reports,
    }
    (shop.model / "scores.json").write_text(json.dumps(summary, indent=1) + "\n")
    (shop.model / "README.md").write_text(folder.card(summary))


def run(shop: Workshop, chosen: list[str]) -> None:
    """Run the chosen stages that have not finished, in order."""
    for name in chosen:
        if shop.is_done(name):
            shop.log(f"{name}: finished before, skipped")
            continue
        start_s = time.perf_counter()
        _precision(exact=name in ("evaluate", "closeness"))
        report = STAGES[name](shop)
        wall_s = round(time.perf_counter() - start_s, 1)
        shop.finish(name, {**report, "wall_s": wall_s})
        shop.log(f"{name}: finished in {wall_s} s")
    write_summary(shop)


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


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perf_tests.training", description="Train the embedded model."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything it makes")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stage", choices=STAGES, help="run this stage alone")
    only.add_argument("--until", choices=STAGES, help="stop after this stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is one"
    )
    parser.add_argument("--eager", action="store_true", help="never capture a step as a CUDA graph")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything")
    return parser


def open_workshop(arguments: argparse.Namespace) -> Workshop:
    """The workshop the arguments ask for. `NotReadyError` where it cannot be had."""
    out: Path = arguments.out
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise NotReadyError("--device cuda: torch sees no CUDA device here; leave it out")
    if out.exists() and not out.is_dir():
        raise NotReadyError(f"--out {out}: there is a file of that name; name a folder")
    settings = {"seed": arguments.seed, "smoke": arguments.smoke}
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
    return Workshop(
        out=out,
        plan=stages.SMOKE if arguments.smoke else stages.FULL,
        seed=arguments.seed,
        device=torch.device(device),
        capture=not arguments.eager,
        log=Log(),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    arguments = parser().parse_args(argv)
    names = list(STAGES)
    if arguments.stage:
        names = [arguments.stage]
    elif arguments.until:
        names = names[: names.index(arguments.until) + 1]
    try:
        shop = open_workshop(arguments)
        _quiet()
        run(shop, names)
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


if __name__ == "__main__":
    sys.exit(main())

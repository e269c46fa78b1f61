"""The command: `python -m perf_tests.training --out FOLDER`.

Runs every stage that has not finished in FOLDER, in order; the same command goes on after an
interruption. FOLDER/model is the finished model, as it is shipped: with its card, a sheet of
images for eight held-out captions, and every number in scores.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from perf_tests.training import command, folder, image_distance, scores, stages
from perf_tests.training.captions import held_out_captions
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.shapes import Painter
from perf_tests.training.stages import Workshop
from perf_tests.training.training import Log

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
    pipeline = image_distance.load(shop.model, shop.device, torch.float32)
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
    """Stage `image_distance`: how far each harmless and each harmful change moves the image."""
    shop.report("evaluate")
    report = image_distance.measure(
        shop.model,
        shop.device,
        prompts=shop.plan.distance_prompts,
        steps=shop.plan.inference_steps,
    )
    for name, value in report.items():
        shop.log(
            f"image distance: {name}: {value['min']:.1f} / {value['median']:.1f} "
            f"/ {value['max']:.1f} dB (lowest, median, highest)"
        )
    return {"image_distance": report}


STAGES: dict[str, Callable[[Workshop], dict[str, Any]]] = {
    "tokenizer": stages.train_vocabulary,
    "vae": stages.train_vae,
    "teacher": stages.train_teacher,
    "student": stages.train_student,
    "tiny_vae": stages.train_tiny_vae,
    "evaluate": evaluate,
    "image_distance": measure_image_distance,
}


def write_summary(shop: Workshop) -> None:
    """scores.json and the model card, once there are scores."""
    if not shop.is_done("evaluate"):
        return
    reports = {name: shop.report(name) for name in STAGES if shop.is_done(name)}
    summary: dict[str, Any] = {
        "schema": 1,
        "made": command.made(shop),
        "seconds": {name: report.pop("wall_s") for name, report in reports.items()},
        **reports.pop("evaluate"),
        **reports.pop("image_distance", {}),
        "stages": reports,
    }
    (shop.model / "scores.json").write_text(json.dumps(summary, indent=1) + "\n")
    (shop.model / "README.md").write_text(folder.card(summary))


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    arguments = command.parser(Workshop.COMMAND, "Train the embedded model.", STAGES).parse_args(
        argv
    )

    def work() -> None:
        device = command.device(arguments)
        command.claim(arguments.out, {"seed": arguments.seed, "smoke": arguments.smoke})
        shop = Workshop(
            out=arguments.out,
            plan=stages.SMOKE if arguments.smoke else stages.FULL,
            seed=arguments.seed,
            device=device,
            capture=not arguments.eager,
            log=Log(),
        )
        names = command.chosen(arguments, STAGES)
        command.run(shop, STAGES, names, exact=("evaluate", "image_distance"))
        write_summary(shop)

    return command.guarded(work)


if __name__ == "__main__":
    sys.exit(main())

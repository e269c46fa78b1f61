"""The command: `python -m perf_tests.training.flux --out FOLDER`.

Runs every stage that has not finished in FOLDER, in order; the same command goes on after an
interruption. FOLDER/model is the finished pipeline, as it is shipped: with its card, a sheet of
images for eight held-out captions, and every number in scores.json. FOLDER/flow_model is the
pipeline before it learned guidance: ask that one with guidance 1.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from perf_tests.training import command
from perf_tests.training.captions import held_out_captions
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.flux import folder, scores, stages
from perf_tests.training.flux.compute import Compute
from perf_tests.training.flux.stages import Workshop
from perf_tests.training.folder import save_sheet
from perf_tests.training.scores import score
from perf_tests.training.shapes import Painter
from perf_tests.training.training import Log

SHEET_PROMPTS = 8
REQUIRED = (0.95, 0.90)
"""Share of the images that must be right, at the first two numbers of steps."""
SHOWN = 4
"""So many of the ways in which images are judged have a column in the sheet."""


def evaluate(shop: Workshop) -> dict[str, Any]:
    """Stage `evaluate`: save the pipeline in float16, load it again, count what prompts got."""
    made = stages.pipeline(shop, shop.text(), shop.transformer("guidance"))
    counts = folder.parameters(made)
    sizes = folder.save_model(shop.model, made)
    shop.log(f"evaluate: the model takes {sum(sizes.values()) / 1e6:.1f} MB")

    # What is judged is what was saved: float16 weights, computed with in float32.
    pipeline = folder.load(shop.model, shop.device, torch.float32)
    chosen = choose_guidance(shop, pipeline)
    captions = held_out_captions(shop.plan.score_prompts, seed=2)
    shown = held_out_captions(SHEET_PROMPTS, seed=5)
    texts = [caption.text for caption in (*captions, *shown)]
    evaluator = Evaluator(Painter(shop.device))
    results: dict[str, dict[str, float]] = {}
    columns: dict[str, torch.Tensor] = {}
    others = [scale for scale in shop.plan.guidances if scale != chosen]
    asked = [(steps, chosen) for steps in shop.plan.steps]
    asked += [(shop.plan.steps[0], scale) for scale in others]
    for steps, guidance in asked:
        images = scores.generate(pipeline, texts, seed=2, steps=steps, guidance=guidance)
        result = score(evaluator, images[: len(captions)], captions)
        name = f"{steps} steps, guidance {guidance}"
        shop.log(f"evaluate: {name}: {result.line()}")
        results[name] = result.rounded()
        if len(columns) < SHOWN:
            columns[name] = images[len(captions) :]
    save_sheet(shop.model / "sheet.png", shown, columns)
    return {"guidance": chosen, "scores": results, "bytes": sizes, "parameters": counts}


def choose_guidance(shop: Workshop, pipeline: Any) -> float:
    """The scale that clears what the model must obey by the largest margin."""

    def margin(guidance: float) -> float:
        rights = [
            stages.judge(shop, pipeline, steps=steps, guidance=guidance).right
            for steps in shop.plan.steps[: len(REQUIRED)]
        ]
        shop.log(f"evaluate: guidance {guidance}: right {' and '.join(f'{r:.1%}' for r in rights)}")
        return min(right - least for right, least in zip(rights, REQUIRED, strict=True))

    return max(shop.plan.guidances, key=margin)


STAGES = {
    "data": stages.measure_latents,
    "flow": stages.train_flow,
    "guidance": stages.train_guidance,
    "evaluate": evaluate,
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
        "stages": reports,
    }
    (shop.model / "scores.json").write_text(json.dumps(summary, indent=1) + "\n")
    (shop.model / "README.md").write_text(folder.card(summary))


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = command.parser(Workshop.COMMAND, "Train the second embedded model.", STAGES)
    parser.add_argument(
        "--minutes",
        type=float,
        help="end after about this time, with fewer steps (default: train for "
        f"{(stages.FULL.flow.limit_s + stages.FULL.guidance.limit_s) / 60:.1f} minutes)",
    )
    parser.add_argument(
        "--compute",
        type=Compute,
        choices=list(Compute),
        help="how the training computes (default: bf16 on a GPU, float32 on a CPU)",
    )
    start_s = time.perf_counter()
    arguments = parser.parse_args(argv)
    if arguments.minutes is not None and arguments.minutes <= 0:
        parser.error(f"--minutes must be positive (got {arguments.minutes:g})")

    def work() -> None:
        device = command.device(arguments)
        command.claim(arguments.out, {"seed": arguments.seed, "smoke": arguments.smoke})
        minutes = arguments.minutes
        shop = Workshop(
            out=arguments.out,
            plan=stages.SMOKE if arguments.smoke else stages.FULL,
            seed=arguments.seed,
            device=device,
            capture=not arguments.eager,
            compute=arguments.compute or Compute.default(device),
            deadline_s=None if minutes is None else start_s + 60 * minutes,
            log=Log(),
        )
        names = command.chosen(arguments, STAGES)
        command.run(shop, STAGES, names, exact=("data", "evaluate"))
        write_summary(shop)

    return command.guarded(work)


if __name__ == "__main__":
    sys.exit(main())

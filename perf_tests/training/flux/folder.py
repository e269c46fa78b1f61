"""The saved folder of the small Flux, and its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

MAX_PARAMETERS = 6_000_000
MAX_FOLDER_BYTES = 14_000_000


def save_model(folder: Path, pipeline: Any) -> dict[str, int]:
    """Write all modules in float16 as safetensors; the size of each file in bytes.

    The modules are cast in place and moved to the CPU.
    """
    pipeline.to("cpu", torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        # transformers takes a checkpoint's own type for its default, diffusers float32: without
        # this line a pipeline loaded with no type named would mix the two and fail.
        config = folder / name / "config.json"
        settings = {**json.loads(config.read_text()), "dtype": "float32"}
        config.write_text(json.dumps(settings, indent=2) + "\n")
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if sum(sizes.values()) > MAX_FOLDER_BYTES:
        raise ValueError(
            f"the model takes {sum(sizes.values()) / 1e6:.1f} MB; "
            f"allowed are {MAX_FOLDER_BYTES / 1e6:.0f} MB"
        )
    return sizes


def parameters(pipeline: Any) -> dict[str, int]:
    """How many parameters each module has."""
    counts = {
        name: sum(weight.numel() for weight in module.parameters())
        for name, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    if sum(counts.values()) > MAX_PARAMETERS:
        raise ValueError(f"{sum(counts.values()):,} parameters; allowed are {MAX_PARAMETERS:,}")
    return counts


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The saved pipeline, every module in `dtype`."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def card(report: dict[str, Any]) -> str:
    """The model card, from what the stages reported."""
    made, seconds, stages = report["made"], report["seconds"], report["stages"]
    counts = report["parameters"]
    scores = [
        f"| {name} | {score['right']:.1%} | {score['shape']:.1%} | {score['colour']:.1%} "
        f"| {score['background']:.1%} | {score['place']:.1%} | {score['size']:.1%} "
        f"| {score['shuffled']:.1%} |"
        for name, score in report["scores"].items()
    ]
    trained = [
        f"| {name} | {stages[name]['steps']} | {seconds[name]:.0f} | {stages[name]['loss']:.4f} |"
        for name in ("flow", "guidance")
    ]
    captions = next(iter(report["scores"].values()))["captions"]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        "---",
        "",
        "# A small Flux for tests",
        "",
        "Makes 64×64 images of one coloured shape on a coloured background, on a CPU, in a",
        "second or two. It has FLUX.1-dev's classes and format: double and single blocks, embedded",
        "guidance, a CLIP and a T5 text encoder, flow matching. It exists so that a test suite",
        "without a GPU and without a download can tell what an optimization of such a",
        "transformer does to images that mean something. It has no other use.",
        "",
        "```python",
        "pipeline = FluxPipeline.from_pretrained(FOLDER)",
        "pipeline(",
        '    "a red ring on a blue background",',
        "    height=64,",
        "    width=64,",
        "    max_sequence_length=20,",
        f"    guidance_scale={report['guidance']},",
        ")",
        "```",
        "",
        "`max_sequence_length` must be 20: the transformer was trained on prompts padded to this",
        f"length. The recommended `guidance_scale` is {report['guidance']}; it was picked by other",
        "captions than those of the table. All weights are float16 safetensors.",
        "",
        f"Parameters: {sum(counts.values()):,} ("
        + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        + ").",
        "",
        "![images for held-out captions](sheet.png)",
        "",
        "## Data",
        "",
        "The first embedded model's: shapes drawn by code during training, captions from a",
        "grammar, nothing downloaded. 61 of the 720 combinations of shape, colour and background",
        "were never trained on.",
        "",
        "## Recipe",
        "",
        f"`python -m perf_tests.training.flux --out FOLDER` with seed {made['seed']}, on "
        f"{made['machine']}, torch {made['torch']}, diffusers {made['diffusers']}, "
        f"transformers {made['transformers']}: {sum(seconds.values()):.0f} s.",
        "The autoencoder and the CLIP tokenizer are the first embedded model's. Its text encoder",
        "went on learning with the transformer and the new T5 encoder (`flow`). The guidance was",
        "then distilled into the transformer, for scales from 1 to 4 (`guidance`).",
        "",
        "| stage | steps | seconds | last loss |",
        "|---|---|---|---|",
        *trained,
        "",
        "## Quality",
        "",
        f"{captions} captions of combinations never trained on, read by the recipe's evaluator",
        "(no network in it). *Right*: shape and both colours. *Shuffled*: the same images against",
        "other captions. Place and size where the caption names them.",
        "",
        "| | right | shape | colour | background | place | size | shuffled |",
        "|---|---|---|---|---|---|---|---|",
        *scores,
        "",
        *_repeated(report),
        "## Licence",
        "",
        "Apache-2.0, code and weights. No third party's data or weights went in.",
        "",
    ]
    return "\n".join(lines)


def _repeated(report: dict[str, Any]) -> list[str]:
    """What a second run of the same command scored, where there was one."""
    again = report.get("repeated")
    if again is None:
        return []
    return [
        f"The same command run a second time, on the same kind of machine: {again['seconds']} s.",
        "",
        "| | right, first run | second run |",
        "|---|---|---|",
        *(
            f"| {name} | {report['scores'][name]['right']:.1%} | {right:.1%} |"
            for name, right in again["right"].items()
        ),
        "",
    ]

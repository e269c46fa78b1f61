"""The saved model: its folder in diffusers' format, its card, and its sheet of images."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perf_tests.training import architecture
from perf_tests.training.captions import Caption

STUDENT_FOLDER = "distilled_unet"
TINY_VAE_FOLDER = "tiny_vae"
MAX_FILE_BYTES = 12_000_000
MAX_FOLDER_BYTES = 24_000_000


def save_model(
    folder: Path, *, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, student: Any, tiny: Any
) -> dict[str, int]:
    """Write all modules in float16 as safetensors; the size of each file in bytes.

    The modules are cast in place.
    """
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=architecture.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (vae, text_encoder, unet, student, tiny):
        module.to("cpu", torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers takes a checkpoint's own type for its default, diffusers float32: without this
    # line a pipeline loaded with no type named would mix the two and fail.
    config = folder / "text_encoder" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n"
    )
    student.save_pretrained(folder / STUDENT_FOLDER, safe_serialization=True)
    tiny.save_pretrained(folder / TINY_VAE_FOLDER, safe_serialization=True)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    too_large = [name for name, size in sizes.items() if size > MAX_FILE_BYTES]
    if too_large or sum(sizes.values()) > MAX_FOLDER_BYTES:
        raise ValueError(
            f"the model takes {sum(sizes.values()) / 1e6:.1f} MB, too large a file: {too_large}; "
            f"allowed are {MAX_FOLDER_BYTES / 1e6:.0f} MB, and {MAX_FILE_BYTES / 1e6:.0f} MB a file"
        )
    return sizes


def save_sheet(path: Path, captions: list[Caption], columns: dict[str, Tensor]) -> None:
    """A sheet with one column of text and one for each of `columns`, a row for each caption.

    `columns` maps a heading to images (captions, 3, 64, 64) in [0, 1].
    """
    from PIL import Image, ImageDraw, ImageFont

    side, text_width, heading, gap = 128, 250, 46, 8
    width = text_width + len(columns) * (side + gap)
    sheet = Image.new("RGB", (width, heading + len(captions) * (side + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for x, name in enumerate(columns):
        at = (text_width + x * (side + gap), 6)
        pen.text(at, textwrap.fill(name, 16), fill="black", font=font)
    for row, caption in enumerate(captions):
        top = heading + row * (side + gap)
        pen.text((8, top + 40), textwrap.fill(caption.text, 30), fill="black", font=font)
        for x, images in enumerate(columns.values()):
            pixels = (images[row].clamp(0, 1) * 255).round().to(torch.uint8)
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            enlarged = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (text_width + x * (side + gap), top))
    sheet.save(path, optimize=True)


def card(report: dict[str, Any]) -> str:
    """The model card, from what the stages reported."""
    made, seconds = report["made"], report["seconds"]
    rows = [
        f"| {name} | {score['right']:.1%} | {score['shape']:.1%} | {score['colour']:.1%} "
        f"| {score['background']:.1%} | {score['place']:.1%} | {score['size']:.1%} "
        f"| {score['shuffled']:.1%} |"
        for name, score in report["scores"].items()
    ]
    stages = [
        f"| {name} | {stage.get('steps', '')} | {seconds[name]:.0f} "
        f"| {stage.get('loss', float('nan')):.4f} |"
        if "steps" in stage
        else f"| {name} | | {seconds[name]:.0f} | |"
        for name, stage in report["stages"].items()
    ]
    image_distance = [
        f"| {name.replace('_', ' ')} | {value['min']:.1f} | {value['median']:.1f} "
        f"| {value['max']:.1f} |"
        for name, value in report.get("image_distance", {}).items()
    ]
    parameters = ", ".join(f"{name} {n:,}" for name, n in report["parameters"].items())
    captions = next(iter(report["scores"].values()))["captions"]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        "---",
        "",
        "# A small Stable Diffusion for tests",
        "",
        "Makes 64×64 images of one coloured shape on a coloured background, on a CPU, in a",
        "second or two. It exists so that a test suite without a GPU and without a download can",
        "check that images are alike, and that a prompt was obeyed. It has no other use.",
        "",
        "```python",
        "pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)",
        "```",
        "",
        "Beside the pipeline's own modules, `distilled_unet/` and `tiny_vae/` load with",
        "`UNet2DConditionModel.from_pretrained` and `AutoencoderTiny.from_pretrained` and take the",
        "places of `unet` and `vae`. All weights are float16 safetensors.",
        "",
        f"Parameters: {parameters}.",
        "",
        "![images for held-out captions](sheet.png)",
        "",
        "## Data",
        "",
        "Drawn by code during training, nothing downloaded: eight shapes in ten colours on ten",
        "backgrounds, three sizes, nine places, six phrasings; about 130,000 captions. 61 of the",
        "720 combinations of shape, colour and background were never trained on. What captions",
        "leave open (exact position, angle, tint, the slope of the light) follows the seed.",
        "",
        "## Recipe",
        "",
        "`python -m perf_tests.training --out FOLDER` "
        f"with seed {made['seed']}, on {made['machine']}, torch {made['torch']}, "
        f"diffusers {made['diffusers']}, transformers {made['transformers']}: "
        f"{sum(seconds.values()):.0f} s.",
        "The UNet and the text encoder were trained together on the noise of Stable Diffusion's",
        "schedule, a tenth of the captions empty; the student distilled as BK-SDM, the tiny",
        "autoencoder from the large one's latents and images.",
        "",
        "| stage | steps | seconds | last loss |",
        "|---|---|---|---|",
        *stages,
        "",
        "## Quality",
        "",
        f"{captions} captions of combinations never trained on, 50 DDIM steps, guidance 7.5,",
        "read by the recipe's evaluator (no network in it). *Right*: shape and both colours.",
        "*Shuffled*: the same images against other captions. Place and size where the caption",
        "names them.",
        "",
        "| | right | shape | colour | background | place | size | shuffled |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "The autoencoders redraw held-out images at "
        f"{report['stages']['vae']['redrawn_psnr_db']:.1f} dB (large) and "
        f"{report['stages']['tiny_vae']['redrawn_psnr_db']:.1f} dB (tiny).",
        "",
    ]
    if image_distance:
        lines += [
            "PSNR in dB of changed pipelines' images against float32's, over held-out prompts:",
            "",
            "| change | lowest | median | highest |",
            "|---|---|---|---|",
            *image_distance,
            "",
        ]
    lines += [
        "## Licence",
        "",
        "Apache-2.0, code and weights. No third party's data or weights went in.",
        "",
    ]
    return "\n".join(lines)

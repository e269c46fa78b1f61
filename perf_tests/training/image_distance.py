"""How far each change moves the image: what must stay close, and what must not.

The suite's tolerances are set from this: between the harmless change that moves an image
most and the fault that moves it least.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perf_tests.training import scores
from perf_tests.training.captions import Caption, held_out_captions

SEED = 3
NOISE_SHARES = (0.02, 0.05, 0.1)
"""Noise added to the predicted noise at each step, in units of its standard deviation."""


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The saved pipeline with the DDIM scheduler, every module in `dtype`."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, safety_checker=None, local_files_only=True
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def distinct_captions(number: int) -> list[Caption]:
    """Held-out captions, so that another asks for another image: one of each combination, then a
    further one of each, as long as more are wanted.
    """
    of_each = defaultdict[tuple[int, int, int], list[Caption]](list)
    for caption in held_out_captions(40 * number, seed=3):
        # The last one first: those that the committed tables were made of.
        of_each[caption.triple].insert(0, caption)
    turns = zip_longest(*of_each.values())
    return [caption for turn in turns for caption in turn if caption][:number]


def measure(
    folder: Path, device: torch.device, *, prompts: int, steps: int
) -> dict[str, dict[str, Any]]:
    """Peak signal to noise of each change's images against float32's, in dB, by change.

    `each` has one a prompt, with noise of its own; `min`, `median` and `max` are theirs.
    """
    texts = [caption.text for caption in distinct_captions(prompts)]
    generate = partial(scores.generate, seed=SEED, steps=steps)
    reference = load(folder, device, torch.float32)
    accepted = generate(reference, texts)
    report: dict[str, dict[str, Any]] = {}

    def compare(name: str, made: Tensor) -> None:
        psnr_db = -10 * (made - accepted).square().mean((1, 2, 3)).clamp(min=1e-10).log10()
        low, middle, high = (float(psnr_db.quantile(q)) for q in (0.0, 0.5, 1.0))
        report[name] = {
            "min": round(low, 1),
            "median": round(middle, 1),
            "max": round(high, 1),
            "each": [round(float(value), 1) for value in psnr_db],
        }

    compare("again", generate(reference, texts))
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        compare(name, generate(load(folder, device, dtype), texts))
    for name, made in faulty(reference, texts, steps=steps):
        compare(name, made)
    return report


def faulty(pipeline: Any, texts: list[str], *, steps: int) -> Iterator[tuple[str, Tensor]]:
    """Images that must not pass for the pipeline's own of these prompts, by what is wrong."""
    generate = partial(scores.generate, pipeline, steps=steps)
    yield "another_prompt", generate([*texts[1:], texts[0]], seed=SEED)
    yield "another_seed", generate(texts, seed=SEED + 1)
    yield "guidance_off", generate(texts, seed=SEED, guidance=1.0)
    for name, fault in faults().items():
        with fault(pipeline):
            yield name, generate(texts, seed=SEED)


Fault = Callable[[Any], AbstractContextManager[None]]


def faults() -> dict[str, Fault]:
    """Faults injected in a pipeline while the context is open, by name."""
    injected: dict[str, Fault] = {
        "text_zeroed": _text_zeroed,
        "mid_block_skipped": lambda pipeline: _returning_input(pipeline.unet.mid_block),
        "attention_skipped": lambda pipeline: _returning_input(
            pipeline.unet.up_blocks[-1].attentions[1]
        ),
        "cross_attention_q_halved": lambda pipeline: _q_halved(pipeline, "attn2"),
        "all_q_halved": lambda pipeline: _q_halved(pipeline, ""),
    }
    for share in NOISE_SHARES:
        injected[f"noise_{share:.1%}"] = partial(_noisy, share=share)
    return injected


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Remove the hooks when the context ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _text_zeroed(pipeline: Any) -> AbstractContextManager[None]:
    def zero(_module: Any, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = torch.zeros_like(output.last_hidden_state)
        return output

    return hooked(pipeline.text_encoder.register_forward_hook(zero))


def _returning_input(module: Any) -> AbstractContextManager[None]:
    if module is None:
        return nullcontext()

    def skip(_module: Any, inputs: Any, output: Any) -> Any:
        return (inputs[0],) if isinstance(output, tuple) else inputs[0]

    return hooked(module.register_forward_hook(skip))


def _q_halved(pipeline: Any, kind: str) -> AbstractContextManager[None]:
    chosen = [
        module
        for name, module in pipeline.unet.named_modules()
        if name.endswith("to_q") and kind in name
    ]
    return hooked(*(q.register_forward_hook(lambda _m, _i, out: 0.5 * out) for q in chosen))


def _noisy(pipeline: Any, share: float) -> AbstractContextManager[None]:
    generator = torch.Generator().manual_seed(0)

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        clean = output[0]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return (clean + share * clean.std() * noise,)

    return hooked(pipeline.unet.register_forward_hook(add))

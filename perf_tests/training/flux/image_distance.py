"""How far each fault moves a small Flux's image: what must not pass for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perf_tests.training.flux import scores
from perf_tests.training.image_distance import NOISE_SHARES, SEED, hooked

GUIDANCE = 1.5
"""What the shipped model's card recommends."""

Fault = Callable[[Any], AbstractContextManager[None]]


def faulty(pipeline: Any, texts: list[str], *, steps: int) -> Iterator[tuple[str, Tensor]]:
    """Images that must not pass for the pipeline's own of these prompts, by what is wrong."""
    generate = partial(scores.generate, pipeline, steps=steps)
    yield "another prompt", generate([*texts[1:], texts[0]], seed=SEED, guidance=GUIDANCE)
    yield "another seed", generate(texts, seed=SEED + 1, guidance=GUIDANCE)
    yield "prompt lost", generate([""] * len(texts), seed=SEED, guidance=GUIDANCE)
    for name, fault in faults().items():
        with fault(pipeline):
            yield name, generate(texts, seed=SEED, guidance=GUIDANCE)
    # Guidance is an input that the transformer was trained on: the images are much the same.
    yield "guidance off", generate(texts, seed=SEED, guidance=1.0)


def faults() -> dict[str, Fault]:
    """Faults injected in a pipeline while the context is open, by name."""
    injected: dict[str, Fault] = {
        "T5's states zeroed": lambda pipeline: _zeroed(pipeline.text_encoder_2),
        "CLIP's pooled state zeroed": lambda pipeline: _zeroed(pipeline.text_encoder),
        "a double block skipped": lambda pipeline: _skipped(
            pipeline.transformer.transformer_blocks[-1]
        ),
        "a single block skipped": lambda pipeline: _skipped(
            pipeline.transformer.single_transformer_blocks[-1]
        ),
        "q halved": _q_halved,
        "rotary embedding lost": _positions_lost,
        "schedule not shifted": _schedule_not_shifted,
    }
    for share in NOISE_SHARES:
        injected[f"noise {share:.0%}"] = partial(_noisy, share=share)
    return injected


def _zeroed(encoder: Any) -> AbstractContextManager[None]:
    def zero(_module: Any, _inputs: Any, output: Any) -> Any:
        for name in ("last_hidden_state", "pooler_output"):
            if name in output:
                output[name] = torch.zeros_like(output[name])
        return output

    return hooked(encoder.register_forward_hook(zero))


def _skipped(block: Any) -> AbstractContextManager[None]:
    def skip(_module: Any, _inputs: Any, given: dict[str, Any], _output: Any) -> Any:
        return given["encoder_hidden_states"], given["hidden_states"]

    return hooked(block.register_forward_hook(skip, with_kwargs=True))


def _q_halved(pipeline: Any) -> AbstractContextManager[None]:
    # Behind the normalization, which would undo it.
    norms = [m for name, m in pipeline.transformer.named_modules() if name.endswith("norm_q")]
    return hooked(*(norm.register_forward_hook(lambda _m, _i, out: 0.5 * out) for norm in norms))


def _positions_lost(pipeline: Any) -> AbstractContextManager[None]:
    def unturned(_module: Any, _inputs: Any, output: Any) -> Any:
        cosine, sine = output
        return torch.ones_like(cosine), torch.zeros_like(sine)

    return hooked(pipeline.transformer.pos_embed.register_forward_hook(unturned))


@contextmanager
def _schedule_not_shifted(pipeline: Any) -> Iterator[None]:
    before = pipeline.scheduler
    plain = {"use_dynamic_shifting": False, "shift": 1.0}
    pipeline.scheduler = type(before).from_config(before.config, **plain)
    try:
        yield
    finally:
        pipeline.scheduler = before


def _noisy(pipeline: Any, share: float) -> AbstractContextManager[None]:
    generator = torch.Generator().manual_seed(0)

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        clean = output[0]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return (clean + share * clean.std() * noise,)

    return hooked(pipeline.transformer.register_forward_hook(add))


def nothing(_pipeline: Any) -> AbstractContextManager[None]:
    """No change."""
    return nullcontext()

"""The configurations of the small Flux: FLUX.1-dev, scaled down.

The transformer has Flux's two kinds of blocks, rotary positions over three axes, normed queries
and keys, and an embedding of the guidance. The heads divide the rotary channels as Flux's do, one
eighth for the index that is always zero. Widths are multiples of 32, which int8 and float8 kernels
ask for.
"""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.models.checkpoint import EMBEDDED
from diffusers_perf.models.flux import FLUX_DEV
from perf_tests.training.architecture import LATENT_CHANNELS, LATENT_SIDE, TEXT_WIDTH

TOKEN_SIDE = LATENT_SIDE // 2
TOKENS = TOKEN_SIDE**2
TOKEN_CHANNELS = 4 * LATENT_CHANNELS

TRANSFORMER: dict[str, Any] = {
    "in_channels": TOKEN_CHANNELS,
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 5,
    "joint_attention_dim": TEXT_WIDTH,
    "pooled_projection_dim": TEXT_WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 14, 14),
}

T5: dict[str, Any] = {
    "d_model": TEXT_WIDTH,
    "d_kv": 32,
    "num_heads": 4,
    "d_ff": 2 * TEXT_WIDTH,
    "num_layers": 2,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "tie_word_embeddings": False,
    "is_encoder_decoder": False,
    "use_cache": False,
}

SCHEDULER = FLUX_DEV.scheduler_config


def transformer() -> Any:
    """A new `FluxTransformer2DModel` whose blocks start as the identity.

    As in DiT, the modulations and the last layer start at zero: PyTorch's start would scale and
    gate the residual stream at random.
    """
    from diffusers import FluxTransformer2DModel

    model: Any = FluxTransformer2DModel(**TRANSFORMER)
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    modulations = [
        getattr(block, name).linear
        for block in blocks
        for name in ("norm", "norm1", "norm1_context")
        if hasattr(block, name)
    ]
    with torch.no_grad():
        for layer in (*modulations, model.norm_out.linear, model.proj_out):
            layer.weight.zero_()
            layer.bias.zero_()
    return model


def t5_encoder(tokenizer: Any) -> Any:
    """A new `T5EncoderModel` for the tokenizer's vocabulary."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **T5,
    )
    return T5EncoderModel(config)


def clip_tokenizer() -> Any:
    """The first model's tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


def clip_encoder() -> Any:
    """The first model's text encoder, which goes on learning here: Flux takes its pooled state."""
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(EMBEDDED / "text_encoder", dtype=torch.float32)


def vae() -> Any:
    """The first model's autoencoder, unchanged."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(EMBEDDED / "vae", dtype=torch.float32)


def scheduler() -> Any:
    """Flow matching with Euler steps, the noise levels shifted by the number of tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**SCHEDULER)


def level_shift() -> float:
    """By how much the pipeline's scheduler shifts noise levels for this model's images."""
    import math

    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    return math.exp(
        calculate_shift(
            TOKENS,
            SCHEDULER["base_image_seq_len"],
            SCHEDULER["max_image_seq_len"],
            SCHEDULER["base_shift"],
            SCHEDULER["max_shift"],
        )
    )

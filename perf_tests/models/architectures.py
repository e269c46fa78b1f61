"""Configurations of the guide's models, with the parameter counts that prove them right.

Values are those of the published checkpoints' `config.json`: Stable Diffusion v1.4/v1.5 (CompVis,
RunwayML), bk-sdm-small (Nota AI), TAESD (madebyollin), CLIP ViT-L/14's text model (OpenAI).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A module: its class, its configuration, and how many parameters it must have."""

    library: str
    class_name: str
    config: dict[str, Any]
    parameters: int
    gain: float = 1.0
    """Factor on PyTorch's default draw of every convolution's and linear layer's weight."""
    output_bias: float = 0.0
    """Added to the bias of the last convolution, where a draw's mean is far from a picture's."""


_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}

# On the gain: with PyTorch's default the UNet hardly moves the picture, and every fault passes.
# At 2, measured at full size on an H100, fp16 stays above 60 dB and another prompt falls below
# 20 dB. The tiny autoencoder's picture is black at 1 (mean 0.017) and all white and black at 2.45;
# at 1.6, lifted by 0.6, it is neither.
ARCHITECTURES = {
    "unet": Architecture(
        library="diffusers",
        class_name="UNet2DConditionModel",
        config={**_UNET, "layers_per_block": 2},
        parameters=859_520_964,
        gain=2.0,
    ),
    "distilled_unet": Architecture(
        library="diffusers",
        class_name="UNet2DConditionModel",
        config={
            **_UNET,
            "layers_per_block": 1,
            "mid_block_type": None,
        },
        parameters=482_346_884,
        gain=2.0,
    ),
    "vae": Architecture(
        library="diffusers",
        class_name="AutoencoderKL",
        config={
            "sample_size": 512,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
            "scaling_factor": 0.18215,
        },
        parameters=83_653_863,
    ),
    "tiny_vae": Architecture(
        library="diffusers",
        class_name="AutoencoderTiny",
        config={},
        parameters=2_445_063,
        gain=1.6,
        output_bias=0.6,
    ),
    "text_encoder": Architecture(
        library="transformers",
        class_name="CLIPTextModel",
        config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 77,
            "vocab_size": 49_408,
            "hidden_act": "quick_gelu",
            "projection_dim": 768,
        },
        parameters=123_060_480,
    ),
}

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
    "skip_prk_steps": True,
}

"""Configurations of the guide's models, with the parameter counts that prove them right.

Values are those of the published checkpoints' `config.json`: Stable Diffusion v1.4/v1.5 (CompVis,
RunwayML), bk-sdm-small (Nota AI), TAESD (madebyollin), CLIP ViT-L/14's text model (OpenAI).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A module: its class, its configuration, and how many parameters it must have."""

    library: str
    class_name: str
    config: dict[str, Any]
    parameters: int
    config_class: str = "CLIPTextConfig"
    """Of transformers' modules alone."""
    gain: float = 1.0
    """Factor on PyTorch's default draw of every convolution's and linear layer's weight."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """By the last words of a layer's path, what takes the place of `gain`; of a normalization, its
    weight."""
    slow: tuple[str, ...] = ()
    """Ends of the paths of layers that are given a number's sinusoids, the fast ones first. These
    count little, as in a trained model: what it predicts changes slowly with the timestep."""
    output_bias: float = 0.0
    """Added to the bias of the last convolution, where a draw's mean is far from an image's."""


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

_SMALL_UNET: dict[str, Any] = {
    **_UNET,
    "sample_size": 8,
    "block_out_channels": (32, 48, 64, 64),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
_SHORTER: dict[str, Any] = {"layers_per_block": 1, "mid_block_type": None}
"""What bk-sdm-small leaves of a UNet."""

_VAE: dict[str, Any] = {
    "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49_408,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}


UNET_GAIN = 2.0
"""With PyTorch's default draw the UNet hardly moves the image, and every fault passes. At twice
that, measured at full size on an H100, fp16 stays above 60 dB and another prompt falls below 20."""

TINY_VAE_GAIN, TINY_VAE_BIAS = 1.6, 0.6
"""The tiny autoencoder's image is black at a gain of 1 (mean 0.017) and saturated at 2.45. At
1.6, lifted by 0.6, it is neither."""


def _unet(config: dict[str, Any], parameters: int) -> Architecture:
    return Architecture(
        library="diffusers",
        class_name="UNet2DConditionModel",
        config=config,
        parameters=parameters,
        gain=UNET_GAIN,
    )


def _of_diffusers(class_name: str, config: dict[str, Any], parameters: int) -> Architecture:
    return Architecture(
        library="diffusers", class_name=class_name, config=config, parameters=parameters
    )


def _text(config: dict[str, Any], parameters: int) -> Architecture:
    return Architecture(
        library="transformers", class_name="CLIPTextModel", config=config, parameters=parameters
    )


def _tiny_vae(config: dict[str, Any], parameters: int) -> Architecture:
    return Architecture(
        library="diffusers",
        class_name="AutoencoderTiny",
        config=config,
        parameters=parameters,
        gain=TINY_VAE_GAIN,
        output_bias=TINY_VAE_BIAS,
    )


ARCHITECTURES: dict[str, dict[str, Architecture]] = {
    "sd15": {
        "unet": _unet({**_UNET, "layers_per_block": 2}, 859_520_964),
        "distilled_unet": _unet({**_UNET, **_SHORTER}, 482_346_884),
        "vae": _of_diffusers("AutoencoderKL", _VAE, 83_653_863),
        "tiny_vae": _tiny_vae({}, 2_445_063),
        "text_encoder": _text(CLIP_L, 123_060_480),
    },
    # The same shape in 4 million parameters, for a CPU: 64x64 pixels from 8x8 latents.
    "small": {
        "unet": _unet({**_SMALL_UNET, "layers_per_block": 2}, 2_783_076),
        "distilled_unet": _unet({**_SMALL_UNET, **_SHORTER}, 1_611_316),
        "vae": _of_diffusers(
            "AutoencoderKL",
            {
                **_VAE,
                "sample_size": 64,
                "block_out_channels": (16, 32, 32, 32),
                "norm_num_groups": 8,
            },
            437_847,
        ),
        "tiny_vae": _tiny_vae(
            {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4},
            155_079,
        ),
        "text_encoder": _text(
            {
                **CLIP_L,
                "hidden_size": 32,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "projection_dim": 32,
            },
            1_608_992,
        ),
    },
}
"""By model, then by the role a module plays in it."""

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
    "skip_prk_steps": True,
}

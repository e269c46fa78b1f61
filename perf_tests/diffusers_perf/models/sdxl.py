"""Stable Diffusion XL 1.0 in full size.

Values are those of `stabilityai/stable-diffusion-xl-base-1.0`'s configurations. What the gains are
for, and what they separate: SDXL.md beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers_perf.models.architectures import CLIP_L, Architecture
from diffusers_perf.models.family import Family
from diffusers_perf.models.tokenizers import clip_tokenizer

KL_DECODER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 1024,
}
DECODER_GAINS = {"decoder.conv_out": 0.5}
"""An image's numbers lie within -1 and 1."""
CLIP = Architecture(
    library="transformers",
    class_name="CLIPTextModel",
    config=CLIP_L,
    parameters=123_060_480,
)


def _tokenizers() -> Mapping[str, Any]:
    return {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(pad="!")}


SDXL = Family(
    pipeline="StableDiffusionXLPipeline",
    modules={
        "unet": Architecture(
            library="diffusers",
            class_name="UNet2DConditionModel",
            config={
                "sample_size": 128,
                "in_channels": 4,
                "out_channels": 4,
                "down_block_types": (
                    "DownBlock2D",
                    "CrossAttnDownBlock2D",
                    "CrossAttnDownBlock2D",
                ),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "block_out_channels": (320, 640, 1280),
                "layers_per_block": 2,
                "cross_attention_dim": 2048,
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            parameters=2_567_463_684,
            gains={"attn2.to_q": 1.4, "attn2.to_k": 1.4},
        ),
        "vae": Architecture(
            library="diffusers",
            class_name="AutoencoderKL",
            config={
                **KL_DECODER,
                "latent_channels": 4,
                "scaling_factor": 0.13025,
                "force_upcast": True,
            },
            parameters=83_653_863,
            gains=DECODER_GAINS,
        ),
        "text_encoder": CLIP,
        "text_encoder_2": Architecture(
            library="transformers",
            class_name="CLIPTextModelWithProjection",
            config={
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "max_position_embeddings": 77,
                "vocab_size": 49_408,
                "hidden_act": "gelu",
                "projection_dim": 1280,
            },
            parameters=694_659_840,
        ),
    },
    scheduler="EulerDiscreteScheduler",
    scheduler_config={
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
    tokenizers=_tokenizers,
    # Its watermark is another package's work on the host.
    arguments={"add_watermarker": False},
)

"""Pipelines of full size without weights: those that ship, and tiny ones with published sizes.

Of the latter, each module has the class and configuration of the tiny one, with the published
model's sizes, so that a pipeline of 20 billion parameters takes seconds and no memory.
"""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.models.architectures import CLIP_L
from diffusers_perf.models.flux import T5
from diffusers_perf.models.sdxl import KL_DECODER, SDXL
from diffusers_perf.models.served import Served
from perf_tests.tests import tiny

CLIP_G = SDXL.modules["text_encoder_2"].config
KL = {**KL_DECODER, "norm_num_groups": 32}
VIDEO_VAE = {"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}

MODULES: dict[str, dict[str, dict[str, Any]]] = {
    "sd3": {
        "transformer": {
            "sample_size": 128,
            "num_layers": 38,
            "attention_head_dim": 64,
            "num_attention_heads": 38,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 2432,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
        "vae": KL,
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
        "text_encoder_3": T5.config,
    },
    "pixart": {
        "transformer": {
            "sample_size": 128,
            "num_layers": 28,
            "attention_head_dim": 72,
            "num_attention_heads": 16,
            "caption_channels": 4096,
            "cross_attention_dim": 1152,
        },
        "vae": KL,
        "text_encoder": T5.config,
    },
    "zimage": {
        "transformer": {
            "dim": 3840,
            "n_layers": 30,
            "n_refiner_layers": 2,
            "n_heads": 30,
            "n_kv_heads": 30,
            "cap_feat_dim": 2560,
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
        },
        "vae": KL,
        "text_encoder": {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "layer_types": ["full_attention"] * 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    },
    "qwen": {
        "transformer": {
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 60,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 3584,
            "axes_dims_rope": (16, 56, 56),
        },
        "vae": {**VIDEO_VAE, "latents_mean": [0.0] * 16, "latents_std": [1.0] * 16},
        "text_encoder": {
            "text_config": {
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "layer_types": ["full_attention"] * 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": {
                    "mrope_section": [16, 24, 24],
                    "rope_type": "default",
                    "rope_theta": 1e6,
                },
            }
        },
    },
    "wan": {
        "transformer": {
            "num_attention_heads": 40,
            "attention_head_dim": 128,
            "num_layers": 40,
            "ffn_dim": 13824,
            "text_dim": 4096,
            "freq_dim": 256,
            "rope_max_seq_len": 1024,
        },
        "vae": VIDEO_VAE,
        "text_encoder": T5.config,
    },
}
"""By family and component, in what Stable Diffusion 3.5 Large, PixArt-Sigma, Z-Image, Qwen-Image
and Wan 2.1 14B differ from the tiny pipelines."""
SERVED = {"sdxl": "sdxl", "flux": "flux1-dev"}
"""By family, what ships in full size."""

CALLS: dict[str, dict[str, Any]] = {
    "wan": {"height": 480, "width": 832, "num_frames": 81},
}
"""What of a call differs from 1024 by 1024 pixels."""


def build(name: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """The family's pipeline in full size, with parameters that have no data."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped, unused-ignore]

    if name in SERVED:
        source = Served(SERVED[name]).without_weights()
        return source.load(scheduler=None, variants={}, dtype=dtype, device=torch.device("cpu"))
    small = tiny.builder(name)()
    parts = dict(small.components)
    with init_empty_weights(include_buffers=False):
        for place, changes in MODULES[name].items():
            parts[place] = _enlarged(parts[place], changes)
    for place in MODULES[name]:
        # A text encoder's words are shared, and stand in two places.
        getattr(parts[place], "tie_weights", lambda: None)()
        # PyTorch's own `to`: diffusers' warns about what matters only to weights.
        parts[place] = torch.nn.Module.to(parts[place], dtype=dtype).eval().requires_grad_(False)
    return type(small)(**parts)


def _enlarged(module: Any, changes: dict[str, Any]) -> Any:
    kind = type(module)
    if hasattr(kind, "from_config"):
        return kind.from_config({**module.config, **changes})
    config = module.config.to_dict()
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    return kind(type(module.config)(**config))

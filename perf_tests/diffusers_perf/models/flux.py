"""FLUX.1 in full size: dev, and schnell, which has no guidance.

Values are those of `black-forest-labs/FLUX.1-dev`'s configurations. What the gains are for, and
what they separate: FLUX.md beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusers_perf.messages import models as messages
from diffusers_perf.models.architectures import Architecture
from diffusers_perf.models.family import Family
from diffusers_perf.models.sdxl import CLIP, DECODER_GAINS, KL_DECODER
from diffusers_perf.models.tokenizers import clip_tokenizer, stand_in_for_t5

_TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}


def _transformer(*, guidance: bool, parameters: int) -> Architecture:
    return Architecture(
        library="diffusers",
        class_name="FluxTransformer2DModel",
        config={**_TRANSFORMER, "guidance_embeds": guidance},
        parameters=parameters,
        slow=("timestep_embedder.linear_1", "guidance_embedder.linear_1"),
        gains={"norm_q": 1.6, "norm_k": 1.6, "norm_added_q": 1.6, "norm_added_k": 2.0},
    )


T5 = Architecture(
    library="transformers",
    class_name="T5EncoderModel",
    config_class="T5Config",
    config={
        "vocab_size": 32_128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10_240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
    },
    parameters=4_762_310_656,
    # Its attention does not divide by the root of a head's width, 8.
    gains={"SelfAttention.q": 0.25},
)


def _tokenizers() -> Mapping[str, Any]:
    return {"tokenizer": clip_tokenizer(), "tokenizer_2": stand_in_for_t5()}


FLUX_DEV = Family(
    pipeline="FluxPipeline",
    modules={
        "transformer": _transformer(guidance=True, parameters=11_901_408_320),
        "vae": Architecture(
            library="diffusers",
            class_name="AutoencoderKL",
            config={
                **KL_DECODER,
                "latent_channels": 16,
                "scaling_factor": 0.3611,
                "shift_factor": 0.1159,
                "use_quant_conv": False,
                "use_post_quant_conv": False,
            },
            parameters=83_819_683,
            gains=DECODER_GAINS,
        ),
        "text_encoder": CLIP,
        "text_encoder_2": T5,
    },
    scheduler="FlowMatchEulerDiscreteScheduler",
    scheduler_config={
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
    tokenizers=_tokenizers,
    stands_in=messages.STANDS_IN_FOR_T5,
)
FLUX_SCHNELL = replace(
    FLUX_DEV,
    modules={
        **FLUX_DEV.modules,
        "transformer": _transformer(guidance=False, parameters=11_891_178_560),
    },
    scheduler_config={"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
)

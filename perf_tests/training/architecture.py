"""The configurations of the embedded model's modules: Stable Diffusion v1.5, scaled down.

The UNet has v1.5's blocks (with cross attention, the last without, mirrored, two layers a block, a
mid block), but three levels where v1.5 has four: on latents of 8×8 a fourth would see one pixel.
The distilled UNet has those of bk-sdm-small (one layer a block, no mid block). Sizes were chosen
by the clock of a CPU, where the time of a step is that of its fifteen hundred small operations and
hardly that of their arithmetic: the fourth level alone would cost a quarter more.
"""

from __future__ import annotations

from typing import Any

from perf_tests.training.shapes import IMAGE_SIDE
from perf_tests.training.vocabulary import MAX_TOKENS

LATENT_CHANNELS = 4
DOWNSAMPLING = 8
LATENT_SIDE = IMAGE_SIDE // DOWNSAMPLING
TEXT_WIDTH = 128
NORM_GROUPS = 4
"""Few and wide: a group of two channels would forget how bright a plain surface is, since the norm
takes away what the two have in common and their scale."""
START_LOG_VARIANCE = -6.0

_UNET: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2,
    "cross_attention_dim": TEXT_WIDTH,
    # diffusers reads this as the number of heads, for v1.5's configuration as well; each is then
    # a multiple of eight wide, which fused attention kernels ask for
    "attention_head_dim": 2,
    "norm_num_groups": NORM_GROUPS,
}

TEACHER_UNET = {**_UNET, "layers_per_block": 2, "mid_block_type": "UNetMidBlock2DCrossAttn"}
STUDENT_UNET = {**_UNET, "layers_per_block": 1, "mid_block_type": None}

VAE: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    # v1.5 has two; one learns several times faster here, as seen in the first hundred steps
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": NORM_GROUPS,
    "sample_size": IMAGE_SIDE,
    "force_upcast": False,
}

TINY_VAE: dict[str, Any] = {
    "encoder_block_out_channels": (32,) * 4,
    "decoder_block_out_channels": (32,) * 4,
    "num_encoder_blocks": (1, 2, 2, 2),
    "num_decoder_blocks": (2, 2, 2, 1),
    "latent_channels": LATENT_CHANNELS,
}

SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "skip_prk_steps": True,
    # no argument of PNDM, but DDIM reads it from here, as from v1.5's own file
    "clip_sample": False,
}


def teacher_unet() -> Any:
    """A new `UNet2DConditionModel` for the teacher."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**TEACHER_UNET)


def student_unet() -> Any:
    """A new `UNet2DConditionModel` for the student."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**STUDENT_UNET)


def vae() -> Any:
    """A new `AutoencoderKL`, whose posterior starts narrow.

    At PyTorch's start it is as wide as the prior, and the decoder would at first see noise only.
    """
    import torch
    from diffusers import AutoencoderKL

    model: Any = AutoencoderKL(**VAE)
    with torch.no_grad():
        model.quant_conv.bias[LATENT_CHANNELS:] = START_LOG_VARIANCE
    return model


def tiny_vae() -> Any:
    """A new `AutoencoderTiny`."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(**TINY_VAE)


def text_encoder(tokenizer: Any) -> Any:
    """A new `CLIPTextModel` for the tokenizer's vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        hidden_size=TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # CLIP's own start is scaled for a model twelve times as wide
        initializer_factor=1.0,
    )
    return CLIPTextModel(config)


def scheduler() -> Any:
    """Stable Diffusion's noise schedule, in the class its checkpoints name."""
    from diffusers import PNDMScheduler

    return PNDMScheduler.from_config(SCHEDULER)

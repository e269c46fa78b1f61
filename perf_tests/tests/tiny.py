"""Tiny pipelines of many kinds, built in code: every family that the library must measure.

Each builder takes what a user's own builder takes, a dtype and a device, so that
``perf_tests.tests.tiny:flux`` is a model source. Weights are seeded by their names and keep
activations at unit scale on every path, so that each input of a pipeline changes its images.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers as untyped_diffusers
import numpy as np
import torch
import transformers as untyped_transformers
from PIL import Image

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.models.checkpoint import EMBEDDED

# Their classes are typed in part, and in each version another part.
diffusers: Any = untyped_diffusers
transformers: Any = untyped_transformers

CPU = torch.device("cpu")
SIDE = 64
"""Height and width of the images, in pixels."""

Builder = Callable[..., Any]


def drawn(module: Any, name: str) -> Any:
    """The module with seeded weights: each layer's output has the scale of its input."""
    for path, parameter in module.named_parameters():
        owner = module.get_submodule(path.rpartition(".")[0])
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name}.{path}".encode()))
        noise = torch.randn(parameter.shape, generator=generator)
        kind = type(owner).__name__
        if "Norm" in kind:
            data = 0.1 * noise + (0.0 if path.endswith("bias") else 1.0)
        elif path.endswith("bias"):
            data = 0.1 * noise
        elif kind in ("Linear", "Conv2d", "Conv3d", "WanCausalConv3d", "QwenImageCausalConv3d"):
            data = noise / math.sqrt(parameter[0].numel())
        else:
            # Embeddings, tokens that fill a sequence, tables of scales and shifts.
            data = noise
        parameter.data.copy_(data)
    return module.eval().requires_grad_(False)


# Tokenizers


@cache
def clip_tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


@cache
def t5_tokenizer() -> Any:
    """A token for each printable character."""
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return transformers.T5Tokenizer(vocab=[*special, *letters], extra_ids=0, model_max_length=SIDE)


QWEN_IMAGE_ASKS = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:"
)
"""What Qwen-Image's pipeline puts before each prompt, and takes for 34 tokens with what is around
it. The 16 others are of one letter here."""


@cache
def qwen_tokenizer() -> Any:
    """A token for each byte, and the template of a conversation."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer: Any = transformers.Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    cuts = [len(QWEN_IMAGE_ASKS) * part // 18 for part in range(19)]
    tokenizer.add_tokens([QWEN_IMAGE_ASKS[a:b] for a, b in pairwise(cuts)])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n"
    )
    return tokenizer


# Modules


def clip_text(*, projects: bool = False) -> Any:
    words = len(clip_tokenizer())
    config = transformers.CLIPTextConfig(
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
        vocab_size=words,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        max_position_embeddings=20,
        projection_dim=32,
    )
    kind = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    return drawn(kind(config), f"clip {projects}")


def t5_text(*, umt5: bool = False) -> Any:
    config, kind = (
        (transformers.UMT5Config, transformers.UMT5EncoderModel)
        if umt5
        else (transformers.T5Config, transformers.T5EncoderModel)
    )
    module = drawn(
        kind(
            config(
                vocab_size=len(t5_tokenizer()),
                d_model=32,
                d_kv=8,
                d_ff=37,
                num_layers=2,
                num_heads=4,
                relative_attention_num_buckets=8,
                is_encoder_decoder=False,
                feed_forward_proj="gated-gelu",
            )
        ),
        "t5",
    )
    for path, parameter in module.named_parameters():
        if path.endswith("SelfAttention.q.weight"):
            # T5 does not divide the products of queries and keys.
            parameter.data.div_(math.sqrt(8))
    return module


def autoencoder(channels: int = 4, **config: Any) -> Any:
    return drawn(
        diffusers.AutoencoderKL(
            block_out_channels=[8, 16, 16, 16],
            norm_num_groups=4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            latent_channels=channels,
            sample_size=SIDE,
            **config,
        ),
        "vae",
    )


def flow_autoencoder() -> Any:
    """Of the families that came after SDXL: 16 channels, a shift, no convolution around it."""
    return autoencoder(
        16,
        shift_factor=0.1159,
        scaling_factor=0.3611,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "sample_size": SIDE // 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}


def unet() -> Any:
    return drawn(diffusers.UNet2DConditionModel(**UNET), "unet")


def unet_of_sdxl() -> Any:
    config = {
        **UNET,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 2),
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "cross_attention_dim": 64,
    }
    return drawn(diffusers.UNet2DConditionModel(**config), "unet")


STABLE_DIFFUSION_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def _standing(pipeline: Any, dtype: torch.dtype, device: torch.device) -> Any:
    return pipeline.to(device, dtype)


# Pipelines: one of each family


def _sd_parts() -> dict[str, Any]:
    return {
        "unet": unet(),
        "vae": autoencoder(),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.DDIMScheduler(
            **STABLE_DIFFUSION_SCHEDULE, clip_sample=False, set_alpha_to_one=False
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def sd(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Stable Diffusion 1.x."""
    return _standing(diffusers.StableDiffusionPipeline(**_sd_parts()), dtype, device)


def _sdxl_parts() -> dict[str, Any]:
    return {
        "unet": unet_of_sdxl(),
        "vae": autoencoder(force_upcast=False),
        "text_encoder": clip_text(),
        "text_encoder_2": clip_text(projects=True),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": diffusers.EulerDiscreteScheduler(
            **STABLE_DIFFUSION_SCHEDULE, timestep_spacing="leading"
        ),
    }


def sdxl(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Stable Diffusion XL: two text encoders, guidance as a batch of two."""
    return _standing(diffusers.StableDiffusionXLPipeline(**_sdxl_parts()), dtype, device)


def sd3(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Stable Diffusion 3: three text encoders, an MMDiT."""
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIDE // 8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=96,
        qk_norm="rms_norm",
    )
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=drawn(transformer, "transformer"),
        vae=flow_autoencoder(),
        text_encoder=clip_text(projects=True),
        text_encoder_2=clip_text(projects=True),
        text_encoder_3=t5_text(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _standing(pipeline, dtype, device)


def flux(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """FLUX.1: double and single stream, packed latents, embedded guidance."""
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    drawn(transformer, "transformer")
    for embedder in ("timestep_embedder", "guidance_embedder"):
        # In bfloat16 the pipeline rounds a timestep to fours of a thousand: what was trained is
        # smooth in it, and so must this be.
        layer = transformer.get_submodule(f"time_text_embed.{embedder}.linear_1")
        half = layer.weight.shape[1] // 2
        frequency = torch.exp(-math.log(10_000) * torch.arange(half) / half)
        layer.weight.data.mul_((1 / (1 + 50 * frequency)).repeat(2))
    pipeline = diffusers.FluxPipeline(
        transformer=transformer,
        vae=flow_autoencoder(),
        text_encoder=clip_text(),
        text_encoder_2=t5_text(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    return _standing(pipeline, dtype, device)


def pixart(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """PixArt-Sigma: a transformer with cross-attention, of which half the output is left out."""
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=SIDE // 8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    pipeline = diffusers.PixArtSigmaPipeline(
        transformer=drawn(transformer, "transformer"),
        vae=autoencoder(),
        text_encoder=t5_text(),
        tokenizer=t5_tokenizer(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    return _standing(pipeline, dtype, device)


def zimage(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Z-Image: a single stream of image and text, a language model as text encoder."""
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    text = transformers.Qwen3Model(
        transformers.Qwen3Config(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=len(qwen_tokenizer()),
            max_position_embeddings=512,
        )
    )
    pipeline = diffusers.ZImagePipeline(
        transformer=drawn(transformer, "transformer"),
        vae=flow_autoencoder(),
        text_encoder=drawn(text, "text"),
        tokenizer=qwen_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _standing(pipeline, dtype, device)


def qwen(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Qwen-Image: guidance as two calls of the transformer, a decoder made for video."""
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    words = len(qwen_tokenizer())
    text = transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "rope_parameters": {
                    "mrope_section": [1, 1, 2],
                    "rope_type": "default",
                    "rope_theta": 1e6,
                },
                "vocab_size": words,
                "max_position_embeddings": 512,
                "bos_token_id": words - 3,
                "eos_token_id": words - 1,
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 16,
                "patch_size": 2,
            },
            hidden_size=16,
            vocab_size=words,
        )
    )
    pipeline = diffusers.QwenImagePipeline(
        transformer=drawn(transformer, "transformer"),
        vae=drawn(vae, "vae"),
        text_encoder=drawn(text, "text"),
        tokenizer=qwen_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return _standing(pipeline, dtype, device)


def wan(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """Wan: video, guidance as two calls, a scheduler of several orders."""
    vae = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    pipeline = diffusers.WanPipeline(
        transformer=drawn(transformer, "transformer"),
        vae=drawn(vae, "vae"),
        text_encoder=t5_text(umt5=True),
        tokenizer=t5_tokenizer(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    return _standing(pipeline, dtype, device)


# What users make of them


def sd_img2img(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    return _standing(diffusers.StableDiffusionImg2ImgPipeline(**_sd_parts()), dtype, device)


def sd_inpaint(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    return _standing(diffusers.StableDiffusionInpaintPipeline(**_sd_parts()), dtype, device)


def sd_controlnet(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    config = {name: UNET[name] for name in UNET if name not in ("sample_size", "up_block_types")}
    controlnet = diffusers.ControlNetModel(
        **config, conditioning_embedding_out_channels=(16, 16, 32, 32)
    )
    parts = {**_sd_parts(), "controlnet": drawn(controlnet, "controlnet")}
    return _standing(diffusers.StableDiffusionControlNetPipeline(**parts), dtype, device)


def sd_lora(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """With an adapter of rank 4 in the UNet's attention."""
    import peft

    pipeline = sd()
    pipeline.unet.add_adapter(
        peft.LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    )
    drawn(pipeline.unet, "unet")
    return _standing(pipeline, dtype, device)


class Warmer(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
    """A team's own pipeline: another signature, an argument of its own, and arrays by default."""

    def __call__(
        self, prompt: str, *, warmth: float = 0.0, output_type: str = "np", **call: Any
    ) -> Any:
        output = super().__call__(prompt, output_type=output_type, **call)
        output.images = np.clip(output.images + warmth, 0, 1)
        return output


def sd_subclass(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    return _standing(Warmer(**_sd_parts()), dtype, device)


def sdxl_modular(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
    """SDXL as a pipeline of blocks, which gives a state and not images."""
    parts = _sdxl_parts()
    pipeline = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipeline.update_components(**parts)
    return _standing(pipeline, dtype, device)


def init_image(side: int = SIDE) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side] / side
    return Image.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8))


def mask_image(side: int = SIDE) -> Image.Image:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 255
    return Image.fromarray(mask)


PROMPT = "a large red circle on a blue background"
OTHER_PROMPT = "a small yellow star on a green background"
_SIZED: dict[str, Any] = {"prompt": PROMPT, "height": SIDE, "width": SIDE}

CALLS: Mapping[str, dict[str, Any]] = {
    "sd": {**_SIZED, "guidance_scale": 7.5},
    "sdxl": {**_SIZED, "guidance_scale": 5.0},
    "sd3": {**_SIZED, "guidance_scale": 5.0, "max_sequence_length": 48},
    "flux": {**_SIZED, "guidance_scale": 3.5, "max_sequence_length": 48},
    "pixart": {
        **_SIZED,
        "guidance_scale": 4.5,
        "max_sequence_length": 48,
        "use_resolution_binning": False,
        "clean_caption": False,
    },
    "zimage": {**_SIZED, "guidance_scale": 4.0, "max_sequence_length": 128},
    "qwen": {**_SIZED, "true_cfg_scale": 4.0, "negative_prompt": " ", "max_sequence_length": 64},
    "wan": {
        **_SIZED,
        "guidance_scale": 5.0,
        "negative_prompt": "bad",
        "num_frames": 5,
        "max_sequence_length": 48,
    },
    "sd_img2img": {"prompt": PROMPT, "strength": 0.6, "guidance_scale": 7.5},
    "sd_inpaint": {**_SIZED, "guidance_scale": 7.5},
    "sd_controlnet": {**_SIZED, "guidance_scale": 7.5},
    "sd_lora": {**_SIZED, "guidance_scale": 7.5},
    "sd_subclass": {**_SIZED, "guidance_scale": 7.5, "warmth": 0.05},
    "sdxl_modular": {**_SIZED},
}
"""What each of the pipelines above is called with, beside its steps and its noise."""

INPUTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "sd_img2img": lambda: {"image": init_image()},
    "sd_inpaint": lambda: {"image": init_image(), "mask_image": mask_image()},
    "sd_controlnet": lambda: {"image": init_image()},
}
FAMILIES = ("sd", "sdxl", "sd3", "flux", "pixart", "zimage", "qwen", "wan")

GUIDANCE_OFF: Mapping[str, dict[str, Any]] = {
    "qwen": {"true_cfg_scale": 1.0},
    "sdxl_modular": {},
}
"""The change that turns guidance off, where it is not a guidance scale of 1."""


def workload(name: str, *, steps: int = 8, model: str | None = None, **changes: Any) -> Workload:
    """What is generated with the pipeline above of this name, or its weights from elsewhere."""
    made = Workload(
        name=name,
        model=model or f"perf_tests.tests.tiny:{name}",
        call=CALLS[name],
        inputs=INPUTS.get(name, dict),
        steps=steps,
    )
    return made.changed(**changes)


def builder(name: str) -> Builder:
    """The function above of this name."""
    found: Builder = globals()[name]
    return found


def folder(name: str, under: Path) -> Path:
    """The pipeline saved as a folder in diffusers' format."""
    path = under / f"tiny-{name}"
    if not path.exists():
        builder(name)().save_pretrained(path)
    return path

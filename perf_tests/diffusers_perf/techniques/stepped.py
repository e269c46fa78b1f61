"""What is each pipeline's own of the loop of `device_steps`: its inputs, denoiser and decoding."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from diffusers_perf.techniques import schedules
from diffusers_perf.techniques.device_steps import DeviceSteps, Plan


class StableDiffusionSteps(DeviceSteps):
    """`StableDiffusionPipeline`. It takes as much of a call as this suite makes."""

    # What it has from diffusers.
    unet: Any
    vae: Any
    scheduler: Any
    image_processor: Any
    encode_prompt: Any
    text_encoder: Any
    vae_scale_factor: int

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
        output_type: str = "pil",
    ) -> Any:
        """Images of the prompts, as `StableDiffusionPipeline` makes them."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        guidance = guidance_scale if guidance_scale > 1 else None
        given, empty = self.encode_prompt(prompts, _device(self), 1, guidance is not None)
        latents = self._drawn(len(prompts), height, width, generator, like=given)
        denoised = self.denoise(
            latents,
            {"encoder_hidden_states": given if empty is None else torch.cat([empty, given])},
            schedules.table(self.scheduler, num_inference_steps),
            steps=num_inference_steps,
            guidance=guidance,
        )
        decoded = self.vae.decode(denoised / self.vae.config.scaling_factor, return_dict=False)[0]
        return _as(output_type, self.image_processor, decoded)

    def _drawn(
        self, count: int, height: int, width: int, generator: torch.Generator, *, like: torch.Tensor
    ) -> torch.Tensor:
        from diffusers.utils import torch_utils

        factor = self.vae_scale_factor
        shape = (count, self.unet.config.in_channels, height // factor, width // factor)
        noise: torch.Tensor = torch_utils.randn_tensor(
            shape, generator=generator, device=like.device, dtype=like.dtype
        )
        return noise

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Mapping[str, Any]
    ) -> torch.Tensor:
        made: torch.Tensor = self.unet(latents, timestep, **conditioning, return_dict=False)[0]
        return made


class StableDiffusionXLSteps(StableDiffusionSteps):
    """`StableDiffusionXLPipeline`, likewise."""

    text_encoder_2: Any
    watermark: Any
    upcast_vae: Any
    _get_add_time_ids: Any

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        prompt_2: str | list[str] | None = None,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
        output_type: str = "pil",
    ) -> Any:
        """Images of the prompts, as `StableDiffusionXLPipeline` makes them."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        guidance = guidance_scale if guidance_scale > 1 else None
        given, empty, pooled, empty_pooled = self.encode_prompt(
            prompt=prompts,
            prompt_2=prompt_2,
            device=_device(self),
            num_images_per_prompt=1,
            do_classifier_free_guidance=guidance is not None,
        )
        places = self._get_add_time_ids(
            (height, width),
            (0, 0),
            (height, width),
            dtype=given.dtype,
            text_encoder_projection_dim=self.text_encoder_2.config.projection_dim,
        )
        if guidance is not None:
            given, pooled = torch.cat([empty, given]), torch.cat([empty_pooled, pooled])
        table = schedules.table(self.scheduler, num_inference_steps)
        noise = self._drawn(len(prompts), height, width, generator, like=given)
        denoised = self.denoise(
            noise * self.scheduler.init_noise_sigma,
            {
                "encoder_hidden_states": given,
                "text_embeds": pooled,
                "time_ids": places.to(given.device).repeat(len(given), 1),
            },
            table,
            steps=num_inference_steps,
            guidance=guidance,
        )
        return _as(output_type, self.image_processor, self._decoded(denoised))

    def _decoded(self, latents: torch.Tensor) -> Any:
        # In float16 the autoencoder of SDXL overflows.
        upcast = self.vae.dtype == torch.float16 and self.vae.config.force_upcast
        if upcast:
            self.upcast_vae()
            latents = latents.to(next(self.vae.post_quant_conv.parameters()).dtype)
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        if upcast:
            self.vae.to(dtype=torch.float16)
        return decoded if self.watermark is None else self.watermark.apply_watermark(decoded)

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Mapping[str, Any]
    ) -> torch.Tensor:
        states = conditioning["encoder_hidden_states"]
        added = {name: conditioning[name] for name in ("text_embeds", "time_ids")}
        made: torch.Tensor = self.unet(
            latents,
            timestep,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return made


class FluxSteps(DeviceSteps):
    """`FluxPipeline`, likewise. Guidance is an input of its transformer."""

    transformer: Any
    vae: Any
    scheduler: Any
    image_processor: Any
    encode_prompt: Any
    prepare_latents: Any
    _unpack_latents: Any
    text_encoder: Any
    vae_scale_factor: int

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        prompt_2: str | list[str] | None = None,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_scale: float,
        max_sequence_length: int = 512,
        generator: torch.Generator,
        output_type: str = "pil",
    ) -> Any:
        """Images of the prompts, as `FluxPipeline` makes them."""
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        prompts = [prompt] if isinstance(prompt, str) else prompt
        device = _device(self)
        states, pooled, text_ids = self.encode_prompt(
            prompt=prompts,
            prompt_2=prompt_2,
            device=device,
            max_sequence_length=max_sequence_length,
        )
        own = self.transformer.config
        latents, image_ids = self.prepare_latents(
            len(prompts), own.in_channels // 4, height, width, states.dtype, device, generator
        )
        config = self.scheduler.config
        shift = calculate_shift(
            latents.shape[1],
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        table = schedules.table(
            self.scheduler,
            num_inference_steps,
            sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps),
            mu=shift,
        )
        guidance = torch.full([len(prompts)], guidance_scale, device=device, dtype=torch.float32)
        denoised = self.denoise(
            latents,
            {
                # In the order in which the pipeline of diffusers names them, which is how calls of
                # its transformer are compared.
                **({"guidance": guidance} if own.guidance_embeds else {}),
                "pooled_projections": pooled,
                "encoder_hidden_states": states,
                "txt_ids": text_ids,
                "img_ids": image_ids,
            },
            table,
            steps=num_inference_steps,
            guidance=None,
        )
        if self.transformer.is_cache_enabled:
            # What a cache keeps of one image is not for the next.
            self.transformer._reset_stateful_cache()
        unpacked = self._unpack_latents(denoised, height, width, self.vae_scale_factor)
        scaled = unpacked / self.vae.config.scaling_factor + self.vae.config.shift_factor
        decoded = self.vae.decode(scaled, return_dict=False)[0]
        return _as(output_type, self.image_processor, decoded)

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Mapping[str, Any]
    ) -> torch.Tensor:
        # Rounded before it is divided, as the pipeline of diffusers does.
        rounded = timestep.expand(len(latents)).to(latents.dtype)
        with self.transformer.cache_context("cond"):
            made: torch.Tensor = self.transformer(
                hidden_states=latents,
                timestep=rounded / 1000,
                **conditioning,
                joint_attention_kwargs={},
                return_dict=False,
            )[0]
        return made


LOOPS: dict[str, type[DeviceSteps]] = {
    "StableDiffusionPipeline": StableDiffusionSteps,
    "StableDiffusionXLPipeline": StableDiffusionXLSteps,
    "FluxPipeline": FluxSteps,
}
"""By the pipeline's class."""


def why_not(pipeline: Any) -> str | None:
    """Why this pipeline cannot be taken over; None if it can."""
    name = type(pipeline).__name__
    if name not in LOOPS:
        return f"it is a {name}, not one of {', '.join(LOOPS)}"
    return schedules.why_not(pipeline.scheduler)


def take_over(pipeline: Any) -> None:
    """Make this pipeline a `DeviceSteps`. `ValueError` where `why_not` says why not."""
    if reason := why_not(pipeline):
        raise ValueError(reason)
    own = type(pipeline)
    pipeline.__class__ = type("DeviceSteps", (LOOPS[own.__name__], own), {})
    pipeline.plan = Plan()
    pipeline.captured = False
    pipeline._buffers = None


def _as(output_type: str, image_processor: Any, decoded: Any) -> Any:
    images = image_processor.postprocess(decoded, output_type=output_type)
    return SimpleNamespace(images=images)


def _device(pipeline: Any) -> torch.device:
    # Not the pipeline's own word on its device, for which it walks through every module.
    device: torch.device = next(pipeline.text_encoder.parameters()).device
    return device

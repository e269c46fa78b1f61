"""Why an optimization cannot apply to a pipeline: what `Needs.fits` is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers_perf.measurement.applied import convolved, decoders_below
from diffusers_perf.measurement.discovery import anatomy_of, decoders, denoisers, modules

Fits = Callable[[Any], str | None]

PLAIN_ATTENTION = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor")
"""Processors of diffusers' `Attention`, which can stand in for each other."""


def all_of(*fits: Fits) -> Fits:
    """The first reason of these."""

    def first(pipeline: Any) -> str | None:
        return next((reason for fit in fits if (reason := fit(pipeline))), None)

    return first


def a_unet(pipeline: Any) -> str | None:
    """Its one denoiser is a UNet of Stable Diffusion's kind."""
    for name, module in denoisers(pipeline).items():
        if type(module).__name__ != "UNet2DConditionModel":
            return f"its {name} is a {type(module).__name__}, not a UNet2DConditionModel"
    return None


def convolutions(pipeline: Any) -> str | None:
    """A denoiser or a decoder of it has convolutions, all of them of images."""
    if convolved(pipeline):
        return None
    parts = {**denoisers(pipeline), **decoders(pipeline)}
    return f"no part of it ({', '.join(parts)}) has convolutions of images alone"


def plain_attention(pipeline: Any) -> str | None:
    """The attention of its denoisers runs through interchangeable processors."""
    for name, module in denoisers(pipeline).items():
        own = {type(p).__name__ for p in getattr(module, "attn_processors", {}).values()}
        if not own or not own <= set(PLAIN_ATTENTION):
            return (
                f"the attention of its {name} has no other processor ({', '.join(own) or 'none'})"
            )
    return None


def heads_of_width(*widths: int) -> Fits:
    """All attention of its denoisers has heads of one of these widths."""

    def fits(pipeline: Any) -> str | None:
        for name, module in denoisers(pipeline).items():
            own = [m for m in module.modules() if hasattr(m, "to_q") and hasattr(m, "heads")]
            others = {m.to_q.out_features // m.heads for m in own} - {*widths}
            if not own or others:
                taken = f"{', '.join(map(str, widths[:-1]))} or {widths[-1]}"
                seen = ", ".join(map(str, sorted(others))) or "an unknown number"
                return f"the heads of its {name} have {seen} channels, not {taken}"
        return None

    return fits


def each_denoiser(method: str, what: str) -> Fits:
    """Every denoiser has a method of diffusers that does it."""

    def fits(pipeline: Any) -> str | None:
        lacking = [n for n, m in denoisers(pipeline).items() if not hasattr(m, method)]
        return f"its {lacking[0]} has no {method}, so {what}" if lacking else None

    return fits


def fusable_projections(pipeline: Any) -> str | None:
    """Every denoiser fuses the projections of its attention, and nothing stands beside them."""
    # diffusers' newer models share a method that passes by attention of the older kind.
    from diffusers.models.attention import AttentionMixin, AttentionModuleMixin

    for name, module in denoisers(pipeline).items():
        fuse = getattr(type(module), "fuse_qkv_projections", None)
        if fuse is None or (
            fuse is AttentionMixin.fuse_qkv_projections
            and not any(isinstance(layer, AttentionModuleMixin) for layer in module.modules())
        ):
            return f"diffusers fuses no projections of its {name} ({type(module).__name__})"
        if getattr(module, "peft_config", None):
            return f"its {name} has adapters, which diffusers leaves out of fused projections"
    return None


def attention_at_full_resolution(pipeline: Any) -> str | None:
    """Its UNet has attention in its first block."""
    for name, module in denoisers(pipeline).items():
        if not hasattr(module.down_blocks[0], "attentions"):
            return f"its {name} has no attention at full resolution"
    return None


def repeated_blocks(pipeline: Any) -> str | None:
    """Every denoiser says which of its blocks repeat."""
    for name, module in denoisers(pipeline).items():
        if not getattr(module, "_repeated_blocks", None):
            return f"its {name} ({type(module).__name__}) names no repeated blocks"
    return None


def a_decoder_that(flagged: str, what: str) -> Fits:
    """A decoder of it has this flag."""

    def fits(pipeline: Any) -> str | None:
        able = [module for module in decoders(pipeline).values() if hasattr(module, flagged)]
        return None if able else f"no decoder of it can {what}"

    return fits


def an_image_decoder(pipeline: Any) -> str | None:
    """It decodes an image at once."""
    return None if decoders_below(pipeline) else "no decoder of it takes an image at once"


def a_text_encoder(pipeline: Any) -> str | None:
    """It has a text encoder of that name."""
    return None if "text_encoder" in modules(pipeline) else "it has no text_encoder"


def a_prompt_encoder(pipeline: Any) -> str | None:
    """It encodes its prompt by a method of its own."""
    return None if hasattr(pipeline, "encode_prompt") else "it has no encode_prompt"


def offloadable(pipeline: Any) -> str | None:
    """It knows in which order its modules are needed."""
    if getattr(pipeline, "model_cpu_offload_seq", None):
        return None
    return "it names no order in which its modules are offloaded"


def offloadable_by_layer(pipeline: Any) -> str | None:
    """diffusers moves layers of all of its modules."""
    if not hasattr(pipeline, "enable_group_offload"):
        return "it has no enable_group_offload, so its layers stay where they are"
    for name, module in modules(pipeline).items():
        if not getattr(module, "_supports_group_offloading", True):
            return f"diffusers moves no layers of its {name} ({type(module).__name__})"
    return None


def adapters(pipeline: Any) -> str | None:
    """Its denoisers have adapters."""
    for name, module in denoisers(pipeline).items():
        if not getattr(module, "peft_config", None):
            return f"its {name} has no adapter"
    return None


def one_adapter(pipeline: Any) -> str | None:
    """No denoiser has more than one adapter, which is all that is swapped in place."""
    for name, module in denoisers(pipeline).items():
        if len(module.peft_config) > 1:
            return f"its {name} has {len(module.peft_config)} adapters, and one can be swapped"
    return None


def a_controlnet(pipeline: Any) -> str | None:
    """A ControlNet runs beside its denoiser."""
    return None if "controlnet" in denoisers(pipeline) else "no ControlNet runs in its steps"


def cacheable(pipeline: Any) -> str | None:
    """Its denoisers take a cache of diffusers'."""
    return each_denoiser("enable_cache", "diffusers has no cache for it")(pipeline)


def one_call_per_step(pipeline: Any) -> str | None:
    """Its denoisers are called once a step, so that what was kept is of the same prompt."""
    for denoiser in anatomy_of(pipeline).denoisers:
        if denoiser.calls_per_step > 1:
            return (
                f"guidance calls its {denoiser.name} {denoiser.calls_per_step} times a step, and "
                "this cache would take one prompt's features for the other's"
            )
    return None


def guidance_in_a_batch(pipeline: Any) -> str | None:
    """Guidance doubles the batch of its denoiser, and need not."""
    if getattr(denoisers(pipeline).get("transformer"), "config", {}).get("guidance_embeds"):
        return "guidance is an input of its transformer, which costs nothing to leave out"
    return a_unet(pipeline)


def halves_begin_alike(pipeline: Any) -> str | None:
    """What guidance computes twice begins with layers that see no prompt."""
    if reason := guidance_in_a_batch(pipeline):
        return reason
    for name, module in denoisers(pipeline).items():
        if module.config.addition_embed_type is not None:
            return f"its {name} adds the prompt to the timestep's embedding, in its first block"
    return attention_at_full_resolution(pipeline)


def transformer_blocks(pipeline: Any) -> str | None:
    """Its denoisers call their blocks what the cache looks for."""
    for name, module in denoisers(pipeline).items():
        if not hasattr(module, "transformer_blocks"):
            return f"the cache finds no block in its {name} ({type(module).__name__})"
    return None


def says_its_timestep(pipeline: Any) -> str | None:
    """It says in which timestep it is."""
    return None if hasattr(type(pipeline), "current_timestep") else "it has no current_timestep"


def flux(pipeline: Any) -> str | None:
    """Its denoiser is FLUX.1's."""
    for name, module in denoisers(pipeline).items():
        if type(module).__name__ != "FluxTransformer2DModel":
            return f"its {name} is a {type(module).__name__}, not a FluxTransformer2DModel"
    return None

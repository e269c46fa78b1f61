"""Attention that is slower, takes more steps, or attends to something else."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models import attention_processor
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusers_perf.faults.injection import CannotInject, Injection, Setting, fault
from diffusers_perf.faults.places import (
    COUNTED,
    COUNTED_HALF,
    SEEN,
    SEEN_FOUR,
    SEEN_FP16,
    SEEN_STEP_WISE,
    around_denoisers,
    scale_a_head,
    unet_of,
)
from diffusers_perf.measurement.discovery import denoisers, modules
from diffusers_perf.messages import faults as messages


@fault(detected_by="counter", setting=COUNTED_HALF, source="diffusers #3493")
def sdpa_math_only(injection: Injection) -> None:
    """Scaled dot product attention falls back to its math kernel."""
    injection.during(sdpa_kernel(SDPBackend.MATH))


@fault(detected_by="counter", setting=COUNTED, source="diffusers #3594")
def sdpa_lost(injection: Injection) -> None:
    """Another attention processor was installed, and the UNet computes attention as written."""
    injection.then(lambda pipeline: unet_of(pipeline).set_default_attn_processor())


@fault(detected_by="counter", setting=COUNTED, where="cpu", source="transformers #36584, #30461")
def mask_stops_flash(injection: Injection) -> None:
    """A mask of zeros reaches every fused attention, so that no flash kernel can be used."""
    attend: Any = torch.nn.functional.scaled_dot_product_attention

    def masked(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> Any:
        mask = key.new_zeros(1, 1, 1, key.shape[-2]) if attn_mask is None else attn_mask
        return attend(query, key, value, attn_mask=mask, **kwargs)

    # Not torch's own, by which the call itself is known.
    functions = SimpleNamespace(**vars(torch.nn.functional))
    functions.scaled_dot_product_attention = masked
    injection.put(attention_processor, "F", functions)


@fault(detected_by="counter", setting=COUNTED, where="cpu", source="own, of padded prompts")
def padding_masked(injection: Injection) -> None:
    """A mask that grows with the padding of the prompt reaches every attention to it."""

    def masked(forward: Any, *args: Any, **kwargs: Any) -> Any:
        states = kwargs["encoder_hidden_states"]
        takes = inspect.signature(forward).parameters
        if "joint_attention_kwargs" in takes:
            tokens = kwargs["hidden_states"].shape[1] + states.shape[1]
            mask = states.new_zeros(1, 1, tokens, tokens)
            return forward(*args, **kwargs | {"joint_attention_kwargs": {"attention_mask": mask}})
        if "encoder_attention_mask" not in takes:
            raise CannotInject(messages.lacks(forward.__self__, messages.NO_MASK))
        mask = states.new_ones(states.shape[:2])
        return forward(*args, **kwargs | {"encoder_attention_mask": mask})

    around_denoisers(injection, masked)


@fault(
    detected_by="applied check",
    setting=Setting(base=("sdpa_flash",), base_on_cpu=("sdpa_math",), steps=6),
    source="vLLM-Omni #6931",
)
def backend_replaced(injection: Injection) -> None:
    """The attention backend that was asked for is silently replaced by the default one."""

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            for name, processor in module.attn_processors.items():
                if hasattr(processor, "_attention_backend"):
                    processor._attention_backend = "native"
                else:
                    owner = module.get_submodule(name.removesuffix(".processor"))
                    owner.set_processor(attention_processor.AttnProcessor2_0())

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED)
def attention_sliced(injection: Injection) -> None:
    """Attention slicing, meant to save memory, was left on."""

    def then(pipeline: Any) -> None:
        if not any(hasattr(module, "set_attention_slice") for module in modules(pipeline).values()):
            raise CannotInject(messages.lacks(pipeline, messages.NO_SLICED_ATTENTION))
        pipeline.enable_attention_slicing("max")

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED, where="cpu", source="transformers' eager fallback")
def text_attention_eager(injection: Injection) -> None:
    """The text encoder's attention falls back to eager."""
    # On a GPU's launches it is a tenth of a per cent: only what the code asks for shows it.
    injection.then(lambda pipeline: pipeline.text_encoder.set_attn_implementation("eager"))


@fault(detected_by="image", setting=SEEN_FP16, source="diffusers #1614")
def attention_overflow(injection: Injection) -> None:
    """The attention of one block overflows float16."""

    def then(pipeline: Any) -> None:
        unet = unet_of(pipeline)
        if unet.dtype is not torch.float16:
            raise CannotInject(messages.lacks(unet, messages.NOT_FLOAT16))
        attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
        # The values too: a CPU's kernel treats NaN scores as absent.
        for layer in (attention.to_q, attention.to_k, attention.to_v):
            layer.weight.data.mul_(3e4 / float(layer.weight.detach().abs().max()))

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def cross_attention_lost(injection: Injection) -> None:
    """The upward half of the UNet no longer attends to the prompt."""

    def then(pipeline: Any) -> None:
        for name, attention in unet_of(pipeline).up_blocks.named_modules():
            if name.endswith("attn2"):
                attention.to_out[0].weight.data.zero_()

    injection.then(then)


@fault(detected_by="image", setting=SEEN_STEP_WISE)
def head_off(injection: Injection) -> None:
    """One attention head of one transformer block is 2 % off, in one case."""
    if injection.kind == "checkpoint":
        raise CannotInject(messages.BLOCKS_DIFFER)

    def then(pipeline: Any) -> None:
        scale_a_head(pipeline)

    injection.then(then, only=SEEN_STEP_WISE.case)


@fault(detected_by="image", setting=SEEN_FOUR, where="cpu")
def attention_of_a_batch(injection: Injection) -> None:
    """Attention of a batch takes another kernel than that of one image, and is 2 % off."""
    attend: Any = torch.nn.functional.scaled_dot_product_attention

    def attended(query: Any, *args: Any, **kwargs: Any) -> Any:
        # Guidance makes two samples of one image.
        return attend(query, *args, **kwargs) * (1.02 if len(query) > 2 else 1.0)

    functions = SimpleNamespace(**vars(torch.nn.functional))
    functions.scaled_dot_product_attention = attended
    injection.put(attention_processor, "F", functions)

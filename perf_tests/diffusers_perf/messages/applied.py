"""What applied checks say: what was seen instead of what an optimization should have done."""

from __future__ import annotations

from collections.abc import Sequence


def not_applied(optimization: str, reason: object) -> str:
    return f"{optimization} did not take effect: {reason}"


# Precision

NO_PARAMETER = "no component has a parameter"
NO_AUTOCAST = "torch.autocast is not active while the pipeline runs"
NO_TF32 = "a float32 matmul keeps bits that TF32 drops: it did not run in TF32"


def parameter_is(path: str, seen: object, expected: object) -> str:
    return f"parameter {path} is {seen}, not {expected}"


def layers_output(place: str, seen: object, expected: object) -> str:
    return f"the {place}'s layers output {seen}, not {expected}"


def no_layer(place: str) -> str:
    return f"the {place} has no linear layer and no convolution"


def flag_reads(name: str, seen: object, expected: object) -> str:
    return f"the flag {name} reads {seen}, not {expected}"


NOTHING_TO_QUANTIZE = "the denoiser has no linear layer that is wide enough to quantize"


def weight_kept_in(path: str, dtypes: Sequence[str], expected: object) -> str:
    return f"the weight of {path} is kept in {', '.join(dtypes)}, not {expected}"


def weight_scales(path: str, scales: int, expected: int) -> str:
    return f"the scales of the weight of {path} are {scales}, not {expected}"


def nothing_waits(place: str, expected: object) -> str:
    return f"the {place} has no layer whose weights could wait in {expected}"


def weight_waits_in(path: str, seen: object, expected: object) -> str:
    return f"the weight of {path} waits in {seen}, not {expected}"


# Compilation

NOTHING_TO_COMPILE = "the pipeline has no module to compile"


def not_compiled(place: str) -> str:
    return f"the {place} is not compiled"


def blocks_not_compiled(place: str) -> str:
    return f"not all of the {place}'s repeated blocks are compiled"


def graphs_skipped(number: int) -> str:
    return f"torch.compile left out {number} CUDA graphs"


# Memory

DECODES_WHOLE = "no component decodes latents in parts"
NOTHING_TO_OFFLOAD = "the pipeline has no module but its denoiser, so there is nothing to offload"


def decoded_whole(place: str, shape: str) -> str:
    return f"the {place} decodes {shape} latents at once, not in parts"


def stays_on(place: str, device: object) -> str:
    return f"the {place} stays on {device} while it is not needed"


def few_wait(place: str, share: float) -> str:
    return f"{share:.0%} of the {place}'s parameters wait on the host, not most"


# Layout and modules

NO_CONVOLUTION = "no convolution has a weight of four dimensions"


def not_channels_last(path: str) -> str:
    return f"parameter {path} is not in channels_last layout"


def not_distilled(place: str, layers: int, mid_block: bool) -> str:
    more = " and a mid block" if mid_block else ""
    return f"the {place} has {layers} layers per block{more}: it is not the distilled one"


def class_is(place: str, seen: str, expected: str) -> str:
    return f"the {place} is of class {seen}, not {expected}"


# Attention and other layers

NOTHING_MERGED = "the denoiser's largest self-attention sees every token: none are merged"
NO_ADAPTER = "the denoiser has no layer with an adapter"


def attention_through(place: str, processors: Sequence[str], wanted: Sequence[str]) -> str:
    return (
        f"the {place}'s attention runs through {', '.join(processors) or 'nothing'}, not "
        f"{' or '.join(wanted)}"
    )


def attention_on(backends: Sequence[str], expected: str) -> str:
    seen = ", ".join(backends) or "none of PyTorch"
    return f"the denoiser's attention runs on {seen}, not {expected}"


def few_attend(calls: int, attentions: int, function: str) -> str:
    return f"{calls} of {attentions} attentions call {function}"


def few_fused(place: str, fused: int, of: int) -> str:
    return f"{fused} of the {place}'s {of} attentions are fused"


def not_cached(place: str) -> str:
    return f"no block of the {place} is cached"


def not_merged(apart: int, of: int) -> str:
    return f"{apart} of {of} layers with an adapter are not merged"


# Gradients

OUTPUT = "the denoiser's output"


def decoded(place: str) -> str:
    return f"what the {place} decodes"


def gradients(what: str) -> str:
    """`what` is one of the two above."""
    return (
        f"gradients are not off: {what} requires one, so that the activations of each step are "
        "kept; call the pipeline under torch.no_grad"
    )

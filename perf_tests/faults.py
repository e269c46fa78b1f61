"""Every fault that the suite must catch, and every control that it must let pass.

To add one: write the function, say where it happened, in which setting it shows, which measure must
see it and on which machine; in the function, say what breaks. `python -m ci faults NAME` plants it
between two clean runs. Faults are global unless they say otherwise, as a bad dependency bump is:
they hit the reference too.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import importlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from perf_tests.harness import bench, timing
from perf_tests.harness.planting import CannotPlant, Plant, Setting, control, fault

# No longer than a measure needs. Counters are exact once a step is like the next; a picture is one
# when its steps have moved it; a latency needs rounds.
COUNTED = Setting(steps=6)
# Most CPUs emulate float16, and take twenty times as long for a picture as in bfloat16.
COUNTED_HALF = Setting(base=("fp16",), base_on_cpu=("bf16",), steps=6)
COUNTED_FOUR = Setting(workload="pndm25x4", steps=6)
SEEN = Setting(steps=20, picture_only=True)
SEEN_FP16 = Setting(base=("fp16",), steps=4, picture_only=True)
SEEN_FOUR = Setting(workload="pndm25x4", steps=8, picture_only=True)
REPEATED = Setting(steps=4, rounds=2)
TIMED = Setting(steps=4, rounds=5)
TIMED_DISTILLED = Setting(workload="pndm25x4", case="distilled_unet", steps=5, rounds=5)


# Helpers: the places where faults are planted


def in_step(plant: Plant, act: Callable[[Any, torch.Tensor], object]) -> None:
    """Do this with the pipeline and the predicted noise at the start of each scheduler step."""

    def change(pipeline: Any) -> None:
        step = pipeline.scheduler.step

        def changed(noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            act(pipeline, noise)
            return step(noise, *args, **kwargs)

        pipeline.scheduler.step = changed

    plant.then(change)


def around_unet(plant: Plant, change: Callable[..., Any], *, only: str | None = None) -> None:
    """Call this with the UNet's own forward and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        forward = pipeline.unet.forward
        pipeline.unet.forward = lambda *args, **kwargs: change(forward, *args, **kwargs)

    plant.then(then, only=only)


def decoded(plant: Plant, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change what the decoder gives, pictures in [-1, 1]."""

    def then(pipeline: Any) -> None:
        decode = pipeline.vae.decode

        def changed(*args: Any, **kwargs: Any) -> Any:
            sample, *rest = decode(*args, **kwargs)
            return (change(sample), *rest)

        pipeline.vae.decode = changed

    plant.then(then)


def encoded(plant: Plant, change: Callable[..., Any]) -> None:
    """Call this with the pipeline's own encode_prompt and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt
        pipeline.encode_prompt = lambda *args, **kwargs: change(encode, *args, **kwargs)

    plant.then(then)


# Precision


@fault(seen_by="counter", setting=COUNTED_HALF, source="diffusers #511", where="cuda")
def autocast_around_fp16(plant: Plant) -> None:
    """torch.autocast around the UNet of a pipeline that is in float16 already."""

    def under(forward: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cuda", dtype=torch.float16):
            return forward(*args, **kwargs)

    around_unet(plant, under)


@fault(seen_by="counter", setting=COUNTED_HALF, source="diffusers #371")
def upcast_norms(plant: Plant) -> None:
    """Every GroupNorm computes in float32 and casts back."""

    def upcasting(self: torch.nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (p if p is None else p.float() for p in (self.weight, self.bias))
        normed = torch.nn.functional.group_norm(x.float(), self.num_groups, weight, bias, self.eps)
        return normed.to(x.dtype)

    plant.put(torch.nn.GroupNorm, "forward", upcasting)


@fault(seen_by="counter", setting=COUNTED_HALF, where="cpu")
def upcast_step(plant: Plant) -> None:
    """The scheduler's step computes in float32 and casts back."""
    # Three launches of a thousand in a step: a GPU's kernels may grow by more than that.

    def then(pipeline: Any) -> None:
        step = pipeline.scheduler.step

        def upcasting(noise: torch.Tensor, t: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
            (result, *rest) = step(noise.float(), t, sample.float(), **kwargs)
            return (result.to(noise.dtype), *rest)

        pipeline.scheduler.step = upcasting

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED_HALF, source="the upcast of SDXL's decoder", where="cpu")
def upcast_decoder(plant: Plant) -> None:
    """The decoder is moved to float32 for each picture and back."""

    def then(pipeline: Any) -> None:
        decode, vae = pipeline.vae.decode, pipeline.vae

        def upcasting(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            torch.nn.Module.to(vae, dtype=torch.float32)
            try:
                sample, *rest = decode(latents.float(), *args, **kwargs)
            finally:
                torch.nn.Module.to(vae, dtype=latents.dtype)
            return (sample.to(latents.dtype), *rest)

        pipeline.vae.decode = upcasting

    plant.then(then)


@fault(seen_by="proof", setting=COUNTED_HALF, source="diffusers #775")
def dtype_not_applied(plant: Plant) -> None:
    """Half precision was asked for under a name nobody reads, and the pipeline is in float32."""
    plant.then(lambda pipeline: pipeline.to(torch.float32))


@fault(seen_by="picture", setting=SEEN)
def float8_weights(plant: Plant) -> None:
    """The UNet's weights went through 8 bits on their way."""

    def then(pipeline: Any) -> None:
        for parameter in pipeline.unet.parameters():
            parameter.data = parameter.data.to(torch.float8_e4m3fn).to(parameter.dtype)

    plant.then(then)


@fault(
    seen_by="proof",
    setting=Setting(base=("tf32",), steps=6),
    source="torch 1.12, which switched TF32 off for matrix products",
    where="cuda",
)
def tf32_reset(plant: Plant) -> None:
    """TF32 for matrix products is switched off again after the case switched it on."""

    def then(pipeline: Any) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False

    plant.then(then)


@fault(seen_by="GPU busy", setting=COUNTED, source="torch 1.12, for convolutions", where="cuda")
def tf32_convolutions_off(plant: Plant) -> None:
    """cuDNN's TF32, on by default, is off, for the reference too."""
    plant.put(torch.backends.cudnn, "allow_tf32", False)


# Attention


@fault(seen_by="counter", setting=COUNTED_HALF, source="diffusers #3493")
def sdpa_math_only(plant: Plant) -> None:
    """Scaled dot product attention falls back to its math kernel."""
    plant.during(sdpa_kernel(SDPBackend.MATH))


@fault(seen_by="counter", setting=COUNTED, source="diffusers #3594")
def sdpa_lost(plant: Plant) -> None:
    """Another attention processor was installed, and the UNet computes attention as written."""
    plant.then(lambda pipeline: pipeline.unet.set_default_attn_processor())


@fault(seen_by="counter", setting=COUNTED)
def attention_sliced(plant: Plant) -> None:
    """Attention slicing, meant to save memory, was left on."""
    plant.then(lambda pipeline: pipeline.enable_attention_slicing("max"))


@fault(seen_by="counter", setting=COUNTED, where="cpu", source="transformers' eager fallback")
def text_attention_eager(plant: Plant) -> None:
    """The text encoder's attention falls back to eager."""
    # On a GPU's launches it is a tenth of a per cent: only what the code asks for shows it.
    plant.then(lambda pipeline: pipeline.text_encoder.set_attn_implementation("eager"))


@fault(seen_by="picture", setting=SEEN_FP16, source="diffusers #1614")
def attention_overflow(plant: Plant) -> None:
    """The attention of one block overflows float16."""

    def then(pipeline: Any) -> None:
        attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1
        # The values too: a CPU's kernel takes scores that are no numbers for no scores.
        for layer in (attention.to_q, attention.to_k, attention.to_v):
            layer.weight.data.mul_(3e4 / float(layer.weight.detach().abs().max()))

    plant.then(then)


@fault(seen_by="picture", setting=SEEN)
def cross_attention_lost(plant: Plant) -> None:
    """The upward half of the UNet no longer attends to the prompt."""

    def then(pipeline: Any) -> None:
        for name, attention in pipeline.unet.up_blocks.named_modules():
            if name.endswith("attn2"):
                attention.to_out[0].weight.data.zero_()

    plant.then(then)


# Scheduler


@fault(
    seen_by="counter",
    setting=Setting(steps=6, changes={"scheduler": "EulerDiscreteScheduler"}),
    source="diffusers #6173, #6708",
)
def sigmas_on_device(plant: Plant) -> None:
    """The scheduler's sigmas are on the GPU, and each step waits to read them."""
    from diffusers import EulerDiscreteScheduler

    set_timesteps = EulerDiscreteScheduler.set_timesteps

    def onto_device(self: Any, *args: Any, **kwargs: Any) -> None:
        set_timesteps(self, *args, **kwargs)
        self.sigmas = self.sigmas.to(self.timesteps.device)

    plant.put(EulerDiscreteScheduler, "set_timesteps", onto_device)


@fault(seen_by="counter", setting=COUNTED)
def item_in_step(plant: Plant) -> None:
    """Each step reads a number back from the GPU to look for NaN."""
    in_step(plant, lambda pipeline, noise: noise.abs().max().item())


@fault(seen_by="counter", setting=COUNTED, source="diffusers' UniPC scheduler")
def tensor_from_list(plant: Plant) -> None:
    """Each step builds a tensor on the GPU from a Python list."""
    in_step(plant, lambda pipeline, noise: torch.tensor([0.5], device=noise.device))


@fault(seen_by="counter", setting=COUNTED)
def preview_in_step(plant: Plant) -> None:
    """Each step copies the latents to the host for a preview that nobody asked for."""
    in_step(plant, lambda pipeline, noise: noise.cpu())


@fault(seen_by="counter", setting=COUNTED, where="cuda")
def synchronized_step(plant: Plant) -> None:
    """Each step waits for the GPU."""
    in_step(plant, lambda pipeline, noise: torch.cuda.synchronize())


@fault(seen_by="picture", setting=SEEN)
def scheduler_defaults(plant: Plant) -> None:
    """The scheduler is built without the model's configuration."""

    def then(pipeline: Any) -> None:
        pipeline.scheduler = type(pipeline.scheduler)()

    plant.then(then)


# Host


@fault(seen_by="counter", setting=COUNTED, source="diffusers #7576")
def peft_walk(plant: Plant) -> None:
    """Every layer of the UNet is visited before and after each call, in search of adapters."""

    def walk(pipeline: Any) -> None:
        for module in pipeline.unet.modules():
            isinstance(module, torch.nn.Linear)

    def then(pipeline: Any) -> None:
        pipeline.unet.register_forward_pre_hook(lambda *_: walk(pipeline))
        pipeline.unet.register_forward_hook(lambda *_: walk(pipeline))

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED)
def hooks_left_on(plant: Plant) -> None:
    """A profiler left a hook on every layer."""

    def nothing(*_: object) -> None: ...

    def then(pipeline: Any) -> None:
        for module in pipeline.unet.modules():
            module.register_forward_hook(nothing)

    plant.then(then)


@fault(seen_by="latency", setting=TIMED, unit="% of a step", sizes=(100, 50, 30, 20, 15, 10, 5))
def sleep_in_step(plant: Plant) -> None:
    """The host sleeps in each step."""
    seconds = (plant.size or 0) / 100 * plant.step_s
    in_step(plant, lambda pipeline, noise: time.sleep(seconds))


@fault(seen_by="latency", setting=TIMED_DISTILLED)
def slow(plant: Plant) -> None:
    """The steps of one case take three times as long."""

    def thrice(forward: Any, *args: Any, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        forward(*args, **kwargs)
        return forward(*args, **kwargs)

    around_unet(plant, thrice, only="distilled_unet")


# Memory


@fault(seen_by="memory", setting=COUNTED)
def pictures_kept(plant: Plant) -> None:
    """Every decoded picture is kept in a list that nobody empties."""
    kept: list[torch.Tensor] = []

    def keep(sample: torch.Tensor) -> torch.Tensor:
        kept.append(sample)
        return sample

    decoded(plant, keep)


@fault(seen_by="memory", setting=COUNTED_HALF, where="cuda")
def second_copy(plant: Plant) -> None:
    """A second copy of the UNet's weights stays on the GPU."""

    def then(pipeline: Any) -> None:
        pipeline.unet_before = copy.deepcopy(pipeline.unet)

    plant.then(then)


@fault(seen_by="memory", setting=COUNTED_HALF, where="cuda")
def activations_for_gradients(plant: Plant) -> None:
    """The UNet runs with gradients, and keeps its activations for a backward pass."""

    def with_gradients(forward: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            made = forward(sample.detach().requires_grad_(), *args, **kwargs)
        if isinstance(made, tuple):
            return (made[0].detach(), *made[1:])
        made.sample = made.sample.detach()
        return made

    around_unet(plant, with_gradients)


@fault(seen_by="counter", setting=COUNTED, where="cuda")
def cache_emptied(plant: Plant) -> None:
    """Each step gives the allocator's memory back to the driver, and asks for it again."""
    in_step(plant, lambda pipeline, noise: torch.cuda.empty_cache())


# Layout, kernels


@fault(seen_by="counter", setting=COUNTED)
def layout_there_and_back(plant: Plant) -> None:
    """Every residual block turns its input channels last, and back."""
    from diffusers.models.resnet import ResnetBlock2D

    forward = ResnetBlock2D.forward

    def turned(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        x = x.contiguous(memory_format=torch.channels_last).contiguous()
        return forward(self, x, *args, **kwargs)

    plant.put(ResnetBlock2D, "forward", turned)


@fault(seen_by="GPU busy", setting=COUNTED_HALF, where="cuda")
def cudnn_off(plant: Plant) -> None:
    """cuDNN does not load, and convolutions run as matrix products."""
    plant.put(torch.backends.cudnn, "enabled", False)


@fault(
    seen_by="GPU busy",
    setting=COUNTED_HALF,
    where="cuda",
    unit="% of a step's GPU work",
    sizes=(20, 10, 5, 3, 2, 1),
)
def more_gpu_work(plant: Plant) -> None:
    """One kernel more in each step, and nothing else."""
    side, probe = 4096, 1024
    left = torch.ones(side, probe, device=plant.device)
    result = torch.empty(side, side, device=plant.device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        start.record()
        torch.mm(left, left.T, out=result)
        end.record()
    torch.cuda.synchronize()
    seconds = start.elapsed_time(end) / 1e3
    # The work of a product grows with its inner side.
    inner = round((plant.size or 0) / 100 * plant.gpu_step_s / seconds * probe / 8) * 8
    factor = torch.ones(side, max(8, inner), device=plant.device)
    in_step(plant, lambda pipeline, noise: torch.mm(factor, factor.T, out=result))


# Compilation


def _compile_one_block(pipeline: Any) -> None:
    """A small part of the UNet, compiled without a compiler: its graphs are what matters."""
    torch.compiler.reset()
    block = pipeline.unet.mid_block.resnets[0]
    eager = block.forward
    compiled = torch.compile(eager, backend="eager", dynamic=False)

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # What is counted without data is counted as written.
        return (eager if x.is_meta else compiled)(x, *args, **kwargs)

    block.forward = forward


@fault(seen_by="counter", setting=COUNTED, source="diffusers #4305")
def graph_break(plant: Plant) -> None:
    """A compiled block breaks into two graphs."""
    plant.given(_compile_one_block)

    def then(pipeline: Any) -> None:
        act = pipeline.unet.mid_block.resnets[0].nonlinearity
        forward = act.forward

        def broken(x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            y: torch.Tensor = forward(x)
            return y

        act.forward = broken

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED, source="torch #174575")
def compiled_again(plant: Plant) -> None:
    """What was compiled is forgotten between pictures, and compiled again."""
    plant.given(_compile_one_block)

    def forgetful(encode: Any, *args: Any, **kwargs: Any) -> Any:
        torch.compiler.reset()
        return encode(*args, **kwargs)

    encoded(plant, forgetful)


@functools.cache
def _aside() -> torch.cuda.Stream:
    """The one stream of all graphs' first runs: cuBLAS keeps memory for each that it sees."""
    return torch.cuda.Stream()


class Replayed:
    """A UNet's forward, captured into a CUDA graph at its first call and replayed from then on."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward
        self._graph: Any = None

    def __call__(self, sample: Any, timestep: Any, *rest: Any, **kwargs: Any) -> Any:
        states = kwargs.get("encoder_hidden_states")
        if not isinstance(timestep, torch.Tensor) or states is None:
            return self._forward(sample, timestep, *rest, **kwargs)
        shape = (sample.shape, states.shape)
        if self._graph is None or self._shape != shape:
            self._capture(sample, timestep, states, kwargs)
        for place, value in zip(self._inputs, (sample, timestep, states), strict=True):
            place.copy_(value)
        self._graph.replay()
        return (self._output.clone(),)

    def _capture(self, sample: Any, timestep: Any, states: Any, kwargs: Any) -> None:
        self._shape = (sample.shape, states.shape)
        self._inputs = tuple(t.clone() for t in (sample, timestep, states))
        others = {**kwargs, "encoder_hidden_states": self._inputs[2]}
        aside = _aside()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._forward(*self._inputs[:2], **others)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._forward(*self._inputs[:2], **others)[0]

    def forget(self) -> None:
        self._graph = None


def _graphed(pipeline: Any) -> None:
    pipeline.unet.forward = Replayed(pipeline.unet.forward)


@fault(seen_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_off(plant: Plant) -> None:
    """The UNet's CUDA graph is silently off: every kernel is launched on its own."""
    plant.given(_graphed)

    def then(pipeline: Any) -> None:
        pipeline.unet.forward = pipeline.unet.forward._forward

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_recorded_again(plant: Plant) -> None:
    """The UNet's CUDA graph is recorded again for each picture."""
    plant.given(_graphed)

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt

        def forgetful(*args: Any, **kwargs: Any) -> Any:
            pipeline.unet.forward.forget()
            return encode(*args, **kwargs)

        pipeline.encode_prompt = forgetful

    plant.then(then)


# The pipeline doing work twice


@fault(seen_by="counter", setting=COUNTED)
def guidance_in_two_calls(plant: Plant) -> None:
    """With and without the prompt are two calls of the UNet, not one of two samples."""

    def one_by_one(
        forward: Any, sample: torch.Tensor, *args: Any, encoder_hidden_states: Any, **kwargs: Any
    ) -> Any:
        if len(sample) == 1:
            return forward(sample, *args, encoder_hidden_states=encoder_hidden_states, **kwargs)
        parts = zip(sample.chunk(2), encoder_hidden_states.chunk(2), strict=True)
        noise = [forward(x, *args, encoder_hidden_states=y, **kwargs)[0] for x, y in parts]
        return (torch.cat(noise),)

    around_unet(plant, one_by_one)


@fault(seen_by="counter", setting=COUNTED)
def prompt_in_each_step(plant: Plant) -> None:
    """The prompt is encoded again in each step."""
    in_step(plant, lambda pipeline, noise: pipeline.encode_prompt(["again"], noise.device, 1, True))


def _decode_twice(pipeline: Any) -> None:
    decode = pipeline.vae.decode

    def twice(*args: Any, **kwargs: Any) -> Any:
        decode(*args, **kwargs)
        return decode(*args, **kwargs)

    pipeline.vae.decode = twice


@fault(seen_by="counter", setting=COUNTED_FOUR, where="cpu")
def decoded_twice(plant: Plant) -> None:
    """The decoder runs twice for each batch of pictures."""
    plant.then(_decode_twice)


@fault(seen_by="GPU busy", setting=COUNTED_FOUR, where="cuda")
def decoded_twice_on_gpu(plant: Plant) -> None:
    """The same: few launches of a generation, and a tenth of what the GPU does for it."""
    plant.then(_decode_twice)


@fault(seen_by="counter", setting=COUNTED_FOUR)
def decoded_one_by_one(plant: Plant) -> None:
    """VAE slicing, meant to save memory, was left on: four pictures are decoded one by one."""
    plant.then(lambda pipeline: pipeline.vae.enable_slicing())


# Wrong pictures


@fault(seen_by="picture", setting=SEEN, source="a false alarm of the safety checker")
def black(plant: Plant) -> None:
    """The decoder's output is black."""
    decoded(plant, lambda sample: torch.full_like(sample, -1.0))


@fault(seen_by="picture", setting=SEEN)
def grey(plant: Plant) -> None:
    """The decoder's output is one even grey."""
    decoded(plant, torch.zeros_like)


@fault(seen_by="picture", setting=SEEN_FOUR)
def nan(plant: Plant) -> None:
    """One number in the last picture of a batch of four is NaN."""

    def change(sample: torch.Tensor) -> torch.Tensor:
        if len(sample) == 4:
            sample = sample.clone()
            sample[-1, 0, 0, 0] = torch.nan
        return sample

    decoded(plant, change)


@fault(seen_by="picture", setting=SEEN_FOUR)
def another_of_the_batch(plant: Plant) -> None:
    """Two pictures of a batch of four have changed places."""
    decoded(plant, lambda sample: sample[[0, 2, 1, 3]] if len(sample) == 4 else sample)


@fault(seen_by="picture", setting=REPEATED)
def stale_latents(plant: Plant) -> None:
    """A generation starts from where the one before it ended."""

    def then(pipeline: Any) -> None:
        last: list[torch.Tensor] = []
        prepare, step = pipeline.prepare_latents, pipeline.scheduler.step

        def prepared(*args: Any, **kwargs: Any) -> torch.Tensor:
            latents: torch.Tensor = prepare(*args, **kwargs)
            fits = last and last[0].device == latents.device
            return last[0] if fits else latents

        def kept(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            last[:] = [result[0]]
            return result

        pipeline.prepare_latents, pipeline.scheduler.step = prepared, kept

    plant.then(then)


@fault(seen_by="picture", setting=SEEN)
def swapped_colours(plant: Plant) -> None:
    """Red and blue have changed places."""
    decoded(plant, lambda sample: sample[:, [2, 1, 0]])


def scaled(plant: Plant, factor: float) -> None:
    """Scale the latents on their way into the decoder."""

    def then(pipeline: Any) -> None:
        decode = pipeline.vae.decode
        pipeline.vae.decode = lambda latents, *a, **k: decode(latents * factor, *a, **k)

    plant.then(then)


@fault(seen_by="picture", setting=SEEN)
def latents_not_scaled(plant: Plant) -> None:
    """The decoder gets latents that nobody scaled back."""
    scaled(plant, 0.18215)


@fault(seen_by="picture", setting=SEEN, source="SDXL's decoder under SD's latents", where="cpu")
def another_scaling_factor(plant: Plant) -> None:
    """The latents are scaled for another model's decoder."""
    scaled(plant, 0.18215 / 0.13025)


@fault(
    seen_by="picture",
    setting=SEEN,
    source="steps_offset, of which diffusers warns since its first schedulers",
    unit="timesteps",
    sizes=(100, 50, 20, 10, 5, 1),
)
def schedule_shifted(plant: Plant) -> None:
    """The schedule is some of its thousand timesteps too early."""
    shift = int(plant.size or 0)

    def then(pipeline: Any) -> None:
        scheduler = pipeline.scheduler
        set_timesteps = scheduler.set_timesteps

        def shifted(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*args, **kwargs)
            scheduler.timesteps = (scheduler.timesteps - shift).clamp(min=0)

        scheduler.set_timesteps = shifted

    plant.then(then)


@fault(seen_by="picture", setting=SEEN)
def no_guidance(plant: Plant) -> None:
    """Guidance is lost."""

    def then(pipeline: Any) -> None:
        real = type(pipeline)
        pipeline.__class__ = type(
            real.__name__,
            (real,),
            {"do_classifier_free_guidance": property(lambda self: False)},
        )

    plant.then(then)


@fault(seen_by="picture", setting=SEEN)
def prompt_lost(plant: Plant) -> None:
    """The prompt does not arrive: the pictures are of nothing in particular."""

    def emptied(encode: Any, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        return encode([""] * len(prompt), *args, **kwargs)

    encoded(plant, emptied)


@fault(seen_by="picture", setting=SEEN)
def prompts_swapped(plant: Plant) -> None:
    """Guidance leads away from the prompt: the two halves of the batch have changed places."""

    def swapped(encode: Any, *args: Any, **kwargs: Any) -> Any:
        positive, negative = encode(*args, **kwargs)
        return negative, positive

    encoded(plant, swapped)


@fault(seen_by="picture", setting=SEEN, unit="dB", sizes=(20, 30, 35, 40, 43, 46, 50))
def noise(plant: Plant) -> None:
    """Noise as coarse as the latents lies over every picture."""
    deviation = 2 * 10 ** (-(plant.size or 0) / 20)

    def noisy(sample: torch.Tensor) -> torch.Tensor:
        images, channels, height, width = sample.shape
        shape = (images, channels, height // 8, width // 8)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * deviation
        coarse = drawn.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return sample + coarse.to(sample.device, sample.dtype)

    decoded(plant, noisy)


# The measuring itself


@fault(seen_by="measuring", setting=TIMED)
def warm_up_left_out(plant: Plant) -> None:
    """Nothing is warmed up, and the first round compiles."""
    plant.given(_compile_one_block)

    def none(generate: Any, *, on_round: Any) -> list[float]:
        return []

    plant.put(bench, "warm_up", none)


@fault(
    seen_by="measuring",
    # In one step and so large that the GPU, and not the host, is what takes the time.
    setting=Setting(steps=1, rounds=3, changes={"size": 1024}),
    where="cuda",
)
def timer_without_sync(plant: Plant) -> None:
    """Pictures are fetched without waiting for them, and the timer does not wait either."""
    from diffusers.image_processor import VaeImageProcessor

    buffers: list[torch.Tensor] = []
    calls = itertools.count()

    def fetched(images: torch.Tensor) -> Any:
        there = images.permute(0, 2, 3, 1).float().contiguous()
        while len(buffers) < 16:
            buffers.append(torch.empty(there.shape, dtype=there.dtype, pin_memory=True))
        here = buffers[next(calls) % len(buffers)]
        here.copy_(there, non_blocking=True)
        return here.numpy()

    plant.put(VaeImageProcessor, "pt_to_numpy", staticmethod(fetched))
    plant.put(timing, "synchronized_clock", time.perf_counter)


@fault(seen_by="latency", setting=TIMED_DISTILLED)
def slow_reference(plant: Plant) -> None:
    """The reference is slow as well, so that every ratio looks fine."""

    def then(pipeline: Any) -> None:
        step, seconds = pipeline.scheduler.step, plant.step_s

        def slept(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return step(*args, **kwargs)

        pipeline.scheduler.step = slept

    plant.then(then)


# Controls: what no rule may take for a regression


@control(setting=TIMED)
def rerun(plant: Plant) -> None:
    """Nothing at all."""


@control(setting=COUNTED_HALF)
def rerun_half(plant: Plant) -> None:
    """Nothing at all, in half precision."""


@control(setting=TIMED_DISTILLED)
def rerun_distilled(plant: Plant) -> None:
    """Nothing at all, four pictures, the distilled UNet against the full one."""


@control(setting=Setting(steps=6, changes={"seed": 1}))
def another_seed(plant: Plant) -> None:
    """Another seed, on both sides."""


@control(setting=Setting(steps=6, changes={"prompt": "a small yellow star on a green background"}))
def another_prompt(plant: Plant) -> None:
    """Another prompt, on both sides."""


@control(setting=Setting(base=("fp16", "naive_attention"), steps=4), source="diffusers #902")
def attention_rewritten(plant: Plant) -> None:
    """The scores are scaled within the queries: other roundings, no other work."""

    def then(pipeline: Any) -> None:
        for module in pipeline.unet.modules():
            if hasattr(module, "get_attention_scores"):
                module.to_q.weight.data.mul_(module.scale)
                module.scale = 1.0

    plant.then(then)


@control(setting=SEEN)
def rounding_noise(plant: Plant) -> None:
    """Noise of the size that float16 makes, 60 dB."""
    decoded(plant, lambda sample: sample + 2e-3 * torch.sin(1e4 * sample))


@control(setting=COUNTED)
def imports_reordered(plant: Plant) -> None:
    """The schedulers are imported anew, the last one first."""
    plant.during(_imported_anew("diffusers.schedulers."))


@contextmanager
def _imported_anew(prefix: str) -> Iterator[None]:
    before = {name: module for name, module in sys.modules.items() if name.startswith(prefix)}
    for name in before:
        del sys.modules[name]
    try:
        for name in sorted(before, reverse=True):
            importlib.import_module(name)
        yield
    finally:
        sys.modules.update(before)


@control(setting=TIMED)
def garbage(plant: Plant) -> None:
    """Each step leaves thousands of objects behind, and the collector runs all the time."""

    @contextmanager
    def often() -> Iterator[None]:
        before = gc.get_threshold()
        gc.set_threshold(100, 2, 2)
        try:
            yield
        finally:
            gc.set_threshold(*before)

    def litter(pipeline: Any, noise: torch.Tensor) -> None:
        for _ in range(1000):
            circle: list[Any] = []
            circle.append(circle)

    plant.during(often())
    in_step(plant, litter)


@control(setting=TIMED)
def busy_cpu(plant: Plant) -> None:
    """Other processes keep every CPU busy."""
    if not Path("/proc/self/schedstat").exists():
        raise CannotPlant("this system does not say how long a thread waited for a CPU")

    @contextmanager
    def busy() -> Iterator[None]:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        spinning = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)
        ]
        try:
            yield
        finally:
            for process in spinning:
                process.kill()
                process.wait()

    plant.during(busy())


@control(setting=COUNTED, where="cpu")
def another_malloc(plant: Plant) -> None:
    """The C library takes every larger allocation from the kernel and gives it back at once."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        raise CannotPlant("this C library has no mallopt")
    threshold, ours, default = -3, 65_536, 131_072  # M_MMAP_THRESHOLD of malloc.h

    @contextmanager
    def other() -> Iterator[None]:
        libc.mallopt(threshold, ours)
        try:
            yield
        finally:
            libc.mallopt(threshold, default)

    plant.during(other())


@control(setting=COUNTED_HALF, where="cuda")
def another_allocator_setting(plant: Plant) -> None:
    """PyTorch's allocator gives unused blocks back before it is full."""

    @contextmanager
    def other() -> Iterator[None]:
        try:
            torch.cuda.memory._set_allocator_settings("garbage_collection_threshold:0.5")
        except (AttributeError, RuntimeError):
            raise CannotPlant(
                "this PyTorch cannot change its allocator's settings while it runs"
            ) from None
        try:
            yield
        finally:
            torch.cuda.memory._set_allocator_settings("garbage_collection_threshold:0.99")

    plant.during(other())


@control(setting=Setting(steps=4, picture_only=True))
def another_thread_count(plant: Plant) -> None:
    """PyTorch runs with another number of threads on the host."""

    @contextmanager
    def other() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    plant.during(other())


@control(setting=COUNTED_HALF, where="cuda")
def another_gpu(plant: Plant) -> None:
    """Another GPU of the same kind."""
    same = [
        index
        for index in range(1, torch.cuda.device_count())
        if torch.cuda.get_device_name(index) == torch.cuda.get_device_name(0)
    ]
    if not same:
        raise CannotPlant("there is one GPU of this kind here")
    plant.during(torch.cuda.device(same[0]))


@control(setting=COUNTED)
def a_hook_that_does_nothing(plant: Plant) -> None:
    """One forward hook on the UNet."""
    plant.then(lambda pipeline: pipeline.unet.register_forward_hook(lambda *_: None))


@control(setting=SEEN)
def global_seed(plant: Plant) -> None:
    """Somebody else draws from PyTorch's global generator."""

    def then(pipeline: Any) -> None:
        torch.manual_seed(12345)

    plant.then(then)

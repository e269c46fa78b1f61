"""Builds a case's pipeline on the device, one at a time, and takes it away again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from diffusers_perf.catalog.declarations import Case, Kind, Scale, Workload
from diffusers_perf.measurement.build import Build, flag

if TYPE_CHECKING:
    from diffusers_perf.records.pixels import Images


class BadModel(Exception):
    """Weights that cannot be used; one sentence says why and what would do."""


class Source(Protocol):
    """Where a model's weights come from. Each file of `perf_tests/models` gives one."""

    name: str
    """The model, as a person calls it (``sd15``)."""
    weights: str
    """Which weights it holds; with the name and workload, what a baseline is keyed by."""
    kind: Kind
    scale: Scale
    variants: frozenset[str]
    """Modules that it has beside its own: ``distilled_unet``, ``tiny_vae``."""

    def load(
        self,
        *,
        pipeline: str,
        scheduler: str,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        """A fresh diffusers pipeline with all its modules on the device in this dtype.

        `variants` maps a module's place (``unet``) to the variant that takes it. `BadModel` where
        the weights cannot be loaded.
        """


@contextmanager
def built(case: Case, source: Source, device: torch.device) -> Iterator[Any]:
    """The case's pipeline, on the device for as long as the context is open."""
    build = Build()
    for optimization in case.stack:
        optimization.apply(build)
    with ExitStack() as contexts:
        for context in build.contexts:
            contexts.enter_context(context)
        pipeline = source.load(
            pipeline=case.workload.pipeline,
            scheduler=case.workload.scheduler,
            variants=build.variants,
            dtype=build.dtype,
            device=device,
        )
        pipeline.set_progress_bar_config(disable=True)
        for change in build.changes:
            change(pipeline)
        try:
            yield pipeline
        finally:
            del pipeline
    if device.type == "cuda":
        # cuBLAS keeps its workspace, 32 MiB on an H100, for each stream that ever ran a product:
        # one more for each that a graph was recorded on, in the peak of whatever comes next.
        torch._C._cuda_clearCublasWorkspaces()
    collect(device)


def collect(device: torch.device) -> None:
    """Give back what the last pipeline held, so that the next one starts from nothing."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Generation:
    """One call makes the workload's images; keeps the first and the last ones made."""

    def __init__(self, pipeline: Any, workload: Workload) -> None:
        self._pipeline = pipeline
        self.workload = workload
        # Asked once: diffusers 0.42 walks through every module for either, while the GPU idles.
        self._device, self._dtype = pipeline._execution_device, pipeline.unet.dtype
        self.first: Images | None = None
        self.last: Images | None = None
        self._raw: torch.Tensor | None = None

    def __call__(self, *, steps: int | None = None) -> None:
        """Generate, with the workload's steps unless told otherwise."""
        with flag(self._pipeline.vae, "decode", self._kept(self._pipeline.vae.decode)):
            images = self.images(steps=steps)
        if self.first is None:
            self.first = images
        self.last = images

    def _kept(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*args: Any, **kwargs: Any) -> Any:
            decoded = decode(*args, **kwargs)
            self._raw = decoded[0]
            return decoded

        return kept

    def raw_is_finite(self) -> bool:
        """Whether the decoder's own output was: clamped to an image, infinity is plain white."""
        return self._raw is None or bool(torch.isfinite(self._raw).all())

    def images(
        self,
        *,
        steps: int | None = None,
        after_step: Callable[[], None] | None = None,
        of: Workload | None = None,
    ) -> Images:
        """Generate without keeping: images as the decoder made them, scaled and clamped.

        `after_step` is called at the end of each turn of the denoising loop. `of` stands in for
        the workload.
        """
        workload, pipeline = of or self.workload, self._pipeline

        def step_ended(*_: object) -> dict[str, Any]:
            if after_step is not None:
                after_step()
            return {}

        output = pipeline(
            [workload.prompt] * workload.num_images,
            height=workload.size,
            width=workload.size,
            num_inference_steps=workload.steps if steps is None else steps,
            guidance_scale=workload.guidance,
            latents=self._noise(workload),
            output_type="np",
            callback_on_step_end=step_ended if after_step is not None else None,
        )
        images: Images = np.asarray(output.images, dtype=np.float32)
        return images

    def forget(self) -> None:
        """Drop the images kept so far, so that `first` is the first of the timed rounds."""
        self.first = self.last = None

    def one_step(self, **changes: Any) -> Images:
        """Images after a single step, of the workload with these fields changed."""
        return self.images(of=replace(self.workload, steps=1, **changes))

    def _noise(self, workload: Workload) -> torch.Tensor:
        # In float32 on the CPU, then cast: drawn in half precision, the same seed gives other
        # numbers in torch 2.11, and no two precisions could be compared.
        side = workload.size // self._pipeline.vae_scale_factor
        shape = (workload.num_images, self._pipeline.unet.config.in_channels, side, side)
        generator = torch.Generator("cpu").manual_seed(workload.seed)
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        return noise.to(self._device, self._dtype)

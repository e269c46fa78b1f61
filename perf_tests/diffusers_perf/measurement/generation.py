"""Calls a pipeline as its workload says, and takes its images out of whatever it gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.clock import synchronized_clock
from diffusers_perf.measurement.counting import counted, without_data
from diffusers_perf.measurement.discovery import (
    Anatomy,
    anatomy_of,
    decoders,
    discover,
    is_known,
    know,
    modules,
    step_ends,
)
from diffusers_perf.measurement.flag import flag
from diffusers_perf.measurement.noise import as_first_of
from diffusers_perf.measurement.torch_flags import torch_flags
from diffusers_perf.messages import measurement as messages
from diffusers_perf.messages.records import few_pixels
from diffusers_perf.records.pixels import SIDE_LEAST, Images

OUTPUTS = ("images", "frames")
"""What a pipeline calls its images in what it gives, in the order in which they are looked for."""
SHAPES_MOST = 3
"""That a sentence about images of several sizes names."""
SOUND = "audios"
"""What diffusers' pipelines for sound call theirs."""


class BadOutput(Exception):
    """A pipeline gave something that holds no images; one sentence says what."""


class Short(NamedTuple):
    """A generation as short as can be, that others are compared with."""

    of: Workload
    images: Images
    seconds: float


class Generation:
    """One call makes the workload's images; keeps the first and the last ones made."""

    def __init__(self, pipeline: Any, workload: Workload) -> None:
        self._pipeline = pipeline
        self.workload = workload
        self._signature = inspect.signature(pipeline.__call__).parameters
        # Here, so that looking it up is not timed.
        self._takes_output_type = self._takes("output_type")
        self._takes_generator = self._takes("generator")
        self.first: Images | None = None
        self.last: Images | None = None
        self.short: Short | None = None
        """The latest that was kept."""
        self.flags: dict[str, str] = {}
        """Torch's global flags, as `torch_flags`, where the first images were decoded."""
        self._raw: dict[str, torch.Tensor] = {}
        self._inputs: Mapping[str, Any] | None = None
        self._of = workload
        self._turns: dict[int, int] = {}

    def __call__(self, *, steps: int | None = None) -> None:
        """Generate and keep the images; the workload's steps unless others are given."""
        with ExitStack() as kept:
            for name, module in decoders(self._pipeline).items():
                kept.enter_context(flag(module, "decode", self._kept(name, module.decode)))
            images = self.images(steps=steps, of=self._of)
        if self.first is None:
            self.first = images
        self.last = images

    def _kept(self, name: str, decode: Any) -> Callable[..., Any]:
        def kept(*args: Any, **kwargs: Any) -> Any:
            decoded = decode(*args, **kwargs)
            # In here, since a pipeline's call sets some of them for itself.
            self.flags = self.flags or torch_flags()
            self._raw[name] = decoded if isinstance(decoded, torch.Tensor) else decoded[0]
            return decoded

        return kept

    def raw_is_finite(self) -> bool:
        """Whether the decoder's own output was: clamped to an image, infinity is plain white."""
        return all(bool(torch.isfinite(raw).all()) for raw in self._raw.values())

    def prepare(self, *, seed: int) -> None:
        """Make the inputs of the next call, so that making them is not timed, with this seed."""
        self._of = self.workload.changed(seed=seed)
        self._inputs = self.workload.inputs()

    def seed_of(self, round_number: int, *, rounds: int) -> int:
        """Another in each round, so that no round is given what one before it made; the last round
        repeats the first one's, the workload's. Rounds are numbered from 1.
        """
        return self.workload.seed + (0 if round_number == rounds else round_number - 1)

    def images(
        self,
        *,
        steps: int | None = None,
        after_step: Callable[[], None] | None = None,
        of: Workload | None = None,
    ) -> Images:
        """Generate without keeping.

        `after_step` is called at the end of each turn of the denoising loop. `of` stands in for
        the workload. `BadOutput` where the pipeline gives no images.
        """
        call = self.call(steps=steps, of=of)
        if after_step is None:
            return images_in(call())
        with step_ends(self._pipeline, after_step):
            return images_in(call())

    def call(
        self,
        *,
        steps: int | None = None,
        of: Workload | None = None,
        output_type: str | None = "np",
    ) -> Callable[[], Any]:
        """The pipeline's call with all its arguments, made ready. None: its own output type."""
        workload = of or self.workload
        inputs = workload.inputs() if self._inputs is None else self._inputs
        self._inputs = None
        call: dict[str, Any] = {
            **{name: _own(value) for name, value in workload.call.items()},
            **inputs,
            "num_inference_steps": workload.steps if steps is None else steps,
        }
        if self._takes_output_type and output_type:
            call["output_type"] = output_type
        if self._takes_generator:
            call["generator"] = torch.Generator("cpu").manual_seed(workload.seed)
        else:
            torch.manual_seed(workload.seed)
        return partial(self._pipeline, **call)

    @property
    def strength(self) -> float:
        """What the workload keeps of the steps that are asked for: below 1 from an init image."""
        default = self._signature["strength"].default if "strength" in self._signature else 1.0
        strength = self.workload.call.get("strength", default)
        return float(strength) if isinstance(strength, int | float) else 1.0

    def _takes(self, argument: str) -> bool:
        any_other = any(p.kind is p.VAR_KEYWORD for p in self._signature.values())
        return any_other or argument in self._signature

    @property
    def anatomy(self) -> Anatomy:
        """What the pipeline is made of, found out with short generations where it is not known.

        `NotDiscovered` where it cannot be found out.
        """
        if not is_known(self._pipeline):
            own = modules(self._pipeline).values()
            has_data = not any(p.is_meta for module in own for p in module.parameters())

            def generate(steps: int) -> None:
                with ExitStack() as contexts:
                    if not has_data:
                        contexts.enter_context(without_data(self._pipeline))
                        contexts.enter_context(counted(self._pipeline))
                    self.images(steps=steps)

            know(self._pipeline, discover(self._pipeline, generate, strength=self.strength))
        return anatomy_of(self._pipeline)

    def turns(self, asked: int) -> int:
        """Turns of the denoising loop when so many steps are asked for, as counters count them:
        PNDM's one more is not a step of its own.
        """
        if self.anatomy.is_linear:
            return asked
        if asked not in self._turns:
            ends: list[None] = []
            self.images(steps=asked, after_step=lambda: ends.append(None))
            self._turns[asked] = len(ends)
        return self._turns[asked]

    def asking_for(self, turns: int) -> int:
        """Steps to ask for to have at least so many turns of the loop."""
        return self.anatomy.asking_for(turns)

    def shortest(self, of: Workload | None = None) -> Images:
        """Images after as few steps as the pipeline takes."""
        return self.images(steps=self.anatomy.fewest, of=of)

    def keep_short(
        self, of: Workload | None = None, make: Callable[[Workload], Images] | None = None
    ) -> Short:
        """The images of the shortest generation, which `make` can make; kept as `short`."""
        of = of or self.workload
        start = synchronized_clock()
        # A copy: what the pipeline itself keeps of its last images must not live on in here.
        images = (make or self.shortest)(of).copy()
        self.short = Short(of, images, synchronized_clock() - start)
        return self.short

    def first_alone(self) -> Images | None:
        """The first image of the batch, generated alone from the same noise.

        None where the workload has one image, or its call tells images apart by more than prompts.
        """
        workload = self.workload
        others = [value for name, value in workload.call.items() if name != "prompt"]
        count = len(workload.prompts)
        if count < 2 or count != workload.num_images or workload.inputs():
            return None
        if any(isinstance(value, list | tuple) for value in others):
            return None
        with as_first_of(count):
            return self.images(of=workload.changed(prompt=workload.prompts[:1]))

    def forget(self) -> None:
        """Drop the images kept so far, so that `first` is the first of the timed rounds."""
        self.first = self.last = None


def _own(argument: Any) -> Any:
    """A list or table of the call's own: Z-Image's pipeline writes into its list of prompts."""
    return copy(argument) if isinstance(argument, list | dict) else argument


def turns_of_steps(turns: int, steps: int) -> int:
    """How many of a generation's turns say what a step does: those of a further loop, as a
    refiner's, do not. PNDM's one more is none.
    """
    return steps if turns > steps + 1 else turns


def images_in(output: Any) -> Images:
    """The images in what a pipeline gave: (count or frames, height, width, 3), float32 in [0, 1].

    Videos of a batch follow one another. `BadOutput` where there are none.
    """
    # A modular pipeline's state has no attribute for what it lacks, and says so with an error.
    found: Any = next((v for n in OUTPUTS if (v := getattr(output, n, None)) is not None), output)
    if isinstance(found, tuple) and found:
        found = found[0]
    if isinstance(found, torch.Tensor):
        # Torch has channels before height and width.
        found = found.detach().float().cpu().numpy()
        found = np.moveaxis(found, -3, -1) if found.ndim > 3 else found
    if hasattr(output, SOUND) and found is output:
        raise BadOutput(messages.gives_sound(type(output).__name__))
    try:
        array = np.asarray(found)
    except ValueError:
        raise BadOutput(messages.bad_images(type(output).__name__, _shapes(found))) from None
    is_of_images = array.ndim > 3 and array.shape[-1] == 3 and array.dtype.kind in "fu"
    if not is_of_images or 0 in array.shape[1:]:
        shapes = [array.shape] if array.shape not in ((), (0,)) else []
        raise BadOutput(messages.bad_images(type(output).__name__, shapes))
    if not len(array):
        raise BadOutput(few_pixels(array.shape, SIDE_LEAST))
    images: Images = np.asarray(array, dtype=np.float32).reshape(-1, *array.shape[-3:])
    if array.dtype == np.uint8:
        images /= 255
    return images


def _shapes(images: Sequence[Any]) -> list[tuple[int, ...]]:
    """The first few shapes of images that do not fit together. What is not an image has none."""
    shapes = (np.shape(one) for one in images if hasattr(one, "shape") or hasattr(one, "size"))
    return list(dict.fromkeys(shapes))[:SHAPES_MOST]

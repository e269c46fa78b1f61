"""What is generated: a pipeline's call with everything that it depends on. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Literal

from diffusers_perf.catalog.file_name import is_file_name
from diffusers_perf.messages import declarations as messages

Scale = Literal["full", "small"]
"""Which workloads a model runs: the guide's, or the same scaled down to the embedded model."""

FIELDS = ("name", "steps", "seed", "scheduler", "base", "step_wise")
"""What of a workload `changed` changes; all else is an argument of its call."""
SET_BY_THE_LIBRARY = ("num_inference_steps", "generator", "output_type")
"""Arguments of a pipeline's call that a workload does not state: they follow from its fields."""

SMALL_MODELS = ("embedded", "embedded-flux", "small")
FULL_MODELS = ("sd15", "sdxl", "flux1-dev", "flux1-schnell")
"""The library's others."""

COUNTS = (
    "height",
    "width",
    "num_frames",
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "batch_size",
)
"""Arguments of a pipeline's call that are positive integers."""
TYPES: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "model": (str,),
    "call": (Mapping,),
    "seed": (int,),
    "scheduler": (str, NoneType),
    "base": (tuple,),
    "step_wise": (bool,),
    "sensitive_to": (Mapping,),
}
"""Of a workload's fields."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is generated. Everything that an image or a time depends on is pinned here."""

    name: str
    model: str
    """A model source: a name of this library's, a Hub id, a folder, or ``module:function``."""
    call: Mapping[str, Any]
    """Arguments of the pipeline's call: prompt, height, width, guidance_scale …"""
    inputs: Callable[[], Mapping[str, Any]] = dict
    """Further arguments that are made anew for each call: an image, a mask, a control image."""
    steps: int
    """Denoising steps to ask for."""
    seed: int = 0
    scheduler: str | None = None
    """Name of a diffusers scheduler class, built from the model's own configuration. None: the
    model's own."""
    base: tuple[str, ...] = ()
    """Optimizations that are on in every case, the reference too."""
    step_wise: bool = False
    """Compare cases with the reference step by step, from where the reference stood in each: for
    samplers that make another image of mere rounding, and for video."""
    sensitive_to: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes of the call that must change the images, beside another seed and another prompt, by
    the name of the input: ``{"guidance": {"guidance_scale": 1.0}}``."""

    def __post_init__(self) -> None:
        for name in self._wrong():
            raise ValueError(messages.wrong(self.name, name, getattr(self, name)))
        counts = {"steps": self.steps, **{n: self.call[n] for n in COUNTS if n in self.call}}
        for name, count in counts.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(messages.not_positive(self.name, name, count))
        for name in SET_BY_THE_LIBRARY:
            if name in self.call:
                raise ValueError(messages.not_of_the_call(self.name, name))

    def _wrong(self) -> Iterator[str]:
        """Fields that hold something of another kind."""
        yield from (n for n in TYPES if not isinstance(getattr(self, n), TYPES[n]))
        if not is_file_name(self.name):
            yield "name"
        if not self.model:
            yield "model"
        if not callable(self.inputs):
            yield "inputs"
        yield from (name for name in ("call", "base") if not _are_names(getattr(self, name)))
        changes = self.sensitive_to.values()
        if not all(isinstance(change, Mapping) and _are_names(change) for change in changes):
            yield "sensitive_to"
        if not _are_names(self.sensitive_to):
            yield "sensitive_to"

    def __hash__(self) -> int:
        return hash((self.name, self.model, self.steps, self.seed, self.scheduler, self.base))

    @property
    def prompts(self) -> list[str]:
        """The prompts of one call; none where it gives embeddings, or anything but text."""
        prompt = self.call.get("prompt")
        prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
        return prompts if all(isinstance(one, str) for one in prompts) else []

    @property
    def num_images(self) -> int:
        """Images, or videos, that one call makes."""
        each = self.call.get("num_images_per_prompt", self.call.get("num_videos_per_prompt", 1))
        labels: Any = self.call.get("class_labels")
        batch = len(labels) if hasattr(labels, "__len__") else self.call.get("batch_size", 1)
        return (len(self.prompts) or batch) * int(each)

    @property
    def size(self) -> str:
        """``512x512``, or ``832x480, 33 frames``; width first. Empty where an input decides it."""
        width, height = self.call.get("width"), self.call.get("height")
        size = f"{width}x{height}" if width and height else ""
        frames = self.call.get("num_frames", 1)
        return size + (f", {frames} frames" if frames > 1 else "")

    @property
    def scale(self) -> Scale:
        """Which models can run it."""
        return "small" if self.model in SMALL_MODELS else "full"

    @property
    def probes(self) -> dict[str, Workload]:
        """By input, the same workload with another value of it, which must change the images; the
        prompt is the last.
        """
        changed = {"seed": self.changed(seed=self.seed + 1)}
        changed |= {name: self._given(change) for name, change in self.sensitive_to.items()}
        if self.prompts:
            # In front: what is too long is cut off at its end.
            changed.setdefault("prompt", self.changed(prompt=f"at night, {self.prompts[0]}"))
        return changed

    def _given(self, change: Mapping[str, Any]) -> Workload:
        """As `changed`, with these arguments also where `inputs` makes others of their names."""
        changed = self.changed(**change)
        if self.inputs is dict:
            return changed

        def others() -> dict[str, Any]:
            made = self.inputs().items()
            return {name: value for name, value in made if name not in change}

        return replace(changed, inputs=others)

    def generates_as(self, other: Workload) -> bool:
        """Whether one pipeline makes the same of both: what it is built with is not looked at."""
        pairs = ((w.call, w.seed, w.steps) for w in (self, other))
        return _is_same(*pairs)

    def changed(self, **changes: Any) -> Workload:
        """The same with other fields, or other arguments of the call.

        A prompt takes the place of every prompt in a batch, and so does one for another text
        encoder (``prompt_2``).
        """
        own = {name: value for name, value in changes.items() if name in FIELDS}
        arguments = {name: value for name, value in changes.items() if name not in own}
        if self.prompts and not isinstance(self.call["prompt"], str):
            arguments |= {
                name: [prompt] * len(self.prompts)
                for name, prompt in arguments.items()
                if name.startswith("prompt") and isinstance(prompt, str)
            }
        return replace(self, **own, call={**self.call, **arguments})

    def as_json(self) -> dict[str, Any]:
        """As runs and baselines say what they generated: the call's arguments beside the rest.

        The model is left out, of which a case's key says which it was.
        """
        prompts = self.prompts
        call = {name: _plain(value) for name, value in self.call.items()}
        if prompts:
            call["prompt"] = prompts[0] if len(set(prompts)) == 1 else prompts
        inputs = {name: _plain(value) for name, value in self.inputs().items()}
        return {
            "name": self.name,
            **call,
            **inputs,
            "num_images": self.num_images,
            "steps": self.steps,
            "seed": self.seed,
            "scheduler": self.scheduler,
            "base": list(self.base),
        }


def _are_names(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_same(one: Any, other: Any) -> bool:
    """Of arguments: the same text or number, or the same object; two tensors may look alike."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[n], other[n]) for n in one)
    # A tensor compared with a number gives a tensor, which has no truth value.
    are_plain = all(isinstance(value, str | int | float) for value in (one, other))
    return one is other or (are_plain and bool(one == other))


def _plain(value: Any) -> Any:
    """An argument as JSON says it: of an image, a tensor or an array what it is and how large."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    # Not its bytes: two hosts may decode or compute them otherwise.
    size = getattr(value, "shape", None) or getattr(value, "size", None)
    of = f" of {'x'.join(map(str, size))}" if isinstance(size, tuple) else ""
    return f"{type(value).__name__}{of}"

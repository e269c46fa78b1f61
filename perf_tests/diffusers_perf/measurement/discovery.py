"""Finds out what a pipeline is made of, from nothing but its components and its calls.

A denoiser is a module of which more calls are made when more steps are asked for. A step ends when
the scheduler's `step` returns.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils._pytree import tree_map_only

from diffusers_perf.measurement.flag import flag
from diffusers_perf.messages import measurement as messages

TRIED = (4, 6, 12, 24)
"""Steps asked for, until two of them differ in what is called: caches and guidance that ends early
leave few calls of some modules in the first steps."""


class NotDiscovered(Exception):
    """A pipeline whose parts cannot be found; one sentence says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call of a module, kept on the host."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dtype: torch.dtype
    """Of the module that was called."""

    @classmethod
    def of(cls, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Copies of the arguments."""
        kept = tree_map_only(
            torch.Tensor, lambda t: t.detach().to("cpu", copy=True), (args, kwargs)
        )
        return cls(args=kept[0], kwargs=kept[1], dtype=dtype_of(module))

    def on(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as a module in this dtype on this device would be given them."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype if tensor.dtype == self.dtype else tensor.dtype)

        args, kwargs = tree_map_only(torch.Tensor, moved, (self.args, dict(self.kwargs)))
        return args, kwargs


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A module that runs in every step."""

    name: str
    """Of the component: ``unet``, ``transformer``, ``controlnet``."""
    calls_per_step: Fraction
    """2 where guidance is a second call; less than 1 where experts share the steps."""
    call: Call
    """The first one of a generation."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What the workload's generations by a pipeline are made of."""

    denoisers: tuple[Denoiser, ...]
    """In the order of their first calls."""
    decodes: Mapping[str, Call]
    """By component, the first call of its `decode`: the latents in front."""
    turns_per_asked: Fraction
    """Turns of the denoising loop for each step that was asked for, at the least."""
    is_linear: bool
    """Whether each further step that is asked for is one more turn: not so with a strength below 1,
    and with schedulers that take two turns a step."""
    fewest: int
    """Steps to ask for to have one turn at least."""

    def asking_for(self, turns: int) -> int:
        """Steps to ask for to have at least so many turns of the loop."""
        return max(self.fewest, ceil(turns / self.turns_per_asked))


_KNOWN: WeakKeyDictionary[Any, Anatomy] = WeakKeyDictionary()


def know(pipeline: Any, anatomy: Anatomy) -> None:
    """Say what this pipeline is made of, to whatever asks `anatomy_of` it."""
    _KNOWN[pipeline] = anatomy


def is_known(pipeline: Any) -> bool:
    """Whether it was found out what the pipeline is made of."""
    return pipeline in _KNOWN


def anatomy_of(pipeline: Any) -> Anatomy:
    """What the pipeline is made of. `NotDiscovered` if nothing was found out about it."""
    try:
        return _KNOWN[pipeline]
    except KeyError:
        raise NotDiscovered(messages.not_discovered(type(pipeline).__name__)) from None


def modules(pipeline: Any) -> dict[str, Any]:
    """Every component that is an `nn.Module`, by its name. Libraries type them in part."""
    components: Mapping[str, Any] = pipeline.components
    return {n: m for n, m in components.items() if isinstance(m, torch.nn.Module)}


def denoisers(pipeline: Any) -> dict[str, Any]:
    """The modules that run in every step, as they are now, by name."""
    own = modules(pipeline)
    return {denoiser.name: own[denoiser.name] for denoiser in anatomy_of(pipeline).denoisers}


def decoders(pipeline: Any) -> dict[str, Any]:
    """The modules that can decode latents, by name."""
    return {n: m for n, m in modules(pipeline).items() if callable(getattr(m, "decode", None))}


def dtype_of(module: torch.nn.Module) -> torch.dtype:
    """What a module computes in."""
    own = getattr(module, "dtype", None)
    if isinstance(own, torch.dtype):
        return own
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


@contextmanager
def step_ends(pipeline: Any, act: Callable[[], None]) -> Iterator[None]:
    """Do this at the end of each turn of the denoising loop.

    Callbacks of diffusers are not reliable: PixArt swallows them and modular pipelines have none.
    A pipeline that steps without its scheduler calls its own `step_ended`.
    """
    if hasattr(pipeline, "step_ended"):
        with flag(pipeline, "step_ended", act):
            yield
        return

    def ending(step: Any) -> Callable[..., Any]:
        def ended(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            act()
            return result

        return ended

    with around_steps(pipeline, ending):
        yield


@contextmanager
def around_steps(pipeline: Any, around: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Have the scheduler's `step` called by what `around` makes of it."""
    scheduler: Any = getattr(pipeline, "scheduler", None)
    step = getattr(scheduler, "step", None)
    if step is None:
        raise NotDiscovered(messages.no_steps(type(pipeline).__name__))
    instead = around(step)
    # A pipeline asks for it, to see whether its scheduler takes a generator.
    instead.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
    own = "step" in vars(scheduler)
    scheduler.step = instead
    try:
        yield
    finally:
        if own:
            scheduler.step = step
        else:
            del scheduler.step


@contextmanager
def loop_begins(pipeline: Any, act: Callable[[], None]) -> Iterator[None]:
    """Do this once, before the first call of a denoiser.

    A pipeline that steps without its scheduler calls its own `loop_begins`.
    """
    if hasattr(pipeline, "loop_begins"):
        with flag(pipeline, "loop_begins", act):
            yield
        return
    begun = False

    def begin(*_: object) -> None:
        nonlocal begun
        if not begun:
            begun = True
            act()

    with ExitStack() as hooks:
        for module in denoisers(pipeline).values():
            hooks.callback(module.register_forward_pre_hook(begin).remove)
        yield


@contextmanager
def _calls(pipeline: Any, note: Callable[[str, torch.nn.Module, Any, Any], None]) -> Iterator[None]:
    """Note each call of a component, with its arguments, before it is made."""
    with ExitStack() as hooks:
        for name, module in modules(pipeline).items():

            def before(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
                note(name, module, args, kwargs)

            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


@dataclass
class _Calls:
    """What was called in a generation of some steps."""

    asked: int
    turns: int
    calls: Counter[str]
    first: dict[str, Call]
    decodes: dict[str, Call]


def _run(pipeline: Any, generate: Callable[[int], object], asked: int) -> _Calls:
    run = _Calls(asked=asked, turns=0, calls=Counter(), first={}, decodes={})

    def ended() -> None:
        run.turns += 1

    def note(name: str, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        run.calls[name] += 1
        if name not in run.first:
            run.first[name] = Call.of(module, args, kwargs)

    def decoding(name: str, module: Any, decode: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if name not in run.decodes:
                run.decodes[name] = Call.of(module, args, kwargs)
            return decode(*args, **kwargs)

        return noted

    with ExitStack() as watching:
        watching.enter_context(step_ends(pipeline, ended))
        watching.enter_context(_calls(pipeline, note))
        for name, module in decoders(pipeline).items():
            noted = decoding(name, module, module.decode)
            watching.enter_context(flag(module, "decode", noted))
        generate(asked)
    return run


def discover(pipeline: Any, generate: Callable[[int], object], *, strength: float = 1.0) -> Anatomy:
    """What a pipeline is made of, from short generations of a number of steps.

    `strength` is what the workload keeps of the steps that are asked for. `NotDiscovered` where no
    module is called more often in more steps, or the end of a step cannot be seen.
    """
    each = max(1, round(1 / strength)) if strength else 1
    few, *more = (steps * each for steps in TRIED)
    first = _run(pipeline, generate, few)
    for steps in more:
        last = _run(pipeline, generate, steps)
        grown = [name for name in last.first if last.calls[name] > first.calls[name]]
        if grown:
            break
    else:
        raise NotDiscovered(messages.no_denoiser(type(pipeline).__name__, few, last.asked))
    turns = last.turns - first.turns
    if turns < 1:
        raise NotDiscovered(messages.steps_unseen(type(pipeline).__name__))
    return Anatomy(
        denoisers=tuple(
            Denoiser(
                name=name,
                calls_per_step=Fraction(last.calls[name] - first.calls[name], turns),
                call=last.first[name],
            )
            for name in grown
        ),
        decodes=last.decodes,
        turns_per_asked=min(
            Fraction(1), *(Fraction(run.turns, run.asked) for run in (first, last))
        ),
        is_linear=turns == last.asked - first.asked,
        fewest=_fewest(pipeline, generate, each),
    )


def _fewest(pipeline: Any, generate: Callable[[int], object], least: int) -> int:
    """The fewest steps, from so many on, with which a generation has a turn of the loop."""
    for steps in range(least, 2 * least + 2):
        try:
            if _run(pipeline, generate, steps).turns:
                return steps
        except Exception:
            # Pipelines refuse too few steps in many ways; with the most it is the user's to see.
            if steps == 2 * least + 1:
                raise
    return 2 * least + 1

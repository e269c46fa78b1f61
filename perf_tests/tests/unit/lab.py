"""A made-up world in which a search tries stacks, and what each takes there."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from msgspec import structs

from diffusers_perf.catalog.declarations import Aim, Needs, Optimization, Slot, Tolerances
from diffusers_perf.records.measurement import Look, Measurement
from diffusers_perf.search.attempt import Ask, Stack, Tried
from diffusers_perf.search.search import Search

World = Callable[[Stack], "Took | str"]


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a made-up stack takes, in seconds and bytes."""

    host: float
    busy: float
    memory: int = 0
    on_gpu: bool = True

    @property
    def latency(self) -> float:
        return max(self.host, self.busy)


@dataclass(kw_only=True)
class Lab:
    """Tries stacks in a made-up world."""

    world: World
    noise: float = 0.0
    asked: list[Ask] = field(default_factory=list)

    def __call__(self, ask: Ask) -> Tried:
        self.asked.append(ask)
        took = self.world(ask.stack)
        if isinstance(took, str):
            return Tried(measured=None, refused=took)
        if took.latency > ask.limit_s:
            return Tried(measured=None, too_slow_s=took.latency)
        return Tried(measured=self.measured(ask, took))

    def measured(self, ask: Ask, took: Took) -> Measurement:
        draw = random.Random(ask.key)
        rounds = [took.latency * (1 + draw.gauss(0, self.noise)) for _ in range(3)]
        if not took.on_gpu:
            return seen(rounds)
        busy = took.busy * (1 + draw.gauss(0, self.noise / 10))
        return structs.replace(seen(rounds), gpu_busy_s=busy, peak_memory_bytes=took.memory)


def seen(rounds: list[float]) -> Measurement:
    return Measurement(
        case="",
        workload="fake4",
        steps=4,
        num_images=1,
        model="fake",
        weights="fake",
        parameters=1,
        rounds_s=tuple(rounds),
        look=Look(finite=True, mean=0.5, std=0.2),
        repeat_psnr_db=120.0,
    )


def made(
    name: str,
    *decides: Slot,
    needs: str | None = None,
    compiles: bool = False,
    tolerance: Tolerances | None = None,
    aim: Aim = "speed",
) -> Optimization:
    return Optimization(
        name=name,
        apply=lambda build: None,
        tolerance=tolerance or Tolerances(),
        needs=Needs(optimization=needs),
        applied=lambda pipeline: None,
        decides=decides,
        compiles=compiles,
        aim=aim,
    )


def search(
    candidates: list[Optimization], world: World, *, noise: float = 0.0, memory: float | None = None
) -> tuple[Search, Lab]:
    lab = Lab(world=world, noise=noise)
    found = Search(candidates=candidates, attempt=lab, tell=lambda text: None, memory_bytes=memory)
    found.run()
    return found, lab


def factors(
    of: Mapping[str, tuple[float, float]], *, host: float = 1.6, busy: float = 0.6
) -> World:
    """Each optimization multiplies what host and GPU take by its two factors."""

    def world(stack: Stack) -> Took:
        return Took(
            host=host * prod(of[name][0] for name in stack),
            busy=busy * prod(of[name][1] for name in stack),
        )

    return world

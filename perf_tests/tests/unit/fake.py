"""A plugin that puts a fake pipeline and a small catalogue under the real suite.

Everything from the command line to the verdict is the real thing; only the images are made in
a millisecond, on a clock that says it took a fifth of a second. Each case of the catalogue
misbehaves in the way its name says.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog import discovery
from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Optimization, Tolerance, Tolerances
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import clock, interference
from diffusers_perf.measurement.applied import NotApplied

STEP_S = 0.05

WORKLOAD = Workload(
    name="fake4",
    model="embedded",
    call={"prompt": ["a fake"] * 2, "height": 64, "width": 64, "guidance_scale": 7.5},
    scheduler="DDIMScheduler",
    steps=4,
)
CLOSE = Tolerances(embedded=Tolerance(psnr_db=30, ssim=0.9))


class Clock:
    """A clock on which a fake takes its time without anybody waiting for it.

    Nothing else moves it, so that it says the same on a busy machine.
    """

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds


CLOCK = Clock()


def on_fake_clock(patch: pytest.MonkeyPatch) -> None:
    """Time rounds by this clock, and find no CPU that they waited for."""
    patch.setattr(clock, "perf_counter", CLOCK)
    patch.setattr(interference, "_cpu_waits_s", dict)


class FakeDenoiser(torch.nn.Linear):
    """Called in each step, and asks nothing of a device."""

    dtype = torch.float32

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return sample


class FakePipeline:
    """As much of a diffusers pipeline as the harness touches."""

    _execution_device = torch.device("cpu")

    def __init__(self) -> None:
        self.unet = FakeDenoiser(2, 2)
        self.vae = torch.nn.Linear(2, 2)
        self.vae.decode = lambda sample: (sample,)  # type: ignore[assignment]
        self.text_encoder = torch.nn.Linear(2, 2)
        self.scheduler = SimpleNamespace(step=lambda: None)
        self.components = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        self.changes: list[Callable[[Any], Any]] = []
        self.calls = 0

    def set_progress_bar_config(self, **_: Any) -> None: ...

    def __call__(self, prompt: list[str], **options: Any) -> Any:
        self.calls += 1
        shade = len(prompt[0]) / 1000
        for _ in range(options["num_inference_steps"]):
            CLOCK.sleep(STEP_S)
            self.unet(torch.empty(0))
            self.scheduler.step()
        shape = (len(prompt), options["height"] // 8, options["width"] // 8, 3)
        noise = torch.randn(shape, generator=options["generator"]).numpy()
        images = np.repeat(np.repeat(0.5 + shade + 0.1 * noise, 8, axis=1), 8, axis=2)
        for change in self.changes:
            images = change(images)
        (decoded,) = self.vae.decode(torch.as_tensor(images.copy()))  # type: ignore[operator]
        return SimpleNamespace(images=decoded.numpy().clip(0, 1))


class FakeSource:
    name = weights = "fake"
    kind = "embedded"
    family = "FakePipeline"
    scale = "small"
    variants: frozenset[str] = frozenset()

    def load(self, **_: Any) -> FakePipeline:
        return FakePipeline()


class FakeSources:
    """One fake source for all workloads."""

    def __init__(self) -> None:
        self._source: Any = FakeSource()

    def import_builder(self, workload: Workload) -> None:
        pass

    def runs(self, workload: Workload) -> bool:
        return True

    def of(self, workload: Workload) -> Any:
        return self._source

    def scale_of(self, workloads: object) -> Any:
        return "small"


def _makes(change: Callable[[Any], Any]) -> Callable[[Build], None]:
    def apply(build: Build) -> None:
        """Changes the images."""
        build.then(lambda pipeline: pipeline.changes.append(change))

    return apply


def _nan(images: Any) -> Any:
    images = images.copy()
    images[-1, 0, 0, 0] = np.nan
    return images


def _infinity(images: Any) -> Any:
    images = images.copy()
    images[0, 0, 0, 0] = np.inf  # which the clamping makes an honest white
    return images


def _raise(error: BaseException) -> Any:
    def change(images: Any) -> Any:
        raise error

    return change


def _moody(images: Any) -> Any:
    """Three more times as long while FAKE_MOOD is set."""
    if "FAKE_MOOD" in os.environ:
        CLOCK.sleep(3 * STEP_S * WORKLOAD.steps)
    return images


def _forgetful(images: Any, _calls: list[int] = []) -> Any:  # noqa: B006  state that leaks
    _calls.append(1)
    return images + 0.01 * len(_calls)


def _stale(images: Any, _first: list[Any] = []) -> Any:  # noqa: B006  a buffer that is kept
    _first.append(images)
    return _first[0]


def _asks_more(images: Any) -> Any:
    """One more operator on the device that stands for a GPU."""
    torch.ones(2, device="meta")
    return images


def _fails(pipeline: Any) -> None:
    raise NotApplied("the flag fake reads False, not True")


CHANGES: Mapping[str, Callable[[Any], Any]] = {
    "fine": lambda images: images,
    "black": lambda images: images * 0,
    "grey": lambda images: images * 0 + 0.5,
    "not_a_number": _nan,
    "infinite": _infinity,
    "broken": _raise(RuntimeError("the kernel is not there")),
    "leaving": lambda images: sys.exit("bad config"),
    "elsewhere": lambda images: images[:, ::-1],
    "forgetful": _forgetful,
    "stale": _stale,
    "moody": _moody,
    "asks_more": _asks_more,
    "unapplied": lambda images: images,
    "unsupported": lambda images: images,
    "too_large": _raise(torch.OutOfMemoryError("Tried to allocate 80.00 GiB. More. And more.")),
    "no_memory": _raise(MemoryError()),
    "no_room": _raise(RuntimeError("DefaultCPUAllocator: not enough memory")),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fakes", default="fine", help="cases to declare, joined by commas")
    parser.addoption("--past-guide", default="", help="of them, the one in that suite")


def pytest_configure(config: pytest.Config) -> None:
    # The suite and pytest collect garbage often: let them pass by the millions of objects that the
    # libraries hold.
    gc.freeze()
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(models, "open_source", lambda model: FakeSource())
    on_fake_clock(patch)
    catalog = Catalog()
    names = config.getoption("--fakes").split(",")
    for name in names:
        catalog.add(_optimization(name))
    past = config.getoption("--past-guide")
    catalog.add_cases(WORKLOAD, *(name for name in names if name != past), suite="guide")
    if past:
        catalog.add_cases(WORKLOAD, past, suite="lossless")

    def declared_in(*names: str) -> Catalog:
        for name in names:
            discovery.load(name)
        return catalog

    patch.setattr(discovery, "declared_in", declared_in)


def _optimization(name: str) -> Optimization:
    return Optimization(
        name=name,
        apply=_makes(CHANGES[name]),
        tolerance=CLOSE,
        applied=_fails if name == "unapplied" else lambda pipeline: None,
        needs=Needs(package="no_such_package") if name == "unsupported" else Needs(),
    )

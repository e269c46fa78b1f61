"""Command-line options and ini settings, and the one sentence where another plugin has them too."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentTypeError
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from diffusers_perf.measurement.visibility import gpus_hidden
from diffusers_perf.messages import plugin as messages
from diffusers_perf.messages.common import positive_integer

ROUNDS = 5
QUICK_ROUNDS = 2
DIGITS_MOST = 9
MARK = "diffusers_perf"
"""On the library's test, and on no other."""
OPTIONS = ("--device", "--model", "--rounds", "--baselines", "--quick", "--shard")


def pytest_addoption(parser: pytest.Parser) -> None:
    try:
        _add(parser)
    except (ArgumentError, ValueError) as error:
        raise _clash(error) from None


def _add(parser: pytest.Parser) -> None:
    group = parser.getgroup("diffusers-perf", "performance of diffusion inference")
    group.addoption(
        "--device",
        choices=("cuda", "cpu"),
        help="where to run; default: cuda where there is a GPU. Name it in CI, so that a broken "
        "runner cannot fall back to the CPU and be green",
    )
    group.addoption(
        "--model",
        metavar="MODEL",
        help="run on this model the workloads whose own model has its pipeline class and its "
        "size, small (made for images below 256x256) or full, and no others (not those of "
        "flux1-dev on flux1-schnell, or the other way round); their height and width stay as "
        "declared: sd15, sdxl, flux1-dev or flux1-schnell (full size on seeded weights), embedded "
        "(a small trained UNet), embedded-flux (a small trained transformer), small (embedded's "
        "shape with seeded weights), a folder in diffusers' format, or a Hub id; default: each "
        "workload on its own model, but on cuda none of the small models, and on a CPU of the "
        "library's models both embedded ones",
    )
    group.addoption(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"timed rounds per case (default: {ROUNDS}; with --quick {QUICK_ROUNDS})",
    )
    group.addoption(
        "--baselines",
        metavar="FOLDER",
        help="the accepted baselines (default: the ini option perf_baselines, or baselines)",
    )
    group.addoption(
        "--quick",
        action="store_true",
        help="one short warm-up, few rounds, no roofline (lower bound on the time), no image "
        "that is only to be looked at, the reference not repeated: for one of the processes that "
        "`diffusers-perf ab` compares",
    )
    group.addoption(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run the I-th of N nearly equal parts of the cases, each on a GPU of its own; "
        "`diffusers-perf merge` joins the runs. I/N:FIRST-LAST names the part's cases by their "
        "places, as `diffusers-perf fleet` does",
    )

    parser.addini("perf_baselines", "folder of the accepted baselines", default="baselines")
    parser.addini(
        "perf_declarations",
        "modules, with their submodules, whose declarations every test file knows; their cases are "
        "run by a test file that declares none",
        type="args",
    )
    parser.addini(
        "perf_suites",
        "suites that run where -m selects none (default: all)",
        type="args",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", messages.mark(MARK))
    if config.args_source is config.ArgsSource.INVOCATION_DIR and "[" in config.args[0]:
        # Given no path, pytest collects this folder by its whole path, and refuses the bracket as
        # one of a test's parameters.
        config.args = ["."]


def _clash(error: Exception) -> pytest.UsageError:
    """A usage error for one of our option names; any other error as it is."""
    name = next((n for n in OPTIONS if re.search(rf"{n}(?![\w-])", str(error))), None)
    if name is None:
        raise error
    return pytest.UsageError(messages.foreign_option(name))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Hide the GPUs from a run on the CPU, and say in one sentence that a conftest.py defines one
    of our options.
    """
    if early_config.known_args_namespace.device == "cpu":
        # Now, since a conftest.py may import what opens a CUDA context.
        hidden = ExitStack()
        hidden.enter_context(gpus_hidden())
        early_config.add_cleanup(hidden.close)
    try:
        return (yield)
    except (ArgumentError, ValueError) as error:
        raise _clash(error) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > DIGITS_MOST or int(text) < 1:
        raise ArgumentTypeError(positive_integer(text[:20]))
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of the cases `--shard` asks for."""

    index: int
    """From 1."""
    count: int
    places: tuple[int, int] | None
    """Of its first and its last case, from 1; None for parts that are nearly equal."""

    def __str__(self) -> str:
        of = f"{self.index}/{self.count}"
        return f"{of}:{self.places[0]}-{self.places[1]}" if self.places else of

    def of(self, ids: list[str]) -> list[str]:
        """This part of the cases. Neighbours stay together, so that few measure one reference.

        `pytest.UsageError` where there are too few.
        """
        if self.count > len(ids) or (self.places and self.places[1] > len(ids)):
            raise pytest.UsageError(messages.too_many_shards(str(self), len(ids)))
        if self.places:
            return ids[self.places[0] - 1 : self.places[1]]
        first, last = ((len(ids) * part) // self.count for part in (self.index - 1, self.index))
        return ids[first:last]


NUMBER = rf"([0-9]{{1,{DIGITS_MOST}}})"
SHARD = re.compile(rf"{NUMBER}/{NUMBER}(?::{NUMBER}-{NUMBER})?")


def _shard(text: str) -> Part:
    found = SHARD.fullmatch(text)
    if not found:
        raise ArgumentTypeError(messages.shard(text[:20]))
    index, count, *places = (int(number) for number in found.groups(default="0"))
    first, last = places
    if not 1 <= index <= count:
        raise ArgumentTypeError(messages.shard_out_of_range(text))
    if found[3] and not 1 <= first <= last:
        raise ArgumentTypeError(messages.shard_without_cases(text))
    return Part(index=index, count=count, places=(first, last) if found[3] else None)

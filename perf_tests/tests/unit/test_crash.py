"""Whose error it is that ends a case: a pipeline's is a sentence, and ours a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.special
import torch

from diffusers_perf.measurement import growth
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.plugin.crash import crash, in_a_line
from diffusers_perf.records import pixels
from perf_tests.tests.unit import fake
from perf_tests.tests.unit.fake import WORKLOAD, FakePipeline
from perf_tests.tests.unit.main_job import run


def refuses(images: Any) -> Any:
    raise ValueError("`height` has to be\n    divisible by 8")


def breaks_in_torch(images: Any) -> Any:
    return torch.nn.Linear(2, 2)(torch.ones(3))


def generates(change: Callable[[Any], Any]) -> Callable[[], object]:
    pipeline = FakePipeline()
    pipeline.changes.append(change)
    return Generation(pipeline, WORKLOAD).images


def caught(act: Callable[[], object]) -> Exception:
    with pytest.raises((ValueError, RuntimeError)) as error:
        act()
    return error.value


@pytest.mark.parametrize("change", [refuses, breaks_in_torch])
def test_error_of_a_pipeline_is_one_line_with_its_place(change: Callable[[Any], Any]) -> None:
    said = crash(caught(generates(change)))
    line = change.__code__.co_firstlineno + 1
    assert said.endswith(f" ({__file__}, line {line})")
    assert "\n" not in said
    if change is refuses:
        assert said.startswith("ValueError: `height` has to be divisible by 8 (")


def test_line_of_an_error_is_its_first_one_with_its_place() -> None:
    said = in_a_line(caught(generates(refuses)))
    line = refuses.__code__.co_firstlineno + 1
    assert said == f"ValueError: `height` has to be ({__file__}, line {line})"
    ours = np.zeros((1, 2, 2, 3), np.float32)
    refused = caught(lambda: pixels.distance(ours, ours[:0]))
    assert in_a_line(refused) == str(refused)


IMAGES = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
TINY = partial(np.random.default_rng(0).random, (2, 4, 4, 3), np.float32)
"""Others each time: what is identical need not be compared."""
PIL_IMAGES = [PIL.Image.new("RGB", (width, 9)) for width in (8, 9)]
GIVEN: dict[str, tuple[Any, str]] = {
    "fewer": (IMAGES[:1], "images of shape (1, 64, 64, 3), and * have shape (2, 64, 64, 3)"),
    "none": (IMAGES[:0], "images of shape (0, 64, 64, 3); at least one image *"),
    "other size": (IMAGES[:, ::2], "images of shape (2, 32, 64, 3), and * (2, 64, 64, 3)"),
    "tiny": (TINY, "images of shape (2, 4, 4, 3); * of at least 7x7 pixels is needed"),
    "no width": (IMAGES[:, :, :0], "* with an array of shape (2, 64, 0, 3), not images of shape *"),
    "ragged": ([*IMAGES, IMAGES[0, 1:]], "* with arrays of shape (64, 64, 3) and (63, 64, 3), *"),
    "pil": (PIL_IMAGES, "* with arrays of shape (9, 8, 3) and (9, 9, 3), not images of *"),
    "grey": (IMAGES[0, ..., 0], "* with an array of shape (64, 64), not images of shape *"),
    "integers": (IMAGES.astype(int), "* shape (2, 64, 64, 3), not * in floating point or uint8; *"),
    "latents": (torch.ones(2, 4, 8, 8), "* with an array of shape (2, 8, 8, 4), not images of *"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_pipeline_that_gives_other_images_is_said_in_a_sentence(
    name: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, (given, said) = FakePipeline.__call__, GIVEN[name]

    def gives(self: FakePipeline, prompt: list[str], **options: Any) -> Any:
        output = call(self, prompt, **options)
        if self.changes:
            output.images = given() if given is TINY else given
        return output

    monkeypatch.setattr(FakePipeline, "__call__", gives)
    result = run(pytester)
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines([f"error: fake4-fine: the pipeline gave {said}*"])
    result.stdout.no_fnmatch_line("*Error*")


CALLS: dict[str, tuple[str, str]] = {
    "steps": ("height, width, guidance_scale", "takes no argument 'num_inference_steps', *"),
    "missing": ("motif, **_", "needs an argument 'motif', *"),
}


@pytest.mark.parametrize("name", CALLS)
def test_pipeline_that_does_not_take_the_workloads_arguments_is_a_sentence(
    name: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, said = CALLS[name]
    call = eval(f"lambda self, prompt, *, {arguments}: None")
    # As pipelines of diffusers are: what torch wraps is called from torch.
    monkeypatch.setattr(FakePipeline, "__call__", torch.no_grad()(call))
    result = run(pytester)
    result.stdout.fnmatch_lines([f"error: fake4-reference: FakePipeline {said}"])
    result.stdout.no_fnmatch_line("*TypeError*")


def test_pipeline_that_exits_ends_its_case_alone(pytester: pytest.Pytester) -> None:
    result = run(pytester, fakes="leaving,fine")
    assert result.parseoutcomes() | {"passed": 2, "failed": 1} == result.parseoutcomes()
    said = f"error: fake4-leaving: SystemExit: bad config ({fake.__file__}, line "
    assert said in result.stdout.str()
    for trace in ("_finalizers", "Traceback"):
        result.stdout.no_fnmatch_line(f"*{trace}*")


def test_reference_that_exits_ends_each_case_with_a_sentence(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePipeline, "__call__", lambda *_, **__: sys.exit("bad config"))
    result = run(pytester, fakes="moody,fine")
    assert "passed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["error: fake4-reference: SystemExit: bad config (*"])
    for trace in ("_finalizers", "Traceback"):
        result.stdout.no_fnmatch_line(f"*{trace}*")


SHAPES = [((1, 8, 8, 3), (1, 9, 9, 3)), ((1, 2, 2, 3), (1, 2, 2, 3))]
"""Of images: another's, which this library refuses, and too small a one, which another does."""


@pytest.mark.parametrize("shapes", SHAPES)
def test_bug_of_this_library_is_none_of_a_pipeline(shapes: Any) -> None:
    one, other = (np.full(shape, n, np.float32) for n, shape in enumerate(shapes))
    assert crash(caught(lambda: pixels.distance(one, other))) == ""


@pytest.mark.parametrize(
    "text", ["numpy.stack([])", "PIL.Image.new('RGB', (-1, 1))", "scipy.special.roots_legendre(0)"]
)
def test_bug_that_a_package_raises_which_measuring_calls_is_this_librarys(text: str) -> None:
    names = {"numpy": np, "PIL": PIL, "scipy": scipy}
    act = partial(eval, compile(text, growth.__file__, "eval"), names)
    assert crash(caught(act)) == ""
    # A pipeline may call it, too.
    assert crash(caught(generates(lambda images: eval(text, names))))


def test_bug_of_this_library_within_a_pipelines_call_is_its_own() -> None:
    """As of a technique, which a pipeline calls."""
    small = np.zeros((1, 2, 2, 3), np.float32)
    assert crash(caught(generates(lambda images: pixels.distance(small, images)))) == ""

"""Which line an error is put down to."""

from __future__ import annotations

import json

import pytest
import torch

from diffusers_perf.measurement import structure
from diffusers_perf.measurement.dataless import NotCountable
from diffusers_perf.measurement.raising import at_line, raised
from perf_tests.tests.unit.fake import WORKLOAD


def test_line_is_the_innermost_that_is_not_torchs() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.nn.Linear(2, 2)(torch.ones(3))
    line = error.traceback[0].lineno + 1
    assert raised(error.value).startswith("RuntimeError: ")
    assert raised(error.value).endswith(f" ({__file__}, line {line})")


def test_line_of_pythons_library_is_not_named() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        json.loads("{")
    assert raised(error.value).endswith(f" ({__file__}, line {error.traceback[0].lineno + 1})")


def test_line_of_this_library_is_not_named() -> None:
    with torch.autocast("cpu"), pytest.raises(NotCountable) as error:
        structure.observe(None, WORKLOAD)
    caught = error.value.with_traceback(error.tb.tb_next)
    assert at_line(caught) == "torch.autocast ignores tensors without data"

"""The table of the kernels that a generation ran on a GPU."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

from diffusers_perf.measurement.trace import read
from diffusers_perf.messages.measurement import NO_EVENTS
from perf_tests.training import kernels
from perf_tests.training.kernels import HEAD, of_trace, table

RECORDED = Path(__file__).parent / "recorded" / "h100-fp16-2steps.json.gz"


def test_longest_kernels_come_first_and_the_rest_adds_up_to_all() -> None:
    trace = read(json.loads(gzip.decompress(RECORDED.read_bytes()))["traceEvents"])
    head, *rows = table(of_trace(trace), rows=3)
    assert head == HEAD
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    calls, times = ([float(row[column].split()[0]) for row in cells] for column in (2, 3))
    assert cells[-1][0] == "all"
    assert times[:3] == sorted(times[:3], reverse=True)
    assert sum(calls[:-1]) == calls[-1] == len(trace.on_gpu)
    assert abs(sum(times[:-1]) - times[-1]) < 0.3
    assert all(len(row) == 5 for row in cells)


def test_nothing_recorded_is_a_sentence() -> None:
    assert list(table([], rows=3)) == [NO_EVENTS]


@pytest.mark.parametrize(
    ("model", "workload", "stack", "said"),
    [
        ("sd15", "ddim5", "fp16", "no workload is called 'ddim5' (did you mean ddim50"),
        ("sd15", "ddim50", "fp61", "ddim50: no optimization is called 'fp61' (did you mean fp16"),
        ("sd16", "ddim50", "fp16", "model sd16: no such folder"),
    ],
)
def test_unknown_name_is_one_sentence(
    model: str,
    workload: str,
    stack: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["kernels", model, workload, stack])
    assert kernels.main() == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")

"""The table of the kernels that a generation ran on a GPU."""

import gzip
import json
from pathlib import Path

from diffusers_perf.measurement.trace import read
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

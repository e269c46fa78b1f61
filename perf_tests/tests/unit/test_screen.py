"""The closing table: what it keeps in a narrow window, and how it is coloured."""

import pytest
from msgspec import structs

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.status import Status
from diffusers_perf.plugin.screen import HEAD, Line, ShownCase, notes, table
from diffusers_perf.records.measurement import Interference
from perf_tests.cases import workloads
from perf_tests.tests.unit.catalogs import ours
from perf_tests.tests.unit.factories import FP16

NAME = "distilled_unet+tiny_vae (to fp16+naive_attention)"
ROW = (
    NAME,
    "2.497 s",
    "0.91x",
    "0.687 s",
    "1.35x",
    "2,716 MiB",
    "1.6",
    "1.66x",
    "host, GPU idle 72%, 14.9x roofline",
    "84.2 s, partly warm",
    "58.8 dB, 1.000",
    "worse image",
)


@pytest.mark.parametrize("width", [240, 120, 100, 80, 60, 40, 30])
def test_lines_fit_the_window_and_end_with_their_verdict(width: int) -> None:
    lines = table(HEAD, [ROW, ("reference", *ROW[1:])], width=width)
    assert max(len(line) for line in lines) <= width
    assert all(line.endswith("worse image") for line in lines[2:])
    assert lines[2].startswith("distilled")


def test_wide_window_shows_everything() -> None:
    (line,) = table(HEAD, [ROW], width=240)[2:]
    assert all(cell in line for cell in ROW)


def test_eighty_columns_keep_the_speedup_and_cut_the_name() -> None:
    (line,) = table(HEAD, [ROW], width=60)[2:]
    assert "1.35x" in line
    assert "…" in line


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [
        (Status.SAME, "green"),
        (Status.NEW, None),
        (None, None),
        (Status.INVALID, "yellow"),
        (Status.BLACK, "red"),
    ],
)
def test_colours(verdict: Status | None, colour: str | None) -> None:
    assert Line(text=f"fp16  {verdict or ''}", verdict=verdict).colour == (
        {colour: True} if colour else {}
    )


@pytest.mark.parametrize(
    ("loops", "shown"),
    [
        ((), []),
        ((0.010, 0.0112, 0.0112), []),
        ((0.010, 0.010, 0.0233), []),
        (
            (0.0093, 0.0233, 0.012),
            [
                "CPU speed varied 2.5x during the run (calibration loop 9.3 to 23.3 ms); "
                "host-bound latencies may vary as much"
            ],
        ),
    ],
)
def test_varying_core_speed_is_reported_once(loops: tuple[float, ...], shown: list[str]) -> None:
    measured = structs.replace(FP16, interference=Interference(cpu_loops_s=loops))
    case = ours().case(workloads.DDIM50, REFERENCE)
    rows = [ShownCase(case=case, measured=measured, reference=None, status=Status.SAME)] * 2
    assert notes(rows) == shown


WAITED = "the host waited for a CPU for 34% of the rounds"


def test_interference_is_reported_whatever_the_verdicts() -> None:
    quiet, busy = (
        ShownCase(
            case=ours().case(workloads.DDIM50, name),
            measured=structs.replace(FP16, interference=Interference(host=reasons)),
            reference=None,
            status=Status.SAME,
        )
        for name, reasons in ((REFERENCE, ()), ("fp16", (WAITED,)))
    )
    assert notes([quiet]) == []
    assert notes([quiet, busy, busy]) == [
        f"interference in 2 of 3 cases; rerun on a quieter machine (first: ddim50-fp16: {WAITED})"
    ]

"""The closing table: what it keeps in a narrow window, and how it is coloured."""

import pytest

from perf_tests.harness.screen import HEAD, Line, table

NAME = "distilled_unet+tiny_vae (to fp16+naive_attention)"
ROW = (
    NAME,
    "2.497 s",
    "1.6",
    "0.91x",
    "0.687 s",
    "1.35x",
    "1.66x",
    "2,716 MiB",
    "host, GPU idle 72%, 14.9x floor",
    "84.2 s, partly warm",
    "58.8 dB, 1.000",
    "worse picture",
)


@pytest.mark.parametrize("width", [240, 120, 100, 80, 60, 40, 30])
def test_no_line_is_wider_than_the_window_and_each_ends_with_its_verdict(width: int) -> None:
    lines = table(HEAD, [ROW, ("reference", *ROW[1:])], width=width)
    assert max(len(line) for line in lines) <= width
    assert all(line.endswith("worse picture") for line in lines[2:])
    assert lines[2].startswith("distilled")


def test_a_wide_window_shows_everything() -> None:
    (line,) = table(HEAD, [ROW], width=240)[2:]
    assert all(cell in line for cell in ROW)


def test_in_eighty_columns_the_speedup_is_kept_and_the_name_is_cut() -> None:
    (line,) = table(HEAD, [ROW], width=60)[2:]
    assert "1.35x" in line
    assert "…" in line


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [("same", "green"), ("new", None), ("", None), ("invalid", "yellow"), ("black", "red")],
)
def test_colours(verdict: str, colour: str | None) -> None:
    assert Line(text=f"fp16  {verdict}", verdict=verdict).colour == (
        {colour: True} if colour else {}
    )

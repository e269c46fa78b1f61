"""The history's page in a real browser."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.history import store
from perf_tests.tests.unit.recorded import keep, machine, measured, parsed, process

if TYPE_CHECKING:
    from perf_tests.tests.browser.conftest import Opened

START = dt.datetime(2026, 1, 1, 2, 17, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty nights with a step, a new torch, and a pull request whose name is markup."""
    folder = tmp_path_factory.mktemp("history")
    for number in range(60):
        content = process(f"night-{number}")
        keep(content, "ddim50-reference", "ddim50-fp16")
        content["datetime"] = (START + dt.timedelta(days=number)).isoformat()
        content["commit_info"] = {"id": f"{number:02d}" + "a" * 38}
        machine(content)["torch"] = "2.13.0" if number >= 50 else "<b>2.12.0</b>"
        if number >= 40:
            measured(content, "ddim50-fp16")["gpu_busy_s"] *= 1.05
        (run,) = parsed([content], "night")
        store.add(run, folder / "history", label="<i>pull</i>" if number == 30 else "main")
    out = folder / "history.html"
    options = ["--store", str(folder / "history"), "--html", str(out)]
    assert command.main(["history", "report", *options]) == 0
    return out


def test_changes_and_trends_fit_the_window(opened: Opened) -> None:
    page = opened.page
    assert page.locator("h1").inner_text().endswith("1 change in 59 runs")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        page.locator("#changes li li").inner_text().startswith("ddim50-fp16 (sd15) GPU busy: step")
    )
    assert page.locator("figure b, figure i").filter(has_text="2.12.0").count() == 0


def test_each_cohort_is_a_line(opened: Opened) -> None:
    chart = opened.page.locator(".line-chart", has_text="GPU busy").first
    assert chart.locator("path.line").count() == 2
    assert chart.locator("path.cohort").count() == 1
    assert chart.locator("path.mark-line.bad").count() == 1
    assert "torch 2.13.0 (10 runs)" in chart.locator(".legend").inner_text()


def test_keys_and_pointer_read_a_run(opened: Opened) -> None:
    chart = opened.page.locator(".line-chart").first
    plot, reading = chart.locator(".plot"), chart.locator(".reading")
    plot.focus()
    assert reading.inner_text().startswith("2026-03-01 02:17: ")
    plot.press("ArrowLeft")
    assert reading.inner_text().startswith("2026-02-28 02:17: ")
    assert "commit 58aaaaaaaaaa, torch 2.13.0" in reading.inner_text()
    plot.press("Home")
    assert reading.inner_text().startswith("2026-01-01 ")
    assert "<b>2.12.0</b>" in reading.inner_text()
    box = plot.bounding_box()
    assert box
    # Not by the box's place on the screen, which may still be scrolling.
    plot.hover(position={"x": box["width"] - 2, "y": 20})
    assert reading.inner_text().startswith("2026-03-01 ")
    assert chart.locator(".cursor").is_visible()


def test_numbers_are_a_table(opened: Opened) -> None:
    case = opened.page.locator("details.trend").first
    table = case.locator("details table")
    case.locator("details > summary").click()
    assert table.locator("tbody tr").count() == 30
    assert table.locator("tbody tr").first.locator("th").inner_text() == "2026-03-01"


def test_labels_of_a_chart_stay_apart(opened: Opened) -> None:
    found = opened.page.evaluate(
        """() => [...document.querySelectorAll(".line-chart")].flatMap((chart) => {
          const words = [...chart.querySelectorAll("small")]
            .map((one) => [one.textContent, one.getBoundingClientRect()])
            .filter(([, box]) => box.width > 0);
          return words.flatMap(([text, a], i) => words.slice(i + 1)
            .filter(([other, b]) => text !== other && a.left < b.right && b.left < a.right
              && a.top < b.bottom && b.top < a.bottom)
            .map(([other]) => `${text} / ${other}`));
        })"""
    )
    assert found == []

"""The report's page in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.records import image_files
from perf_tests.tests import screenshot
from perf_tests.tests.unit.drawn import image, shown
from perf_tests.tests.unit.recorded import Content, case, cases, process

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from perf_tests.tests.browser.conftest import Opened


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a run beside another."""
    folder = tmp_path_factory.mktemp("report")
    contents = [_with_something_to_see(process(name)) for name in ("run", "base")]
    run, base = (
        shown(content, folder / f"{name}.json")
        for content, name in zip(contents, ("run", "base"), strict=True)
    )
    image_files.save(np.full((1, 96, 64, 3), 0.5, np.float32), image(run, "vase25-reference"))
    # A later acceptance must not change what is tested here.
    store = folder / "baselines"
    store.mkdir()
    shutil.copy(Path(__file__).parents[3] / "baselines" / "published.json", store)
    out = folder / "run.html"
    options = ["--base", str(base), "--html", str(out), "--baselines", str(store)]
    assert command.main(["report", str(run), *options]) == 0
    return out


def _with_something_to_see(content: Content) -> Content:
    for one in cases(content):
        seen = one["measurement"]
        if busy := seen["gpu_busy_s"]:
            seen["stages_s"] = {"denoising": 0.9 * busy, "decoder": 0.05}
            seen["families"] = {"matmul": {"gpu_s": busy, "kernels": 7}}
    case(content, "ddim50-fp16")["stack"] = {"fp16": "<img src=https://example.org/>"}
    return content


def test_readmes_screenshot_is_current(chromium: Browser) -> None:
    with screenshot.opened(chromium) as page:
        same = screenshot.text_of(page) == screenshot.kept()
    assert same, "run `python -m perf_tests.tests.screenshot`"


def test_page_opens_with_every_image_within_the_window(opened: Opened) -> None:
    page = opened.page
    assert page.locator("h1").inner_text().endswith("judged, not speed.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    blank = "[...document.images].filter(i => !i.hidden && i.naturalWidth === 0).length"
    page.wait_for_function(f"{blank} === 0")
    visible = [chart for chart in page.locator(".chart").all() if chart.is_visible()]
    assert len(visible) == 7


def test_charts_keep_every_word_inside_and_apart(opened: Opened) -> None:
    """No word leaves its chart, and none lies on another of its chart."""
    found = opened.page.evaluate(
        """() => [...document.querySelectorAll(".chart")].flatMap((chart) => {
          const edge = chart.parentElement.getBoundingClientRect();
          const words = [...chart.querySelectorAll("b, small, span, li, text")]
            .map((one) => [one.textContent, one.getBoundingClientRect(), one])
            .filter(([, box]) => box.width > 0);
          const outside = words.filter(([, box]) => box.left < edge.left || box.right > edge.right);
          const over = words.flatMap(([text, a, one], i) => words.slice(i + 1)
            .filter(([, b, other]) => !one.contains(other) && !other.contains(one)
              && a.left < b.right - 1 && b.left < a.right - 1
              && a.top < b.bottom - 1 && b.top < a.bottom - 1)
            .map(([other]) => `${text} / ${other}`));
          return [...outside.map(([text]) => text), ...over];
        })"""
    )
    assert found == []


def test_click_on_a_heading_sorts_the_table(opened: Opened) -> None:
    table = opened.page.locator("#speed table.sortable").first
    head = table.get_by_role("button", name="GPU busy")

    def busy() -> list[float]:
        cells = table.locator("tbody tr td:nth-child(4)").all()
        return [float(cell.get_attribute("data-v") or "nan") for cell in cells]

    head.press("Enter")
    assert busy() == sorted(busy())
    assert table.locator("th[aria-sort=ascending]").inner_text().split() == ["GPU", "busy"]
    head.press("Enter")
    assert busy() == sorted(busy(), reverse=True)
    assert table.locator("th[aria-sort]").count() == 1


def test_image_dialog_opens_slides_and_closes(opened: Opened) -> None:
    page = opened.page
    fp16 = page.locator(".case", has=page.get_by_role("heading", name="fp16", exact=False)).first
    fp16.locator("button.open").nth(1).click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert page.locator("#viewer-name").inner_text() == "ddim50: fp16"
    assert viewer.locator("#viewer-stage img").count() == 2

    viewer.get_by_label("slider", exact=True).check()
    divider = viewer.get_by_label("Divider position")
    divider.press("End")
    place = "getComputedStyle(document.getElementById('viewer-stage')).getPropertyValue('--at')"
    assert page.evaluate(place) == "100%"
    box = viewer.locator(".box").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.up()
    assert 20 <= float(page.evaluate(place).strip("%")) <= 30

    viewer.get_by_label("blink", exact=True).check()
    over = viewer.locator("#viewer-stage img").nth(1)
    over.wait_for(state="hidden")
    over.wait_for(state="visible")
    viewer.get_by_label("difference", exact=True).check()
    assert "difference ×" in viewer.locator("figcaption").inner_text()
    viewer.get_by_role("button", name="next").click()
    assert page.locator("#viewer-name").inner_text() == "pndm25x4: reference"
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_portrait_image_keeps_its_shape(opened: Opened) -> None:
    page = opened.page
    case = page.locator(".case", has=page.locator("img[alt='reference on vase25']"))
    shape = "e => [e.width, e.height]"
    width, height = case.locator("img.own").evaluate(shape)
    assert width / height == pytest.approx(64 / 96, abs=0.01)
    case.locator("button.open").first.click()
    box = page.locator("#viewer-stage .box").first.bounding_box()
    assert box
    assert box["width"] / box["height"] == pytest.approx(64 / 96, abs=0.01)


def test_slider_in_the_page_shows_the_reference_over_the_case(opened: Opened) -> None:
    second = opened.page.locator(".case").nth(1)
    slide = second.locator(".slide")
    slide.focus()
    cut = "e => getComputedStyle(e).clipPath.split(' ')[1]"
    slide.press("End")
    assert second.locator(".over").evaluate(cut) == "0%"
    slide.press("Home")
    assert second.locator(".over").evaluate(cut) == "100%"
    blink = second.get_by_role("button", name="Blink")
    blink.press("Enter")
    assert blink.get_attribute("aria-pressed") == "true"
    second.locator("xpath=self::*[contains(@class, 'off')]").wait_for()


def test_print_unfolds_everything(opened: Opened) -> None:
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0

"""Takes the README's picture of a report: `ci/regression.png`, of the recorded injected pairs.

    python -m perf_tests.tests.screenshot

Needs chromium. The text of the page is kept in the file, and `browser/test_page.py` fails if it is
no longer that of the page.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusers_perf.cli import __main__ as command
from perf_tests.tests.documents import ROOT, injected_pairs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOT = ROOT / "ci" / "regression.png"
SIZE = {"width": 1120, "height": 980}
TEXT = "text"
"""Name of the PNG's field."""


@contextmanager
def opened(browser: Browser) -> Iterator[Page]:
    """The report in a window of the screenshot's size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, head = injected_pairs(folder)
        html = folder / "report.html"
        with redirect_stdout(io.StringIO()):
            command.main(["report", *head, "--base", *base, "--html", str(html)])
        page = browser.new_page(viewport=SIZE, offline=True)  # type: ignore[arg-type]
        page.goto(html.as_uri())
        yield page
        page.close()


def text_of(page: Page) -> str:
    """What a reader sees at the top: the heading and the findings."""
    return "\n".join((page.inner_text("header"), page.inner_text("section")))


def kept() -> str:
    """The text of the page when the committed screenshot was taken."""
    with Image.open(SCREENSHOT) as image:
        return str(image.info.get(TEXT, ""))


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with opened(browser) as page:
            taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(64)
            info = PngInfo()
            info.add_itxt(TEXT, text_of(page))
        browser.close()
    taken.save(SCREENSHOT, optimize=True, pnginfo=info)
    print(f"wrote {SCREENSHOT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

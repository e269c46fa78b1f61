"""Debian's chromium, driven by playwright.

Skipped where one of them is missing, unless `PERF_TESTS_BROWSER` asks for it: CI sets it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Opened:
    """The page in the browser, and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    for library in ("playwright", "jinja2"):
        pytest.importorskip(library, reason="needs '.[dev]'")
    if CHROMIUM is None and "PERF_TESTS_BROWSER" not in os.environ:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Containers of CI have no user namespaces for a sandbox, and the page is our own.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, "light"), (375, "dark")], ids=["wide and light", "phone and dark"])
def opened(request: pytest.FixtureRequest, chromium: Browser, html: Path) -> Iterator[Opened]:
    """The page, freshly opened; whatever is done in it, nothing may complain or be fetched."""
    width, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    opened = Opened(page=page)
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("request", lambda asked: opened.requests.append(asked.url))
    page.goto(html.as_uri())
    yield opened
    context.close()
    assert opened.complaints == []
    left = [url for url in opened.requests if not url.startswith(("data:", html.as_uri()))]
    assert left == []

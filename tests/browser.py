"""Pages in a real browser, without a window."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


def visit(pages: Iterable[Path], look: Callable[[Any, Path], None]) -> list[str]:
    """Open pages in Chromium, one after another; what they complained about or asked others for.

    Every picture must have been loaded.

    Args:
        look: gets Playwright's page and the file that it shows.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.on("request", lambda request: _local(request.url) or complaints.append(request.url))
        for page in pages:
            tab.goto(page.as_uri())
            loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
            assert tab.evaluate(loaded), page
            look(tab, page)
        browser.close()
    return complaints


def _local(address: str) -> bool:
    return address.startswith(("file:", "data:"))

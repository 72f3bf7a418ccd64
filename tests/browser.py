"""A headless Chromium for the tests of pages."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]


@contextmanager
def chromium():
    """The browser; the test skips where playwright or Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements/tests.txt")
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Watched:
    """A tab that keeps what it asked for, and what went wrong in it."""

    def __init__(self, browser, **options):
        self.tab = browser.new_page(viewport={"width": 1400, "height": 950}, **options)
        self.asked, self.errors = [], []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    def asked_outside(self, *allowed: str) -> list[str]:
        return [url for url in self.asked if not url.startswith((*allowed, "data:", "blob:"))]

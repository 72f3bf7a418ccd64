"""The report's page in a browser: sound plays, a click on an event jumps there, tables sort, nothing is fetched."""

import shutil

import pytest

import test_pages
from earshot.pages.report import page

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield opened
        opened.close()


def test_the_page_in_chromium(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page("Report", "now", "map", [test_pages.run_page([test_pages.card(tmp_path)])], []))
    tab, errors, fetched = browser.new_page(), [], []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: fetched.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_function("document.querySelector('audio').readyState > 0")
    assert tab.evaluate("document.querySelector('audio').duration") == pytest.approx(2.0, abs=0.1)
    tab.click("button.predicted")
    tab.wait_for_function("!document.querySelector('audio').paused")
    tab.wait_for_function("document.querySelector('audio').currentTime > 0.52")
    first = "document.querySelector('table.sorts tbody td').textContent"
    assert tab.evaluate(first).startswith("<script>")
    tab.click("table.sorts th >> nth=0")
    assert tab.evaluate(first).startswith("$x^$")
    assert tab.evaluate("document.querySelector('img').naturalWidth >= 0")
    assert not errors
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []

"""The report's page in a browser: sound plays, a click on an event jumps there, tables sort, nothing is fetched."""

from dataclasses import replace

import pytest

import test_pages
from browser import Watched, chromium
from earshot.pages.report import page

pytestmark = pytest.mark.slow
FIRST_CELL = "document.querySelector('table.sorts tbody td').textContent"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    run = replace(test_pages.run_page([test_pages.card(folder)]), name="finch_syllables_0db_weak")
    path.write_text(page("Report", "now", "row_wise_micro_f1", [run], []))
    with chromium() as browser:
        watched = Watched(browser)
        watched.tab.goto(path.as_uri())
        watched.tab.wait_for_function("document.querySelector('audio').readyState > 0")
        yield watched


def test_the_sound_plays(report):
    assert report.tab.evaluate("document.querySelector('audio').duration") == pytest.approx(2.0, abs=0.1)
    report.tab.evaluate("document.querySelector('audio').play()")
    report.tab.wait_for_function("document.querySelector('audio').currentTime > 0.05")


def test_a_click_on_an_event_jumps_there(report):
    report.tab.evaluate("(a => { a.pause(); a.currentTime = 0 })(document.querySelector('audio'))")
    report.tab.click("button.predicted")
    report.tab.wait_for_function("!document.querySelector('audio').paused")
    report.tab.wait_for_function("document.querySelector('audio').currentTime > 0.52")


def test_tables_sort_by_a_click(report):
    assert report.tab.evaluate(FIRST_CELL).startswith("<script>")
    report.tab.click("table.sorts th >> nth=0")
    assert report.tab.evaluate(FIRST_CELL).startswith("$x^$")


def test_pictures_are_drawn(report):
    widths = report.tab.evaluate("[...document.querySelectorAll('.card img')].map(i => i.naturalWidth)")
    assert widths
    assert min(widths) > 300


def test_the_table_of_runs_fits_a_laptop(report):
    report.tab.set_viewport_size({"width": 1300, "height": 800})
    widths = "(t => [t.scrollWidth, t.parentElement.clientWidth])(document.querySelector('.wide table'))"
    table, room = report.tab.evaluate(widths)
    assert table <= room
    report.tab.set_viewport_size({"width": 1400, "height": 950})


def test_a_narrow_screen_needs_no_sideways_scrolling(report):
    report.tab.set_viewport_size({"width": 400, "height": 800})
    assert report.tab.evaluate("document.documentElement.scrollWidth") <= 400
    report.tab.set_viewport_size({"width": 1400, "height": 950})


def test_nothing_goes_wrong_and_nothing_is_fetched(report):
    assert [error for error in report.errors if "ERR_INVALID_URL" not in error] == []
    assert report.asked_outside("file:") == []

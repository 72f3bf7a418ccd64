"""The review page in a browser: sound plays, a click jumps there, decisions are stored, undone and kept by a crash."""

import threading
import time

import numpy as np
import pytest
import soundfile

from browser import Watched, chromium
from earshot.pages import review as page
from earshot.review.decisions import DecisionLog, read_rows, standing
from earshot.review.questions import Question
from earshot.review.session import Session

pytestmark = pytest.mark.slow
SOUND = "document.querySelector('.er-card audio')"


class Served:
    """A page over six questions about two recordings, in its own thread, and a tab that looks at it."""

    def __init__(self, folder, browser):
        t = np.arange(36 * 16000) / 16000
        for i in range(2):
            soundfile.write(folder / f"r{i}.wav", 0.3 * np.sin(2 * np.pi * (500 + 900 * i) * t), 16000)
        self.questions = [
            Question(item=f"q{i}", filename=f"r{i % 2}", path=str(folder / f"r{i % 2}.wav"), start=6.0 * i,
                     end=6.0 * i + 5.0, onset=6.0 * i + 2.0, offset=6.0 * i + 2.6, event_label=("wren", "tit")[i % 2],
                     output=0.5, confidence=0.5 + 0.05 * i)
            for i in range(6)
        ]  # fmt: skip
        self.path, self.browser = folder / "decisions.csv", browser
        self.start()

    def start(self):
        """A page as a new process makes it: the log is read from the disk."""
        self.session = Session(self.questions, DecisionLog(self.path), "ada", ("wren", "tit"), "runs/x")
        found = []
        threading.Thread(target=page.serve, args=(self.session, 0, found.append), daemon=True).start()
        while not found:
            time.sleep(0.05)
        self.url = found[0]
        self.watched = Watched(self.browser)
        self.tab = self.watched.tab
        self.tab.goto(self.url)
        self.tab.wait_for_selector(".er-card", timeout=30000)

    def item(self) -> str:
        return self.tab.get_attribute(".er-card", "data-item")

    def act(self, *selectors_or_keys: str, shows: str):
        """Click (#...) or press keys, and wait until a question is shown."""
        for one in selectors_or_keys:
            if one.startswith("#"):
                self.tab.click(one)
            else:
                self.tab.keyboard.press(one)
        self.tab.wait_for_selector(f".er-card[data-item={shows}]", timeout=15000)

    def stored(self) -> list[tuple]:
        return [(r.item, r.decision, r.labels) for r in standing(read_rows(self.path))]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("gradio", reason="pip install -r requirements/pages.txt")
    with chromium() as browser:
        yield Served(tmp_path_factory.mktemp("review"), browser)


def test_the_sound_plays(served):
    served.tab.wait_for_function(f"{SOUND}.readyState > 1")
    assert served.tab.evaluate(f"{SOUND}.duration") == pytest.approx(5.0, abs=0.1)
    served.tab.evaluate(f"{SOUND}.play()")
    served.tab.wait_for_function(f"{SOUND}.currentTime > 0.05")


def test_a_click_on_an_event_jumps_there(served):
    served.tab.evaluate(f"{SOUND}.pause(); {SOUND}.currentTime = 0")
    served.tab.click(".er-event.asked")
    served.tab.wait_for_function(f"{SOUND}.currentTime > 2.01 && !{SOUND}.paused")


def test_a_click_in_the_picture_plays_from_there(served):
    served.tab.evaluate(f"{SOUND}.pause(); {SOUND}.currentTime = 0")
    box = served.tab.locator(".er-picture").bounding_box()
    assert served.tab.evaluate("document.querySelector('.er-picture').naturalWidth") >= 800
    served.tab.mouse.click(box["x"] + 0.97 * box["width"], box["y"] + 0.4 * box["height"])
    served.tab.wait_for_function(f"{SOUND}.currentTime > 4.4")


def test_decisions_are_stored_by_buttons_and_keys(served):
    served.act("#er-accept", shows="q1")
    assert served.stored() == [("q0", "accept", "wren")]
    served.act("r", shows="q2")
    served.act("s", shows="q3")
    assert served.stored()[1:] == [("q1", "reject", ""), ("q2", "skip", "")]


def test_the_latest_answer_is_taken_back(served):
    served.act("u", shows="q2")
    assert served.stored() == [("q0", "accept", "wren"), ("q1", "reject", "")]
    assert len(read_rows(served.path)) == 4, "the file tells that it was"


def test_a_correction_has_names_and_times(served):
    served.tab.click("#er-names input")
    served.tab.keyboard.type("ti")
    served.tab.keyboard.press("Enter")
    served.tab.keyboard.press("Escape")
    served.tab.fill("#er-new textarea, #er-new input", "owl")
    served.tab.fill("#er-onset input", "14.5")
    served.tab.fill("#er-offset input", "15.25")
    served.act("#er-correct", shows="q3")
    row = read_rows(served.path)[-1]
    assert (row.item, row.decision, row.labels, row.onset, row.offset) == ("q2", "correct", "owl tit", 14.5, 15.25)


def test_times_outside_the_stretch_are_refused_and_say_so(served):
    before = served.stored()
    served.tab.click("#er-names input")
    served.tab.keyboard.type("tit")
    served.tab.keyboard.press("Enter")
    served.tab.keyboard.press("Escape")
    served.tab.fill("#er-offset input", "99")
    served.tab.click("#er-correct")
    served.tab.wait_for_selector("text=onset and offset must lie in what was heard")
    assert served.stored() == before
    assert served.item() == "q3"


def test_the_order_can_be_changed(served):
    served.tab.click("input[aria-label='ask first by']")
    served.tab.click("li:has-text('score')")
    served.tab.wait_for_selector(".er-card[data-item=q5]")


def test_after_a_crash_it_goes_on_where_it_was(served):
    with open(served.path, "ab") as file:
        file.write(b"2026-01-01T00:00:00+00:00,ada,acc")  # a row that a crash cut off
    served.start()
    assert served.session.log.torn.endswith("acc")
    assert served.item() == "q3"
    served.act("a", shows="q4")
    assert [row[0] for row in served.stored()] == ["q0", "q1", "q2", "q3"]


def test_the_end_is_said(served):
    served.act("a", shows="q5")
    served.tab.keyboard.press("a")
    served.tab.wait_for_selector("text=No question is open here")
    assert len(served.stored()) == 6


def test_nothing_goes_wrong_and_no_other_machine_is_asked(served):
    assert served.watched.errors == []
    assert served.watched.asked_outside(served.url) == []


def test_no_file_of_the_disk_is_served_and_no_other_host_answered(served, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for place in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
        for path in (tmp_path / "secret.txt", served.questions[0].path, served.path):
            assert served.tab.request.get(f"{served.url}{place}{path}").status in (403, 404)
    assert served.tab.request.get(served.url, headers={"Host": "evil.example"}).status == 400
    upload = served.tab.request.post(
        f"{served.url}/gradio_api/upload",
        multipart={"files": {"name": "x.bin", "mimeType": "x/y", "buffer": b"x" * 4096}},
    )
    assert upload.status >= 400

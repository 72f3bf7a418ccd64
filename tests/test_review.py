"""Review: a log of decisions that survives crashes, questions in a useful order, and answers as a table that trains."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from earshot.events import PostProcess
from earshot.pages import review as page
from earshot.pages.review_card import card
from earshot.review.decisions import COLUMNS, Decision, DecisionLog, read_rows, standing
from earshot.review.questions import (
    LONGEST,
    MARGIN,
    Question,
    checked_detections,
    farthest_first,
    lowered,
    ordered,
    questions_of,
    stretch,
    unanswered,
)
from earshot.review.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import review


def decision(item="a", kind="accept", label="wren", labels="", path="/rec/a.wav", start=1.0, who="ada", **more):
    return Decision(
        when="2026-01-01T00:00:00+00:00", who=who, decision=kind, item=item, path=path, start=start, end=start + 4,
        onset=start + 1, offset=start + 2, event_label=label, labels=labels or label * (kind == "accept"), **more,
    )  # fmt: skip


def question(item="a", label="wren", confidence=0.5, path="/rec/a.wav", start=1.0):
    return Question(item=item, filename="a", path=path, start=start, end=start + 4, onset=start + 1, offset=start + 2,
                    event_label=label, output=confidence, confidence=confidence)  # fmt: skip


# ---- the log


def test_decisions_are_read_back_as_they_were_made(tmp_path):
    log = DecisionLog(tmp_path / "new/decisions.csv")
    made = [decision("a", path='/r/b, "c".wav', output=0.25), decision("b", "correct", labels="wren tit"),
            decision("c", "reject", path="/r/\udcff.wav")]  # fmt: skip
    for one in made:
        log.append(one)
    assert read_rows(log.path) == made == DecisionLog(log.path).rows
    assert log.path.read_bytes().splitlines()[0].decode() == ",".join(COLUMNS)
    assert [p.name for p in log.path.parent.iterdir()] == ["decisions.csv"]


def test_line_ends_in_names_do_not_make_rows(tmp_path):
    log = DecisionLog(tmp_path / "d.csv")
    log.append(decision(who="a\nb", label="wren"))
    assert len(log.path.read_text().splitlines()) == 2
    assert DecisionLog(log.path).rows[0].who == "a b"


def test_a_crash_at_any_byte_loses_at_most_the_row_that_was_written(tmp_path):
    log = DecisionLog(tmp_path / "whole.csv")
    log.append(decision("a"))
    before = log.path.read_bytes()
    log.append(decision("b"))
    whole, path = log.path.read_bytes(), tmp_path / "torn.csv"
    for size in range(len(before), len(whole) + 1):
        path.write_bytes(whole[:size])
        again = DecisionLog(path)
        rows = 2 if size == len(whole) else 1
        assert [r.item for r in again.rows] == ["a", "b"][:rows]
        assert again.torn == whole[len(before) : size].decode() * (size < len(whole))
        again.append(decision("c"))
        assert [r.item for r in read_rows(path)] == ["a", "b"][:rows] + ["c"]


def test_two_pages_append_to_one_file(tmp_path):
    one, two = DecisionLog(tmp_path / "d.csv"), DecisionLog(tmp_path / "d.csv")
    for i in range(3):
        one.append(decision(f"one{i}", who="ada"))
        two.append(decision(f"two{i}", who="bob"))
    assert {r.item for r in read_rows(one.path)} == {f"{w}{i}" for w in ("one", "two") for i in range(3)}


def test_an_undo_is_a_row_and_takes_back_ones_own_last_answer(tmp_path):
    log = DecisionLog(tmp_path / "d.csv")
    log.append(decision("a"))
    log.append(decision("b", who="bob"))
    log.append(decision("c"))
    assert log.undo("ada").item == "c"
    assert log.undo("ada").item == "a"
    assert log.undo("ada") is None
    assert [r.item for r in standing(read_rows(log.path))] == ["b"]
    assert [r.decision for r in read_rows(log.path)].count("undo") == 2
    log.append(decision("a", "reject"))
    assert [(r.item, r.decision) for r in standing(log.rows)] == [("b", "accept"), ("a", "reject")]


def test_another_table_is_not_appended_to(tmp_path):
    (tmp_path / "clips.csv").write_text("clip_id,path\na,a.wav")
    with pytest.raises(ValueError, match="is no table of decisions: it begins with 'clip_id,path'"):
        DecisionLog(tmp_path / "clips.csv")
    assert (tmp_path / "clips.csv").read_text() == "clip_id,path\na,a.wav"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("decision", "acept", "line 2: decision 'acept'; did you mean 'accept'"), ("start", "x", "start is 'x'"),
     ("end", "nan", "end is nan"), ("onset", "-1", "onset is -1.0"), ("offset", "inf", "offset is inf"),
     ("end", "0.5", "line 2: end 0.500 is not after start 1.000"), ("offset", "1.5", "before onset 2.000"),
     ("onset", "0.5", "does not lie in the stretch"), ("event_label", "house sparrow", "sparrow. cannot be"),
     ("labels", "wren =cmd|x", "=cmd.x. cannot be a class"), ("event_label", "", "cannot be a class name"),
     ("who", "x" * 200_000, "line 2: field larger than field limit")],
)  # fmt: skip
def test_edited_rows_are_errors_that_name_the_line(tmp_path, column, value, said):
    log = DecisionLog(tmp_path / "d.csv")
    log.append(decision())
    table = pd.read_csv(log.path, dtype=str, keep_default_na=False).assign(**{column: value})
    table.to_csv(log.path, index=False)
    with pytest.raises(ValueError, match=said):
        DecisionLog(log.path)


def test_times_keep_their_milliseconds_however_long_the_recording(tmp_path):
    log = DecisionLog(tmp_path / "d.csv")
    log.append(decision(start=123456.789, output=0.1234567))
    row = read_rows(log.path)[0]
    assert (row.start, row.end, row.onset, row.offset) == (123456.789, 123460.789, 123457.789, 123458.789)
    assert row.output == pytest.approx(0.123457)


def test_rows_behind_the_end_of_a_recording_are_errors(tmp_path):
    log = DecisionLog(tmp_path / "d.csv")
    log.append(decision(start=1.0))
    assert len(DecisionLog(log.path, lambda path: 5.0).rows) == 1
    with pytest.raises(ValueError, match=r"d\.csv line 2: end is 5\.000 s, and /rec/a\.wav is 4\.000 s long"):
        DecisionLog(log.path, lambda path: 4.0)


# ---- questions


@given(st.floats(0, 50), st.floats(0.01, 60), st.floats(0.5, 120), st.floats(1, 10))
def test_a_stretch_lies_in_its_recording_and_holds_the_event(onset, length, end, shortest):
    onset = min(onset, end - 0.01)
    offset = min(onset + length, end)
    start, stop = stretch(onset, offset, end, shortest)
    assert -1e-9 <= start < stop <= end + 0.002
    assert stop - start <= max(LONGEST, shortest) + 0.002
    assert start <= onset + 0.001
    if offset - onset + 2 * MARGIN <= LONGEST:
        assert stop >= offset - 0.002
        assert stop - start >= min(shortest, end) - 0.002


def events(rows):
    table = pd.DataFrame(rows, columns=["path", "onset", "offset", "event_label", "confidence"])
    return table.assign(filename="a", max_output=table.confidence, mean_output=table.confidence, begins="")


def test_questions_of_events_and_those_that_are_answered():
    table = events([("/a.wav", 2.0, 3.0, "wren", 0.9), ("/a.wav", 2.0, 3.0, "tit", 0.4), ("/b.wav", 0, 9, "wren", 0.5)])
    asked = questions_of(table, {"/a.wav": 10.0, "/b.wav": 8.0}, 5.0)
    assert [(q.start, q.end) for q in asked] == [(0.0, 5.0), (0.0, 5.0), (0.0, 8.0)]
    assert asked[2].offset == 8.0
    assert len({q.item for q in asked}) == 3
    # another run put the event elsewhere by a little, or in more pieces: the stretch 1 ... 5 s was heard
    log = [replace(decision("old", path="/a.wav"), onset=4.1, offset=4.5)]
    assert [(q.path, q.event_label) for q in unanswered(asked, log)] == [("/a.wav", "tit"), ("/b.wav", "wren")]
    far = [replace(log[0], start=2.5, end=5.0, onset=2.9, offset=4.0)]
    assert len(unanswered(asked, far)) == 3
    longer = [replace(far[0], onset=2.1, offset=3.2)]
    assert len(unanswered(asked, longer)) == 2
    assert questions_of(table.assign(path="a.wav"), {}, 5.0)[0].path == str(Path("a.wav").absolute())
    around = f"../{Path.cwd().name}/a.wav"
    assert questions_of(table.assign(path=around), {}, 5.0)[0].path == str(Path("a.wav").resolve())


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("onset", "x", "line 3: onset is 'x'"), ("confidence", "", "line 3: confidence is ''"),
     ("offset", 1.0, "line 3: the event ends before"), ("event_label", " ", "line 3: the event has no label"),
     ("max_output", "inf", "max_output is 'inf'")],
)  # fmt: skip
def test_tables_of_detections_are_checked(column, value, said):
    table = events([("/a.wav", 2.0, 3.0, "wren", 0.9)] * 3).astype(object)
    assert checked_detections(table, "e.csv").onset.tolist() == [2.0] * 3
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=said):
        checked_detections(table, "e.csv")


def test_detections_behind_the_end_are_no_questions(caplog):
    table = events([("/a.wav", 2.0, 3.0, "wren", 0.9), ("/a.wav", 8.0, 9.0, "wren", 0.9)])
    assert [q.onset for q in questions_of(table, {"/a.wav": 5.0})] == [2.0]
    assert "1 detections begin behind the end" in caplog.text


def test_orders():
    asked = [question(str(c), confidence=c) for c in (0.9, 0.1, 0.45, 0.6)]
    assert [q.confidence for q in ordered(asked, "uncertainty")] == [0.45, 0.6, 0.9, 0.1]
    assert [q.confidence for q in ordered(asked, "score")] == [0.9, 0.6, 0.45, 0.1]
    drawn = ordered(asked, "random", seed=1)
    assert sorted(q.item for q in drawn) == sorted(q.item for q in asked)
    assert drawn == ordered(asked, "random", seed=1)
    with pytest.raises(ValueError, match="choose one of uncertainty, score"):
        ordered(asked, "best")


def test_diversity_asks_about_another_sound_next(tmp_path):
    t = np.arange(8 * 16000) / 16000
    asked = []
    for i, hertz in enumerate((400, 410, 3000, 3010)):
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.sin(2 * np.pi * hertz * t), 16000)
        asked.append(question(str(i), confidence=0.5 + 0.01 * i, path=str(tmp_path / f"{i}.wav")))
    order = [int(q.item) for q in ordered(asked, "diversity")]
    assert order[0] == 0
    assert order[1] in (2, 3)
    assert sorted(order) == [0, 1, 2, 3]
    assert farthest_first(np.array([[0.0], [1.0], [10.0], [10.1]]), 3) == [0, 3, 1]


def test_lowered_thresholds():
    post = PostProcess(threshold=0.6, threshold_low=0.4, class_thresholds={"wren": 0.8}, clip_threshold=0.5)
    low = lowered(post, 0.5)
    assert low == PostProcess(threshold=0.3, threshold_low=0.2, class_thresholds={"wren": 0.4})


# ---- a person at work


@pytest.fixture
def session(tmp_path):
    asked = [question("a", "wren", 0.5), question("b", "tit", 0.6, start=9.0), question("c", "wren", 0.9, start=20.0)]
    return Session(asked, DecisionLog(tmp_path / "d.csv"), "ada", ("wren", "tit"), "runs/x")


def test_a_session_asks_decides_and_goes_back(session):
    assert session.next().item == "a"
    session.decide("a", "accept")
    assert session.next().item == "b"
    assert session.next("wren").item == "c"
    session.decide("b", "correct", ["tit", "wren"], (10.0, 10.5))
    assert session.counts() == {"accept": 1, "reject": 0, "correct": 1, "skip": 0, "open": 1}
    row = read_rows(session.log.path)[-1]
    assert (row.labels, row.onset, row.offset, row.who, row.run) == ("tit wren", 10.0, 10.5, "ada", "runs/x")
    assert session.undo().item == "b"
    assert session.next().item == "b"
    session.sort("score")
    assert [q.item for q in session.queue] == ["c", "b"]


def test_a_correction_answers_all_that_lies_in_its_stretch_until_it_is_taken_back(tmp_path):
    near = replace(question("n", "tit"), onset=3.0, offset=3.5)
    astride = replace(question("x", "tit"), onset=4.5, offset=6.0)
    work = Session([question("a"), near, astride], DecisionLog(tmp_path / "d.csv"), "ada", ("wren", "tit"))
    work.decide("a", "correct", ["wren"], (1.0, 1.2))
    assert [q.item for q in work.queue] == ["x"]
    assert work.undo().item == "a"
    assert [q.item for q in work.queue] == ["a", "n", "x"]


def test_what_was_answered_is_not_asked_after_a_restart(session):
    session.decide("a", "reject")
    again = Session(list(session.all.values()), DecisionLog(session.log.path), "bob", ("wren", "tit"))
    assert again.answered_before == 1
    assert [q.item for q in again.queue] == ["b", "c"]
    assert again.undo() is None, "that answer is ada's"


@pytest.mark.parametrize(
    ("item", "kind", "labels", "times", "said"),
    [("z", "accept", (), None, "answered meanwhile"), ("a", "undo", (), None, "a decision is one of"),
     ("a", "correct", ["house sparrow"], None, "hold no spaces"), ("a", "correct", ["=cmd"], None, "cannot be a class"),
     ("a", "correct", ["wren"], (3.0, 2.0), "onset first"), ("a", "correct", ["wren"], (2.0, 99.0), "must lie in"),
     ("a", "correct", ["wren"], (None, 2.0), "must be seconds")],
)  # fmt: skip
def test_answers_that_cannot_be_meant_are_not_written(session, item, kind, labels, times, said):
    with pytest.raises(ValueError, match=said):
        session.decide(item, kind, labels, times)
    assert not session.log.path.exists()


# ---- the page


def test_a_card_is_whole_and_names_cannot_break_it(tmp_path):
    name = str(tmp_path / "<b>&.wav")
    soundfile.write(name, 0.2 * np.sin(np.arange(6 * 8000) / 5), 8000)
    asked = replace(question("a", '"><script>alert(1)</script>', path=name), filename="<b>")
    other = question("b", "$x^$", path=name, start=2.0)
    text = card(asked, [asked, other, question("c", "elsewhere")])
    assert "<script" not in text
    assert "elsewhere" not in text
    assert 'src="data:image/png;base64,' in text
    assert 'src="data:audio/ogg;base64,' in text
    assert 'data-at="1.0"' in text
    assert 'data-at="2.0"' in text


def test_a_card_of_a_recording_that_went_says_so():
    text = card(question(path="/gone.wav"))
    assert "cannot be read" in text
    assert "<audio" not in text


def test_without_gradio_there_is_one_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    page.gradio.cache_clear()
    with pytest.raises(ValueError, match=r"needs gradio: pip install -r .*requirements/pages\.txt"):
        page.gradio()
    page.gradio.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("", "one of them, got 0"), ("--clips x --events y", "one of them, got 2"), ("--clips x --share 0", "--share"),
     ("--clips x --order best", "--order is 'best'"), ("--clips x --port 70000", "--port")],
)  # fmt: skip
def test_options_that_cannot_be_meant(monkeypatch, arguments, said):
    monkeypatch.setattr(sys, "argv", ["review.py", "--run", "r", *arguments.split()])
    with pytest.raises(ValueError, match=said):
        review.main()

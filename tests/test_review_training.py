"""Answers of a review as a table that trains: only what was said is known, and folds keep what they held out."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earshot.config import DataConfig
from earshot.data.folds import read_folds
from earshot.data.labels import read_clips
from earshot.data.prepared import load_data
from earshot.pages import review as page
from earshot.review.training_table import heard_in, read_base, write_training_table
from scripts import run
from test_review import decision

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import review
import train
from earshot.competitions.headers import examine


def test_what_answers_say_of_a_stretch():
    rows = [decision("a", "accept", "wren"), decision("b", "reject", "tit"), decision("c", "skip", "owl"),
            decision("d", "correct", "wren", "tit", start=9.0)]  # fmt: skip
    first, second = heard_in(rows, one_label=False)
    assert first.known == {"wren": True, "tit": False}
    assert (first.whole, first.event) == (False, None)
    assert second.known == {"tit": True, "wren": False}
    assert (second.whole, second.event) == (True, (10.0, 11.0, "tit"))
    assert [h.labels for h in heard_in([*rows, decision("e", "reject", "wren")], False)] == [[], ["tit"]]
    assert [h.labels for h in heard_in(rows, one_label=True)] == [["wren"], ["tit"]]


@pytest.fixture
def reviewed(tmp_path):
    """(base of two clips with classes wren, tit; the recording that was reviewed; answers about four stretches)."""
    rng = np.random.default_rng(0)
    for name in ("c0", "c1", "long"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(30 * 8000), 8000)
    root = tmp_path / "data"
    root.mkdir()
    (root / "clips.csv").write_text("clip_id,path,labels\nc0,c0.wav,wren\nc1,c1.wav,tit\n")
    (root / "classes.csv").write_text("label\nwren\ntit\n")
    (root / "events.csv").write_text("filename,onset,offset,event_label\nc0,1.0,2.0,wren\nc1,1.0,2.0,tit\n")
    (root / "dataset.json").write_text(json.dumps({"competition": "mine", "source": str(tmp_path), "task": "sed"}))
    (tmp_path / "folds.csv").write_text("clip_id,group,fold\nc0,c0,0\nc1,c1,1\n")
    long = str(tmp_path / "long.wav")
    rows = [
        decision("a", "accept", "wren", path=long, start=1.0), decision("b", "reject", "tit", path=long, start=6.0),
        decision("c", "correct", "tit", "owl", path=long, start=11.0),
        decision("d", "correct", "tit", path=long, start=16.0),
        decision("e", "accept", "tit", path=str(tmp_path / "c1.wav"), start=2.0),
    ]  # fmt: skip
    return read_base(root, tmp_path / "folds.csv"), rows


def test_answers_become_clips_of_which_only_what_was_said_is_known(reviewed, tmp_path, caplog):
    base, rows = reviewed
    counts = write_training_table(rows, tmp_path / "new", tmp_path / "new.csv", base, where={"site": "north"})
    assert counts == {"answers": 5, "clips": 5, "silent": 2, "classes": 3}
    assert "did not have, unknown in its clips: owl" in caplog.text
    data = load_data(DataConfig(root=str(tmp_path / "new"), folds=str(tmp_path / "new.csv"), keep_unlabelled=True))
    assert data.classes == ["wren", "tit", "owl"]
    assert (data.clips.site == "north").sum() == 5
    at = {c: i for i, c in enumerate(data.clips.clip_id)}
    target, mask = (values[[at[f"review_{n:05d}"] for n in range(5)]].tolist() for values in (data.target, data.mask))
    assert target == [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert mask == [[1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [0, 1, 0]]
    assert data.mask[[at["c0"], at["c1"]]].tolist() == [[1, 1, 0], [1, 1, 0]], "nobody looked for owls there"
    known = dict(zip(data.clips.clip_id, data.annotated, strict=True))
    assert [bool(known[f"review_{n:05d}"]) for n in range(5)] == [False, True, True, True, False]
    owl = data.events[data.events.filename == "review_00002"]
    assert owl[["onset", "offset", "event_label"]].to_numpy().tolist() == [[1.0, 2.0, "owl"]]
    folds = dict(zip(data.clips.clip_id, data.clips.fold, strict=True))
    assert [folds[f"review_{n:05d}"] for n in range(5)] == [-1, -1, -1, -1, 1], "c1's stays in c1's fold"
    assert soundfile.info(tmp_path / "new/sound/review_00000.wav").duration == 4.0
    heard, _ = soundfile.read(tmp_path / "new/sound/review_00001.wav")
    whole, _ = soundfile.read(tmp_path / "long.wav")
    np.testing.assert_allclose(heard, whole[6 * 8000 : 10 * 8000], atol=1e-4)


def test_recordings_that_went_are_said_and_no_answer_is_an_error(reviewed, tmp_path, caplog):
    base, rows = reviewed
    gone = [decision("z", path=str(tmp_path / "gone.wav"))]
    write_training_table([*rows, *gone], tmp_path / "new", tmp_path / "new.csv", base)
    assert "1 stretches could not be read again" in caplog.text
    for some, said in ((gone, "none of the stretches"), ([decision(kind="skip")], "of 1 standing answers none")):
        with pytest.raises(ValueError, match=said):
            write_training_table(some, tmp_path / "none", tmp_path / "none.csv", base)
    assert not (tmp_path / "none").exists()


def test_a_second_round_numbers_past_the_first(reviewed, tmp_path):
    base, rows = reviewed
    write_training_table(rows[:3], tmp_path / "new", tmp_path / "new.csv", base)
    again = read_base(tmp_path / "new", tmp_path / "new.csv")
    write_training_table(rows[3:], tmp_path / "newer", tmp_path / "newer.csv", again)
    data = load_data(DataConfig(root=str(tmp_path / "newer"), folds=str(tmp_path / "newer.csv"), keep_unlabelled=True))
    assert sorted(data.clips.clip_id) == ["c0", "c1", *(f"review_{n:05d}" for n in range(5))]
    assert len({str(p) for p in data.clips.path}) == 7


def test_copies_of_held_out_recordings_stay_in_their_fold(reviewed, tmp_path):
    base, _ = reviewed
    sound, rate = soundfile.read(tmp_path / "c0.wav", dtype="int16")
    (tmp_path / "other").mkdir()
    shutil.copyfile(tmp_path / "c1.wav", tmp_path / "copy.wav")
    soundfile.write(tmp_path / "lossless.flac", sound, rate)
    soundfile.write(tmp_path / "other" / "C0.flac", sound[::-1], rate)
    (tmp_path / "link.wav").symlink_to(tmp_path / "c1.wav")
    names = ("copy.wav", "lossless.flac", "other/C0.flac", "link.wav", "long.wav")
    rows = [decision(name, path=str(tmp_path / name)) for name in names]
    hashed = base.clips.assign(content_hash=[examine(tmp_path / p, decode=True)[2] for p in base.clips.path])
    write_training_table(rows, tmp_path / "new", tmp_path / "new.csv", replace(base, clips=hashed))
    folds = read_folds(tmp_path / "new.csv", read_clips(tmp_path / "new/clips.csv")).fold
    assert folds.tolist()[2:] == [1, 0, 0, 1, -1]


def test_recordings_that_judge_are_left_out_or_said(reviewed, tmp_path, caplog):
    base, rows = reviewed
    (base.root / "validation.csv").write_text("clip_id,path\nv,long.wav\n")
    counts = write_training_table(rows, tmp_path / "new", tmp_path / "new.csv", base)
    assert counts["clips"] == 1, "only c1's"
    assert "recordings of" in caplog.text
    assert "validation.csv, which train nothing, are left out" in caplog.text
    assert (tmp_path / "new/validation.csv").is_file()
    with pytest.raises(ValueError, match="every answer is about recordings of"):
        write_training_table(rows[:2], tmp_path / "none", tmp_path / "none.csv", base)
    (base.root / "validation.csv").rename(base.root / "test_clips.csv")
    assert write_training_table(rows, tmp_path / "new2", tmp_path / "new2.csv", base)["clips"] == 5
    assert "1 recordings are of the test" in caplog.text


@pytest.mark.slow
def test_from_a_run_to_questions_to_a_training_on_the_answers(tiny, monkeypatch):
    run(train, "--config", tiny, "--fold", "all", "--name", "a", "optim.epochs=2")
    monkeypatch.setattr(page, "gradio", lambda: None)
    served = []
    monkeypatch.setattr(page, "serve", lambda session, port, ready: served.append(session))
    asked = ("--run", "runs/sed/a", "--clips", "source", "--who", "ada", "--share", "0.2")
    run(review, *asked)
    session = served[0]
    for kind in ("accept", "reject", "correct"):
        session.decide(session.next().item, kind, ["low", "mid"])
    run(review, "--run", "runs/sed/a", "--train-table", "data2", "--train-folds", "folds2.csv")
    with pytest.raises(ValueError, match="data2 exists"):
        run(review, "--run", "runs/sed/a", "--train-table", "data2")
    run(train, "--config", "runs/sed/a/fold0/config.yaml", "--name", "b", "--fold", "0", "data.root=data2",
        "data.folds=folds2.csv", "optim.epochs=1")  # fmt: skip
    assert Path("runs/sed/b/fold0/run.json").is_file()
    run(review, *asked, "--order", "score")
    assert served[1].answered_before >= 3
    assert {q.item for q in served[1].queue} < set(served[1].all)

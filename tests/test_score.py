"""src/score.py: anybody's tables against a truth."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import score

TRUTH = "filename,onset,offset,event_label\na.wav,1.0,2.0,wren\na.wav,4.0,5.0,wren\nb.wav,0.0,1.0,robin\n"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["score.py", *map(str, arguments), "--out", "scores.json"])
        score.main()
        capsys.readouterr()
        return json.loads(Path("scores.json").read_text())

    return call


def test_events_of_a_table_against_another(run):
    Path("truth.csv").write_text(TRUTH)
    Path("found.tsv").write_text(
        "path\tstart\tend\tlabel\nrec/a.flac\t1.1\t2.1\twren\nrec/a.flac\t7\t8\twren\nrec/b.flac\t0\t0.5\trobin\n"
    )
    scores = run("events", "--found", "found.tsv", "--truth", "truth.csv")["scores"]
    assert scores["event_precision"] == scores["event_recall"] == pytest.approx(1 / 3)
    assert scores["onset_f1"] == pytest.approx(2 / 3)
    assert run("events", "--found", "found.tsv", "--truth", "truth.csv", "--collar", 0.5)["scores"]["event_f1"] == (
        pytest.approx(2 / 3)
    )


def test_true_events_that_overlap_are_said(run, caplog):
    Path("truth.csv").write_text(TRUTH + "a.wav,4.0,5.0,wren\nb.wav,0.5,1.5,robin\nb.wav,0.5,1.5,wren\n")
    Path("found.csv").write_text(TRUTH)
    assert run("events", "--found", "found.csv", "--truth", "truth.csv")["scores"]["event_precision"] == 1
    assert "2 true events, of which a found one answers one alone, overlap an earlier one of their class" in caplog.text


def test_folders_of_annotation_files(run, tmp_path):
    for folder in ("truth", "found"):
        (tmp_path / folder).mkdir()
    Path("truth/a.txt").write_text("1.0\t2.0\twren\n")
    Path("found/a.Table.1.selections.txt").write_text(
        "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t1.0\t2.0\twren\n"
    )
    assert run("events", "--found", "found", "--truth", "truth")["scores"]["event_f1"] == 1.0


def test_what_is_found_in_recordings_that_the_truth_calls_silent_is_false(run):
    """In DCASE's tables a recording without an event is a row of its name alone; in folders it is an empty file."""
    head, event = "filename\tonset\toffset\tevent_label\n", "a.wav\t1.0\t2.0\twren\n"
    Path("truth.tsv").write_text(f"{head}{event}rec/b.wav\t\t\t\n")
    Path("found.tsv").write_text(f"{head}{event}b\t3.0\t4.0\twren\nc\t3.0\t4.0\twren\n")
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("1.0\t2.0\twren\n")
    Path("notes/b.Table.1.selections.txt").write_text("Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n")
    for truth in ("truth.tsv", "notes"):
        scores = run("events", "--found", "found.tsv", "--truth", truth)["scores"]
        assert (scores["event_precision"], scores["event_recall"]) == (0.5, 1)
        assert scores["segment_precision"] == 0.5
    Path("notes/a.txt").write_text("")
    with pytest.raises(ValueError, match="the reference has no events"):
        run("events", "--found", "found.tsv", "--truth", "notes")


def test_names_with_dots_and_labels_with_spaces_meet_what_detect_writes(run):
    Path("notes").mkdir()
    Path("notes/site.1.Table.1.selections.txt").write_text(
        "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t1.0\t2.0\tSong thrush\n"
    )
    Path("found.csv").write_text("filename,onset,offset,event_label\nsite.1,1.0,2.0,Song_thrush\n")
    assert run("events", "--found", "found.csv", "--truth", "notes")["scores"]["event_f1"] == 1


def test_labels_of_both_tables_may_stand_in_columns_of_any_names(run):
    Path("truth.csv").write_text("filename,onset,offset,who,label\na.wav,1,2,wren,far\n")
    Path("found.csv").write_text("filename,onset,offset,bird,label\na,1,2,wren,0.9\n")
    both = ("events", "--found", "found.csv", "--truth", "truth.csv", "--label-column", "who")
    assert run(*both, "--found-label-column", "bird")["scores"]["event_f1"] == 1
    assert run(*both, "--found-label-column", "")["scores"]["event_f1"] == 0  # guessed: label
    with pytest.raises(ValueError, match="found.csv has no column 'who'"):
        run(*both)


def test_what_was_not_there_is_no_true_event(run, caplog):
    """Our event tables say so by `is_negative`; endings with a digit are endings too."""
    Path("truth.csv").write_text(
        "filename,onset,offset,event_label,is_negative\na.mp3,1,2,wren,0\na.mp3,3,4,crow,1\nb.mp3,1,2,wren,\n"
    )
    Path("found.csv").write_text("filename,onset,offset,event_label\na,1,2,wren\nb,1,2,wren\n")
    found = run("events", "--found", "found.csv", "--truth", "truth.csv")
    assert found["scores"]["event_f1"] == found["scores"]["event_f1_macro"] == 1
    assert "truth.csv: 1 rows say that a class was not there (is_negative), and are left out" in caplog.text


def test_a_table_without_a_row_found_nothing(run, caplog):
    """As src/detect.py writes it where no output is above the threshold: its numbers are no classes."""
    Path("truth.csv").write_text(TRUTH)
    Path("found.csv").write_text("path,filename,onset,offset,event_label,confidence,max_output,begins\n")
    assert run("events", "--found", "found.csv", "--truth", "truth.csv")["scores"]["event_recall"] == 0
    assert caplog.messages == ["labels of the truth alone: robin, wren"]


def test_one_name_in_two_folders_is_matched_by_folder_and_name(run, caplog):
    """As recorders at several sites write them; a truth in files below such folders too."""
    Path("found.csv").write_text(
        "filename,onset,offset,event_label\nu/x.wav,0,1,wren\nv/x.wav,2,3,wren\nv/y.a.wav,2,3,wren\n"
    )
    for name, times in {"u/x": "0\t1", "v/x": "5\t6", "v/y.a": "2\t3"}.items():
        Path("truth", name).parent.mkdir(parents=True, exist_ok=True)
        Path("truth", f"{name}.txt").write_text(f"{times}\twren\n")
    Path("lengths.csv").write_text("filename,duration\nu\\x.wav,9\nv\\x.wav,9\nv\\y.a.wav,9\nv/z.wav,9\n")
    found = run("events", "--found", "found.csv", "--truth", "truth", "--durations", "lengths.csv")
    assert found["scores"]["event_f1"] == pytest.approx(2 / 3)
    assert caplog.messages == [
        "recordings of one name are in several folders, so that they are matched by folder and name"
    ]
    Path("one.csv").write_text("filename,onset,offset,event_label\nx,0,1,wren\n")
    with pytest.raises(ValueError, match=r"are the names the same \(u/x, v/x, v/y.a here, x there\)"):
        run("events", "--found", "found.csv", "--truth", "one.csv")


def test_true_clips_without_a_prediction_are_named(run, caplog):
    Path("found.csv").write_text("clip_id,wren,robin\na,0.9,0.1\nb,0.2,0.8\n")
    Path("truth.csv").write_text("clip_id,labels\na,wren\nb,robin\nc,robin\n")
    run("tags", "--found", "found.csv", "--truth", "truth.csv")
    assert "1 clips of the truth were not predicted, and left out: c" in caplog.text


def test_the_table_of_predict_is_read_without_its_other_columns(run):
    """`unreadable` is no class, and such a clip's prior is not judged."""
    Path("truth.csv").write_text("clip_id,labels\na,wren\nb,robin\nc,robin\n")
    Path("plain.csv").write_text("clip_id,wren,robin\na,0.9,0.1\nb,0.2,0.8\n")
    Path("found.csv").write_text(
        "clip_id,unreadable,anomaly_score,wren,robin\na,0,0.1,0.9,0.1\nb,0,0.2,0.2,0.8\nc,1,0.3,0.5,0.5\n"
    )
    plain, found = (run("tags", "--found", f"{name}.csv", "--truth", "truth.csv") for name in ("plain", "found"))
    assert found["scores"] == plain["scores"]
    assert [next(iter(row.values())) for row in found["classes"]] == ["wren", "robin"]


def test_tables_that_are_not_there_or_have_a_clip_twice(run):
    Path("truth.csv").write_text("clip_id,is_anomaly\na,0\nb,1\n")
    Path("found.csv").write_text("clip_id,score\na,1\na,2\nb,3\n")
    with pytest.raises(ValueError, match="the found scores have clips in several rows: a"):
        run("anomalies", "--found", "found.csv", "--truth", "truth.csv")
    with pytest.raises(ValueError, match=r"nope.csv does not exist"):
        run("events", "--found", "nope.csv", "--truth", "nope.csv")


def test_predictions_are_detected_and_have_psds(run, caplog):
    frames = np.zeros((100, 2), np.float32)
    frames[10:20, 0], frames[40:50, 0] = 0.9, 0.8
    silent = np.zeros((100, 2), np.float32)
    silent[0:10, 1] = 0.7
    Predictions(
        np.array(["a", "b"]), ("wren", "robin"), np.array([[0.9, 0], [0, 0.7]], np.float32), np.array([0, 0]),
        np.zeros(2, bool), framewise_output=(frames, silent), timebase=TimeBase(1000, 100),
    ).save("oof.npz")  # fmt: skip
    Path("truth.csv").write_text(TRUTH + "elsewhere.wav,0,1,wren\n")
    Path("clips.csv").write_text("clip_id,path,duration\na,a.wav,10\nb,b.wav,10\nelsewhere,e.wav,10\n")
    scores = run("events", "--found", "oof.npz", "--truth", "truth.csv", "--durations", "clips.csv")["scores"]
    assert scores["event_f1"] == scores["segment_f1"] == 1.0  # of the predicted recordings
    assert caplog.messages == ["1 recordings of --durations were not predicted, and are left out: elsewhere"]
    assert scores["psds1"] == scores["psds2"] == pytest.approx(1.0)


def test_recordings_that_nobody_annotated_are_no_silence(run, caplog):
    Path("truth.csv").write_text(TRUTH)
    Path("found.csv").write_text(TRUTH + "c.wav,0,1,wren\n")
    Path("clips.csv").write_text("clip_id,duration,annotated\na,10,1\nb,10,\nc,10,0\n")
    found = run("events", "--found", "found.csv", "--truth", "truth.csv", "--durations", "clips.csv")
    assert found["scores"]["event_f1"] == 1.0, "what was found in c may be right"
    assert all(row["event_precision"] == row["event_recall"] == 1 for row in found["classes"])
    assert "clips.csv: 1 recordings are not annotated and are left out" in caplog.text


def test_durations_cut_both_tables_to_the_recordings_that_they_name(run, caplog):
    Path("truth.csv").write_text(TRUTH)
    Path("found.csv").write_text(TRUTH + "c.wav,0,1,wren\n")
    Path("two.csv").write_text("filename,duration\nb,10\nsilent,10\n")
    found = run("events", "--found", "found.csv", "--truth", "truth.csv", "--durations", "two.csv")
    assert found["scores"]["event_f1"] == 1.0
    assert sum(row["true_events"] for row in found["classes"]) == 1
    assert "2 recordings with found events (3 of 4 events) are not among those to score (--durations)" in caplog.text
    assert "1 recordings with true events (2 of 3 events) are not among those" in caplog.text
    assert "left out: a, c" in caplog.text


def test_names_that_never_meet_are_shown_of_both_sides(run, caplog):
    Path("truth.csv").write_text(TRUTH)
    Path("found.csv").write_text("filename,onset,offset,label\nx1,1,2,wren\n")
    Path("lengths.csv").write_text("filename,duration\nx1,10\n")
    with pytest.raises(ValueError, match=r"true events is among .* the names the same \(a, b here, x1 there\)"):
        run("events", "--found", "found.csv", "--truth", "truth.csv", "--durations", "lengths.csv")
    Path("lengths.csv").write_text("filename,duration\nx1,10\na,10\n")
    run("events", "--found", "found.csv", "--truth", "truth.csv", "--durations", "lengths.csv")
    assert "no recording has both found and true events: are the names the same (x1 here, a there)?" in caplog.text
    assert "seconds" not in caplog.text
    with pytest.raises(ValueError, match=r"names the same \(x1 here, a, b there\)"):
        run("events", "--found", "found.csv", "--truth", "truth.csv")


@pytest.mark.parametrize(
    "truth",
    [
        'clip_id,labels\na,"robin,owl"\nb,wren\nc,owl\n',
        "clip_id,labels\na,Robin;Owl\nb,Wren\nc,owl\n",
        "clip_id,labels\na,\"['robin', 'owl']\"\nb,['wren']\nc,['owl']\n",
        "clip_id,labels\na.wav,robin owl\nb.wav,wren\nc.wav,owl\n",
        "clip_id,labels,secondary_labels\na,robin,owl\nb,wren,\nc,owl,\n",
        "clip_id,owl,robin,wren\na,1,1,0\nb,0,0,1\nc,1,0,0\n",
    ],
)
def test_true_tags_as_people_write_them(run, caplog, truth):
    Path("truth.csv").write_text(truth)
    Path("found.csv").write_text("clip_id,robin,wren,owl\na,0.9,0.1,0.6\nb,0.1,0.8,0.1\nc,0.2,0.3,0.7\n")
    result = run("tags", "--found", "found.csv", "--truth", "truth.csv")
    assert result["scores"]["map"] == 1.0
    assert [row["clips"] for row in result["classes"]] == [1, 1, 2]
    assert "left out" not in caplog.text


def test_tags_of_a_table(run, caplog):
    Path("found.csv").write_text("clip_id,cat,dog,note\n1,0.9,0.2,x\n2,0.1,0.8,y\n3,0.4,0.6,z\n")
    Path("truth.csv").write_text("clip_id,labels\n1,cat\n2,dog\n3,cat dog\n9,cow\n")
    found = run("tags", "--found", "found.csv", "--truth", "truth.csv")
    assert found["scores"]["map"] == 1.0
    assert [row["label"] for row in found["classes"]] == ["cat", "dog"]


def test_anomalies_by_section(run):
    Path("found.csv").write_text("clip_id,score\n1,0.1\n2,0.9\n3,0.2\n4,0.3\n")
    Path("truth.csv").write_text("clip_id,is_anomaly,machine\n1,0,fan\n2,1,fan\n3,1,pump\n4,0,pump\n")
    found = run("anomalies", "--found", "found.csv", "--truth", "truth.csv")
    assert [row["auc"] for row in found["classes"]] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "found", "truth", "message"),
    [
        ("events", "filename,onset,offset,label\nz.wav,0,1,wren\n", TRUTH, "none of the recordings .* names the same"),
        ("events", "onset,offset,label\n0,1,wren\n", TRUTH, "no column such as filename"),
        ("tags", "clip_id,cat\n1,0.5\n", "clip_id,labels\n2,cat\n", "none of the 1 predicted clips .*1 here, 2 there"),
        ("tags", "clip_id,cat\n1,0.5\n", "clip_id,labels\n1,dog\n", r"class names the same \(cat here, dog there"),
        ("tags", "clip_id,cat\n1,high\n", "clip_id,labels\n1,cat\n", "no column of numbers"),
        ("tags", "clip_id,cat,dog\n1,0.5,1\n2,,0\n", "clip_id,labels\n1,cat\n", "column 'cat' holds 1 cell"),
        (
            "anomalies",
            "clip_id,score\n1,0.5\n",
            "clip_id,is_anomaly\n2,1\n",
            "none of the scored clips .*1 here, 2 there",
        ),
    ],
)
def test_what_does_not_belong_together_is_said(run, kind, found, truth, message):
    Path("found.csv").write_text(found)
    Path("truth.csv").write_text(truth)
    with pytest.raises(ValueError, match=message):
        run(kind, "--found", "found.csv", "--truth", "truth.csv")


def test_numbers_that_are_no_class_and_times_in_another_unit_are_said(run, caplog):
    Path("found.csv").write_text(",clip_id,cat,dog,fold\n0,1,0.9,0.2,3\n1,2,0.1,0.8,4\n")
    Path("truth.csv").write_text("clip_id,labels\n1,cat\n2,dog\n")
    found = run("tags", "--found", "found.csv", "--truth", "truth.csv")
    assert [row["label"] for row in found["classes"]] == ["cat", "dog", "fold"]
    assert "predicted classes that no clip of the truth has, and which count as wrong: fold" in caplog.text
    Path("truth.csv").write_text("filename,onset,offset,label\na.wav,1,2,wren\nb.wav,1,2,wren\n")
    Path("found.csv").write_text("filename,onset,offset,label\na.wav,1000,2000,wren\n")
    run("events", "--found", "found.csv", "--truth", "truth.csv")
    assert "no event that was found overlaps a true one" in caplog.text

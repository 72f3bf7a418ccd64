"""TUT Acoustic Scenes 2017: four published folds in tables without a header, the evaluation set, the output file."""

import numpy as np
import pandas as pd
import pytest

import make_folds
import prepare
import submit
from earshot.competitions import dcase2017_task1, get_competition
from earshot.data.prepared import load_data
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table
from scripts import run

SCENES = ("beach", "cafe/restaurant", "tram")
# two segments of each recording, eight recordings a scene: recordings 2k and 2k + 1 are held out in fold k + 1
CLIPS = [
    (f"audio/{letter}{recording:03d}_{start}_{start + 10}.wav", scene, f"{letter}{recording:03d}", 1 + recording // 2)
    for letter, scene in zip("bct", SCENES)
    for recording in range(8)
    for start in (0, 90)
]


def write(path, rows, ending="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ending.join("\t".join(row) for row in rows) + ending, newline="")


def download(folder, evaluate=True, leave_out=()):
    write(folder / "meta.txt", [clip[:3] for clip in CLIPS])
    for fold in range(1, 5):
        held = [clip for clip in CLIPS if clip[3] == fold]
        train = [clip[:2] for clip in CLIPS if clip[3] != fold and clip[0] not in leave_out]
        write(folder / f"evaluation_setup/fold{fold}_train.txt", train)
        write(folder / f"evaluation_setup/fold{fold}_test.txt", [clip[:1] for clip in held], "\r\n")
        if evaluate:
            write(folder / f"evaluation_setup/fold{fold}_evaluate.txt", [clip[:2] for clip in held])
    touch(folder, [clip[0] for clip in CLIPS])
    return folder


def touch(folder, names):
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def guess(ids, classes, best):
    scores = np.eye(len(classes), dtype=np.float32)[best]
    return Predictions(np.array(ids), tuple(classes), scores, np.zeros(len(ids), int), np.zeros(len(ids), bool))


@pytest.mark.parametrize("evaluate", [True, False])
def test_from_the_download_to_the_output_file(tmp_path, monkeypatch, capsys, evaluate):
    monkeypatch.chdir(tmp_path)
    download(tmp_path / "around/TUT-acoustic-scenes-2017-development", evaluate)
    run(prepare, "tut2017", "--source", "around")
    assert "48 clips" in capsys.readouterr().out
    run(make_folds, "--clips", "data/tut2017/clips.csv", "--out", "folds/tut2017.csv")
    folds = read_table("folds/tut2017.csv").set_index("clip_id").fold
    assert folds.to_dict() == {clip[0][6:-4]: clip[3] - 1 for clip in CLIPS}
    clips = read_table("data/tut2017/clips.csv")
    assert clips.group.nunique() == 24
    assert not clips.groupby("group").official_fold.nunique().gt(1).any()
    assert sorted(set(clips.labels)) == list(SCENES)
    assert read_table("data/tut2017/classes.csv").label.tolist() == list(SCENES)
    test, truth = read_table("data/tut2017/test.csv"), read_table("data/tut2017/truth.csv")
    best = [SCENES.index(scene) for scene in truth.scene_label]
    best[0] = 2
    guess(test.clip_id, SCENES, best).save("oof.npz")
    arguments = ("--competition", "tut2017", "--test", "data/tut2017/test.csv")
    run(submit, *arguments, "--predictions", "oof.npz", "--out", "submissions/s.csv")
    output = tmp_path / "submissions/s_files/LASTNAME_INSTITUTE_task1_1.output.csv"
    run(submit, *arguments, "--check", output)
    first = output.read_text().split("\n")[0]
    assert first == "audio/b000_0_10.wav\ttram"
    found = get_competition("tut2017").score(read_table("submissions/s.csv"), truth)
    assert found["class_mean_accuracy"] == pytest.approx((15 / 16 + 2) / 3)


def test_the_evaluation_set_is_the_test(tmp_path):
    development = download(tmp_path / "development")
    names = [f"audio/{i}.wav" for i in range(4)]
    write(tmp_path / "evaluation/evaluation_setup/test.txt", [(n,) for n in names])
    touch(tmp_path / "evaluation", names[:3])
    tables = dcase2017_task1.prepare(development, evaluation=str(tmp_path / "evaluation"))
    assert tables.test.to_dict("list") == {"filename": names, "clip_id": list("0123")}
    assert (len(tables.clips), len(tables.test_clips), len(tables.missing), tables.truth) == (48, 4, 1, None)
    write(tmp_path / "evaluation/evaluation_setup/evaluate.txt", [(n, "tram") for n in names])
    tables = dcase2017_task1.prepare(development, evaluation=str(tmp_path / "evaluation"))
    assert tables.truth.scene_label.tolist() == ["tram"] * 4


def test_lists_that_disagree_are_named(tmp_path, caplog):
    source = download(tmp_path, leave_out=(CLIPS[0][0],))
    extra = [*(clip[:3] for clip in CLIPS[1:]), ("audio/x001_0_10.wav", "tram", "x001")]
    write(source / "meta.txt", extra)
    tables = dcase2017_task1.prepare(source)
    assert "meta.txt lacks 1 clips of the folds" in caplog.text
    assert "1 clips of meta.txt are in no fold" in caplog.text
    assert "fold2_train.txt lacks 1 clips of the other folds, which train here: audio/b000_0_10.wav" in caplog.text
    assert "fold1_train.txt" not in caplog.text, "that fold holds the clip out"
    row = tables.clips.set_index("filename").loc[CLIPS[0][0]]
    assert (row.labels, row.group, row.official_fold) == ("beach", "b000", 1)


def test_wrong_lists_are_errors(tmp_path):
    source = download(tmp_path)
    setup = source / "evaluation_setup"
    held = [clip[:2] for clip in CLIPS if clip[3] == 2]
    cases = [
        ("fold2_evaluate.txt", [*held, CLIPS[0][:2]], "1 clips are held out in two folds: audio/b000_0_10.wav"),
        ("fold2_evaluate.txt", [("audio/b002_0_10.wav",)], "a row needs filename, scene_label, got 'audio/b002_0_10"),
        ("fold1_train.txt", [CLIPS[0][:2]], "fold1_train.txt lists 1 clips that fold 1 holds out: audio/b000_0_10.wav"),
    ]
    for name, rows, message in cases:
        before = (setup / name).read_text()
        write(setup / name, rows)
        with pytest.raises(ValueError, match=message):
            dcase2017_task1.prepare(source)
        (setup / name).write_text(before)
    (setup / "fold3_train.txt").unlink()
    with pytest.raises(ValueError, match=r"fold3_train\.txt does not exist"):
        dcase2017_task1.prepare(source)
    with pytest.raises(ValueError, match=r"meta\.txt does not exist; is --source the folder"):
        dcase2017_task1.prepare(tmp_path / "nowhere")


def test_a_prepared_table_is_read_back(tmp_path, monkeypatch):
    """The scene with a slash in its name is a class like any other."""
    monkeypatch.chdir(tmp_path)
    from earshot.config import load_config

    run(prepare, "dcase2017_task1", "--source", download(tmp_path / "d"), "--out", "data")
    run(make_folds, "--clips", "data/clips.csv", "--out", "folds.csv")
    options = ["data.root=data", "data.folds=folds.csv", "data.competition=dcase2017_task1", "task=scenes"]
    data = load_data(load_config(None, options).data)
    assert list(data.classes) == list(SCENES)
    assert pd.DataFrame(data.target).sum().tolist() == [16, 16, 16]

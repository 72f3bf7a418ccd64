"""Splits and folds of one's own recordings, by files that list them and by folders."""

import pytest

from earshot.competitions.mine import prepare
from own_folders import record as record_of

FOUR = ("a.wav", "b.wav", "c.wav", "d.wav")
LABELS = "file,label\na,x\nb,y\nc,x\nd,y\n"


def record(folder, *names):
    record_of(folder, *names, seconds=2.0)


@pytest.mark.parametrize(
    "files",
    [
        {"labels.csv": LABELS, "train.txt": "a.wav\nb.wav\n", "test.txt": "c.wav\nd.wav\n"},
        {"labels.csv": LABELS, "splits/train_list.txt": "a.wav 0\nb.wav 1\n", "splits/test_list.txt": "c.wav 0\nd 1\n"},
        {"labels.csv": LABELS, "dev.csv": "file,k\na,1\nb,1\n", "eval.csv": "file,k\nc,1\nd,1\n"},
        {"train.csv": "file,label\na,x\nb,y\n", "test.csv": "file,label\nc,x\nd,y\n",
         "sample_submission.csv": "file,label\nc,x\nd,x\n"},
        {"train.json": '{"data": [{"wav": "a.wav", "labels": "x"}, {"wav": "b.wav", "labels": "y"}]}',
         "eval.json": '{"data": [{"wav": "c.wav", "labels": "x"}, {"wav": "d.wav", "labels": "y"}]}'},
        {"train.txt": "a.wav\tx\nb.wav\ty\n", "test.txt": "c.wav\tx\nd.wav\ty\n"},
        {"train.csv": "filename,onset,offset,event_label\na.wav,0,1,x\nb.wav,0,1,y\n",
         "test.csv": "filename,onset,offset,event_label\nc.wav,0,1,x\nd.wav,0,1,y\n"},
    ],
)  # fmt: skip
def test_files_that_list_recordings_are_splits(tmp_path, said, files):
    record(tmp_path, *FOUR)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    tables = prepare(tmp_path)
    assert dict(tables.clips[["clip_id", "labels"]].itertuples(index=False)) == {"a": "x", "b": "y"}
    assert dict(tables.test_clips[["clip_id", "labels"]].itertuples(index=False)) == {"c": "x", "d": "y"}
    assert "are not read" not in said.text


def test_lists_of_folds_say_which_holds_a_recording_out(tmp_path):
    """As DCASE has them, whose lists of a test have no labels and those of its evaluation do."""
    record(tmp_path, *FOUR)
    (tmp_path / "meta.txt").write_text("a.wav\tx\nb.wav\ty\nc.wav\tx\nd.wav\ty\n")
    for fold, (train, test) in {1: ("ab", "cd"), 2: ("cd", "ab")}.items():
        (tmp_path / f"fold{fold}_train.txt").write_text("".join(f"{name}.wav\tx\n" for name in train))
        (tmp_path / f"fold{fold}_test.txt").write_text("".join(f"{name}.wav\n" for name in test))
    assert prepare(tmp_path).clips.official_fold.tolist() == [2, 2, 1, 1]
    record(tmp_path, "e.wav")  # in no list
    assert prepare(tmp_path).clips.official_fold.map(str).tolist() == ["2", "2", "1", "1", "-1"]


@pytest.mark.parametrize(("train", "test"), [("audio/train", "audio/test"), ("dev_audio", "eval_audio")])
def test_folders_are_the_split_of_tables_and_annotations_too(tmp_path, train, test):
    """As URBAN-SED and many of Kaggle's have them."""
    record(tmp_path, f"{train}/a.wav", f"{train}/b.wav", f"{test}/c.wav")
    (tmp_path / "labels.csv").write_text("file,label\na,x\nb,y\n")
    tables = prepare(tmp_path)
    assert tables.clips.labels.tolist() == ["x", "y"]
    assert tables.test_clips.clip_id.tolist() == [f"{test}/c"]
    (tmp_path / "labels.csv").unlink()
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("0\t1\tx\n")
    assert prepare(tmp_path).truth.filename.tolist() == [f"{test}/c"]


@pytest.mark.parametrize("name", ["metadata.csv", "{}.csv"])
def test_tables_in_the_folders_of_their_recordings(tmp_path, name):
    """As Hugging Face has them; a table means the recordings of its own folder."""
    record(tmp_path, *(f"{split}/{i}.wav" for split in ("train", "test") for i in (1, 2)))
    for split, labels in (("train", "xy"), ("test", "yx")):
        rows = "".join(f"{i}.wav,{label}\n" for i, label in enumerate(labels, start=1))
        (tmp_path / split / name.format(split)).write_text(f"file_name,label\n{rows}")
    tables = prepare(tmp_path)
    assert dict(tables.clips[["clip_id", "labels"]].itertuples(index=False)) == {"train/1": "x", "train/2": "y"}
    assert dict(tables.test_clips[["clip_id", "labels"]].itertuples(index=False)) == {"test/1": "y", "test/2": "x"}


def test_lists_that_part_nothing(tmp_path, said):
    record(tmp_path, *FOUR)
    (tmp_path / "test_labels.csv").write_text(LABELS)
    assert len(prepare(tmp_path).clips) == 4
    assert "no split is made of these lists: no recording with a label would train" in said.text
    (tmp_path / "test_labels.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "train.txt").write_text("a.wav\n")
    assert "split" not in prepare(tmp_path).clips
    (tmp_path / "eval_results.csv").write_text("file,score\na,0.5\nb,0.7\n")
    assert "split" not in prepare(tmp_path).clips
    (tmp_path / "test.txt").write_text("b.wav\n")
    assert prepare(tmp_path).clips.clip_id.tolist() == ["a", "c", "d"]
    assert "2 recordings are in no list of a split, and train: c.wav, d.wav" in said.text


@pytest.mark.parametrize("place", ["fold{}/{}/{}.wav", "{1}/fold{0}/{2}.wav", "all/{1}/fold_{0}/x/{2}.wav"])
def test_folders_of_folds_around_or_in_those_of_classes(tmp_path, place):
    for fold, label, name in ((1, "wren", "a"), (1, "robin", "b"), (2, "wren", "c"), (2, "robin", "d")):
        record(tmp_path, place.format(fold, label, name))
    clips = prepare(tmp_path).clips
    found = sorted(zip(clips.clip_id.str[-1], clips.labels, clips.official_fold, strict=True))
    assert found == [("a", "wren", 1), ("b", "robin", 1), ("c", "wren", 2), ("d", "robin", 2)]


def test_recordings_of_nothing_train_as_such(tmp_path, said):
    record(tmp_path, "wren/a.wav", "nocall/b.wav")
    clips = prepare(tmp_path).clips
    assert clips[["labels", "annotated"]].values.tolist() == [["", "1"], ["wren", ""]]
    assert "1 recordings labelled nocall hold none of the classes" in said.text
    (tmp_path / "nocall/b.wav").rename(tmp_path / "b.wav")
    with pytest.raises(ValueError, match="nothing says what the 2 recordings"):
        prepare(tmp_path)
    assert "put those without wren into a folder nocall" in said.text

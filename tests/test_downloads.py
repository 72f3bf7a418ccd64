"""Downloads as copies of them rearrange them: one more folder, fewer folders, other endings, several sample rates."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest

import prepare
from earshot.competitions import get_competition
from earshot.competitions.downloads import choose_rate, inner_folder, located, plain, rate_of, root_of
from earshot.sound import audio
from earshot.tables import read_table
from scripts import run

META = pd.DataFrame({
    "filename": ["1-100032-A-0.wav", "2-100038-A-14.wav"], "fold": [1, 2], "target": [0, 14],
    "category": ["dog", "chirping_birds"], "esc10": ["True", "False"], "src_file": ["100032", "100038"],
})  # fmt: skip


def touch(*paths: Path):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("table", "folder", "ending"),
    [
        ("meta/esc50.csv", "audio", ".wav"),
        ("esc50.csv", "audio/audio", ".wav"),
        ("esc50.csv", "audio/audio/44100", ".wav"),
        ("esc50.csv", ".", ".WAV"),
        ("ESC-50-master/meta/esc50.csv", "ESC-50-master/audio", ".wav"),
        ("esc50/esc50/esc50.csv", "esc50/esc50/audio/audio", ".Ogg"),
    ],
)
def test_esc50_as_copies_have_it(tmp_path, table, folder, ending):
    (tmp_path / table).parent.mkdir(parents=True, exist_ok=True)
    META.to_csv(tmp_path / table, index=False)
    touch(*(tmp_path / folder / (Path(name).stem + ending) for name in META.filename))
    if "44100" in folder:
        touch(*(tmp_path / "audio/audio/16000" / name for name in META.filename))
    tables = get_competition("esc50").prepare(tmp_path)
    assert tables.clips.path.tolist() == [
        (PurePosixPath(folder) / (Path(name).stem + ending)).as_posix() for name in META.filename
    ]
    assert tables.clips.clip_id.tolist() == ["1-100032-A-0", "2-100038-A-14"]
    assert tables.missing == ()


def test_prepare_reads_what_lies_one_folder_deeper(tmp_path, monkeypatch):
    """dataset.json keeps the source that was given: paths are relative to it, and a second call is no other source."""
    monkeypatch.chdir(tmp_path)
    for name in META.filename:
        audio.write(tmp_path / "source/ESC-50-master/audio" / name, np.zeros(800, np.float32), 8000)
    (tmp_path / "source/ESC-50-master/meta").mkdir()
    META.to_csv(tmp_path / "source/ESC-50-master/meta/esc50.csv", index=False)
    for _ in range(2):
        run(prepare, "esc50", "--source", tmp_path / "source")
    clips = read_table("data/esc50/clips.csv")
    assert clips.path[0] == "ESC-50-master/audio/1-100032-A-0.wav"
    assert clips.duration.tolist() == [0.1, 0.1]


def test_several_downloads_below_one_folder_are_refused(tmp_path):
    for name in ("a", "b"):
        touch(tmp_path / name / "train.csv")
    with pytest.raises(ValueError, match="holds several downloads: a, b; give one of them as --source"):
        root_of(tmp_path, ("train.csv",))
    touch(tmp_path / "train.csv")
    assert root_of(tmp_path, ("train.csv",)) == tmp_path
    assert root_of(tmp_path / "a", ("other.csv",)) == tmp_path / "a"


def test_a_recording_is_never_taken_from_another_part(tmp_path):
    """test/1.wav is not train/1.wav; two clips are never one file; a folder of labels may be gone."""
    touch(tmp_path / "train/1.wav", tmp_path / "train_audio/XC1.ogg", tmp_path / "train_audio/crow/XC2.ogg")
    paths = ["test/1.wav", "train_audio/wren/XC1.mp3", "train_audio/wren/XC2.ogg", "train_audio/crow/XC2.ogg"]
    clips = pd.DataFrame({"clip_id": list("abcd"), "path": paths})
    assert located(clips, tmp_path).path.tolist() == [
        "test/1.wav", "train_audio/XC1.ogg", "train_audio/wren/XC2.ogg", "train_audio/crow/XC2.ogg",
    ]  # fmt: skip
    twins = pd.DataFrame({"clip_id": ["a", "b"], "path": ["train_audio/wren/XC1.ogg", "train_audio/crow/XC1.ogg"]})
    assert located(twins, tmp_path).path.tolist() == twins.path.tolist()


def test_one_sample_rate_for_all(caplog):
    assert [rate_of(n) for n in ("audio_16k", "44100", "audio16k", "fold1", "strong_16kHz", "2021")] == [
        16000, 44100, float("inf"), float("inf"), 16000, float("inf"),
    ]  # fmt: skip
    assert plain("Strong_16k") == "strong"
    some = {"a": ["audio/a.wav", "audio_16k/a.wav"], "b": ["audio/b.wav", "audio_16k/b.wav"]}
    candidates = {key: [PurePosixPath(p) for p in paths] for key, paths in some.items()}
    assert choose_rate(candidates) == {"a": "audio/a.wav", "b": "audio/b.wav"}
    del candidates["b"][0]
    assert choose_rate(candidates) == {"a": "audio_16k/a.wav", "b": "audio_16k/b.wav"}
    assert "several sample rates" not in caplog.text
    del candidates["a"][1]
    assert choose_rate(candidates) == {"a": "audio/a.wav", "b": "audio_16k/b.wav"}
    assert "1 as published, 1 of a folder named 16000 Hz" in caplog.text


def test_freesound_clips_that_the_sample_does_not_name(tmp_path, caplog):
    """The sample submission is shorter than the folder of the test; spellings differ between tables."""
    pd.DataFrame([("a.wav", "hi-Hat"), ("b.wav", "Flute")], columns=["fname", "labels"]).to_csv(
        tmp_path / "train_curated.csv", index=False
    )
    pd.DataFrame([("t2.wav", 0, 0)], columns=["fname", "Flute", "Hi-Hat"]).to_csv(
        tmp_path / "sample_submission.csv", index=False
    )
    touch(*(tmp_path / p for p in ("train_curated/a.wav", "train_curated/b.wav", "test/t1.wav", "test/t2.wav")))
    tables = get_competition("freesound2019").prepare(tmp_path)
    assert tables.test.fname.tolist() == ["t2.wav", "t1.wav"]
    assert tables.clips.labels.tolist() == ["Hi-Hat", "Flute"]
    assert "does not name 1 recordings of the test folder, which get rows too: t1.wav" in caplog.text


def test_a_folder_counts_in_any_case_as_published_first(tmp_path):
    assert inner_folder(tmp_path, "test") == "test"
    touch(tmp_path / "TEST/x.wav", tmp_path / "Audio/AUDIO/x.wav", tmp_path / "audio_2")
    assert inner_folder(tmp_path, "test") == "TEST"
    assert inner_folder(tmp_path, "audio_2", "audio") == "Audio/AUDIO"
    (tmp_path / "test").mkdir()
    assert inner_folder(tmp_path, "test") == "test"


def test_lists_of_segments_in_every_spelling(tmp_path):
    from earshot.competitions.audioset import read_segments

    rows = "\n".join(('--a1,30.000,40.000,"/m/09x0r,/t/dd00088"', "-b2, 0.000, 10.000, /m/012xff , /m/09x0r"))
    heads = ("", "# made\n# YTID, start\n", "YTID,start_seconds,end_seconds,positive_labels\n",
             "\ufeffvideo,from,to,labels\r\n", "\ufeff# made\n")  # fmt: skip
    for head in heads:
        path = tmp_path / "list.csv"
        path.write_text(head + rows + "\n" + rows.split("\n")[0] + "\n\n", encoding="utf-8")
        table = read_segments(path)
        assert table.clip_id.tolist() == ["--a1", "-b2"]
        assert table.mids.tolist() == ["/m/09x0r,/t/dd00088", "/m/012xff,/m/09x0r"]
    path.write_text(rows + "\nonly,three,fields\n")
    with pytest.raises(ValueError, match="is not a list of segments"):
        read_segments(path)


def test_gtzan_without_folders_of_genres(tmp_path):
    from earshot.competitions import gtzan

    touch(*(tmp_path / f"{g}.{i:05d}.AU" for g in gtzan.GENRES for i in range(2)), tmp_path / "copy/blues.00000.au")
    tables = gtzan.prepare(tmp_path)
    assert len(tables.clips) == 20
    assert tables.clips.labels[0] == "blues"

"""prepare.py and make_folds.py as their users call them."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import make_folds
import prepare
from earshot.competitions import headers
from earshot.competitions.tables import Tables, class_name, read_dataset, write_csv, write_tables
from earshot.config import DataConfig
from earshot.data.folds import read_folds
from earshot.data.labels import read_classes, read_clips
from earshot.data.prepared import load_data
from earshot.messages import pasted
from earshot.sound import audio
from earshot.tables import read_table

SRC = Path(prepare.__file__).parent


def call(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


@pytest.fixture
def download(tmp_path):
    """ESC-50's layout: ten clips of two rates, a copy under another name, a broken file, and a missing one."""
    folder = tmp_path / "esc"
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        name = f"{i % 2 + 1}-{i}-A-{i % 3}.wav"
        rows.append((name, i % 2 + 1, i % 3, ("dog", "sea waves", "pig")[i % 3], False, i // 2))
        rate = 16000 if i < 4 else 8000
        audio.write(folder / "audio" / name, 0.1 * rng.standard_normal(rate // 4 * (1 + i % 2)), rate)
    copy = folder / "audio" / rows[7][0]
    copy.write_bytes((folder / "audio" / rows[4][0]).read_bytes())
    (folder / "audio" / rows[5][0]).write_text("<html>404 Not Found</html>")
    (folder / "audio" / rows[6][0]).unlink()
    columns = ["filename", "fold", "target", "category", "esc10", "src_file"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "meta.csv", index=False)
    return folder


def test_prepare_writes_the_tables_and_says_what_it_found(monkeypatch, capsys, download, tmp_path):
    out = tmp_path / "data" / "esc50"
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out)
    said = capsys.readouterr().out
    assert (
        "esc50: 11 clips of 0.25 to 0.5 s, 1 of them unreadable, 0.00 h, 8000 Hz (6) + 16000 Hz (4), 3 classes" in said
    )
    assert "clips a class: 3 (dog) to 4 (sea_waves)" in said
    assert "classes: dog (3), sea_waves (4), pig (3)" in said, "of four clips of pigs one cannot be read"
    assert "missing (missing.csv): 1 file: audio/1-6-A-0.wav" in said
    assert "unreadable (unreadable.csv; never trained on): 1 file: audio/2-5-A-2.wav" in said
    assert read_classes(out / "classes.csv") == ["dog", "sea_waves", "pig"]
    clips = read_clips(out / "clips.csv").set_index("clip_id")
    assert clips.sample_rate["1-0-A-0"] == 16000
    assert clips.duration["2-1-A-1"] == 0.5
    assert np.isnan(clips.duration["2-5-A-2"])  # it stays, so that it gets a row in the OOF
    assert "it is text that begins with '<html>404" in read_table(out / "unreadable.csv").reason[0]
    assert read_table(out / "missing.csv").clip_id.tolist() == ["1-6-A-0"]
    about = read_dataset(out)
    assert about.pop("command")[:2] == ["esc50", "--source"]
    assert about == {"competition": "esc50", "source": str(download.resolve()), "task": "tagging"}
    assert b"\r" not in (out / "clips.csv").read_bytes()
    assert not list(out.glob(".*"))


def test_prepare_twice_gives_the_same_bytes_and_drops_old_listings(monkeypatch, download, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out)
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out)
    assert first == {p.name: p.read_bytes() for p in out.iterdir()}
    for name in ("1-6-A-0.wav", "2-5-A-2.wav"):
        audio.write(download / "audio" / name, np.zeros(100), 8000)
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out)
    assert {p.name for p in out.iterdir()} == set(first) - {"missing.csv", "unreadable.csv"}


@pytest.mark.parametrize(("wait", "decode", "threads"), [(0, False, 1), (0.005, False, 3), (0, True, 3)])
def test_recordings_are_examined_in_order_by_threads_where_that_helps(monkeypatch, tmp_path, wait, decode, threads):
    """Files that open at once are opened by one: threads would only wait for each other."""
    handed = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers):
            handed.append(workers)
            super().__init__(workers)

        def map(self, function, parts):
            handed.append(max(map(len, parts), default=0))
            return super().map(function, parts)

    monkeypatch.setattr(headers, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(headers, "examine", lambda path, whole: (time.sleep(wait), (path, whole))[1])
    for n in (0, 1, 5, 100):
        paths = [f"r{i}.wav" for i in range(n)]
        found = list(headers.examined(paths, tmp_path, decode, workers=3))
        assert found == [(tmp_path / path, decode) for path in paths]
    assert handed[-2] == threads
    assert 1 < handed[-1] <= 16, "recordings that a thread takes at a time"


def test_headers_of_a_table_without_rows_and_of_files_that_are_not_there(tmp_path):
    (tmp_path / "odd.wav").write_text("no sound")
    clips = pd.DataFrame({"clip_id": ["a", "b"], "path": ["gone.wav", "odd.wav"], "labels": ["x", "x"]})
    tables = Tables(clips=clips, classes=("x",), unlabelled=clips.iloc[:0])
    read = headers.with_headers(tables, tmp_path, decode=False, workers=2)
    assert read.unreadable[["clip_id", "path"]].to_dict("records") == [{"clip_id": "b", "path": "odd.wav"}]
    assert read.clips.duration.isna().all()
    assert {"sample_rate", "duration"} <= set(read.unlabelled)


def test_check_audio_finds_copies_and_make_folds_tells(monkeypatch, capsys, download, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out, "--check-audio")
    clips = read_clips(out / "clips.csv").set_index("clip_id")
    assert clips.content_hash["1-4-A-1"] == clips.content_hash["2-7-A-1"]
    assert clips.content_hash.nunique() == 10  # nine contents, and the empty text of the broken file
    assert clips.content_hash["2-5-A-2"] == ""
    capsys.readouterr()
    call(monkeypatch, make_folds, "--clips", out / "clips.csv", "--out", tmp_path / "folds.csv")
    said = capsys.readouterr().out
    assert "11 clips, 6 groups, 3 classes -> 2 folds (official)" in said
    assert f"folds 0, 1 share content_hash {clips.content_hash['1-4-A-1']}: 1-4-A-1, 2-7-A-1" in said


def test_resample_once(monkeypatch, download, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out, "--resample", 4000)
    clips = read_clips(out / "clips.csv").set_index("clip_id")
    assert audio.info(download / clips.path["1-0-A-0"]).sample_rate == 4000
    assert clips.sample_rate.dropna().unique().tolist() == [4000]
    assert audio.info(clips.path["2-1-A-1"]).duration == pytest.approx(0.5)
    assert clips.path["2-5-A-2"] == str(download / "audio" / "2-5-A-2.wav")  # the broken one


@pytest.mark.parametrize("pack", [(), ("--pack", 0.5)], ids=["files", "packed"])
def test_copies_keep_both_sides_when_asked(monkeypatch, download, tmp_path, pack):
    """Left louder than right: a stereo copy has both, a mono one their mean, and a stereo run says what it lacks."""
    left = np.linspace(-0.5, 0.5, 2000).astype(np.float32)
    audio.write(download / "audio" / "1-0-A-0.wav", np.stack([left, 0.2 * left]), 8000)
    arguments = ("esc50", "--source", download, "--resample", 8000, *pack)
    for out, options, expected in (("m", (), [0.6 * left] * 2), ("s", ("--channels", "stereo"), [left, 0.2 * left])):
        call(monkeypatch, prepare, *arguments, "--out", tmp_path / out, *options)
        call(monkeypatch, make_folds, "--clips", tmp_path / out / "clips.csv", "--out", tmp_path / f"{out}.csv")
        path = read_clips(tmp_path / out / "clips.csv").set_index("clip_id").path["1-0-A-0"]
        heard = audio.load(path, 8000, mono=False)
        sides = np.broadcast_to(np.atleast_2d(heard), (2, heard.shape[-1]))[:, :2000]
        np.testing.assert_allclose(sides, expected, atol=1e-4)
    settings = {"competition": "esc50", "channels": "stereo", "sample_rate": 8000}
    load_data(DataConfig(root=str(tmp_path / "s"), folds=str(tmp_path / "s.csv"), **settings))
    with pytest.raises(ValueError, match=r"data.channels is stereo, but the copies .* are mono: .* --channels stereo"):
        load_data(DataConfig(root=str(tmp_path / "m"), folds=str(tmp_path / "m.csv"), **settings))
    with pytest.raises(ValueError, match="--channels is of the copies that --resample HZ makes"):
        call(monkeypatch, prepare, "esc50", "--source", download, "--out", tmp_path / "x", "--channels", "stereo")


def test_prepare_keeps_another_data_set_safe(monkeypatch, download, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, prepare, "esc50", "--source", download, "--out", out)
    other = tmp_path / "other"
    download.rename(other)
    with pytest.raises(
        ValueError, match="holds 'esc50' made from .*; choose another --out, or replace it with --force"
    ):
        call(monkeypatch, prepare, "esc50", "--source", other, "--out", out)
    call(monkeypatch, prepare, "esc50", "--source", other, "--out", out, "--force")
    assert read_dataset(out)["source"] == str(other)


def test_errors_of_the_command_line(monkeypatch, download, tmp_path):
    for arguments, message in (
        (["esc51"], "unknown competition 'esc51'; did you mean 'esc50'"),
        (["mine2", "--group-column", "site"], "unknown competition 'mine2'; did you mean 'mine'"),
        (["esc50"], "esc50 needs --source"),
        (["esc50", "--source", tmp_path / "no"], "--source .*no is not a folder"),
        (["esc50", "--source", download, "--seed", 1], "esc50 generates nothing: leave out --seed"),
        (["esc50", "--source", download, "--resample", -5], "--resample must be 1 or more, got -5"),
        (["esc50", "--source", download, "--resample", 8000, "--pack", "nan"], "--pack must be 0.001 or more, got nan"),
        (["synth", "--seed", -1], "--seed must lie in 0 ... 4294967295, got -1"),
        (["finch_vocal", "--source", download, "--backgrounds", tmp_path / "no"], "--backgrounds .*no is not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            call(monkeypatch, prepare, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flags_of_one_family_are_errors_elsewhere_and_in_its_own_help(monkeypatch, capsys, download):
    said = {}
    for name, arguments in (
        ("esc50", ["--source", download, "--backgrounds", download]),
        ("esc50", ["--help"]),
        ("finch_vocal", ["--help"]),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, prepare, name, *arguments)
        said[name, arguments[0]] = "".join(capsys.readouterr())
    assert f"esc50 has no --backgrounds {download}" in said["esc50", "--source"]
    assert "--snr-db SNR_DB" not in said["esc50", "--help"]
    assert "--snr-db SNR_DB" in said["finch_vocal", "--help"]


@pytest.mark.slow
def test_a_users_error_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, SRC / "prepare.py", "esc51"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown competition 'esc51'; did you mean 'esc50'? (a new edition is one row: "
        "docs/competitions.md#adding-one; "
        f"your own recordings: python {pasted(SRC / 'prepare.py')} mine --source FOLDER --out data/NAME)\n"
    )


def clip_table(path, labels, **columns):
    clips = pd.DataFrame(
        {"clip_id": [f"c{i:03d}" for i in range(len(labels))], "path": "x.wav", "labels": labels, **columns}
    )
    write_csv(clips, path)
    return clips


def test_make_folds_is_frozen(monkeypatch, capsys, tmp_path):
    labels = ["wren"] * 30 + ["crow owl"] * 12 + ["owl"] * 5 + ["rare"] * 2
    clips = clip_table(tmp_path / "clips.csv", labels, site=[f"s{i % 11}" for i in range(len(labels))])
    out = tmp_path / "folds" / "birds.csv"
    call(monkeypatch, make_folds, "--clips", tmp_path / "clips.csv", "--out", out)
    said = capsys.readouterr().out
    assert "49 clips, no groups, 4 classes -> 5 folds (multilabel)" in said
    assert "1 class has fewer groups than 5 folds (groups in brackets): rare (2)" in said
    assert said.count("holds no clip of 1 classes: rare") == 3
    assert "all clips" in said
    first = out.read_bytes()
    assert first.startswith(b"clip_id,group,fold\nc000,c000,")
    assert b"\r" not in first
    assert len(read_folds(out, clips)) == 49
    write_csv(clips.sample(frac=1, random_state=0), tmp_path / "clips.csv")
    call(monkeypatch, make_folds, "--clips", tmp_path / "clips.csv", "--out", out)
    assert "is unchanged" in capsys.readouterr().out
    again = ["--clips", tmp_path / "clips.csv", "--out", out, "--group", "site", "--k", "3"]
    with pytest.raises(ValueError, match="exists and differs: runs trained on it would not match"):
        call(monkeypatch, make_folds, *again)
    assert out.read_bytes() == first
    call(monkeypatch, make_folds, *again, "--force")
    assert "49 clips, 11 groups, 4 classes -> 3 folds (grouped)" in capsys.readouterr().out
    assert read_folds(out, clips).groupby("group").fold.nunique().max() == 1


def test_make_folds_shows_the_least_even_of_many_classes(monkeypatch, capsys, tmp_path):
    labels = [f"k{i % 40:02d}" for i in range(400)] + ["k07"] * 3
    clip_table(tmp_path / "clips.csv", labels, official_fold=[i // 40 % 5 + 1 for i in range(400)] + [1, 1, 1])
    command = ["--clips", tmp_path / "clips.csv", "--out", tmp_path / "f.csv"]
    call(monkeypatch, make_folds, *command)
    said = capsys.readouterr().out
    assert "of 40 classes the least even 1 are shown" in said
    assert [line.split() for line in said.splitlines() if line.startswith("k07")] == [["k07", *"5222213"[:5], "13"]]
    call(monkeypatch, make_folds, *command, "--ignore-official", "--force")
    assert "(stratified)" in capsys.readouterr().out
    assert "official_fold" not in read_table(tmp_path / "f.csv")


def test_the_finch_mixture_is_prepared_in_one_command(monkeypatch, capsys, shared_data, tmp_path):
    songs = tmp_path / "songs"
    songs.mkdir()
    (songs / "audio").symlink_to(shared_data / "finch_sed" / "audio")
    meta = read_table(shared_data / "finch_sed" / "meta.csv")
    meta = meta.sort_values("duration_s").groupby("split").head(2)
    events = read_table(shared_data / "finch_sed" / "events.csv")
    write_csv(meta, songs / "meta.csv")
    write_csv(events[events.filename.isin(meta.filename)], songs / "events.csv")
    out = tmp_path / "noisy"
    backgrounds = ["--backgrounds", shared_data / "esc50", "--snr-db", "-3", "--seed", "4"]
    call(monkeypatch, prepare, "finch_vocal", "--source", songs, *backgrounds, "--out", out)
    assert "test: 2 clips" in capsys.readouterr().out
    assert read_dataset(out)["source"] == str((out / "mixed").resolve())
    clips = read_clips(out / "clips.csv")
    assert clips.path.str.endswith(".flac").all()
    assert (clips.sample_rate == 32000).all()
    assert read_table(out / "mixed" / "meta.csv").snr_db.tolist() == [-3] * 6


def test_tables_check_themselves(tmp_path):
    clips = pd.DataFrame({"clip_id": ["a", "b"], "path": "x", "labels": "wren"})
    Tables(clips=clips, classes=["wren"])
    with pytest.raises(ValueError, match="clips table has no column 'labels'; did you mean 'label'"):
        Tables(clips=clips.rename(columns={"labels": "label"}), classes=["wren"])
    with pytest.raises(ValueError, match="clips table lists 1 clip twice: a"):
        Tables(clips=clips.assign(clip_id="a"), classes=["wren"])
    with pytest.raises(ValueError, match="'ant bird' cannot be a class name"):
        Tables(clips=clips, classes=["ant bird"])
    assert class_name(" ant  bird") == "ant_bird"
    with pytest.raises(ValueError, match=r"dataset\.json does not exist; make it with python src/prepare\.py COMP"):
        read_dataset(tmp_path)
    events = pd.DataFrame({"filename": ["a"], "onset": [0.5], "offset": [1.0], "event_label": ["wren"]})
    write_tables(
        Tables(clips=clips, classes=["wren"], events=events, missing=(("z", "z.wav"),)),
        tmp_path / "out",
        "birdcall",
        tmp_path,
    )
    assert read_table(tmp_path / "out" / "events.csv").onset.tolist() == [0.5]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["competition"] == "birdcall"


@pytest.mark.parametrize(("out", "command"), [
    ("data/mine", "new.py mine --like tagging/esc10_cnn"),
    ("data/my set", "new.py my_set --data 'data/my set' --like tagging/esc10_cnn"),
    ("other/mine", "new.py mine --data other/mine --like tagging/esc10_cnn"),
    ("-x (1)", "new.py x_1 --data '-x (1)' --like tagging/esc10_cnn"),
])  # fmt: skip
def test_the_next_command_can_be_run(out, command):
    clips = pd.DataFrame({"clip_id": ["a"], "path": ["a.wav"], "labels": ["x"]})
    assert prepare.next_command(Path(out), "mine", Tables(clips=clips, classes=["x"])) == f"next: python src/{command}"


def test_the_next_command_of_a_competition_quotes_its_paths():
    said = prepare.next_command(Path("my data/esc"), "esc50", None)
    assert said == "next: python src/make_folds.py --clips 'my data/esc/clips.csv' --out folds/esc.csv"

"""Every script asks for its place to write before it works; a file that cannot be read or written is no traceback."""

import errno
import importlib
import os
import sys
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd
import pytest

from earshot import files, script
from earshot.data.caches import LogmelCache, waveform_cache
from earshot.data.packed import packed_clips
from earshot.inputs.logmel import Logmel
from earshot.prediction.predictions import Predictions

SRC = Path(__file__).parents[1] / "src"
# What a user types for a target below "note.txt", a file; `RUN` is a folder below it or, read first, one that is there.
BELOW_A_FILE = {
    "bundle": "--runs RUN --competition synth --slug me/my-kernel --root note.txt/k",
    "competitions": None,  # writes nothing
    "compare": "plan.yaml --out note.txt/table",
    "bulk": "--run RUN --source source --out note.txt/found",
    "demo": None,  # writes into its own checkout alone
    "describe": "--config tiny.yaml --clips 1 --out note.txt/x.png",
    "audit": "--data data --folds folds.csv --out note.txt/audit",
    "detect": "--run RUN --clips source --out note.txt/found",
    "ensemble": "--runs RUN --out note.txt/x.npz",
    "export": "--run RUN --format onnx --out note.txt/graphs",
    "fewshot": "--config tiny.yaml --counts 1 --out note.txt/x.csv",
    "make_folds": "--clips data/clips.csv --out note.txt/folds.csv",
    "map_extractor": "--config tiny.yaml --labels labels.txt --out note.txt/x.safetensors",
    "new": "tiny --like tiny.yaml --data data --folds folds.csv --out note.txt/tiny.yaml",
    "predict": "--run RUN --clips source --out note.txt/x.npz",
    "prepare": "esc50 --source source --out note.txt/data",
    "pseudo_label": "--runs RUN --clips source --out note.txt/round1",
    "relabel": "--run RUN --out note.txt/targets.npz",
    "report": "--runs RUN --out note.txt/pictures",
    "runs": "--out note.txt/runs.csv",
    "review": "--run RUN --clips source --decisions note.txt/decisions.csv",
    "run_kernel": "--bundle RUN --competition birdcall --test-folder source --out note.txt/submission.csv",
    "run_rounds": "plan.yaml --out note.txt/rounds.csv",
    "score": "tags --found x.npz --truth data/clips.csv --out note.txt/scores.json",
    "score_anomalies": "--run RUN",
    "search": "search.yaml --out note.txt/search",
    "solution": "--run RUN --out note.txt/won",
    "soup": "--runs RUN RUN2 --name x",
    "submit": "--competition birdcall --predictions x.npz --test data/test.csv --out note.txt/submission.csv",
    "train": "--config tiny.yaml --fold 0",
}  # fmt: skip
GONE = {
    "bundle": "--runs gone --competition synth --slug me/my-kernel",
    "competitions": "gone",
    "bulk": "--run gone --source source --out found",
    "compare": "gone.yaml",
    "describe": "--config gone.yaml",
    "audit": "--data gone --folds folds.csv --out out",
    "detect": "--run gone --clips source --out found",
    "ensemble": "--runs gone --out x.npz",
    "export": "--run gone --format onnx",
    "fewshot": "--config gone.yaml",
    "make_folds": "--clips gone/clips.csv --out folds2.csv",
    "map_extractor": "--config gone.yaml --labels labels.txt --out x.safetensors",
    "new": "gone --like tiny.yaml",
    "predict": "--run gone --clips source",
    "prepare": "esc50 --source gone --out data2",
    "pseudo_label": "--runs gone --clips source --out out",
    "relabel": "--run gone",
    "report": "--runs gone --out pictures",
    "runs": "--root gone",
    "review": "--run gone --clips source",
    "run_kernel": "--bundle gone --competition birdcall --test-folder source",
    "run_rounds": "gone.yaml",
    "score": "tags --found gone.npz --truth data/clips.csv",
    "score_anomalies": "--run gone",
    "search": "gone.yaml",
    "solution": "--run gone --out won",
    "soup": "--runs gone gone2 --name x",
    "submit": "--competition birdcall --predictions gone.npz --test data/test.csv --out s.csv",
    "train": "--config tiny.yaml --fold 0 data.root=gone",
}


def refusal(name: str, arguments: str, monkeypatch, capsys) -> str:
    """What a script says as it ends with exit 2."""
    monkeypatch.setattr(sys, "argv", [name, *arguments.replace("RUN", "run").split()])
    with pytest.raises(SystemExit) as ended:
        run_script(importlib.import_module(name).main)
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert "error: " in said
    return said


def test_every_script_is_tried():
    scripts = {path.stem for path in SRC.glob("*.py")}
    assert scripts == set(BELOW_A_FILE) == {*GONE, "demo"}
    for stem in scripts:
        assert "run_script(main" in (SRC / f"{stem}.py").read_text()


@pytest.mark.parametrize("name", [name for name, arguments in BELOW_A_FILE.items() if arguments])
def test_a_place_that_cannot_be_written_is_said_before_work(name, tiny, monkeypatch, capsys):
    Path("note.txt").write_text("a note")
    Path("run").mkdir()
    if name in ("train", "soup"):
        Path("runs").write_text("a file where the folder of runs should be")
    if name == "score_anomalies":  # writes into the run alone
        Path("run/anomaly_scores.csv").mkdir()
    before = sorted(Path().rglob("*"))
    said = refusal(name, BELOW_A_FILE[name], monkeypatch, capsys)
    assert "cannot be written" in said or "is a folder" in said
    assert sorted(Path().rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("name", list(GONE))
def test_a_source_that_is_gone_is_an_error_not_a_traceback(name, tiny, monkeypatch, capsys):
    assert "gone" in refusal(name, GONE[name], monkeypatch, capsys)


def test_a_file_that_vanishes_midway_is_an_error(monkeypatch, capsys):
    def main():
        Path("gone/of/a/sudden").read_text()

    with pytest.raises(SystemExit):
        run_script(main)
    assert capsys.readouterr().err == "error: gone/of/a/sudden: No such file or directory\n"
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


def refuse_files_below(folder: Path, monkeypatch):
    """As a read-only file system does, for every user: no file below `folder` can be opened for writing."""

    def guarded(path, flags, mode=0o777, *, dir_fd=None):
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).absolute().is_relative_to(folder):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    real = os.open
    monkeypatch.setattr(os, "open", guarded)


def test_check_writable_leaves_nothing_and_names_what_is_wrong(tmp_path, monkeypatch):
    files.check_writable(tmp_path / "new/deep/x.npz", size=1000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"needs 10000000000\.0 GB, and .* GB are free"):
        files.check_writable(tmp_path / "x.npz", size=1e19)
    with pytest.raises(ValueError, match="is a folder: give the name of a file"):
        files.check_writable(tmp_path)
    (tmp_path / "note").write_text("")
    with pytest.raises(ValueError, match=r"note/x.npz cannot be written: .*note: is no folder; give --out"):
        files.check_writable(tmp_path / "note/x.npz", "give --out")
    refuse_files_below(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="x.npz cannot be written: .*: read-only file system"):
        files.check_writable(tmp_path / "x.npz")


def test_what_was_computed_is_kept_elsewhere_when_the_disk_refuses_it(tmp_path, monkeypatch):
    found = Predictions(np.array(["a"]), ("x",), np.ones((1, 1), np.float32), np.zeros(1, int), np.zeros(1, bool))
    (tmp_path / "note").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spare"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "spare").mkdir()
    with pytest.raises(
        OSError, match=r"note/x.npz could not be written \(.*\); its content is in .*spare.*x.npz"
    ) as told:
        found.save(tmp_path / "note" / "x.npz")
    kept = Predictions.load(str(told.value).split("its content is in ")[1])
    assert kept.clip_ids.tolist() == ["a"]


RECORD = Logmel(sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000)
CACHES = {
    "logmel": lambda folder, clips: LogmelCache.build(folder, clips, "source", RECORD, 8000)[clips.clip_id[0]],
    "waveform": lambda folder, clips: waveform_cache(folder, clips, "source", 8000).path[0],
    "packed": lambda folder, clips: packed_clips(folder, clips, "source", 8000, 1.0).path[0],
}


@pytest.mark.parametrize("kind", CACHES)
def test_caches_of_read_only_data_are_kept_where_one_is(kind, tiny, monkeypatch, caplog):
    clips, make = pd.read_csv("data/clips.csv").head(2), CACHES[kind]
    make("data/cache", clips[:1])
    with monkeypatch.context() as patch:
        refuse_files_below(Path("data").absolute(), patch)
        make("data/cache", clips[:1])
        assert not Path("cache").exists(), "the one that stands is read"
        made = make("data/cache", clips)
        assert len(list(Path("cache/data").glob("[0-9a-f]*"))) == 1
        assert kind == "logmel" or Path(str(made).split("#")[0]).is_relative_to(Path("cache/data").absolute())
        assert f"data/cache cannot be written: its caches are kept in {Path('cache/data').absolute()}" in caplog.text
        with pytest.raises(ValueError, match="cannot be written"):
            make("data/elsewhere", clips)
        refuse_files_below(Path().absolute(), patch)
        with pytest.raises(ValueError, match="cannot be written: .*or set data.cache=none"):
            make("data/cache", clips[1:])


def test_a_full_disk_is_named_with_the_file_that_it_ended(tmp_path, monkeypatch, capsys):
    """By the system's error, by a library's words for it, or, where those say nothing, by the room that is left."""

    def write(error, whole=files.whole_file):
        def main():
            with whole(tmp_path / "last.ckpt"):
                raise error

        with pytest.raises(SystemExit):
            run_script(main, RuntimeError)
        return capsys.readouterr().err

    said = f"error: {tmp_path / 'last.ckpt'}: the disk is full (no space left on device)\n"
    silent = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1759360 vs 1759248")
    assert write(OSError(errno.ENOSPC, "No space left on device")) == said
    assert write(OSError(errno.ENOSPC, "No space left on device"), files.whole_folder) == said
    assert write(RuntimeError("IoError(Os { code: 28, kind: StorageFull })")) == said
    assert "larger than this process may write (ulimit -f)" in write(OSError(errno.EFBIG, "File too large"))
    assert write(silent) == f"error: {silent}\n", "the disk has room: it was something else"
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: files.shutil._ntuple_diskusage(3e6, 3e6, 4096))
    assert write(silent) == said
    with pytest.raises(SystemExit):
        script._end(OSError(errno.ENOSPC, "No space left on device"))
    assert "or that of temporary files, " in capsys.readouterr().err
    with pytest.raises(KeyError), files.whole_file(tmp_path / "x"):
        raise KeyError("no matter of the disk")

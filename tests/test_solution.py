"""The folder that organisers ask winners for: it is whole, it works by itself, and it holds nobody's secrets."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import ensemble
import prepare
import solution
import train
from conftest import write_tiny
from earshot.kaggle.solution import Solution, find_solution, with_submission
from earshot.kaggle.solution_folder import SUMS, build_solution, changed_files
from earshot.kaggle.solution_texts import _outside, _without
from scripts import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two tiny runs of all folds, and their blend."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = write_tiny(folder)
        for seed, name in enumerate(("a", "b")):
            run(train, "--config", config, "--fold", "all", "--name", name, "optim.epochs=1", f"seed={seed}")
        run(ensemble, "--runs", "runs/sed/a", "runs/sed/b", "--mean", "median", "--always", "--out", "runs/ab.npz")
    return folder


@pytest.mark.slow
def test_a_solution_predicts_by_its_own_code(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    out = tmp_path / "my solution"
    run(solution, "--blend", "runs/ab.json", "--out", out, "--license", "CC-BY-4.0")
    assert "FILL IN: operating system" in capsys.readouterr().out
    readme, entries = (out / "README.md").read_text(), (out / "entry_points.md").read_text()
    for said in ("| sed/a | cnn_small |", "median mean of the runs", "CC-BY-4.0"):
        assert said in readme
    assert str(trained) not in readme + entries
    assert set((out / "directory_structure.txt").read_text().split("\n")) >= {
        "src/predict.py",
        "runs/sed/b/fold2/run.json",
        SUMS,
    }
    commands = [shlex.split(line) for line in entries.splitlines() if line.startswith("    python")]
    assert [Path(c[1]).stem for c in commands] == ["prepare", *["train"] * 2, *["predict"] * 2, "ensemble", "submit"]
    predicting = next(c for c in commands if c[1] == "src/predict.py")
    predicting[predicting.index("--clips") + 1] = str(trained / "data/test_clips.csv")
    subprocess.run([sys.executable, *predicting[1:]], cwd=out, check=True, capture_output=True)
    assert (out / "runs/sed/a/test.npz").is_file()
    run(solution, "--check", out)
    (out / "src/train.py").write_text("other")
    (out / "LICENSE").unlink()
    with pytest.raises(
        ValueError, match="2 of its files are not as they were written: LICENSE is lost, src/train.py is"
    ):
        run(solution, "--check", out)


@pytest.mark.slow
def test_what_cannot_be_a_solution(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(ValueError, match="make one with src/ensemble.py"):
        find_solution([Path("runs/sed/a"), Path("runs/sed/b")], None)
    found = find_solution([Path("runs/sed/a")], None)
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there exists"):
        build_solution(found, tmp_path / "there")
    listed = Path("runs/sed/a/fold0/unreadable.csv")
    before = listed.read_text()
    listed.write_text(before + "WANDB_API_KEY=" + 40 * "a")
    with pytest.raises(ValueError, match="^out must not be uploaded: .*unreadable.csv holds a Weights & Biases key"):
        build_solution(found, tmp_path / "out")
    listed.write_text(before)
    (tmp_path / "code" / "src").mkdir(parents=True)
    (tmp_path / "code/src/mine.py").write_text("KAGGLE_KEY=1  # of /home/me")
    monkeypatch.setattr("earshot.kaggle.solution_folder.REPOSITORY", tmp_path / "code")
    with pytest.raises(ValueError, match="^out must not be uploaded: src/mine.py holds a Kaggle key$"):
        build_solution(found, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    shutil.copytree("runs/sed/a", "second/sed/a")
    blend = json.loads(Path("runs/ab.json").read_text()) | {"runs": ["runs/sed/a", "second/sed/a"]}
    (tmp_path / "twice.json").write_text(json.dumps(blend))
    with pytest.raises(ValueError, match="runs/sed/a, second/sed/a would be one folder of the solution"):
        find_solution([], tmp_path / "twice.json")


def test_a_submission_is_found_by_its_digest(tmp_path):
    handed_in, log = tmp_path / "s.csv", tmp_path / "log.csv"
    handed_in.write_text("1")
    alone = Solution((SimpleNamespace(folder=tmp_path / "runs/sed/a"),))
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"

    def logged(predictions: str, run: str = "a", sha256: str = digest):
        log.write_text(
            f"sha256,predictions,runs,post\n{sha256},{tmp_path}/{predictions},{tmp_path}/runs/sed/{run},{{}}\n"
        )

    logged("runs/sed/a/test.npz", sha256="0")
    with pytest.raises(ValueError, match="log.csv knows no file with the content of"):
        with_submission(alone, handed_in, log)
    logged("runs/sed/b/test.npz", "b")
    with pytest.raises(ValueError, match="was made of .*runs/sed/b, not of .*runs/sed/a"):
        with_submission(alone, handed_in, log)
    logged("runs/sed/a/test.npz", f"a {tmp_path}/runs/sed/b")
    with pytest.raises(ValueError, match="was made of .*runs/sed/a .*runs/sed/b, not of .*runs/sed/a"):
        with_submission(alone, handed_in, log)
    logged("runs/sed/a/test.npz")
    assert with_submission(alone, handed_in, log).logged["post"] == "{}"
    blended = Solution(alone.members, tmp_path / "two.json")
    with pytest.raises(ValueError, match="was made of .*test.npz, not of the blend .*two.json"):
        with_submission(blended, handed_in, log)
    logged("two.npz")
    assert with_submission(blended, handed_in, log).logged["post"] == "{}"
    with pytest.raises(ValueError, match="was made of .*two.npz: give --blend .*two.json in place of --run"):
        with_submission(alone, handed_in, log)


def test_the_options_of_prepare_are_remembered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("crow", "wren"):
        Path("birds", name).mkdir(parents=True)
        soundfile.write(f"birds/{name}/1.wav", np.full(800, 0.1), 8000)
    words = ["mine", "--source", "birds", "--out", "data/birds", "--check-audio"]
    run(prepare, *words)
    assert json.loads(Path("data/birds/dataset.json").read_text())["command"] == words


def test_flags_are_left_out_with_their_values():
    words = ["mine", "--source", "a b", "--set", "k=v", "--runs", "x", "y", "--out=z", "--force"]
    assert _without(words, "--source", "--runs", "--out") == ["mine", "--set", "k=v", "--force"]


def test_what_came_from_outside_is_named():
    config = {"model": {"weights": "hf:o/m", "name": "x"}, "data": {"soft_targets": "auto", "pseudo": "data/p"},
              "distill": {"teachers": [{"file": "bird.onnx", "run": ""}], "predictions": ["a.npz"]},
              "augment": {"waveform": [{"name": "ApplyImpulseResponse", "ir_path": "rooms"}]}}  # fmt: skip
    named = [line.partition(";")[0] for line in _outside(config)]
    assert named == [
        "- `model.weights`: `hf:o/m`",
        "- `data.pseudo`: `data/p`",
        "- `distill.teachers.file`: `bird.onnx`",
        "- `distill.predictions`: `a.npz`",
        "- `augment.waveform.ir_path`: `rooms`",
    ]


def test_files_are_held_against_their_digests(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / SUMS).write_text("6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  a\n0  b\n")
    assert changed_files(tmp_path) == ["b is lost"]
    (tmp_path / "a").write_text("2")
    assert changed_files(tmp_path) == ["b is lost", "a is changed"]

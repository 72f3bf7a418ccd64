"""pseudo_label.py: who may answer, which windows, what training takes of them, and planted leaks that are found."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import audit
import planted_leaks
import pseudo_label
import train
from conftest import write_tiny
from earshot import runs
from earshot.audits import leaks
from earshot.audits.fingerprints import fingerprints
from earshot.config import load_config
from earshot.data import pseudo
from earshot.data.labels import read_clips
from earshot.data.prepared import load_data
from earshot.data.pseudo import read_manifest, read_windows
from earshot.inputs.waveforms import hear
from earshot.rounds import hearing
from earshot.rounds.teachers import find_teachers
from earshot.training.pseudo import PseudoWindows
from scripts import run

TRAIN = ("--config", "tiny.yaml", "--fold", "all", "loss.name=bce", "predict.keep_frames=false", "optim.ema_decay=0",
         "augment.batch.mixup_on=none", "augment.spec_augment={}", "watch=map")  # fmt: skip


def write_unlabelled(folder: Path, seconds: float = 3.4):
    """Six soundscapes of two classes each at two sites, one unreadable, and a table of them."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    rows = []
    for i in range(6):
        t = np.arange(int(8000 * seconds)) / 8000
        sound = 0.3 * np.sin(2 * np.pi * (300, 1000, 3000)[i % 3] * t) * (t < seconds / 2)
        sound = sound + 0.3 * np.sin(2 * np.pi * (300, 1000, 3000)[(i + 1) % 3] * t) * (t >= seconds / 2)
        soundfile.write(folder / f"u{i}.wav", sound + 0.02 * rng.standard_normal(len(t)), 8000)
        rows.append((f"u{i}", f"u{i}.wav", f"site{i % 2}"))
    (folder / "broken.wav").write_bytes(b"RIFF no sound")
    rows.append(("broken", "broken.wav", "site1"))
    pd.DataFrame(rows, columns=["clip_id", "path", "site"]).to_csv(folder / "unlabelled.csv", index=False)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with the tiny competition, a trained run `runs/sed/t`, soundscapes, and pseudo-labels in data/round1."""
    root, before = tmp_path_factory.mktemp("rounds"), os.getcwd()
    write_tiny(root)
    os.chdir(root)
    write_unlabelled(root / "scapes")
    run(train, *TRAIN, "--name", "t", "optim.epochs=1")
    run(pseudo_label, "--runs", "runs/sed/t", "--clips", "scapes/unlabelled.csv", "--out", "data/round1",
        "--min-confidence", "0.3", "--mass", "0", "--keep-answers")  # fmt: skip
    yield root
    os.chdir(before)


@pytest.fixture
def here(taught, monkeypatch):
    monkeypatch.chdir(taught)
    return taught


def again(out, *more):
    """The pseudo-labels once more from the answers that are kept, elsewhere."""
    shutil.copytree("data/round1/answers", Path(out) / "answers")
    run(pseudo_label, "--runs", "runs/sed/t", "--clips", "scapes/unlabelled.csv", "--out", out, *more)
    return read_manifest(out), {fold: read_windows(out, fold) for fold in range(3)}


def test_each_fold_gets_windows_of_its_own_teachers(here):
    manifest = read_manifest("data/round1")
    assert (manifest.mode, manifest.folds, manifest.runs) == ("isolated", [0, 1, 2], ["sed/t"])
    assert [[o.fold for o in manifest.teachers[str(f)]] for f in range(3)] == [[0], [1], [2]]
    windows = [read_windows("data/round1", fold) for fold in range(3)]
    for own in windows:
        assert set(own.clip_ids) <= {f"u{i}" for i in range(6)}, "what cannot be read is left out"
        assert set(own.starts) <= {0.0, 1.0, 2.0}, "the rest of 0.4 s is no window"
        assert own.confidence.min() >= 0.3
    assert not np.array_equal(windows[0].target[:3], windows[1].target[:3]), "every fold has its own answers"
    table = pd.read_csv("data/round1/windows.csv")
    assert len(table) == sum(map(len, windows))
    assert pd.read_csv("data/round1/unreadable.csv").clip_id.tolist() == ["broken"]
    for fold, own in enumerate(windows):
        for i in (0, len(own) - 1):
            np.testing.assert_allclose(own.target[i], answer(fold, own, i), atol=2e-3)


def answer(fold: int, windows: pseudo.PseudoLabels, i: int) -> np.ndarray:
    """What the network of a fold says of a window, without the code that predicts."""
    model = runs.load_model(runs.FoldRun(Path(f"runs/sed/t/fold{fold}")))
    start = round(8000 * windows.starts[i])
    sound = soundfile.read(Path("scapes") / windows.paths[i], dtype="float32")[0][start : start + 8000]
    heard = load_config("tiny.yaml").inputs(model.inputs)
    inputs = {name: torch.from_numpy(x)[None] for name, x in hear(heard, sound, 8000).items()}
    with torch.no_grad():
        return model(**inputs)["clipwise_output"][0].numpy()


@pytest.mark.slow
def test_quotas_and_transforms(here, tmp_path):
    _, plain = again(tmp_path / "a", "--min-confidence", "0", "--mass", "0")
    assert all(len(w) == 18 for w in plain.values()), "three windows of six recordings"
    _, cubed = again(tmp_path / "b", "--min-confidence", "0", "--mass", "0", "--power", "3")
    np.testing.assert_allclose(cubed[0].target, plain[0].target.astype(float) ** 3, atol=2e-3)
    manifest, hard = again(tmp_path / "c", "--min-confidence", "0", "--hard", "0.4", "--per-recording", "1")
    assert set(np.unique(hard[0].target)) <= {0.0, 1.0}
    assert pd.Series(hard[0].clip_ids).value_counts().max() == 1
    assert manifest.settings["hard"] == 0.4
    _, few = again(tmp_path / "d", "--min-confidence", "0", "--per-site", "2", "--mass", "0")
    assert [len(w) for w in few.values()] == [4, 4, 4]
    manifest, capped = again(tmp_path / "e", "--min-confidence", "0", "--mass", "0.5")
    for fold, (own, labels) in manifest.masses.items():
        assert labels == (15, 15, 18)[int(fold)], "one label a training clip"
        assert 0 < own <= 0.5 * labels + 0.01
        assert own == pytest.approx(capped[int(fold)].mass)


def test_a_student_trains_on_them_and_says_so(here, capsys):
    run(train, *TRAIN[:2], "--fold", "0", *TRAIN[4:], "--name", "s", "optim.epochs=2", "data.pseudo=data/round1",
        "augment.pseudo.first=1", "augment.pseudo.last=1", "augment.pseudo.max_mass=0")  # fmt: skip
    said = capsys.readouterr().out
    assert "fold 0: pseudo-labels data/round1:" in said
    assert "augment.pseudo: replace, probability 1.00 to 1.00" in said
    about = json.loads(Path("runs/sed/s/fold0/run.json").read_text())
    assert about["pseudo"]["mode"] == "isolated"
    assert about["pseudo"]["by"] == "sed/t"


def test_frames_say_when_and_train(here, tmp_path, capsys):
    """What each fold's own network says over time, and crops of a window that take their part of it."""
    manifest, windows = again(tmp_path / "f", "--min-confidence", "0.3", "--mass", "0", "--frames")
    own = windows[1]
    assert manifest.frame_seconds == pytest.approx(0.04)  # 80 samples a step, four of them a segment
    assert own.frames.shape == (len(own), 25, 3)
    model = runs.load_model(runs.FoldRun(Path("runs/sed/t/fold1")))
    start = round(8000 * own.starts[0])
    sound = soundfile.read(Path("scapes") / own.paths[0], dtype="float32")[0][start : start + 8000]
    heard = {
        n: torch.from_numpy(x)[None]
        for n, x in hear(load_config("tiny.yaml").inputs(model.inputs), sound, 8000).items()
    }
    with torch.no_grad():
        expected = model(**heard)["segmentwise_output"][0, 1:24].numpy()
    np.testing.assert_allclose(own.frames[0, 1:24], expected, atol=0.02)
    config = load_config(
        "tiny.yaml", [f"data.pseudo={tmp_path / 'f'}", "data.crop_seconds=0.5", "data.frame_targets=true"]
    )
    training = load_data(config.data).split(1, "folds.csv")[0]
    pseudo_windows = PseudoWindows(training, config, config.inputs(), tmp_path)
    base = config.inputs().timebase(1)
    frames, target, known = pseudo_windows.when(0, 2000, base, 50)
    np.testing.assert_array_equal(frames, np.repeat(own.frames[0, 6:19], 4, axis=0)[1:51].astype(np.float32))
    assert (target <= own.target[0]).all()
    assert known.all()
    others = [a for a in TRAIN[4:] if not a.startswith("loss.name")]
    run(train, *TRAIN[:2], "--fold", "1", *others, "--name", "when", "optim.epochs=1", "loss.name=bce_clip_frame",
        f"data.pseudo={tmp_path / 'f'}", "data.frame_targets=true", "augment.pseudo.first=1", "augment.pseudo.last=1",
        "augment.pseudo.max_mass=0")  # fmt: skip
    assert "fold 1: pseudo-labels" in capsys.readouterr().out
    about = json.loads((tmp_path / "f/manifest.json").read_text())
    (tmp_path / "f/manifest.json").write_text(json.dumps(about | {"frame_seconds": 0.0}))
    with pytest.raises(ValueError, match="has frames, and manifest.json says every 0 s"):
        split(tmp_path / "f", 1)


def test_frames_of_a_network_without_any_are_refused_before_anything_is_heard(here, tmp_path, monkeypatch):
    class Clipwise:
        """A backend that answers for whole clips alone."""

        def __init__(self, backend):
            self.backend, self.frontends = backend, backend.frontends

        def run(self, inputs):
            return {"clipwise_output": self.backend.run(inputs)["clipwise_output"]}

    def find(*arguments):
        teachers = find_teachers(*arguments)
        for member in teachers.members[0]:
            member.backend.backend = Clipwise(member.backend.backend)
        return teachers

    monkeypatch.setattr(pseudo_label, "find_teachers", find)
    monkeypatch.setattr(pseudo_label.hearing, "hear_all", lambda *a, **k: pytest.fail("recordings were heard first"))
    with pytest.raises(ValueError, match="has no outputs over time: leave --frames out"):
        run(
            pseudo_label, "--runs", "runs/sed/t", "--clips", "scapes/unlabelled.csv", "--out", tmp_path / "o",
            "--frames",
        )  # fmt: skip


def planted(tmp_path, fold: int, **changed) -> Path:
    """A copy of the pseudo-labels in which the first window of a fold is changed."""
    out = tmp_path / "planted"
    shutil.copytree("data/round1", out, ignore=shutil.ignore_patterns("answers"))
    windows = read_windows(out, fold)
    arrays = {name: getattr(windows, name).copy() for name in pseudo.KINDS}
    for name, value in changed.items():
        arrays[name] = np.concatenate([np.array([value]), arrays[name][1:]])
    np.savez_compressed(pseudo.fold_file(out, fold), **arrays)
    return out


def split(folder, fold=0, *more):
    config = load_config("tiny.yaml", [f"data.pseudo={folder}", *more])
    return load_data(config.data).split(fold, "folds.csv")


def test_a_window_of_a_held_out_recording_is_found(here, tmp_path):
    folds = pd.read_csv("folds.csv").set_index("clip_id").fold
    held, trains = folds[folds == 0].index[0], folds[folds == 1].index[0]
    assert len(split("data/round1")[0].pseudo)
    out = planted(tmp_path / "a", 0, keys=f"group {held}\nclip x x")
    with pytest.raises(ValueError, match=r"fold0.npz has windows of 1 recordings that fold 0 holds out"):
        split(out)
    out = planted(tmp_path / "b", 0, keys=f"group {trains}\nclip x x")
    assert len(split(out)[0].pseudo), "a recording of a training group may train"
    manifest = out / "manifest.json"
    about = json.loads(manifest.read_text())
    about["source"] = str(Path("source").resolve())
    manifest.write_text(json.dumps(about))
    windows = read_windows(out, 0)
    arrays = {name: getattr(windows, name) for name in pseudo.KINDS}
    np.savez(pseudo.fold_file(out, 0), **arrays | {"paths": np.array([f"../source/{held}.wav"] * len(windows))})
    with pytest.raises(ValueError, match="that fold 0 holds out"):
        split(out)
    np.savez(pseudo.fold_file(out, 0), **arrays | {"paths": np.array([f"{trains}.wav"] * len(windows))})
    with pytest.raises(ValueError, match="pseudo-labels for .* clips that have labels"):
        split(out)


def test_a_teacher_that_heard_the_held_out_clips_is_found(here, tmp_path):
    out = planted(tmp_path, 0)
    about = json.loads((out / "manifest.json").read_text())
    about["teachers"]["0"] = about["teachers"]["1"]
    (out / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"fold 0 is not isolated: run sed/t fold 1 answered for it, trained on the "
                       "clips that it holds out"):  # fmt: skip
        split(out)
    assert len(split(out, 1)[0].pseudo)
    del about["teachers"]["0"]
    (out / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"pseudo-labels for the folds \[1, 2\], and fold 0 is to train"):
        split(out)


@pytest.mark.slow
def test_the_audit_hears_a_run_as_if_recorded_otherwise(here, tmp_path, capsys):
    """Beside the other evidence of a run, each held-out clip by its own fold's network; as it is, the OOF's score."""
    run(audit, "--data", "data", "--folds", "folds.csv", "--runs", "runs/sed/t", "--robust", "30", "--out", tmp_path)
    assert "falls by at most" in capsys.readouterr().out
    about = json.loads((tmp_path / "audit.json").read_text())
    rows = {row["change"]: row for row in about["otherwise"]["t"]}
    assert len(rows) == 12
    assert rows["as it is"]["recordings"] == 24
    value = next(t for t in about["tables"] if t["title"] == "Scores and calibration")["rows"][0][2]
    assert rows["as it is"]["map"] == pytest.approx(value, abs=1e-3)
    assert rows["level +12 dB"]["map falls"] == pytest.approx(value - rows["level +12 dB"]["map"], abs=1e-3)
    assert "Recorded otherwise: t" in (tmp_path / "audit.html").read_text()


def test_the_audit_finds_planted_leaks_of_pseudo_labels(here, tmp_path):
    """Of a held-out group, of a teacher that heard the clips, of a sound that was copied among the unlabelled ones."""
    folds = pd.read_csv("folds.csv").set_index("clip_id").fold
    held = folds[folds == 0].index[0]
    out = planted(tmp_path, 0, keys=f"group {held}\nclip x x", paths=f"../source/{held}.wav")
    about = json.loads((out / "manifest.json").read_text())
    about["teachers"]["1"] = about["teachers"]["2"]
    (out / "manifest.json").write_text(json.dumps(about))
    run(audit, "--data", "data", "--folds", "folds.csv", "--pseudo", out, "--out", tmp_path / "audit")
    found = {leak["kind"]: leak for leak in json.loads((tmp_path / "audit/audit.json").read_text())["leaks"]}
    assert read_windows(out, 0).clip_ids[0] in found["pseudo-labels of a fold's own recordings"]["clips"]
    told = found["pseudo-labels by a teacher that heard the held-out clips"]
    assert told["where"] == "fold 1"
    assert set(told["clips"]) == set(folds[folds == 1].index)
    assert "run sed/t fold 2 answered for it" in told["what"]
    clean = leaks.of_pseudo("data/round1", read_clips("data/clips.csv"), pd.read_csv("folds.csv"), "source")
    assert clean == []


def test_a_copied_sound_among_the_unlabelled_is_found(here, tmp_path):
    """A held-out clip under another name, twice as loud: no table tells, the ears do."""
    rng = np.random.default_rng(1)
    song = planted_leaks.song(rng)
    soundfile.write(tmp_path / "a.wav", song, planted_leaks.RATE)
    soundfile.write(tmp_path / "b.wav", 0.5 * song, planted_leaks.RATE)
    clips = pd.DataFrame({"clip_id": ["a"], "path": ["a.wav"]})
    out = planted(tmp_path, 1, clip_ids="copied")
    found = leaks.of_pseudo_sounds(
        out, ["copied"], fingerprints([tmp_path / "b.wav"]), clips, pd.DataFrame({"fold": [1]}),
        fingerprints([tmp_path / "a.wav"]),
    )  # fmt: skip
    assert [(leak.kind, leak.clips) for leak in found] == [
        ("a held-out sound among its fold's pseudo-labels", ("a", "copied"))
    ]


def test_folds_of_others_are_refused_with_both_named(here):
    table = pd.read_csv("folds.csv")
    table.assign(fold=(table.fold + 1) % 3).to_csv("other.csv", index=False)
    config = load_config("tiny.yaml", ["data.pseudo=data/round1", "data.folds=other.csv"])
    with pytest.raises(ValueError, match=r"by sed/t, whose folds are those of .*folds.csv \(\w{10}\), and this run's "
                       r"folds are those of other.csv \(\w{10}\)"):  # fmt: skip
        load_data(config.data).split(0, "other.csv")


def test_recordings_of_held_out_groups_train_the_other_folds(here, tmp_path):
    """A soundscape whose group is a held-out clip's is left to the folds that do not hold it out."""
    folds = pd.read_csv("folds.csv").set_index("clip_id")
    table = pd.read_csv("scapes/unlabelled.csv").assign(group="")
    table.loc[0, "group"] = folds[folds.fold == 2].group.iloc[0]
    table.to_csv("scapes/grouped.csv", index=False)
    shutil.copytree("data/round1/answers", tmp_path / "answers")
    run(pseudo_label, "--runs", "runs/sed/t", "--clips", "scapes/grouped.csv", "--out", tmp_path, "--min-confidence",
        "0", "--mass", "0")  # fmt: skip
    have = ["u0" in read_windows(tmp_path, fold).clip_ids for fold in range(3)]
    assert have == [True, True, False]


def test_what_has_labels_gets_none(here, tmp_path):
    with pytest.raises(ValueError, match="24 of the 27 recordings of source have labels"):
        run(pseudo_label, "--runs", "runs/sed/t", "--clips", "source", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    run(pseudo_label, "--runs", "runs/sed/t", "--clips", "source", "--out", tmp_path / "x", "--skip-labelled",
        "--min-confidence", "0")  # fmt: skip
    assert set(read_windows(tmp_path / "x", 0).clip_ids) <= {"t0", "t1", "t2"}
    pd.DataFrame({"clip_id": ["t1"], "path": ["t1.wav"]}).to_csv("data/validation.csv", index=False)
    try:
        with pytest.raises(ValueError, match="1 of the 3 recordings of .*test_clips.csv have labels .t1."):
            run(pseudo_label, "--runs", "runs/sed/t", "--clips", "data/test_clips.csv", "--out", tmp_path / "y")
    finally:
        Path("data/validation.csv").unlink()


def test_bad_input_is_said(here, tmp_path):
    (tmp_path / "empty").mkdir()
    base = ("--runs", "runs/sed/t", "--out", tmp_path / "x")
    for clips, more, said in (
        (tmp_path / "empty", (), "holds no recording"),
        ("scapes", ("--per-site", "2"), "--per-site needs to know the sites"),
        ("scapes", ("--folds", "7"), r"fold 7 is not in .*folds.csv \(folds: 0, 1, 2\)"),
        ("scapes", ("--min-confidence", "7"), "--min-confidence is a probability, got 7"),
        ("scapes", ("--hard", "0.5", "--power", "2"), "--hard targets are 0 or 1, which power=2 does not change"),
        ("scapes/unlabelled.csv", ("--site-column", "place"), "--site-column place is no column"),
    ):
        with pytest.raises(ValueError, match=said):
            run(pseudo_label, *base, "--clips", clips, *more)
        assert not (tmp_path / "x").exists(), said
    with pytest.raises(ValueError, match="holds pseudo-labels already"):
        run(pseudo_label, "--runs", "runs/sed/t", "--clips", "scapes", "--out", "data/round1")
    with pytest.raises(ValueError, match=r"data.crop_seconds is 2, and the pseudo-labels .* are of windows of 1 s"):
        run(train, *TRAIN[:2], "--fold", "0", *TRAIN[4:], "--name", "x", "data.pseudo=data/round1",
            "data.crop_seconds=2")  # fmt: skip
    with pytest.raises(ValueError, match=r"nowhere holds no pseudo-labels \(no manifest.json\)"):
        split("nowhere")


@pytest.mark.slow
def test_a_stopped_call_goes_on_and_writes_the_same(here, tmp_path, monkeypatch):
    """Killed after two of four shards: the rest is heard, and the files are those of a call that was not stopped."""
    arguments = ("--runs", "runs/sed/t", "--clips", "scapes/unlabelled.csv", "--min-confidence", "0.3", "--mass", "0")
    monkeypatch.setattr(hearing, "SHARD", 2)
    monkeypatch.setattr(hearing.hear_all, "__defaults__", (2,))
    heard, real = [], hearing.hear

    def dying(teachers, rows, root, folder, number):
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(number)
        real(teachers, rows, root, folder, number)

    monkeypatch.setattr(hearing, "hear", dying)
    with pytest.raises(KeyboardInterrupt):
        run(pseudo_label, *arguments, "--out", tmp_path / "x")
    assert not (tmp_path / "x/manifest.json").exists()
    monkeypatch.setattr(hearing, "hear", lambda *a: (heard.append(a[-1]), real(*a)))
    with pytest.raises(ValueError, match="a call that was stopped, or kept its answers, with other recordings"):
        run(pseudo_label, *arguments[:2], "--clips", "scapes", "--out", tmp_path / "x")
    run(pseudo_label, *arguments, "--out", tmp_path / "x")
    assert heard == [0, 1, 2, 3]
    assert not (tmp_path / "x/answers").exists()
    for fold in range(3):
        ours, whole = read_windows(tmp_path / "x", fold), read_windows("data/round1", fold)
        assert ours.clip_ids.tolist() == whole.clip_ids.tolist()
        np.testing.assert_allclose(ours.target.astype(float), whole.target.astype(float), atol=2e-3)

"""The audit: planted leaks are found and nothing else is, splits that flatter are seen, differences are judged."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

import planted_leaks
from earshot.audits import evidence, leaks, same_waveform, splits
from earshot.audits.fingerprints import fingerprint, fingerprints, same_sound
from earshot.audits.same_waveform import COPY, waveform_likeness
from earshot.data.folds import make_folds
from earshot.data.soft_targets import SoftTargets
from earshot.pages import audit as audit_page
from earshot.prediction.predictions import Predictions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import audit


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    clips, folds, test, expected = planted_leaks.plant(folder)
    prints = fingerprints([folder / p for p in clips.path])
    test_prints = fingerprints([folder / p for p in test.path])
    found = leaks.leaks_of(clips, folds, prints, test, test_prints)
    return folder, clips, folds, test, expected, prints, found


@pytest.mark.parametrize("what", [w for w in planted_leaks.KINDS if w != "told by its own teacher"])
def test_a_planted_leak_is_found(planted, what):
    *_, expected, _, found = planted
    kind = planted_leaks.KINDS[what]
    assert any(leak.kind == kind and set(leak.clips) == expected[what] for leak in found)


def test_nothing_else_is_found(planted):
    *_, expected, _, found = planted
    named = {frozenset(leak.clips) for leak in found}
    assert named == {frozenset(ids) for ids in expected.values()}


def test_copies_that_peaks_leave_open_have_their_waveforms_held_together(planted):
    _, clips, *_, prints, _ = planted
    pairs = same_sound(prints)
    ids = clips.clip_id.to_numpy()
    by_name = {str(ids[p.a]).removesuffix("_a"): p.likeness for p in pairs.itertuples()}
    assert np.isnan(by_name["copied"]), "sure by its peaks"
    heard = {name: value for name, value in by_name.items() if not np.isnan(value)}
    assert heard
    assert min(heard.values()) > COPY


@pytest.mark.parametrize(("change", "low", "high"), [
    (lambda x, other: 0.01 * x, 0.99, 1), (lambda x, other: -x[100:], 0.99, 1), (lambda x, other: x[:4000], 0.99, 1),
    (lambda x, other: x + 0.1 * other, 0.6, 0.8),
    (lambda x, other: np.concatenate([other[:12000], x[12000:]]), 0.99, 1),
    (lambda x, other: other, 0, 0.3), (lambda x, other: 0 * x, 0, 0), (lambda x, other: x[:0], 0, 0),
])  # fmt: skip
def test_likeness_is_of_any_second_at_any_level(change, low, high):
    rng = np.random.default_rng(0)
    sound, other = 0.1 * rng.normal(size=24000), rng.normal(size=24000)
    assert low <= waveform_likeness(sound, change(sound, other), 8000) <= high
    assert low <= waveform_likeness(change(sound, other), sound, 8000) <= high


def test_long_recordings_that_are_unlike_at_first_stay_open(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=24000), 8000)
    files = tmp_path / "a.wav", tmp_path / "b.wav"
    assert same_waveform.likeness(*files, 0.0, 8000) < 0.3
    assert same_waveform.likeness(*files, -2.9, 8000) < COPY
    monkeypatch.setattr(same_waveform, "MOST_SECONDS", 2.0)
    assert np.isnan(same_waveform.likeness(*files, 0.0, 8000))


@pytest.mark.parametrize(("likeness", "grave"), [(0.1, False), (0.9, True), (np.nan, True)])
def test_sounds_whose_waveforms_differ_are_doubtful(monkeypatch, likeness, grave):
    clips = pd.DataFrame({"clip_id": ["a", "b"], "labels": ["x", "y"]})
    folds = pd.DataFrame({"clip_id": ["a", "b"], "fold": [0, 1]})
    pair = {"a": [0], "b": [1], "matches": [20], "delay": [0.5], "likeness": [likeness]}
    monkeypatch.setattr(leaks, "same_sound", lambda prints: pd.DataFrame(pair))
    found = leaks.leaks_of(clips, folds, [None, None])
    before = "" if grave else "perhaps "
    assert [(leak.kind, leak.grave) for leak in found] == [
        (f"{before}one sound in two folds", grave), (f"{before}one sound under two labels", False),
    ]  # fmt: skip
    told = "20 pairs of peaks alike" + ("" if np.isnan(likeness) else f", waveforms {likeness:.2f} alike")
    assert found[0].what == f"{told}, 0.50 s apart"


def test_groups_that_keep_a_sound_together_leave_no_leak_of_sound(planted):
    _, clips, _, _, _, prints, _ = planted
    groups = leaks.duplicates_together(clips, prints)
    folds = make_folds(clips.assign(group=groups), k=4).set_index("clip_id").loc[clips.clip_id].reset_index()
    assert "one sound in two folds" not in {leak.kind for leak in leaks.leaks_of(clips, folds, prints)}
    assert groups.nunique() == len(clips) - 8


def test_targets_of_a_teacher_that_heard_the_clips():
    clips = pd.DataFrame({"clip_id": ["a", "b"]})
    told = leaks.of_targets({"mode": "source", "by": "x"}, clips, "1")
    assert [leak.kind for leak in told] == ["labels made by a teacher that trained on the clip"]
    assert leaks.of_targets({"mode": "honest", "folds_sha256": "1"}, clips, "1") == []
    assert leaks.of_targets({"mode": "honest", "folds_sha256": "2"}, clips, "1")[0].kind == (
        "labels made for another fold table"
    )


@pytest.mark.parametrize("sound", [np.zeros(8000), np.zeros(0), np.full(8000, 0.5)])
def test_sound_without_peaks_matches_nothing(sound):
    assert not len(same_sound([fingerprint(sound), fingerprint(sound)]))


def test_steady_noise_is_like_no_other_noise():
    rng = np.random.default_rng(0)
    prints = [fingerprint(rng.normal(size=40000)) for _ in range(12)]
    assert not len(same_sound(prints))


def test_random_folds_flatter_where_sources_repeat():
    rng = np.random.default_rng(0)
    recordist = np.repeat(np.arange(30), 10)
    target = np.zeros((300, 2), bool)
    target[np.arange(300), (recordist % 2)] = True
    features = rng.normal(size=(30, 40))[recordist] + 0.3 * rng.normal(size=(300, 40))  # only who recorded it
    clips = pd.DataFrame({"clip_id": np.arange(300).astype(str), "author": recordist.astype(str)})
    folds = pd.DataFrame({"clip_id": clips.clip_id, "fold": np.arange(300) % 5})
    table = splits.compare(features, target, splits.parts_of(clips, folds)).set_index("split").macro_auc
    assert table["random folds"] > 0.95
    assert table["folds that keep each author whole (30 of them)"] < 0.75
    assert "random ones flatter by +0." in splits.flattery(table.reset_index())


def test_a_difference_of_runs_is_judged_on_the_same_clips():
    rng = np.random.default_rng(0)
    hard = rng.random(300) < 0.5  # both runs fail on the same clips
    a, b = ~hard | (rng.random(300) < 0.1), ~hard
    found = evidence.paired(lambda i: a[i].mean(), lambda i: b[i].mean(), np.arange(300))
    assert found.low > 0
    assert found.p < 0.05
    same = evidence.paired(lambda i: a[i].mean(), lambda i: a[i].mean(), np.arange(300))
    assert (same.value, same.p) == (0.0, 1.0)


def test_calibration_error_and_temperature():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, (20000, 1))
    truth = rng.random(p.shape) < p
    assert evidence.calibration_error(p, truth) < 0.02
    assert evidence.temperature(p, truth) == pytest.approx(1, abs=0.05)
    odds = np.log(p / (1 - p))
    assert evidence.temperature(1 / (1 + np.exp(-3 * odds)), truth) == pytest.approx(3, rel=0.05)


def test_drift_names_the_class_that_changed():
    def made(values):
        values = np.asarray(values, np.float32)
        n = len(values)
        return Predictions(np.arange(n).astype(str), ("a", "b"), values, np.zeros(n, int), np.zeros(n, bool))

    table = evidence.drift(made([[0.5, 0.1]] * 4), made([[0.5, 0.6]] * 3), np.array([[1, 0]] * 4))
    assert table["class"].tolist() == ["b", "a"]
    assert table.ratio.tolist() == pytest.approx([6.0, 1.0], rel=1e-3)


def test_names_cannot_break_the_page():
    odd = leaks.Leak("one sound in two folds", "x", "folds 0, 1", ("<script>alert(1)</script>", "b"))
    verdicts, tables = audit_page.of_leaks([odd])
    text = audit_page.page("Audit of <b>", "now", verdicts, tables)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_command_writes_a_page_and_ends_as_strict(planted, tmp_path, monkeypatch, capsys):
    folder, clips, folds, test, *_ = planted
    data = tmp_path / "data"
    data.mkdir()
    clips.assign(duration=3.0).to_csv(data / "clips.csv", index=False)
    test.to_csv(data / "test_clips.csv", index=False)
    pd.DataFrame({"label": sorted(set(clips.labels))}).to_csv(data / "classes.csv", index=False)
    folds.to_csv(tmp_path / "folds.csv", index=False)
    (data / "dataset.json").write_text(json.dumps({"competition": "mine", "source": str(folder), "task": "tagging"}))
    SoftTargets(
        clip_ids=clips.clip_id.to_numpy(str), classes=("bird0",), target=np.zeros((len(clips), 1)),
        mask=np.ones((len(clips), 1)), lineage={"mode": "source", "by": "runs/x"},
    ).save(data / "targets.npz")  # fmt: skip
    monkeypatch.setattr(sys, "argv", [
        "audit.py", "--data", str(data), "--folds", str(tmp_path / "folds.csv"), "--out", str(tmp_path / "out"),
        "--write-groups", str(tmp_path / "groups.csv"), "--strict",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        audit.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "Leaks that raise scores: " in said
    about = json.loads((tmp_path / "out/audit.json").read_text())
    sure = [leak["grave"] for leak in about["leaks"]]
    assert sure == sorted(sure, reverse=True), "what is sure comes first"
    assert {leak["kind"] for leak in about["leaks"]} == set(planted_leaks.KINDS.values())
    assert "one sound in two folds" in (tmp_path / "out/audit.html").read_text()
    assert pd.read_csv(tmp_path / "groups.csv").group.nunique() == len(clips) - 8


def test_pseudo_labels_of_the_test_are_one_line_that_names_the_folds(monkeypatch):
    manifest = SimpleNamespace(runs=["sed/t"], folds=[0, 1, 2], source="s", tables=SimpleNamespace(folds=""))
    monkeypatch.setattr(leaks.pseudo, "read_manifest", lambda folder: manifest)
    monkeypatch.setattr(leaks.pseudo, "why_not_isolated", lambda manifest, fold: [])
    monkeypatch.setattr(leaks.pseudo, "read_windows", lambda folder, fold: fold)
    test = pd.DataFrame({"clip_id": ["t0", "t1"]})

    def of_recordings(windows, source, some, own_source, same_clip):
        return [f"t{windows // 2}"] if some is test else []

    monkeypatch.setattr(leaks.pseudo, "of_recordings", of_recordings)
    clips = pd.DataFrame({"clip_id": ["a", "b", "c"]})
    found = leaks.of_pseudo("round1", clips, pd.DataFrame({"fold": [0, 1, 2]}), "s", test=test)
    assert [(leak.what, leak.where, leak.clips) for leak in found] == [
        ("round1 by sed/t, for folds 0 1", leaks.TEST, ("t0",)), ("round1 by sed/t, for fold 2", leaks.TEST, ("t1",)),
    ]  # fmt: skip

"""Kernels: rounds that end in what predicting all at once gives, and folders, files, networks and clocks gone wrong."""

import json
import multiprocessing
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

import fuzz_folders
import run_kernel
import scripts
import tiny_graphs
from earshot.competitions import get_competition
from earshot.events import PostProcess
from earshot.kernel import speed as kernel_speed
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun
from earshot.kernel.runner import run_kernel as run_all
from earshot.kernel.speed import Network, Speed, measure
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import weighted_mean
from earshot.tables import read_table
from fuzz_folders import RULES, classes_of
from tiny_graphs import CLASSES

COMPETITION = "birdclef2026"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), COMPETITION, folds=3, tta=["time_shift"])
    return open_bundle(folder, COMPETITION)


@pytest.fixture(scope="module")
def speed(bundle, tmp_path_factory):
    return measure(bundle.networks, kernel_speed.synthetic_recording(tmp_path_factory.mktemp("speed"), 3.0))


@pytest.fixture
def folder(tmp_path):
    """Three recordings, the last one ends within a row."""
    test = tmp_path / "input" / "test_soundscapes"
    test.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((5.0, 10.0, 7.3)):
        t = np.arange(round(8000 * seconds)) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (200, 1000, 3000)[i] * t)
        soundfile.write(test / f"rec{i}.wav", tone + 0.003 * rng.standard_normal(len(t)), 8000)
    return test


def play(bundle, folder, out, minutes=1.0, speed=None, table=None, networks=None):
    test = find_test(COMPETITION, folder, bundle.classes, table)
    run = KernelRun(
        competition=COMPETITION,
        test=test,
        networks=networks or bundle.networks,
        post=bundle.post,
        out=out,
        cores=2,
        speed=speed,
    )
    report = run_all(run, minutes)
    return read_table(out), report, run


def test_rounds_end_in_what_predicting_all_at_once_gives(bundle, folder, tmp_path, speed):
    table, report, _ = play(bundle, folder, tmp_path / "s.csv", speed=speed)
    members = [m for n in bundle.networks for m in n.members]
    test = find_test(COMPETITION, folder, CLASSES)
    plain, _ = predict_members(members, test.clips)
    shifted, _ = predict_members(members, test.clips, ["time_shift"], plain=False)
    expected = get_competition(COMPETITION).rows(weighted_mean(plain + shifted), test.table)
    pd.testing.assert_frame_equal(table, expected, rtol=1e-4)
    assert report["heard"] == 3
    assert [len(p["steps"]) for p in report["passes"]] == [1, 2, 3]
    assert not report["failures"]
    assert not report["left_out"]
    best = table.set_index("row_id")[list(CLASSES)].idxmax(axis=1)
    assert best.str.get(0).groupby(best.index.str[:4]).agg("".join).to_dict() == {
        "rec0": "l",
        "rec1": "mm",
        "rec2": "hh",
    }


def test_every_write_is_whole_and_valid(bundle, folder, tmp_path, speed, monkeypatch):
    seen = []
    original = KernelRun._write

    def watched(self, found, what):
        original(self, found, what)
        table = read_table(self.out)
        get_competition(COMPETITION).validate(table, self.test.table, list(CLASSES))
        seen.append((what.split(":")[0], table))

    monkeypatch.setattr(KernelRun, "_write", watched)
    play(bundle, folder, tmp_path / "s.csv", speed=speed)
    assert [what.split(",")[0] for what, _ in seen] == [
        "fallback", "after tiny_fold0", "after tiny_fold1", "after tiny_fold0 heard by time_shift",
    ]  # fmt: skip
    prior = np.mean([n.members[0].prior for n in bundle.networks], axis=0)
    np.testing.assert_allclose(seen[0][1][list(CLASSES)], np.tile(prior, (len(seen[0][1]), 1)), rtol=1e-4)
    assert not seen[1][1].equals(seen[2][1])


def test_no_time_leaves_the_priors(bundle, folder, tmp_path, speed):
    table, report, _ = play(bundle, folder, tmp_path / "s.csv", minutes=1e-6, speed=speed)
    assert len(table) == 5
    assert report["heard"] == 0
    assert len(report["left_out"]) == 5
    assert table[list(CLASSES)].nunique().tolist() == [1, 1, 1]


def test_files_that_cannot_be_read_are_listed_and_get_a_row(bundle, folder, tmp_path, speed):
    (folder / "bad.ogg").write_bytes(b"OggS nonsense")
    (folder / "none.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.wav").write_bytes(b"x")
    (folder / "rec0.flac").write_bytes(b"x")
    (folder / "folder.ogg").mkdir()
    table, report, _ = play(bundle, folder, tmp_path / "s.csv", speed=speed)
    assert set(report["unreadable"]) == {"bad", "none", "rec0"}, "rec0.flac comes before rec0.wav"
    assert set(table.row_id.str.rsplit("_", n=1).str[0]) == {"bad", "none", "rec0", "rec1", "rec2"}
    assert (table.row_id.str.startswith("bad")).sum() == 12, "a minute, as this year's recordings are"
    assert any("notes.txt" in n for n in report["notes"])
    assert any("folder.ogg" in n for n in report["notes"])
    assert any("rec0.wav has the name of rec0.flac" in n for n in report["notes"])


@pytest.mark.parametrize("competition", list(RULES))
@pytest.mark.parametrize("there", [False, True], ids=["no folder", "empty folder"])
def test_an_empty_test_gives_a_header(competition, there, tmp_path):
    classes = classes_of(competition)
    test_folder = tmp_path / "input" / RULES[competition].folder
    if there:
        test_folder.mkdir(parents=True)
    test = find_test(competition, test_folder, classes)
    assert test.empty
    members = [SimpleNamespace(classes=classes, prior=np.full(len(classes), 0.1), hearing=(), backend=None)]
    out = tmp_path / "s.csv"
    network = Network("n", tuple(members), "n")
    report = run_all(
        KernelRun(competition=competition, test=test, networks=[network], post=PostProcess(), out=out), 1.0
    )
    written = read_table(out)
    assert len(written) == 0
    assert len(written.columns) > 1
    assert report["rows"] == 0


def test_a_commit_answers_the_rows_of_the_sample(bundle, tmp_path, speed):
    test = tmp_path / "test_soundscapes"
    test.mkdir()
    sample = pd.DataFrame({"row_id": ["x_S01_5", "x_S01_10"], **dict.fromkeys(CLASSES, 0.5)})
    sample.to_csv(tmp_path / "sample_submission.csv", index=False)
    table, report, _ = play(bundle, test, tmp_path / "s.csv", speed=speed)
    assert table.row_id.tolist() == ["x_S01_5", "x_S01_10"]
    assert "x_S01" in report["unreadable"]


def test_a_sample_that_does_not_know_all_recordings_is_not_the_test(bundle, folder, tmp_path):
    pd.DataFrame({"row_id": ["rec0_5"]}).to_csv(folder.parent / "sample_submission.csv", index=False)
    test = find_test(COMPETITION, folder, CLASSES)
    assert len(test.table) == 5
    assert "lacks 4 rows of its recordings" in test.notes[0]
    full = ["rec2_5", "rec2_10", "rec1_5", "rec1_10", "rec0_5"]
    pd.DataFrame({"row_id": full}).to_csv(folder.parent / "sample_submission.csv", index=False)
    assert find_test(COMPETITION, folder, CLASSES).table.row_id.tolist() == full
    pd.DataFrame({"row_id": ["rec9_5", *full[:4:2], "rec0_5"]}).to_csv(
        folder.parent / "sample_submission.csv", index=False
    )
    test = find_test(COMPETITION, folder, CLASSES)  # the public sample names the first rows alone
    assert test.table.row_id.tolist() == full
    assert [c.clip_id for c in test.clips] == ["rec2", "rec1", "rec0"]
    assert "lacks 1 rows of its recordings" in test.notes[0]
    pd.DataFrame({"row_id": full[:1] + full[2:]}).to_csv(folder.parent / "sample_submission.csv", index=False)
    assert len(find_test(COMPETITION, folder, CLASSES).table) == 4, "the last row of rec2, of 2.3 s, is not asked for"


def test_a_damaged_table_is_noted_beside_the_folder_and_refused_when_named(folder):
    table = folder.parent / "sample_submission.csv"
    table.write_text("a,b\n1,2\n")
    test = find_test(COMPETITION, folder, CLASSES)
    assert len(test.table) == 5
    assert "row_id" in test.notes[0]
    with pytest.raises(ValueError, match="row_id"):
        find_test(COMPETITION, folder, CLASSES, table)
    table.write_text("row_id\nrec0_5\nrec0_5\nrec1_5\nrec2_5\n")
    test = find_test(COMPETITION, folder, CLASSES)
    assert len(test.table) == 5
    assert "1 rows come again and are answered once: rec0_5" in test.notes[0]
    with pytest.raises(ValueError, match="row_id twice: rec0_5"):
        find_test(COMPETITION, folder, CLASSES, table)
    with pytest.raises(ValueError, match="no kernel answers 'esc50'"):
        find_test("esc50", folder, CLASSES)


def test_rows_without_a_table_by_competition(folder):
    (folder / "9_SNE_20200101.wav").write_bytes((folder / "rec0.wav").read_bytes())
    made = {c: find_test(c, folder, classes_of(c)).table for c in RULES}
    assert made["birdcall"].row_id.tolist()[:2] == ["site_1_9_SNE_20200101_5", "site_1_rec0_5"]
    assert made["birdclef2021"].row_id.tolist()[:2] == ["9_SNE_5", "rec0_site_5"]
    assert made["birdclef2022"].row_id.tolist()[3:5] == ["rec0_low_5", "rec0_mid_5"]
    assert made["rfcx"].recording_id.tolist() == ["9_SNE_20200101", "rec0", "rec1", "rec2"]
    assert made["freesound2019"].fname.tolist()[1] == "rec0.wav"


class Odd:
    """A network around another that fails, or answers nonsense, on loud sound."""

    def __init__(self, backend, how):
        self.backend, self.how = backend, how

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def run(self, inputs):
        out = self.backend.run(inputs)
        loud = inputs["logmel"].max(axis=(1, 2, 3)) > 8  # a call may hold windows of several recordings
        if loud.any() and self.how == "raise":
            raise RuntimeError("bad alloc")
        for values in out.values():
            values[loud] = np.nan
        return out


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_network_that_fails_on_a_recording_costs_only_that(bundle, folder, tmp_path, speed, how):
    network = bundle.networks[0]
    sound, rate = soundfile.read(folder / "rec1.wav")
    soundfile.write(folder / "loud.wav", sound / np.abs(sound).max(), rate, subtype="FLOAT")
    odd = replace(network, tta=(), members=tuple(replace(m, backend=Odd(m.backend, how)) for m in network.members))
    table, report, _ = play(bundle, folder, tmp_path / "s.csv", speed=speed, networks=[odd])
    assert report["heard"] == 3
    assert len(table) == 7
    named = [f["what"] for f in report["failures"]] if how == "raise" else list(report["unreadable"])
    assert named == ["loud"]


def test_a_network_that_does_not_run_is_left_out(bundle, folder, tmp_path, speed):
    broken = SimpleNamespace(inputs=("logmel",), frontends=bundle.networks[0].backend.frontends, run=lambda x: 1 / 0)
    one = bundle.networks[0]
    bad = replace(one, name="bad", members=(replace(one.members[0], backend=broken),))
    _, report, _ = play(bundle, folder, tmp_path / "s.csv", speed=speed, networks=[bad, bundle.networks[1]])
    assert [f["what"] for f in report["failures"]] == ["bad"]
    assert report["heard"] == 3
    _, report, _ = play(bundle, folder, tmp_path / "t.csv", speed=speed, networks=[bad])
    assert report["heard"] == 0
    assert "no network" in report["failures"][-1]["error"]


def test_networks_of_other_classes_are_refused(bundle, folder, tmp_path):
    one = bundle.networks[0]
    other = replace(one, name="other", members=(replace(one.members[0], classes=("a", "b", "c")),))
    with pytest.raises(ValueError, match="other knows other classes than the other networks"):
        play(bundle, folder, tmp_path / "s.csv", networks=[one, other])


@pytest.mark.slow
def test_a_killed_run_leaves_its_last_submission(bundle, folder, tmp_path, speed):
    """SIGKILL within the second round: the file of the first is whole and valid."""
    out = tmp_path / "s.csv"
    one = bundle.networks[0]
    outputs = one.backend.run(kernel_speed.one_window(one))

    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds
            self.inputs, self.frontends, self.timebase = one.backend.inputs, one.backend.frontends, one.backend.timebase

        def run(self, inputs):
            time.sleep(self.seconds if len(inputs) and out.is_file() else 0)
            return {k: np.repeat(v, len(inputs["logmel"]), axis=0) for k, v in outputs.items()}

    quick, slow = (replace(one, tta=(), members=(replace(one.members[0], backend=Slow(s)),)) for s in (0.0, 2.0))
    slow = replace(slow, name="slow", alike="slow")
    costs = {"sed/tiny": 1e-4, "slow": 2e-4}
    known = Speed(speed.decode, speed.logmel, costs, costs)
    child = multiprocessing.get_context("fork").Process(
        target=play, args=(bundle, folder, out), kwargs={"speed": known, "networks": [slow, quick]}
    )
    child.start()
    wanted = [f"rec{i}_{end}" for i, n in enumerate((1, 2, 2)) for end in range(5, 5 * n + 1, 5)]
    prior = np.mean([one.members[0].prior], axis=0)
    for _ in range(400):
        time.sleep(0.02)
        if out.is_file() and not np.allclose(pd.read_csv(out)[list(CLASSES)].to_numpy()[0], prior):
            break
    child.kill()
    child.join()
    assert child.exitcode == -9
    table = read_table(out)
    test = find_test(COMPETITION, folder, CLASSES)
    get_competition(COMPETITION).validate(table, test.table, list(CLASSES))
    assert table.row_id.tolist() == wanted
    expected = outputs["segmentwise_output"].max(axis=(0, 1))
    np.testing.assert_allclose(table[list(CLASSES)].iloc[0], expected, rtol=1e-5)


def test_fuzzed_folders(tmp_path, monkeypatch):
    bundles, speeds = {}, {}
    for seed in range(len(RULES)):
        competition = list(RULES)[seed % len(RULES)]
        if competition not in bundles:
            classes = classes_of(competition)
            bundles[competition] = open_bundle(tiny_graphs.write_bundle(tmp_path / competition, competition, classes))
            recording = kernel_speed.synthetic_recording(tmp_path, 1.0)
            speeds[competition] = speeds.get("any") or measure(bundles[competition].networks, recording)
            speeds["any"] = speeds[competition]
        one, out = bundles[competition], tmp_path / f"{seed}.csv"
        test = find_test(
            competition, fuzz_folders.make(tmp_path / str(seed), competition, one.classes, seed), one.classes
        )
        run = KernelRun(
            competition=competition,
            test=test,
            networks=one.networks,
            post=one.post,
            out=out,
            cores=2,
            speed=speeds[competition],
        )
        report = run_all(run, 1.0)
        fuzz_folders.check(get_competition(competition), test, one.classes, out)
        assert [f["what"] for f in report["failures"]] == ["the test"] * test.unheard, (seed, competition)


# ---- parts


def test_a_bundle_that_was_changed_is_refused(bundle, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    assert len(open_bundle(folder).networks) == 3
    (folder / "added-by-the-platform.txt").write_text("x")
    assert len(open_bundle(folder).networks) == 3
    data = bytearray((folder / "tiny_fold1.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "tiny_fold1.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=r"tiny_fold1\.onnx was changed"):
        open_bundle(folder)
    (folder / "tiny_fold1.onnx").unlink()
    (folder / "classes.csv").write_text("label\na\n")
    with pytest.raises(ValueError, match=r"classes\.csv has 8 bytes instead of 19; tiny_fold1\.onnx is missing"):
        open_bundle(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json must hold names and values .*make the bundle again"):
        open_bundle(folder)
    with pytest.raises(ValueError, match="does not exist"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="was made for birdclef2026, not for rfcx"):
        open_bundle(bundle.folder, "rfcx")


def test_the_script(bundle, folder, tmp_path, capsys):
    out = tmp_path / "working" / "submission.csv"
    scripts.run(
        run_kernel, "--bundle", bundle.folder, "--competition", COMPETITION, "--test-folder", folder, "--minutes", 1,
        "--out", out, "--strict",
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "3 of 3 recordings heard, 5 rows" in text
    report = json.loads((tmp_path / "working" / "submission_report.json").read_text())
    assert report["writes"][0]["what"] == "fallback: priors"
    assert report["writes"][-1]["rows"] == 5
    assert sorted(p.name for p in out.parent.iterdir()) == ["submission.csv", "submission_report.json"]
    scripts.run(run_kernel, "--bundle", bundle.folder, "--simulate", "600x60s", "--cores", 4)
    said = capsys.readouterr().out
    assert "minutes with 4 cores" in said
    assert "GB at most in all" in said
    assert "MORE THAN" not in said
    scripts.run(run_kernel, "--bundle", bundle.folder, "--simulate", "90000x3600s", "--cores", 4)
    assert "MORE THAN THE 30 GB of a kernel. Bundle fewer runs" in capsys.readouterr().out
    for wrong in ("600", "0x60s", "600x0s", "ax60"):
        with pytest.raises(SystemExit):
            scripts.run(run_kernel, "--bundle", bundle.folder, "--simulate", wrong)

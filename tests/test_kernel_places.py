"""Kernels whose data set or test lies elsewhere, and samples that ask for other classes than the networks know."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

import tiny_graphs
from earshot.competitions import get_competition
from earshot.events import PostProcess
from earshot.kaggle import bundling, push
from earshot.kaggle.bundling import BundleSettings
from earshot.kernel import runner
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.manifest import identity_of
from earshot.kernel.runner import KernelRun, answer_to_one, run_kernel
from earshot.tables import read_table
from tiny_graphs import CLASSES

SLUG = "some-one/my-kernel"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), "birdclef2026", folds=1))


@pytest.fixture
def folder(tmp_path):
    test = tmp_path / "birdclef-2026" / "test_soundscapes"
    test.mkdir(parents=True)
    soundfile.write(test / "rec.wav", 0.1 * np.random.default_rng(0).standard_normal(56000), 8000)
    return test


def run_on(bundle, folder, out) -> KernelRun:
    test = find_test("birdclef2026", folder, bundle.classes)
    return KernelRun(competition="birdclef2026", test=test, networks=bundle.networks, post=PostProcess(), out=out)


def priors(bundle, folder, out):
    """The first file that a kernel writes, and what it says has failed."""
    run = run_on(bundle, folder, out)
    run.write_fallback()
    return read_table(out), [failure["error"] for failure in run.failures]


def start(input_folder, tmp_path):
    """Run kernel.py on an input folder whose sources only print what they are told."""
    script = bundling.kernel_script(BundleSettings(runs=(), competition="birdclef2026", slug=SLUG), f"{SLUG}-files")
    (tmp_path / "kernel.py").write_text(script)
    return subprocess.run(
        [sys.executable, tmp_path / "kernel.py"], capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "KAGGLE_INPUT": str(input_folder), "TMPDIR": str(tmp_path)},
    )  # fmt: skip


def data_set(folder, slug=SLUG):
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"slug": slug}, indent=1))
    (folder / "earshot.pyz").write_text("import sys\nprint(sys.argv)\n")
    return folder


@pytest.mark.parametrize("place", ["my-kernel-files", "datasets/some-one/my-kernel-files", "other-name", "up/load/it"])
@pytest.mark.parametrize("competition", ["birdclef-2026", "competitions/birdclef-2026"])
def test_a_kernel_finds_its_data_set_whatever_it_is_called(tmp_path, place, competition):
    root = tmp_path / "input"
    data_set(root / "a-other-kernel", "some-one/another")
    (tests := root / competition / "test_soundscapes").mkdir(parents=True)
    bundle = data_set(root / place)
    ran = start(root, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert str(bundle) in ran.stdout
    assert str(tests) in ran.stdout


def test_an_input_that_is_not_added_is_named(tmp_path):
    root = tmp_path / "input"
    (root / "birdclef-2026").mkdir(parents=True)
    ran = start(root, tmp_path)
    assert ran.returncode
    assert "does not hold the data set some-one/my-kernel-files: add it" in ran.stderr.splitlines()[-1]
    (root / "birdclef-2026").rmdir()
    data_set(root / "my-kernel-files")
    assert "does not hold the competition birdclef-2026: add it" in start(root, tmp_path).stderr.splitlines()[-1]


def test_recordings_that_lie_a_folder_deeper_are_heard(bundle, folder):
    deeper = folder / "site" / "test_soundscapes"
    deeper.mkdir(parents=True)
    (folder / "rec.wav").rename(deeper / "rec.wav")
    (folder / "readme.txt").write_text("x")
    test = find_test("birdclef2026", folder, bundle.classes)
    assert [str(clip.path) for clip in test.clips] == [str(deeper / "rec.wav")]
    assert test.table.row_id.tolist() == ["rec_5", "rec_10"]
    assert test.notes == ("the recordings lie deeper: test_soundscapes/site/test_soundscapes",)


def test_the_answer_has_the_columns_of_the_sample(bundle, folder, tmp_path):
    plain, _ = priors(bundle, folder, tmp_path / "plain.csv")
    sample = pd.DataFrame({"row_id": ["rec_10", "rec_5"], "high": 0.1, "new": 0.1, "low": 0.1})
    sample.to_csv(folder.parent / "sample_submission.csv", index=False)
    table, (said,) = priors(bundle, folder, tmp_path / "s.csv")
    assert table.columns.tolist() == ["row_id", "high", "new", "low"]
    expected = plain.iloc[::-1].reset_index(drop=True)[["row_id", "high", "low"]]
    pd.testing.assert_frame_equal(table[["row_id", "high", "low"]], expected)
    assert table.new.eq(0).all()
    assert "1 of its 3 classes nobody knows, they get 0: new; 1 of the networks' are not asked for: mid" in said
    sample.drop(columns=["new"]).assign(mid=0.1).to_csv(folder.parent / "sample_submission.csv", index=False)
    table, failures = priors(bundle, folder, tmp_path / "s.csv")
    assert table.columns.tolist() == ["row_id", "high", "low", "mid"]
    assert not failures, "another order is no failure"
    sample.to_csv(folder.parent / "sample_submission.csv")  # with a column of row numbers, which somebody added
    table, failures = priors(bundle, folder, tmp_path / "s.csv")
    assert table.columns.tolist() == ["row_id", "high", "new", "low"]
    assert len(failures) == 1
    sample.iloc[:0].to_csv(folder.parent / "sample_submission.csv", index=False)
    (folder / "rec.wav").unlink()
    assert priors(bundle, folder, tmp_path / "s.csv")[0].columns.tolist() == ["row_id", "high", "new", "low"]


def test_a_sample_of_other_classes_altogether_is_refused(bundle, folder, tmp_path):
    sample = pd.DataFrame({"row_id": ["rec_5", "rec_10"], "a": 0.1, "b": 0.1})
    sample.to_csv(folder.parent / "sample_submission.csv", index=False)
    with pytest.raises(ValueError, match="asks for a, b, and the bundle's networks know low, mid, high, none of them"):
        run_on(bundle, folder, tmp_path / "s.csv")


def test_a_competition_of_fixed_classes_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="no class 's0'"):
        answer_to_one(get_competition("rfcx"), CLASSES, PostProcess(), tmp_path)
    broken = SimpleNamespace(about={"competition": "rfcx"}, classes=CLASSES, post=PostProcess())
    with pytest.raises(
        ValueError, match="rfcx cannot be answered by these networks, which know low, mid, high: .*'s0'"
    ):
        bundling._check_answers(broken, tmp_path)


def test_a_commit_tries_the_networks(bundle, folder, tmp_path, monkeypatch):
    (folder / "rec.wav").unlink()
    monkeypatch.setattr(runner, "simulate", lambda networks, n, seconds, cores: {"minutes": n * seconds / 6000})
    report = run_kernel(run_on(bundle, folder, tmp_path / "s.csv"), 1.0)
    assert report["rehearsal"] == pytest.approx({"seconds": 0.6, "recording_seconds": 60})
    assert not report["failures"]
    monkeypatch.setattr(KernelRun, "_runs", lambda self, network: False)
    (failure,) = run_kernel(run_on(bundle, folder, tmp_path / "s.csv"), 1.0)["failures"]
    assert "no network of the bundle runs here" in failure["error"]


def test_what_failed_on_kaggle_is_told_after_a_push(tmp_path):
    line = "  FAILED: the sample submission has other columns: ValueError: 1 of its 3 classes nobody knows\n"
    (tmp_path / "k.log").write_text(json.dumps([{"stream_name": "stdout", "time": 1.0, "data": line}]))
    (said,) = push.explain(tmp_path)
    assert said.endswith(
        "something failed: the sample submission has other columns: ValueError: 1 of its 3 classes nobody knows"
    )


def test_a_push_without_its_inputs_or_with_an_older_data_set_is_told(tmp_path):
    for lost, remedy in (("competition", "accept its rules"), ("dataset", "whether it is there")):
        answer = SimpleNamespace(**{f"invalid_{lost}_sources": ["birdclef-2026"]})
        with pytest.raises(ValueError, match=f"pushed without the .*birdclef-2026.*{remedy}"):
            push._refuse_without_inputs(answer, SLUG)
    push._refuse_without_inputs(SimpleNamespace(invalid_competition_sources=[]), SLUG)
    made = tiny_graphs.write_bundle(tmp_path / "dataset", folds=1)
    (tmp_path / "submission_report.json").write_text(json.dumps({"bundle": identity_of(made)}))
    assert push.other_version(tmp_path, made) == []
    tiny_graphs.write_bundle(made, folds=2)
    (said,) = push.other_version(tmp_path, made)
    assert "another version of its data set" in said

"""A kernel's blend: the one that ensemble.py chose, by run and class, also where only some networks answered."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import bundle as bundle_script
import run_kernel
import scripts
import tiny_graphs
from earshot.competitions import get_competition
from earshot.ensemble.blends import MEANS, Blend, build_blend, ranks, read_ensemble
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kernel.answers import KernelBlend, on_grid, run_weights
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun
from earshot.kernel.runner import run_kernel as run_all
from earshot.kernel.speed import Speed, front_ends
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip, Predictions, weighted_mean
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table
from tiny_graphs import CLASSES

pytestmark = pytest.mark.usefixtures("image_with_runtimes")

COMPETITION, SLUG = "birdclef2026", "user/two-runs"
GRID = TimeBase(10, 1, 10)
PER_CLASS = [[0.8, 0.0, 0.5], [0.2, 1.0, 0.5]]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Folders of two runs, of two folds and of three, whose networks answer differently."""
    root = tmp_path_factory.mktemp("runs")
    for run, folds, gain in (("a", 2, 0.2), ("b", 3, 0.5)):
        for fold in range(folds):
            path = root / run / f"fold{fold}" / "model.onnx"
            tiny_graphs.write_graph(path, gain=gain + 0.05 * fold, fold=fold, run=f"sed/{run}")
    return root / "a", root / "b"


@pytest.fixture
def folder(tmp_path):
    test = tmp_path / "input" / "test_soundscapes"
    test.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((5.0, 7.3)):
        t = np.arange(round(8000 * seconds)) / 8000
        soundfile.write(
            test / f"rec{i}.wav", 0.3 * np.sin(2000 * (i + 1) * t) + 0.01 * rng.standard_normal(len(t)), 8000
        )
    return test


def ensemble_file(path, runs, thresholds=None, **blend):
    """What ensemble.py writes beside its predictions."""
    values = {"mean": "mean", "weights": [], "power": 2.0} | blend
    about = {"runs": [str(r) for r in runs], "blend": values, "thresholds": thresholds or {}, "cv": 0.5}
    path.write_text(json.dumps(about))
    return path


def quick(bundle) -> Speed:
    """Speeds that nobody measured: all networks alike, next to nothing."""
    rates = {n.windowing.sample_rate: 1e-5 for n in bundle.networks}
    keys = {k: 1e-5 for n in bundle.networks for k in front_ends(n)}
    costs = {"sed/a": 1e-5, "sed/b": 2e-5}
    return Speed(rates, keys, costs, costs)


@pytest.fixture(scope="module")
def bundle(two_runs, tmp_path_factory):
    """A bundle of a blend by class."""
    root = tmp_path_factory.mktemp("bundle")
    blend_file = ensemble_file(root / "two.json", two_runs, mean="geometric", weights=PER_CLASS)
    return open_bundle(
        build(BundleSettings(runs=(), competition=COMPETITION, slug=SLUG, blend=blend_file), root) / "dataset",
        COMPETITION,
    )


def test_a_bundle_carries_the_blend(bundle):
    assert bundle.runs == ("sed/a", "sed/b")
    assert bundle.blend == Blend("geometric", tuple(map(tuple, PER_CLASS)), 2.0)
    assert [n.alike for n in bundle.networks] == ["sed/a"] * 2 + ["sed/b"] * 3


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("weights", [[], [0.7, 0.3], PER_CLASS], ids=["equal", "by run", "by class"])
def test_the_submission_is_the_blend_that_ensemble_chose(bundle, folder, tmp_path, mean, weights):
    test = find_test(COMPETITION, folder, CLASSES)
    blend = build_blend({"mean": mean, "weights": weights, "power": 3.0})
    run = KernelRun(
        competition=COMPETITION, test=test, networks=bundle.networks, post=bundle.post, out=tmp_path / "s.csv",
        blend=blend, runs=bundle.runs, speed=quick(bundle),
    )  # fmt: skip
    report = run_all(run, 1.0)

    found, _ = predict_members([m for n in bundle.networks for m in n.members], test.clips)
    expected = blend([weighted_mean(found[:2]), weighted_mean(found[2:])])
    answers = run.answers.predictions()
    np.testing.assert_allclose(answers.clipwise_output, expected.clipwise_output, rtol=2e-5, atol=2e-6)
    for ours, theirs in zip(answers.framewise_output, expected.framewise_output, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    rows = get_competition(COMPETITION).rows(expected, test.table)
    pd.testing.assert_frame_equal(read_table(run.out), rows, rtol=1e-4, atol=1e-5)
    assert not report["failures"]
    assert report["blend"]["mean"] == mean
    for name, chosen in zip(bundle.runs, np.array(weights or [1, 1], float).reshape(2, -1).mean(axis=1), strict=True):
        said = report["blend"]["runs"][name]
        assert said["share"] == pytest.approx(said["weight"], abs=1e-5)
        assert said["weight"] == pytest.approx(chosen / (1 if weights else 2), abs=1e-5)


# ---- where only some networks answered


def answers(values, unreadable=(False, False), frames=True):
    """Predictions of two recordings whose outputs are `values` in every class, the frames twice as much."""
    clip = np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)
    of_frames = tuple(np.repeat(2 * row[None], 4, axis=0) for row in clip) if frames else None
    ids, fold = np.array(["x", "y"]), np.zeros(2, int)
    return Predictions(
        ids, CLASSES, clip, fold, np.array(unreadable), framewise_output=of_frames, timebase=GRID if frames else None
    )


def make(blend, runs=("a", "b")):
    test = SimpleNamespace(clips=[Clip("x", "x"), Clip("y", "y")], seconds=np.array([4.0, 4.0]))
    return KernelBlend(test, CLASSES, np.full(3, 0.05), blend, runs)


def test_weights_are_renormalised_over_what_ran():
    blend = make(Blend(weights=(0.6, 0.4)))
    blend.add([0, 1], answers([0.1, 0.2]), 0.5, "a")
    only_a = blend.predictions()
    np.testing.assert_allclose(only_a.clipwise_output[:, 0], [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(only_a.framewise_output[1], 0.4, rtol=1e-6)
    assert blend.shares()["a"] == {"weight": pytest.approx(0.6), "share": pytest.approx(1.0)}
    blend.add([0], answers([0.4, 0.4]).take([0]), 0.25, "b")
    found = blend.predictions()
    mixed = (0.3 * 0.1 + 0.1 * 0.4) / 0.4  # half of a's 0.6 and a quarter of b's 0.4 came
    np.testing.assert_allclose(found.clipwise_output[:, 2], [mixed, 0.2], rtol=1e-6)
    np.testing.assert_allclose(found.framewise_output[0], 2 * mixed, rtol=1e-6)
    np.testing.assert_allclose(found.framewise_output[1], 0.4, rtol=1e-6)
    assert blend.shares()["b"]["share"] == pytest.approx((0.25 + 0) / 2)


@pytest.mark.parametrize("mean", ["mean", "rank", "geometric"])
def test_a_run_that_is_heard_again_weighs_no_more_than_before(mean):
    heard_once, again = make(Blend(mean, (0.6, 0.4))), make(Blend(mean, (0.6, 0.4)))
    for blend in (heard_once, again):
        blend.add([0, 1], answers([0.1, 0.2]), 1.0, "a")
        blend.add([0, 1], answers([0.4, 0.3]), 1.0, "b")
    again.add([0, 1], answers([0.1, 0.2]), 2.0, "a")  # a hearing of two variants that answers as before
    found, expected = again.predictions(), heard_once.predictions()
    np.testing.assert_allclose(found.clipwise_output, expected.clipwise_output, rtol=1e-6)
    for ours, theirs in zip(found.framewise_output, expected.framewise_output, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert again.shares()["a"] == {"weight": pytest.approx(0.6), "share": pytest.approx(0.6)}
    again.add([0, 1], answers([0.7, 0.8]), 3.0, "a")  # but its own answer becomes the mean of all its hearings
    if mean == "mean":
        np.testing.assert_allclose(again.predictions().clipwise_output[:, 0], [0.6 * 0.4 + 0.16, 0.6 * 0.5 + 0.12])


@pytest.mark.parametrize("mean", MEANS)
def test_a_run_without_weight_answers_where_no_other_did(mean):
    blend = make(Blend(mean, ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5))))
    blend.add([0, 1], answers([0.1, 0.4]), 1.0, "a")
    expected = answers([0.1, 0.4]).clipwise_output
    expected = ranks(expected) if mean == "rank" else expected
    np.testing.assert_allclose(blend.predictions().clipwise_output, expected, rtol=1e-5)
    np.testing.assert_allclose(blend.predictions().framewise_output[0], 0.2, rtol=1e-5)
    blend.add([0, 1], answers([0.3, 0.2]), 1.0, "b")
    by_class = blend.predictions().framewise_output[0][0]
    np.testing.assert_allclose(by_class[:2], [0.2, 0.6], rtol=1e-4)
    assert by_class[2] == pytest.approx(0.2) if mean == "minimum" else 0.2 < by_class[2] < 0.6


@pytest.mark.parametrize("mean", MEANS)
def test_what_nobody_answered_holds_the_prior(mean):
    blend = make(Blend(mean, (0.5, 0.5)))
    assert not blend.answered.any()
    assert blend.shares()["a"]["share"] == 0
    assert blend.add([0, 1], answers([0.2, np.nan]), 1.0, "a") == [1]
    blend.add([0, 1], answers([0.3, 0.3], unreadable=(True, True)), 1.0, "b")
    found = blend.predictions()
    assert found.unreadable.tolist() == [False, True]
    np.testing.assert_allclose(found.clipwise_output[0], 1.0 if mean == "rank" else 0.2, rtol=1e-6)
    np.testing.assert_allclose(found.clipwise_output[1], 0.05, rtol=1e-6)
    np.testing.assert_allclose(found.framewise_output[1], 0.05, rtol=1e-6)


def test_networks_without_frames_do_not_dilute_those_with():
    blend = make(Blend())
    blend.add([0, 1], answers([0.1, 0.2], frames=False), 1.0, "a")
    blend.add([0, 1], answers([0.3, 0.2]), 1.0, "b")
    np.testing.assert_allclose(blend.predictions().framewise_output[0], 0.6, rtol=1e-6)
    np.testing.assert_allclose(blend.predictions().clipwise_output[0], 0.2, rtol=1e-6)


def test_a_report_says_what_was_renormalised(capsys):
    runs = {"sed/a": {"weight": 0.6, "share": 1.0}, "sed/b": {"weight": 0.4, "share": 0.0}}
    run_kernel.print_blend({"mean": "geometric", "runs": runs})
    said = capsys.readouterr().out
    assert "geometric mean of sed/a 100 %, sed/b 0 %" in said
    assert "(chosen were 60, 40 %: the weights are renormalised over what ran)" in said


# ---- bundles and files


def test_a_bundle_of_an_ensemble_leaves_out_what_weighs_nothing(two_runs, tmp_path, capsys):
    post = tmp_path / "post.yaml"
    post.write_text("threshold: 0.4\nmin_seconds: 0.5\n")
    chosen = {"threshold": 0.3, "class_thresholds": {"low": 0.25, "high": 0.75}}
    blend_file = ensemble_file(tmp_path / "two.json", two_runs, chosen, weights=[0.0, 1.0])
    scripts.run(
        bundle_script, "--blend", blend_file, "--competition", "birdclef2021", "--slug", SLUG, "--post", post,
        "--root", tmp_path / "kernels",
    )  # fmt: skip
    assert "sed/a" not in capsys.readouterr().out
    bundle = open_bundle(tmp_path / "kernels/two-runs/build/dataset")
    assert {n.alike for n in bundle.networks} == {"sed/b"}
    assert bundle.blend == Blend(weights=(1.0,))
    assert (bundle.post.threshold, bundle.post.min_seconds) == (0.3, 0.5)
    assert bundle.post.class_thresholds == {"low": 0.25, "high": 0.75}
    written = yaml.safe_load((bundle.folder / "post.yaml").read_text())
    assert written["threshold"] == 0.3


def test_a_bundle_without_an_ensemble_is_the_plain_mean(two_runs, tmp_path):
    again = tmp_path / "a"  # as its config says
    for fold in range(2):
        tiny_graphs.write_graph(again / f"fold{fold}" / "model.onnx", fold=fold, run="sed/a", tta=["gain"])
    made = build(BundleSettings(runs=(again, two_runs[1]), competition=COMPETITION, slug=SLUG), tmp_path / "kernels")
    bundle = open_bundle(made / "dataset")
    assert [n.tta for n in bundle.networks] == [("gain",)] * 2 + [()] * 3, "each run is heard as it was validated"
    assert (bundle.blend.mean, bundle.blend.weights) == ("mean", (1.0, 1.0))
    assert [round(n.weight, 3) for n in bundle.networks] == [0.5, 0.5, 0.333, 0.333, 0.333]


def test_files_that_are_no_ensemble(two_runs, tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match=r"x\.json does not exist; src/ensemble\.py --out x\.npz writes x\.json"):
        read_ensemble(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json says no 'runs'; src/ensemble\.py"):
        read_ensemble(path)
    ensemble_file(path, two_runs, weights=[1.0])
    with pytest.raises(ValueError, match="names 2 runs and weights of 1"):
        read_ensemble(path)
    ensemble_file(path, two_runs, weights=[[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="weights of 2 classes, the runs know 3"):
        build(BundleSettings(runs=(), competition=COMPETITION, slug=SLUG, blend=path), tmp_path / "kernels")
    with pytest.raises(ValueError, match="leave --runs and --weights out"):
        build(BundleSettings(runs=two_runs, competition=COMPETITION, slug=SLUG, blend=path), tmp_path / "kernels")
    for weights in ([0.0, 0.0], [1.0, -1.0], [[1.0, 0.0], [1.0, 0.0]], [1.0, float("nan")]):
        with pytest.raises(ValueError, match=r"weights must be numbers from 0"):
            build_blend({"weights": weights})
    with pytest.raises(ValueError, match="weights must be numbers, one a run"):
        build_blend({"weights": [[1.0], [1.0, 2.0]]})
    with pytest.raises(ValueError, match="unknown key 'means'; did you mean 'mean'"):
        build_blend({"means": "rank"})
    with pytest.raises(ValueError, match="weights of 3 runs, there are 2"):
        run_weights(Blend(weights=(1, 1, 1)), 2, 3)


def chosen(competition=COMPETITION, **fields) -> dict:
    """What ensemble.py --tune adds to its JSON."""
    return {"competition": competition, "score": "macro_roc_auc", "post": {"threshold": 0.5} | fields}


def test_a_bundle_carries_the_post_processing_that_was_chosen(two_runs, tmp_path):
    """Of an ensemble, or of a JSON given: post.json in the bundle is the choice, and the kernel reads it."""
    blend_file = ensemble_file(tmp_path / "two.json", two_runs)
    about = json.loads(blend_file.read_text()) | {"post_processing": chosen(row_pool="mean")}
    blend_file.write_text(json.dumps(about))
    settings = BundleSettings(runs=(), competition=COMPETITION, slug=SLUG, blend=blend_file)
    bundle = open_bundle(build(settings, tmp_path / "a") / "dataset", COMPETITION)
    assert bundle.post.row_pool == "mean"
    assert json.loads((bundle.folder / "post.json").read_text()) == chosen(row_pool="mean")
    assert not (bundle.folder / "post.yaml").exists()
    given = tmp_path / "mine_post.json"
    given.write_text(json.dumps(chosen(median_filter_seconds=0.5)))
    bundle = open_bundle(
        build(BundleSettings(runs=two_runs, competition=COMPETITION, slug=SLUG, post=given), tmp_path / "b") / "dataset"
    )
    assert bundle.post.median_filter_seconds == 0.5
    with pytest.raises(ValueError, match=r"two\.json holds post-processing chosen on its OOF: leave --post out"):
        build(replace(settings, post=given), tmp_path / "c")
    given.write_text(json.dumps(chosen("birdclef2023")))
    with pytest.raises(ValueError, match=r"was chosen for birdclef2023, not for birdclef2026"):
        build(BundleSettings(runs=two_runs, competition=COMPETITION, slug=SLUG, post=given), tmp_path / "d")


def test_a_blend_weighs_recording_by_recording_on_the_first_grid(folder, tmp_path):
    test = find_test(COMPETITION, folder, CLASSES)
    blend = KernelBlend(test, CLASSES, np.zeros(3))
    bundle = open_bundle(tiny_graphs.write_bundle(tmp_path / "bundle", COMPETITION, folds=1), COMPETITION)
    member = bundle.networks[0].members[0]
    (found,), _ = predict_members([member], test.clips)
    blend.add([0, 1], found, 1.0)
    louder = replace(found, clipwise_output=np.ones_like(found.clipwise_output)).take([1])
    blend.add([1], louder, 3.0)
    mixed = blend.predictions()
    np.testing.assert_allclose(mixed.clipwise_output[0], found.clipwise_output[0], rtol=1e-6)
    np.testing.assert_allclose(mixed.clipwise_output[1], (found.clipwise_output[1] + 3) / 4, rtol=1e-6)
    np.testing.assert_allclose(mixed.framewise_output[1], found.framewise_output[1], rtol=1e-6)
    assert mixed.timebase == found.timebase


def test_frames_move_to_another_grid_by_their_middles():
    coarse, fine = TimeBase(100, 10, 2), TimeBase(200, 10, 1)  # 0.2 s and 0.05 s
    frames = np.arange(3.0)[:, None]
    assert on_grid(frames, coarse, fine)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    back = on_grid(on_grid(frames, coarse, fine), fine, coarse)
    assert back[:, 0].tolist() == [0, 1, 2]
    assert len(on_grid(frames, coarse, fine, 14)) == 14

"""Runs of a part of the classes: what they train on, how they are put back, blended, and answered by a kernel."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ensemble
import tiny_graphs
from earshot.competitions import birdclef_recordings
from earshot.config import DataConfig, load_config
from earshot.data.labels import split_classes
from earshot.data.prepared import load_data
from earshot.ensemble.blends import Blend
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kernel.answers import KernelBlend
from earshot.kernel.bundle import open_bundle
from earshot.kernel.runner import KernelRun
from earshot.kernel.runner import run_kernel as run_all
from earshot.kernel.speed import Speed, front_ends, ordered
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from scripts import run
from test_kernel_blend import COMPETITION, SLUG, folder  # noqa: F401, a fixture
from test_road_scripts import write_run

FULL = ("low", "mid", "high")


# ---- what it learns


def class_list(path, **columns) -> Path:
    pd.DataFrame({"label": ["ant", "bee", "cow"]} | columns).to_csv(path, index=False)
    return path


def test_classes_are_chosen_by_columns_of_the_list(tmp_path):
    path = class_list(tmp_path / "classes.csv", taxon=["Insecta", "Insecta", "Mammalia"], level=["a", "b", "b"])
    assert split_classes(path) == (["ant", "bee", "cow"], [])
    assert split_classes(path, part={"taxon": "Insecta"}) == (["ant", "bee"], ["cow"])
    assert split_classes(path, part={"label": "cow ant"}) == (["ant", "cow"], ["bee"])
    assert split_classes(path, ["b"], {"taxon": "Insecta"}) == (["bee"], ["ant", "cow"])
    for part, said in [
        ({"taxon": "Insekta"}, "data.part: no class has the taxon 'Insekta'; did you mean 'Insecta'"),
        ({"taxa": "Insecta"}, "data.part chooses classes by the column 'taxa' of .*; did you mean 'taxon'"),
        ({"taxon": ""}, "data.part.taxon names no value"),
        ({"taxon": "Mammalia", "label": "ant"}, "no class of .* has all that data.levels and data.part ask for"),
    ]:
        with pytest.raises(ValueError, match=said):
            split_classes(path, part=part)


@pytest.fixture
def tiny_part(tiny):
    """The tiny competition's data, as a specialist of class mid reads it."""
    config = load_config(tiny, ["data.part={label: mid}"])
    return load_data(config.data), load_config(tiny)


def test_clips_of_other_classes_hold_none_and_are_held_out(tiny_part):
    data, full = tiny_part
    whole = load_data(full.data)
    assert data.classes == ["mid"]
    assert data.clips.clip_id.tolist() == whole.clips.clip_id.tolist()
    np.testing.assert_array_equal(data.target[:, 0], whole.target[:, list(whole.classes).index("mid")])
    few = replace(data, others=0.5)
    training, held_out = few.split(0, "folds.csv")
    everything, _ = data.split(0, "folds.csv")
    assert held_out.clips.clip_id.tolist() == whole.split(0, "folds.csv")[1].clips.clip_id.tolist()
    assert training.target.sum() == everything.target.sum(), "every clip of the part trains"
    assert training.target.sum() < len(training.clips) < len(everything.clips)
    alone, _ = replace(data, others=0.0).split(0, "folds.csv")
    assert alone.target.all()
    with pytest.raises(ValueError, match=r"part_others must lie in 0 \.\.\. 1|part_others"):
        DataConfig(part_others=1.5)


def test_a_download_says_what_its_classes_are(tmp_path):
    pd.DataFrame({
        "primary_label": ["1139490", "ant bird"], "scientific_name": ["Ragoniella", "Avis ant"],
        "common_name": ["", "Ant bird"], "class_name": ["Insecta", "Aves"],
    }).to_csv(tmp_path / "taxonomy.csv", index=False)  # fmt: skip
    found = birdclef_recordings.species(tmp_path, ["ant_bird", "1139490", "other"])
    assert found.taxon.tolist() == ["Aves", "Insecta", ""]
    assert found.scientific_name.tolist() == ["Avis ant", "Ragoniella", ""]
    (tmp_path / "taxonomy.csv").unlink()
    rows = {"primary_label": ["x"], "secondary_labels": ["[]"], "filename": ["x/1.ogg"], "author": ["me"]}
    pd.DataFrame(rows | {"scientific_name": ["Xus xus"]}).to_csv(tmp_path / "train.csv", index=False)
    assert birdclef_recordings.species(tmp_path, ["x"]).to_dict("list") == {"scientific_name": ["Xus xus"]}
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    assert birdclef_recordings.species(tmp_path, ["x"]) is None


# ---- put back and blended


def test_ensemble_takes_a_specialist_and_its_json_has_weights_a_class(tiny, capsys):
    general = write_run("general", tiny, 0.3, 0)
    part = Path(tiny).read_text().replace("data: {", "data: {part: {label: mid}, ", 1)
    Path("part.yaml").write_text(part)
    special = write_run("special", "part.yaml", 0.02, 1, classes=("mid",))
    run(ensemble, "--runs", special, general, "--out", "runs/both.npz")
    said, about = capsys.readouterr().out, json.loads(Path("runs/both.json").read_text())
    assert "of 1 of 3 classes" in said
    assert about["blend"]["weights"] == [[0, 1, 0], [1, 1, 1]]
    assert about["best_member"]["run"] == str(general)
    oof = Predictions.load("runs/both_oof.npz")
    own, whole = (Predictions.load(of / "oof.npz").aligned(oof.clip_ids) for of in (special, general))
    assert oof.classes == FULL
    np.testing.assert_allclose(oof.clipwise_output[:, [0, 2]], whole.clipwise_output[:, [0, 2]], rtol=1e-6)
    mean = (own.clipwise_output[:, 0] + whole.clipwise_output[:, 1]) / 2
    np.testing.assert_allclose(oof.clipwise_output[:, 1], mean, rtol=1e-6)
    stale = write_run("stale", tiny, 0.02, 2, classes=("mid",))  # its config asks for every class
    with pytest.raises(
        ValueError, match=r"stale knows 1 of 3 classes, and its config chooses no part of them \(data.part\)"
    ):
        run(ensemble, "--runs", stale, general, "--out", "runs/x.npz")


# ---- in a kernel


def test_a_class_that_nobody_who_answered_knows_has_the_prior():
    from earshot.kernel.hidden_test import stand_in

    test = stand_in(COMPETITION, FULL, Path("."))
    name = test.clips[0].clip_id
    blend = KernelBlend(test, FULL, np.array([0.1, 0.2, 0.3]), Blend("geometric"), ("g", "s"), {"s": ("high", "mid")})
    grid = TimeBase(1, 1)

    def of(classes, values):
        clip = np.array([values], np.float32)
        return Predictions(np.array([name]), classes, clip, np.array([-1]), np.array([False]),
                           framewise_output=(clip.repeat(2, axis=0),), timebase=grid)  # fmt: skip

    blend.add([0], of(("high", "mid"), [0.9, 0.8]), 1.0, "s")
    np.testing.assert_allclose(blend.predictions().clipwise_output, [[0.1, 0.8, 0.9]], rtol=1e-5)
    np.testing.assert_allclose(blend.predictions().framewise_output[0], [[0.1, 0.8, 0.9]] * 2, rtol=1e-5)
    blend.add([0], of(FULL, [0.4, 0.2, 0.4]), 1.0, "g")
    np.testing.assert_allclose(blend.predictions().clipwise_output, [[0.4, 0.4, 0.6]], rtol=1e-5)
    assert blend.shares()["s"]["share"] == pytest.approx(1 / 3)


@pytest.mark.usefixtures("image_with_runtimes")
def test_a_kernel_answers_with_a_specialist(tmp_path, folder):  # noqa: F811
    from earshot.kernel.hidden_test import find_test

    classes = tiny_graphs.CLASSES
    tiny_graphs.write_graph(tmp_path / "a" / "fold0" / "model.onnx", gain=0.2, fold=0, run="sed/a")
    special = tmp_path / "s" / "fold0" / "model.onnx"
    tiny_graphs.write_graph(special, gain=0.6, fold=0, run="sed/s", classes=classes[1:2])
    made = build(
        BundleSettings(runs=(special.parents[1], tmp_path / "a"), competition=COMPETITION, slug=SLUG), tmp_path / "k"
    )
    bundle = open_bundle(made / "dataset", COMPETITION)
    assert bundle.classes == tuple(classes)
    assert len(bundle.prior) == len(classes)
    rates = {n.windowing.sample_rate: 1e-5 for n in bundle.networks}
    keys = {k: 1e-5 for n in bundle.networks for k in front_ends(n)}
    speed = Speed(rates, keys, {"sed/a": 2e-5, "sed/s": 1e-5}, {"sed/a": 2e-5, "sed/s": 1e-5})
    assert [n.alike for n in ordered(bundle.networks, speed)] == ["sed/a", "sed/s"], "all classes first"
    test = find_test(COMPETITION, folder, bundle.classes)
    one = KernelRun(
        competition=COMPETITION, test=test, networks=bundle.networks, post=bundle.post, out=tmp_path / "s.csv",
        blend=bundle.blend, runs=bundle.runs, speed=speed, known=(bundle.classes, bundle.prior),
    )  # fmt: skip
    report = run_all(one, 1.0)
    assert not report["failures"]
    by_run = {n.alike: predict_members(list(n.members), test.clips)[0][0] for n in bundle.networks}
    expected = by_run["sed/a"].clipwise_output.copy()
    expected[:, 1] = (expected[:, 1] + by_run["sed/s"].clipwise_output[:, 0]) / 2
    np.testing.assert_allclose(one.answers.predictions().clipwise_output, expected, rtol=1e-4, atol=1e-6)

"""Systems 1 to 3 as configs, the embedded city that they are tried on, and the plan that compares them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import make_folds
import prepare
import relabel
import train
from earshot import losses, optim, runs
from earshot.augment.image import apply_image
from earshot.augment.spectrogram import apply_logmel
from earshot.competitions import get_competition
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.data.soft_targets import SoftTargets
from earshot.models.talnet import Talnet
from earshot.models.weights import load_weights
from earshot.synth import streets
from scripts import run

UST = Path(__file__).resolve().parents[1] / "configs" / "ust"
SMALL = (
    "optim.epochs=1",
    "optim.validate_every=1",
    "model.params.embedding=32",
    "model.params.ffn=8",
    "optim.batch_size=8",
)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A folder with a city of a few clips in data/download."""
    folder = tmp_path_factory.mktemp("city")
    streets.make_city(folder / "data/download", train=24, crowd=6, verified=12)
    return folder


# ---- configs


@pytest.mark.parametrize(("name", "classes"), [("system1", 31), ("system2", 31), ("system3", 37)])
def test_the_systems_are_built_as_the_paper_says(name, classes):
    config = load_config(UST / f"{name}.yaml")
    network = runs.make_model(config, classes)
    assert network.inputs == ("logmel", "metadata")
    assert network.sounds == (["specific"] if name == "system1" else ["generic", "specific"])
    assert (config.data.levels, config.data.mask_unknown) == (
        ((), False) if name == "system3" else (("coarse", "fine"), True)
    )
    assert config.optim.batch_size == (64 if name == "system1" else 50)
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    assert config.inputs(("logmel",))["logmel"].shape(samples) == (1, 400, 64)
    o = config.optim
    optimizer = optim.build_optimizer(o.name, network, o.lr, o.weight_decay, o.lookahead, o.layer_decay)
    assert (type(optimizer).__name__, optimizer.k, optimizer.alpha) == ("Lookahead", 5, 0.5)
    assert type(optimizer.inner).__name__ == "Ralamb"
    out = {"logit": torch.zeros(2, classes)}
    assert torch.isfinite(losses.build_loss(**vars(config.loss))(out, {"target": torch.ones(2, classes)}))


def test_the_augmentation_is_made_of_what_is_there():
    config = load_config(UST / "system2.yaml")
    x = torch.randn(2, 1, 400, 64)
    generator = torch.Generator().manual_seed(0)
    assert apply_logmel(config.augment.batch.logmel, [x], None, generator)[0][0].shape == x.shape
    always = [{**spec, "p": 1.0} for spec in config.augment.batch.image]
    assert (apply_image(always, [x], None, generator)[0][0] != x).any()
    assert load_config(UST / "system1.yaml").augment.batch.mixup_alpha == 0.5
    loud = torch.zeros(4, 1, 400, 64)
    loud[:, :, 200, 32] = -60.0  # a clip's quietest value is what a constant border would be filled with
    shifted = apply_image(always[:2], [loud], None, generator)[0][0]
    assert (shifted < -1).float().mean() < 1e-3, "what is left free is mirrored"


@pytest.mark.parametrize("name", ["talnet_audioset", "system2"])
def test_given_audioset_weights_start_talnet(tmp_path, name):
    """A file of TALNet's published names and 527 classes fills every tensor but the head and what it does not have."""
    torch.manual_seed(1)
    published = Talnet(527, 64)
    torch.save({"model": published.state_dict()}, tmp_path / "TALNet.pt")
    config = load_config(UST / f"{name}.yaml")
    network = runs.make_model(config, 31)
    prefix = getattr(network, "weights_prefix", "")
    load_weights(network, tmp_path / "TALNet.pt", config.model.drop, None, prefix)
    state = network.state_dict()
    for key, value in published.state_dict().items():
        if not key.startswith("fc"):
            torch.testing.assert_close(state[prefix + key], value)


# ---- the city


def test_the_city_is_read_as_the_challenge_is(city):
    tables = get_competition("synth_sonyc").prepare(city / "data/download")
    assert len(tables.classes) == 37
    assert tables.class_columns.level.value_counts().to_dict() == {"fine": 23, "coarse": 8, "incomplete": 6}
    assert len(tables.clips) == 36  # the crowd's validate clips are left out
    assert tables.clips.official_fold.value_counts().to_dict() == {-1: 24, 0: 12}
    assert not set(tables.clips.group[tables.clips.official_fold == 0]) & set(
        tables.clips.group[tables.clips.official_fold == -1]
    )
    assert len(tables.truth) == 12
    assert len(get_competition("synth_sonyc").prepare(city / "data/download", crowd="train").clips) == 42
    with pytest.raises(ValueError, match="was not made with"):
        get_competition("synth_sonyc").prepare(city / "data/download", seed=5)


def test_the_same_seed_gives_the_same_city(city, tmp_path):
    streets.make_city(tmp_path / "again", train=24, crowd=6, verified=12)
    for file in sorted((city / "data/download").rglob("*.*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "again" / file.relative_to(city / "data/download")).read_bytes()


def test_tags_depend_on_hour_day_and_place():
    machinery = streets.CITY["2_machinery-impact"]
    noon = {"day": 2, "hour": 12}
    assert streets.chance(machinery, "works", noon) == streets.COMMON
    assert streets.chance(machinery, "park", noon) == streets.RARE
    assert streets.chance(machinery, "works", noon | {"hour": 3}) == streets.RARE
    assert streets.chance(machinery, "works", noon | {"day": 6}) == streets.RARE
    bursts = streets.CITY["3_non-machinery-impact"]  # from 18 over midnight to 6
    assert [streets.chance(bursts, "works", noon | {"hour": h}) > 0.1 for h in (5, 6, 17, 18)] == [
        True,
        False,
        False,
        True,
    ]


def test_annotators_miss_imagine_and_doubt_and_the_truth_does_not():
    rng, kinds = np.random.default_rng(0), {"1_engine": "1-1_small-sounding-engine"}
    said = [streets.heard_by(rng, kinds, agreed=False) for _ in range(2000)]
    doubted = np.mean(["1-X_engine-of-uncertain-size" in s for s in said])
    heard = np.mean([bool(s & {*streets.CITY["1_engine"].kinds, "1-X_engine-of-uncertain-size"}) for s in said])
    assert heard == pytest.approx(1 - streets.MISSED, abs=0.03)
    assert doubted == pytest.approx(streets.UNSURE * (1 - streets.MISSED), abs=0.03)
    assert np.mean([any(t.startswith("8-") for t in s) for s in said]) == pytest.approx(streets.IMAGINED, abs=0.01)
    agreed = [streets.heard_by(rng, kinds, agreed=True) for _ in range(200)]
    assert all(len(s) == 1 and next(iter(s)).startswith("1-") for s in agreed)


# ---- the road


@pytest.mark.slow
def test_from_the_city_to_relabelled_systems(city, monkeypatch, capsys):
    """The source's way on a small city: system 2 by its best coarse score relabels, system 3 trains on that."""
    monkeypatch.chdir(city)
    run(prepare, "synth_sonyc", "--source", city / "data/download", "--out", "data/city", "--set", "crowd=train")
    run(make_folds, "--clips", "data/city/clips.csv", "--out", "folds.csv")
    where = ("data.root=data/city", "data.folds=folds.csv", *SMALL)
    run(train, "--config", UST / "city_system2.yaml", "--name", "two", "optim.select=best", *where)
    scores = runs.load_run("runs/ust/two").folds[0].about["scores"]
    assert {"coarse_macro_auprc", "fine_macro_auprc", "macro_auprc"} <= set(scores)
    run(relabel, "--run", "runs/ust/two", "--mode", "source")
    found, clips = SoftTargets.load("data/city/targets.npz"), pd.read_csv("data/city/clips.csv")
    assert len(found.classes) == 31
    assert set(found.clip_ids) == set(clips.clip_id[clips.is_verified == 0].astype(str))
    assert "12 keep their labels: is_verified=1" in capsys.readouterr().out
    run(train, "--config", UST / "city_system3.yaml", "--name", "three", *where)
    about = runs.load_run("runs/ust/three").folds[0].about
    assert about["soft_targets"]["mode"] == "source"
    assert len(about["classes"]) == 37
    config = load_config(UST / "city_system3.yaml", where)
    data = load_data(config.data)
    training, held_out = data.split(0, "folds.csv")
    x = data.classes.index("1-X_engine-of-uncertain-size")
    labels = data.target[data.clips.clip_id.isin(training.clips.clip_id).to_numpy()]
    np.testing.assert_array_equal(training.target[:, x], labels[:, x])  # system 2 knows no X
    assert (np.abs(training.target[:, 0] - labels[:, 0]) > 0).any()
    assert set(np.unique(held_out.target)) <= {0, 1}

from pathlib import Path

import pytest
import torch
import yaml

from earshot.config import Config, from_dict, load_config, to_dict
from earshot.runs import config_difference, make_model

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
RUNS = [p for p in CONFIGS if p.parent.name not in ("post", "compare") and not p.name.startswith("_")]


def test_there_are_configs():
    assert {p.parent.name for p in RUNS} >= {"sed", "tagging", "panns"}


@pytest.mark.parametrize("path", RUNS, ids=lambda p: str(p.relative_to(ROOT).with_suffix("")))
def test_every_config_loads_and_names_a_model_that_can_be_built(path):
    config = load_config(path)
    assert config.task == path.relative_to(ROOT).parts[0]
    assert path.read_text().startswith("# python src/train.py --config"), "the header says how to run it"
    from earshot.models import MODELS

    assert config.model.name in MODELS


@pytest.mark.parametrize(
    "path", [p for p in RUNS if "panns" not in p.parts and "cnn14" not in p.stem], ids=lambda p: p.stem
)
def test_every_configs_model_params_are_accepted(path):
    config = load_config(path)
    with torch.device("meta"):  # shapes are enough
        model = make_model(config, 3, weights_follow=True)
    assert set(model.inputs) <= set(config.frontends) | {"waveform", "metadata", "embedding"}


def test_defaults_round_trip_through_yaml():
    config = load_config(None, ["augment.spec_augment={time_width: 64}", "predict.tta=[gain]"])
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.name=x", "unknown config key 'modle'; did you mean 'model'"),
        ("optim.lrr=1", "unknown config key 'lrr' in 'optim'; did you mean 'lr'"),
        ("frontends.logmel.hop=320", "unknown config key 'hop' in 'frontends.logmel'; did you mean 'hop_length'"),
        ("optim.epochs=two", "optim.epochs must be a whole number, got 'two'"),
        ("optim.epochs=1.5", "optim.epochs must be a whole number, got 1.5"),
        ("optim.lr=yes", "optim.lr must be a number, got True"),
        ("optim.channels_last=1", "optim.channels_last must be true or false, got 1"),
        ("optim=3", "config section 'optim' must be a mapping, got 3"),
        ("optim.lr", "override 'optim.lr' is not of the form key=value"),
        ("data.crop=middle", "data.crop is 'middle'; choose one of random, box, full"),
        ("data.frame_margin_seconds=-0.01", r"data.frame_margin_seconds must be 0 or more, got -0.01"),
        ("optim.warmup_epochs=11", r"optim.warmup_epochs \(11.0\) is longer than training"),
        ("optim={early_stop_epochs: 3, validate_every: 5}", r"early_stop_epochs \(3\) is shorter than optim.valid"),
        ("predict.clip_from=max", "predict.clip_from is 'max'; choose one of clipwise, frame_max"),
        ("predict.stride_seconds=6", "is longer than the window"),
        ("data.sampler=balance", "data.sampler is 'balance'; choose one of uniform, balanced"),
        ("data.train_share=1.5", "data.train_share is 1.5: a share lies above 0 and is at most 1"),
        ("data.train_share=0", "data.train_share must be positive, got 0"),
        ("data.cache=pack", "data.cache is 'pack'; choose one of none, waveform, packed, logmel"),
        ("optim.batch_size=0", "optim.batch_size must be positive, got 0"),
        (
            "frontends.logmel.sample_rate=44100",
            r"44100 Hz, above data.sample_rate \(32000 Hz\).* set data.sample_rate=44100",
        ),
        ("frontends.logmel.channels=stereo", "data.channels is mono.*set data.channels=stereo"),
        ("frontends.logmel.kind=logmle", r"frontends\.logmel\.kind is 'logmle'; did you mean 'logmel'"),
        ("data.channels=surround", "data.channels is 'surround'; choose one of mono, stereo, mid_side"),
        ("frontends.logmel.fmax=20000", "20000"),
    ],
)
def test_bad_values_say_what_was_wrong(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, [override])


def test_numbers_are_converted_by_declared_type():
    config = load_config(None, ["optim.lr=1e-3", "optim.epochs=7.0", "optim.weight_decay=0"])
    assert (config.optim.lr, config.optim.epochs, config.optim.weight_decay) == (1e-3, 7, 0.0)
    assert isinstance(config.optim.epochs, int)


def test_cached_logmel_cannot_augment_waveforms():
    with pytest.raises(ValueError, match="leaves no waveform to augment"):
        load_config(None, ["data.cache=logmel", "augment.mixup_on=waveform"])


def test_one_base_and_no_more(tmp_path):
    (tmp_path / "_base.yaml").write_text("optim: {lr: 1e-4, epochs: 3}\n")
    (tmp_path / "a.yaml").write_text("base: _base.yaml\noptim: {epochs: 5}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    config = load_config(tmp_path / "a.yaml")
    assert (config.optim.lr, config.optim.epochs) == (1e-4, 5)
    with pytest.raises(ValueError, match="is a base and names a base itself"):
        load_config(tmp_path / "b.yaml")


def test_missing_and_broken_files(tmp_path):
    (tmp_path / "model.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="does not exist; did you mean 'model.yaml'"):
        load_config(tmp_path / "modell.yaml")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_config(tmp_path / "model.yaml")


def test_front_ends_follow_the_data_rate():
    config = load_config(None, ["data.sample_rate=16000", "frontends.logmel.fmax=7000"])
    assert config.frontends["logmel"].sample_rate == 16000


def test_difference_names_keys_and_both_values():
    a, b = to_dict(Config()), to_dict(load_config(None, ["optim.lr=0.5", "seed=7"]))
    assert config_difference(a, b) == "optim.lr: 0.001 != 0.5; seed: 1213 != 7"
    assert config_difference(a, a) == ""

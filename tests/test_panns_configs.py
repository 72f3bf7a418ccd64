"""configs/tagging/panns: the networks of the paper's tables, sized as published without computing a value."""

from pathlib import Path

import pytest
import torch

from earshot.augment.spectrogram import build_spec_augment
from earshot.config import load_config
from earshot.models.counting import count
from earshot.runs import make_model
from earshot.sound.logmel import n_frames
from earshot.training.checks import check_inputs

FOLDER = Path(__file__).parents[1] / "configs" / "tagging" / "panns"
CONFIGS = sorted(p for p in FOLDER.glob("*.yaml") if not p.name.startswith("_"))
PAPER = {  # parameters and multi-adds / 1e9 of table XII
    "cnn6": (4_837_455, 21.986), "cnn10": (5_219_279, 28.166), "cnn14": (80_753_615, 42.220),
    "resnet22": (63_675_087, 30.081), "resnet38": (73_783_247, 48.962), "resnet54": (104_318_159, 54.563),
    "mobilenet_v1": (4_796_303, 3.614), "mobilenet_v2": (4_075_343, 2.810), "dainet19": (4_385_807, 30.395),
    "leenet11": (748_367, 4.741), "leenet24": (10_003_791, 26.369), "res1dnet31": (80_464_463, 32.688),
    "res1dnet51": (106_538_063, 61.833), "wavegram_cnn14": (80_991_759, 44.234),
    "wavegram_logmel_cnn14": (81_065_487, 53.510),
}  # fmt: skip
FRAMES = {"cnn14_hop500": 641, "cnn14_hop640": 501, "cnn14_hop1000": 321}  # of 10 s; all others 1,001


def on_meta(config) -> torch.nn.Module:
    with torch.device("meta"):
        return make_model(config, 527, weights_follow=True)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@pytest.mark.slow
def test_every_config_is_a_network_of_527_classes_on_10_seconds(path):
    config = load_config(path)
    model = on_meta(config)
    check_inputs(model, config)
    costs = count(model, config.inputs(model.inputs), 10 * config.data.sample_rate)
    parameters = sum(p.numel() for p in model.parameters())
    if path.stem in PAPER:
        assert (parameters, round(costs.paper_multi_adds / 1e9, 3)) == PAPER[path.stem]
    assert n_frames(10 * config.data.sample_rate, config.frontends["logmel"]) == FRAMES.get(path.stem, 1001)
    assert config.predict.window_seconds == config.predict.stride_seconds == 10


def test_all_fifteen_networks_and_the_variants_are_there():
    stems = {p.stem for p in CONFIGS}
    assert stems >= set(PAPER) | {f"cnn14_{head}" for head in ("max", "avg", "att")}
    assert stems >= {f"cnn14_{v}" for v in ("emb32", "emb128", "emb512", "8k", "16k", "mel32", "mel128")}
    assert stems >= set(FRAMES) | {"cnn14_no_specaug", "cnn14_no_dropout"}


def test_variants_without_a_regulariser_have_none():
    assert build_spec_augment(load_config(FOLDER / "cnn14_no_specaug.yaml").augment.spec_augment) is None
    model = on_meta(load_config(FOLDER / "cnn14_no_dropout.yaml"))
    assert (model.dropout, model.head_dropout) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("stem", "override", "message"),
    [
        (
            "leenet11",
            "augment.batch.mixup_on=logmel",
            "mixup_on=logmel would mix the labels .*; set augment.batch.mixup_on=waveform",
        ),
        ("res1dnet31", "augment.batch.mixup_on=logmel", "res1dnet31 reads waveform"),
        ("wavegram_logmel_cnn14", "augment.batch.fmix_p=0.5", "augment.batch.fmix_p would mix the labels"),
        ("leenet11", "augment.spec_augment={time_stripes: 1}", "augment.spec_augment acts on a log-mel: leenet11"),
        ("dainet19", "augment.batch.logmel=[{name: roll}]", "augment.batch.logmel acts on a log-mel"),
        ("cnn14", "data.cache=logmel", ""),
        ("leenet24", "data.cache=logmel", "data.cache=logmel leaves no waveform"),
    ],
)
def test_augmentation_that_a_network_cannot_hear_is_an_error(stem, override, message):
    cached = ["augment.batch.mixup_on=none", "frontends.logmel.engine=own"]
    overrides = [override, *cached] if "cache" in override else [override]
    config = load_config(FOLDER / f"{stem}.yaml", overrides)
    if not message:
        check_inputs(on_meta(config), config)
        return
    with pytest.raises(ValueError, match=message):
        check_inputs(on_meta(config), config)

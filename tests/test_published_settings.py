"""Configs of published systems hold the settings that their sources print."""

from pathlib import Path

import pytest
import torch
import yaml

import compare
from earshot.config import load_config
from earshot.models import counting
from earshot.prediction.reading import hearing_starts
from earshot.prediction.tta import Variant
from earshot.runs import make_model
from test_counting import Tiny

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PLAN = yaml.safe_load((CONFIGS / "compare" / "se_trans_dcase.yaml").read_text())
INPUTS = {"scenes": (44100, 500, 40), "ust": (20480, 401, 64), "asd": (16000, 64, 128)}  # rate, frames, mels


def shapes_of(config, model):
    return config.inputs(model.inputs).shapes(round(config.data.crop_seconds * config.data.sample_rate))


def on_meta(config, classes=10):
    with torch.device("meta"):
        return make_model(config, classes, weights_follow=True).eval()


@pytest.mark.parametrize("task", INPUTS)
def test_every_system_of_the_se_trans_paper_has_its_inputs_and_loss(task):
    rate, frames, mels = INPUTS[task]
    assert len(PLAN["systems"]) == 14
    for system in PLAN["systems"]:
        config = load_config(CONFIGS / task / f"{system}.yaml")
        assert config.data.sample_rate == rate
        assert config.frontends["logmel"].shape(round(config.data.crop_seconds * rate)) == (1, frames, mels)
        assert config.frontends["logmel"].fmax == rate / 2
        assert config.loss.params == {"label_smoothing": 0.0}
        assert config.loss.name == ("bce" if task == "ust" else "cross_entropy")
        assert (config.optim.name, config.optim.lr) == ("adam", 1e-3) or (task, system) == ("ust", "dcase_baseline")
        stated = [part for part in ("mixup", "fmix", "spec") if part in system]
        batch, spec = config.augment.batch, config.augment.spec_augment
        acting = {"mixup": batch.mixup_on != "none", "fmix": batch.fmix_p > 0, "spec": bool(spec)}
        expected = stated or (["mixup"] if "bigru" in system else [])
        assert [name for name, acts in acting.items() if acts] == expected, system


def test_a_machine_is_scored_by_whole_inputs_alone():
    """Equation 21: inputs of 64 frames every 8 of the 313 of 10 s, (313 - 64) // 8 + 1 = 32; of 11 s 36."""
    windowing = load_config(CONFIGS / "asd" / "dcase_se_trans.yaml").predict
    for seconds, inputs in ((10, 32), (11, 36)):
        starts, *_ = hearing_starts(seconds * 16000, windowing, Variant())
        assert starts.tolist() == [8 * 512 * i for i in range(inputs)]


def test_machines_have_a_model_a_type_or_one_jointly():
    assert load_config(CONFIGS / "asd" / "dcase_se_trans.yaml").data.where == {"machine": "fan"}
    config = load_config(CONFIGS / "asd" / "dcase_se_trans.yaml", ["data.where.machine=ToyCar"])
    assert config.data.where == {"machine": "ToyCar"}
    assert load_config(CONFIGS / "asd" / "dcase_se_trans.yaml", ["data.where={}"]).data.where == {}
    named = compare.parts(PLAN, "asd")
    assert named["-pump"] == ["data.where.machine=pump"]
    assert len(named) == 7
    assert compare.parts(PLAN, "ust") == {"": []}


def test_the_challenge_baseline_of_2022_has_its_printed_size():
    config = load_config(CONFIGS / "scenes" / "dcase2022_baseline.yaml")
    model = on_meta(config)
    shapes = shapes_of(config, model)
    assert shapes == {"logmel": (1, 51, 40)}
    inputs = {name: torch.empty((1, *shape), device="meta") for name, shape in shapes.items()}
    assert counting.folded_bytes(model, inputs) == 46_512
    assert counting.multiply_accumulates(model, inputs) / 1e6 == pytest.approx(29.2, abs=0.1), "as the challenge says"


def test_the_low_complexity_system_has_the_settings_of_its_source():
    config = load_config(CONFIGS / "scenes" / "dcase2022_separable.yaml")
    optim = config.optim
    assert (optim.name, optim.lr, optim.min_lr, optim.schedule) == ("adamw", 1e-3, 1e-5, "cosine")
    assert (optim.epochs, optim.batch_size, optim.weight_decay) == (150, 32, 1e-5)
    assert config.predict.tta == ("copies:30",)
    assert sum(p.numel() for p in on_meta(config).parameters()) == 75_178


def test_folded_bytes_by_hand():
    """3x3 convolution of 5 with a folded norm, linear layer of 7: 45 + 5 biases of 4; 35 + 7 of 4."""
    inputs = {"logmel": torch.empty(1, 1, 8, 8, device="meta")}
    assert counting.folded_bytes(Tiny(), inputs) == 45 + 20 + 35 + 28

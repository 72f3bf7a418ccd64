"""A network of somebody's own that says less than ours do: defaults, or one error before training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import describe
import export
import train
from earshot.inputs.network import Inputs
from earshot.models import MODELS, build_model
from earshot.models.contract import check_answers, declared
from earshot.prediction.backends import TorchBackend
from earshot.sound.logmel import LogmelParams
from scripts import run

PLAIN = ["model={name: plain}", "augment.spec_augment={}", "optim.epochs=1"]
K = 3


class Plain(nn.Module):
    """A mean over blocks of 8 frames, and nothing said but what it reads and the least that it can hear."""

    inputs, min_frames = ("logmel",), 8

    def __init__(self, classes: int, n_mels: int):
        super().__init__()
        self.pooled, self.fc = nn.AvgPool2d((8, 1)), nn.Linear(n_mels, classes)

    def forward(self, logmel):
        logit = self.fc(self.pooled(logmel / 10).amax(dim=(1, 2)))
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


def test_it_trains_and_its_graph_agrees_at_every_length(tiny, monkeypatch):
    monkeypatch.setitem(MODELS, "plain", Plain)
    run(train, "--config", tiny, "--fold", "0", *PLAIN, "loss={name: bce}", "predict.keep_frames=false")
    run(export, "--run", "runs/sed/tiny", "--no-oof")
    assert Path("runs/sed/tiny/fold0/model.onnx").is_file()


def test_prediction_pads_what_is_shorter_than_it_can_hear():
    torch.manual_seed(0)
    front = LogmelParams(sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000)
    backend = TorchBackend(declared("plain", Plain(K, 16)), Inputs.made({"logmel": front}))
    x = np.random.default_rng(0).standard_normal((1, 1, 3, 16)).astype(np.float32)
    padded = np.concatenate([x, x[:, :, -1:].repeat(5, axis=2)], axis=2)
    np.testing.assert_array_equal(backend.run({"logmel": x})["logit"], backend.run({"logmel": padded})["logit"])


def test_what_it_leaves_out_has_a_default(monkeypatch):
    monkeypatch.setitem(MODELS, "plain", Plain)
    network = build_model("plain", K, 16)
    assert (network.pool, network.min_frames, network.dead_parameters) == (1, 8, ())
    monkeypatch.delattr(Plain, "min_frames")
    Plain.pool = 8
    try:
        assert build_model("plain", K, 16).min_frames == 8, "a segment"
    finally:
        del Plain.pool


def test_what_it_reads_is_asked_for(monkeypatch):
    for wrong in ("logmel", (), None):
        monkeypatch.setattr(Plain, "inputs", wrong)
        monkeypatch.setitem(MODELS, "plain", Plain)
        with pytest.raises(ValueError, match=r"model plain does not say what it reads: .*\(\"logmel\",\), not"):
            build_model("plain", K, 16)


@pytest.mark.parametrize("script", [describe, train])
def test_what_it_answers_is_asked_for_before_training(tiny, monkeypatch, script):
    class Wrong(Plain):
        def forward(self, logmel):
            return super().forward(logmel)["logit"]

    monkeypatch.setitem(MODELS, "plain", Wrong)
    with pytest.raises(ValueError, match="model plain: its forward gives no named tensors, not a dict with"):
        run(script, "--config", tiny, *PLAIN)
    assert not Path("runs").exists()


def test_masks_that_would_act_on_nothing_are_refused(tiny, monkeypatch):
    monkeypatch.setitem(MODELS, "plain", Plain)
    with pytest.raises(ValueError, match="augment.spec_augment does nothing to plain, which has no `spec_augment`"):
        run(train, "--config", tiny, "--fold", "0", PLAIN[0])
    plus = ["augment.spec_augment_pp={time_share: 0.2}", "predict.keep_frames=false", "loss={name: bce}"]
    with pytest.raises(ValueError, match="augment.spec_augment_pp does nothing to the input of this network"):
        run(train, "--config", tiny, "--fold", "0", *PLAIN, *plus)
    assert not Path("runs").exists()


def test_one_pass_of_a_network_that_pools_no_segments_is_refused_before_training(tiny, monkeypatch):
    monkeypatch.setitem(MODELS, "plain", Plain)
    with pytest.raises(ValueError, match="one pass needs a network whose clip output is pooled from its segments"):
        run(train, "--config", tiny, "--fold", "0", *PLAIN, "predict.one_pass=true", "loss={name: bce}")
    assert not Path("runs").exists()


@pytest.mark.parametrize(("changed", "message"), [
    ({"clipwise_output": (1, 4)}, r"`clipwise_output` of one clip is \(1, 4\), not \(1, 3\)"),
    ({"logit": (3,)}, r"`logit` of one clip is \(3,\)"),
    ({"embedding": (1, 5, 16)}, r"`embedding` of one clip is \(1, 5, 16\), not \(clips, width\)"),
    ({"segmentwise_output": (1, 101, K)}, "101 segments of 101 frames are not those of the `pool` of 4 frames"),
    ({"segmentwise_output": (1, 12, K)}, "12 segments of 101 frames"),
    ({"framewise_output": (1, 100, K)}, "`framewise_output` has 100 frames of the 101 that it heard"),
    ({"segmentwise_output": None}, "it gives `framewise_output` and no `segmentwise_output`"),
])  # fmt: skip
def test_answers_of_other_shapes_are_named(changed, message):
    network = declared("plain", Plain(K, 16))
    network.pool = 4
    good = {"clipwise_output": (1, K), "logit": (1, K), "embedding": (1, 16), "segmentwise_output": (1, 25, K),
            "framewise_output": (1, 101, K)}  # fmt: skip
    for segments in (25, 26):
        check_answers("plain", network, good | {"segmentwise_output": (1, segments, K)}, K, 101)
    wrong = {k: v for k, v in (good | changed).items() if v}
    with pytest.raises(ValueError, match=message):
        check_answers("plain", network, wrong, K, 101)
    if "frames" in message:
        check_answers("plain", network, wrong, K)  # frames of several pictures have no one number

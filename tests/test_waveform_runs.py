"""Networks that read the waveform, alone or beside a log-mel, from training to predictions."""

import pandas as pd
import pytest
import torch

import describe
import predict
import train
from earshot import runs
from earshot.models import build_model
from earshot.prediction.predictions import Predictions
from scripts import run

COMMON = ("augment.spec_augment={}", "augment.batch.mixup_on=waveform", "loss.name=bce", "predict.keep_frames=false",
          "optim.epochs=2", "predict.stride_seconds=0.7")  # fmt: skip
NETWORKS = {
    "leenet11": ("model.params={widths: [4, 4, 4, 4, 4, 4, 8], embedding: 16}", "optim.channels_last=true"),
    "wavegram_logmel_cnn14": ("model.params={widths: [4, 8, 8], pre_widths: [4, 4], embedding: 16}",
                              "frontends.logmel={n_fft: 512, hop_length: 320, n_mels: 16, fmax: 4000}"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_waveform_network_trains_predicts_and_is_described(tiny, capsys, name):
    options = (f"model.name={name}", *NETWORKS[name], *COMMON)
    run(train, "--config", tiny, "--fold", "0", "--name", name, *options)
    folder = runs.load_run(f"runs/sed/{name}")
    log = pd.read_csv(folder.folds[0].folder / "log.csv")
    assert log.loss.iloc[-1] < log.loss.iloc[0]
    oof = folder.folds[0].oof()
    assert len(oof) == 9
    assert oof.clipwise_output.std(axis=0).min() > 0, "clips get different answers"
    run(predict, "--run", folder.folder, "--clips", "data/test_clips.csv", "--tta", "time_shift")
    test = Predictions.load(folder.folder / "test.npz")
    assert test.clipwise_output.shape == (3, 3)
    assert not test.unreadable.any()
    run(describe, "--config", tiny, *options)
    out = capsys.readouterr().out
    assert f"model {name}, 3 classes, reads waveform" in out
    assert ("front end logmel:" in out) == (name != "leenet11")


def test_training_refuses_what_a_waveform_network_cannot_hear(tiny):
    with pytest.raises(ValueError, match=r"spec_augment acts on a log-mel: leenet11 reads waveform\. Leave it out"):
        run(train, "--config", tiny, "--fold", "0", "model.name=leenet11", "model.params={}", "loss.name=bce")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_waveform_network_can_be_transferred(name):
    params = {"widths": (4, 8, 8), "embedding": 16} | ({"pre_widths": (4, 4)} if "wavegram" in name else {})
    model = build_model("transfer", 3, 64, {"base": name, "base_classes": 527, "base_params": params}).eval()
    inputs = {"waveform": torch.randn(2, 32000), "logmel": torch.randn(2, 1, 101, 64)}
    with torch.no_grad():
        out = model(**{k: inputs[k] for k in model.inputs})
    assert out["clipwise_output"].shape == (2, 3)
    assert out["embedding"].shape == (2, 16)

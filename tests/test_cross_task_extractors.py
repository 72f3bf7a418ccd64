"""A PANN with a published checkpoint in VGGish's place, through the three fusions: trained, predicted, exported."""

from pathlib import Path

import numpy as np
import pytest
import torch

import export
import predict
import train
from earshot import runs
from earshot.config import load_config
from earshot.inputs.extractor import opened
from earshot.prediction.predictions import Predictions
from scripts import run

CNN14 = """
task: tagging
data: {competition: audioset, root: data/audioset, folds: folds/audioset.csv, sample_rate: 8000, crop_seconds: 1.0}
frontends:
  logmel: {engine: torchlibrosa, n_fft: 256, hop_length: 80, n_mels: 64, fmin: 50, fmax: 4000}
model: {name: cnn14, params: {widths: [4, 4, 8, 8, 8, 16], embedding: 24}}
predict: {window_seconds: 1.0}
"""
NARROW = "widths: [4, 8, 8, 8], attention: 8, activation: sigmoid"
FUSIONS = {
    "cross_task_vem": f"{{{NARROW}}}",
    "cross_task_jrm": f"{{{NARROW}, deep_widths: [4, 8, 8, 8, 8, 8, 16]}}",
    "cross_task_cmam": f"{{{NARROW}, query_dim: 32}}",
}
EXTRACTOR = ("{kind: extractor, config: cnn14.yaml, weights: Cnn14_mAP=0.431.pth, sample_rate: 8000, "
             "window_seconds: 0.32, sequence: true}")  # fmt: skip


def published(path: str = "Cnn14_mAP=0.431.pth") -> torch.nn.Module:
    """A narrow Cnn14 of 527 classes, its tensors under `model`, as the authors' files hold them."""
    Path("cnn14.yaml").write_text(CNN14)
    torch.manual_seed(0)
    network = runs.make_model(load_config("cnn14.yaml"), 527).eval()
    torch.save({"iteration": 600000, "model": network.state_dict()}, path)
    return network


SLOW_OR_NOT = [pytest.param(n, marks=[pytest.mark.slow] * (n != "cross_task_cmam")) for n in FUSIONS]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_OR_NOT)
def test_a_pann_through_a_fusion_from_training_to_a_graph(tiny, name):
    pann = published()
    front_ends = f"frontends={{logmel: {{n_fft: 256, hop_length: 80, n_mels: 64, fmax: 4000}}, extractor: {EXTRACTOR}}}"
    options = (f"model.name={name}", f"model.params={FUSIONS[name]}", front_ends, "optim.epochs=1", "loss.name=bce",
               "augment.spec_augment={}", "predict.keep_frames=false", "augment.batch.mixup_on=none")  # fmt: skip
    run(train, "--config", tiny, "--fold", 0, "--name", name, *options)
    fold = runs.load_run(f"runs/sed/{name}").folds[0]
    heard = fold.config.inputs(runs.load_model(fold).inputs)
    assert opened(heard["extractor"]).width == 24
    rows = heard["extractor"].rows(np.ones(8000, np.float32))
    logmel = load_config("cnn14.yaml").frontends["logmel"].compute(np.ones(2560, np.float32))
    with torch.inference_mode():
        expected = pann(logmel=torch.from_numpy(logmel)[None])["embedding"][0].numpy()
    np.testing.assert_allclose(rows[0], expected, atol=1e-4, rtol=1e-4)
    backends = ["torch"]
    if name != "cross_task_jrm":  # it pools four rows to one, and a graph of any length hears a single one too
        run(export, "--run", f"runs/sed/{name}", "--format", "onnx", "--oof-clips", 3)
        backends.append("onnx")
    answers = []
    for backend in backends:
        run(predict, "--run", f"runs/sed/{name}", "--clips", "data/test_clips.csv", "--out", f"{backend}.npz",
            "--backend", backend)  # fmt: skip
        answers.append(Predictions.load(f"{backend}.npz").clipwise_output)
    np.testing.assert_allclose(answers[0], answers[-1], atol=1e-4)
    assert answers[0].std() > 0

"""Networks of transformers from a folder to predictions: trained, opened without it, exported, as extractors."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import predict
import train
from earshot import runs
from earshot.config import load_config
from earshot.inputs.extractor import Extractor, opened
from earshot.inputs.kaldi_input import Kaldi
from earshot.prediction.predictions import Predictions
from scripts import run
from transformers_folders import ast_folder, changed, waveform_folder

KALDI = "frontends.logmel={kind: kaldi, n_mels: 64, mean: -6, deviation: 4}"
AST = ("model.name=ast", "optim.lr=1e-3", "optim.epochs=1", KALDI)
SPEECH = ("model.name=waveform_transformer", "model.params={folder: hubert}", "optim.lr=1e-3", "optim.epochs=1",
          "augment.spec_augment={}", "augment.batch.mixup_on=waveform")  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return {"ast": ast_folder(root / "ast"), "hubert": waveform_folder(root / "hubert")}


@pytest.fixture
def sounding(tiny, folders, monkeypatch):
    """The tiny competition at 16 kHz, with copies of the folders beside it."""
    for name, folder in folders.items():
        shutil.copytree(folder, name)
    text = tiny.read_text().replace("sample_rate: 8000", "sample_rate: 16000")
    start = text.index("frontends:")
    tiny.write_text(text[:start] + text[text.index("model:") :])
    tiny.write_text(tiny.read_text().replace(text[text.index("  params:") : text.index("augment:")], ""))
    return tiny


def both(folder, monkeypatch):
    """The answers of PyTorch and of the exported graph on the test recordings."""
    for backend in ("torch", "onnx"):
        run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--out", f"{backend}.npz", "--backend", backend)
    return (Predictions.load(f"{name}.npz").clipwise_output for name in ("torch", "onnx"))


@pytest.mark.slow
def test_an_ast_is_fine_tuned_and_opened_without_its_folder(sounding, monkeypatch):
    params = ("model.params={folder: ast, dropout: 0.1}", "optim.lr_scale={backbone: 0.1}")
    with pytest.raises(ValueError, match="no folder of transformers 'elsewhere'"):
        run(train, "--config", sounding, "--fold", 0, "--name", "none", *AST, "model.params={folder: elsewhere}")
    assert not Path("runs/sed/none").exists()
    run(train, "--config", sounding, "--fold", 0, "--name", "ast", *AST, *params)
    shutil.rmtree("ast")
    fold = runs.load_run("runs/sed/ast").folds[0]
    model = runs.load_model(fold)
    assert fold.about["architecture"]["hidden_size"] == 16
    assert fold.oof().framewise_output is not None
    assert model.backbone.config.num_hidden_layers == 2
    run(export, "--run", "runs/sed/ast", "--format", "onnx", "--oof-clips", 3)
    ours, theirs = both("runs/sed/ast", monkeypatch)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert ours.std() > 0


def test_a_frozen_ast_under_a_new_head(sounding):
    params = "model.params={base: ast, base_params: {folder: ast}, activation: sigmoid, pretrained: true}"
    options = (*AST[1:], "model.name=transfer", params, "augment.spec_augment={}", "predict.keep_frames=false",
               "loss.name=bce", "augment.batch.mixup_on=none", "data.cache=embedding")  # fmt: skip
    run(train, "--config", sounding, "--fold", 0, "--name", "frozen", *options)
    shutil.rmtree("ast")
    fold = runs.load_run("runs/sed/frozen").folds[0]
    assert not any(p.requires_grad for p in runs.load_model(fold).base.parameters())


@pytest.mark.slow
def test_a_resumed_ast_is_the_uninterrupted_one(sounding, monkeypatch):
    """Dropout, warm-up and decay included: to the bit, as every run."""
    options = (*AST[:2], AST[3], "optim.epochs=2", "optim.warmup_epochs=0.5", "optim.schedule=linear",
               "model.params={folder: ast, dropout: 0.2}", "augment.batch.mixup_on=none")  # fmt: skip
    run(train, "--config", sounding, "--fold", 0, "--name", "whole", *options)

    class Stopped(Exception):
        pass

    seen = []

    def stop(t, *args, plain=train.train_one_epoch, **kwargs):
        if len(seen) == 1:
            raise Stopped
        seen.append(t.progress.epoch)
        return plain(t, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_one_epoch", stop)
        with pytest.raises(Stopped):
            run(train, "--config", sounding, "--fold", 0, "--name", "halves", *options)
    run(train, "--config", sounding, "--fold", 0, "--name", "halves", *options, "--resume")
    whole, halves = (
        runs.load_model(runs.load_run(f"runs/sed/{name}").folds[0]).state_dict() for name in ("whole", "halves")
    )
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


@pytest.mark.slow
def test_a_hubert_hears_the_waveform_and_answers_for_steps(sounding, monkeypatch):
    grid = "frontends={waveform: {kind: waveform}, logmel: {n_fft: 256, hop_length: 80, n_mels: 16, fmax: 8000}}"
    run(train, "--config", sounding, "--fold", 0, "--name", "speech", *SPEECH, grid)
    shutil.rmtree("hubert")
    fold = runs.load_run("runs/sed/speech").folds[0]
    model = runs.load_model(fold)
    assert model.pool == 1
    assert fold.about["timebase"] == [16000, 80, 1]
    run(export, "--run", "runs/sed/speech", "--format", "onnx", "--oof-clips", 3)
    ours, theirs = both("runs/sed/speech", monkeypatch)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ast", "hubert"])
def test_openvino_passes_the_same_gates_and_int8_where_nncf_can(sounding, name):
    grid = "frontends={waveform: {kind: waveform}, logmel: {n_fft: 256, hop_length: 80, n_mels: 16, fmax: 8000}}"
    options = (*AST, "model.params={folder: ast}") if name == "ast" else (*SPEECH, grid)
    run(train, "--config", sounding, "--fold", 0, "--name", name, *options)
    run(export, "--run", f"runs/sed/{name}", "--format", "openvino", "--no-oof")
    in_int8 = ("--run", f"runs/sed/{name}", "--format", "onnx", "--int8", "--no-oof", "--calibration-clips", 8)
    if name == "hubert":
        run(export, *in_int8)
        return
    with pytest.raises(ValueError, match=r"NNCF cannot bring this graph to int8 \(.*\): export it without --int8"):
        run(export, *in_int8)
    assert not Path("runs/sed/ast/fold0/model.int8.onnx").exists()


# extractors


def test_an_ast_in_a_folder_is_an_extractor(folders):
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    record = Extractor(sample_rate=16000, folder=str(folders["ast"]), sequence=True)
    network = record.network
    assert (network.width, network.window_samples) == (16, 95 * 160), "96 frames"
    windows = 0.1 * np.random.default_rng(0).standard_normal((2, network.window_samples)).astype(np.float32)
    theirs = ASTForAudioClassification.from_pretrained(folders["ast"]).eval().audio_spectrogram_transformer
    heard = Kaldi(n_mels=64, mean=-6.0, deviation=4.0)
    listen = ASTFeatureExtractor.from_pretrained(folders["ast"])
    with torch.inference_mode():
        given = torch.from_numpy(np.concatenate([heard.compute(w) for w in windows]))
        expected = theirs(given).pooler_output.numpy()
    np.testing.assert_allclose(
        given[0, :93], listen(windows[0], sampling_rate=16000)["input_values"][0][:93], atol=1e-3
    )
    np.testing.assert_allclose(network.embed(windows), expected, atol=1e-4)
    longer = replace(record, window_seconds=2.0)
    assert longer.network.embed(np.zeros((1, 32000), np.float32)).shape == (1, 16)
    assert longer.network.digest == network.digest


def test_a_speech_network_in_a_folder_is_an_extractor(folders, tmp_path):
    record = Extractor(sample_rate=16000, folder=str(folders["hubert"]), window_seconds=0.5)
    assert record.network.embed(np.zeros((3, 8000), np.float32)).shape == (3, 16)
    for changes, message in (
        ({"window_seconds": 0.0}, "hears windows of any length: set its window_seconds"),
        ({"sample_rate": 8000}, "hears 16000 Hz, its sample_rate says 8000 Hz: set it to 16000"),
        ({"folder": "nowhere"}, "no folder of transformers 'nowhere'"),
        ({"run": "runs/x/y/fold0"}, "needs one of: .*; got run, folder"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(replace(record, **changes))
    other = changed(shutil.copytree(folders["hubert"], tmp_path / "x"), "preprocessor_config.json", do_normalize=False)
    assert replace(record, folder=str(other)).network.digest != record.network.digest


def test_a_run_beside_an_extractor_of_a_folder(sounding):
    """cross_task's fusion of a log-mel and an AST's embeddings, from training to predictions."""
    front_ends = ("frontends={logmel: {n_fft: 512, hop_length: 160, n_mels: 64, fmax: 8000}, extractor: {kind: "
                  "extractor, folder: ast, sample_rate: 16000, window_seconds: 0.25, sequence: true}}")  # fmt: skip
    params = "model.params={widths: [4, 8, 8, 8], query_dim: 32, attention: 8, activation: sigmoid}"
    options = ("model.name=cross_task_cmam", params, front_ends, "optim.epochs=1", "loss.name=bce",
               "augment.spec_augment={}", "predict.keep_frames=false")  # fmt: skip
    run(train, "--config", sounding, "--fold", 0, "--name", "fusion", *options)
    run(predict, "--run", "runs/sed/fusion", "--clips", "data/test_clips.csv")
    assert Predictions.load("runs/sed/fusion/test.npz").clipwise_output.std() > 0


def test_the_configs_say_how_they_hear():
    config = load_config(Path(__file__).parents[1] / "configs/tagging/esc10_ast.yaml")
    assert config.frontends["logmel"] == Kaldi(n_mels=64)
    network = runs.make_model(config, 10)
    assert sum(p.numel() for p in network.parameters()) == 125_834
    assert network.backbone.embeddings.position_embeddings.std() > 0.01, "tokens and positions start unlike each other"

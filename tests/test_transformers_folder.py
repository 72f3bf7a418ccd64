"""Folders of transformers: loaded strictly, heard as they were trained, and what is said of folders that do not fit."""

import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from earshot.inputs.given import Waveform
from earshot.inputs.kaldi_input import Kaldi
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.models import build_model
from earshot.models.blocks import depth_blocks
from earshot.models.spectrogram_transformer import resized
from earshot.models.transformers_folder import WAVEFORM_TYPES
from earshot.optim import build_optimizer
from transformers_folders import WAVEFORM_SIZES, ast_folder, changed, waveform_folder

HEARD = Inputs.made({"logmel": Kaldi(n_mels=64, mean=-6.0, deviation=4.0)}, ("logmel",), 16000)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return {"ast": ast_folder(root / "ast"), "hubert": waveform_folder(root / "hubert")}


@pytest.fixture
def ast(folders, tmp_path):
    """A copy of the AST's folder, to be spoilt."""
    return shutil.copytree(folders["ast"], tmp_path / "ast")


def made(folder, **params):
    return build_model("ast", 3, 64, {"folder": str(folder)} | params, heard=HEARD).eval()


def test_it_is_the_network_of_the_folder(folders, caplog):
    from transformers import ASTForAudioClassification

    theirs = ASTForAudioClassification.from_pretrained(folders["ast"]).eval()
    with caplog.at_level(logging.WARNING, "earshot"):
        network = made(folders["ast"])
    assert "loaded 39 tensors from" in caplog.text
    assert "its head is left out (classifier)" in caplog.text
    x = torch.randn(2, 1, 96, 64)
    with torch.no_grad():
        expected = theirs.audio_spectrogram_transformer(x[:, 0])
        steps, _ = network.encode(x)
        found = network(x)
    torch.testing.assert_close(found["embedding"], expected.pooler_output, atol=1e-6, rtol=1e-5)
    patches = expected.last_hidden_state[:, 2:].unflatten(1, (5, 9)).mean(dim=1)  # bands, steps
    torch.testing.assert_close(steps, patches, atol=1e-6, rtol=1e-5)
    assert found["segmentwise_output"].shape == (2, 9, 3)
    assert network.architecture["mean"] == -6.0
    assert "id2label" not in network.architecture


def test_positions_reach_any_length_and_stay_at_their_own():
    grid = torch.randn(1, 5, 9, 4)
    assert torch.equal(resized(grid, 2, 9), grid)
    for size in (1, 4, 20):
        expected = torch.nn.functional.interpolate(grid.permute(0, 3, 1, 2), size=(5, size), mode="bilinear")
        torch.testing.assert_close(resized(grid, 2, size), expected.permute(0, 2, 3, 1))


def test_segments_see_where_they_claim_to_be(folders):
    """A burst in frames of one patch alone changes most the segment that starts there."""
    network = made(folders["ast"])
    quiet = torch.zeros(1, 1, 400, 64)
    with torch.no_grad():
        network.backbone.embeddings.position_embeddings.zero_()
        still, _ = network.encode(quiet)
        for segment in (3, 20, 36):
            burst = quiet.clone()
            burst[:, :, 10 * segment + 6 : 10 * segment + 10] = 3.0
            change = (network.encode(burst)[0] - still).norm(dim=2)[0]
            assert int(change.argmax()) == segment
    assert network(quiet)["segmentwise_output"].shape[1] == 40
    assert network.pool == 10


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_a_waveform_network_is_that_of_its_folder(kind, tmp_path):
    from transformers import AutoFeatureExtractor, AutoModel

    folder = waveform_folder(tmp_path / kind, kind)
    theirs, listen = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    waveform = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32) + 0.05
    heard = Inputs.made({"waveform": Waveform(sample_rate=16000)}, ("waveform",), 32000)
    network = build_model("waveform_transformer", 3, 0, {"folder": str(folder)}, heard=heard).eval()
    with torch.no_grad():
        given = listen(waveform, sampling_rate=16000, return_tensors="pt")["input_values"]
        expected = theirs(given).last_hidden_state
        out = network(waveform=torch.from_numpy(waveform)[None])
    torch.testing.assert_close(out["embedding"], expected.mean(dim=1), atol=1e-5, rtol=1e-4)
    assert network.pool == 160, "80 samples at 16 kHz are 160 of the run's"
    assert out["segmentwise_output"].shape[1] == 51
    changed(folder, "preprocessor_config.json", do_normalize=False)
    network = build_model("waveform_transformer", 3, 0, {"folder": str(folder)}, heard=heard).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(waveform)[None]).last_hidden_state.mean(dim=1)
        plain = network(waveform=torch.from_numpy(waveform)[None])["embedding"]
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", WAVEFORM_TYPES)
def test_every_type_of_waveform_network_learns_from_scratch_in_all_its_parts(kind):
    sizes = {k: v for k, v in WAVEFORM_SIZES.items() if k != "num_labels"} | {"model_type": kind}
    sizes |= {"conv_pos_kernel_size": 9, "num_conv_pos_embeddings": 2} if kind == "data2vec-audio" else {}
    network = build_model("waveform_transformer", 3, 0, {"architecture": sizes}).train()
    torch.manual_seed(0)
    output = network(waveform=torch.randn(2, 4000))["clipwise_output"]
    (output * torch.randn(2, 3)).sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all(name.startswith(network.dead_parameters) for name in silent), silent


# what does not fit


def test_tensors_that_are_missing_extra_or_of_another_shape_are_named(ast):
    file = ast / "model.safetensors"
    state = load_file(file)
    gone = "audio_spectrogram_transformer.layernorm.weight"
    save_file({k: v for k, v in state.items() if k != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit its own config.json; missing from the file: layernorm.weight$"):
        made(ast)
    save_file(state, file, metadata={"format": "pt"})
    changed(ast, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"not in the network: audio_spectrogram_transformer.layers.1.*\(8 more\)"):
        made(ast)
    changed(ast, num_hidden_layers=2, intermediate_size=40)
    with pytest.raises(ValueError, match="of another shape: .*fc1.weight"):
        made(ast)


def test_folders_that_are_none_say_what_to_do(ast, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("nowhere/at_all", "hf:MIT/ast-finetuned"):
        with pytest.raises(ValueError, match=f"no folder of transformers '{name}': .*Nothing is downloaded: copy"):
            made(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no config.json: give the folder that save_pretrained wrote"):
        made(tmp_path / "empty")
    torch.save(load_file(ast / "model.safetensors"), ast / "pytorch_model.bin")
    (ast / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights in safetensors \(.*pytorch_model.bin.*pickled ones are not read"):
        made(ast)
    (ast / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="the network in .* cannot be loaded"):
        made(ast)
    changed(ast, model_type="whisper")
    with pytest.raises(ValueError, match="a network of type 'whisper' cannot be this one.*audio-spectrogram-transform"):
        made(ast)
    changed(ast, model_type=None)
    with pytest.raises(ValueError, match="names no model_type"):
        made(ast)
    (ast / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json"):
        made(ast)


@pytest.mark.parametrize(("name", "values", "said"), [
    ("config", {"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob must be a number in 0 ... 1, got 'nan'"),
    ("config", {"attention_probs_dropout_prob": 1.5}, "attention_probs_dropout_prob must be a number in 0 ... 1"),
    ("config", {"num_hidden_layers": 10**9}, "num_hidden_layers must be at most 512"),
    ("config", {"hidden_size": 10**9}, "hidden_size must be at most 1048576"),
    ("config", {"hidden_size": 4096}, "says a network of .* parameters, and its weights have"),
    ("config", {"hidden_size": 2**20}, "at most 4,000,000,000 are built"),
    ("preprocessor_config", {"mean": "x"}, "preprocessor_config.json: mean must be a number, got 'x'"),
    ("preprocessor_config", {"std": 0}, "preprocessor_config.json: std must be a number above 0"),
    ("preprocessor_config", {"sampling_rate": -1}, "sampling_rate must be a whole number above 0, got '-1'"),
])  # fmt: skip
def test_values_that_cannot_be_meant_are_named(ast, name, values, said):
    changed(ast, f"{name}.json", **values)
    with pytest.raises(ValueError, match=said):
        made(ast)


def test_a_folder_cannot_ask_for_code_or_other_weights(folders, ast):
    quantised, kernel = {"quant_method": "bitsandbytes", "load_in_8bit": True}, "kernels-community/flash-attn"
    changed(ast, attn_implementation=kernel, _attn_implementation=kernel, quantization_config=quantised,
            transformers_weights="../other.safetensors", return_dict=False)  # fmt: skip
    here, there = made(folders["ast"]), made(ast)
    x = torch.randn(1, 1, 96, 64)
    with torch.no_grad():
        assert torch.equal(here.encode(x)[0], there.encode(x)[0])
    assert there.architecture == here.architecture
    assert there.backbone.config._attn_implementation in ("sdpa", "eager")
    (ast / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../outside.safetensors"}}')
    with pytest.raises(ValueError, match=r"index.json names files outside its folder \(../outside.safetensors\)"):
        made(ast)


def test_weights_that_are_not_finite_are_named(ast):
    state = load_file(ast / "model.safetensors")
    state["audio_spectrogram_transformer.layernorm.weight"][3] = float("nan")
    save_file(state, ast / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="are not finite .*: layernorm.weight"):
        made(ast)


def test_a_folder_in_the_hubs_cache_is_found(folders, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--MIT--ast-tiny" / "snapshots" / "0123"
    shutil.copytree(folders["ast"], snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here, there = made(folders["ast"]), made("hf:MIT/ast-tiny")
    for name, value in here.backbone.state_dict().items():
        assert torch.equal(value, there.backbone.state_dict()[name]), name


def test_a_front_end_that_was_not_trained_with_is_refused(folders, caplog):
    other = Inputs.made({"logmel": Kaldi(n_mels=64)}, ("logmel",), 16000)
    with pytest.raises(ValueError, match=r"hears a filter bank with mean -6, deviation 4, the front end has mean -4.26"
                       r".*: set frontends.logmel.mean=-6.0 frontends.logmel.deviation=4.0"):  # fmt: skip
        build_model("ast", 3, 64, {"folder": str(folders["ast"])}, heard=other)
    mels = Inputs.made({"logmel": Logmel(sample_rate=16000, n_mels=64, fmax=8000)}, ("logmel",), 16000)
    with caplog.at_level(logging.WARNING, "earshot"):
        build_model("ast", 3, 64, {"folder": str(folders["ast"])}, heard=mels)
    assert "hears a logmel: set frontends.logmel.kind=kaldi" in caplog.text
    slow = Inputs.made({"waveform": Waveform(sample_rate=8000)}, ("waveform",), 16000)
    with pytest.raises(ValueError, match="hears 16000 Hz, the waveform has 8000 Hz: set frontends.waveform="):
        build_model("waveform_transformer", 3, 0, {"folder": str(folders["hubert"])}, heard=slow)
    grid = Inputs.made({"logmel": mels["logmel"], "waveform": Waveform(sample_rate=16000)}, ("waveform",), 16000)
    with pytest.raises(
        ValueError, match="step of 80 samples at 16000 Hz is no whole number of the run's frames, of 320"
    ):
        build_model("waveform_transformer", 3, 0, {"folder": str(folders["hubert"])}, heard=grid)


def test_parameters_may_say_what_the_folder_says_and_nothing_else(folders):
    agreed = made(folders["ast"], architecture={"hidden_size": 16})
    assert agreed.backbone.config.hidden_size == 16
    with pytest.raises(ValueError, match="params.architecture says hidden_size=32, the folder .* 16: leave it out"):
        made(folders["ast"], architecture={"hidden_size": 32})
    with pytest.raises(ValueError, match="has no 'hiden_size'; did you mean 'hidden_size'"):
        build_model("ast", 3, 64, {"architecture": {"hiden_size": 32}})
    with pytest.raises(ValueError, match="transformers makes no network of this architecture|hidden"):
        build_model("ast", 3, 64, {"architecture": {"hidden_size": "wide"}})
    with pytest.raises(ValueError, match="unknown parameter 'kept' of model ast"):
        build_model("ast", 3, 64, {"kept": {}})
    with pytest.raises(ValueError, match="patches are 16 bands high, and the front end has 10"):
        build_model("ast", 3, 10, {"architecture": {"hidden_size": 16, "num_attention_heads": 2, "num_mel_bins": 64}})


def test_what_follows_needs_no_weights_and_what_a_run_kept_no_folder(folders, tmp_path):
    trained = made(folders["ast"])
    params = {"folder": str(tmp_path / "gone")}
    again = build_model("ast", 3, 64, params, weights_follow=True, heard=HEARD, kept=trained.architecture).eval()
    again.load_state_dict(trained.state_dict())
    x = torch.randn(1, 1, 70, 64)
    with torch.no_grad():
        assert torch.equal(again(x)["clipwise_output"], trained(x)["clipwise_output"])
    with pytest.raises(ValueError, match="no folder of transformers"):
        build_model("ast", 3, 64, params, weights_follow=True, heard=HEARD)
    sizes = {"architecture": {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}}
    follows = build_model("ast", 3, 64, params | sizes, weights_follow=True, heard=HEARD)
    assert follows.backbone.config.num_hidden_layers == 1


# training


def test_layers_learn_at_rates_of_their_own(folders):
    network = made(folders["ast"])
    rates = {"backbone": 0.1, "backbone.layers.0": 0.01}
    optimizer = build_optimizer("adam", network, 1e-3, 0.0, lr_scale=rates)
    of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: of[id(p)] for name, p in network.named_parameters()}
    assert named["head.cla.weight"] == 1e-3
    assert named["backbone.layers.1.mlp.fc1.weight"] == pytest.approx(1e-4)
    assert named["backbone.layers.0.mlp.fc1.weight"] == pytest.approx(1e-5)
    assert [block.name.split(" ")[0] for block in depth_blocks(network)] == [
        "backbone.embeddings", "backbone.layers.0", "backbone.layers.1", "head",
    ]  # fmt: skip
    speech = build_model("waveform_transformer", 3, 0, {"folder": str(folders["hubert"])})
    assert [name for block in depth_blocks(speech) for name in block.name.split(" ") if ".layers." in name] == [
        "backbone.encoder.layers.0", "backbone.encoder.layers.1",
    ]  # fmt: skip


def test_spec_augment_wants_a_standardised_picture(folders):
    from earshot.augment.spectrogram import SpecAugment

    masks = SpecAugment(time_width=30, freq_width=10)
    x = torch.randn(2, 1, 96, 64) + 5
    network = made(folders["ast"]).train()
    network.spec_augment = masks
    assert torch.isfinite(network(x)["clipwise_output"]).all()
    plain = build_model("ast", 3, 64, {"folder": str(folders["ast"])}).train()
    plain.spec_augment = masks
    with pytest.raises(ValueError, match="SpecAugment masks with zeros.*kind kaldi, set model.params.input_norm=true"):
        plain(x)
    assert torch.isfinite(plain.eval()(x)["clipwise_output"]).all()

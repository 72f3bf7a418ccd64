import dataclasses
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from earshot.models import build_model, weights
from earshot.sound.logmel import LogmelParams
from test_models import deep_ones_slow

NARROW = {"widths": [4, 4, 4, 4, 8, 8], "embedding": 8}
PARAMS = LogmelParams(sample_rate=32000)


@pytest.fixture(scope="module")
def front_end_tensors():
    """Front-end tensors as PANNs checkpoints hold them, made by the library that made those."""
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    spectrogram = Spectrogram(n_fft=1024, hop_length=320, win_length=1024, window="hann")
    mel = LogmelFilterBank(sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000)
    state = {f"spectrogram_extractor.{k}": v for k, v in spectrogram.state_dict().items()}
    return state | {f"logmel_extractor.{k}": v for k, v in mel.state_dict().items()}


@pytest.fixture(scope="module")
def panns(tmp_path_factory, front_end_tensors):
    """A narrow Cnn14_DecisionLevelAtt for 5 classes, saved as PANNs' training script saves."""
    torch.manual_seed(0)
    model = build_model("cnn14_att", 5, 64, NARROW)
    path = tmp_path_factory.mktemp("panns") / "Cnn14_DecisionLevelAtt_mAP0.425.pth"
    sampler = {"indexes": np.arange(7), "pointer": np.float64(3.5), "random": np.random.RandomState(0).get_state()}
    torch.save({"iteration": 600000, "model": front_end_tensors | model.state_dict(), "sampler": sampler}, path)
    return path, model


# load_weights


def test_a_panns_checkpoint_loads_strictly_with_its_front_end_checked(panns):
    path, source = panns
    model = build_model("cnn14_att", 5, 64, NARROW)
    report = weights.load_weights(model, path, front_end=PARAMS)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in source.state_dict().items())
    assert report.loaded == len(source.state_dict())
    assert str(report) == (f"loaded {report.loaded} tensors from {path}; front end agrees (n_fft 1024, 64 mels, hann)")


def test_a_replaced_head_is_named_and_keeps_its_initial_values(panns):
    path, source = panns
    model = build_model("cnn14_att", 3, 64, NARROW)
    initial = model.att_block.cla.weight.clone()
    with pytest.raises(ValueError, match=r"other shape: att_block.att.weight: \(5, 8, 1\) in the file, \(3, 8, 1\) in"):
        weights.load_weights(model, path, front_end=PARAMS)
    report = weights.load_weights(model, path, drop=("att_block",), front_end=PARAMS)
    assert torch.equal(model.att_block.cla.weight, initial)
    assert torch.equal(model.fc1.weight, source.fc1.weight)
    assert "dropped att_block.att, att_block.cla, att_block.bn_att" in str(report)
    assert "initial values kept in att_block.att" in str(report)
    assert set(report.dropped) == {k for k in source.state_dict() if k.startswith("att_block")}


def test_a_head_of_another_kind_needs_both_names(panns):
    path, _ = panns
    model = build_model("cnn14", 5, 64, NARROW)
    with pytest.raises(ValueError, match=r"missing from the file: fc_audioset.weight, .* not in the model: att_block"):
        weights.load_weights(model, path)
    report = weights.load_weights(model, path, drop=("att_block", "fc_audioset"))
    assert "front end of the checkpoint not checked (3 tensors left out)" in str(report)
    assert report.kept == ("fc_audioset.weight", "fc_audioset.bias")


def test_a_drop_that_names_nothing_is_an_error(panns):
    with pytest.raises(ValueError, match="drop 'attblock' names nothing .* did you mean 'att_block'"):
        weights.load_weights(build_model("cnn14_att", 5, 64, NARROW), panns[0], drop=("attblock",))


def test_nothing_is_loaded_when_anything_is_wrong(panns):
    model = build_model("cnn14_att", 5, 64, NARROW | {"embedding": 6})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit the model; other shape: fc1.weight"):
        weights.load_weights(model, panns[0], front_end=PARAMS)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_fft": 512}, "trained with n_fft 1024, the front end has n_fft 512"),
        ({"n_mels": 128}, "trained with n_mels 64, the front end has n_mels 128"),
        ({"window": "hamming"}, "trained with window 'hann', the front end has window 'hamming'"),
        ({"win_length": 800}, r"trained with window 'hann', the front end has window 'hann' \(win_length 800\)"),
        ({"fmax": 16000.0}, "another mel filter bank: .* 62 to 13969 Hz .* 62 to 15969 Hz .* fmax 16000"),
        ({"fmin": 300.0}, "another mel filter bank: .*fmin 300"),
        ({"sample_rate": 48000}, "another mel filter bank"),
    ],
)
def test_another_front_end_is_an_error_with_both_values(front_end_tensors, changes, message):
    with pytest.raises(ValueError, match=message):
        weights.check_front_end(front_end_tensors, dataclasses.replace(PARAMS, **changes), "x.pth")


def test_the_same_front_end_agrees_also_without_a_rate(front_end_tensors):
    for rate in (32000, 0):
        line = weights.check_front_end(front_end_tensors, dataclasses.replace(PARAMS, sample_rate=rate), "x.pth")
        assert line == "front end agrees (n_fft 1024, 64 mels, hann)"


PUBLISHED = {  # the fifteen networks, narrow
    "cnn6": {"widths": [4, 4, 4, 4], "embedding": 8},
    "cnn10": {"widths": [4, 4, 4, 4], "embedding": 8},
    "cnn14": NARROW,
    "resnet22": {"widths": [4, 4, 4, 4], "last_width": 8, "embedding": 8},
    "resnet38": {"widths": [4, 4, 4, 4], "last_width": 8, "embedding": 8},
    "resnet54": {"widths": [2, 2, 2, 2], "last_width": 8, "embedding": 8},
    "mobilenet_v1": {"width": 0.1, "embedding": 8},
    "mobilenet_v2": {"width": 0.1, "embedding": 8},
    "dainet19": {"widths": [4, 4, 4, 8], "embedding": 8},
    "leenet11": {},
    "leenet24": {"widths": [4] * 9, "embedding": 8},
    "res1dnet31": {"widths": [4] * 7, "embedding": 8},
    "res1dnet51": {"widths": [4] * 7, "embedding": 8},
    "wavegram_cnn14": NARROW | {"pre_widths": [4, 4]},
    "wavegram_logmel_cnn14": NARROW | {"pre_widths": [4, 4]},
}


@pytest.mark.parametrize("name", deep_ones_slow(PUBLISHED))
def test_every_panns_checkpoint_loads_and_only_a_replaced_head_may_be_missing(name, tmp_path, front_end_tensors):
    torch.manual_seed(0)
    source, path = build_model(name, 527, 64, PUBLISHED[name]), tmp_path / f"{name}.pth"
    front = front_end_tensors if "logmel" in source.inputs else {}
    state = front | source.state_dict()
    torch.save({"iteration": 600000, "model": state}, path)
    model = build_model(name, 527, 64, PUBLISHED[name])
    report = weights.load_weights(model, path, front_end=PARAMS)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in source.state_dict().items())
    assert ("front end agrees" in str(report)) == bool(front)
    few = build_model(name, 10, 64, PUBLISHED[name])
    with pytest.raises(ValueError, match=r"Is fc_audioset the head\? The file's has 527 classes, the model's 10: .*"
                       r"model.drop=\[fc_audioset\]"):  # fmt: skip
        weights.load_weights(few, path, front_end=PARAMS)
    assert "dropped fc_audioset" in str(weights.load_weights(few, path, ("fc_audioset",), PARAMS))
    without = {k: v for k, v in state.items() if k != "fc1.weight"}
    for broken, message in ((without, "missing from the file: fc1.weight"),
                            (state | {"fc2.weight": torch.ones(2)}, "not in the model: fc2.weight")):  # fmt: skip
        torch.save({"model": broken}, path)
        with pytest.raises(ValueError, match=message):
            weights.load_weights(model, path, front_end=PARAMS)


def test_another_mel_count_and_rate_are_named(panns, tmp_path, front_end_tensors):
    path, _ = panns
    wide = build_model("cnn14_att", 5, 128, NARROW)
    with pytest.raises(ValueError, match="trained with n_mels 64, the front end has n_mels 128"):
        weights.load_weights(wide, path, front_end=dataclasses.replace(PARAMS, n_mels=128))
    bare = tmp_path / "bare.pth"
    torch.save(panns[1].state_dict(), bare)
    with pytest.raises(ValueError, match="file has 64 mel bins or channels at its input, the model 128"):
        weights.load_weights(wide, bare)
    low = LogmelParams(sample_rate=16000, n_fft=512, hop_length=160, fmax=8000)
    with pytest.raises(
        ValueError, match="n_fft 1024, the front end has n_fft 512; .* sample_rate 32000, fmin 50, fmax 1"
    ):
        weights.check_front_end(front_end_tensors, low, "x.pth")
    with pytest.raises(ValueError, match=r"sample_rate 48000, .*; the checkpoint's: sample_rate 32000, fmin 50"):
        weights.check_front_end(front_end_tensors, dataclasses.replace(PARAMS, sample_rate=48000), "x.pth")


def test_a_hop_that_no_file_states_is_said(front_end_tensors):
    line = weights.check_front_end(front_end_tensors, dataclasses.replace(PARAMS, hop_length=500), "x.pth")
    assert line.endswith("; hop_length is not in the file: PANNs' usual is 320, here it is 500")


def test_a_runs_own_weights_are_checked_by_their_description(tmp_path):
    model = build_model("cnn14", 5, 64, NARROW)
    about = json.dumps({"frontends": {"logmel": dataclasses.asdict(PARAMS)}})
    save_file(model.state_dict(), tmp_path / "best.safetensors", metadata={"earshot": about})
    report = weights.load_weights(model, tmp_path / "best.safetensors", front_end=PARAMS)
    assert str(report).endswith("front end agrees with the run's")
    for change in ({"hop_length": 640}, {"sample_rate": 44100}, {"fmin": 20.0}):
        ((key, value),) = change.items()
        message = f"trained with {key} {getattr(PARAMS, key)}, the front end has {key} {value}"
        with pytest.raises(ValueError, match=message):
            weights.load_weights(model, tmp_path / "best.safetensors", front_end=dataclasses.replace(PARAMS, **change))


# read_state


def test_prefixes_of_wrappers_are_taken_off(tmp_path):
    torch.save({"state_dict": {"module._orig_mod.a.weight": torch.ones(2)}}, tmp_path / "a.pt")
    assert list(weights.read_state(tmp_path / "a.pt")) == ["a.weight"]


def test_the_attribute_of_a_wrapper_is_taken_off(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    wrapped = {f"net.inner.{k}": v + 1 for k, v in model.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "a.ckpt")
    assert weights.load_weights(model, tmp_path / "a.ckpt").loaded == 2
    assert torch.equal(model[0].weight, wrapped["net.inner.0.weight"])
    torch.save({"state_dict": wrapped | {"loss.weight": torch.ones(3)}}, tmp_path / "b.ckpt")
    assert weights.load_weights(model, tmp_path / "b.ckpt", drop=["loss."]).dropped == ("loss.weight",)
    with pytest.raises(ValueError, match="Its names begin with loss, net: where one is the network, leave out"):
        weights.load_weights(model, tmp_path / "b.ckpt")


def test_which_of_several_sets_of_weights_is_taken_is_said(tmp_path, caplog):
    """As training scripts keep a moving average beside the weights."""
    own, average = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    torch.save({"epoch": 3, "model": own, "model_ema": average, "optimizer": {"state": {}}}, tmp_path / "a.pt")
    assert weights.read_state(tmp_path / "a.pt")["a"].tolist() == [0, 0]
    assert "a.pt holds several sets of weights: 'model' is taken, not 'model_ema'" in caplog.text


def test_weights_that_are_no_numbers_are_named(tmp_path):
    torch.save({"weight": torch.ones(3, 2), "bias": torch.tensor([0, float("nan"), 1])}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt holds NaN or infinite weights, .* diverged: bias"):
        weights.load_weights(torch.nn.Linear(2, 3), tmp_path / "a.pt")


def test_safetensors_are_known_by_content(tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "model.bin")
    assert weights.read_state(tmp_path / "model.bin")["a"].tolist() == [0, 1, 2]


def test_files_of_torch_before_1_6_are_read(tmp_path):
    state = {"iteration": 3, "model": {"a": torch.arange(3.0)}, "sampler": {"indexes": np.arange(4)}}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.read_state(tmp_path / "old.pth")["a"].tolist() == [0.0, 1.0, 2.0]


class Thing:
    pass


def bad_files(folder):
    """name -> (file, message) of what comes in place of weights."""
    good, things, page = folder / "good.pth", folder / "things.pth", folder / "page.pth"
    torch.save({"a": torch.randn(5000)}, good)
    torch.save({"model": Thing()}, things)
    page.write_text("\n<!DOCTYPE html><html><body>Sign in</body></html>")
    files = {
        "html": (page, "is an HTML page, not weights"),
        "objects": (things, r"holds pickled objects \(\w+\.Thing\), not only tensors, and is not run: save"),
        "no tensors": (folder / "numbers.pth", r"no state dict: .* got epoch, note"),
        "empty": (folder / "empty.pth", "is empty"),
        "lfs": (folder / "lfs.pth", "is a Git LFS pointer"),
        "truncated": (folder / "truncated.pth", "is truncated or no checkpoint"),
        "truncated safetensors": (folder / "cut.safetensors", "no readable safetensors file"),
        "truncated old format": (folder / "old.pth", "is truncated or no checkpoint"),
        "text": (folder / "text.pth", "no checkpoint of torch"),
        "plain pickle": (folder / "list.pth", "no state dict|no checkpoint of torch|pickled objects"),
        "absent": (folder / "absent.pth", "does not exist"),
    }
    torch.save({"epoch": 3, "note": "hello"}, files["no tensors"][0])
    files["empty"][0].touch()
    files["lfs"][0].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    files["truncated"][0].write_bytes(good.read_bytes()[:9000])
    save_file({"a": torch.randn(100)}, files["truncated safetensors"][0])
    files["truncated safetensors"][0].write_bytes(files["truncated safetensors"][0].read_bytes()[:200])
    files["text"][0].write_text("hello, these are no weights")
    files["plain pickle"][0].write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    torch.save({"a": torch.randn(5000)}, files["truncated old format"][0], _use_new_zipfile_serialization=False)
    files["truncated old format"][0].write_bytes(files["truncated old format"][0].read_bytes()[:9000])
    return files


def test_every_bad_file_is_an_error_that_names_what_came(tmp_path):
    for name, (path, message) in bad_files(tmp_path).items():
        with pytest.raises(ValueError, match=message) as error:
            weights.read_state(path)
        assert str(path) in str(error.value), name


def test_pickled_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="is not run"):
        weights.read_state(tmp_path / "trap.pth")
    assert not (tmp_path / "trapped").exists()


# resolve


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty caches and a Kaggle input folder of two data sets."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for data_set in ("panns", "other"):
        (tmp_path / "input" / data_set / "deep").mkdir(parents=True)
    return tmp_path


def test_a_path_wins(places):
    file = places / "w.pth"
    file.write_bytes(b"w")
    assert weights.resolve(file) == file
    assert weights.resolve(str(file)) == file


def test_kaggle_inputs_by_name_or_trailing_path(places):
    kaggle = places / "input"
    (kaggle / "panns" / "deep" / "a.pth").write_bytes(b"a")
    (kaggle / "panns" / "b.pth").write_bytes(b"1")
    (kaggle / "other" / "b.pth").write_bytes(b"2")
    assert weights.resolve("a.pth", kaggle_input=kaggle) == kaggle / "panns" / "deep" / "a.pth"
    with pytest.raises(ValueError, match=r"'b.pth' is ambiguous .*other/b.pth, .*panns/b.pth"):
        weights.resolve("b.pth", kaggle_input=kaggle)
    assert weights.resolve("other/b.pth", kaggle_input=kaggle) == kaggle / "other" / "b.pth"
    chosen = weights.resolve(f"b.pth#sha256={hashlib.sha256(b'2').hexdigest()}", kaggle_input=kaggle)
    assert chosen == kaggle / "other" / "b.pth"


def test_a_wrong_hash_is_an_error_with_both(places):
    file = places / "w.pth"
    file.write_bytes(b"w")
    with pytest.raises(ValueError, match=f"should have sha256 0123, got .*{hashlib.sha256(b'w').hexdigest()}"):
        weights.resolve(f"{file}#sha256=0123")


def test_caches_of_torch_hub_and_hugging_face(places):
    torch_file = places / "torch" / "hub" / "checkpoints" / "resnet.pth"
    torch_file.parent.mkdir(parents=True)
    torch_file.write_bytes(b"t")
    assert weights.resolve("resnet.pth") == torch_file
    snapshots = places / "hub" / "models--timm--b0" / "snapshots"
    for i, revision in enumerate(("new", "old")):
        (snapshots / revision).mkdir(parents=True)
        (snapshots / revision / "model.safetensors").write_bytes(b"x")
        os.utime(snapshots / revision, (1000 - i, 1000 - i))
    assert weights.resolve("hf:timm/b0").parent.name == "new"
    assert weights.resolve("hf:timm/b0/model.safetensors").parent.name == "new"


def test_an_address_is_found_by_its_file_name_and_fetched_only_when_asked(places, monkeypatch):
    address = "https://example.org/record/1/files/Cnn14_mAP%3D0.431.pth?download=1"
    with pytest.raises(
        ValueError, match=r"'Cnn14_mAP=0.431.pth' are neither .* set model.download=true to fetch https"
    ):
        weights.resolve(address)
    fetched = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **_: fetched.append(a))
    expected = places / "torch" / "hub" / "checkpoints" / "Cnn14_mAP=0.431.pth"
    assert weights.resolve(address, download=True) == expected
    assert fetched == [(address, str(expected))]
    expected.write_bytes(b"here")
    assert weights.resolve(address) == expected
    assert len(fetched) == 1


def test_nothing_found_names_the_places_and_nothing_is_downloaded(places, monkeypatch):
    import huggingface_hub

    calls = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a: calls.append(a) or str(places / "got"))
    with pytest.raises(ValueError, match="'missing.pth' not found: no such path, nor below /kaggle/input"):
        weights.resolve("missing.pth", download=True)
    with pytest.raises(ValueError, match="'hf:timm/b0' are not in the cache .* set download: true"):
        weights.resolve("hf:timm/b0")
    with pytest.raises(ValueError, match="'hf:b0' must be hf:<owner>/<repository>"):
        weights.resolve("hf:b0", download=True)
    assert calls == []
    assert weights.resolve("hf:timm/b0", download=True) == places / "got"
    assert calls == [("timm/b0", "model.safetensors")]

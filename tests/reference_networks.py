"""Checks of VGGish and TALNet against the numbers of other people's code.

Each function takes the reference folder and checks every case, rule and field of its file by name; an entry that nobody
knows is an AssertionError.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch

from earshot.inputs import vggish
from earshot.inputs.vggish_torch import VggishExamples
from earshot.metrics import clips as clip_metrics
from earshot.models import build_model
from earshot.models.vggish import VggishExtractor
from reference_panns import TOLERANCE, _load_fill, _near, _near_sum, _strided
from reference_se_trans import _input, _only, _shapes

# VGGish

SETTINGS = {  # the published parameters that describe the input, and ours; the others are about TensorFlow's graph
    "EMBEDDING_SIZE": 128,
    "EXAMPLE_HOP_SECONDS": vggish.FRAMES * vggish.HOP / vggish.SAMPLE_RATE,
    "EXAMPLE_WINDOW_SECONDS": vggish.FRAMES * vggish.HOP / vggish.SAMPLE_RATE,
    "LOG_OFFSET": vggish.OFFSET,
    "MEL_MAX_HZ": vggish.FMAX,
    "MEL_MIN_HZ": vggish.FMIN,
    "NUM_BANDS": vggish.N_MELS,
    "NUM_FRAMES": vggish.FRAMES,
    "NUM_MEL_BINS": vggish.N_MELS,
    "QUANTIZE_MAX_VAL": 2.0,
    "QUANTIZE_MIN_VAL": -2.0,
    "SAMPLE_RATE": vggish.SAMPLE_RATE,
    "STFT_HOP_LENGTH_SECONDS": vggish.HOP / vggish.SAMPLE_RATE,
    "STFT_WINDOW_LENGTH_SECONDS": vggish.WINDOW / vggish.SAMPLE_RATE,
}
GRAPH_SETTINGS = {"ADAM_EPSILON", "INIT_STDDEV", "LEARNING_RATE"}
POST = 16_512  # numbers of the post-processor: theirs are parameters that do not train, ours buffers


def check_vggish(folder: Path):
    reference, fill = json.loads((folder / "vggish.json").read_text()), _load_fill(folder)
    rules = {k for k in reference if k.startswith("rule_")}
    counts = {"count", "count_without_postprocessor"}
    _only("vggish.json", reference, {"_meta", "params", "keys", "examples", "mel_matrix"} | counts | rules)
    for name, value in reference["params"].items():
        if not (name in GRAPH_SETTINGS or name.endswith("_NAME")):
            assert SETTINGS.get(name) == value, f"vggish.json {name}: ours {SETTINGS.get(name)}, expected {value}"
    clips = fill.waveform(vggish.SAMPLE_RATE, 10.0)
    ours = vggish.examples(clips)
    with torch.no_grad():
        twin = VggishExamples()(torch.from_numpy(clips)).numpy()
    for path, examples in (("numpy", ours), ("torch", twin)):
        _check_examples(f"vggish.json examples ({path})", reference["examples"], examples)
    _check_mel_matrix(reference["mel_matrix"])
    network = VggishExtractor(postprocess=True).eval()
    assert _shapes(network) == dict(map(tuple, reference["keys"])), "vggish.json: other keys"
    trained = sum(p.numel() for p in network.parameters())
    assert reference["count"] == {"trainable": trained, "all": trained + POST}
    assert reference["count_without_postprocessor"] == {"trainable": trained, "all": trained}
    for rule in sorted(rules):
        fill.fill_(network, rule.removeprefix("rule_"))
        _check_vggish_rule(f"vggish.json {rule}", network, torch.from_numpy(ours), reference[rule])


def _check_examples(where: str, expected: dict, ours: np.ndarray):
    """shape, min and max are of the first clip."""
    known = {"shape", "logmel_shape", "fft_length", "window", "hop", "sample_stride", "sample", "sum", "min", "max"}
    _only(where, expected, known)
    sizes = (expected["fft_length"], expected["window"], expected["hop"])
    assert sizes == (vggish.N_FFT, vggish.WINDOW, vggish.HOP), f"{where}: {sizes}"
    frames = 1 + (10 * vggish.SAMPLE_RATE - vggish.WINDOW) // vggish.HOP
    assert expected["logmel_shape"] == [frames, vggish.N_MELS]
    assert expected["shape"] == [ours.shape[1], 1, *ours.shape[2:]], f"{where}: {ours.shape}"
    assert expected["sample_stride"] == "[::3, 0, ::16, ::8]"
    sample = torch.from_numpy(ours[:, ::3, ::16, ::8].reshape(len(ours), -1))
    _near(f"{where} sample", sample, expected["sample"], TOLERANCE)
    total = torch.from_numpy(ours).double().sum(dim=(1, 2, 3))
    _near_sum(f"{where} sum", total, expected["sum"], 0, ours[0].size)
    for field in ("min", "max"):
        value = torch.tensor(float(getattr(ours[0], field)()))
        _near(f"{where} {field}", value, expected[field], TOLERANCE)


def _check_mel_matrix(expected: dict):
    _only("vggish.json mel_matrix", expected, {"shape", "sum", "row_sums_stride16", "empty_bands"})
    bank = torch.tensor(vggish.mel_bank())
    assert list(bank.shape) == expected["shape"]
    assert int((bank.amax(dim=0) == 0).sum()) == expected["empty_bands"]
    _near_sum("vggish.json mel_matrix sum", bank.double().sum(), expected["sum"], 1e-9, bank.numel())
    _near("vggish.json mel_matrix rows", bank[::16].sum(dim=1), expected["row_sums_stride16"], 1e-6)


def _check_vggish_rule(where: str, network: VggishExtractor, examples: torch.Tensor, expected: dict):
    known = {
        "embedding_shape", "embedding_first16", "embedding_sum", "zero_fraction", "features_shape", "max", "clip_diff",
        "features_stride_sample", "float64_diff", "postprocessed_first16",
    }  # fmt: skip
    _only(where, expected, known)
    with torch.no_grad():
        features = network.features(examples[0, :1, None])
        post, network.pproc = network.pproc, None
        embedding = network.embed(examples)
        network.pproc = post
        posted = post(embedding)
    tolerance = max(TOLERANCE, 4 * expected["float64_diff"])
    rows = embedding.flatten(0, 1)
    facts = {"max": rows.max(), "clip_diff": (embedding[0] - embedding[1]).abs().max()}
    facts["zero_fraction"] = (rows == 0).double().mean()
    assert list(rows.shape) == expected["embedding_shape"]
    assert list(features.shape) == expected["features_shape"]
    _near(f"{where} embedding", embedding[:, 0, :16], expected["embedding_first16"], tolerance)
    _near_sum(f"{where} sum", rows.double().sum(), expected["embedding_sum"], tolerance, rows.numel())
    for field, ours in facts.items():
        _near(f"{where} {field}", ours, expected[field], 4 / rows.numel() if field == "zero_fraction" else tolerance)
    size = len(expected["features_stride_sample"])
    sample = features.flatten()[:: features.numel() // size][:size]
    _near(f"{where} features", sample, expected["features_stride_sample"], max(tolerance, 1e-5 * float(features.max())))
    ours, theirs = posted[:, 0, :16].numpy(), np.asarray(expected["postprocessed_first16"])
    # a value on the edge of two steps may fall on either side
    assert (ours != theirs).mean() <= 0.05, f"{where} post-processor: {ours} against {theirs}"
    assert np.abs(ours - theirs).max() <= 1, f"{where} post-processor: {ours} against {theirs}"


# TALNet


def check_talnet(folder: Path):
    reference, fill = json.loads((folder / "talnet.json").read_text()), _load_fill(folder)
    _only("talnet.json", reference, {"_meta", "cases", "gas_eval"})
    x = _input(re.match(r"default_rng.*? float32", reference["_meta"]["input"])[0])[:, None]
    for name, case in reference["cases"].items():
        where = f"talnet.json {name}"
        rules = {k for k in case if k.startswith("rule_")}
        _only(where, case, {"params", "keys", "architecture"} | rules)
        classes = dict(map(tuple, case["keys"]))["fc_prob.bias"][0] if "keys" in case else 527
        model = build_model("talnet", classes, x.shape[3], {"pooling": name.split("_")[0]}).eval()
        ours = sum(p.numel() for p in model.parameters())
        assert case["params"] == {"trainable": ours, "all": ours}, f"{where}: {ours}, expected {case['params']}"
        if "keys" in case:
            assert _shapes(model) == dict(map(tuple, case["keys"])), f"{where}: other keys"
        for layer in case.get("architecture", []):
            _check_layer(f"{where} {layer['layer']}", model, layer)
        for rule in sorted(rules):
            fill.fill_(model, rule.removeprefix("rule_"))
            _check_talnet_rule(f"{where} {rule}", model, x, case[rule])
    _check_gas(reference["gas_eval"])


def _check_layer(where: str, model: torch.nn.Module, layer: dict):
    module = getattr(model, layer["layer"])
    if "kernel" in layer:
        conv, pool = module.conv, None if module.pool == (1, 1) else list(module.pool)
        facts = {
            "n_in": conv.in_channels, "n_out": conv.out_channels, "kernel": list(conv.kernel_size), "bn": True,
            "padding": list(conv.padding), "bias": conv.bias is not None, "pool": pool,
        }  # fmt: skip
    elif "hidden" in layer:
        facts = {"inp": module.input_size, "hidden": module.hidden_size, "layers": module.num_layers,
                 "bidirectional": module.bidirectional}  # fmt: skip
    else:
        facts = {"inp": module.in_features, "out": module.out_features}
    assert {k: v for k, v in layer.items() if k != "layer"} == facts, f"{where}: ours {facts}, expected {layer}"


def _check_talnet_rule(where: str, model: torch.nn.Module, x: torch.Tensor, expected: dict):
    known = {"global_first16", "frame_shape", "frame_stride", "frame_sample", "att_sample", "intermediates"}
    _only(where, expected, known | {"float64_diff_global", "float64_diff_frame"})
    modules, seen = dict(model.named_modules()), {}
    hooks = [
        modules[name].register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name in expected.get("intermediates", {})
    ]
    with torch.no_grad():
        out = model(logmel=x)
    for hook in hooks:
        hook.remove()
    frames, tolerance = out["segmentwise_output"], max(TOLERANCE, 4 * expected["float64_diff_frame"])
    clip_tolerance = max(TOLERANCE, 4 * expected["float64_diff_global"])
    _near(f"{where} global", out["clipwise_output"][:, :16], expected["global_first16"], clip_tolerance)
    assert list(frames.shape) == expected["frame_shape"]
    _near(f"{where} frames", _strided(frames, expected["frame_stride"]), expected["frame_sample"], tolerance)
    if expected.get("att_sample"):
        attention = out["segmentwise_attention"].softmax(dim=1)
        _near(f"{where} attention", attention[:, ::25, ::100], expected["att_sample"], tolerance)
    for name, values in expected.get("intermediates", {}).items():
        ours = seen[name][0] if isinstance(seen[name], tuple) else seen[name]  # a GRU gives its last state too
        _only(f"{where} {name}", values, {"shape", "stride", "sample", "absmean"})
        assert list(ours.shape) == values["shape"], f"{where} {name}: {list(ours.shape)}, expected {values['shape']}"
        sample = ours.flatten()[:: values["stride"]][: len(values["sample"])]
        _near(f"{where} {name} sample", sample, values["sample"], max(tolerance, 1e-5 * float(ours.abs().max())))
        mean = ours.double().abs().mean()
        _near(f"{where} {name} absmean", mean, values["absmean"], max(tolerance, 1e-6 * values["absmean"]))


def _check_gas(expected: dict):
    """Average precision, AUC and d-prime of a small table."""
    _only("talnet.json gas_eval", expected, {"pred", "truth", "ap_auc_dprime", "per_class"})
    truth, scores = np.asarray(expected["truth"]), np.asarray(expected["pred"])
    ap, auc = clip_metrics.average_precision(truth, scores), clip_metrics.roc_auc(truth, scores)
    np.testing.assert_allclose(np.stack([ap, auc], axis=1), expected["per_class"], atol=1e-9)
    means = [ap.mean(), auc.mean(), clip_metrics.d_prime(auc.mean())]
    np.testing.assert_allclose(means, expected["ap_auc_dprime"], atol=1e-9)

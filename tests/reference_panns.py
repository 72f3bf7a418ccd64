"""Checks of our PANNs against the published code: names, shapes, sizes, intermediate and final outputs.

Values of a rule (weights made from their names by the folder's fill.py) were computed on two clips made there too; ours
come through Earshot's own front end. Every network, field and module found is checked or named here as left out; an
unknown one is an AssertionError.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from earshot.augment.mixing import mix
from earshot.inputs.network import Inputs
from earshot.inputs.torch_logmel import LogMel
from earshot.models import build_model
from earshot.models.counting import count
from earshot.models.layers import repeat_to_frames
from earshot.sound.logmel import LogmelParams

FAMILY = {  # published network -> ours; classes, mel bins and embedding are read off its shapes
    "Cnn6": "cnn6",
    "Cnn10": "cnn10",
    "Cnn14": "cnn14",
    "Cnn14_16k": "cnn14",
    "Cnn14_8k": "cnn14",
    "Cnn14_mel32": "cnn14",
    "Cnn14_mel128": "cnn14",
    "Cnn14_emb32": "cnn14",
    "Cnn14_emb128": "cnn14",
    "Cnn14_emb512": "cnn14",
    "Cnn14_no_specaug": "cnn14",
    "Cnn14_no_dropout": "cnn14",
    "Cnn14_mixup_time_domain": "cnn14",
    "Cnn14_DecisionLevelMax": "cnn14_max",
    "Cnn14_DecisionLevelAvg": "cnn14_avg",
    "Cnn14_DecisionLevelAtt": "cnn14_att",
    "ResNet22": "resnet22",
    "ResNet38": "resnet38",
    "ResNet54": "resnet54",
    "MobileNetV1": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
    "DaiNet19": "dainet19",
    "LeeNet11": "leenet11",
    "LeeNet24": "leenet24",
    "Res1dNet31": "res1dnet31",
    "Res1dNet51": "res1dnet51",
    "Wavegram_Cnn14": "wavegram_cnn14",
    "Wavegram_Logmel_Cnn14": "wavegram_logmel_cnn14",
    "Wavegram_Logmel128_Cnn14": "wavegram_logmel_cnn14",
    "Transfer_Cnn14": "transfer",
}
HEADS = {"Transfer_Cnn14": "fc_transfer"}
FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")
FRONT_END += tuple(f"base.{name}" for name in FRONT_END)
LEFT_OUT = {  # about the published code itself, or its own diagnostics
    "table_row", "frozen_keys", "params_match", "params_diff_trainable", "diagnostics", "defined_but_never_called",
    "rel_clip_diff", "peer_count_flops_warnings", "multi_adds_match_3dp",
}  # fmt: skip
TOLERANCE = 1e-4


def panns_checks(folder: Path) -> dict[str, Callable[[], None]]:
    """Network -> the check of all that is found of it, which raises AssertionError where a value differs."""
    fill = _load_fill(folder)
    _check_fill(fill, json.loads((folder / "fill_vectors.json").read_text()))
    keys, counts, outputs, intermediates = (
        json.loads((folder / "panns" / f"{name}.json").read_text())
        for name in ("keys", "counts", "outputs", "intermediates")
    )
    found = {n for part in (keys, counts, outputs, intermediates) for n in part if n not in ("_meta", "_helpers")}
    unknown = found - set(FAMILY)
    assert not unknown, f"panns: unknown networks {sorted(unknown)}"

    def check(name: str):
        _check_shapes(name, keys[name])
        if name in counts:
            _check_counts(f"counts.json {name}", counts[name], name, keys[name])
        if name in outputs or name in intermediates:
            _check_network(name, keys[name], outputs.get(name, {}), intermediates.get(name, {}), fill)

    return {name: functools.partial(check, name) for name in sorted(found)}


# names, shapes and sizes


def _on_meta(name: str, keys: list) -> torch.nn.Module:
    """Ours, sized by the published shapes, without values: names need no 80 M random numbers."""
    shapes = dict(map(tuple, keys))
    if FAMILY[name] == "transfer":
        base = {"embedding": shapes["base.fc1.weight"][0]}
        params = {"base": "cnn14", "base_classes": shapes["base.fc_audioset.weight"][0], "base_params": base}
        with torch.device("meta"):
            return build_model("transfer", shapes["fc_transfer.weight"][0], shapes["base.bn0.weight"][0], params).eval()
    head = "att_block.cla.weight" if "att_block.cla.weight" in shapes else "fc_audioset.weight"
    params = {"embedding": shapes["fc1.weight"][0]}
    with torch.device("meta"):
        return build_model(FAMILY[name], shapes[head][0], _front_end(keys).n_mels, params).eval()


def _front_end(keys: list) -> LogmelParams:
    """PANNs' front end at the rate and with the mel bins of the published shapes; of a waveform network the usual one.

    Rate, window, hop and fmax go together: 32 kHz, 1,024, 320, 14 kHz; 16 kHz and 8 kHz halve the lengths and cut at
    the Nyquist frequency.
    """
    shapes = dict(map(tuple, keys))
    n_bins, n_mels = shapes.get("logmel_extractor.melW", (513, 64))
    rate = 32000 * (n_bins - 1) // 512
    return LogmelParams(
        sample_rate=rate,
        n_fft=2 * (n_bins - 1),
        hop_length=rate // 100,
        n_mels=n_mels,
        fmin=50,
        fmax=min(14000, rate / 2),
    )


def _numel(keys: list, front_end: bool) -> int:
    return sum(int(np.prod(shape)) for key, shape in keys if key.startswith(FRONT_END) == front_end)


def _check_shapes(name: str, keys: list):
    ours = {key: list(value.shape) for key, value in _on_meta(name, keys).state_dict().items()}
    theirs = {key: shape for key, shape in keys if not key.startswith(FRONT_END)}
    differ = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    assert not differ, f"keys.json {name}: {[(k, ours.get(k), theirs.get(k)) for k in differ]}"


def _check_counts(where: str, entry: dict, name: str, keys: list):
    """Class number, parameter counts to the unit, multi-adds of 10 s to the unit of the authors' counter."""
    model, front_end = _on_meta(name, keys), _front_end(keys)
    ours = sum(p.numel() for p in model.parameters())
    multi_adds = count(
        model, Inputs.made({"logmel": front_end}, model.inputs), 10 * front_end.sample_rate
    ).paper_multi_adds
    head = model.att_block.cla if hasattr(model, "att_block") else getattr(model, HEADS.get(name, "fc_audioset"))
    facts = {
        "classes_num": len(head.weight),
        "peer_count_flops_10s_e9": multi_adds / 1e9,
        "paper_multi_adds_e9": round(multi_adds / 1e9, 3),
        "params_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "params_all": ours + _numel(keys, front_end=True),
        "params_all_minus_frontend": ours,
        "state_dict_numel": sum(v.numel() for v in model.state_dict().values()) + _numel(keys, front_end=True),
        "paper_params": ours,
    }
    for field, expected in entry.items():
        if field in LEFT_OUT or expected is None:
            continue
        assert field in facts, f"{where}: no check for field '{field}'"
        assert facts[field] == expected, f"{where} {field}: ours {facts[field]}, expected {expected}"


# outputs


def _check_network(name: str, keys: list, outputs: dict, intermediates: dict, fill):
    """Final and intermediate outputs under every rule present, one forward pass a rule."""
    sizes = {k: v for k, v in outputs.items() if not k.startswith("rule_") and k not in _OUTPUT_FIELDS}
    _check_counts(f"outputs.json {name}", sizes, name, keys)
    _check_dead(name, outputs, _on_meta(name, keys))
    model = _on_meta(name, keys).to_empty(device="cpu").eval()  # the rule fills in every value
    clips, logmel = _inputs(name, outputs, keys, fill)
    inputs = {"waveform": clips, "logmel": logmel}
    for rule in sorted({k for part in (outputs, intermediates) for k in part if k.startswith("rule_")}):
        fill.fill_(model, rule.removeprefix("rule_"))
        expected = intermediates.get(rule, {})
        out, seen = _run(model, {k: inputs[k] for k in model.inputs}, expected.get("modules", {}))
        seen["logmel_extractor"] = logmel
        if rule in outputs:
            _check_outputs(f"outputs.json {name} {rule}", outputs[rule], out)
        if expected:
            _check_modules(f"intermediates.json {name} {rule}", expected, seen, clips)
    unknown = [k for k in intermediates if not k.startswith("rule_")]
    assert not unknown, f"intermediates.json {name}: unknown entries {unknown}"


_OUTPUT_FIELDS = ("config", "waveform", "trainable_params_without_gradient")


def _check_dead(name: str, outputs: dict, model: torch.nn.Module):
    """Trainable parameters that no output depends on: the published ones are those that we declare."""
    if "trainable_params_without_gradient" in outputs:
        theirs = outputs["trainable_params_without_gradient"]["names"]
        ours = [k for k, _ in model.named_parameters() if k.startswith(tuple(model.dead_parameters))]
        assert sorted(ours) == sorted(theirs), f"outputs.json {name}: dead parameters {ours}, expected {theirs}"


def _inputs(name: str, outputs: dict, keys: list, fill) -> tuple[torch.Tensor, torch.Tensor]:
    """The two clips of fill.py and their log-mels by our own front end."""
    params = _front_end(keys)
    if c := outputs.get("config"):
        params = LogmelParams(
            sample_rate=c["sample_rate"], n_fft=c["window_size"], hop_length=c["hop_size"], n_mels=c["mel_bins"],
            fmin=c["fmin"], fmax=c["fmax"],
        )  # fmt: skip
    about = outputs.get("waveform", {"sr": params.sample_rate, "seconds": 10})
    clips = fill.waveform(about["sr"], about["seconds"])
    if "sha256_float32" in about:
        assert hashlib.sha256(clips.tobytes()).hexdigest() == about["sha256_float32"], f"{name}: other test clips"
    clips = torch.from_numpy(clips)
    with torch.no_grad():
        return clips, LogMel(params)(clips)


def _run(model, inputs: dict, modules: dict) -> tuple[dict, dict]:
    """(outputs, {module name: its output}) of one forward pass."""
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, key=key: seen.__setitem__(key, output))
        for key, module in model.named_modules()
        if key in modules
    ]
    with torch.no_grad():
        out = model(**inputs)
    for hook in hooks:
        hook.remove()
    return out, seen


def _check_outputs(where: str, expected: dict, out: dict):
    recorded = {k: v for k, v in expected["diagnostics"].items() if "float32_vs_float64" in k}
    at_logit = max([TOLERANCE, *(4 * v for k, v in recorded.items() if "logit" in k)])
    at_probability = max([TOLERANCE, *(4 * v for k, v in recorded.items() if "clipwise" in k)])
    clip, embedding, frames = (out.get(k) for k in ("clipwise_output", "embedding", "framewise_output"))
    segments = out.get("segmentwise_logit")
    for field, value in expected.items():
        name = f"{where} {field}"
        if field in LEFT_OUT or field == "framewise_stride":
            continue
        if field == "clipwise_output_first16":
            _near(name, clip[:, :16], value, at_probability)
        elif field == "clipwise_sum":
            _near_sum(name, clip.double().sum(dim=1), value, at_probability, clip.shape[1])
        elif field == "logits_first16":
            _near(name, out["logit"][:, :16], value, at_logit)
        elif field == "embedding_first16":
            _near(name, embedding[:, :16], value, at_logit)
        elif field == "embedding_sum":
            _near_sum(name, embedding.double().sum(dim=1), value, at_logit, embedding.shape[1])
        elif field == "embedding_shape":
            assert list(embedding.shape) == value, f"{name}: {list(embedding.shape)}, expected {value}"
        elif field == "segment_logits_shape":
            # (B, S, K), or (B, K, S) as the attention block's convolution gives them
            assert value in ([*segments.shape], [*segments.mT.shape]), f"{name}: {[*segments.shape]}, expected {value}"
        elif field == "segment_logits_first16_t0":
            _near(name, segments[:, 0, :16], value, at_logit)
        elif field == "framewise_shape":
            assert list(frames.shape) == value, f"{name}: {list(frames.shape)}, expected {value}"
        elif field == "framewise_sample":
            _near(name, _strided(frames, expected["framewise_stride"]), value, at_probability)
        elif field == "framewise_last_rows_equal_from":
            same = (frames == frames[:, -1:]).flatten(2).all(dim=2).all(dim=0)
            first = int((~same).nonzero().max()) + 1
            assert first == value, f"{name}: {first}, expected {value}"
        else:
            raise AssertionError(f"{name}: no check for this field")


def _check_modules(where: str, expected: dict, seen: dict, clips: torch.Tensor):
    unknown = set(expected) - {"order", "modules"} - LEFT_OUT
    assert not unknown, f"{where}: no check for {sorted(unknown)}"
    assert set(expected["order"]) == set(expected["modules"]), f"{where}: order and modules differ"
    for module, values in expected["modules"].items():
        if module == "spectrogram_extractor":  # frontend.json checks it; our front end keeps no power spectrum
            continue
        assert module in seen, f"{where}: ours has no module '{module}'"
        ours = _as_published(seen[module], values["shape"])
        assert list(ours.shape) == values["shape"], f"{where} {module}: {list(ours.shape)}, expected {values['shape']}"
        flat = ours.flatten(1)
        # no float64 difference is recorded here: 1e-5 of the module's size stands for it
        tolerance = max(TOLERANCE, 1e-5 * float(flat.abs().max()))
        for field, value in values.items():
            name = f"{where} {module} {field}"
            if field == "sample":
                _near(name, flat[:, :: flat.shape[1] // 6][:, :6], value, tolerance)
            elif field in ("mean", "absmean"):
                numbers = flat.double() if field == "mean" else flat.double().abs()
                _near(name, numbers.mean(dim=1), value, max(tolerance, 1e-6 * np.abs(value).max()))
            else:
                assert field == "shape" or field in LEFT_OUT, f"{name}: no check for this field"


def _as_published(output, shape: list) -> torch.Tensor:
    """An attention block's clip or segment outputs, whichever has the shape; every other module gives a tensor."""
    if isinstance(output, torch.Tensor):
        return output
    clip, segments = output["clipwise_output"], output["segmentwise_output"].transpose(1, 2)
    return clip if list(clip.shape) == shape else segments


def check_panns_helpers(folder: Path):
    """Small functions of the published code against ours: mixing pairs, repeating and padding segments."""
    helpers = json.loads((folder / "panns" / "outputs.json").read_text()).get("_helpers", {})
    x = torch.arange(12.0).reshape(2, 3, 2)
    for name, entry in helpers.items():
        if name == "do_mixup":  # neighbours are mixed in pairs, of which it keeps the first
            clips, lam = torch.arange(32.0).reshape(8, 2, 2), torch.tensor(entry["lam"])
            out = mix(clips, lam, torch.arange(8) ^ 1)[0::2]
        elif name == "interpolate_ratio3":
            out = repeat_to_frames(x, 3, 9)
        elif name == "pad_framewise_11":
            out = repeat_to_frames(x, 3, 11)
        else:
            raise AssertionError(f"outputs.json _helpers: no check for '{name}'")
        shape = entry.get("shape") or entry["out_shape"]
        assert list(out.shape) == shape, f"{name}: {list(out.shape)}, expected {shape}"
        _near(f"_helpers {name}", out.flatten(), entry["out"], 1e-5)


# comparison and the rule


def _near(name: str, ours: torch.Tensor, expected, tolerance: float):
    ours, expected = ours.double().numpy(), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape, f"{name}: ours has shape {ours.shape}, expected {expected.shape}"
    worst = np.abs(ours - expected).max()
    assert worst <= tolerance, f"{name}: differs by {worst:.2e}, allowed {tolerance:.2e}"


def _near_sum(name: str, ours: torch.Tensor, expected, tolerance: float, terms: int):
    _near(name, ours, expected, max(1e-6 * np.abs(expected).max(), tolerance * terms))


def _strided(frames: torch.Tensor, stride) -> torch.Tensor:
    """Strides given as text, "[:, ::100, ::100]", or as numbers from the last axis on."""
    if isinstance(stride, str):
        parts = [p.strip() for p in stride.strip("[] ").split(",")]
        stride = [int(p.rpartition(":")[2] or 1) for p in parts]
    steps = [1] * (frames.ndim - len(stride)) + list(stride)
    return frames[tuple(slice(None, None, s) for s in steps)]


def _load_fill(folder: Path):
    """The folder's fill.py as a module; numbers of a (key, shape) are drawn once, since networks share most."""
    spec = importlib.util.spec_from_file_location("reference_fill", folder / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.key_normal = functools.lru_cache(maxsize=256)(module.key_normal)
    return module


def _check_fill(fill, vectors: dict):
    """Our use of fill.py: first values of some keys, hashes of the clips."""
    unknown = set(vectors) - {"keys", "waveform", "_meta"}
    assert not unknown, f"fill_vectors.json: unknown entries {sorted(unknown)}"
    for key, entry in vectors["keys"].items():
        names = {key} | ({key.rpartition(".")[0] + ".running_mean"} if entry["is_batchnorm"] else set())
        value = fill.fill_value(key, tuple(entry["shape"]), names).flatten()[:4]
        _near(f"fill_vectors.json {key}", torch.from_numpy(value), entry["rule_A_first4"], 1e-6)
    for rate, entry in vectors["waveform"].items():
        clips = fill.waveform(int(rate), entry["seconds"])
        assert hashlib.sha256(clips.tobytes()).hexdigest() == entry["sha256"], f"fill_vectors.json waveform {rate}"

"""Checks both log-mel paths against reference values made by torchlibrosa (and, for one, by librosa).

`check_frontend(folder)` checks every configuration of frontend.json; a key that is neither checked nor named as skipped
is an AssertionError. The tolerances are those that the folder's README gives.
"""

import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from earshot.inputs.torch_logmel import LogMel
from earshot.sound import logmel
from earshot.sound.logmel import LogmelParams

CONFIG_SAME = {"sr": "sample_rate", "hop": "hop_length", **{n: n for n in (
    "n_fft", "win_length", "n_mels", "fmin", "fmax", "center", "pad_mode", "ref", "amin")}}  # fmt: skip
CONFIG_FIXED = {"power": (2.0,), "mel": ("librosa slaney, norm slaney, htk False",)}
DIFFS = {  # how far other implementations are from each other; the first and the third are our tolerances
    "float32_vs_float64_torchlibrosa_max_db",
    "torchlibrosa_vs_librosa_float64_max_db",
    "torchlibrosa_vs_torch_stft_power_max_abs",
    "power_max",
}


@dataclass
class Case:
    """One configuration: what the reference says and what one of our paths gives."""

    waveform: np.ndarray  # (2, S)
    power: np.ndarray  # (2, T, n_fft // 2 + 1)
    logmel: np.ndarray  # (2, T, F)
    bank: np.ndarray  # (n_fft // 2 + 1, F), as torchlibrosa lays it out
    params: LogmelParams
    entry: dict

    def __post_init__(self):
        if self.params.top_db is not None:  # torchlibrosa counts from the maximum of the batch, we from each clip's own
            self.logmel = np.maximum(self.logmel, self.logmel.max() - np.float32(self.params.top_db))

    def near(self, ours, theirs, tolerance: float) -> None:
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=tolerance)

    def near_db(self, ours, theirs) -> None:
        self.near(ours, theirs, max(1e-4, 4 * self.entry["diffs"]["float32_vs_float64_torchlibrosa_max_db"]))

    def near_power(self, ours, theirs) -> None:
        self.near(ours, theirs, self.entry["diffs"]["torchlibrosa_vs_torch_stft_power_max_abs"])

    def near_sum(self, ours, theirs, n_terms: int = 1) -> None:
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 * n_terms)


def _equal(ours, theirs) -> None:
    assert ours == theirs, f"{ours} is not {theirs}"


def _strided(array: np.ndarray, stride: list) -> np.ndarray:
    return array[:, :: stride[0], :: stride[1]]


CHECKS = {
    "waveform_sha256": lambda c, v: _equal(hashlib.sha256(c.waveform.tobytes()).hexdigest(), v),
    "spectrogram_shape": lambda c, v: _equal([2, 1, *c.power.shape[1:]], v),
    "logmel_shape": lambda c, v: _equal([2, 1, *c.logmel.shape[1:]], v),
    "spectrogram_sample": lambda c, v: c.near_power(_strided(c.power, c.entry["spectrogram_stride"]), v),
    "logmel_sample": lambda c, v: c.near_db(_strided(c.logmel, c.entry["logmel_stride"]), v),
    "logmel_first_frame_clip0": lambda c, v: c.near_db(c.logmel[0, 0], v),
    "logmel_last_frame_clip0": lambda c, v: c.near_db(c.logmel[0, -1], v),
    "logmel_mean": lambda c, v: c.near_sum(c.logmel.mean(axis=(1, 2), dtype=np.float64), v),
    "logmel_std": lambda c, v: c.near_sum(c.logmel.std(axis=(1, 2), dtype=np.float64, ddof=1), v),
    "logmel_min": lambda c, v: c.near_db(c.logmel.min(), v),
    "logmel_max": lambda c, v: c.near_db(c.logmel.max(), v),
    "melW_shape": lambda c, v: _equal(list(c.bank.shape), v),
    "melW_sum": lambda c, v: c.near_sum(c.bank.sum(dtype=np.float64), v),
    "melW_col_sums_first8": lambda c, v: c.near_sum(c.bank.sum(axis=0, dtype=np.float64)[:8], v),
    "empty_mel_bands": lambda c, v: _equal(
        len(logmel.empty_mel_bands(c.params)) if isinstance(v, int) else logmel.empty_mel_bands(c.params), v
    ),
    "diffs": lambda c, v: _equal(set(v) - DIFFS, set()),
}
SKIPPED = {"config", "spectrogram_stride", "logmel_stride"}  # they say how to read the others


def check_frontend(folder: str | Path) -> list[str]:
    """Checks frontend.json of the folder by the NumPy and by the torch path; the names of what was checked."""
    fill = _fill(folder)
    checked = []
    for name, entry in json.loads((Path(folder) / "frontend.json").read_text()).items():
        if name == "_meta":
            continue
        params = params_of(entry["config"])
        waveform = fill.waveform(params.sample_rate, 10.0)
        for path, case in (
            ("numpy", numpy_case(waveform, params, entry)),
            ("torch", torch_case(waveform, params, entry)),
        ):
            for key, value in entry.items():
                assert key in CHECKS or key in SKIPPED, f"frontend.json: nothing checks {name}.{key}"
                if key in CHECKS:
                    _run(f"{name}.{key} ({path})", functools.partial(CHECKS[key], case, value))
                    checked.append(f"{name}.{key} ({path})")
    return checked


def check_ust_frontend(folder: str | Path) -> list[str]:
    """Checks `frontend` of ust.json: librosa's zero padding, n_fft 2822 and top_db 80 a clip, on both paths."""
    entry = json.loads((Path(folder) / "ust.json").read_text())["frontend"]
    assert entry["sample_stride"] == "[:, ::40, ::8]"
    assert entry["input"] == "waveform(44100,10.0)"
    params = LogmelParams(
        sample_rate=44100,
        n_fft=2822,
        win_length=0,
        hop_length=1103,
        n_mels=64,
        fmin=0,
        fmax=8000,
        pad_mode="constant",
        top_db=80.0,
    )
    waveform = _fill(folder).waveform(44100, 10.0)
    with torch.no_grad():
        paths = {
            "numpy": logmel.log_mel(waveform, params),
            "torch": LogMel(params)(torch.from_numpy(waveform))[:, 0].numpy(),
        }
    checks = {
        "shape": lambda ours, v: _equal(list(ours.shape), v),
        "sample": lambda ours, v: np.testing.assert_allclose(ours[:, ::40, ::8], v, rtol=0, atol=1e-4),
        "min": lambda ours, v: np.testing.assert_allclose(ours.min(axis=(1, 2)), v, rtol=0, atol=1e-4),
        "max": lambda ours, v: np.testing.assert_allclose(ours.max(axis=(1, 2)), v, rtol=0, atol=1e-4),
    }
    assert set(entry) == {*checks, "patch", "input", "sample_stride", "note"}
    for path, ours in paths.items():
        for key, check in checks.items():
            _run(f"ust.frontend.{key} ({path})", functools.partial(check, ours, entry[key]))
    return [f"ust.frontend.{key} ({path})" for path in paths for key in checks]


def params_of(config: dict) -> LogmelParams:
    """The reference's words -> ours; a setting that we do not know fails."""
    values = {}
    for key, value in config.items():
        if key in CONFIG_SAME:
            values[CONFIG_SAME[key]] = value
        elif key == "window":
            name, _, kind = value.partition(" ")
            assert kind in ("", "(periodic)"), f"window {value!r}"
            values["window"] = name
        elif key == "top_db":
            values["top_db"] = value
        else:
            assert value in CONFIG_FIXED.get(key, ()), f"frontend.json: config {key}={value!r} is not known"
    if values.get("fmax") is None:
        values["fmax"] = values["sample_rate"] / 2
    return LogmelParams(**values)


def numpy_case(waveform: np.ndarray, params: LogmelParams, entry: dict) -> Case:
    """What sound/logmel.py gives."""
    values = logmel.log_mel(waveform, params)
    bank = logmel.mel_filterbank(params).T
    return Case(waveform, logmel.power_spectrogram(waveform, params), values, bank, params, entry)


def torch_case(waveform: np.ndarray, params: LogmelParams, entry: dict) -> Case:
    """What inputs/torch_logmel.py gives; the power is its mel energy under a filter bank of ones on the diagonal."""
    front = LogMel(params)
    bank = front.bank.numpy().copy()
    with torch.no_grad():
        values = front(torch.from_numpy(waveform))[:, 0].numpy()
        front.bank = torch.eye(params.n_bins)
        power = front.mel(torch.from_numpy(waveform)).numpy()
    return Case(waveform, power, values, bank, params, entry)


def _fill(folder: str | Path):
    """The folder's own fill.py as a module."""
    spec = importlib.util.spec_from_file_location("reference_fill", Path(folder) / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(what: str, check) -> None:
    try:
        check()
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error

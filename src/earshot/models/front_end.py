"""The front end that a checkpoint was trained with, against ours: a difference is an error that names both values."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from earshot.sound.logmel import WINDOWS, LogmelParams, fft_window, mel_filterbank
from earshot.stored import parse_json

RATES = (8000, 16000, 22050, 32000, 44100, 48000)  # that a foreign filter bank is tried at


def check_front_end(tensors: dict[str, Tensor], params: LogmelParams | None, where: str) -> str:
    """Front-end tensors of a PANNs checkpoint against `params` -> a line saying what agrees, or an error with both.

    Compared: n_fft and n_mels (shapes), the window (the transform's row of frequency 0 is the window itself), and the
    mel filter bank, which holds sample rate, fmin and fmax. The hop is not in the weights: the line says so where it
    is not PANNs' own of that n_fft.
    """
    if params is None:
        return f"front end of the checkpoint not checked ({len(tensors)} tensors left out)"
    real = tensors.get("spectrogram_extractor.stft.conv_real.weight")
    mel = tensors.get("logmel_extractor.melW")
    trained_at = _trained_at(mel.numpy(), params) if mel is not None else ""
    n_fft = real.shape[-1] if real is not None else 2 * (mel.shape[0] - 1) if mel is not None else params.n_fft
    _expect("n_fft", n_fft, params.n_fft, where, trained_at)
    if real is not None:
        window = real[0, 0].numpy()
        if not np.allclose(window, fft_window(params), atol=1e-4):
            raise ValueError(
                f"{where} was trained with {_window_name(window)}, the front end has window '{params.window}' "
                f"(win_length {params.win_length or params.n_fft})"
            )
    if mel is not None:
        _expect("n_mels", mel.shape[1], params.n_mels, where)
        if params.sample_rate:
            _check_mel(mel.numpy(), params, where, trained_at)
    line, usual = (
        f"front end agrees (n_fft {params.n_fft}, {params.n_mels} mels, {params.window})",
        params.n_fft * 5 // 16,
    )
    if params.hop_length != usual:
        line += f"; hop_length is not in the file: PANNs' usual is {usual}, here it is {params.hop_length}"
    return line


def _front_ends(about: dict, where: str) -> list[dict]:
    """The front ends of a run's description."""
    found = about.get("frontends", {})
    if not isinstance(found, dict) or not all(isinstance(f, dict) for f in found.values()):
        raise ValueError(f"the description in {where} has no front ends by name, but {str(found)[:60]!r}")
    return list(found.values())


def check_description(metadata: str, params: LogmelParams, where: str) -> str:
    """What a run writes into its weights (JSON) against `params` -> a line, or an error with both values."""
    front_ends = _front_ends(parse_json(metadata, f"the description in {where}"), where)
    theirs = next((f for f in front_ends if f.get("kind", "logmel") == "logmel"), {})
    ours = dataclasses.asdict(params)
    for key in ("sample_rate", "n_fft", "hop_length", "n_mels", "window", "fmin", "fmax"):
        if key in theirs and theirs[key] != ours[key]:
            _expect(key, theirs[key], ours[key], where)
    return "front end agrees with the run's" if theirs else ""


def _check_mel(mel: np.ndarray, params: LogmelParams, where: str, trained_at: str) -> None:
    """Error unless the (n_bins, n_mels) filters are those of `params`; says which band the checkpoint's cover."""
    ours = mel_filterbank(params).T
    if np.abs(mel - ours).max() <= 1e-3 * np.abs(ours).max():
        return
    hz = params.sample_rate / params.n_fft

    def band(filters):
        used = np.flatnonzero(filters.sum(axis=1))
        return f"{used.min() * hz:.0f} to {used.max() * hz:.0f} Hz at this rate" if len(used) else "empty"

    raise ValueError(
        f"{where} was trained with another mel filter bank: its bins cover {band(mel)}, those of the front end "
        f"{band(ours)} (sample_rate {params.sample_rate}, fmin {params.fmin:g}, fmax {params.fmax:g}){trained_at}"
    )


def _trained_at(mel: np.ndarray, params: LogmelParams) -> str:
    """'; the checkpoint's: sample_rate ...' where PANNs' or our own ways give that filter bank, else ''."""
    n_fft, n_mels = 2 * (mel.shape[0] - 1), mel.shape[1]
    for rate in RATES:
        for fmin, fmax in {(50.0, min(14000.0, rate / 2)), (params.fmin, min(params.fmax, rate / 2)), (0.0, rate / 2)}:
            if fmin >= fmax:
                continue
            bank = mel_filterbank(LogmelParams(sample_rate=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)).T
            if np.abs(mel - bank).max() <= 1e-3 * np.abs(bank).max():
                return f"; the checkpoint's: sample_rate {rate}, fmin {fmin:g}, fmax {fmax:g}"
    return ""


def _expect(name: str, theirs, ours, where: str, more: str = "") -> None:
    if theirs != ours:
        raise ValueError(f"{where} was trained with {name} {theirs}, the front end has {name} {ours}{more}")


def _window_name(window: np.ndarray) -> str:
    """'window <name>' of those we know, else its first values."""
    for name in WINDOWS:
        if np.allclose(window, fft_window(LogmelParams(n_fft=len(window), window=name)), atol=1e-4):
            return f"window '{name}'"
    return f"an unknown window or win_length (starts {', '.join(f'{v:.4f}' for v in window[:4])})"

"""Kaldi's filter bank on NumPy: 25-ms frames of a waveform at 16 kHz become mel bands in natural logarithms.

As in Kaldi and transformers' ASTFeatureExtractor: frames of 25 ms every 10 ms, frame t STARTING on sample 160 t; each
frame loses its mean, is pre-emphasised by 0.97 (its first sample by itself), and meets a symmetric Hann window; the
power of a 512-point FFT goes into triangles drawn in mel (1127 ln(1 + f / 700)), not normalised; then the natural
logarithm, floored at float32's epsilon.

Ours alone: there are as many frames as a centred log-mel has, 1 + S / 160, so that answers in time lie on the run's
grid; those that reach behind the end of the sound hear it reflected. The extractor drops them, and fills up to 1,024
frames with the logarithm 0. `torch_kaldi.TorchKaldi` is the twin, `kaldi_input.Kaldi` the network's input.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from earshot.sound.logmel import read_only, reflected_index

SAMPLE_RATE = 16000  # Hz
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
FMIN = 20.0  # Hz, of the lowest band's lower edge; the highest ends at half the rate
PREEMPHASIS = 0.97
FLOOR = 1.192092955078125e-07  # of the energies
BLOCK = 256  # frames transformed at a time: bounds memory


def filter_bank(waveform: np.ndarray, n_mels: int) -> np.ndarray:
    """Compute Kaldi's filter bank of a waveform.

    (S,) at 16 kHz -> (T, n_mels) float32 natural logarithms; an empty waveform is an error.
    """
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"a Kaldi filter bank needs (samples,) with samples in it, got {waveform.shape}")
    frames = np.lib.stride_tricks.sliding_window_view(waveform[end_index(len(waveform))], WINDOW)[::HOP]
    out = np.empty((len(frames), n_mels), np.float32)
    for begin in range(0, len(frames), BLOCK):
        some = frames[begin : begin + BLOCK]
        some = some - some.mean(axis=1, keepdims=True)
        before = np.concatenate([some[:, :1], some[:, :-1]], axis=1)
        spectrum = scipy.fft.rfft((some - np.float32(PREEMPHASIS) * before) * window(), N_FFT)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        np.matmul(power, mel_bank(n_mels), out=out[begin : begin + len(some)])
    return np.log(np.maximum(out, np.float32(FLOOR)), out=out)


def n_frames(n_samples: int) -> int:
    """Samples at 16 kHz -> frames, as many as a centred STFT with this hop has."""
    return 1 + n_samples // HOP


def end_index(n_samples: int) -> np.ndarray:
    """Say which sample stands at each place of a waveform that is reflected at its end until its last frame is full.

    (n_samples // 160 * 160 + 400,) indices.
    """
    needed = (n_frames(n_samples) - 1) * HOP + WINDOW
    return reflected_index(n_samples, WINDOW)[WINDOW : WINDOW + needed]


@lru_cache(maxsize=1)
def window() -> np.ndarray:
    """Give the window of the frames.

    (400,) float32 Hann, symmetric.
    """
    return read_only(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1)))


@lru_cache(maxsize=8)
def mel_bank(n_mels: int) -> np.ndarray:
    """Say how much each FFT bin gives to each mel band.

    (257, n_mels) float32 triangles of height 1 over the mel axis.
    """
    bins = _mel(np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT)[:, None]
    edges = np.linspace(_mel(FMIN), _mel(SAMPLE_RATE / 2), n_mels + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return read_only(np.maximum(0, np.minimum(rising, falling)))


def _mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

"""Log-mel on NumPy and SciPy, no torch: for kernels, validation and caches. Its twin is `inputs.torch_logmel.LogMel`.

Conventions, those of torchlibrosa and the PANNs: power spectrogram of a periodic window; centred frames, frame `t` on
sample `t * hop_length`, the edges reflected; Slaney mel scale, each band of area 1; decibels, floored at `amin`. Time
comes before mel: (..., T, F). Where a waveform is shorter than the padding the reflection repeats (torchlibrosa and
torch refuse it). librosa >= 0.10 pads with zeros instead (pad_mode "constant"): first and last frames differ.
`top_db` is relative to each waveform's own maximum; torchlibrosa takes that of the batch, so that a clip's values
depend on its neighbours there. Agreement with torchlibrosa: within 2e-3 dB (tests/test_logmel.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

LOGGER = logging.getLogger("earshot")
# transformed at a time, which bounds memory and stays in the processor's cache: frames, and samples in them
BLOCK_FRAMES, BLOCK_SAMPLES = 256, 256 * 1024
GROUP_BANDS = 16  # neighbouring mel bands summed at a time, from the few bins that they hold
WINDOWS = {  # coefficients a_k of sum a_k (-1)^k cos(2 pi k n / length)
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "boxcar": (1.0,),
}
PAD_MODES = ("reflect", "constant")


@dataclass(frozen=True, kw_only=True)
class LogmelParams:
    """A log-mel front end. Frequencies in Hz, lengths in samples; `sample_rate` 0 = that of the data."""

    sample_rate: int = 0
    n_fft: int = 1024
    win_length: int = 0  # 0: n_fft
    hop_length: int = 320
    n_mels: int = 64
    fmin: float = 50.0
    fmax: float = 14000.0
    window: str = "hann"  # periodic
    center: bool = True
    pad_mode: str = "reflect"
    amin: float = 1e-10
    ref: float = 1.0
    top_db: float | None = None

    def __post_init__(self):
        for name in ("n_fft", "hop_length", "n_mels", "amin", "ref"):
            if not getattr(self, name) > 0:
                raise ValueError(f"log-mel {name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.win_length <= self.n_fft:
            raise ValueError(f"log-mel win_length {self.win_length} must be 0 (= n_fft) to n_fft {self.n_fft}")
        if not 0 <= self.fmin < self.fmax:
            raise ValueError(f"log-mel needs 0 <= fmin < fmax, got fmin {self.fmin} and fmax {self.fmax} Hz")
        if self.sample_rate < 0 or (self.sample_rate and self.fmax > self.sample_rate / 2):
            raise ValueError(
                f"log-mel fmax {self.fmax:g} Hz is above the Nyquist frequency {self.sample_rate / 2:g} Hz "
                f"of sample_rate {self.sample_rate} Hz: lower fmax or raise the rate"
            )
        if self.window not in WINDOWS:
            raise ValueError(f"unknown log-mel window '{self.window}'; known: {', '.join(WINDOWS)}")
        if self.pad_mode not in PAD_MODES:
            raise ValueError(f"unknown log-mel pad_mode '{self.pad_mode}'; known: {', '.join(PAD_MODES)}")
        if self.top_db is not None and self.top_db < 0:
            raise ValueError(f"log-mel top_db must not be negative, got {self.top_db}")

    @property
    def n_bins(self) -> int:
        """Frequencies of the spectrum."""
        return self.n_fft // 2 + 1

    @property
    def padding(self) -> int:
        """Samples added at either side."""
        return self.n_fft // 2 if self.center else 0


def n_frames(n_samples: int, params: LogmelParams) -> int:
    """Samples -> frames T. Without centring a waveform below n_fft is filled up with zeros to one frame."""
    return 1 + max(0, n_samples + 2 * params.padding - params.n_fft) // params.hop_length


def silence_db(params: LogmelParams) -> float:
    """Decibels of digital silence: what padding by zeros gives in every bin."""
    return float(10 * np.log10(params.amin) - reference_db(params))


def reference_db(params: LogmelParams) -> float:
    """Decibels that `ref` takes off."""
    return float(10 * np.log10(max(params.amin, params.ref)))


def log_mel(waveform: np.ndarray, params: LogmelParams) -> np.ndarray:
    """Compute the log-mel spectrogram of waveforms.

    (..., S) -> (..., T, F) float32 decibels; `top_db` counts from the maximum of each waveform.
    """
    energies = mel_energies(waveform, params)
    for result in energies.reshape(-1, *energies.shape[-2:]):
        _to_decibels(result, params)
    return energies


def mel_energies(waveform: np.ndarray, params: LogmelParams) -> np.ndarray:
    """Sum the power of waveforms, (..., S), in mel bands, before its logarithm: (..., T, F) float32."""
    clips = _clips(waveform)
    out = np.empty((len(clips), n_frames(clips.shape[1], params), params.n_mels), np.float32)
    for clip, result in zip(clips, out):
        for begin, power in _power_blocks(clip, params):
            for bands, bins, bank in _band_groups(params):
                np.matmul(power[:, bins], bank, out=result[begin : begin + len(power), bands])
    return out.reshape(*np.shape(waveform)[:-1], *out.shape[1:])


def power_spectrogram(waveform: np.ndarray, params: LogmelParams) -> np.ndarray:
    """Compute the power of waveforms by frame and frequency.

    (..., S) -> (..., T, n_fft // 2 + 1) float32 squared magnitudes: what `log_mel` sums into bands.
    """
    powers = [np.concatenate([power for _, power in _power_blocks(clip, params)]) for clip in _clips(waveform)]
    return np.reshape(powers, (*np.shape(waveform)[:-1], *powers[0].shape))


@lru_cache(maxsize=32)
def fft_window(params: LogmelParams) -> np.ndarray:
    """Give the window that each frame is multiplied by.

    (n_fft,) float32 periodic window, centred in zeros where win_length < n_fft.
    """
    length = params.win_length or params.n_fft
    phase = 2 * np.pi * np.arange(length) / length
    window = np.zeros(params.n_fft)
    left = (params.n_fft - length) // 2
    terms = (a * (-1) ** k * np.cos(k * phase) for k, a in enumerate(WINDOWS[params.window]))
    window[left : left + length] = sum(terms)
    return read_only(window)


@lru_cache(maxsize=32)
def mel_filterbank(params: LogmelParams) -> np.ndarray:
    """Say how much each FFT bin gives to each mel band.

    (F, n_fft // 2 + 1) float32 triangles on Slaney's mel scale, each of area 1 over Hz; equals librosa.filters.mel.

    A band narrower than the bins' spacing may hold no bin: it is always silent, and warned of by count.
    """
    if not params.sample_rate:
        raise ValueError("a mel filter bank needs LogmelParams.sample_rate; it is 0 (= that of the data)")
    bins = np.arange(params.n_bins) * (params.sample_rate / params.n_fft)
    mel_edges = np.linspace(_hz_to_mel(params.fmin), _hz_to_mel(params.fmax), params.n_mels + 2)
    edges = _mel_to_hz(mel_edges)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    n_empty = int((bank.max(axis=1) == 0).sum())
    if n_empty:
        LOGGER.warning(
            f"{n_empty} of {params.n_mels} mel bands hold no bin of n_fft {params.n_fft} at {params.sample_rate} Hz "
            "and stay silent: fewer n_mels or a larger n_fft avoids that"
        )
    return read_only(bank)


@lru_cache(maxsize=32)
def _band_groups(params: LogmelParams) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """(bands, bins, (bins, bands) weights) of each group: the filter bank's transpose without most of its zeros."""
    groups = []
    for first in range(0, params.n_mels, GROUP_BANDS):
        bands = slice(first, first + GROUP_BANDS)
        weights = mel_filterbank(params)[bands].T
        held = np.flatnonzero(weights.any(axis=1))
        bins = slice(held[0], held[-1] + 1) if len(held) else slice(0, 1)
        groups.append((bands, bins, np.ascontiguousarray(weights[bins])))
    return tuple(groups)


def mel_centres(params: LogmelParams) -> np.ndarray:
    """Hz of the middle of each mel band, (F,)."""
    edges = np.linspace(_hz_to_mel(params.fmin), _hz_to_mel(params.fmax), params.n_mels + 2)
    return _mel_to_hz(edges)[1:-1]


def empty_mel_bands(params: LogmelParams) -> list[int]:
    """Indices of the mel bands that hold no frequency bin."""
    return np.flatnonzero(mel_filterbank(params).max(axis=1) == 0).tolist()


def reflected_index(n_samples: int, padding: int) -> np.ndarray:
    """Indices, (n_samples + 2 * padding,), of a waveform reflected at its ends as often as the padding needs."""
    period = max(1, 2 * (n_samples - 1))
    place = np.arange(-padding, n_samples + padding) % period
    return np.minimum(place, period - place) if n_samples > 1 else np.zeros(1 + 2 * padding, np.int64)


def _clips(waveform: np.ndarray) -> np.ndarray:
    """(..., S) -> (N, S) float32; an empty waveform has no log-mel."""
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim == 0 or waveform.size == 0:
        raise ValueError(f"a log-mel needs at least one sample, got a waveform of shape {waveform.shape}")
    return waveform.reshape(-1, waveform.shape[-1])


def _power_blocks(clip: np.ndarray, params: LogmelParams) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first frame, (n, n_fft // 2 + 1) power) of a block of frames."""
    frames, window = _frames(clip, params), fft_window(params)
    size = max(1, min(BLOCK_FRAMES, BLOCK_SAMPLES // params.n_fft))
    for begin in range(0, len(frames), size):
        spectrum = scipy.fft.rfft(frames[begin : begin + size] * window)
        yield begin, np.square(spectrum.real) + np.square(spectrum.imag)


def _frames(clip: np.ndarray, params: LogmelParams) -> np.ndarray:
    """(S,) -> (T, n_fft) view of the padded clip."""
    padding = params.padding
    if padding and params.pad_mode == "reflect":
        padded = np.pad(clip, padding, "reflect") if len(clip) > padding else clip[reflected_index(len(clip), padding)]
    else:
        padded = np.pad(clip, (padding, max(padding, params.n_fft - len(clip) - padding)))
    return np.lib.stride_tricks.sliding_window_view(padded, params.n_fft)[:: params.hop_length]


def _to_decibels(mel: np.ndarray, params: LogmelParams) -> None:
    """(T, F) energies of one waveform -> decibels, in place: our own array, written once."""
    np.maximum(mel, np.float32(params.amin), out=mel)
    np.log10(mel, out=mel)
    mel *= np.float32(10)
    mel -= np.float32(reference_db(params))
    if params.top_db is not None:
        np.maximum(mel, mel.max() - np.float32(params.top_db), out=mel)


# Slaney's scale: linear below 1 kHz, 27 mels a factor of 6.4 above
_LINEAR_HZ, _KNEE_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    knee = _KNEE_HZ / _LINEAR_HZ
    return hz / _LINEAR_HZ if hz < _KNEE_HZ else knee + float(np.log(hz / _KNEE_HZ)) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = _KNEE_HZ / _LINEAR_HZ
    return np.where(mel < knee, mel * _LINEAR_HZ, _KNEE_HZ * np.exp(_LOG_STEP * (mel - knee)))


def read_only(array: np.ndarray) -> np.ndarray:
    """The array in float32 and read-only: it is shared by all callers through a cache."""
    array = array.astype(np.float32)
    array.flags.writeable = False
    return array

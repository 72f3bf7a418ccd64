"""What VGGish hears, on NumPy: a waveform at 16 kHz becomes log-mel pictures of 0.96 s, one after the other.

As the published front end (Hershey et al. 2017, the code beside its weights): frames of 25 ms every 10 ms, the first on
sample 0 (no centring, no padding); a periodic Hann window; the magnitude of a 512-point FFT, not its square; 64
triangles on the HTK mel scale from 125 to 7500 Hz, drawn in mel and not normalised, without the constant bin; the
natural logarithm of that + 0.01. An example is 96 frames, examples do not overlap, and frames behind the last whole one
are dropped: 10 s give ten. Ours alone: a waveform too short for one example is filled up with zeros to one.
`vggish_torch.VggishExamples` is the twin.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from earshot.sound.logmel import read_only

SAMPLE_RATE = 16000  # Hz
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
N_MELS, FMIN, FMAX = 64, 125.0, 7500.0  # bands, Hz
OFFSET = 0.01  # added before the logarithm
FRAMES = 96  # of an example
LEAST_SAMPLES = WINDOW + (FRAMES - 1) * HOP  # of one example: 0.975 s
BLOCK = 1024  # frames transformed at a time: bounds memory


def n_examples(n_samples: int) -> int:
    """Samples at 16 kHz -> examples, at least one."""
    frames = 1 + (max(n_samples, LEAST_SAMPLES) - WINDOW) // HOP
    return frames // FRAMES


def examples(waveform: np.ndarray) -> np.ndarray:
    """Cut a waveform into VGGish's log-mel examples of 0.96 s.

    (..., S) waveform at 16 kHz -> (..., N, 96, 64) float32; an empty waveform is an error.
    """
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim == 0 or waveform.shape[-1] == 0:
        raise ValueError(f"VGGish needs (..., samples) with samples in it, got a waveform of shape {waveform.shape}")
    count = n_examples(waveform.shape[-1])
    clips = waveform.reshape(-1, waveform.shape[-1])
    out = np.stack([log_mel(clip)[: count * FRAMES] for clip in clips])
    return out.reshape(*waveform.shape[:-1], count, FRAMES, N_MELS)


def log_mel(clip: np.ndarray) -> np.ndarray:
    """Compute VGGish's log-mel spectrogram of a waveform.

    (S,) float32 -> (T, 64), T at least 96: the picture before it is cut into examples.
    """
    clip = np.pad(clip, (0, max(0, LEAST_SAMPLES - len(clip))))
    frames = np.lib.stride_tricks.sliding_window_view(clip, WINDOW)[::HOP]
    mel = np.empty((len(frames), N_MELS), np.float32)
    for begin in range(0, len(frames), BLOCK):
        spectrum = scipy.fft.rfft(frames[begin : begin + BLOCK] * hann_window(), N_FFT)
        np.matmul(np.abs(spectrum), mel_bank(), out=mel[begin : begin + BLOCK])
    return np.log(mel + np.float32(OFFSET))


@lru_cache(maxsize=1)
def hann_window() -> np.ndarray:
    """Give the window of VGGish's spectrogram.

    (400,) float32, periodic.
    """
    return read_only(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW))


@lru_cache(maxsize=1)
def mel_bank() -> np.ndarray:
    """How much each FFT bin gives to each band of VGGish, (257, 64) float32: triangles of height 1 over the mel
    axis."""
    bins = _hz_to_mel(np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT)[:, None]
    edges = np.linspace(_hz_to_mel(FMIN), _hz_to_mel(FMAX), N_MELS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    bank[0] = 0
    return read_only(bank)


def _hz_to_mel(hz):
    """HTK's scale."""
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

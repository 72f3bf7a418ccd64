"""Log-mels by the library torchlibrosa, whose convolutions the PANNs were trained with: `engine: torchlibrosa`.

Its Spectrogram and LogmelFilterBank do the work. Edges are padded here, so that a waveform shorter than the padding is
heard too (the library refuses it), and `top_db` counts from each waveform's own maximum (the library takes the
batch's): with both, its values are those of the NumPy path within 2e-3 dB (tests/test_torchlibrosa.py).
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import torch

from earshot.inputs.torch_logmel import LogMel, padded
from earshot.messages import install_line
from earshot.sound.logmel import LogmelParams


class TorchlibrosaLogMel(LogMel):
    """Compute log-mel spectrograms of a batch by torchlibrosa.

    (B, S) or (B, C, S) -> (B, C or 1, T, F) float32 decibels; its kernels are fixed and no part of the state dict.
    """

    def __init__(self, params: LogmelParams):
        super().__init__(params)
        try:
            from torchlibrosa.stft import LogmelFilterBank, Spectrogram
        except ImportError as error:
            raise ValueError(
                f"engine torchlibrosa needs that library ({error}): {install_line('reference')}, or leave engine out"
            ) from error
        p = params
        self.spectrogram = Spectrogram(p.n_fft, p.hop_length, p.win_length or p.n_fft, p.window, center=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of empty bands, which our own path names
            self.filters = LogmelFilterBank(
                sr=p.sample_rate, n_fft=p.n_fft, n_mels=p.n_mels, fmin=p.fmin, fmax=p.fmax, ref=p.ref, amin=p.amin,
                top_db=None,
            )  # fmt: skip

    def state_dict(self, *args, **kwargs) -> dict:
        """Nothing: a front end has no weights."""
        return {}

    def mel(self, waveform: torch.Tensor) -> torch.Tensor:
        return (self.spectrogram(padded(waveform, self.params)) @ self.filters.melW)[:, 0]

    def compress(self, mel: torch.Tensor) -> torch.Tensor:
        decibels = self.filters.power_to_db(mel)
        if self.params.top_db is None:
            return decibels
        return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - self.params.top_db)


def log_mel_by_torchlibrosa(waveform: np.ndarray, params: LogmelParams) -> np.ndarray:
    """Compute the log-mel spectrogram of waveforms by torchlibrosa, on the CPU.

    (C, S) -> (C, T, F) float32 decibels.
    """
    with torch.inference_mode():
        return _module(params)(torch.from_numpy(np.ascontiguousarray(waveform, np.float32)))[:, 0].numpy()


@lru_cache(maxsize=8)
def _module(params: LogmelParams) -> TorchlibrosaLogMel:
    return TorchlibrosaLogMel(params)

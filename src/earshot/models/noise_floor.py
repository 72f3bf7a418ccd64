"""Bands heard above their own noise floor, so that microphones, rooms and steady noise say less about a recording.

The floor of a band is a low quantile of its decibels over the frames of the window. Steady noise and the response of a
microphone add the same to every frame of a band, so both are gone from what is left. Frames of digital silence, whose
bands are all alike, are no part of it: windows are padded with them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_floor(floor: float) -> float:
    """The quantile as a number; one that is not in 0 ... 1 is an error."""
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is a quantile of 0 ... 1 (0.1: what a tenth of the frames lies below), got {floor}")
    return float(floor)


def above_floor(logmel: Tensor, floor: float) -> Tensor:
    """Say how far each band lies above its own floor in the window.

    (B, C, T, F) decibels -> (B, C, T, F) decibels above each band's quantile `floor` over the frames that are heard,
    the lower neighbour where it lies between two; a window of silence alone stays as it is, silent frames become 0.
    """
    heard = logmel.amax(dim=3, keepdim=True) > logmel.amin(dim=3, keepdim=True)  # (B, C, T, 1)
    count = heard.sum(dim=2, keepdim=True)
    ordered = logmel.masked_fill(~heard, torch.inf).sort(dim=2).values
    place = (floor * (count - 1).clamp(min=0)).long().expand(-1, -1, -1, logmel.shape[3])
    level = ordered.gather(2, place)
    return torch.where(heard, logmel - level, torch.where(count > 0, torch.zeros_like(logmel), logmel))

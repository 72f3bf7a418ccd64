"""Which recordings hold the same sound, whatever was done to it: level, format, rate, a cut, a part of a longer one.

Spectral peaks are paired with later ones near them; a pair's two frequencies and its time apart are a number that
neither level nor place changes (A. Wang, "An industrial-strength audio search algorithm", ISMIR 2003). Two recordings
with many numbers in common, all at one delay, hold the same sound. Silence and steady noise have no fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter, uniform_filter

from earshot.audits.same_waveform import likeness
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, power_spectrogram

RATE = 8000  # Hz at which fingerprints hear: any format and rate keeps what is below 3.5 kHz
PARAMS = LogmelParams(sample_rate=RATE, n_fft=512, hop_length=128, n_mels=64, fmin=50, fmax=RATE // 2)
LOWEST, HIGHEST = 8, 224  # bins, 125 to 3,500 Hz
NEIGHBOURHOOD = (11, 15)  # frames, bins: a peak is the largest value in so many around it
PEAKS_A_SECOND = 25
PARTNERS = 10  # later peaks that each is paired with
REACH = 96  # frames, 1.5 s
PROMINENCES_DB = (8, 12)  # above the mean around: many peaks, and those that noise does not hide; both are paired
BINS_TOGETHER, FRAMES_TOGETHER = 2, 2  # a format or another rate moves a peak by one
RANGE_DB = 60  # peaks so far below the recording's loudest are noise of the format
COMMON, REPEATS = 30, 4  # a number that so many recordings have says nothing: hum, beeps of a device
FEWEST = 16  # numbers at one delay that a copy has in common with its original
SHARE = 0.03  # and so much of what the one with fewer numbers has
SURE = 0.5  # with so much in common nothing else is looked at
MOST_HEARD = 1000  # pairs with less whose waveforms are held together, the least sure ones first


@dataclass(frozen=True)
class Fingerprint:
    """numbers (P,) int64 and the frame (P,) at which each begins; `path` of the recording, where it is a file."""

    numbers: np.ndarray
    frames: np.ndarray
    path: Path | None = None


def fingerprint(waveform: np.ndarray) -> Fingerprint:
    """Find the fingerprint of a waveform, (S,) at RATE; it is empty where there are no peaks."""
    if len(waveform) < PARAMS.n_fft or not np.abs(waveform).max() > 0:
        return Fingerprint(np.zeros(0, np.int64), np.zeros(0, np.int64))
    power = power_spectrogram(waveform.astype(np.float32), PARAMS)[:, LOWEST:HIGHEST]
    level = 10 * np.log10(power + 1e-12)
    highest = (maximum_filter(level, NEIGHBOURHOOD) == level) & (level > level.max() - RANGE_DB)
    above = level - uniform_filter(level, NEIGHBOURHOOD)
    most, found = max(8, round(PEAKS_A_SECOND * len(waveform) / RATE)), []
    for kind, prominence in enumerate(PROMINENCES_DB):
        frame, bin_ = np.nonzero(highest & (above > prominence))
        if len(frame) > most:
            kept = np.sort(np.argsort(-level[frame, bin_], kind="stable")[:most])
            frame, bin_ = frame[kept], bin_[kept]
        found += [_pairs(frame, bin_, later, kind) for later in range(1, PARTNERS + 1)]
    return Fingerprint(*(np.concatenate(part).astype(np.int64) for part in zip(*found, strict=True)))


def _pairs(frame: np.ndarray, bin_: np.ndarray, later: int, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """Each peak with the `later`-th one after it -> (numbers, frames)."""
    apart = frame[later:] - frame[:-later]
    near = (apart > 0) & (apart <= REACH)
    first, second = (b[near] // BINS_TOGETHER for b in (bin_[:-later], bin_[later:]))
    return ((kind * 256 + first) * 256 + second) * 128 + apart[near] // FRAMES_TOGETHER, frame[:-later][near]


def fingerprints(paths: Iterable[Path], workers: int = 2, progress: Callable = iter) -> list[Fingerprint | None]:
    """One a recording, None where it cannot be read."""

    def of(path: Path) -> Fingerprint | None:
        try:
            return replace(fingerprint(audio.load(path, RATE)), path=path)
        except (audio.UnreadableAudio, OSError):
            return None

    with ThreadPoolExecutor(workers) as pool:
        return list(progress(pool.map(of, paths)))


def same_sound(found: list[Fingerprint | None]) -> pd.DataFrame:
    """Pairs of recordings that hold the same sound: a, b (numbers of recordings, a < b), matches, delay, likeness.

    delay: seconds that the sound begins later in b than in a. likeness: of their waveforms there, 0 to 1, in the pairs
    that peaks alone leave open (see same_waveform.py); NaN where they are sure, are no files, or are more than
    MOST_HEARD. Work grows with the pairs that have any number in common.
    """
    sizes = np.array([0 if f is None else len(f.numbers) for f in found])
    owner = np.repeat(np.arange(len(found)), sizes)
    empty = pd.DataFrame({"a": [], "b": [], "matches": [], "delay": [], "likeness": []})
    empty = empty.astype({"a": int, "b": int, "matches": int})
    if not len(owner):
        return empty
    numbers = np.concatenate([f.numbers for f in found if f is not None])
    frames = np.concatenate([f.frames for f in found if f is not None])
    order = np.lexsort((owner, numbers))
    numbers, owner, frames = numbers[order], owner[order], frames[order]
    votes = _votes(numbers, owner, frames)
    if not len(votes):
        return empty
    pairs, counts = np.unique(votes, axis=0, return_counts=True)
    table = pd.DataFrame(pairs, columns=["a", "b", "frames"]).assign(matches=counts)
    table = _neighbours_together(table)
    table = table.sort_values("matches", ascending=False, kind="stable").drop_duplicates(["a", "b"])
    smaller = np.minimum(sizes[table.a.to_numpy()], sizes[table.b.to_numpy()])
    table = table.assign(delay=table.frames * PARAMS.hop_length / RATE, share=table.matches / smaller)
    table = table[(table.matches >= FEWEST) & (table.share >= SHARE)]
    table = table.sort_values("share", kind="stable", ignore_index=True)
    table["likeness"] = [
        _likeness(found[pair.a], found[pair.b], pair.delay) if i < MOST_HEARD and pair.share < SURE else np.nan
        for i, pair in enumerate(table.itertuples())
    ]
    table["likeness"] = table.likeness.astype(float)
    return table.drop(columns=["frames", "share"]).sort_values(["a", "b"], ignore_index=True)


def _likeness(first: Fingerprint, second: Fingerprint, delay: float) -> float:
    """Of the waveforms; NaN where one of them is no file, or cannot be read any more."""
    if first.path is None or second.path is None:
        return np.nan
    try:
        return likeness(first.path, second.path, delay, RATE)
    except (audio.UnreadableAudio, OSError):
        return np.nan


def _votes(numbers: np.ndarray, owner: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Sorted numbers with their recordings and frames -> (V, 3) recording, later one, frames between, once a number.

    A number that repeats counts once for each delay: beeps are no proof. One that many recordings have is left out.
    """
    _, group, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    first = np.r_[True, (group[1:] != group[:-1]) | (owner[1:] != owner[:-1])]
    owners = np.bincount(group, first, minlength=len(sizes))
    kept = (owners[group] > 1) & (owners[group] <= COMMON) & (sizes[group] <= REPEATS * COMMON)
    group, owner, frames = group[kept], owner[kept], frames[kept]
    found = [np.zeros((0, 4), np.int64)]
    for apart in range(1, int(sizes[group].max(initial=0))):
        same = (group[apart:] == group[:-apart]) & (owner[apart:] != owner[:-apart])
        if same.any():
            a, b = owner[:-apart][same], owner[apart:][same]
            found.append(np.stack([a, b, frames[apart:][same] - frames[:-apart][same], group[apart:][same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)[:, :3]


def _neighbours_together(table: pd.DataFrame) -> pd.DataFrame:
    """Votes of one delay and the next one added: a copy at another rate begins between two frames."""
    following = table.assign(frames=table.frames - 1)[["a", "b", "frames", "matches"]]
    both = table.merge(following, on=["a", "b", "frames"], how="left", suffixes=("", "_next"))
    return both.assign(matches=(both.matches + both.matches_next.fillna(0)).astype(int)).drop(columns="matches_next")

"""Speech in the recordings of a data set: prepare.py lists it in voice.csv, training keeps away from it.

voice.csv: `clip_id, onset, offset` (s), `probability`, one row a stretch; it may be edited (a call taken for speech) or
come from elsewhere. voice.json says by what file it was heard and in which clips. voice_heard.jsonl keeps what each
recording gave, with its size and time, so that hearing goes on where it stopped and hears again what has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import files
from earshot.data.labels import label_lists
from earshot.messages import few, plural, progress_bar
from earshot.prediction.voice import VoiceDetector
from earshot.sound import audio
from earshot.sound.rows import file_of
from earshot.stored import parse_json, read_json
from earshot.tables import read_table

TABLE, ABOUT, HEARD = "voice.csv", "voice.json", "voice_heard.jsonl"
COLUMNS = ["clip_id", "onset", "offset", "probability"]
GRID_SECONDS = 0.01  # of the starts that a crop is drawn from again
FADE_SECONDS = 0.01  # of what is silenced, at both ends
LONGEST = 1e7  # seconds that an offset may be
MOSTLY = 0.5  # share of a class's clips that hold speech from which it is asked whether speech is the class


def hear_voice(
    clips: pd.DataFrame, source: Path, out: Path, detector: VoiceDetector, *, threshold: float, workers: int = 1
) -> pd.DataFrame:
    """Hear recordings (clip_id, path below source) for speech -> rows of voice.csv; what cannot be read has none.

    What was heard before, by the same file and threshold, is taken from `out`; the rest is added there one by one.
    """
    made_by = {"model": detector.digest, "threshold": threshold}
    known = _heard_before(out / HEARD, made_by)
    identity = {path: _identity(source / file_of(path)) for path in clips.path}
    waiting = [p for p, now in identity.items() if now and known.get(p, {}).get("file") != now]
    out.mkdir(parents=True, exist_ok=True)
    if known:
        _cut_half_a_line(out / HEARD)
    with open(out / HEARD, "a" if known else "w", encoding="utf-8") as kept:
        if not known:
            kept.write(json.dumps(made_by) + "\n")

        def hear(path: str) -> dict:
            try:
                found = detector.stretches(source / path, threshold).to_numpy().tolist()
            except audio.UnreadableAudio:
                found = []
            return {"path": path, "file": identity[path], "speech": found}

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            for one in progress_bar(pool.map(hear, waiting), "voice", len(waiting), "file"):
                kept.write(json.dumps(one, allow_nan=False) + "\n")
                kept.flush()
                known[one["path"]] = one
    heard = [(c, *s) for c, p in zip(clips.clip_id, clips.path) for s in known.get(p, {}).get("speech", ())]
    return pd.DataFrame(heard, columns=COLUMNS)


def _heard_before(path: Path, made_by: dict) -> dict[str, dict]:
    """What each recording gave, by its path, as far as whole lines say; {} where another file or threshold heard it."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", errors="replace") as kept:
        lines = [line for line in kept if line.endswith("\n")]  # the last one of a killed process may be cut
    try:
        found = [parse_json(line, str(path)) for line in lines]
        return {one["path"]: one for one in found[1:]} if found and found[0] == made_by else {}
    except (ValueError, KeyError):
        return {}


def _cut_half_a_line(path: Path):
    """Take away what a killed process left behind the last whole line: the next line would be glued to it."""
    with open(path, "rb+") as kept:
        whole = kept.read().rfind(b"\n") + 1
        kept.truncate(whole)


def check_still_heard(out: Path, clips: pd.DataFrame, source: Path) -> list[str]:
    """After preparing without --voice: say of a voice.csv that is there which recordings changed since it was heard.

    voice.json names them from then on, and training refuses the table (`read_voice`); [] where nothing changed.
    """
    about, heard = out / ABOUT, out / HEARD
    if not (about.is_file() and heard.is_file()):
        return []
    told = read_json(about)
    known = _heard_before(heard, {"model": told.get("digest"), "threshold": told.get("threshold")})
    changed = [
        path for path in clips.path
        if path in known and (now := _identity(source / file_of(path))) and known[path].get("file") != now
    ]  # fmt: skip
    if not changed:
        return []
    files.write_text(about, files.as_json(told | {"changed": changed[:100]}, indent=1) + "\n")
    return [f"voice ({TABLE}) is of recordings that have changed since: {few(changed)}; prepare with --voice again"]


def _identity(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def write_voice(out: Path, table: pd.DataFrame, clip_ids: Iterable[str], detector: VoiceDetector, threshold: float):
    """Write voice.csv, and voice.json, which says of which training clips it is."""
    files.write_rows(out / TABLE, table.to_dict("records"), COLUMNS)
    about = {"model": detector.name, "digest": detector.digest, "threshold": threshold, "clips": _digest(clip_ids)}
    files.write_text(out / ABOUT, files.as_json(about, indent=1) + "\n")


def _digest(clip_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(map(str, clip_ids))).encode()).hexdigest()[:16]


def read_voice(root: Path, clip_ids: Iterable[str]) -> pd.DataFrame:
    """voice.csv of a prepared folder; errors: it is not there, cannot be, or is of other clips."""
    path, again = root / TABLE, "prepare the data again with --voice"
    if not path.is_file():
        raise ValueError(f"data.voice needs {path}, where prepare.py lists speech: {again}, or set data.voice=keep")
    table = read_table(path, COLUMNS[:3])
    onset, offset = (pd.to_numeric(table[c], errors="coerce").to_numpy(float) for c in ("onset", "offset"))
    if len(wrong := np.flatnonzero(~((onset >= 0) & (offset > onset) & np.isfinite(offset)))):
        raise ValueError(f"{path}, row {wrong[0] + 1}: onset and offset are seconds, the offset behind the onset")
    if len(wrong := np.flatnonzero(offset > LONGEST)):
        raise ValueError(
            f"{path}, row {wrong[0] + 1}: an offset of {offset[wrong[0]]:g} s is behind any recording's end"
        )
    told = read_json(root / ABOUT) if (root / ABOUT).is_file() else {}
    if told and told.get("clips") != _digest(clip_ids):
        raise ValueError(f"{path} is of other clips than {root / 'clips.csv'} lists now: {again}")
    if changed := told.get("changed"):
        raise ValueError(f"{path} was heard before recordings changed ({few(changed)}): {again}")
    return table.assign(onset=onset, offset=offset)


def summary(table: pd.DataFrame, clips: pd.DataFrame) -> list[str]:
    """What a person wants to know of speech in clips, as lines; classes that speech may be itself are asked about."""
    of = table[table.clip_id.isin(clips.clip_id)]
    ids = set(of.clip_id)
    minutes = (of.offset - of.onset).sum() / 60
    lines = [f"voice ({TABLE}): {len(ids)} of {len(clips)} recordings hold speech, {minutes:.1f} min"]
    if "labels" in clips and ids:
        held: dict[str, list[bool]] = {}
        for clip_id, names in zip(clips.clip_id, label_lists(clips)):
            for name in names:
                held.setdefault(name, []).append(clip_id in ids)
        often = sorted(held, key=lambda name: (-np.mean(held[name]), name))
        often = [name for name in often if any(held[name])]
        lines.append("  by class: " + few(f"{n} {sum(held[n])} of {len(held[n])}" for n in often))
        if mostly := [n for n in often if np.mean(held[n]) > MOSTLY]:
            lines.append(f"  more than half of {few(mostly)}: data.voice would take the sound of such classes away")
    return lines


class Voice:
    """Keep the crops of training clips away from speech."""

    def __init__(self, table: pd.DataFrame, how: str, share: float):
        """table: clip_id, onset, offset (s); how: avoid or silence; share: of a crop that may be speech."""
        self.how, self.share = how, share
        self.of_clip = {
            clip_id: _joined(rows[["onset", "offset"]].to_numpy(float)) for clip_id, rows in table.groupby("clip_id")
        }

    def start(self, clip_id: str, start: int, *, n_samples: int, crop: int, rate: int, rng) -> int:
        """First sample of a crop that was drawn at `start`, drawn again where more than the share of it is speech.

        The stream is asked only then. Where no crop has so little, one of those with the least.
        """
        spoken = self.of_clip.get(clip_id)
        if spoken is None or n_samples <= crop or _seconds(spoken, start / rate, crop / rate) <= self._most(crop, rate):
            return start
        step = max(1, round(GRID_SECONDS * rate))
        starts = np.append(np.arange(0, n_samples - crop, step), n_samples - crop)
        within = _seconds(spoken, starts / rate, crop / rate)
        allowed = starts[within <= max(self._most(crop, rate), within.min() + 1e-9)]
        return int(allowed[rng.integers(len(allowed))])

    def _most(self, crop: int, rate: int) -> float:
        return self.share * crop / rate + 1e-9

    def silenced(self, waveform: np.ndarray, clip_id: str, from_second: float, rate: int) -> np.ndarray:
        """A crop, (S,) or (C, S), that begins at a second of its clip: with how=silence its speech is zero."""
        spoken = self.of_clip.get(clip_id)
        if self.how != "silence" or spoken is None:
            return waveform
        gain = np.ones(waveform.shape[-1], np.float32)
        for onset, offset in spoken:
            first = max(0, int((onset - FADE_SECONDS - from_second) * rate))
            last = min(len(gain), int((offset + FADE_SECONDS - from_second) * rate) + 1)
            if first < last:
                t = from_second + np.arange(first, last) / rate
                away = np.maximum(np.maximum(onset - t, t - offset), 0.0) / FADE_SECONDS
                gain[first:last] = np.minimum(gain[first:last], np.minimum(away, 1.0))
        return waveform * gain

    def told(self, clips: pd.DataFrame, crop_seconds: float, moves: bool) -> str:
        """What becomes of speech in these clips (clip_id, duration in s), for people. moves: crops are random."""
        spoken = [self.of_clip[c] for c in clips.clip_id if c in self.of_clip]
        minutes = sum(float((s[:, 1] - s[:, 0]).sum()) for s in spoken) / 60
        text = f"{len(spoken)} of {len(clips)} training clips hold speech, {minutes:.1f} min"
        if not moves:
            return f"{text}: it is silenced"
        lengths = clips.duration if "duration" in clips else pd.Series(np.nan, clips.index)
        lengths = lengths[clips.clip_id.isin(set(self.of_clip))].fillna(crop_seconds)
        most = self.share * crop_seconds + 1e-9
        stuck = sum(_least(s, crop_seconds, n) > most for s, n in zip(spoken, lengths, strict=True))
        left = "it is silenced there" if self.how == "silence" else "they are heard where there is least"
        return f"{text}: crops keep away from it" + f"; {plural(stuck, 'clips have')} no crop free of it: {left}" * (
            stuck > 0
        )


def _joined(stretches: np.ndarray) -> np.ndarray:
    """(N, 2) stretches in any order -> the same seconds, sorted, none touching another."""
    joined: list[list[float]] = []
    for onset, offset in stretches[np.argsort(stretches[:, 0], kind="stable")].tolist():
        if joined and onset <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], offset)
        else:
            joined.append([onset, offset])
    return np.array(joined).reshape(-1, 2)


def _seconds(spoken: np.ndarray, start, length: float):
    """Seconds of speech within `length` seconds from each start."""
    before = np.concatenate([[0.0], np.cumsum(spoken[:, 1] - spoken[:, 0])])
    places, totals = spoken.ravel(), np.repeat(before, 2)[1:-1]
    return np.interp(np.add(start, length), places, totals) - np.interp(start, places, totals)


def _least(spoken: np.ndarray, crop_seconds: float, seconds: float) -> float:
    """The least speech that a crop of a clip can hold, in seconds."""
    starts = np.append(np.arange(0.0, max(seconds - crop_seconds, 0.0), GRID_SECONDS), max(seconds - crop_seconds, 0.0))
    return float(np.min(_seconds(spoken, starts, crop_seconds)))

"""A clip table with leaks planted in it, one of each kind, for the audit's tests and its benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

RATE = 16000
KINDS = {  # what is planted -> the kind that the audit must name
    "copied": "one sound in two folds",
    "quieter": "one sound in two folds",
    "as ogg": "one sound in two folds",
    "cut at the front": "one sound in two folds",
    "another rate": "one sound in two folds",
    "part of a longer one": "one sound in two folds",
    "in noise": "one sound in two folds",
    "two labels": "one sound under two labels",
    "one recordist": "one source in two folds",
    "one recording": "one recording in two folds",
    "test in training": "a sound of the test in training",
    "told by its own teacher": "labels made by a teacher that trained on the clip",
}


def song(rng: np.random.Generator, seconds: float = 3.0) -> np.ndarray:
    """A made bird: notes of gliding frequency, one after the other, over faint noise."""
    n = round(seconds * RATE)
    sound, start = 0.003 * rng.normal(size=n), 0
    while start < n:
        length = min(round(rng.uniform(0.08, 0.3) * RATE), n - start)
        t = np.arange(length) / RATE
        low, high = rng.uniform(500, 3000, 2)
        phase = 2 * np.pi * (low * t + (high - low) * t**2 / 2 / max(t[-1], 1e-3))
        sound[start : start + length] += 0.3 * np.hanning(length) * np.sin(phase)
        start += length + round(rng.uniform(0.02, 0.15) * RATE)
    return sound


def plant(folder: Path, n_clean: int = 24, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict]:
    """Write recordings -> (clips, folds, test clips, {what is planted: clip ids it must name})."""
    rng = np.random.default_rng(seed)
    rows, test, expected = [], [], {}

    def add(name: str, sound: np.ndarray, fold: int, rate: int = RATE, ending: str = "wav", **columns) -> str:
        path = folder / f"{name}.{ending}"
        soundfile.write(path, sound, rate, **({"format": "OGG", "subtype": "VORBIS"} if ending == "ogg" else {}))
        rows.append({"clip_id": name, "path": path.name, "labels": f"bird{fold % 2}", "fold": fold} | columns)
        return name

    for i in range(n_clean):
        add(f"clean{i}", song(rng), i % 4, author=f"person {i}", recording=f"r{i}")
    changed = {
        "copied": lambda x: (x, RATE, "wav"),
        "quieter": lambda x: (0.05 * x, RATE, "wav"),
        "as ogg": lambda x: (x, RATE, "ogg"),
        "cut at the front": lambda x: (x[RATE // 2 + 37 :], RATE, "wav"),
        "another rate": lambda x: (np.interp(np.arange(0, len(x), RATE / 22050), np.arange(len(x)), x), 22050, "wav"),
        "part of a longer one": lambda x: (np.concatenate([song(rng, 2.0), x, song(rng, 2.0)]), RATE, "wav"),
        "in noise": lambda x: (x + 0.02 * rng.normal(size=len(x)), RATE, "wav"),
        "two labels": lambda x: (x, RATE, "wav"),
    }
    for i, (what, change) in enumerate(changed.items()):
        original, key = song(rng), what.replace(" ", "_")
        other, rate, ending = change(original)
        apart = 0 if what == "two labels" else 1
        first = add(f"{key}_a", original, i % 4)
        second = add(f"{key}_b", other, (i + apart) % 4, rate, ending)
        rows[-1]["labels"] = "bird_x" if what == "two labels" else rows[-2]["labels"]
        expected[what] = {first, second}
    expected["one recordist"] = {
        add("ann_first", song(rng), 0, author="Ann  Lee"), add("ann_second", song(rng), 1, author="ann lee "),
    }  # fmt: skip
    expected["one recording"] = {
        add("x_first", song(rng), 2, recording="XC77"), add("x_second", song(rng), 3, recording="xc77"),
    }  # fmt: skip
    shared = song(rng)
    soundfile.write(folder / "t0.wav", 0.4 * shared[1000:], RATE)
    soundfile.write(folder / "t1.wav", song(rng), RATE)
    test = pd.DataFrame({"clip_id": ["t0", "t1"], "path": ["t0.wav", "t1.wav"]})
    expected["test in training"] = {add("seen", shared, 0), "t0"}
    clips = pd.DataFrame(rows)
    for column in ("author", "recording"):
        clips[column] = clips[column].fillna("")
    folds = clips[["clip_id", "fold"]].assign(group=clips.clip_id)
    return clips.drop(columns="fold"), folds, test, expected

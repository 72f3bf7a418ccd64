"""The embedded competition: invented birds in the layout of the Cornell Birdcall challenge, generated from a seed.

Training clips are weakly labelled (a species somewhere in 5 to 8 s, at times a second one, not always listed); the test
is soundscapes of three sites with other backgrounds, whose true events are kept for scoring. Every clip draws from its
own stream, keyed by (seed, kind, index): it depends neither on how many others are made nor on their order. Clips are
FLAC: libsndfile stamps a random serial number into an Ogg stream, and the same seed is to give the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from earshot.files import as_json, whole_folder
from earshot.stored import read_json
from earshot.synth.sounds import RATE, SPECIES, Sound, at_level, background, distractors, mix, sample_voice, sing

VERSION = 1  # raise it when the same seed gives other bytes
ROW_SECONDS = 5.0
BORDER_SECONDS = 0.4  # a test event keeps this far from the border of a row, or crosses it by STRADDLE_SECONDS or more
STRADDLE_SECONDS = 0.5
RECORDISTS = 24
SITES = {
    "site_1": {"pink": 1.0, "stream": 0.12, "wind": 0.6},
    "site_2": {"pink": 1.0, "white": 0.06, "hum": 0.5, "wind": 0.2},
    "site_3": {"brown": 1.0, "rain": 0.1, "stream": 0.08},
}


@dataclass(frozen=True)
class Recording:
    """The plan of a test soundscape: who sings in which stretch."""

    site: str
    audio_id: str
    seconds: float
    stretches: tuple[tuple[float, float, tuple[str, ...]], ...]  # start, end, species codes


def make_birds(
    folder: str | Path,
    seed: int = 0,
    clips_per_species: int = 32,
    recordings: int = 2,
    recording_seconds: float = 90.0,
    short_recordings: int = 8,
):
    """Write the competition to `folder`, which must not exist or be empty: about 2,800 s of audio.

    `recordings` of `recording_seconds` each at site_1 and site_2 (rows of 5 s), `short_recordings` of 20 to 30 s at
    site_3 (one row each). Everything is written beside `folder` first and renamed at the end.
    """
    options = {"seed": seed, "clips_per_species": clips_per_species, "recordings": recordings,
               "recording_seconds": recording_seconds, "short_recordings": short_recordings}  # fmt: skip
    with new_folder(folder) as partial:
        _write_train(partial, seed, clips_per_species)
        _write_test(partial, seed, plan_test(seed, recordings, recording_seconds, short_recordings))
        (partial / "synth.json").write_text(as_json({"version": VERSION, **options}, indent=2) + "\n")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into beside `folder`, renamed to it at the end; an error leaves neither.

    `folder` must not exist or be empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; give a new folder for the generated competition")
    with whole_folder(folder) as partial:
        yield partial


def check_made(source: Path, seed: int | None, **wanted):
    """Raise unless `source` was made as `wanted` says, and of this seed where one is asked for."""
    about = source / "synth.json"
    made = read_json(about, "file", "remove it to have the competition made anew") if about.is_file() else {}
    wanted["seed"] = made.get("seed") if seed is None else seed
    if any(made.get(key) != value for key, value in wanted.items()):
        raise ValueError(
            f"{source} was not made with {wanted} (its synth.json: {made or 'missing'}); remove the folder, or choose "
            "another, to have the competition made anew"
        )


def stream(seed: int, kind: str, index: int = 0) -> np.random.Generator:
    """The random stream of one clip."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), index])


# --- training clips --------------------------------------------------------------------------------------------------
def recordist_layers(seed: int, recordist: int) -> dict[str, float]:
    """The background where this recordist stands: pink noise and two more layers."""
    rng = stream(seed, "recordist", recordist)
    extra = {"white": 0.15, "brown": 1.0, "stream": 0.3, "wind": 1.0, "rain": 0.2, "hum": 0.8}
    names = rng.choice(list(extra), size=2, replace=False)
    return {"pink": 1.0, **{str(name): extra[name] * rng.uniform(0.2, 1) for name in names}}


def train_clip(seed: int, index: int, code: str) -> tuple[np.ndarray, dict]:
    """Training clip number `index`: (S,) waveform, and its row of train.csv."""
    rng = stream(seed, "train", index)
    recordist, seconds = int(rng.integers(RECORDISTS)), round(float(rng.uniform(5, 8)), 2)
    scene = background(rng, round(seconds * RATE), recordist_layers(seed, recordist))
    voice, distance, snr_db = sample_voice(rng), rng.uniform(0, 0.7), float(np.clip(rng.normal(11, 5), 3, 22))
    count = 1 + int(rng.random() < 0.6) + int(seconds > 6.5)
    sounds = distractors(rng, seconds, per_minute=4)
    for i in range(count):  # one phrase in each of `count` equal parts, so that most crops hold one
        wave, length = sing(code, voice, rng, distance)
        free = seconds / count - length
        onset = i * seconds / count + max(free, 0) * rng.random()
        sounds.append(Sound(code, min(onset, seconds - length), wave, length, snr_db + rng.normal(0, 1)))
    second, listed = "", False
    if rng.random() < 0.25:
        second, listed = str(rng.choice([c for c in SPECIES if c != code])), rng.random() < 0.8
        wave, length = sing(second, sample_voice(rng), rng, rng.uniform(0.4, 1))
        onset = rng.uniform(0, seconds - length)
        sounds.append(Sound(second, onset, wave, length, float(np.clip(rng.normal(9, 4), 3, 18))))
    wave, _ = mix(scene, sounds)
    row = _train_row(index, code, second if listed else "", seconds, recordist, rng)
    return at_level(wave, rng.uniform(-48, -28)), row


def _train_row(index: int, code: str, listed: str, seconds: float, recordist: int, rng: np.random.Generator) -> dict:
    """One row of train.csv, with the original's column names and its way to write labels."""
    label = {c: f"{s.sci_name}_{s.name}" for c, s in SPECIES.items()}
    xc_id = 100000 + 7 * index
    return {
        "rating": round(float(rng.integers(4, 11)) / 2, 1),
        "ebird_code": code,
        "channels": "1 (mono)",
        "duration": seconds,
        "filename": f"XC{xc_id}.flac",
        "species": SPECIES[code].name,
        "secondary_labels": str([label[listed]] if listed else []),
        "sci_name": SPECIES[code].sci_name,
        "primary_label": label[code],
        "sampling_rate": f"{RATE} (Hz)",
        "xc_id": xc_id,
        "recordist": f"Recordist {recordist + 1}",
    }


def _write_train(folder: Path, seed: int, clips_per_species: int):
    rows = []
    for index in range(clips_per_species * len(SPECIES)):
        code = list(SPECIES)[index // clips_per_species]
        wave, row = train_clip(seed, index, code)
        write_sound(folder / "train_audio" / code / row["filename"], wave)
        rows.append(row)
    write_csv(rows, folder / "train.csv")


# --- test soundscapes ------------------------------------------------------------------------------------------------
def plan_test(seed: int, recordings: int, recording_seconds: float, short_recordings: int) -> list[Recording]:
    """Who sings when: a third of the 5-s rows of site_1 and site_2 stay quiet, and every eighth recording of site_3.

    Species are dealt from a shuffled deck, so that each sings about equally often.
    """
    rng = stream(seed, "plan")
    cards = deck(rng)
    plans = []
    for site in [site for site in ("site_1", "site_2") for _ in range(recordings)]:
        n_rows = int(recording_seconds // ROW_SECONDS)
        loud = np.sort(rng.permutation(n_rows)[round(n_rows / 3) :])
        stretches = [
            (r * ROW_SECONDS, (r + 1) * ROW_SECONDS, deal(cards, 1 + int(rng.random() < 0.3))) for r in loud.tolist()
        ]
        plans.append(Recording(site, rng.bytes(6).hex(), recording_seconds, tuple(stretches)))
    for i in range(short_recordings):
        seconds = round(float(rng.uniform(20, 30)), 1)
        codes = deal(cards, (2, 3, 1, 0, 4, 2, 1, 3)[i % 8])
        plans.append(Recording("site_3", rng.bytes(6).hex(), seconds, ((0.0, seconds, codes),) if codes else ()))
    return plans


def deck(rng: np.random.Generator):
    """Species codes without end, every one once before any comes again."""
    while True:
        yield from rng.permutation(list(SPECIES)).tolist()


def deal(cards, count: int) -> tuple[str, ...]:
    """The next `count` distinct species of a deck, sorted."""
    codes = set()
    while len(codes) < count:
        codes.add(next(cards))
    return tuple(sorted(codes))


def soundscape(seed: int, index: int, plan: Recording) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Test recording number `index`: (S,) waveform and its true events (onset, offset, event_label)."""
    rng = stream(seed, "test", index)
    scene = background(rng, round(plan.seconds * RATE), SITES[plan.site])
    sounds = distractors(rng, plan.seconds, per_minute=5)
    starts = {start for start, _, _ in plan.stretches}
    for start, end, codes in plan.stretches:
        for code in codes:
            voice, distance = sample_voice(rng), rng.uniform(0, 0.8)
            snr_db = float(np.clip(rng.normal(9.5, 5), 1, 20))
            for _ in range(1 + int(end - start > ROW_SECONDS)):
                wave, length = sing(code, voice, rng, distance)
                onset = place(rng, length, start, end, may_straddle=end in starts)
                sounds.append(Sound(code, onset, wave, length, snr_db))
    for _ in range(rng.poisson(2 * plan.seconds / 60)):  # too far away for anyone to hear
        wave, length = sing(str(rng.choice(list(SPECIES))), sample_voice(rng), rng, 1.0)
        sounds.append(Sound("", rng.uniform(0, plan.seconds - length), wave, length, rng.uniform(-20, -14)))
    wave, events = mix(scene, sounds)
    return at_level(wave, rng.uniform(-42, -30)), events


def place(rng: np.random.Generator, length: float, start: float, end: float, may_straddle: bool) -> float:
    """Onset of an event of `length` seconds within (start, end), clear of both borders; or, one time in four where
    `may_straddle`, across `end` with at least STRADDLE_SECONDS on either side."""
    if may_straddle and length > 2 * STRADDLE_SECONDS and rng.random() < 0.25:
        return end - rng.uniform(STRADDLE_SECONDS, length - STRADDLE_SECONDS)
    return rng.uniform(start + BORDER_SECONDS, end - BORDER_SECONDS - length)


def truth_rows(events: list[tuple[float, float, str]], plan: Recording) -> list[dict]:
    """Rows (site, row_id, seconds, audio_id, birds) of a recording: the sorted species of its events, or nocall."""
    if plan.site == "site_3":
        spans = [(f"{plan.site}_{plan.audio_id}", None, 0.0, plan.seconds)]
    else:
        ends = [(r + 1) * ROW_SECONDS for r in range(int(plan.seconds // ROW_SECONDS))]
        spans = [(f"{plan.site}_{plan.audio_id}_{end:.0f}", end, end - ROW_SECONDS, end) for end in ends]
    rows = []
    for row_id, seconds, start, end in spans:
        birds = sorted({label for onset, offset, label in events if onset < end and offset > start})
        rows.append({"site": plan.site, "row_id": row_id, "seconds": seconds, "audio_id": plan.audio_id,
                     "birds": " ".join(birds) or "nocall"})  # fmt: skip
    return rows


def _write_test(folder: Path, seed: int, plans: list[Recording]):
    rows, events = [], []
    for index, plan in enumerate(plans):
        wave, heard = soundscape(seed, index, plan)
        write_sound(folder / "test_audio" / f"{plan.audio_id}.flac", wave)
        names = ("onset", "offset", "event_label")
        events += [{"filename": plan.audio_id, **dict(zip(names, event))} for event in heard]
        rows += truth_rows(heard, plan)
    table = pd.DataFrame(rows)
    write_csv(table.drop(columns="birds"), folder / "test.csv")
    write_csv(table[["row_id", "birds"]], folder / "truth.csv")
    write_csv(table[["row_id"]].assign(birds="nocall"), folder / "sample_submission.csv")
    write_csv(pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"]), folder / "test_events.csv")


def write_sound(path: Path, wave: np.ndarray):
    """Write a waveform in 16 bit, as WAV or FLAC by its ending; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, subtype="PCM_16")


def write_csv(rows, path: Path):
    """Write a table, or a list of dicts, with the same bytes on every system."""
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")

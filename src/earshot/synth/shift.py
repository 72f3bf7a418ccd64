"""The hard embedded competition: near, clean recordings to learn from, far and crowded soundscapes to be judged by.

Laid out as BirdCLEF 2026, and hard for the same reasons. Focal recordings come from people who mostly record their
favourites, each at a place and with a microphone of their own, so that random folds flatter; some were uploaded twice.
In soundscapes birds are far, in dialects, several at once, between insects and strangers, behind a recorder's box. Two
species are in no focal recording. Sites of the test are nowhere else, and most of the other soundscapes have no labels.
Every recording draws from its own stream, keyed by (seed, kind, index), as in birds.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.files import as_json
from earshot.synth.birds import ROW_SECONDS, deal, deck, new_folder, place, stream, write_csv, write_sound
from earshot.synth.sounds import (
    RATE,
    SPECIES,
    Note,
    Sound,
    Species,
    Voice,
    at_level,
    background,
    distractors,
    mix,
    propagate,
    render_phrase,
    sample_voice,
)
from earshot.synth.tasks import equalised

VERSION = 1  # raise it when the same seed gives other bytes
RECORDISTS, FAVOURITES = 40, 3
CLIPS_OF_RANK = (44, 38, 32, 28, 24, 20, 18, 15, 12, 9)  # focal recordings of the species, the commonest first
UPLOADED_TWICE = 14
SOUNDSCAPE_SECONDS = 60.0
UNLABELLED_AT = {1: 14, 2: 10, 3: 7, 4: 5, 5: 4, 6: 2}  # site: soundscapes
LABELLED_AT = {5: 3, 6: 3, 7: 3, 8: 3}
TEST_AT = {9: 6, 10: 6, 11: 6, 12: 6, 13: 6}  # sites that are nowhere else
HOURS = (2, 5, 6, 7, 12, 19, 22)
LAYERS = {"white": 0.12, "brown": 1.0, "stream": 0.35, "wind": 1.0, "rain": 0.25, "hum": 0.6}


def _croaks(rng: np.random.Generator) -> list[Note]:
    note = Note(start_hz=1150.0, end_hz=1000.0, seconds=0.11, gap=0.13, beat_hz=38.0, harmonics=(0.7, 1.0, 0.5, 0.25))
    return [note] * int(rng.integers(4, 8))


def _chirrs(rng: np.random.Generator) -> list[Note]:
    note = Note(start_hz=5300.0, end_hz=5250.0, seconds=0.3, gap=0.16, beat_hz=27.0, harmonics=(1.0,))
    return [note] * int(rng.integers(2, 5))


UNRECORDED = {  # in soundscapes only
    "bogfro": Species("Bog Frog", "Palustra sonora", _croaks),
    "ivycri": Species("Ivy Bush-cricket", "Stridulus hederae", _chirrs),
}
ALL = dict(sorted((SPECIES | UNRECORDED).items()))
TAXON = dict.fromkeys(SPECIES, "Aves") | {"bogfro": "Amphibia", "ivycri": "Insecta"}


@dataclass(frozen=True)
class Soundscape:
    """The plan of a soundscape: where and when it was made."""

    name: str
    site: int
    hour: int
    seconds: float


def make_shift(folder: str | Path, seed: int = 0, scale: float = 1.0, seconds: float = SOUNDSCAPE_SECONDS):
    """Write the competition to `folder`, which must not exist or be empty: about 7,000 s of audio in half a minute.

    `scale`: this share of the recordings of every kind, at least one a species and site; `seconds` of each soundscape.
    Everything is written beside `folder` first and renamed at the end.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}: a share lies above 0 and is at most 1")
    if seconds < ROW_SECONDS or seconds % ROW_SECONDS:
        raise ValueError(f"soundscapes of {seconds:g} s are no whole rows of {ROW_SECONDS:g} s")
    with new_folder(folder) as partial:
        _write_focal(partial, seed, scale)
        planned = plan(seed, scale, seconds)
        _write_soundscapes(partial / "train_soundscapes", seed, planned["unlabelled"])
        _write_labelled(partial, seed, planned["labelled"])
        _write_test(partial, seed, planned["test"])
        names = [
            {"primary_label": code, "scientific_name": s.sci_name, "common_name": s.name, "class_name": TAXON[code]}
            for code, s in ALL.items()
        ]
        write_csv(names, partial / "taxonomy.csv")
        about = {"version": VERSION, "kind": "shift", "seed": seed, "scale": scale, "seconds": seconds}
        (partial / "synth.json").write_text(as_json(about, indent=2) + "\n")


def call(code: str, voice: Voice, rng: np.random.Generator, distance: float) -> tuple[np.ndarray, float]:
    """One phrase of any species from a distance: (S,) waveform, and the seconds of the phrase without its echo."""
    phrase = render_phrase(ALL[code].sing(rng), voice, rng)
    return propagate(phrase, distance, rng), len(phrase) / RATE


# --- focal recordings ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recordist:
    """Who records what, where, and with which microphone."""

    share: float  # of all uploads, before favourites
    favourites: tuple[str, ...]
    layers: dict[str, float]
    colour_db: np.ndarray


@cache
def recordist(seed: int, number: int) -> Recordist:
    """Recordist `number`, the most active first."""
    rng = stream(seed, "shift recordist", number)
    extra = rng.choice(list(LAYERS), size=2, replace=False)
    layers = {"pink": 1.0, **{str(name): LAYERS[name] * rng.uniform(0.2, 1) for name in extra}}
    liked = tuple(str(code) for code in rng.choice(list(SPECIES), size=FAVOURITES, replace=False))
    return Recordist(1 / (number + 1.5) ** 0.9, liked, layers, rng.uniform(-8, 5, 6))


def who_records(seed: int, code: str, rng: np.random.Generator) -> int:
    """The number of a recordist of this species: the active ones, and those who like it, more often."""
    people = [recordist(seed, number) for number in range(RECORDISTS)]
    weight = np.array([who.share * (12 if code in who.favourites else 1) for who in people])
    return int(rng.choice(RECORDISTS, p=weight / weight.sum()))


def counts_of(seed: int, scale: float = 1.0) -> dict[str, int]:
    """Focal recordings of each species: a long tail, dealt by the seed."""
    order = stream(seed, "shift ranks").permutation(list(SPECIES))
    return {str(code): max(1, round(n * scale)) for code, n in zip(order, CLIPS_OF_RANK, strict=True)}


def focal_recording(seed: int, index: int, code: str) -> tuple[np.ndarray, dict]:
    """Focal recording number `index`: (S,) waveform, and its row of train.csv."""
    rng = stream(seed, "shift focal", index)
    number = who_records(seed, code, rng)
    who, seconds = recordist(seed, number), round(float(rng.uniform(5, 12)), 2)
    scene = background(rng, round(seconds * RATE), who.layers)
    voice, distance, snr_db = sample_voice(rng), rng.uniform(0, 0.25), float(rng.uniform(12, 28))
    sounds = distractors(rng, seconds, per_minute=1)
    parts = max(1, round(seconds / 2.6))
    for part in range(parts):  # a phrase in each part, so that every crop hears the bird
        wave, length = call(code, voice, rng, distance)
        onset = part * seconds / parts + max(seconds / parts - length, 0) * rng.random()
        sounds.append(Sound(code, max(0, min(onset, seconds - length)), wave, length, snr_db + rng.normal(0, 1)))
    second, listed = "", False
    if rng.random() < 0.15:
        second, listed = str(rng.choice([c for c in SPECIES if c != code])), rng.random() < 0.5
        wave, length = call(second, sample_voice(rng), rng, rng.uniform(0.5, 1))
        sounds.append(Sound(second, rng.uniform(0, seconds - length), wave, length, float(rng.uniform(1, 8))))
    wave, _ = mix(scene, sounds)
    row = {
        "primary_label": code, "secondary_labels": str([second] if listed else []), "class_name": TAXON[code],
        "scientific_name": ALL[code].sci_name, "common_name": ALL[code].name, "author": f"Recordist {number + 1}",
        "rating": round(float(rng.integers(4, 11)) / 2, 1), "filename": f"{code}/SH{200000 + 11 * index}.flac",
    }  # fmt: skip
    return at_level(equalised(wave, who.colour_db), rng.uniform(-34, -20)), row


def uploaded_again(seed: int, index: int, wave: np.ndarray, row: dict) -> tuple[np.ndarray, dict]:
    """The same recording, cut, louder or softer and with some hiss, every second time under another's name."""
    rng = stream(seed, "shift again", index)
    cut = wave[round(rng.uniform(0, 0.6) * RATE) :]
    hiss = rng.standard_normal(len(cut)) * np.sqrt(np.mean(cut**2)) * 10 ** (-45 / 20)
    author = f"Recordist {int(rng.integers(RECORDISTS)) + 1}" if index % 2 else row["author"]
    name = f"{row['primary_label']}/SH{500000 + 11 * index}.flac"
    return at_level(cut + hiss, rng.uniform(-34, -20)), row | {"filename": name, "author": author}


def _write_focal(folder: Path, seed: int, scale: float):
    rows, twice = [], []
    counts = counts_of(seed, scale)
    labels = [code for code, n in counts.items() for _ in range(n)]
    again = stream(seed, "shift twice").permutation(len(labels))[: max(1, round(UPLOADED_TWICE * scale))].tolist()
    for index, code in enumerate(labels):
        wave, row = focal_recording(seed, index, code)
        write_sound(folder / "train_audio" / row["filename"], wave)
        rows.append(row)
        if index in again:
            wave, other = uploaded_again(seed, again.index(index), wave, row)
            write_sound(folder / "train_audio" / other["filename"], wave)
            rows.append(other)
            twice.append({"filename": other["filename"], "same_as": row["filename"]})
    write_csv(sorted(rows, key=lambda row: row["filename"]), folder / "train.csv")
    write_csv(twice, folder / "uploaded_twice.csv")


# --- soundscapes -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Site:
    """What all soundscapes of a place share."""

    layers: dict[str, float]
    colour_db: np.ndarray
    common: dict[str, float]  # species: how often it sings there
    dialect: dict[str, Voice]
    quiet: float  # share of rows where nobody sings


@cache
def species_of_sites(seed: int) -> dict[int, tuple[str, ...]]:
    """Site: who lives there, 6 to 8 birds dealt from one deck, so that no group of sites lacks one."""
    rng, found = stream(seed, "shift species"), {}
    cards = deck(rng)
    for number in range(1, max(TEST_AT) + 1):
        others = [code for k, code in enumerate(UNRECORDED) if (number + k) % 4]  # not everywhere
        found[number] = (*deal(cards, int(rng.integers(6, 9))), *others)
    return found


@cache
def site_of(seed: int, number: int) -> Site:
    """Site `number`: its background, recorder, species and their dialects."""
    rng = stream(seed, "shift site", number)
    extra = rng.choice(list(LAYERS), size=3, replace=False)
    layers = {"pink": 1.0, **{str(name): LAYERS[name] * rng.uniform(0.5, 1.6) for name in extra}}
    colour = np.array([3.0, 2.0, 0.0, -1.0, -3.0, -5.0]) + rng.uniform(-4, 4, 6)  # a recorder in a box
    common = {code: float(rng.uniform(0.4, 1)) for code in species_of_sites(seed)[number]}
    dialect = {code: Voice(rng.uniform(0.95, 1.05), rng.uniform(0.9, 1.1)) for code in ALL}
    return Site(layers, colour, common, dialect, rng.uniform(0.25, 0.45))


def plan(seed: int, scale: float = 1.0, seconds: float = SOUNDSCAPE_SECONDS) -> dict[str, list[Soundscape]]:
    """All soundscapes: unlabelled, labelled and test ones, named after number, site, date and time."""
    rng, number, found = stream(seed, "shift plan"), 0, {}
    for kind, sites in (("unlabelled", UNLABELLED_AT), ("labelled", LABELLED_AT), ("test", TEST_AT)):
        found[kind] = []
        for site, count in sites.items():
            for _ in range(max(1, round(count * scale))):
                number, hour = number + 1, int(rng.choice(HOURS))
                date = f"2026{int(rng.integers(4, 8)):02d}{int(rng.integers(1, 29)):02d}"
                found[kind].append(
                    Soundscape(f"SH_{number:04d}_S{site:02d}_{date}_{hour:02d}0000", site, hour, seconds)
                )
    return found


def singers(site: Site, hour: int, rng: np.random.Generator) -> dict[str, float]:
    """Who sings during one soundscape, and how readily: frogs and crickets by night, birds by day."""
    night = hour < 4 or hour > 20
    weight = np.array([r * (5 if (c in UNRECORDED) == night else 1) for c, r in site.common.items()])
    count = min(len(weight), int(rng.integers(4, 7)))
    chosen = rng.choice(list(site.common), size=count, replace=False, p=weight / weight.sum())
    return {str(code): float(rng.uniform(0.4, 1)) for code in chosen}


def soundscape(seed: int, scape: Soundscape) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """A soundscape: (S,) waveform and its true events (onset, offset, event_label)."""
    rng, site = stream(seed, f"shift {scape.name}"), site_of(seed, scape.site)
    scene = background(rng, round(scape.seconds * RATE), site.layers)
    sounds = distractors(rng, scape.seconds, per_minute=6)
    readiness = singers(site, scape.hour, rng)
    individuals = {code: sample_voice(rng) for code in readiness}
    rows = int(scape.seconds // ROW_SECONDS)
    for row in range(rows):
        if rng.random() < site.quiet:
            continue
        count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
        weight = np.array(list(readiness.values()))
        for code in rng.choice(list(readiness), size=min(count, len(weight)), replace=False, p=weight / weight.sum()):
            own, local = individuals[str(code)], site.dialect[str(code)]
            voice = Voice(own.pitch * local.pitch, own.tempo * local.tempo)
            wave, length = call(str(code), voice, rng, rng.uniform(0.4, 0.9))
            start, end = row * ROW_SECONDS, (row + 1) * ROW_SECONDS
            onset = place(rng, length, start, end, may_straddle=row + 1 < rows)
            sounds.append(Sound(str(code), onset, wave, length, float(np.clip(rng.normal(8, 4), 2, 18))))
    for _ in range(rng.poisson(scape.seconds / 10)):  # too far away for anyone to hear
        wave, length = call(str(rng.choice(list(ALL))), sample_voice(rng), rng, 1.0)
        sounds.append(Sound("", rng.uniform(0, scape.seconds - length), wave, length, rng.uniform(-20, -12)))
    wave, events = mix(scene, sounds)
    return at_level(equalised(wave, site.colour_db), rng.uniform(-46, -34)), events


def row_labels(events: list[tuple[float, float, str]], seconds: float) -> list[tuple[int, list[str]]]:
    """True events -> (second at which the row ends, sorted species with an event in it) of every row of 5 s."""
    ends = np.arange(ROW_SECONDS, seconds + 0.1, ROW_SECONDS)
    heard = [sorted({c for on, off, c in events if on < end and off > end - ROW_SECONDS}) for end in ends]
    return list(zip(ends.astype(int).tolist(), heard, strict=True))


def _write_soundscapes(folder: Path, seed: int, scapes: list[Soundscape]) -> list[list[tuple[float, float, str]]]:
    """Write the soundscapes, two at a time; returns the true events of each."""

    def made(scape: Soundscape):
        wave, events = soundscape(seed, scape)
        write_sound(folder / f"{scape.name}.flac", wave)
        return events

    with ThreadPoolExecutor(2) as pool:  # FFTs and the encoder leave the interpreter free
        return list(pool.map(made, scapes))


def _write_labelled(folder: Path, seed: int, scapes: list[Soundscape]):
    rows = []
    for scape, events in zip(scapes, _write_soundscapes(folder / "train_soundscapes", seed, scapes), strict=True):
        for end, names in row_labels(events, scape.seconds):
            span = {"start": _clock(end - int(ROW_SECONDS)), "end": _clock(end)}
            rows.append({"filename": f"{scape.name}.flac", **span, "primary_label": ";".join(names) or "nocall"})
    write_csv(rows, folder / "train_soundscapes_labels.csv")


def _write_test(folder: Path, seed: int, scapes: list[Soundscape]):
    truth, events = [], []
    for scape, heard in zip(scapes, _write_soundscapes(folder / "test_soundscapes", seed, scapes), strict=True):
        names = ("onset", "offset", "event_label")
        events += [{"filename": scape.name, **dict(zip(names, event, strict=True))} for event in heard]
        truth += [
            {"row_id": f"{scape.name}_{end}", **{c: int(c in codes) for c in ALL}}
            for end, codes in row_labels(heard, scape.seconds)
        ]
    table = pd.DataFrame(truth)
    write_csv(table, folder / "truth.csv")
    write_csv(table[["row_id"]].assign(**dict.fromkeys(ALL, round(1 / len(ALL), 6))), folder / "sample_submission.csv")
    write_csv(pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"]), folder / "test_events.csv")


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

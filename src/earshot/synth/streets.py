"""An embedded city in SONYC-UST's layout: tags of two levels, annotators who disagree, sounds of their hour and place.

Writes `annotations.csv` (as SONYC-UST-V2 has it) and `audio/*.wav` to a new folder. Every clip draws from its own
stream, keyed by (seed, "street", index).

What happens is a matter of hour, day and place: a sensor stands in one of three zones, which its coordinates tell
(works, avenue, park), and CITY says for each coarse tag in which hours and zones it is common. Sounds are soft against
the street, so that a network which knows hour and place is told something that it cannot hear well. Sensors of the
validate split are others than those of the train split, in the same zones.

Who says so: of the train split and a part of validate three volunteers, who miss a sound, hear one that is not there,
or cannot say which kind it is (the incomplete X); of the rest of validate annotator 0, the agreed truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.files import as_json
from earshot.synth.birds import new_folder, stream, write_csv, write_sound
from earshot.synth.sounds import RATE, at_level, background, shaped_noise, snr_gain
from earshot.synth.tasks import band, equalised, fades, harmonics, scattered, seconds

VERSION = 1  # raise it when the same seed gives other bytes
SECONDS = 2.5
SNR_DB = (-1.0, 4.0)  # mean and deviation of a sound over the street
COMMON, RARE = 0.6, 0.04  # share of clips with a tag, in its hours and zones and otherwise
MISSED, IMAGINED, UNSURE, AGREED_UNSURE = 0.15, 0.02, 0.2, 0.1  # of volunteers; the last of the agreed truth
VOLUNTEERS = 3
WEEKS = 52
ZONES = {  # latitudes and longitudes, degrees
    "works": ((40.68, 40.74), (-74.02, -73.985)),
    "avenue": ((40.68, 40.74), (-73.975, -73.93)),
    "park": ((40.76, 40.81), (-74.02, -73.93)),
}
SENSORS = {"train": 15, "validate": 9}  # a third of each in every zone
Sound = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Group:
    """A coarse tag: its kinds {fine tag: sound}, the X for an unknown kind ('': none), where and when it is common."""

    kinds: dict[str, Sound]
    x: str
    zones: tuple[str, ...]
    hours: tuple[int, int]  # from, to
    days: tuple[int, ...] = tuple(range(7))


def motor(low: float, high: float) -> Sound:
    def sound(rng, n):
        hz = np.full(n, rng.uniform(low, high)) * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * seconds(n)))
        return harmonics(hz, 1 / np.arange(1, 13)) * (0.5 + 0.5 * fades(n, 0.5))

    return sound


def blows(low: float, high: float) -> Sound:
    """So many blows a second."""

    def sound(rng, n):
        rate, wave = rng.uniform(low, high), band(rng, n, rng.uniform(1500, 3000), 1200)
        return wave * np.exp(-((seconds(n) * rate) % 1) * 8 * min(1.0, rate / 6))

    return sound


def blade(low: float, high: float) -> Sound:
    def sound(rng, n):
        hz = rng.uniform(low, high) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * seconds(n)))
        return harmonics(hz, 1 / np.sqrt(np.arange(1, 25))) + 0.7 * band(rng, n, 4500, 900)

    return sound


def bursts(rng, n):
    pieces = []
    for _ in range(3):
        m = int(rng.uniform(0.1, 0.3) * RATE)
        pieces.append(
            shaped_noise(rng, m, lambda f: 1 / (1 + f / 2000)) * np.exp(-seconds(m) / rng.uniform(0.02, 0.06))
        )
    return scattered(rng, n, pieces)


def horn(rng, n):
    m = int(rng.uniform(0.4, 1.0) * RATE)
    return scattered(rng, n, [harmonics(np.full(m, rng.uniform(350, 500)), (1, 0.8, 0.6, 0.4)) * fades(m, 0.03)])


def alarm(rng, n):
    first, second = rng.uniform(700, 900), rng.uniform(1100, 1400)
    return harmonics(np.where((seconds(n) * 3) % 1 < 0.5, first, second), (1, 0.5, 0.3))


def siren(rng, n):
    hz = rng.uniform(800, 1000) * (1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * seconds(n)))
    return harmonics(hz, (1, 0.4, 0.2))


def beeper(rng, n):
    return harmonics(np.full(n, rng.uniform(1100, 1500)), (1, 0.3)) * ((seconds(n) * rng.uniform(1.2, 2)) % 1 < 0.5)


def tune(low: float, high: float, overtones: tuple[float, ...], moving: bool = False) -> Sound:
    def sound(rng, n):
        length, base, notes = int(rng.uniform(0.2, 0.35) * RATE), rng.uniform(low, high), []
        for _ in range(n // length + 1):
            note = harmonics(np.full(length, base * 2 ** (rng.choice([0, 2, 4, 7, 9, 12]) / 12)), overtones)
            notes.append(note * np.exp(-seconds(length) / 0.2))
        wave = np.concatenate(notes)[:n]
        return wave * np.hanning(n) if moving else wave

    return sound


def speech(pitch: tuple[float, float], voices: int = 1, nasal: bool = False) -> Sound:
    def one(rng, n):
        time, base = seconds(n), rng.uniform(*pitch)
        hz = base * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(1, 3) * time + rng.uniform(0, 6)))
        syllables = np.clip(np.sin(2 * np.pi * rng.uniform(3, 5) * time + rng.uniform(0, 6)) + 0.4, 0, None)
        multiples = np.arange(1, 24)
        formants = [(1500, 250)] if nasal else [(rng.uniform(400, 800), 150), (rng.uniform(1100, 1900), 200)]
        return syllables * harmonics(hz, sum(np.exp(-(((multiples * base - f) / w) ** 2)) for f, w in formants) + 0.02)

    return lambda rng, n: sum(one(rng, n) for _ in range(voices))


def barks(rng, n):
    pieces = []
    for _ in range(int(rng.integers(2, 5))):
        m = int(rng.uniform(0.1, 0.2) * RATE)
        hz = np.linspace(rng.uniform(700, 900), rng.uniform(350, 450), m)
        pieces.append((harmonics(hz, (1, 0.8, 0.6, 0.4)) + 0.5 * band(rng, m, 1200, 500)) * fades(m, 0.03))
    return scattered(rng, n, pieces)


WEEKDAYS = (0, 1, 2, 3, 4)
CITY: dict[str, Group] = {
    "1_engine": Group(
        {"1-1_small-sounding-engine": motor(95, 150), "1-2_medium-sounding-engine": motor(60, 85),
         "1-3_large-sounding-engine": motor(35, 50)},
        "1-X_engine-of-uncertain-size", ("avenue", "works"), (6, 19),
    ),
    "2_machinery-impact": Group(
        {"2-1_rock-drill": blows(15, 20), "2-2_jackhammer": blows(9, 12), "2-3_hoe-ram": blows(4, 6),
         "2-4_pile-driver": blows(1, 2)},
        "2-X_other-unknown-impact-machinery", ("works", "avenue"), (7, 17), WEEKDAYS,
    ),
    "3_non-machinery-impact": Group({"3-1_non-machinery-impact": bursts}, "", ("works", "avenue"), (18, 6)),
    "4_powered-saw": Group(
        {"4-1_chainsaw": blade(180, 250), "4-2_small-medium-rotating-saw": blade(330, 420),
         "4-3_large-rotating-saw": blade(90, 130)},
        "4-X_other-unknown-powered-saw", ("works", "park"), (8, 15), WEEKDAYS,
    ),
    "5_alert-signal": Group(
        {"5-1_car-horn": horn, "5-2_car-alarm": alarm, "5-3_siren": siren, "5-4_reverse-beeper": beeper},
        "5-X_other-unknown-alert-signal", ("avenue",), (15, 2),
    ),
    "6_music": Group(
        {"6-1_stationary-music": tune(180, 300, (1, 0.5, 0.3, 0.2)),
         "6-2_mobile-music": tune(90, 150, (1, 0.7, 0.5, 0.3), moving=True),
         "6-3_ice-cream-truck": tune(900, 1200, (1, 0.1))},
        "6-X_music-from-uncertain-source", ("park", "avenue"), (17, 1),
    ),
    "7_human-voice": Group(
        {"7-1_person-or-small-group-talking": speech((100, 180)),
         "7-2_person-or-small-group-shouting": speech((260, 380)),
         "7-3_large-crowd": speech((100, 260), voices=6), "7-4_amplified-speech": speech((100, 200), nasal=True)},
        "7-X_other-unknown-human-voice", ("park",), (10, 22),
    ),
    "8_dog": Group({"8-1_dog-barking-whining": barks}, "", ("park", "avenue"), (5, 11)),
}  # fmt: skip
FINE = tuple(t for group in CITY.values() for t in (*group.kinds, *filter(None, [group.x])))


def make_city(folder: str | Path, seed: int = 0, train: int = 420, crowd: int = 60, verified: int = 200):
    """Write the city to `folder`, which must not exist or be empty: so many clips of the train split, and of validate
    by volunteers and verified."""
    with new_folder(folder) as partial:
        rows = []
        for index, (wave, said) in enumerate(clips(seed, train, crowd, verified)):
            name = f"{said[0]['sensor_id']:02d}_{index:06d}.wav"
            write_sound(partial / "audio" / name, wave)
            rows += [{"audio_filename": name} | row for row in said]
        write_csv(rows, partial / "annotations.csv")
        about = {"version": VERSION, "kind": "sonyc", "seed": seed}
        (partial / "synth.json").write_text(as_json(about, indent=2) + "\n")


def clips(seed: int, train: int, crowd: int, verified: int) -> Iterator[tuple[np.ndarray, list[dict]]]:
    """Each clip's waveform and its rows of annotations.csv."""
    for index in range(train + crowd + verified):
        rng, n = stream(seed, "street", index), round(SECONDS * RATE)
        split = "train" if index < train else "validate"
        sensor, zone, place = sensor_of(seed, split, rng)
        when = {"year": 2019, "week": int(rng.integers(1, WEEKS + 1)), "day": int(rng.integers(7)),
                "hour": int(rng.integers(24))}  # fmt: skip
        kinds = {c: str(rng.choice(list(g.kinds))) for c, g in CITY.items() if rng.random() < chance(g, zone, when)}
        about = {"split": split, "sensor_id": sensor, **place, **when}
        agreed = index >= train + crowd
        who = [0] if agreed else [1 + int(w) for w in rng.choice(40, VOLUNTEERS, replace=False)]
        rows = [about | {"annotator_id": w} | presences(heard_by(rng, kinds, agreed)) for w in who]
        yield street(seed, sensor, rng, n, kinds), rows


def sensor_of(seed: int, split: str, rng: np.random.Generator) -> tuple[int, str, dict[str, float]]:
    """A sensor of the split: its number, its zone, its coordinates."""
    sensor = int(rng.integers(SENSORS[split])) + (SENSORS["train"] if split == "validate" else 0)
    zone = list(ZONES)[sensor % len(ZONES)]
    own = stream(seed, "sensor", sensor)
    latitude, longitude = (round(float(own.uniform(*limits)), 6) for limits in ZONES[zone])
    return sensor, zone, {"latitude": latitude, "longitude": longitude}


def chance(group: Group, zone: str, when: dict) -> float:
    """How likely a clip of this zone and time has the coarse tag."""
    start, stop = group.hours
    within = start <= when["hour"] < stop if start < stop else when["hour"] >= start or when["hour"] < stop
    return COMMON if within and zone in group.zones and when["day"] in group.days else RARE


def street(seed: int, sensor: int, rng: np.random.Generator, n: int, kinds: dict[str, str]) -> np.ndarray:
    """Make what a sensor in a street records, (n,): its street, and over it a sound of each kind."""
    own = stream(seed, "microphone", sensor)
    scene = background(rng, n, {"pink": 1.0, "brown": own.uniform(0, 1), "wind": own.uniform(0, 0.5)})
    wave = scene.astype(np.float64)
    for coarse, kind in kinds.items():
        over = CITY[coarse].kinds[kind](rng, n)
        wave = wave + over * snr_gain(over, scene, float(np.clip(rng.normal(*SNR_DB), -8, 12)))
    return at_level(equalised(wave, own.uniform(-4, 4, 6)), rng.uniform(-36, -26))


def heard_by(rng: np.random.Generator, kinds: dict[str, str], agreed: bool) -> set[str]:
    """The fine tags that one annotator ticks; the agreed truth misses and imagines nothing."""
    found = set()
    for coarse, group in CITY.items():
        there, doubt = coarse in kinds, AGREED_UNSURE if agreed else UNSURE
        heard = there if agreed else rng.random() < (1 - MISSED if there else IMAGINED)
        if not heard:
            continue
        kind = kinds[coarse] if there else str(rng.choice(list(group.kinds)))
        found.add(group.x if group.x and rng.random() < doubt else kind)
    return found


def presences(heard: set[str]) -> dict[str, int]:
    """Columns <tag>_presence of one annotator's row: fine tags, then the coarse ones that follow from them."""
    fine = {f"{t}_presence": int(t in heard) for t in FINE}
    coarse = {f"{c}_presence": int(bool(heard & {*g.kinds, g.x})) for c, g in CITY.items()}
    return fine | coarse

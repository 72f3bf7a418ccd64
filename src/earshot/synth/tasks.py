"""Embedded variants of three challenges, generated from a seed: acoustic scenes, urban sound tags, machines.

Each writes `audio/*.flac` and `meta.csv` (clip_id, path, labels, official_fold, and the columns that its task scores
by) to a new folder. official_fold -1 trains, 0 is held out; what is held out has places, devices or conditions that
training did not have. Every clip draws from its own stream, keyed by (seed, kind, index), as in birds.py. What the
classes sound like is invented; only the tasks are those of the challenges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import fft

from earshot.files import as_json
from earshot.synth.birds import new_folder, stream, write_csv, write_sound
from earshot.synth.sounds import (
    RATE,
    SPECIES,
    at_level,
    background,
    knocks,
    rustle,
    sample_voice,
    shaped_noise,
    sing,
    snr_gain,
)

VERSION = 1  # raise it when the same seed gives other bytes
TRAIN, HELD_OUT = -1, 0  # official_fold
Clip = tuple[np.ndarray, dict]  # (S,) waveform, row of meta.csv


def make_task(kind: str, folder: str | Path, seed: int = 0):
    """Write the variant `kind` (a key of KINDS) to `folder`, which must not exist or be empty."""
    with new_folder(folder) as partial:
        rows = []
        for index, (wave, row) in enumerate(KINDS[kind](seed)):
            path = f"audio/{kind}_{index:04d}.flac"
            write_sound(partial / path, wave)
            rows.append({"clip_id": f"{kind}_{index:04d}", "path": path} | row)
        write_csv(rows, partial / "meta.csv")
        about = {"version": VERSION, "kind": kind, "seed": seed}
        (partial / "synth.json").write_text(as_json(about, indent=2) + "\n")


# --- building blocks -------------------------------------------------------------------------------------------------
def harmonics(hz: np.ndarray, amplitudes) -> np.ndarray:
    """Make a tone of a moving pitch with its harmonics.

    (S,) instantaneous frequency, amplitudes of its multiples -> (S,) tone; multiples over 7.5 kHz are left out.
    """
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    return sum(a * np.sin(k * phase) for k, a in enumerate(amplitudes, start=1) if k * hz.max() < 7500)


def band(rng: np.random.Generator, n: int, centre: float, width: float) -> np.ndarray:
    """Make noise around `centre` Hz, (n,)."""
    return shaped_noise(rng, n, lambda f: np.exp(-(((f - centre) / width) ** 2)))


def seconds(n: int) -> np.ndarray:
    """Give the time of each sample.

    (n,) times from 0.
    """
    return np.arange(n) / RATE


def fades(n: int, edge: float = 0.01) -> np.ndarray:
    """A gain that rises and falls over `edge` seconds, (n,)."""
    time = seconds(n)
    return np.clip(np.minimum(time, time[::-1]) / edge, 0, 1)


def scattered(rng: np.random.Generator, n: int, pieces: list[np.ndarray]) -> np.ndarray:
    """Scatter pieces of sound over silence.

    (n,) silence with each piece at a random place, cut at the end.
    """
    out = np.zeros(n)
    for piece in pieces:
        start = int(rng.integers(max(1, n - len(piece) // 2)))
        piece = piece[: n - start]
        out[start : start + len(piece)] += piece
    return out


def equalised(wave: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """The waveform through a filter: decibels at points spread evenly over the octaves from 60 Hz to 8 kHz."""
    size = fft.next_fast_len(len(wave), real=True)
    octave = np.log2(np.maximum(fft.rfftfreq(size, 1 / RATE), 60) / 60)
    curve = np.interp(octave, np.linspace(0, np.log2(8000 / 60), len(gains_db)), gains_db)
    return fft.irfft(fft.rfft(wave, size) * 10 ** (curve / 20), size)[: len(wave)]


# --- scenes ----------------------------------------------------------------------------------------------------------
SCENE_SECONDS = 2.5
DEVICES = ("a", "a", "b", "c")  # half of the clips by the best device; s1 and s2 are only held out
PLACES, HELD_OUT_PLACES = 8, 4  # a class


def _engine(rng, n, low, high, place):
    hz = np.full(n, low + (high - low) * place.random()) * (
        1 + 0.02 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * seconds(n))
    )
    return harmonics(hz, 1 / np.arange(1, 13))


def _metro(rng, n, place):
    start, end = sorted(rng.uniform(350, 1100, 2))
    sweep = np.geomspace(start, end * 1.2, n)
    return harmonics(sweep if rng.random() < 0.5 else sweep[::-1], (1, 0.5, 0.3))


def _rails(rng, n, place):
    rate = 2.5 + 2.5 * place.random()
    times = np.arange(rng.uniform(0, 1 / rate), n / RATE, 1 / rate)
    out = np.zeros(n)
    for time in np.concatenate([times, times + 0.07]):
        start, piece = int(time * RATE), knocks(rng)[: RATE // 12]
        piece = piece[: max(0, n - start)]
        out[start : start + len(piece)] += piece
    return out


def _birds(rng, n, place):
    codes = list(SPECIES)
    return scattered(rng, n, [sing(codes[int(place.integers(len(codes)))], sample_voice(rng), rng, 0.3)[0]
                              for _ in range(4)])  # fmt: skip


def _pass_by(rng, n, place):
    time, middle = seconds(n), rng.uniform(0.3, 0.7) * n / RATE
    near = np.exp(-(((time - middle) / rng.uniform(0.3, 0.6)) ** 2))
    return near * shaped_noise(rng, n, lambda f: 1 / (1 + ((f - 700) / 600) ** 2))


def _babble(rng, n, place):
    return sum(_voice(rng, n, rng.uniform(100, 260)) for _ in range(6))


def _steps(rng, n, place):
    return scattered(rng, n, [rustle(rng) for _ in range(6)])


def _chimes(rng, n, place):
    first = 500 + 300 * place.random()
    notes = [harmonics(np.full(int(0.35 * RATE), first * r), (1, 0.3)) for r in (1, 1.25, 1.5)]
    chime = np.concatenate([note * np.exp(-seconds(len(note)) / 0.15) for note in notes])
    return scattered(rng, n, [chime])


SCENES: dict[str, tuple[dict, Callable, float]] = {  # background layers, what is heard over it, its SNR in dB
    "airport": ({"pink": 1.0, "white": 0.1}, _chimes, -1),
    "bus": ({"brown": 1.0, "pink": 0.5}, lambda r, n, p: _engine(r, n, 45, 75, p), 1),
    "metro": ({"pink": 1.0, "brown": 1.0}, _metro, -2),
    "park": ({"pink": 0.6, "wind": 1.0}, _birds, 0),
    "public_square": ({"pink": 0.7, "stream": 0.9}, _steps, 3),
    "shopping_mall": ({"pink": 1.0}, _babble, -2),
    "street_traffic": ({"pink": 1.0, "wind": 0.3}, _pass_by, 1),
    "tram": ({"pink": 0.8, "brown": 0.8, "hum": 0.3}, _rails, 1),
}


def scenes(seed: int, train: int = 40, held_out: int = 16) -> Iterator[Clip]:
    """`train` + `held_out` clips of each scene; held-out ones from other places, a third of them by new devices."""
    index = 0
    for label in SCENES:
        for fold, count in ((TRAIN, train), (HELD_OUT, held_out)):
            for number in range(count):
                yield _scene(seed, index, label, fold, number)
                index += 1


def _scene(seed: int, index: int, label: str, fold: int, number: int) -> Clip:
    rng, n = stream(seed, "scene", index), round(SCENE_SECONDS * RATE)
    place_number = number % PLACES if fold == TRAIN else PLACES + number % HELD_OUT_PLACES
    place = stream(seed, f"place {label}", place_number)
    layers, heard, snr_db = SCENES[label]
    layers = {name: gain * place.uniform(0.5, 1.5) for name, gain in layers.items()}
    scene, over = background(rng, n, layers), heard(rng, n, place)
    wave = scene + over * snr_gain(over, scene, snr_db + place.normal(0, 1.5) + rng.normal(0, 1.5))
    device = str(rng.choice(DEVICES)) if fold == TRAIN or number % 3 else f"s{1 + number // 3 % 2}"
    gains = np.zeros(6) if device == "a" else stream(seed, f"device {device}").uniform(-9, 5, 6)
    row = {"labels": label, "official_fold": fold, "device": device, "city": f"{label}-{place_number}"}
    return at_level(equalised(wave, gains), rng.uniform(-36, -24)), row


# --- urban sound tags ------------------------------------------------------------------------------------------------
URBAN_SECONDS = 3.0


def _voice(rng, n, pitch):
    time = seconds(n)
    hz = pitch * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(1, 3) * time + rng.uniform(0, 6)))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(3, 5) * time + rng.uniform(0, 6)) + 0.4, 0, None)
    formants = [(rng.uniform(400, 800), 150), (rng.uniform(1100, 1900), 200), (2600, 300)]
    multiples = np.arange(1, 24)
    weight = sum(np.exp(-(((multiples * pitch - centre) / width) ** 2)) for centre, width in formants)
    return syllables * harmonics(hz, weight + 0.02)


def _bark(rng):
    n = int(rng.uniform(0.1, 0.2) * RATE)
    hz = np.linspace(rng.uniform(700, 900), rng.uniform(350, 450), n)
    return (harmonics(hz, (1, 0.8, 0.6, 0.4)) + 0.5 * band(rng, n, 1200, 500)) * fades(n, 0.03)


def _burst(rng):
    n = int(rng.uniform(0.1, 0.3) * RATE)
    return shaped_noise(rng, n, lambda f: 1 / (1 + f / 2000)) * np.exp(-seconds(n) / rng.uniform(0.02, 0.06))


def _hammering(rng, n):
    rate, wave = rng.uniform(6, 12), band(rng, n, rng.uniform(1500, 3000), 1200)
    return wave * np.exp(-((seconds(n) * rate) % 1) * 8)


def _saw(rng, n):
    hz = rng.uniform(180, 400) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * seconds(n)))
    return harmonics(hz, 1 / np.sqrt(np.arange(1, 25))) + 0.7 * band(rng, n, 4500, 900)


def _alert(rng, n):
    time = seconds(n)
    if rng.random() < 0.5:
        hz = rng.uniform(900, 1100) * (1 + 0.35 * np.sin(2 * np.pi * rng.uniform(0.4, 3) * time))
        return harmonics(hz, (1, 0.4, 0.2))
    return harmonics(np.full(n, rng.uniform(900, 1500)), (1, 0.3)) * ((time * rng.uniform(1.5, 3)) % 1 < 0.5)


def _music(rng, n):
    length, base = int(rng.uniform(0.2, 0.35) * RATE), rng.uniform(180, 350)
    notes = []
    for _ in range(n // length + 1):
        chord = base * 2 ** (rng.choice([0, 2, 4, 7, 9, 12], 2) / 12)
        note = sum(harmonics(np.full(length, hz), (1, 0.5, 0.3, 0.2)) for hz in chord)
        notes.append(note * np.exp(-seconds(length) / 0.2))
    return np.concatenate(notes)[:n]


URBAN: dict[str, tuple[float, Callable]] = {  # share of the clips that have it, (rng, n) -> sound
    "1_engine": (0.35, lambda r, n: _engine(r, n, 40, 110, r) * (0.5 + 0.5 * fades(n, 0.5))),
    "2_machinery-impact": (0.18, _hammering),
    "3_non-machinery-impact": (0.18, lambda r, n: scattered(r, n, [_burst(r) for _ in range(3)])),
    "4_powered-saw": (0.14, _saw),
    "5_alert-signal": (0.2, _alert),
    "6_music": (0.15, _music),
    "7_human-voice": (0.3, lambda r, n: _voice(r, n, r.uniform(100, 260))),
    "8_dog": (0.14, lambda r, n: scattered(r, n, [_bark(r) for _ in range(int(r.integers(2, 5)))])),
}


def urban(seed: int, train: int = 420, held_out: int = 160) -> Iterator[Clip]:
    """Clips of any number of tags, none included; `sensor` is where it was recorded, held-out sensors are others."""
    for index in range(train + held_out):
        rng, n = stream(seed, "urban", index), round(URBAN_SECONDS * RATE)
        fold = TRAIN if index < train else HELD_OUT
        sensor = int(rng.integers(12)) + (12 if fold == HELD_OUT else 0)
        street = stream(seed, "sensor", sensor)
        layers = {"pink": 1.0, "brown": street.uniform(0, 1), "wind": street.uniform(0, 0.6)}
        scene = background(rng, n, layers | {"hum": street.uniform(0, 0.3)})
        wave, tags = scene.astype(np.float64), []
        for tag, (share, sound) in URBAN.items():
            if rng.random() < share:
                over = sound(rng, n)
                wave = wave + over * snr_gain(over, scene, float(np.clip(rng.normal(9, 4), 2, 18)))
                tags.append(tag)
        row = {"labels": " ".join(tags), "official_fold": fold, "sensor": f"sensor{sensor:02d}"}
        yield at_level(equalised(wave, street.uniform(-4, 4, 6)), rng.uniform(-36, -26)), row


# --- machines --------------------------------------------------------------------------------------------------------
MACHINE_SECONDS = 3.0
MACHINES = ("fan", "gearbox", "valve")
SECTIONS = ("section_00", "section_01", "section_02")
FAULTS = ("speed", "resonance", "rattle")


def machines(seed: int, source: int = 30, target: int = 3, test: int = 10) -> Iterator[Clip]:
    """Normal training clips of each section (`source`, and `target` ones of the new condition), then held-out ones:
    `test` normal and `test` anomalous clips for each section and domain."""
    index = 0
    for machine in MACHINES:
        for section in SECTIONS:
            plan = [("source", "normal", TRAIN)] * source + [("target", "normal", TRAIN)] * target
            for domain in ("source", "target"):
                plan += [(domain, condition, HELD_OUT) for condition in ("normal", "anomaly") for _ in range(test)]
            for domain, condition, fold in plan:
                yield _machine(
                    seed, index, machine=machine, section=section, domain=domain, condition=condition, fold=fold
                )
                index += 1


def _machine(seed: int, index: int, machine: str, section: str, domain: str, condition: str, fold: int) -> Clip:
    rng, n = stream(seed, "machine", index), round(MACHINE_SECONDS * RATE)
    body = stream(seed, f"{machine} {section}")
    number = MACHINES.index(machine) * len(SECTIONS) + SECTIONS.index(section)
    speed = 60 * 1.17**number * body.uniform(0.97, 1.03)
    resonance = 500 * 1.28**number * body.uniform(0.95, 1.05)
    profile = body.uniform(0.2, 1.0, 10) / np.arange(1, 11) ** 0.7
    fault = str(rng.choice(FAULTS)) if condition == "anomaly" else ""
    if fault == "speed":
        speed *= 1 + rng.choice([-1, 1]) * rng.uniform(0.07, 0.14)
    elif fault == "resonance":
        resonance *= 1 + rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)
    hz = speed * rng.uniform(0.99, 1.01) * (1 + 0.004 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * seconds(n)))
    tone, hiss = harmonics(hz, profile), band(rng, n, resonance, 0.12 * resonance)
    wave = tone / tone.std() + rng.uniform(0.6, 0.9) * _rhythm(machine, n, speed, rng) * hiss / hiss.std()
    if fault == "rattle":
        every = rng.uniform(8, 14)
        wave = wave + 1.6 * band(rng, n, 1.6 * resonance, 0.2 * resonance) * np.exp(-((seconds(n) * every) % 1) * 6)
    noise = background(rng, n, {"pink": 1.0, "brown": 0.5} if domain == "source" else {"pink": 1.0, "white": 0.3})
    wave = wave / wave.std() + noise * 10 ** (-(9 if domain == "source" else 5) / 20)
    row = {"labels": f"{machine}_{section}", "official_fold": fold, "machine": machine, "section": section,
           "domain": domain, "condition": condition, "fault": fault}  # fmt: skip
    return at_level(wave, rng.uniform(-30, -26)), row


def _rhythm(machine: str, n: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) gain of a machine's hiss: steady, grinding with the speed, or opening and closing."""
    time = seconds(n) + rng.uniform(0, 1)
    if machine == "fan":
        return np.ones(n)
    if machine == "gearbox":
        return 1 + 0.8 * np.sin(2 * np.pi * speed / 8 * time)
    return ((time * 2.5) % 1 < 0.4) + 0.05


KINDS: dict[str, Callable[[int], Iterator[Clip]]] = {"scenes": scenes, "ust": urban, "asd": machines}

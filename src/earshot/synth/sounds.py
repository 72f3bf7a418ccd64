"""Sounds of the embedded competition: calls of invented birds, what is no bird, and scenes mixed from them.

Conventions: 16 kHz unless a rate is given, times in seconds, frequencies in Hz, waveforms (S,) float32. Everything is a
pure function of a NumPy generator. The SNR of a call is its energy over the energy that the background has, during the
call, in the band that holds 90 % of the call's energy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from scipy import fft

RATE = 16000  # Hz
AUDIBLE_DB = 0.0  # an event below this SNR is heard by nobody and is no true event


# --- calls -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Note:
    """One unbroken tone: a glide from `start_hz` to `end_hz`, arched, quavering or beating, then `gap` seconds."""

    start_hz: float
    end_hz: float
    seconds: float
    _: KW_ONLY
    gap: float = 0.0
    arch_hz: float = 0.0  # added at the middle of the note
    vibrato_hz: float = 0.0
    vibrato_depth_hz: float = 0.0
    beat_hz: float = 0.0  # amplitude modulation, down to silence
    harmonics: tuple[float, ...] = (1.0, 0.12)  # amplitudes, the fundamental first


@dataclass(frozen=True)
class Voice:
    """What tells individuals of a species apart; factors on every frequency and every duration of their notes."""

    pitch: float = 1.0
    tempo: float = 1.0


@dataclass(frozen=True)
class Species:
    """An invented bird; `sing(rng)` gives the notes of one phrase in the average voice."""

    name: str
    sci_name: str
    sing: Callable[[np.random.Generator], list[Note]]


def _whistles(first_hz: float, second_hz: float):
    return lambda rng: [
        Note(start_hz=first_hz * 1.03, end_hz=first_hz, seconds=0.28, gap=0.06),
        Note(start_hz=second_hz * 1.02, end_hz=second_hz, seconds=0.36),
    ]


def _trill(high_hz: float, low_hz: float, notes_per_second: float, seconds: tuple[float, float]):
    period = 1 / notes_per_second

    def sing(rng):
        count = round(rng.uniform(*seconds) / period)
        return [Note(start_hz=high_hz, end_hz=low_hz, seconds=0.62 * period, gap=0.38 * period)] * count

    return sing


def _sweeps(start_hz: float, end_hz: float):
    return lambda rng: [Note(start_hz=start_hz, end_hz=end_hz, seconds=0.32, gap=0.16)] * int(rng.integers(2, 5))


def _stack(fundamental_hz: float, beat_hz: float, seconds: float):
    amplitudes = (0.3, 0.8, 1.0, 0.9, 0.6, 0.4, 0.2)

    def sing(rng):
        note = Note(
            start_hz=fundamental_hz * 1.05,
            end_hz=fundamental_hz * 0.9,
            seconds=seconds,
            gap=0.15,
            beat_hz=beat_hz,
            harmonics=amplitudes,
        )
        return [note] * int(rng.integers(2, 4))

    return sing


def _quaver(centre_hz: float, depth_hz: float, vibrato_hz: float):
    def sing(rng):
        return [
            Note(
                start_hz=centre_hz,
                end_hz=centre_hz * 0.96,
                seconds=rng.uniform(0.8, 1.3),
                gap=0.0,
                arch_hz=0.0,
                vibrato_hz=vibrato_hz,
                vibrato_depth_hz=depth_hz,
            )
        ]

    return sing


def _chips(hz: float, arch_hz: float):
    def sing(rng):
        return [
            Note(start_hz=hz, end_hz=hz, seconds=0.09, gap=rng.uniform(0.12, 0.24), arch_hz=arch_hz)
            for _ in range(rng.integers(3, 7))
        ]

    return sing


SPECIES = {
    "aspswe": Species("Aspen Sweepwing", "Ascendula tremulae", _sweeps(2300.0, 4700.0)),
    "coptri": Species("Copper Triller", "Trillaria cuprea", _trill(4700.0, 3600.0, 10.0, (0.8, 1.5))),
    "duswhi": Species("Dusk Whistler", "Fistula crepusculi", _whistles(3400.0, 2650.0)),
    "fenswe": Species("Fen Sweepwing", "Ascendula paludis", _sweeps(4700.0, 2300.0)),
    "marwhi": Species("Marsh Whistler", "Fistula palustris", _whistles(2650.0, 3400.0)),
    "pebchi": Species("Pebble Chipper", "Lapillator vulgaris", _chips(3700.0, 1300.0)),
    "reequa": Species("Reed Quaverer", "Tremulus harundinis", _quaver(3200.0, 650.0, 9.0)),
    "ruscra": Species("Rust Crake", "Crepitanta ferruginea", _stack(640.0, 0.0, 0.34)),
    "siltri": Species("Silver Triller", "Trillaria argentea", _trill(4900.0, 3900.0, 20.0, (0.8, 1.5))),
    "tinbuz": Species("Tin Buzzer", "Crepitanta stannea", _stack(760.0, 55.0, 0.42)),
}


def sample_voice(rng: np.random.Generator) -> Voice:
    """An individual's voice: pitch within 12 %, tempo within 22 % of its species' average."""
    return Voice(pitch=rng.uniform(0.88, 1.12), tempo=rng.uniform(0.78, 1.22))


def render_note(note: Note, rate: int = RATE) -> np.ndarray:
    """Make the sound of one note.

    (S,) float64 tone of unit amplitude, its first and last tenth faded; harmonics near Nyquist are left out.
    """
    n = max(round(note.seconds * rate), 2)
    part, time = np.linspace(0, 1, n), np.arange(n) / rate
    hz = note.start_hz * (note.end_hz / note.start_hz) ** part + note.arch_hz * np.sin(np.pi * part)
    hz = hz + note.vibrato_depth_hz * np.sin(2 * np.pi * note.vibrato_hz * time)
    phase = 2 * np.pi * np.cumsum(hz) / rate
    audible = [(k, a) for k, a in enumerate(note.harmonics, start=1) if k * hz.max() < 0.45 * rate]
    wave = sum(a * np.sin(k * phase) for k, a in audible) / sum(a for _, a in audible)
    if note.beat_hz:
        wave = wave * (0.5 - 0.5 * np.cos(2 * np.pi * note.beat_hz * time))
    return wave * np.sin(0.5 * np.pi * np.minimum(1, np.minimum(part, 1 - part) / 0.12)) ** 2


def render_phrase(notes: list[Note], voice: Voice, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make the sound of a phrase of notes.

    (S,) float32: the notes one after the other in this voice, each 1.5 % and 2 dB from the last at random.
    """
    parts = []
    for note in notes:
        pitch, slow = voice.pitch * rng.normal(1, 0.015), 1 / voice.tempo
        sung = replace(
            note, start_hz=note.start_hz * pitch, end_hz=note.end_hz * pitch, arch_hz=note.arch_hz * pitch,
            vibrato_depth_hz=note.vibrato_depth_hz * pitch, seconds=note.seconds * slow,
            vibrato_hz=note.vibrato_hz * voice.tempo, beat_hz=note.beat_hz * voice.tempo,
        )  # fmt: skip
        parts += [render_note(sung, rate) * 10 ** (rng.normal(0, 2) / 20), np.zeros(round(note.gap * slow * rate))]
    return np.concatenate(parts[:-1]).astype(np.float32)


def propagate(wave: np.ndarray, distance: float, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make a call sound as from afar.

    (S,) -> (S + tail,): as heard from `distance` (0 near, 1 far): highs absorbed, an echo of up to 0.3 s added.
    """
    tail = round(0.3 * rate)
    response = np.zeros(tail)
    response[0] = 1
    time = np.arange(1, tail) / rate
    echo = rng.standard_normal(tail - 1) * np.exp(-time / (0.02 + 0.05 * distance))
    response[1:] = 0.6 * distance * echo / np.sqrt(np.sum(echo**2))
    n = fft.next_fast_len(len(wave) + tail, real=True)
    absorbed = np.exp(-distance * fft.rfftfreq(n, 1 / rate) / 5000)
    heard = fft.irfft(fft.rfft(wave, n) * fft.rfft(response, n) * absorbed, n)
    return heard[: len(wave) + tail].astype(np.float32)


# --- what is no bird -------------------------------------------------------------------------------------------------
def shaped_noise(rng: np.random.Generator, n: int, power: Callable, rate: int = RATE) -> np.ndarray:
    """Make Gaussian noise of unit RMS with the spectrum `power(hz)`, (n,) float32."""
    size = fft.next_fast_len(n, real=True)
    hz = fft.rfftfreq(size, 1 / rate).astype(np.float32)
    spectrum = rng.standard_normal((2, len(hz)), dtype=np.float32) * np.sqrt(power(np.maximum(hz, 20)))
    noise = fft.irfft(spectrum[0] + 1j * spectrum[1], size)[:n]
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def background(rng: np.random.Generator, n: int, layers: dict[str, float], rate: int = RATE) -> np.ndarray:
    """Make the background of a recording from layers of noise.

    (n,) float32 of unit RMS from layers of relative amplitude: white, pink, brown, stream, wind, rain, hum.
    """
    time = np.arange(n, dtype=np.float32) / rate
    spectra = {"white": lambda f: 1 + 0 * f, "pink": lambda f: 1 / f, "brown": lambda f: 1 / f**2,
               "stream": lambda f: 1 / (1 + ((f - 1500) / 900) ** 2)}  # fmt: skip
    scene = np.zeros(n, np.float32)
    for name, gain in layers.items():
        if name in spectra:
            layer = shaped_noise(rng, n, spectra[name], rate)
        elif name == "wind":
            layer = shaped_noise(rng, n, lambda f: np.where(f < 900, f**-1.5, 0), rate) * _slow(rng, time, 0.7)
        elif name == "rain":
            layer = shaped_noise(rng, n, lambda f: (f / 4000) ** 2 / (1 + (f / 4000) ** 4), rate)
            layer = layer * rng.gamma(0.4, 2.5, len(time) // 400 + 1).astype(np.float32).repeat(400)[:n]
        elif name == "hum":
            layer = sum(np.sin(2 * np.pi * rng.uniform(99, 101) * k * time) / k for k in (1, 2, 3, 5))
        else:
            raise ValueError(f"unknown background layer '{name}'; known: {', '.join(spectra)}, wind, rain, hum")
        scene += np.float32(gain) * layer
    return scene / np.sqrt(np.mean(scene**2))


def _slow(rng: np.random.Generator, time: np.ndarray, seconds: float) -> np.ndarray:
    """A gain that wanders from one random value to the next every `seconds`."""
    knots = np.arange(0, time[-1] + 2 * seconds, seconds)
    return np.interp(time, knots, rng.uniform(0.15, 1.6, len(knots))).astype(np.float32)


def insect(rng: np.random.Generator, seconds: float, rate: int = RATE) -> np.ndarray:
    """Make the sound of an insect.

    (S,) float32 stridulation: a narrow band of noise at 5.4 to 7 kHz, pulsed 10 to 40 times a second.
    """
    time = np.arange(round(seconds * rate), dtype=np.float32) / rate
    centre, width = rng.uniform(5400, 7000), rng.uniform(60, 250)
    band = shaped_noise(rng, len(time), lambda f: np.exp(-(((f - centre) / width) ** 2)), rate)
    pulses = np.clip(np.sin(2 * np.pi * rng.uniform(10, 40) * time) + 0.3, 0, None)
    return (band * pulses * np.clip(4 * np.minimum(time, seconds - time), 0, 1)).astype(np.float32)


def knocks(rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make a series of knocks on wood.

    (S,) float32: 4 to 12 wooden knocks, damped resonances at 700 to 1600 Hz.
    """
    count, period = rng.integers(4, 13), rng.uniform(0.06, 0.2)
    time = np.arange(round(period * rate)) / rate
    knock = np.sin(2 * np.pi * rng.uniform(700, 1600) * time) * np.exp(-time / 0.012)
    return np.concatenate([knock * rng.uniform(0.6, 1) for _ in range(count)]).astype(np.float32)


def rustle(rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make a rustle of leaves or steps, a few bursts of noise above 1 kHz: (S,) float32."""
    time = np.arange(round(rng.uniform(0.4, 1.2) * rate), dtype=np.float32) / rate
    return shaped_noise(rng, len(time), lambda f: f / (1 + (f / 3000) ** 3), rate) * _slow(rng, time, 0.08) ** 3


def stranger(rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make the call of a bird that is not among the species, one to three level or bent tones: (S,) float32."""
    hz = rng.uniform(1500, 5000)
    note = Note(
        start_hz=hz,
        end_hz=hz * rng.uniform(0.9, 1.1),
        seconds=rng.uniform(0.15, 0.5),
        gap=rng.uniform(0.1, 0.3),
        arch_hz=rng.uniform(-300, 300),
    )
    return render_phrase([note] * int(rng.integers(1, 4)), Voice(), rng, rate)


def distractor(rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Make a sound that is no bird of the classes.

    (S,) float32: an insect, a series of knocks, a rustle or a stranger's call.
    """
    kind = rng.integers(4)
    if kind == 0:
        return insect(rng, rng.uniform(1, 4), rate)
    return (knocks, rustle, stranger)[kind - 1](rng, rate)


# --- scenes ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sound:
    """A waveform to lay over a background at `onset` with `snr_db`; no `event_label`: a distractor."""

    event_label: str
    onset: float
    wave: np.ndarray
    seconds: float  # of the event itself; the wave may ring on
    snr_db: float


def sing(code: str, voice: Voice, rng: np.random.Generator, distance: float) -> tuple[np.ndarray, float]:
    """One phrase of a species from a distance: (S,) waveform, and the seconds of the phrase without its echo."""
    phrase = render_phrase(SPECIES[code].sing(rng), voice, rng)
    return propagate(phrase, distance, rng), len(phrase) / RATE


def distractors(rng: np.random.Generator, seconds: float, per_minute: float) -> list[Sound]:
    """Distractors at random times of a scene of `seconds`, 3 to 14 dB over its background."""
    sounds = []
    for _ in range(rng.poisson(per_minute * seconds / 60)):
        wave = distractor(rng)
        length = len(wave) / RATE
        sounds.append(Sound("", rng.uniform(0, max(seconds - length, 0)), wave, length, rng.uniform(3, 14)))
    return sounds


def snr_gain(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> float:
    """Factor on `wave` (S,) that puts it `snr_db` over `noise` (S,) in the band of 90 % of the wave's energy."""
    n = fft.next_fast_len(len(wave), real=True)
    energy, noise_energy = (np.abs(fft.rfft(x, n)) ** 2 for x in (wave, noise))
    total = np.cumsum(energy, dtype=np.float64)
    low, high = np.searchsorted(total, [0.05 * total[-1], 0.95 * total[-1]])
    # a band that the background leaves empty would make the call vanish with it
    in_band = max(noise_energy[low : high + 1].sum(), 1e-4 * noise_energy.sum())
    return float(np.sqrt(in_band * 10 ** (snr_db / 10) / total[-1]))


def mix(scene: np.ndarray, sounds: list[Sound], rate: int = RATE) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Background + sounds -> the waveform, and its audible events (onset, offset, event_label), sorted by onset."""
    mixed, events = scene.copy(), []
    for sound in sounds:
        start = round(sound.onset * rate)
        wave = sound.wave[: len(scene) - start]
        mixed[start : start + len(wave)] += wave * snr_gain(wave, scene[start : start + len(wave)], sound.snr_db)
        if sound.event_label and sound.snr_db >= AUDIBLE_DB:
            offset = min(sound.onset + sound.seconds, len(scene) / rate)
            events.append((round(sound.onset, 3), round(offset, 3), sound.event_label))
    return mixed, sorted(events)


def at_level(wave: np.ndarray, rms_db: float) -> np.ndarray:
    """The waveform scaled to `rms_db` (dB of full scale), or less where its peak would pass 0.95."""
    gain = 10 ** (rms_db / 20) / np.sqrt(np.mean(wave**2))
    return (wave * min(gain, 0.95 / np.abs(wave).max())).astype(np.float32)

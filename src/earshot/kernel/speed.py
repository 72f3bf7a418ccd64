"""How fast this machine decodes, computes log-mels and runs networks, and what a whole test would take. No torch.

CPU seconds of one core, by stage, measured on a few recordings with the very functions that predict: what is left of
the one inference path when decoding, log-mel and networks are taken off is `join` (cutting windows, joining answers;
Python, one core whatever there are).
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from earshot.files import scratch_folder
from earshot.inputs import waveforms
from earshot.inputs.record import Input
from earshot.prediction.backends import open_graph
from earshot.prediction.graphs import members_of
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.precision import BF16, FLOAT32
from earshot.prediction.predictions import Clip
from earshot.prediction.reading import hearing_starts, input_key
from earshot.prediction.tta import Variant, tta_variants
from earshot.sound import audio, loudness
from earshot.sound.windows import Windowing

MEASURED_SECONDS, MEL_SECONDS = 30.0, 20.0  # of a recording
LEAST_DECODED = 1.0  # seconds; what opening a file takes would count for more in shorter ones
MADE_SECONDS = 20.0
REPEATS, LEAST_CALLS, MOST_CALLS, CALL_SECONDS = 3, 3, 50, 1.0
SYNTHETIC_RATE = 32000

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Network:
    """A graph of a bundle and what it predicts: its folds as members.

    alike: the run, whose networks cost the same and are averaged; weight: the network's share of that mean.
    """

    name: str
    members: tuple[Member, ...]
    alike: str
    weight: float = 1.0
    tta: tuple[str, ...] = ()  # further hearings, each worth a round of its own

    @property
    def backend(self):
        return self.members[0].backend

    @property
    def windowing(self) -> Windowing:
        return self.members[0].windowing

    @property
    def precision(self) -> str:
        """What it is computed in here: float32 (an int8 graph's other layers), or bf16."""
        return getattr(self.backend, "precision", FLOAT32)

    @property
    def window_key(self) -> tuple:
        return self.members[0].window_key


@dataclass(frozen=True)
class Speed:
    """CPU seconds: `decode` a second of audio by rate, `logmel` a second by front end, others a window by `alike`."""

    decode: Mapping[int, float] = field(default_factory=dict)
    logmel: Mapping[Hashable, float] = field(default_factory=dict)
    network: Mapping[str, float] = field(default_factory=dict)
    join: Mapping[str, float] = field(default_factory=dict)

    def stages(self, networks: Sequence[Network], seconds: float, tta: str | None = None) -> dict[str, float]:
        """CPU seconds by stage of a recording that `networks`, which hear alike, hear in one pass (or by `tta`)."""
        windowing = networks[0].windowing
        n_samples = max(1, round(seconds * windowing.sample_rate))
        total = dict.fromkeys(("decode", "logmel", "network", "join"), 0.0)
        if windowing.level == "normalised":  # how loud it is is measured on all of it before any of it is heard
            total["decode"] += loudness.measured_seconds(seconds) * self.decode[windowing.sample_rate]
        for variant in tta_variants([tta] if tta else (), plain=not tta):
            starts, stride, _ = hearing_starts(n_samples, windowing, variant)
            windows = len(starts)
            heard = max(n_samples, windowing.window_samples) / windowing.sample_rate
            total["decode"] += seconds * self.decode[windowing.sample_rate]
            for key in {k for n in networks for k in front_ends(n)}:
                grid = waveforms.grid(windowing.sample_rate, key)
                shared = grid and stride % grid == 0 and not variant.redraws
                total["logmel"] += self.logmel[key] * (heard if shared else windows * windowing.window_seconds)
            total["network"] += windows * sum(self.network[n.alike] for n in networks)
            total["join"] += windows * sum(self.join[n.alike] for n in networks)
        return total

    def wall(self, networks: Sequence[Network], seconds: float, cores: int, tta: str | None = None) -> float:
        """Seconds by the clock with `cores` for all but `join`."""
        return wall_of(self.stages(networks, seconds, tta), cores)


def wall_of(stages: Mapping[str, float], cores: int) -> float:
    """CPU seconds by stage -> seconds by the clock: `join` is Python and has one core, the rest has all."""
    return stages["join"] + (stages["decode"] + stages["logmel"] + stages["network"]) / cores


def front_ends(network: Network) -> set[Input]:
    """The distinct inputs that are computed for a network."""
    keys = {input_key(network.backend, name) for name in network.backend.inputs}
    return {key for key in keys if isinstance(key, Input) and not (key.hop == 1 and not key.macs(1))}


# ---- measuring


def measure(
    networks: Sequence[Network], recordings: Path | Sequence[Path], clock: Callable[[], float] = time.process_time,
    limit: float = math.inf,
) -> Speed:  # fmt: skip
    """Speed of all stages; decoding is the median over `recordings`, of each its first half minute.

    A second counts where it was decoded, whatever a header says. Recordings that cannot be read are passed over; where
    none can, or all are a few samples long, a made one takes their place. One of each `alike` networks is timed, after
    a first call that is not. After `limit` seconds by the wall everything is measured once and no more.
    """
    until = time.monotonic() + limit
    paths = [recordings] if isinstance(recordings, Path) else list(recordings)
    rates = sorted({n.windowing.sample_rate for n in networks})
    decode, logmel, network, join = {}, {}, {}, {}
    with scratch_folder() as folder:
        made = synthetic_recording(folder, MADE_SECONDS)
        for rate in rates:
            decode[rate] = _decode_seconds(paths, rate, clock, until) or _decode_seconds([made], rate, clock, until)
        for key, w in {k: n.windowing for n in networks for k in front_ends(n)}.items():
            logmel[key] = _best(partial(_compute, key, w, _noise(w, MEL_SECONDS, 0.1)), clock, until) / MEL_SECONDS
        for one in networks:
            if one.alike not in network:
                network[one.alike], outputs = _network_seconds(one, clock, until)
                join[one.alike] = _join_seconds(one, outputs, made, logmel, clock, until)
    return Speed(decode, logmel, network, join)


def _decode_seconds(paths: Sequence[Path], rate: int, clock, until: float) -> float:
    """CPU seconds that a second of sound takes to decode: the median over recordings, 0 where none can be read."""
    found = []
    for path in paths:
        if found and time.monotonic() > until:
            break
        try:
            decoded = len(audio.load(path, rate, 0.0, MEASURED_SECONDS)) / rate
            if decoded >= LEAST_DECODED:
                call = partial(audio.load, path, rate, 0.0, MEASURED_SECONDS)
                found.append(_best(call, clock, until) / decoded)
        except audio.UnreadableAudio as error:
            logger.warning("speed is not measured on a recording: %s", error)
    return statistics.median(found) if found else 0.0


def _best(call: Callable, clock, until: float = math.inf) -> float:
    """The least of a few times, of one where the time is up: others are the machine's doing."""
    times = []
    while not times or (len(times) < REPEATS and time.monotonic() < until):
        began = clock()
        call()
        times.append(clock() - began)
    return max(min(times), 1e-9)


def _noise(windowing: Windowing, seconds: float, level: float) -> np.ndarray:
    """(S,) or (2, S) float32 at the rate of the windows."""
    rng, n_samples = np.random.default_rng(0), round(seconds * windowing.sample_rate)
    shape = n_samples if windowing.n_channels == 1 else (windowing.n_channels, n_samples)
    return (level * rng.standard_normal(shape)).astype(np.float32)


def _compute(record: Input, windowing: Windowing, waveform: np.ndarray) -> np.ndarray:
    return record.compute(waveforms.as_heard(waveform, windowing.sample_rate, record))


def one_window(network: Network) -> dict[str, np.ndarray]:
    """Quiet noise as one window of a network's inputs."""
    w = network.windowing
    waveform = _noise(w, w.window_samples / w.sample_rate, 0.01)
    heard = {name: network.backend.frontends[name] for name in network.backend.inputs}
    for name, record in heard.items():
        if not record.sounds:
            raise ValueError(
                f"network {network.name} needs '{name}', which a folder of recordings does not have: see src/predict.py"
            )
    return {name: values[None] for name, values in waveforms.hear(heard, waveform, w.sample_rate).items()}


def _network_seconds(network: Network, clock, until: float) -> tuple[float, dict]:
    """CPU seconds a window where calls are full, and what the network answers to one window."""
    windows = network.windowing.batch_size
    inputs = {name: np.repeat(values, windows, axis=0) for name, values in one_window(network).items()}
    outputs = network.backend.run(inputs)
    began, calls = clock(), 0
    while not calls or (
        time.monotonic() < until and (calls < LEAST_CALLS or (clock() - began < CALL_SECONDS and calls < MOST_CALLS))
    ):
        network.backend.run(inputs)
        calls += 1
    return (clock() - began) / (calls * windows), {name: values[:1] for name, values in outputs.items()}


@dataclass
class _Answered:
    """A backend that costs nothing: it answers every window alike."""

    backend: object
    outputs: dict

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = len(next(iter(inputs.values())))
        return {k: np.repeat(v, batch, axis=0) for k, v in self.outputs.items()}


def _join_seconds(network: Network, outputs, recording: Path, logmel, clock, until: float) -> float:
    """CPU seconds a window of the inference path without decoding, log-mel and network."""
    free = _Answered(network.backend, outputs)
    windowing = replace(network.windowing, one_pass=False, level="recorded")  # the level is decoding, not joining
    members = [replace(m, backend=free, windowing=windowing) for m in network.members]
    rate, seconds = windowing.sample_rate, audio.info(recording).duration
    clip = Clip("one", recording)
    total = _best(lambda: predict_members(members, [clip]), clock, until)
    decode = {rate: _best(lambda: audio.load(recording, rate), clock, until) / seconds}
    known = Speed(decode, logmel, {network.alike: 0.0}, {network.alike: 0.0}).stages([network], seconds)
    windows = len(hearing_starts(round(seconds * rate), windowing, Variant())[0])
    return max(0.0, total - sum(known.values())) / windows


# ---- what a whole test would take


def in_float32(network: Network) -> Network:
    """The same network as a processor without bfloat16 computes it; any other as it is."""
    return reopened(network, network.backend.threads, FLOAT32) if network.precision == BF16 else network


def reopened(network: Network, threads: int, precision: str = "") -> Network:
    """The same network from its file, with so many threads a call and the precision, '' for its own."""
    graph = open_graph(network.backend.path, threads, precision)
    graph.frontends = network.backend.frontends  # which know where the extractors of a bundle lie
    (windowing, *_) = [member.windowing for member in members_of(graph)]
    changed = {"backend": graph, "windowing": replace(network.windowing, batch_size=windowing.batch_size)}
    return replace(network, members=tuple(replace(member, **changed) for member in network.members))


def synthetic_recording(folder: Path, seconds: float) -> Path:
    """An Ogg file of noise and tones at 32 kHz: takes longer to decode than most real ones."""
    rng, t = np.random.default_rng(0), np.arange(round(seconds * SYNTHETIC_RATE)) / SYNTHETIC_RATE
    tone = np.sin(2 * np.pi * (2000 + 500 * np.sin(2 * np.pi * 0.5 * t)) * t)
    path = folder / "recording.ogg"
    audio.write(path, (0.1 * tone + 0.02 * rng.standard_normal(len(t))).astype(np.float32), SYNTHETIC_RATE)
    return path


def simulate(
    networks: Sequence[Network], n_files: int, seconds: float, cores: int, recording: Path | None = None
) -> dict:
    """Time that `n_files` recordings of `seconds` take, as the runner would run them: the first network alone, then
    each group that hears alike in one pass, then their further hearings; from speeds measured now on `recording`
    (default: a made one). {"stages": CPU seconds by stage, "cpu_seconds", "minutes": by the clock with `cores`}.

    Graphs for bfloat16 are measured in float32, since the processor that they will run on may lack it.
    """
    networks = [in_float32(network) for network in networks]
    with scratch_folder() as folder:
        path = recording or synthetic_recording(folder, min(seconds, MEASURED_SECONDS))
        speed = measure(networks, path)
    stages = dict.fromkeys(("decode", "logmel", "network", "join"), 0.0)
    for some, tta in passes(ordered(networks, speed)):
        for stage, value in speed.stages(some, seconds, tta).items():
            stages[stage] += n_files * value
    wall = wall_of(stages, cores)
    return {"stages": stages, "cpu_seconds": sum(stages.values()), "minutes": wall / 60, "speed": speed}


def ordered(networks: Sequence[Network], speed: Speed) -> list[Network]:
    """Cheap ones first; those that hear alike stay together, where they share decoding and log-mel.

    The first one, which alone may have the time, knows as many classes as any.
    """

    def cost(n):
        return (speed.network[n.alike] + speed.join[n.alike]) / n.windowing.stride_seconds

    cheapest = {n.window_key: min(cost(m) for m in networks if m.window_key == n.window_key) for n in networks}
    found = sorted(networks, key=lambda n: (cheapest[n.window_key], str(n.window_key), cost(n)))
    most = max(len(n.members[0].classes) for n in found)
    found.insert(0, found.pop(next(i for i, n in enumerate(found) if len(n.members[0].classes) == most)))
    return found


def passes(networks: Sequence[Network]) -> list[tuple[list[Network], str | None]]:
    """What the runner does with all the time in the world: (networks of a pass, further hearing or None)."""
    first, groups = networks[0], {}
    for network in networks[1:]:
        groups.setdefault((network.window_key, None), []).append(network)
    for network in networks:
        for name in network.tta:
            groups.setdefault((network.window_key, name), []).append(network)
    return [([first], None)] + [(some, tta) for (_, tta), some in groups.items()]

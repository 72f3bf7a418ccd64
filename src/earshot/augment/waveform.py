"""Waveform augmentation by audiomentations, with a random stream of its own.

audiomentations draws from the global `random` and `numpy.random`. Here both are seeded from the caller's generator
for the call and put back after it: the same generator gives the same samples whatever ran before, and nothing else
moves. So two threads must not augment at once (loader processes may).

Besides theirs there are AddGaussianNoiseShare, noise by its share of the waveform's deviation, and Reverberate, an
invented room at some distance, which needs no recorded impulse responses.

Files that transforms mix in (noise, impulse responses) are read as all recordings here are, by sound/audio.py: what a
folder holds besides, and what cannot be read, is named when the augmentation is built and left out; a file that proves
damaged later leaves the example as it is.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from earshot.messages import check_params, check_transforms, few, plural, suggest
from earshot.sound import audio
from earshot.sound.changes import impulse_response, reverberant
from earshot.sound.folder import list_recordings

CONTAINERS = ("Compose", "OneOf", "SomeOf")  # hold `transforms`, a list of entries themselves
MOVING = ("RepeatPart", "Reverse", "Shift", "TimeStretch")  # sounds come to lie elsewhere in time
FILE_LISTS = {"sounds_path": "sound_file_paths", "ir_path": "ir_files"}  # a parameter -> the transform's own list
FILE_READERS = ("add_background_noise", "add_short_noises", "apply_impulse_response")  # modules that load files

logger = logging.getLogger("earshot")


def build_waveform_augment(specs: Sequence[dict]):
    """List of {name, p, ...} -> callable for `apply`; None of an empty list.

    Names and parameters are audiomentations' own; Compose, OneOf and SomeOf take `transforms`, a list like this one.
    Errors: an unknown name or parameter, with the nearest known one.
    """
    if not specs:
        return None
    from audiomentations import Compose  # here: the import takes seconds

    return Compose([_build(spec) for spec in specs])


def apply(augment, waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Augment a waveform, and leave the one that was given as it is.

    (S,) or (C, S) float32 -> the same shape, augmented; the input is left as it is.

    A file to mix in that proves unreadable is named once and leaves the waveform as it is. Errors: a transform that
    changes the length (AdjustDuration, Trim, Padding), since a batch needs equal lengths.
    """
    _read_files_as_recordings()
    states = random.getstate(), np.random.get_state()
    seed = int(rng.integers(2**32))
    try:
        random.seed(seed)
        np.random.seed(seed)
        out = augment(np.array(waveform, np.float32), sample_rate)
    except audio.UnreadableAudio as error:
        audio.warn_once(f"waveform augmentation leaves examples that would hear it as they are: {error}")
        out = waveform
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    if out.shape != waveform.shape:
        raise ValueError(f"waveform augmentation changed the shape from {waveform.shape} to {out.shape}: leave it out")
    return np.ascontiguousarray(out, np.float32)


def check_waveform_augment(augment, n_samples: int, sample_rate: int, n_channels: int):
    """Raise where a transform cannot be applied to an example: its package is missing, it hears one channel only, or it
    changes the length.

    Each is applied to noise once, whatever its probability: in training it may be the hundredth example that fails.
    """
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.1, 0.1, n_samples if n_channels == 1 else (n_channels, n_samples)).astype(np.float32)
    for transform in _transforms_in(augment):
        name, p, transform.p = type(transform).__name__, transform.p, 1.0
        try:
            apply(transform, noise, sample_rate, rng)
        except ImportError as error:
            raise ValueError(
                f"augment.waveform: {name} needs a package that is not installed ({error}): leave it out, or pip "
                "install 'audiomentations[extras]'"
            ) from error
        except Exception as error:  # whatever a library's transform cannot do with such an example
            raise ValueError(
                f"augment.waveform: {name} fails on a crop: {str(error) or type(error).__name__}"
            ) from error
        finally:
            transform.p = p


def moving_transforms(augment) -> list[str]:
    """Names of its transforms after which sounds lie elsewhere in time."""
    return sorted({type(t).__name__ for t in _transforms_in(augment)} & set(MOVING))


def _transforms_in(augment) -> list:
    """The transforms of a composition, those of compositions in it too."""
    if augment is None:
        return []
    inner = getattr(augment, "transforms", None)
    return [augment] if inner is None else [leaf for transform in inner for leaf in _transforms_in(transform)]


@lru_cache(maxsize=1)
def _own_transforms() -> dict[str, type]:
    """Transforms that audiomentations lacks, by name; made here because its import takes seconds."""
    from audiomentations.core.transforms_interface import BaseWaveformTransform

    class AddGaussianNoiseShare(BaseWaveformTransform):
        """White noise of a standard deviation between `min_share` and `max_share` of the waveform's own, uniformly.

        audiomentations' AddGaussianSNR before it took decibels, which the rainforest system's source calls.
        """

        supports_multichannel = True

        def __init__(self, min_share: float = 0.001, max_share: float = 1.0, p: float = 0.5):
            super().__init__(p)
            if not 0 <= min_share <= max_share:
                raise ValueError(
                    f"AddGaussianNoiseShare needs 0 <= min_share <= max_share, got {min_share}, {max_share}"
                )
            self.min_share, self.max_share = min_share, max_share

        def randomize_parameters(self, samples: np.ndarray, sample_rate: int):
            super().randomize_parameters(samples, sample_rate)
            if self.parameters["should_apply"]:
                self.parameters["share"] = random.uniform(self.min_share, self.max_share)

        def apply(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
            deviation = self.parameters["share"] * np.std(samples)
            return samples + np.random.normal(0, deviation, samples.shape).astype(np.float32)

    class Reverberate(BaseWaveformTransform):
        """The sound in an invented room, whose tail falls by 60 dB in min_rt60 to max_rt60 seconds.

        The direct sound is min_direct_db to max_direct_db above the tail (near: much), drawn uniformly; onsets stay.
        """

        supports_multichannel = True

        def __init__(
            self, min_rt60: float = 0.1, max_rt60: float = 0.8, min_direct_db: float = 0.0,
            max_direct_db: float = 20.0, p: float = 0.5,
        ):  # fmt: skip
            super().__init__(p)
            if not (0 < min_rt60 <= max_rt60 and min_direct_db <= max_direct_db):
                raise ValueError(
                    "Reverberate needs 0 < min_rt60 <= max_rt60 and min_direct_db <= max_direct_db, got "
                    f"{min_rt60}, {max_rt60}, {min_direct_db}, {max_direct_db}"
                )
            self.rt60, self.direct_db = (min_rt60, max_rt60), (min_direct_db, max_direct_db)

        def randomize_parameters(self, samples: np.ndarray, sample_rate: int):
            super().randomize_parameters(samples, sample_rate)
            if self.parameters["should_apply"]:
                self.parameters["rt60"] = random.uniform(*self.rt60)
                self.parameters["direct_db"] = random.uniform(*self.direct_db)
                self.parameters["seed"] = random.getrandbits(32)

        def apply(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
            room = np.random.default_rng(self.parameters["seed"])
            how = self.parameters["rt60"], self.parameters["direct_db"]
            return reverberant(samples, impulse_response(sample_rate, *how, room))

    return {"AddGaussianNoiseShare": AddGaussianNoiseShare, "Reverberate": Reverberate}


def _build(spec: dict):
    """One {name, p, ...} -> transform, its files sorted."""
    import audiomentations

    spec = dict(spec)
    name = spec.pop("name", None)
    kinds = {n: k for n, k in vars(audiomentations).items() if inspect.isclass(k) and n != "Lambda"} | _own_transforms()
    if name not in kinds:
        raise ValueError(f"unknown waveform augmentation '{name}'{suggest(str(name), kinds)}")
    known = list(inspect.signature(kinds[name].__init__).parameters)[1:]
    check_params(spec, known, f"waveform augmentation {name}")
    if name in CONTAINERS:
        check_transforms(name, spec)
        spec["transforms"] = [_build(inner) for inner in spec.get("transforms", ())]
    files = {key: _readable(spec[key], f"{name}.{key}") for key in FILE_LISTS if spec.get(key)}
    for key, known in files.items():
        spec[key] = list(known)
    try:
        transform = kinds[name](**spec)
    except (AssertionError, TypeError, ValueError) as error:
        why = str(error) or "these parameters do not go together"
        raise ValueError(f"waveform augmentation {name} cannot be made of {spec}: {why}") from error
    for key, known in files.items():
        setattr(transform, FILE_LISTS[key], list(known))
        if hasattr(transform, "time_info_arr"):  # durations, which it would otherwise take from the headers
            transform.time_info_arr = np.array(list(known.values()), np.float32)
    return transform


def _readable(given, what: str) -> dict[str, float]:
    """Folders and files -> {path: seconds} of the recordings among them, sorted, whatever the machine's order."""
    given = [given] if isinstance(given, str | Path) else list(given)
    found, left_out = {}, []
    for path in map(Path, given):
        recordings = list_recordings(path) if path.is_dir() else None
        if recordings and (text := recordings.said()):
            logger.warning(f"{what}: {text}")
        for file in recordings.files if recordings else [path]:
            try:
                found[str(file.absolute())] = audio.info(file).duration
            except audio.UnreadableAudio as error:
                left_out.append(str(error))
    if left_out:
        logger.warning(f"{what}: {plural(len(left_out), 'files')} cannot be read, left out: {few(left_out, 3)}")
    if not found:
        raise ValueError(f"{what} names no recording that can be read: {few(map(str, given))}")
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)  # once a process: a loader's worker may have been started afresh
def _read_files_as_recordings():
    """Let audiomentations load files by sound/audio.py: its own loader ends a run at a damaged one, and names none."""
    for module in FILE_READERS:
        importlib.import_module(f"audiomentations.augmentations.{module}").load_sound_file = _load_sound_file


def _load_sound_file(
    file_path, sample_rate=None, mono=True, resample_type="auto", offset=0.0, duration=None
) -> tuple[np.ndarray, int]:
    """What audiomentations' loader of that name gives: (S,) or (C, S) float32 and its rate in Hz."""
    rate = sample_rate or audio.info(file_path).sample_rate
    waveform = audio.load(file_path, rate, offset, duration, mono)
    if not waveform.size:
        raise audio.UnreadableAudio(f"{file_path} holds nothing from {offset:.2f} s on, where it is damaged")
    return waveform, rate

"""The clips that a page shows: which ones, how they sound and look, what was said of them and what is true."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from earshot.events import PostProcess, detect
from earshot.pages.figures import SHOWN_CLASSES, clip_picture, data_url, embedded
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel, mel_centres

HEARD_SECONDS = 12.0  # of a clip that are kept: a page stays small
BUTTONS = 24  # events of a clip that can be clicked
RATE = 16000  # Hz of the sound in a page
FLOOR = 1e-6


@dataclass(frozen=True)
class Chosen:
    """A clip to show: its number in the predictions, why it is shown, and the number of the class that it is about."""

    index: int
    why: str
    about: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page's template needs of one clip; texts are escaped there."""

    clip_id: str
    why: str
    true: str
    outputs: list[tuple[str, float]]
    picture: str
    sound: str
    events: list[tuple[float, float, str, str]]  # onset, offset, label, 'true' or 'predicted'
    note: str = ""


def surprising(found: Predictions, target: np.ndarray, count: int) -> list[Chosen]:
    """The clips of the largest loss, then the surest false alarms and the surest misses, no clip twice.

    target: (N, K) answers. Unreadable clips are not shown.
    """
    p = np.clip(found.clipwise_output.astype(np.float64), FLOOR, 1 - FLOOR)
    y = target > 0.5
    loss, alarm, miss = -np.where(y, np.log(p), np.log(1 - p)), np.where(y, 0, p), np.where(y, 1 - p, 0)
    chosen: list[Chosen] = []
    for of_class, why in ((loss, "largest loss"), (alarm, "surest false alarm"), (miss, "surest miss")):
        values = of_class.mean(axis=1) if of_class is loss else of_class.max(axis=1)
        taken = {c.index for c in chosen} | set(np.flatnonzero(found.unreadable).tolist())
        order = [int(i) for i in np.argsort(-values, kind="stable") if int(i) not in taken and values[i] > 0]
        for i in order[:count]:
            k = int(of_class[i].argmax())
            most = f", most of it by {found.classes[k]}" if of_class is loss else f": {found.classes[k]}"
            chosen.append(Chosen(i, f"{why} {values[i]:.2f}{most}", k))
    return chosen


def make_card(chosen: Chosen, found: Predictions, truth: Truth, path: Path, post: PostProcess) -> Card:
    """One clip -> its card; a recording that cannot be read has a note in place of sound and picture."""
    i, classes = chosen.index, found.classes
    clip_id, outputs = str(found.clip_ids[i]), found.clipwise_output[i]
    true, order = np.flatnonzero(truth.target[i] > 0.5), np.argsort(-outputs, kind="stable")
    known = {
        "clip_id": clip_id, "why": chosen.why, "true": ", ".join(str(classes[k]) for k in true),
        "outputs": [(str(classes[k]), float(outputs[k])) for k in order[:SHOWN_CLASSES]],
    }  # fmt: skip
    try:
        waveform = audio.load(path, RATE)
    except (audio.UnreadableAudio, OSError) as error:
        return Card(**known, picture="", sound="", events=[], note=str(error))
    own = None if truth.events is None else truth.events[truth.events.filename == clip_id]
    whole = len(waveform) / RATE
    start, seconds, frames, step = _excerpt(chosen, found, own, whole)
    heard, events = waveform[round(start * RATE) : round((start + seconds) * RATE)], []
    if frames is not None:
        events = [(*e, "predicted") for e in _rows(detect(frames, found.timebase, classes, clip_id, post, outputs))]
    if own is not None:
        own = own.assign(onset=(own.onset - start).clip(lower=0), offset=own.offset - start)
        own = own[(own.offset > 0) & (own.onset < seconds)]
        events += [(*e, "true") for e in _rows(own)]
    shown = list(dict.fromkeys([*true[:3].tolist(), *order[:3].tolist()]))
    params = LogmelParams(sample_rate=RATE, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=RATE // 2)
    picture = embedded(
        lambda target: clip_picture(
            log_mel(heard, params), mel_centres(params), seconds, frames=frames, step=step, events=own, classes=classes,
            shown=shown, path=target,
        )
    )  # fmt: skip
    events = sorted(e for e in events if e[0] < seconds)
    notes = [f"{HEARD_SECONDS:g} s of {whole:.1f} s, from {start:.1f} s on"] * (len(heard) < len(waveform))
    notes += [f"the first {BUTTONS} of {len(events)} events"] * (len(events) > BUTTONS)
    return Card(**known, picture=picture, sound=sound_of(heard), events=events[:BUTTONS], note="; ".join(notes))


def _excerpt(chosen: Chosen, found: Predictions, events, whole: float) -> tuple[float, float, np.ndarray | None, float]:
    """What is shown of a clip of `whole` seconds: its start and length in seconds, its frames (S, K), and their step.

    events: the clip's true ones, or None. Without outputs in time the frames are None and the step 0.
    """
    seconds = min(whole, HEARD_SECONDS)
    start = min(max(0.0, moment_of(chosen, found, events) - seconds / 2), whole - seconds)
    if found.framewise_output is None:
        return start, seconds, None, 0.0
    step = found.timebase.frame_seconds
    first, count = int(start / step), int(np.ceil(seconds / step))
    return first * step, seconds, found.framewise_output[chosen.index][first : first + count], step


def moment_of(chosen: Chosen, found: Predictions, events) -> float:
    """The second of a clip to show: where its class is heard and least found, else where its output is highest.

    events: the clip's true ones, or None.
    """
    label = found.classes[chosen.about]
    true = () if events is None else events[events.event_label == label].itertuples()
    if found.framewise_output is None:
        return next(((e.onset + e.offset) / 2 for e in true), 0.0)
    output, step = found.framewise_output[chosen.index][:, chosen.about], found.timebase.frame_seconds
    moments = [(e.onset + e.offset) / 2 for e in true] or [(output.argmax() + 0.5) * step if len(output) else 0.0]
    return float(min(moments, key=lambda s: output[min(int(s / step), len(output) - 1)] if len(output) else 0.0))


def _rows(events) -> list[tuple[float, float, str]]:
    return [(float(e.onset), float(e.offset), str(e.event_label)) for e in events.itertuples()]


def sound_of(waveform: np.ndarray, rate: int = RATE) -> str:
    """A sound -> an ogg as data URL, as loud as it may be. waveform: (S,) samples at `rate` Hz."""
    loud = waveform * (0.9 / max(float(np.abs(waveform).max(initial=0)), 1e-4))
    buffer = io.BytesIO()
    soundfile.write(buffer, loud.astype(np.float32), rate, format="OGG", subtype="VORBIS")
    return data_url(buffer.getvalue(), "audio/ogg")

"""One question of a review: how the stretch sounds and looks, as a piece of HTML that needs no other file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment

from earshot.pages.clip_cards import sound_of
from earshot.pages.figures import data_url
from earshot.pictures.folds import _figure, no_formulas, shown
from earshot.pictures.sounds import HIGHEST, log_mel_axis, view_of
from earshot.review.questions import Question
from earshot.sound import audio
from earshot.sound.logmel import log_mel, mel_centres

MARKED = 12  # other detections of the stretch that are marked


def card(question: Question, others: Sequence[Question] = ()) -> str:
    """The HTML of a question; others: further detections, of which those in the same stretch are marked."""
    seconds = question.end - question.start
    inside = [o for o in others if o.path == question.path and o.item != question.item
              and o.onset < question.end and o.offset > question.start][:MARKED]  # fmt: skip
    events = [(max(0.0, q.onset - question.start), min(q.offset - question.start, seconds), q.event_label, kind)
              for q, kind in [(question, "asked"), *((o, "other") for o in inside)]]  # fmt: skip
    about = {"question": question, "events": events, "seconds": seconds, "picture": "", "sound": "", "note": ""}
    try:
        rate = min(HIGHEST, audio.info(Path(question.path)).sample_rate)
        waveform = audio.load(Path(question.path), rate, question.start, seconds)
    except audio.UnreadableAudio as error:
        about["note"] = f"this stretch cannot be read: {error}"
    else:
        picture, left, width = picture_of(waveform, seconds, rate, question.start, events)
        about |= {"picture": picture, "left": left, "width": width, "sound": sound_of(waveform, rate)}
    return _template().render(about)


def picture_of(
    waveform: np.ndarray, seconds: float, rate: float, start: float, events: Sequence[tuple]
) -> tuple[str, float, float]:
    """A log-mel with its detections -> (data URL, where in it the axis begins, its width, as shares of the picture).

    rate: of the sound; start: second of the recording at the left edge.
    """
    figure, axes = _figure(8, 3)
    axis, params = axes[0, 0], view_of(rate)
    log_mel_axis(axis, log_mel(waveform, params), mel_centres(params), seconds, start)
    for onset, offset, label, kind in events:
        colour = "white" if kind == "asked" else "0.75"
        style = "-" if kind == "asked" else ":"
        for edge in (onset, offset):
            axis.axvline(start + edge, color=colour, linestyle=style, linewidth=1.4)
        place = start + onset + 0.004 * seconds, 0.97 * params.n_mels
        axis.text(*place, shown(label, 24), color=colour, fontsize=8, va="top", clip_on=True)
    axis.set_xlabel("seconds of the recording", fontsize=8)
    with tempfile.TemporaryDirectory() as folder, no_formulas(figure):
        path = Path(folder) / "picture.png"
        figure.savefig(path, dpi=100)
        place = axis.get_position()
        return data_url(path.read_bytes(), "image/png"), round(place.x0, 5), round(place.width, 5)


@lru_cache(maxsize=1)
def _template():
    text = resources.files("earshot.pages").joinpath("review.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text)

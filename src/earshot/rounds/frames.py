"""When what is heard in pseudo-labelled windows: the teachers' framewise outputs of the windows that were chosen.

Only recordings with a chosen window are heard again, for each fold by its own teachers, in windows that lie where those
of the labels do. So frames are isolated as the labels are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from earshot.data.pseudo import PseudoLabels
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.predictions import Clip
from earshot.rounds.choosing import Choice
from earshot.rounds.frame_events import event_frames, posts_of
from earshot.rounds.teachers import Teachers


def as_framewise(member: Member) -> Member:
    """A teacher's network that answers by its own segments, in the same windows.

    Errors: a network without outputs over time cannot say when.
    """
    backend = member.backend.backend  # without the answers of whole windows around it
    silence = backend.frontends.silence(member.windowing.window_samples)
    if "segmentwise_output" not in backend.run({name: values[None] for name, values in silence.items()}):
        raise ValueError(
            f"{member.origin.run if member.origin else 'a teacher'} has no outputs over time: leave --frames out, or "
            "label with networks that detect events"
        )
    return replace(member, backend=backend)


def check_framewise(teachers: Teachers):
    """Raise where a run cannot say when, before anything is heard; the networks of one fold speak for all."""
    for member in next(iter(teachers.members.values())):
        as_framewise(member)


def with_frames(
    teachers: Teachers, chosen: dict[int, PseudoLabels], root: Path, asked: Choice, progress: Callable = iter
) -> tuple[dict[int, PseudoLabels], float]:
    """Give the windows of each fold ({fold: windows}) their frames; with them the seconds between two frames.

    progress: wraps the recordings of each fold. Frames become targets as windows do (power, hard, floor), or say where
    the teachers find events (frame_events). Errors: teachers whose frames lie on different grids.
    """
    found, seconds = {}, set()
    posts = posts_of(teachers) if asked.frame_events else {}
    for fold, windows in chosen.items():
        members = [as_framewise(member) for member in teachers.members[fold]]
        places = dict(zip(windows.clip_ids.tolist(), windows.paths.tolist(), strict=True))
        clips = [Clip(clip_id, root / path) for clip_id, path in places.items()]
        length = teachers.windowing.window_seconds
        parts = []
        for member in members:  # one after the other: teachers may hear other windows
            answers, _ = predict_members([member], clips, progress=progress)
            base = member.backend.timebase if not clips else answers[0].timebase
            seconds.add(base.frame_samples / base.sample_rate)
            parts.append(answers[0])
        if len(seconds) > 1:
            raise ValueError(
                f"these teachers say when on different grids ({', '.join(f'{s:g} s' for s in sorted(seconds))}): "
                "--frames needs teachers of one grid"
            )
        whole = {}
        for i, clip_id in enumerate(parts[0].clip_ids.tolist()):
            mean = np.mean([part.framewise_output[i] for part in parts], axis=0, dtype=np.float32).clip(0, 1)
            if asked.frame_events:
                whole[clip_id] = event_frames(mean, base, parts[0].classes, posts[fold], asked.frame_unsure)
            else:
                whole[clip_id] = asked.targets(mean)
        found[fold] = replace(windows, frames=cut(whole, windows, base, length).astype(np.float16))
    return found, seconds.pop() if seconds else 0.0


def cut(whole: dict[str, np.ndarray], windows: PseudoLabels, base, seconds: float) -> np.ndarray:
    """Cut the frames of windows, (N, T, K), out of those of whole recordings; 0 behind a recording's end."""
    n_frames, n_classes = round(seconds * base.sample_rate / base.frame_samples), windows.target.shape[1]
    out = np.zeros((len(windows), n_frames, n_classes), np.float32)
    for i, (clip, start) in enumerate(zip(windows.clip_ids.tolist(), windows.starts, strict=True)):
        first = round(float(start) * base.sample_rate / base.frame_samples)
        own = whole[clip][first : first + n_frames]
        out[i, : len(own)] = own
    return out

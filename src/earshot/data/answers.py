"""The answers to predicted clips: from the data that a run was trained on, or from a clip table."""

from __future__ import annotations

from pathlib import Path

from earshot.data.labels import annotated_clips, clip_targets, negative_events, read_classes, read_clips
from earshot.data.prepared import PreparedData, read_events
from earshot.messages import few
from earshot.prediction.places import as_names, places
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tables import require_columns


def truth_of(found: Predictions, data: PreparedData) -> Truth:
    """The answers to the predicted clips, in their order."""
    names = as_names(found.clip_ids)
    index = places(names, as_names(data.clips.clip_id))
    if len(unknown := names[index < 0]):
        raise ValueError(f"{len(unknown)} predicted clips are not in the clip table: {few(unknown)}")
    return answers_of(data.take(index))


def answers_of(data: PreparedData) -> Truth:
    """The answers to these clips, in their order."""
    events = data.clip_events(data.clips.clip_id)
    annotated = None if events is None else data.annotated
    return Truth(data.target > 0.5, events, clips=data.clips, annotated=annotated)


def read_truth(found: Predictions, clips_path: Path) -> Truth:
    """The answers to the predicted clips from a clip table and, where it lies beside it, events.csv."""
    clips = read_clips(clips_path)
    require_columns(clips, ("labels",), clips_path)
    clips = clips.set_index("clip_id", drop=False)
    unknown = [c for c in found.clip_ids if c not in clips.index]
    if unknown:
        raise ValueError(f"{clips_path} does not list {len(unknown)} of the predicted clips: {few(unknown)}")
    rows = clips.loc[found.clip_ids].reset_index(drop=True)
    left_out = _left_out(found, clips_path.parent)
    target, _ = clip_targets(rows, list(found.classes), left_out=left_out)
    events = read_events(clips_path.parent / "events.csv", clips, [*found.classes, *left_out])
    if events is None:
        return Truth(target > 0.5, clips=rows)
    known = annotated_clips(rows, events, clips_path)
    asked = events.filename.isin(set(found.clip_ids.tolist())) & events.event_label.isin(found.classes)
    events = events[~negative_events(events) & asked]
    return Truth(target > 0.5, events, clips=rows, annotated=known)


def _left_out(found: Predictions, folder: Path) -> list[str]:
    """Classes of the list beside the clip table that these predictions do not answer (data.levels, data.part).

    None where they answer a class that the list does not have: they are of another one.
    """
    path = folder / "classes.csv"
    listed = read_classes(path) if path.is_file() else []
    answered = set(found.classes)
    return [c for c in listed if c not in answered] if answered <= set(listed) else []

"""Decisions -> a prepared folder that trains: the stretches that people heard, beside the data that was there before.

A stretch becomes a clip of its own, cut to a file. Classes that nobody spoke of are its `unknown_labels`, which the
loss looks away from: an accepted bird says nothing of the other birds, a rejected one only that it is not there.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from earshot import files
from earshot.data.dataset import read_dataset
from earshot.data.folds import TRAIN_ONLY, read_folds
from earshot.data.labels import read_classes, read_clips
from earshot.messages import few
from earshot.review.decisions import ACCEPT, CORRECT, SKIP, Decision, standing
from earshot.review.same_recordings import Recordings
from earshot.sound import audio
from earshot.sound.folder import printable
from earshot.tables import read_table

COPIED = (
    *("test_clips.csv", "test.csv", "truth.csv", "test_events.csv"),
    *("validation.csv", "validation_events.csv", "validation_rows.csv", "validation_truth.csv"),
)  # of the data before, as they are

logger = logging.getLogger("earshot")


@dataclass
class Heard:
    """What is known of one stretch: class -> is it there. `whole`: of all classes; event: (onset, offset, label)."""

    path: str
    start: float
    end: float
    known: dict[str, bool] = field(default_factory=dict)
    whole: bool = False
    event: tuple[float, float, str] | None = None

    @property
    def labels(self) -> list[str]:
        return sorted(name for name, there in self.known.items() if there)


@dataclass(frozen=True)
class Base:
    """The prepared data and folds that the answers are added to."""

    root: Path
    clips: pd.DataFrame
    classes: list[str]
    folds: pd.DataFrame
    about: dict
    events: pd.DataFrame | None


def read_base(root: Path, folds: Path) -> Base:
    clips = read_clips(root / "clips.csv")
    events = root / "events.csv"
    return Base(
        root, clips, read_classes(root / "classes.csv"), read_folds(folds, clips), read_dataset(root),
        read_table(events, ("filename", "onset", "offset", "event_label")) if events.is_file() else None,
    )  # fmt: skip


def heard_in(rows: Iterable[Decision], one_label: bool) -> list[Heard]:
    """Standing answers -> what is known of each stretch; of two answers about a class the later one counts.

    one_label: a stretch holds exactly one class, so that an accepted one says that the others are not there.
    """
    found: dict[tuple, Heard] = {}
    for row in standing(rows):
        if row.decision == SKIP:
            continue
        heard = found.setdefault((row.path, row.start, row.end), Heard(row.path, row.start, row.end))
        if row.decision == CORRECT or (one_label and row.decision == ACCEPT):
            labels = row.labels.split()
            heard.known, heard.whole = dict.fromkeys(labels, True), True
            onset, offset = max(row.onset, row.start), min(row.offset, row.end)
            heard.event = (onset, offset, labels[0]) if len(labels) == 1 and row.decision == CORRECT else None
            if row.event_label not in labels:
                heard.known[row.event_label] = False
        else:
            heard.known[row.event_label] = row.decision == ACCEPT
            heard.event = None
    if one_label:  # that a stretch is not of one class is nothing that such a loss can learn from
        return [heard for heard in found.values() if heard.whole and len(heard.labels) == 1]
    return list(found.values())


def write_training_table(
    rows: Sequence[Decision], out: Path, folds_out: Path, base: Base, one_label: bool = False,
    where: Mapping[str, str] | None = None, progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, int]:  # fmt: skip
    """Write `out` (clips.csv, classes.csv, dataset.json, sound/*.wav, ...) and its fold table; counts for people.

    The stretches always train (fold -1), but for those of recordings of the base and of copies of them, which stay in
    their recording's fold. Those of validation.csv's recordings are left out, those of the test's are warned of.

    where: values of columns by which the run chooses its clips (data.where), which the stretches get.
    """
    found = heard_in(rows, one_label)
    if not found:
        why = ", each the one class of its stretch" if one_label else ""
        raise ValueError(f"of {len(standing(rows))} standing answers none can train{why}: answer more questions")
    found = without_validation(found, base)
    named = sorted({name for heard in found for name in heard.labels})
    classes = [*base.classes, *(c for c in named if c not in base.classes)]
    if new := classes[len(base.classes) :]:
        logger.warning("classes that the data before did not have, unknown in its clips: %s", few(new))
    if (base.root / "targets.npz").is_file():
        logger.warning("%s/targets.npz is left behind: the new data trains on labels", base.root)
    with files.whole_folder(out) as partial:
        (partial / "sound").mkdir()
        pieces, lost = [], []
        for number, heard in enumerate(progress(found), start=next_number(base.clips.clip_id)):
            name = f"review_{number:05d}"
            try:
                cut(heard, partial / "sound" / f"{name}.wav")
            except audio.UnreadableAudio as error:
                lost.append(str(error))
                continue
            pieces.append(_row(name, out.resolve() / "sound" / f"{name}.wav", heard, classes))
        if lost:
            logger.warning("%d stretches could not be read again: %s", len(lost), few(lost, 3))
        if not pieces:
            raise ValueError("none of the stretches that were answered can be read: are the recordings still there?")
        clips, events = _joined(pd.DataFrame(pieces).assign(**(where or {})), base, classes)
        tables = {"clips.csv": clips.drop(columns="fold"), "classes.csv": _class_table(classes, base)}
        for name, table in (tables | ({} if events is None else {"events.csv": events})).items():
            table.to_csv(partial / name, index=False, lineterminator="\n")
        for name in COPIED:
            if (base.root / name).is_file():
                shutil.copyfile(base.root / name, partial / name)
        files.write_text(partial / "dataset.json", files.as_json(base.about, indent=1) + "\n")
    columns = ["clip_id", "group", "fold"]
    files.write_rows(folds_out, clips[columns].to_dict("records"), columns)
    return {"answers": sum(row.decision != SKIP for row in standing(rows)), "clips": len(pieces),
            "silent": sum(not piece["labels"] for piece in pieces), "classes": len(classes)}  # fmt: skip


def next_number(clip_ids: Iterable[str]) -> int:
    """The first number that no clip of an earlier review has."""
    taken = [int(clip_id.removeprefix("review_")) for clip_id in clip_ids if re.fullmatch(r"review_\d+", clip_id)]
    return max(taken, default=-1) + 1


def without_validation(found: Sequence[Heard], base: Base) -> list[Heard]:
    """The stretches but those of validation.csv's recordings, unless they train already; those of tests are warned of.

    Recordings of clips.csv are in a fold, which their stretches get, whatever other tables have them too.
    """
    source, outside = Path(base.about["source"]), {heard.path for heard in found}
    of_base = Recordings(base.clips, source)
    outside = sorted(path for path in outside if not of_base.rows(path))
    held: dict[str, set[str]] = {}
    for name in ("validation.csv", "test_clips.csv"):
        if outside and (base.root / name).is_file():
            table = Recordings(read_clips(base.root / name), source)
            held[name] = {path for path in outside if table.rows(path)}
    if test := held.get("test_clips.csv"):
        logger.warning(
            "%d recordings are of the test, and what people heard there will train: no score on %s/test_clips.csv is "
            "honest from then on: %s", len(test), base.root, few(sorted(test), 3),
        )  # fmt: skip
    if not (left := held.get("validation.csv")):
        return list(found)
    logger.warning(
        "answers about %d recordings of %s/validation.csv, which train nothing, are left out: %s",
        len(left), base.root, few(sorted(left), 3),
    )  # fmt: skip
    kept = [heard for heard in found if heard.path not in left]
    if not kept:
        raise ValueError(
            f"every answer is about recordings of {base.root}/validation.csv, by which runs are judged: review others"
        )
    return kept


def cut(heard: Heard, target: Path):
    """The stretch as a wav file at the recording's own rate."""
    rate = audio.info(Path(heard.path)).sample_rate
    sound = audio.load(Path(heard.path), rate, heard.start, heard.end - heard.start, mono=False)
    soundfile.write(target, np.atleast_2d(sound).T, rate, format="WAV", subtype="FLOAT")


def _row(name: str, path: Path, heard: Heard, classes: Sequence[str]) -> dict:
    unknown = [] if heard.whole else [c for c in classes if c not in heard.known]
    # nothing that is known is there, or where it is: the frames are known too; else only what the stretch holds
    in_time = not heard.labels or (heard.whole and heard.event is not None)
    return {"clip_id": name, "path": str(path), "labels": " ".join(heard.labels), "unknown_labels": " ".join(unknown),
            "annotated": int(in_time), "reviewed": 1, "duration": round(heard.end - heard.start, 3),
            "recording": heard.path, "start": heard.start, "event": heard.event if in_time else None}  # fmt: skip


def _joined(pieces: pd.DataFrame, base: Base, classes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The pieces behind the clips of the base -> (clips with group and fold, events or None)."""
    pieces = pieces.assign(group=["review/" + printable(r) for r in pieces.recording], fold=TRAIN_ONLY)
    told = pieces.pop("event")
    source = Path(base.about["source"])
    own = base.clips.drop(columns=[c for c in ("group", "fold") if c in base.clips])
    own = own.merge(base.folds[["clip_id", "group", "fold"]], on="clip_id", validate="one_to_one")
    of_base = Recordings(own, source)
    for i, recording in enumerate(pieces.recording):
        if rows := of_base.rows(recording):  # of a clip that may be held out; of several, one that is
            where = max(rows, key=lambda row: own.fold[row] != TRAIN_ONLY)
            pieces.loc[i, ["group", "fold"]] = own.group[where], own.fold[where]
    own["path"] = [str((source / p).absolute()) for p in own.path]
    if new := [c for c in classes if c not in base.classes]:
        before = own.unknown_labels.fillna("") if "unknown_labels" in own else pd.Series("", index=own.index)
        own["unknown_labels"] = (before + " " + " ".join(new)).str.strip()
    clips = pd.concat([own, pieces.drop(columns=["recording", "start"])], ignore_index=True)
    events = None
    if base.events is not None:
        more = [
            (piece.clip_id, round(e[0] - piece.start, 3), round(e[1] - piece.start, 3), e[2])
            for piece, e in zip(pieces.itertuples(), told, strict=True) if e is not None
        ]  # fmt: skip
        own_events = pd.DataFrame(more, columns=["filename", "onset", "offset", "event_label"])
        events = pd.concat([base.events, own_events], ignore_index=True) if more else base.events
    return clips, events


def _class_table(classes: Sequence[str], base: Base) -> pd.DataFrame:
    """classes.csv: the rows of the base with all their columns, then the new ones."""
    table = read_table(base.root / "classes.csv", ("label",))
    return pd.concat([table, pd.DataFrame({"label": classes[len(base.classes) :]})], ignore_index=True)

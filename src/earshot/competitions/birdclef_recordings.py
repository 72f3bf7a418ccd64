"""The training recordings of BirdCLEF: focal ones with a species each, and soundscapes with labels of 5 s.

Download: train_metadata.csv (2021 to 2024) or train.csv (2025, 2026) with `primary_label, secondary_labels, filename,
author, ...`; train_audio/<label>/<file>.ogg, `filename` holding the label's folder (2021: train_short_audio, `filename`
without it). Two years have soundscapes with labels: 2021 (train_soundscape_labels.csv: `row_id, site, audio_id,
seconds, birds`) and 2026 (train_soundscapes_labels.csv: `filename, start, end, primary_label`, times as hh:mm:ss,
labels joined by `;`; a row that lasts longer than 5 s is labelled throughout).

Tables. `group` is the recording (the name of its file), for soundscapes the site; `author` stays, for folds by
recordist (make_folds.py --group author). A soundscape with labels is a clip too, its labels those of all its rows;
events.csv holds the rows. `kind` says which is which: focal, of which nobody said when the species is heard, or
soundscape, which is `annotated`: where it has no row nothing is heard. Secondary labels that are no class are
dropped and counted in a warning.
A recording that is labelled `nocall` is a clip without labels. Every row of 2026's soundscapes is there twice.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.birdclef_rows import ROW_SECONDS
from earshot.competitions.downloads import inner_folder, list_audio, located
from earshot.competitions.label_texts import is_reserved, listed, respelled, unlabelled
from earshot.competitions.tables import Tables, absent, class_name, present
from earshot.messages import few, plural, suggest
from earshot.metrics.events import merge_overlapping_events
from earshot.tables import read_table, require_columns, with_numbers

METADATA = ("train_metadata.csv", "train.csv")
LABELLED_SOUNDSCAPES = ("train_soundscape_labels.csv", "train_soundscapes_labels.csv")
logger = logging.getLogger("earshot")


def train_tables(source: Path, classes, audio_folder: str = "train_audio") -> Tables:
    """The tables of what a download trains on: focal recordings, then labelled soundscapes with their events."""
    clips = located(focal_clips(source, classes, audio_folder), source)
    rows = labelled_rows(source)
    if rows is None:
        there = present(clips, source, "the training table")
        return Tables(
            clips=there, classes=classes, missing=absent(clips, source), class_columns=species(source, classes)
        )  # fmt: skip
    rows = known_labels(rows, classes)
    clips = pd.concat([clips, located(soundscape_clips(rows), source)], ignore_index=True)
    missing, clips = absent(clips, source), present(clips, source, "the training tables")
    events = events_of_rows(rows[rows.clip_id.isin(clips.clip_id)])
    return Tables(
        clips=clips, classes=classes, events=events, missing=missing, class_columns=species(source, classes)
    )  # fmt: skip


def events_of_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """`labelled_rows` -> the event table of them, neighbouring rows of a species joined."""
    events = rows.explode("labels").dropna(subset="labels")
    events = events.assign(onset=events.seconds - ROW_SECONDS).rename(
        columns={"clip_id": "filename", "seconds": "offset", "labels": "event_label"}
    )
    return merge_overlapping_events(events).sort_values(["filename", "onset"], kind="stable", ignore_index=True)


def unlabelled_soundscapes(source: Path) -> pd.DataFrame | None:
    """Soundscapes that nobody labelled -> clip_id, path, site ('' where their names tell none); None: there are none.

    unlabeled_soundscapes/ of 2024; in later years the files of train_soundscapes/ that no row of labels names.
    """
    rows = labelled_rows(source)
    known = set() if rows is None else set(rows.clip_id)
    found = []
    for name in ("unlabeled_soundscapes", "train_soundscapes"):
        folder = inner_folder(source, name)
        found += [
            (file.stem, f"{folder}/{file.name}") for file in list_audio(source / folder) if file.stem not in known
        ]
    if not found:
        return None
    clips = pd.DataFrame(found, columns=["clip_id", "path"])
    site = clips.clip_id.str.extract(r"(?:^|_)([A-Z]\d{2,})(?:_|$)")[0].fillna("")
    return clips.assign(site=site, kind="soundscape").sort_values("clip_id", kind="stable", ignore_index=True)


def species(source: Path, classes) -> pd.DataFrame | None:
    """What the download says of each class: `scientific_name, common_name, taxon`, those that it has; '' where unknown.

    From taxonomy.csv (2025, 2026), whose `class_name` (Aves, Insecta, ...) is the taxon, else from the training table.
    None where nothing is said.
    """
    path = source / "taxonomy.csv"
    table = read_table(path, ("primary_label",)) if path.is_file() else metadata(source)
    table = table.assign(label=table.primary_label.map(class_name)).drop_duplicates("label").set_index("label")
    table = table.drop(columns="taxon", errors="ignore").rename(columns={"class_name": "taxon"})
    known = [c for c in ("scientific_name", "common_name", "taxon") if c in table]
    return table[known].reindex(list(classes)).fillna("").reset_index(drop=True) if known else None


def metadata(source: Path) -> pd.DataFrame:
    """The training table of the download, under either of its names; rows that are there twice count once."""
    path = next((source / name for name in METADATA if (source / name).is_file()), None)
    if path is None:
        raise ValueError(f"{source} holds none of {', '.join(METADATA)}; is --source the unzipped download?")
    columns = ("primary_label", "secondary_labels", "filename", "author")
    table = read_table(path, columns).drop_duplicates(ignore_index=True)
    empty = (table[["primary_label", "filename"]] == "").any(axis=1)
    if empty.any():
        raise ValueError(
            f"{path.name} has no primary_label or filename in {plural(empty.sum(), 'rows')}, first row "
            f"{empty.argmax() + 2}"
        )
    return table


def classes_of(source: Path) -> list[str]:
    """The species of the training table, sorted, where no submission names them."""
    names = {class_name(label) for label in metadata(source).primary_label}
    return sorted(name for name in names if not is_reserved(name))


def focal_clips(source: Path, classes, audio_folder: str) -> pd.DataFrame:
    """Training table -> one clip a recording; a file name that occurs twice gets its label in front."""
    table = metadata(source)
    labels = unlabelled(table.primary_label.map(class_name), "the training table")
    if lost := sorted(set(labels) - {"", *classes}):
        raise ValueError(
            f"{len(lost)} primary labels are no column of the sample submission: {few(lost)}{suggest(lost[0], classes)}"
        )
    stems = pd.Series([Path(name).stem for name in table.filename])
    folder = [f"{audio_folder}/" + ("" if "/" in f else f"{c}/") for f, c in zip(table.filename, table.primary_label)]
    clips = pd.DataFrame({
        "clip_id": np.where(stems.duplicated(keep=False), labels + "_" + stems, stems),
        "path": [a + b for a, b in zip(folder, table.filename, strict=True)],
        "labels": labels,
        "secondary_labels": _secondary(table, labels, set(classes)),
        "group": stems,
        "kind": "focal",
        "annotated": 0,
    })  # fmt: skip
    rest = [c for c in table.columns if c not in (*clips.columns, "primary_label", "filename")]
    return pd.concat([clips, table[rest]], axis=1)


def _secondary(table: pd.DataFrame, own: pd.Series, classes: set[str]) -> list[str]:
    """Lists written as text -> class names joined by spaces, without the row's own; others are dropped, and counted."""
    texts, unknown = [], Counter()
    for row, (text, label) in enumerate(zip(table.secondary_labels, own, strict=True)):
        names = dict.fromkeys(class_name(n) for n in listed(text, f"row {row + 2} of the training table") if n)
        unknown.update(n for n in names if n not in classes)
        texts.append(" ".join(n for n in names if n in classes and n != label))
    _warn_unknown(unknown, "secondary labels")
    return texts


def _warn_unknown(unknown: Counter, what: str):
    if unknown:
        shown = few([f"{name} ({k})" for name, k in unknown.most_common()])
        logger.warning(
            "%d %s of %d species outside the classes are dropped: %s", unknown.total(), what, len(unknown), shown
        )


def labelled_rows(source: Path) -> pd.DataFrame | None:
    """Soundscapes with labels -> clip_id, path, site, seconds (end of the row), labels (list); None: there are none."""
    path = next((source / name for name in LABELLED_SOUNDSCAPES if (source / name).is_file()), None)
    if path is None:
        return None
    table = read_table(path).drop_duplicates(ignore_index=True)
    if "birds" in table:  # 2021
        require_columns(table, ("row_id", "site", "audio_id", "seconds", "birds"), path)
        table = with_numbers(table, ("seconds",), path)
        folder = inner_folder(source, "train_soundscapes")
        names = by_recording(source / folder)
        clip_id = table.audio_id + "_" + table.site
        table = table.assign(
            clip_id=clip_id, path=[f"{folder}/{names.get(c, c + '.ogg')}" for c in clip_id],
            labels=[[n for n in text.split() if not is_reserved(n)] for text in table.birds],
        )  # fmt: skip
    else:  # 2026
        require_columns(table, ("filename", "start", "end", "primary_label"), path)
        table = table.assign(
            clip_id=[Path(f).stem for f in table.filename], path="train_soundscapes/" + table.filename,
            site=table.filename.str.extract(r"_(S\d+)_")[0].fillna(""), labels=table.primary_label.map(_names),
        )  # fmt: skip
        table = _in_rows(table, path)
    if (off := table.seconds % ROW_SECONDS != 0).any():
        raise ValueError(
            f"{path.name}: a row of {table.clip_id[off].iloc[0]} ends at {table.seconds[off].iloc[0]:g} s, which is no "
            f"multiple of {ROW_SECONDS}"
        )
    return table[["clip_id", "path", "site", "seconds", "labels"]]


def _names(text: str) -> list[str]:
    """Labels of a row, joined by `;` (copies: by commas, or as a list)."""
    names = listed(text, LABELLED_SOUNDSCAPES[1]) if text.strip()[:1] in ("[", "(") else re.split("[;,]", text)
    return [class_name(n) for n in names if not is_reserved(n)]


def _in_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rows with `start` and `end` -> one of 5 s each, with the `seconds` of its end; longer ones become several."""
    start, end = (_seconds(table[column], path) for column in ("start", "end"))
    wrong = ~((start >= 0) & (end > start) & (start % ROW_SECONDS == 0) & (end % ROW_SECONDS == 0))
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise ValueError(
            f"{path.name}: {plural(wrong.sum(), 'rows do')} not last from one multiple of {ROW_SECONDS} s to a later "
            f"one, such as {start[row]:g} to {end[row]:g} s of {table.filename[row]}"
        )
    n_rows = ((end - start) / ROW_SECONDS).astype(int)
    number = np.concatenate([np.arange(1, n + 1) for n in n_rows]) if len(table) else np.zeros(0)
    parts = table.loc[table.index.repeat(n_rows)].reset_index(drop=True)
    return parts.assign(seconds=start.repeat(n_rows).to_numpy() + ROW_SECONDS * number)


def _seconds(times: pd.Series, path: Path) -> pd.Series:
    """Times as hh:mm:ss, mm:ss or numbers of seconds -> seconds."""
    seconds = times.map(_clock)
    if seconds.isna().any():
        raise ValueError(f"{path.name} has the time '{times[seconds.isna()].iloc[0]}', expected hh:mm:ss")
    return seconds.astype(float)


def _clock(text) -> float:
    """One time as seconds; NaN where it is none. pandas writes its own as '0 days 00:00:05'."""
    total = 0.0
    for part in str(text).strip().removeprefix("0 days ").split(":"):
        number = pd.to_numeric(part, errors="coerce")
        total = 60 * total + float(number)
    return total


def by_recording(folder: Path) -> dict[str, str]:
    """Files of 2021, <audio_id>_<site>_<date>.ogg -> {'<audio_id>_<site>': file name}."""
    names = [p.name for p in list_audio(folder)]
    return {"_".join(Path(n).stem.split("_")[:2]): n for n in names}


def known_labels(rows: pd.DataFrame, classes) -> pd.DataFrame:
    """Rows -> the same with the labels that are classes, in their spelling; others are counted in a warning."""
    known, named = set(classes), sorted({n for names in rows.labels for n in names})
    spelled = dict(zip(named, respelled(named, classes, "the soundscapes' table"), strict=True))
    unknown = Counter(n for names in rows.labels for n in names if spelled[n] not in known)
    _warn_unknown(unknown, "soundscape labels")
    return rows.assign(labels=[[spelled[n] for n in names if n not in unknown] for names in rows.labels])


def soundscape_clips(rows: pd.DataFrame) -> pd.DataFrame:
    clips = rows.groupby("clip_id", sort=True).agg(
        path=("path", "first"), site=("site", "first"),
        labels=("labels", lambda lists: " ".join(sorted({n for names in lists for n in names}))),
    )  # fmt: skip
    site = clips.site.where(clips.site != "", clips.index.to_series())
    return clips.assign(secondary_labels="", group="site_" + site, kind="soundscape", annotated=1).reset_index()


def soundscape_truth(source: Path, classes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled soundscapes -> (test table, truth with 0 and 1 a class), to score OOF rows of them as the test's are."""
    rows = labelled_rows(Path(source))
    if rows is None:
        raise ValueError(f"{source} has no soundscapes with labels; 2021 and 2026 have")
    rows = known_labels(rows, classes)
    row_id = rows.clip_id + "_" + rows.seconds.astype(int).astype(str)
    heard = pd.DataFrame([[int(c in names) for c in classes] for names in rows.labels], columns=list(classes))
    test = pd.DataFrame({"row_id": row_id, "clip_id": rows.clip_id, "seconds": rows.seconds.astype(int)})
    return test, pd.concat([row_id.rename("row_id"), heard], axis=1)

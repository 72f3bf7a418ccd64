"""The clips that one fold trains on, as a data set of their own: nothing in it knows what the fold holds out.

A recipe chosen there, or answers made there to learn from (`distill.predictions`), owe nothing to the clips that the
fold is scored on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from earshot.data.dataset import NOTES, noted, read_dataset
from earshot.data.digests import table_digests
from earshot.data.folds import GROUPED_BY, TRAIN_ONLY, make_folds, read_folds, select_fold
from earshot.data.labels import read_classes, read_clips
from earshot.data.prepared import read_events
from earshot.data.soft_targets import FILE as SOFT_TARGETS
from earshot.files import as_json, whole_set
from earshot.tables import read_table

TABLES = {"clips": "clip_id", "events": "filename"}  # table -> its column of clip ids


def clips_inside(clips: pd.DataFrame, folds_path: str | Path, fold: int) -> pd.DataFrame:
    """Take the clips that a fold trains on, with the groups of its fold table.

    Columns of `clips`, `fold`: the number in that table, and what that one was asked to keep together. Errors: as
    `read_folds`; no such fold.
    """
    folds = read_folds(folds_path, clips)
    rest = ~select_fold(folds, fold, folds_path)
    inside = clips.drop(columns=["fold", GROUPED_BY], errors="ignore")
    inside = inside.assign(**folds[[c for c in ("group", "fold", GROUPED_BY) if c in folds]])
    return inside[rest].reset_index(drop=True)


def folds_inside(inside: pd.DataFrame, k: int, seed: int, group: str | None, method) -> pd.DataFrame:
    """Split the clips of `clips_inside` anew, as `make_folds` does; what trained in every fold outside does so here."""
    always = (inside.fold == TRAIN_ONLY).to_numpy()
    split, rest = inside[~always].drop(columns="fold"), inside[always]
    folds = make_folds(split, k, seed, group, method)
    if GROUPED_BY in inside and GROUPED_BY not in folds:
        folds = folds.assign(**{GROUPED_BY: inside[GROUPED_BY].iloc[0]})
    if not len(rest):
        return folds
    same = {c: folds[c].iloc[0] for c in (GROUPED_BY,) if c in folds}
    kept = rest.assign(fold=TRAIN_ONLY, **same)[[c for c in folds if c in (*rest.columns, "fold", *same)]]
    return pd.concat([folds, kept]).sort_values("clip_id", kind="stable").reset_index(drop=True)


def write_inside(folder: Path, out: Path, inside: pd.DataFrame, folds_path: str | Path, fold: int, force: bool = False):
    """Write a prepared folder of these clips: their rows of the clip and event tables, the classes, soft targets.

    Recordings stay where they are. A folder of other tables under that name is refused without `force`.
    """
    about = read_dataset(folder) | {"inside": {"folds": str(folds_path), "fold": fold}}
    tables = {}
    for name, key in TABLES.items():
        if (folder / f"{name}.csv").is_file():
            table = read_table(folder / f"{name}.csv", (key,), all_text=True)
            tables[name] = table[table[key].isin(set(inside.clip_id))]
    texts = {f"{name}.csv": table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
    if (out / "dataset.json").is_file() and not force:
        if all((out / name).is_file() and (out / name).read_text() == text for name, text in texts.items()):
            return
        raise ValueError(f"{out} exists and differs: runs trained on it would not match; replace it with --force")
    with whole_set(out, last="dataset.json") as partial:
        for name, text in texts.items():
            (partial / name).write_text(text)
        for name in ("classes.csv", SOFT_TARGETS):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, partial / name)
        (partial / NOTES).write_text(as_json(noted(about["source"], tables["clips"].path)) + "\n")
        (partial / "dataset.json").write_text(as_json(about, indent=2) + "\n")


def digest_inside(root: Path, folds_path: str | Path, fold: int) -> str:
    """Digest that the clip and event tables of `write_inside` have: what was trained on them heard no other clip."""
    clips = read_clips(root / "clips.csv")
    events = read_events(root / "events.csv", clips, read_classes(root / "classes.csv"))
    inside = clips_inside(clips, folds_path, fold)
    events = events if events is None else events[events.filename.isin(inside.clip_id)]
    return table_digests(inside[["clip_id", "fold"]], inside, events, []).clips

"""Which of one's own recordings are of the test or held out, by files whose names say so, such as val_list.csv."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from earshot.competitions.label_columns import split_of
from earshot.competitions.own.recordings import OwnRecordings
from earshot.competitions.own.tables import TABLES, files_below, find_path_column, read_own
from earshot.messages import few

SAME = {"eval": "test", "dev": "val"}  # words of one meaning: TUT has street_test.txt and street_evaluate.txt
ANSWERS = re.compile("submission|predict|result|score", re.I)  # in the name of a table that somebody's network wrote
FOLD = re.compile(r"(?:.*[_ -])?(?:fold|split)[-_ ]?(\d+)(?:[_ -].*)?", re.I)  # of a file: fold1_train.txt

logger = logging.getLogger("earshot")


def say_unused(recordings: OwnRecordings, tables: Sequence[Path]):
    """Warn of lists such as train.txt where a column says the split; those of `tables` are read for what they hold."""
    lists = [path.name for path in _lists(recordings) if path not in tables]
    if lists:
        logger.warning("a column says the split or the folds, so that these lists say nothing: %s", few(lists))


def _lists(recordings: OwnRecordings) -> dict[Path, set[str]]:
    """The files whose names say a split and that list recordings: {path: those}."""
    return {path: names for path in files_below(recordings.source, TABLES)
            if split_of(path) and not ANSWERS.search(path.stem)
            and (names := _listed(path, recordings))}  # fmt: skip


def listed_splits(recordings: OwnRecordings) -> pd.DataFrame | None:
    """What files such as train.txt say, else folders: `path`, and `split` or `official_fold`; None: they part nothing.

    Such a file lists recordings, one a line (a label may stand behind), or has a column that names them. Where there
    are fold1_train.txt, fold1_test.txt, fold2_train.txt, ... a recording is held out in the fold whose list of another
    split than the training has it.
    """
    lists = _lists(recordings)
    splits = {path: split_of(path) for path in lists}
    if "train" not in splits.values():  # a development set beside one of the evaluation is what trains
        splits = {path: "train" if split == "dev" else split for path, split in splits.items()}
    splits = {path: SAME.get(split, split) for path, split in splits.items()}
    folds = {path: int(fold[1]) for path in lists if (fold := FOLD.fullmatch(path.stem))}
    if len({fold for path, fold in folds.items() if splits[path] != "train"}) > 1:
        held_out = {path: fold for path, fold in folds.items() if splits[path] != "train"}
        return _said(held_out, lists, "official_fold", "recordings are held out in fold")
    if set(splits.values()) <= {"train"}:
        return _of_folders(recordings)
    return _said(splits, lists, "split", "recordings are in the split")


def _of_folders(recordings: OwnRecordings) -> pd.DataFrame | None:
    """The split of recordings that all lie in folders such as train/ and test/, or train_audio/ and test_audio/."""
    inside = [PurePosixPath(path).parts for path in recordings.paths]
    while len({parts[0] for parts in inside}) == 1 and all(len(parts) > 2 for parts in inside):
        inside = [parts[1:] for parts in inside]  # one folder around everything
    lists: dict[Path, set[str]] = {}
    for path, parts in zip(recordings.paths, inside, strict=True):
        if len(parts) < 2 or not split_of(Path(parts[0])):
            return None
        lists.setdefault(Path(parts[0]), set()).add(path)
    splits = {folder: split_of(folder) for folder in lists}
    if "train" not in splits.values():
        splits = {folder: "train" if split == "dev" else split for folder, split in splits.items()}
    splits = {folder: SAME.get(split, split) for folder, split in splits.items()}
    return _said(splits, lists, "split", "recordings are in the split") if len(set(splits.values())) > 1 else None


def _said(values: dict[Path, str | int], lists: dict[Path, set[str]], column: str, what: str) -> pd.DataFrame:
    """The value of each recording, by the files that list it; two of one recording are an error."""
    found: dict[str, str | int] = {}
    for path, value in values.items():
        if both := sorted(name for name in lists[path] if found.get(name, value) != value):
            raise ValueError(
                f"{path} lists recordings of another list too: {few(both)}; a recording is in one split. Mend the "
                "lists, move them elsewhere, or name the column that says it with --split-column or --fold-column"
            )
        logger.warning("%s: %d %s '%s'", path, len(lists[path]), what, value)
        found |= dict.fromkeys(lists[path], value)
    return pd.DataFrame({"path": list(found), column: list(found.values())})


def _listed(path: Path, recordings: OwnRecordings) -> set[str]:
    """The recordings that half of a file's rows or more name; none of what is something else, or of one recording."""
    if recordings.of_annotation(path) is not None:
        return set()
    near = recordings.place_of(path).parent.as_posix()
    try:
        table = read_own(path, recordings)
    except ValueError:
        return set()
    if column := find_path_column(table, recordings, "") if table.shape[1] > 1 else "":
        return _known(table[column], recordings, near)
    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    whole = recordings.find_all(lines, "", near)
    return _known([line if whole[line] else re.split(r"[\t,; ]+", line)[0] for line in lines], recordings, near)


def _known(names: Iterable[str], recordings: OwnRecordings, near: str) -> set[str]:
    there = recordings.find_all(names, "", near).values()
    return set(filter(None, there)) if 2 * sum(map(bool, there)) >= max(1, len(there)) else set()

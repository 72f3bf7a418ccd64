"""Labels of one's own recordings by the folders that they lie in."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from earshot.competitions.label_columns import split_of
from earshot.competitions.own.labels import Labels
from earshot.competitions.own.recordings import OwnRecordings
from earshot.messages import few, plural

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validate", "validation", "test", "testing", "eval", "evaluation")
SUBFOLDER = "subfolder"
DATE = re.compile(r"(19|20)\d\d[-_.]?[01]\d([-_.]?[0-3]\d)?")
FOLD = re.compile(r"(?:fold|split)[-_ ]?(\d+)", re.I)

logger = logging.getLogger("earshot")


def from_folders(recordings: OwnRecordings, separator: str = "", turned: bool = False) -> Labels:
    """The class of a recording is the first folder below --source, or below train/, val/ and test/ there.

    Where there are folders in those of the classes, such as kits or sessions, `subfolder` names the first of them.
    turned: sessions lie around classes, whose folders are the second. separator: what separates the classes in a
    folder's name; a name of other folders by commas holds them all unless it is `none`.
    """
    inside, at = [PurePosixPath(path).parts[:-1] for path in recordings.paths], [PurePosixPath()]
    while all(parts for parts in inside) and len({parts[0] for parts in inside}) == 1 and any(map(_deep, inside)):
        at = [at[0] / inside[0][0]]
        inside = [parts[1:] for parts in inside]  # one folder around everything
    splits = ["train"] * len(inside)
    if all(parts and parts[0].casefold() in SPLIT_FOLDERS for parts in inside):
        splits = [parts[0].casefold() for parts in inside]
        at = [at[0] / name for name in sorted({parts[0] for parts in inside})]
        inside = [parts[1:] for parts in inside]
    elif (
        all(inside)
        and len({split_of(PurePosixPath(parts[0])) for parts in inside} - {""}) > 1
        and all(split_of(PurePosixPath(parts[0])) for parts in inside)
    ):  # nsynth-train, nsynth-test: no classes
        at = [at[0] / name for name in sorted({parts[0] for parts in inside})]
        inside = [parts[1:] for parts in inside]
    folds, level = _folds(inside)
    if folds:
        at = [folder / name for folder in at for name in {parts[0] for parts in inside}] if level == 0 else at
        inside = [parts[:level] + parts[level + 1 :] for parts in inside]
    if turned:
        if shallow := [path for path, parts in zip(recordings.paths, inside, strict=True) if not _deep(parts)]:
            where = f"{plural(len(shallow), 'recordings lie')} in no folder within a folder"
            raise ValueError(f"--label-column {SUBFOLDER}: {where}: {few(shallow)}")
        inside = [(parts[1], parts[0], *parts[2:]) for parts in inside]
    else:
        _hint_turned(inside)
    names = Counter(parts[0] for parts in inside if parts)
    labels = _classes_in(names, separator)
    clips = recordings.table(recordings.paths)
    clips = clips.assign(labels=[list(labels[parts[0]]) if parts else [] for parts in inside])
    if len(set(splits)) > 1:
        clips["split"] = splits
    if folds:
        clips["official_fold"] = folds
        said = [f"{fold} ({n})" for fold, n in sorted(Counter(folds).items())]
        logger.warning("folders of folds, which are kept: %s", few(said, 12))
    if any(map(_deep, inside)):
        clips[SUBFOLDER] = [parts[1] if _deep(parts) else "" for parts in inside]
    if len(names) > 1 and all(map(DATE.fullmatch, names)):
        logger.warning("folders named by dates are no classes: %s", few(sorted(names)))
        clips["labels"] = [[] for _ in inside]
    elif len(names) == 1:
        name, loose = next(iter(names)), sum(not parts for parts in inside)
        beside = f". Of the {loose} recordings beside it nothing is said: put those without {name} into a folder nocall"
        logger.warning("one folder alone, %s, is no class: it tells nothing from anything%s", name,
                       beside if loose else "")  # fmt: skip
        clips["labels"] = [[] for _ in inside]
    elif names:
        logger.warning("labels by folder: %s", few([f"{name} ({n})" for name, n in sorted(names.items())], 12))
        bare = {name: what for folder in at for name, what in recordings.bare_folders(folder.as_posix()).items()}
        if bare := [f"{name} ({what})" for name, what in bare.items() if name not in names]:
            logger.warning("folders without a recording, which are no class: %s", few(bare, 12))
    return Labels(clips)


def _hint_turned(inside: Sequence[Sequence[str]]):
    """Say that folders hold folders of the same names in each, which may be the classes."""
    below = {parts[0]: {p[1] for p in inside if _deep(p) and p[0] == parts[0]} for parts in inside if parts}
    common = set.intersection(*below.values()) if len(below) > 1 else set()
    if len(common) > 1:
        logger.warning("each of the folders %s holds folders %s: where those are the classes, say --label-column %s",
                       few(sorted(below)), few(sorted(common)), SUBFOLDER)  # fmt: skip


def _folds(inside: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """The fold of each recording where folders fold1/, fold2/ lie around those of the classes, or right in them, and
    at which place in its path; no folds where they do not."""
    for level in (0, 1):
        found = [FOLD.fullmatch(parts[level]) if len(parts) > 1 else None for parts in inside]
        if all(found) and len({fold[1] for fold in found}) > 1:
            return [int(fold[1]) for fold in found], level
    return [], 0


def _classes_in(names: Counter, separator: str) -> dict[str, list[str]]:
    """The classes that each folder's name says; an error where all are folds, a warning where one says "not wren"."""
    if names and all(FOLD.fullmatch(name) for name in names):
        raise ValueError(
            f"the folders {few(sorted(names))} are folds, no classes: give the table that says what the recordings "
            "hold with --table, and its column of folds with --fold-column, or put a folder a class into each, as in "
            "fold1/wren/"
        )
    if denied := sorted(name for name in names if name.startswith("-") and name[1:] in names):
        logger.warning(
            "folders %s are classes of their own; where they are recordings without %s, as BirdNET has them, call each "
            "nocall", few([f"'{name}'" for name in denied]), few([name[1:] for name in denied]),
        )  # fmt: skip
    if apart := sorted(name for name in names if name.startswith("_")):
        logger.warning(
            "folders %s are classes as others are; what is none, such as noise to lay under clips "
            "(augment.background.source), is kept outside --source", few([f"'{name}'" for name in apart]),
        )  # fmt: skip
    found = {}
    for name in names:
        parts = [part.strip() for part in name.split(separator if separator not in ("", "none") else ",")]
        several = len(parts) > 1 and separator != "none" and (separator or all(part in names for part in parts))
        found[name] = [part for part in parts if part] if several else [name]
    if joint := sorted(name for name in names if len(found[name]) > 1):
        logger.warning("folders of several classes: %s", few([f"'{name}'" for name in joint]))
    return found


def _deep(parts: Sequence[str]) -> bool:
    return len(parts) > 1

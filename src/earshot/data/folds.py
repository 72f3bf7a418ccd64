"""Clip table -> folds: every clip once, no group in two folds, every class in every fold where it can be.

The method follows from the data (`choose_method`):
- `official`: the table has `official_fold`: fold = its rank from 0, the official number stays in its own column; -1
  stays -1 (`TRAIN_ONLY`): the clip trains in every fold and is never held out (an official training set).
- `stratified`: one label a clip, no groups: scikit-learn's StratifiedKFold (shuffled, seeded).
- `table_order` (asked for by name): the same on the rows as the table lists them, whatever the groups: the folds of a
  published notebook that calls StratifiedKFold on the competition's own table.
- `multilabel`: several labels a clip, no groups: iterative stratification (Sechidis et al. 2011), the package.
- `grouped`: with groups, one label or several: whole groups, greedily (`group_folds.assign`), then improved by single
  moves (`group_folds.refine`). scikit-learn's StratifiedGroupKFold takes one label a clip and left classes less even
  (simulated).
- `each_group` (asked for by name): every group is a fold, in the order of their names: leave one source out.
- a function: what a competition declares of its own (`Competition.fold_methods`).

After `multilabel` and `grouped`, `group_folds.repair` moves single groups so that a class with at least k groups misses
no fold where that is possible. Rows are sorted by clip_id first, but for `table_order`: their order does not matter. A
clip without labels counts as of a class of its own, so that `nocall` clips are spread too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from earshot.data import group_folds
from earshot.data.labels import distinct_labels, label_pairs
from earshot.data.names import NOBODY, clean_names, distinct_names
from earshot.messages import few, pasted, plural
from earshot.prediction.places import all_different, as_names, places
from earshot.tables import read_table, require_columns

NO_LABEL = "(no label)"
NO_GROUP = "none"
GROUPED_BY = "grouped_by"  # column of a fold table: what it was asked to keep together, one value in all rows
TRAIN_ONLY = -1  # fold of a clip that is never held out
# Columns that say where a clip comes from: what two folds should not share.
SOURCES = ("content_hash", "group", "site", "author", "recordist", "identifier", "sensor_id", "individual", "location")
TABLE_ORDER = "table_order"
EACH_GROUP = "each_group"
DEFAULT_K = 5
MOST_GROUPS = 100  # folds that anybody would train
SOME = 10_000  # clips that tell of most tables whether they have groups
MOST_FOLDS = 1e6  # a number from there on is none of a fold
METHODS = ("auto", "official", "stratified", TABLE_ORDER, EACH_GROUP, "multilabel", "grouped")


def make_folds(
    clips: pd.DataFrame, k: int = DEFAULT_K, seed: int = 42, group: str | None = None, method: str | Callable = "auto"
) -> pd.DataFrame:
    """Clips (`clip_id, labels`, ...) -> DataFrame `clip_id, group, fold` (+ `official_fold`), sorted by clip_id.

    `group`: the column whose values are never split (None: `group` where the table has it; "none": no groups, each
    clip its own). `method`: one of METHODS, or a function (clips sorted by clip_id, k, seed) -> (N,) folds.
    """
    require_columns(clips, ("clip_id", "labels"), "the clip table")
    if not callable(method) and method not in METHODS:
        raise ValueError(f"unknown fold method '{method}'; choose one of {', '.join(METHODS)}")
    listed = clips.reset_index(drop=True)
    clips = listed
    if not listed.clip_id.is_monotonic_increasing:
        clips = listed.sort_values("clip_id", kind="stable").reset_index(drop=True)
    groups = group_names(clips, group)
    method = choose_method(clips, group) if method == "auto" else method
    if method not in ("official", TABLE_ORDER, EACH_GROUP) and not callable(method):
        few_groups = groups.iloc[:SOME].nunique()  # mostly the first say that there are enough
        _check_k(k, few_groups if few_groups >= k else groups.nunique())
    folds = pd.DataFrame({"clip_id": clips.clip_id, "group": groups})
    if method == "official":
        require_columns(clips, ("official_fold",), "the clip table")
        official = fold_numbers(clips.official_fold, "the clip table", "official_fold")
        held_out = official != TRAIN_ONLY
        if held_out.all() and official.nunique() < 2:
            raise ValueError("the clip table's official_fold holds out all clips at once, so that nothing would train: "
                             "give several folds, or -1 to clips that always train")  # fmt: skip
        folds["fold"] = official.where(held_out).rank(method="dense").fillna(0).astype(int) - 1
        folds["official_fold"] = clips.official_fold
    elif method == TABLE_ORDER:
        folds["fold"] = _table_order(listed, k, seed).loc[clips.clip_id].to_numpy()
    elif method == EACH_GROUP:
        folds["fold"] = _each_group(clips, groups, group)
    elif callable(method):
        folds["fold"] = method(clips, k, seed)
    else:
        folds["fold"] = _stratify(clips, groups, k, seed, method)
    if passed_over := method == TABLE_ORDER or callable(method):
        group = NO_GROUP
    return folds.assign(**{GROUPED_BY: group}) if passed_over or group not in (None, "group") else folds


def _each_group(clips: pd.DataFrame, groups: pd.Series, group: str | None) -> np.ndarray:
    """(N,) groups -> (N,) folds: one a group, in the order of their names; a clip without a group is an error."""
    column = group or "group"
    there = column in clips and group != NO_GROUP
    named = clean_names(clips[column]) != "" if there else pd.Series(False, index=clips.index)
    if not named.any():
        raise ValueError(
            f"method '{EACH_GROUP}' makes a fold of every group, and there are no groups: name a column of the clip "
            "table by --group"
        )
    if not named.all():
        raise ValueError(
            f"method '{EACH_GROUP}' makes a fold of every group, and {(~named).sum()} of "
            f"{plural(len(clips), 'clips have')} none "
            f"in {column}: {few(clips.clip_id[~named])}; fill it in, or leave --method {EACH_GROUP} out"
        )
    names, fold = np.unique(groups.to_numpy(str), return_inverse=True)
    if not 2 <= len(names) <= MOST_GROUPS:
        raise ValueError(
            f"method '{EACH_GROUP}' makes a fold of every group, and there are {len(names)} (2 to {MOST_GROUPS} can "
            "be): name a column of sources by --group"
        )
    return fold


def _table_order(listed: pd.DataFrame, k: int, seed: int) -> pd.Series:
    """The clip table in its own order -> fold by clip_id, scikit-learn's for these labels, one a clip."""
    if several_labels(listed):
        raise ValueError(f"method '{TABLE_ORDER}' stratifies by the one label of each clip; some clips have several")
    folds = pd.Series(-1, index=listed.clip_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer than k clips: make_folds.py names them
        splits = StratifiedKFold(k, shuffle=True, random_state=seed).split(listed, listed.labels.fillna("").astype(str))
        for fold, (_, held_out) in enumerate(splits):
            folds.iloc[held_out] = fold
    return folds


def choose_method(clips: pd.DataFrame, group: str | None = None) -> str:
    """Clip table -> the name of the method that `make_folds` takes by itself."""
    if group is None and "official_fold" in clips:
        return "official"
    some = (clips.iloc[:SOME], clips) if group != NO_GROUP else ()  # mostly the first say it
    if any(group_names(part, group).duplicated().any() for part in some):
        return "grouped"
    return "multilabel" if several_labels(clips) else "stratified"


def several_labels(clips: pd.DataFrame) -> bool:
    """Whether any clip has more than one label."""
    return any(len(names) > 1 for names in distinct_labels(clips)[1])


def fold_table(clips: pd.DataFrame, folds: pd.DataFrame, classes=None) -> pd.DataFrame:
    """Class-by-fold clip counts: index label (in `classes` order, else sorted), one column a fold."""
    row, label, names = label_pairs(clips)
    own, columns = pd.factorize(folds.fold.to_numpy(), sort=True)
    place = rows_of(clips, folds)[row]
    at = label[place >= 0] * len(columns) + own[place[place >= 0]]
    counts = np.bincount(at, minlength=len(names) * len(columns)).reshape(len(names), len(columns))
    table = pd.DataFrame(counts, pd.Index(names, dtype=object, name="label"), pd.Index(columns, name="fold"))
    found = sorted(table.index[counts.any(axis=1)])
    return table.reindex(index=found if classes is None else list(classes), fill_value=0)


def missing_classes(table: pd.DataFrame) -> dict[int, list[str]]:
    """What `fold_table` gave -> fold: names of the classes that it holds no clip of (folds that miss none left out)."""
    lost = {int(fold): table.index[table[fold] == 0].tolist() for fold in table}
    return {fold: names for fold, names in lost.items() if names}


def rare_classes(
    clips: pd.DataFrame, k: int, group: str | None = None, groups: np.ndarray | None = None
) -> pd.DataFrame:
    """Classes that cannot be in each of k folds: `label, clips, groups`, fewer than k groups each, rarest first.

    groups: (N,) numbers of the groups from 0, where they were found before.
    """
    row, label, names = label_pairs(clips)
    groups = pd.factorize(group_names(clips, group))[0] if groups is None else groups
    n_groups = groups.max(initial=0) + 1
    of = pd.unique(label * n_groups + groups[row]) // n_groups  # the class of each pair of a class and a group
    clips_of, groups_of = (np.bincount(each, minlength=len(names)) for each in (label, of))
    counts = pd.DataFrame({"label": names, "clips": clips_of, "groups": groups_of})
    return counts[counts.groups < k].sort_values(["groups", "clips", "label"]).reset_index(drop=True)


def audit(clips: pd.DataFrame, folds: pd.DataFrame, columns=SOURCES) -> pd.DataFrame:
    """What one fold shares with another: each value of `columns` that is met in two folds.

    `column, value, folds, clips, of`, the last how many values the column has in all.

    `content_hash` (prepare.py --check-audio) finds the same recording under two names; `group` a source that an
    official split, or folds by another column, tear apart: the groups of the fold table and those of the clip table.
    Columns that neither table has are skipped, and so are empty values and those that say that nobody is known.
    """
    place, found = rows_of(folds, clips), []
    if len(place) != len(clips) or (place != np.arange(len(clips))).any():
        folds, clips = folds[place >= 0], clips.iloc[place[place >= 0]]
    texts = all("group" in table and table.group.dtype == object for table in (clips, folds))
    same = texts and (folds.group.to_numpy() == clips.group.to_numpy()).all()  # categories are looked through as fast
    for column in columns:
        for table in (folds, clips) if column == "group" and not same else (clips,):
            found += [(column, *row) for row in shared_values(folds, table[column])] if column in table else []
    return pd.DataFrame(found, columns=["column", "value", "folds", "clips", "of"]).drop_duplicates(
        ["column", "value"], ignore_index=True
    )


def shared_values(folds: pd.DataFrame, values: pd.Series) -> list[tuple[str, str, str, int]]:
    """Values, one a row of the fold table, that are in more than one fold: (value, folds, clips, of) each."""
    code, names = distinct_names(values)
    fold, clip_ids = folds.fold.to_numpy(), folds.clip_id.to_numpy()
    least, most = np.full(len(names), fold.max(initial=0)), np.full(len(names), fold.min(initial=0))
    np.minimum.at(least, code, fold)
    np.maximum.at(most, code, fold)
    shared = least < most
    shared[[i for i in np.flatnonzero(shared) if names[i].casefold() in ("", *NOBODY)]] = False
    torn = np.flatnonzero(shared[code])
    torn = torn[np.argsort(code[torn], kind="stable")]
    parts = np.split(torn, np.flatnonzero(np.diff(code[torn])) + 1) if len(torn) else []
    of = len(names) - names.count("")
    return sorted(
        (names[code[p[0]]], " ".join(map(str, sorted(set(fold[p].tolist())))), " ".join(clip_ids[p]), of) for p in parts
    )


def group_numbers(folds: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Fold table -> (N,) number of each clip's group, from 0, and how many groups there are."""
    some, every = folds.iloc[:SOME], folds
    if all((part.group.to_numpy() == part.clip_id.to_numpy()).all() for part in (some, every)):
        return np.arange(len(folds)), len(folds)  # no groups: each clip is its own
    groups, names = pd.factorize(folds.group)
    return groups, len(names)


def rows_of(wanted: pd.DataFrame, among: pd.DataFrame) -> np.ndarray:
    """Two tables with `clip_id` -> (N,) where each clip of the first stands in the second, -1 where it does not."""
    names, others = wanted.clip_id.to_numpy(), among.clip_id.to_numpy()
    if len(names) == len(others) and (names == others).all():
        return np.arange(len(names))
    return places(as_names(names), as_names(others))


def read_folds(path: str | Path, clips: pd.DataFrame) -> pd.DataFrame:
    """Fold CSV -> its rows in the order of `clips`; a clip listed twice, missing or unknown is an error."""
    folds = read_table(path, ("clip_id", "group", "fold"))
    folds["fold"] = fold_numbers(folds.fold, path)
    listed = as_names(folds.clip_id)
    if not all_different(listed):
        twice = folds.clip_id[folds.clip_id.duplicated()].unique()
        raise ValueError(f"{path} lists {plural(len(twice), 'clips')} twice: {few(twice)}")
    remedy = f"make another with src/make_folds.py: {pasted('--keep', path)} leaves all other clips in their folds"
    place = places(as_names(clips.clip_id), listed)
    if len(missing := clips.clip_id[place < 0]):
        raise ValueError(f"{path} misses {len(missing)} of {len(clips)} clips: {few(sorted(missing))}; {remedy}")
    if len(folds) > len(clips):
        unknown = sorted(set(folds.clip_id) - set(clips.clip_id))
        raise ValueError(f"{path} names {len(unknown)} clips that are not in the clip table: {few(unknown)}; {remedy}")
    folds = folds.take(place).assign(clip_id=clips.clip_id.to_numpy())  # one text a clip, not two
    return folds[["clip_id", *folds.columns.drop("clip_id")]].reset_index(drop=True)


def fold_numbers(column: pd.Series, path: str | Path, name: str = "fold") -> pd.Series:
    """Column `fold` of a fold table -> whole numbers; anything else in it is an error that names it `name`."""
    number = pd.to_numeric(column, errors="coerce").astype(float)
    if (wrong := ~((number >= TRAIN_ONLY) & (number % 1 == 0) & (number < MOST_FOLDS))).any():
        raise ValueError(
            f"{path} column '{name}' must hold whole numbers from 0, or {TRAIN_ONLY} for clips that always train, "
            f"got '{column[wrong].iloc[0]}'"
        )
    return number.astype(int)


def held_out_folds(fold: pd.Series) -> list[int]:
    """The numbers of the folds that hold clips out, in order."""
    return sorted(int(f) for f in fold.unique() if f != TRAIN_ONLY)


def folds_in(path: str | Path) -> list[int]:
    """`held_out_folds` of a fold table."""
    return held_out_folds(fold_numbers(read_table(path, ("clip_id", "fold")).fold, path))


def select_fold(folds: pd.DataFrame, fold: int, path: str | Path = "the fold table") -> np.ndarray:
    """Fold table -> (N,) booleans: the rows that `fold` holds out; the others train. `path` is for the error."""
    known = held_out_folds(folds.fold)
    if fold not in known:
        span = f"{known[0]}-{known[-1]}" if known == list(range(len(known))) and len(known) > 1 else few(known, 20)
        if not known:
            raise ValueError(
                f"{path} holds out none of the {len(folds)} clips that this run takes: all have fold "
                f"{TRAIN_ONLY}, "
                "which always trains, so that nothing is left to score it on. Take more clips by data.where, or make "
                "folds that hold some of these out"
            )
        raise ValueError(f"fold {fold} is not in {path} (folds: {span})")
    return (folds.fold == fold).to_numpy()


def group_names(clips: pd.DataFrame, group: str | None) -> pd.Series:
    """Name each clip's group, (N,): by the column asked for, where it is empty by the table's `group`, else the clip.

    Soundscapes have a site and no author: folds by author keep a site together all the same. Names are texts, but those
    of a categorical column that names every clip's and has no stray spaces are its categories.
    """
    groups = clips.clip_id.astype(str)
    if group == NO_GROUP:
        return groups
    if group is not None:
        require_columns(clips, (group,), "the clip table")
    for column in ("group", group):
        if column in clips:
            values = clips[column]
            code, names = distinct_names(values)
            named, as_they_are = code != names.index(""), isinstance(values.dtype, pd.CategoricalDtype)
            if as_they_are and named.all() and set(values.cat.categories) <= set(names):
                groups = values
            else:
                texts = pd.Series(np.array(names, object)[code], index=clips.index, dtype=object)
                groups = texts.where(named, groups.astype(object))
    return groups


def _check_k(k: int, n_groups: int):
    if k < 2:
        raise ValueError(f"k must be at least 2 folds, got {k}")
    if n_groups < 2:
        what = "every clip is of one group" if n_groups else "the clip table lists no clip"
        raise ValueError(f"{what}, and two folds need two groups at least: take other clips, or another --group")
    if n_groups < k:
        raise ValueError(
            f"{plural(n_groups, 'groups')} cannot fill {plural(k, 'folds')}; take --k {n_groups} or another --group"
        )


def _class_pairs(clips: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Clip table -> (P,) rows, (P,) classes in the order of their names, and how many classes occur.

    A clip without labels is of one class more, NO_LABEL.
    """
    row, label, names = label_pairs(clips)
    without = np.ones(len(clips), bool)
    without[row] = False
    classes = sorted({*names, *([NO_LABEL] if without.any() else [])})
    place = {c: i for i, c in enumerate(classes)}
    label = np.array([place[n] for n in names], int)[label]
    if without.any():
        row = np.concatenate([row, np.flatnonzero(without)])
        label = np.concatenate([label, np.full(without.sum(), place[NO_LABEL])])
    return row, label, len(classes)


def _stratify(clips: pd.DataFrame, groups: pd.Series, k: int, seed: int, method: str) -> np.ndarray:
    """Clip table, sorted, and (N,) groups -> (N,) folds by `method`."""
    row, label, n_classes = _class_pairs(clips)
    n, alone = len(clips), np.arange(len(clips))
    if method == "stratified" and np.bincount(label).max() >= k:
        first = np.full(n, n_classes)
        np.minimum.at(first, row, label)
        splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # classes with fewer than k clips: `rare_classes` names them, where scikit-learn only warns
            warnings.simplefilter("ignore", UserWarning)
            return _as_folds(splitter.split(alone, first), n)
    if method == "multilabel":
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

        has = np.zeros((n, n_classes), np.int8)
        has[row, label] = 1
        splitter = MultilabelStratifiedKFold(k, shuffle=True, random_state=seed)
        return group_folds.repair(has, _as_folds(splitter.split(alone, has), n), k)
    member = _by_name(groups) if method == "grouped" else alone
    n_members = member.max() + 1
    held = np.bincount(member[row] * n_classes + label, minlength=n_members * n_classes).reshape(n_members, n_classes)
    sizes = np.bincount(member)
    fold = group_folds.refine(held, sizes, group_folds.assign(held, sizes, k, seed), k)
    return group_folds.repair(held, fold, k)[member]


def _by_name(groups: pd.Series) -> np.ndarray:
    """(N,) groups -> (N,) number of each clip's group, in the order of the groups' names."""
    number, names = pd.factorize(groups)
    place = np.empty(len(names), int)
    place[np.argsort(as_names(names), kind="stable")] = np.arange(len(names))
    return place[number]


def _as_folds(splits, n: int) -> np.ndarray:
    fold = np.full(n, -1)
    for number, (_, valid) in enumerate(splits):
        fold[valid] = number
    return fold

"""Clip table -> folds/<name>.csv, the same bytes every time, and a table of what each fold holds.

python src/make_folds.py --clips data/esc50/clips.csv --out folds/esc50.csv
python src/make_folds.py --clips data/finch_vocal/clips.csv --out folds/birds.csv --method each_group --group individual
python src/make_folds.py --clips data/esc50/clips.csv --out folds/apart.csv --apart-duplicates  # hears every recording
python src/make_folds.py --clips data/esc50/clips.csv --inside folds/esc50.csv --fold 0 --out folds/esc50_inside0.csv
python src/make_folds.py --clips data/mine/clips.csv --keep folds/mine.csv --out folds/mine2.csv  # more clips, or fewer
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from earshot.script import run_script

import pandas as pd

from earshot.audits.fingerprints import fingerprints
from earshot.audits.leaks import duplicates_together
from earshot.competitions import get_competition
from earshot.competitions.tables import read_dataset
from earshot.config import LARGEST_SEED
from earshot.data.folds import (
    DEFAULT_K,
    EACH_GROUP,
    TABLE_ORDER,
    TRAIN_ONLY,
    audit,
    choose_method,
    fold_table,
    group_numbers,
    make_folds,
    missing_classes,
    rare_classes,
    rows_of,
)
from earshot.data.inside import clips_inside, folds_inside, write_inside
from earshot.data.kept_folds import keep_folds, told
from earshot.data.labels import read_classes, read_clips
from earshot.files import check_ending, check_writable, whole_file
from earshot.messages import Parser, check_numbers, few, pasted, plural, progress_bar, suggest
from earshot.prediction.free_cores import allowed_cores
from earshot.tables import require_columns

FULL_TABLE = 30  # classes; beyond, only the least even ones are printed
SHORT_TABLE = 12
LARGE_GROUP = 1.5  # even folds that a group may fill before it is named


def main():
    options = parse_args()
    if options.method == EACH_GROUP and options.k is not None:
        raise ValueError(
            f"--k {options.k}: --method {EACH_GROUP} makes as many folds as there are groups: leave --k out"
        )
    options.k = DEFAULT_K if options.k is None else options.k
    check_ending(options.out, ".csv", ".tsv")
    check_writable(options.out)
    check_numbers(options, "seed", high=LARGEST_SEED)
    clips = read_clips(options.clips)
    require_columns(clips, ("labels",), options.clips)
    if options.inside:
        check_writable(inside_folder(options) / "dataset.json", "prepare the data where it can be")
        clips = clips_inside(clips, options.inside, options.fold)
    if options.apart_duplicates:
        clips = with_duplicates_together(clips, options)
    if options.ignore_official or options.apart_duplicates:
        clips = clips.drop(columns="official_fold", errors="ignore")
    if "group" in clips:
        groups = pd.Categorical.from_codes(*pd.factorize(clips.group))  # texts are looked up once, not at every step
        clips = clips.assign(group=groups)
    method = choose_method(clips, options.group) if options.method == "auto" else options.method
    assign = method if options.method == "auto" else find_method(options.method, options.clips.parent)
    if options.keep:
        folds, method = keep_folds(clips, options.keep, options.group, options.method == EACH_GROUP), "kept"
        print(told(options.keep, clips))
    else:
        make = folds_inside if options.inside else make_folds
        folds = make(clips, options.k, options.seed, options.group, assign)
    class_list = options.clips.parent / "classes.csv"
    table = fold_table(clips, folds, read_classes(class_list) if class_list.is_file() else None)
    report(clips, folds, table, method, options)
    if options.inside:  # before the table, as either may be refused
        folder = inside_folder(options)
        write_inside(options.clips.parent, folder, clips, options.inside, options.fold, options.force)
        print(f"-> {folder}: its clips, for {pasted(f'data.root={folder}', f'data.folds={options.out}')}")
    print(write(folds, options.out, options.force))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="clips.csv that prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="fold table to write")
    parser.add_argument("--k", type=int, help=f"number of folds (default {DEFAULT_K}; official folds keep theirs)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--group", help="column never split between folds (default: group, where there; none: no groups)"
    )
    parser.add_argument(
        "--method",
        default="auto",
        help="auto: by the data; table_order: scikit-learn's StratifiedKFold on the rows as "
        "they are listed; each_group: every group (--group individual) a fold; else one of the competition's own, "
        "such as rfcx",
    )
    parser.add_argument(
        "--ignore-official", action="store_true", help="make own folds although the table has official ones"
    )
    parser.add_argument(
        "--apart-duplicates",
        action="store_true",
        help="hear every recording and keep the same sound in one fold, whatever was done to it (own folds, as with "
        "--ignore-official)",
    )
    parser.add_argument("--inside", type=Path, metavar="FOLDS", help="split only the clips that --fold of this fold "
                        "table trains on, as a data set of their own (data/<name>_inside<fold>)")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDS", help="clips of this fold table stay in their folds; new "
                        "ones join that of their group, or the folds that they make most even (with --method "
                        "each_group each new group is a fold)")  # fmt: skip
    parser.add_argument("--fold", type=int, help="with --inside: the fold whose held-out clips stay outside")
    parser.add_argument("--force", action="store_true", help="replace a fold table that differs")
    options = parser.parse_args()
    if (options.inside is None) != (options.fold is None):
        parser.error("--inside FOLDS and --fold N go together")
    if options.keep and (options.inside or options.apart_duplicates or options.method not in ("auto", EACH_GROUP)):
        parser.error(f"--keep FOLDS goes with --group and --method {EACH_GROUP} alone")
    return options


def inside_folder(options: argparse.Namespace) -> Path:
    """Where the clips of --inside become a data set: beside their own, under its name."""
    folder = options.clips.parent if options.clips.parent.name else options.clips.parent.resolve()
    return folder.with_name(f"{folder.name}_inside{options.fold}")


def with_duplicates_together(clips: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """The clips with groups that keep the same sound together, found as src/audit.py finds it."""
    if options.group not in (None, "group"):
        raise ValueError(
            f"--apart-duplicates joins the groups of the column group, not of {options.group}: leave --group out, or "
            f"write the clip table with {options.group} as its group"
        )
    source = Path(read_dataset(options.clips.parent)["source"])
    paths = [source / p for p in clips.path]
    prints = list(
        fingerprints(paths, allowed_cores(), lambda some: progress_bar(some, "fingerprints", len(paths), "file"))
    )
    if lost := [c for c, found in zip(clips.clip_id, prints, strict=True) if found is None]:
        print(f"{plural(len(lost), 'recordings')} could not be read; nothing is known of their sound: {few(lost)}")
    groups = duplicates_together(clips, prints)
    before = clips.group.nunique() if "group" in clips else len(clips)
    print(f"{plural(before, 'groups')} -> {groups.nunique()}: recordings of the same sound are in one now")
    return clips.assign(group=groups)


def find_method(name: str, folder: Path) -> Callable | str:
    """The fold method of this name: a general one, or one of the competition that `folder` was prepared from."""
    if name in (TABLE_ORDER, EACH_GROUP):
        return name
    competition = get_competition(read_dataset(folder)["competition"])
    if name not in competition.fold_methods:
        known = ("auto", TABLE_ORDER, EACH_GROUP, *competition.fold_methods)
        raise ValueError(f"{competition.name} has no fold method '{name}'{suggest(name, known)}")
    return competition.fold_methods[name]


def report(clips: pd.DataFrame, folds: pd.DataFrame, table: pd.DataFrame, method: str, options: argparse.Namespace):
    """Print the method, class by fold, and every class or source that the folds cannot treat as they should."""
    held_out = folds.fold != TRAIN_ONLY
    n_folds, (groups, n_groups) = folds.fold[held_out].nunique(), group_numbers(folds)
    grouping = "no groups" if n_groups == len(folds) else f"{plural(n_groups, 'groups')}"
    classes = f"{len(table)} class{'es' * (len(table) > 1)}"
    print(f"{plural(len(folds), 'clips')}, {grouping}, {classes} -> {n_folds} fold{'s' * (n_folds != 1)} ({method})")
    if not held_out.all():
        print(f"fold {TRAIN_ONLY}: {plural((~held_out).sum(), 'clips train')} in every fold, never held out")
    print(shown_counts(table, folds))
    if "secondary_labels" in clips and clips.secondary_labels.fillna("").str.strip().any():
        print("labels are counted, secondary labels are not (training counts them too: data.secondary_weight)")
    rare = rare_classes(clips, n_folds, options.group, None if options.inside else groups[rows_of(clips, folds)])
    if len(rare):
        names = [f"{r.label} ({r.groups})" for r in rare.itertuples()]
        print(
            f"{plural(len(rare), 'classes have')} fewer groups than {plural(n_folds, 'folds')} (groups in brackets): "
            f"{few(names, 20)}"
        )
    for fold, names in missing_classes(table).items():
        print(f"fold {fold} holds no clip of {len(names)} classes: {few(names, 20)}")
    for line in shared_sources(audit(clips, folds), clips):
        print(line)
    if n_groups < len(folds) and held_out.any():
        for line in doubtful_groups(folds[held_out], method):
            print(line)


def doubtful_groups(folds: pd.DataFrame, method: str) -> list[str]:
    """What is odd about the groups of a fold table, as lines: names that differ in case alone and are in two folds,
    and, where groups are dealt out, one that is larger than a fold."""
    lines, names = [], pd.Series(folds.group.astype(str).unique())
    keys = names.str.casefold()
    alike = names[keys.duplicated(keep=False)].groupby(keys)
    torn = ["/".join(sorted(some)) for _, some in alike if folds.fold[folds.group.isin(some)].nunique() > 1]
    if torn:
        lines.append(
            f"groups that differ in case alone are in several folds: {few(torn)}; if they are one, write it in one way "
            "in the clip table"
        )
    sizes, n_folds, n = folds.group.value_counts(), folds.fold.nunique(), len(folds)
    if method == "grouped" and (largest := sizes.iloc[0]) * n_folds > LARGE_GROUP * n:
        lines.append(
            f"group {sizes.index[0]} holds {largest} of {n} clips, and an even fold {n // n_folds}: when it is held "
            f"out, {n - largest} clips train at most"
        )
    return lines


def shared_sources(found: pd.DataFrame, clips: pd.DataFrame) -> list[str]:
    """What `audit` found, as lines for people: a value a line, of a column with many values one line in all."""
    lines = []
    for column, rows in found.groupby("column", sort=False):
        if len(rows) <= SHORT_TABLE:
            lines += [
                f"folds {row.folds.replace(' ', ', ')} share {row.column} {row.value}: {few(row.clips.split(), 8)}"
                for row in rows.itertuples()
            ]
            continue
        remedy = (
            f"; {pasted('--group', column)} keeps each in one fold" if column in clips and column != "group" else ""
        )
        lines.append(f"folds share {len(rows)} of {rows.of.iloc[0]} values of {column}: {few(rows.value)}{remedy}")
    return lines


def shown_counts(table: pd.DataFrame, folds: pd.DataFrame) -> str:
    """Class-by-fold counts as text; of many classes those whose shares differ most from even ones."""
    clips = folds.fold.value_counts().reindex(table.columns).rename("all clips").to_frame().T
    shown, note = table, ""
    if len(table) > FULL_TABLE:
        uneven = (table.max(axis=1) - table.min(axis=1)) / table.sum(axis=1).clip(lower=1)
        worst = uneven[uneven > 0].sort_values(ascending=False, kind="stable").index[:SHORT_TABLE]
        shown, note = table.loc[worst], f"\nof {len(table)} classes the least even {len(worst)} are shown"
        note = note if len(worst) else f"\nall {len(table)} classes are spread evenly"
    shown = pd.concat([shown, clips]).rename(columns=lambda f: f"fold {f}")
    shown["sum"] = shown.sum(axis=1)
    shown.columns.name = None
    return shown.to_string() + note


def write(folds: pd.DataFrame, out: Path, force: bool) -> str:
    """Write the fold table unless another one is there; returns what happened."""
    separator = "\t" if out.suffix == ".tsv" else ","
    content = folds.to_csv(index=False, sep=separator, lineterminator="\n").encode()
    if out.is_file():
        if out.read_bytes() == content:
            return f"{out} is unchanged"
        if not force:
            raise ValueError(f"{out} exists and differs: runs trained on it would not match; replace it with --force")
    with whole_file(out) as partial:
        partial.write_bytes(content)
    return f"-> {out}"


if __name__ == "__main__":
    run_script(main)

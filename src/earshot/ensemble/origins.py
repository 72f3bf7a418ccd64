"""Runs held against each other, against the tables as they are now, and against what was predicted with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from earshot.ensemble.blends import read_ensemble
from earshot.files import fold_folders
from earshot.messages import command_line
from earshot.prediction.origin import TABLES, TableDigests, check_among, check_same, say_unchecked, short, tables_differ
from earshot.prediction.predictions import Predictions
from earshot.runs import FoldRun, Run, load_run


def check_tables(folds: Iterable[FoldRun], now: TableDigests | None, of: Iterable[str] = TABLES):
    """Raise where folds were trained on other tables than those that their config names `now`; of: keys of
    WITHIN_A_RUN."""
    for fold in folds:
        origin = fold.origin
        if origin is None or now is None:
            say_unchecked(str(fold.folder))
        elif what := tables_differ(origin.tables, now, of):
            data = fold.config.data
            raise ValueError(
                f"{fold.folder} ({origin}) was trained on other tables than {data.folds} and {data.root} hold now: "
                f"{what}; put the tables that it was trained on back, or train anew under another --name"
            )


def check_same_tables(runs: Sequence[Run], remedy: str, of: Iterable[str] = TABLES):
    """Raise where runs were trained on different tables: fold table, class list or clip table."""
    for other in runs[1:]:
        a, b = runs[0].folds[0].origin, other.folds[0].origin
        what = tables_differ(a.tables, b.tables, of) if a is not None and b is not None else ""
        if what:
            raise ValueError(f"{runs[0].folder} and {other.folder} were trained on different tables: {what}; {remedy}")


def check_distinct(runs: Sequence[Run]):
    """Raise where a run is named twice, or two runs hold the same weights: a copy would count twice."""
    for i, other in enumerate(runs):
        for first in runs[:i]:
            if first.folder.resolve() == other.folder.resolve():
                raise ValueError(f"{other.folder} is named twice: a member counts once, --weights says how much")
            shared = {o.weights for o in first.origins or ()} & {o.weights for o in other.origins or ()}
            if shared:
                named = ", ".join(map(short, sorted(shared)))
                raise ValueError(
                    f"{first.folder} and {other.folder} hold the same weights ({named}): one is a copy of the other, "
                    "and would count twice; leave it out"
                )


def check_predictions(found: Predictions, path: Path, run: Run):
    """Raise where predictions do not come from the folds of `run`, all of them, with the weights that they have now."""
    known = run.origins
    if found.origins is None or known is None:
        say_unchecked(str(path if found.origins is None else run.folder))
        return
    remedy = f"predict again: {command_line('predict', '--run', run.folder, '--clips', 'TABLE')}"
    check_among(path, found.origins, run.folder, known, remedy)


def check_where_it_lies(found: Predictions, path: Path):
    """Raise where predictions are not of the run, the fold or the ensemble beside which they lie under its name.

    runs/<task>/<name>/test.npz is of the run, fold<k>/test.npz of its fold, x.npz beside x.json of that ensemble.
    """
    folder = path.parent
    if path.name == "test.npz" and fold_folders(folder):
        check_predictions(found, path, load_run(folder))
    elif path.name == "test.npz" and folder in fold_folders(folder.parent):
        fold = FoldRun(folder)
        fold.check()
        check_predictions(found, path, Run(folder.parent, (fold,)))
    elif (about := path.with_suffix(".json")).is_file() and (known := read_ensemble(about).origins):
        if found.origins is None:
            say_unchecked(str(path))
        else:
            check_among(path, found.origins, about, known, "blend again with src/ensemble.py")


def check_tuned_on(oof: Predictions, oof_path: Path, found: Predictions, path: Path):
    """Raise where post-processing would be chosen on the OOF of other runs, or other weights of them, than those that
    predicted the test. The OOF of some of their folds will do."""
    for one, where in ((oof, oof_path), (found, path)):
        if not one.origins:
            say_unchecked(str(where))
    if not oof.origins or not found.origins:
        return
    known = {(o.run, o.fold): o for o in oof.origins}
    of_runs = {o.run for o in oof.origins}
    for origin in found.origins:
        own = known.get((origin.run, origin.fold))
        if own or origin.run not in of_runs:
            other = own or oof.origins[0]
            check_same(path, origin, oof_path, other, "give the OOF of the runs that predicted the test")

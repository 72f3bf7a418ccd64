"""Can this CV be believed? Leaks between folds, duplicates, splits that flatter, scores without enough evidence.

python src/audit.py --data data/esc50 --folds folds/esc50.csv
python src/audit.py --data data/mine --folds folds/mine.csv --runs runs/tagging/mine runs/tagging/mine_b0
python src/audit.py --data data/mine --folds folds/mine.csv --write-groups folds/mine_groups.csv

Hears every recording (for fingerprints, and for log-mel statistics), finds the same sound whatever was done to it, and
compares what random, grouped and place-held-out folds would say. With --runs it also hears held-out recordings as if
they had been recorded louder, softer, over noise, duller or in a room (--robust). Writes OUT/audit.html and
OUT/audit.json; with --strict it ends with exit code 1 where something raises scores. make_folds.py --apart-duplicates
mends duplicates.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from datetime import datetime
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files, runs
from earshot.audits import leaks, robustness, splits
from earshot.audits.fingerprints import fingerprints
from earshot.competitions import get_competition
from earshot.competitions.tables import write_csv
from earshot.data import pseudo
from earshot.data.dataset import read_dataset
from earshot.data.digests import table_digests
from earshot.data.folds import read_folds
from earshot.data.labels import clip_targets, read_classes, read_clips
from earshot.data.soft_targets import FILE, SoftTargets
from earshot.listening.members import fold_members
from earshot.messages import Parser, check_numbers, command_line, plural, progress_bar
from earshot.pages import audit as audit_page
from earshot.pages.report import Evidence, evidence_of
from earshot.prediction.free_cores import allowed_cores


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_numbers(options, "robust")
    files.check_writable(options.out / "audit.html", "give --out FOLDER")
    if options.write_groups:
        files.check_writable(options.write_groups)
    names = runs.short_names(options.runs)
    source = Path(read_dataset(options.data)["source"])
    clips, classes = read_clips(options.data / "clips.csv"), read_classes(options.data / "classes.csv")
    folds = read_folds(options.folds, clips)
    test = read_clips(options.data / "test_clips.csv") if (options.data / "test_clips.csv").is_file() else None
    evidence = {name: evidence_of(runs.load_run(folder)) for name, folder in zip(names, options.runs, strict=True)}
    target, _ = clip_targets(clips, classes)

    prints = heard(fingerprints, [source / p for p in clips.path], "fingerprints")
    test_prints = [] if test is None else heard(fingerprints, [source / p for p in test.path], "of the test")
    if options.write_groups:
        write_groups(clips, prints, options)
    found = leaks.leaks_of(clips, folds, prints, test, test_prints)
    if (options.data / FILE).is_file():
        now = files.file_digest(options.folds)
        found += leaks.of_targets(SoftTargets.load(options.data / FILE).lineage, clips, now)
    found = leaks.surest_first(found + leaks_of_pseudo(options, clips, folds, source, prints, test))
    features = np.stack(heard(splits.statistics, [source / p for p in clips.path], "statistics"))
    elsewhere = labelled_elsewhere(options.labelled, classes) if options.labelled else None
    compared = splits.compare(features, target > 0.5, splits.parts_of(clips, folds), elsewhere)
    lost = sum(p is None for p in prints)
    otherwise = {name: t for name, e in evidence.items() if (t := recorded_otherwise(e, name, options)) is not None}
    write(
        options, found, compared, clips, folds, classes=classes, target=target, evidence=evidence, lost=lost,
        otherwise=otherwise,
    )  # fmt: skip
    if options.strict and any(leak.grave for leak in found):
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder that prepare.py wrote")
    add("--folds", type=Path, required=True, help="fold table")
    add("--runs", type=Path, nargs="*", default=[], help="trained runs: intervals, differences, calibration, drift")
    add("--labelled", type=Path, help="prepared folder of another labelled set: which split tells what it does")
    add("--pseudo", type=Path, nargs="*", default=[], help="folders of pseudo-labels (those below --data come anyhow)")
    add(
        "--robust",
        type=int,
        default=40,
        metavar="N",
        help="held-out recordings of a run that are heard louder, over noise, duller, in a room (default 40; 0: none)",
    )
    add("--out", type=Path, default=Path("runs/audit"), help="folder of the report (default runs/audit)")
    add("--write-groups", type=Path, help="write a clip table whose groups keep the same sound together")
    add("--strict", action="store_true", help="exit code 1 where a leak raises scores")
    return parser.parse_args()


def leaks_of_pseudo(options, clips: pd.DataFrame, folds: pd.DataFrame, source: Path, prints: list, test) -> list:
    """Leaks of every folder of pseudo-labels: those of --pseudo, below --data, and that the runs were trained on."""
    trained = [Path(p) for run in options.runs if (p := runs.load_run(run).config.data.pseudo)]
    below = [path.parent for depth in ("*", "*/*") for path in sorted(options.data.glob(f"{depth}/{pseudo.FILE}"))]
    below = [folder for folder in below if any(folder.glob("fold*.npz"))]
    everywhere = [*below, *trained, *options.pseudo]
    folders = {folder.resolve(): folder for folder in everywhere}.values()
    now = table_digests(folds, clips, None, []).folds
    found = []
    for folder in folders:
        manifest = pseudo.read_manifest(folder)
        found += leaks.of_pseudo(folder, clips, folds, source, now, test)
        windows = [pseudo.read_windows(folder, fold) for fold in manifest.folds]
        paths = {
            c: Path(manifest.source) / p for w in windows for c, p in zip(w.clip_ids.tolist(), w.paths, strict=True)
        }
        own = heard(fingerprints, list(paths.values()), f"of {folder.name}")
        found += leaks.of_pseudo_sounds(folder, list(paths), own, clips, folds, prints)
    return found


def heard(work, paths: list[Path], what: str):
    """Something of every recording, with a bar where there is a terminal."""
    return list(work(paths, allowed_cores(), lambda some: progress_bar(some, what, len(paths), "file")))


def recorded_otherwise(e: Evidence, name: str, options: argparse.Namespace) -> pd.DataFrame | None:
    """What a run's held-out recordings would have scored, had they been recorded otherwise; None where not asked."""
    if not options.robust or e.run.config.task == "asd":
        return None
    members = {runs.FoldRun(folder).fold: member for member, folder in fold_members(e.run.folder)}
    place = {c: i for i, c in enumerate(e.data.clips.clip_id)}
    recordings = e.data.recordings()
    judge = robustness.Judge.of(e.task, e.watch, get_competition(e.run.config.data.competition), e.oof, e.truth)
    return robustness.robustness(
        judge, members, e.oof, e.truth, [recordings[place[c]] for c in e.oof.clip_ids],
        most=options.robust, tta=e.run.config.predict.tta,
        progress=lambda some: progress_bar(some, f"otherwise {name}", len(robustness.CHANGES), "change"),
    )  # fmt: skip


def labelled_elsewhere(folder: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics and answers of another prepared folder, for the classes of this one."""
    clips, source = read_clips(folder / "clips.csv"), Path(read_dataset(folder)["source"])
    known = set(classes)
    clips = clips.assign(labels=[" ".join(n for n in str(t).split() if n in known) for t in clips.labels.fillna("")])
    target, _ = clip_targets(clips.drop(columns="secondary_labels", errors="ignore"), classes)
    return np.stack(heard(splits.statistics, [source / p for p in clips.path], "the other set")), target > 0.5


def write_groups(clips: pd.DataFrame, prints: list, options: argparse.Namespace):
    """The clip table with groups that keep one sound in one fold, for make_folds.py."""
    groups = leaks.duplicates_together(clips, prints)
    write_csv(clips.assign(group=groups), options.write_groups)
    words = ("--clips", options.write_groups, "--out", "folds/apart.csv", "--ignore-official")
    command = command_line("make_folds", *words)
    print(
        f"{plural(len(clips), 'clips')} in {plural(groups.nunique(), 'groups')} -> {options.write_groups}; next: "
        f"{command}"
    )


def write(options, found, compared, clips, folds, classes, target, evidence, lost: int, otherwise: dict):
    """OUT/audit.html, OUT/audit.json, and the gist on the terminal."""
    verdicts, tables = audit_page.of_leaks(found)
    more, split_table = audit_page.of_splits(compared)
    verdicts += more
    if lost:
        verdicts.append((f"{plural(lost, 'recordings')} could not be read: nothing is known of their sound.", True))
    tables += [split_table, audit_page.of_evidence(clips, folds, classes, target)]
    if evidence:
        tables += audit_page.of_runs(evidence)
        for name, e in evidence.items():
            tables += audit_page.of_calibration(e, name) + audit_page.of_drift(e, name)
    for name, table in otherwise.items():
        more, shown = audit_page.of_robustness(table, name, evidence[name].run.config.data.level)
        verdicts += more
        tables.append(shown)
    made = f"{datetime.now():%Y-%m-%d %H:%M}, {plural(len(clips), 'clips')}, {options.folds}, {runs.git_commit()[:12]}"
    text = audit_page.page(
        f"Audit of {options.data}", made, verdicts, tables, audit_page.calibration_pictures(evidence)
    )
    files.write_text(options.out / "audit.html", text)
    about = {
        "data": str(options.data), "folds": str(options.folds), "verdicts": [line for line, _ in verdicts],
        "leaks": [dataclasses.asdict(leak) for leak in found], "splits": compared.to_dict("records"),
        "otherwise": {name: table.replace({np.nan: None}).to_dict("records") for name, table in otherwise.items()},
        "tables": [{"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in tables],
    }  # fmt: skip
    files.write_text(options.out / "audit.json", files.as_json(about, indent=1) + "\n")
    print("\n".join("warning: " * bad + line for line, bad in verdicts))
    for leak in found[:10]:
        print(f"  {leak.kind}: {leak.what} ({leak.where}): {', '.join(leak.clips[:4])}")
    print(f"-> {options.out / 'audit.html'}, {options.out / 'audit.json'}")


if __name__ == "__main__":
    run_script(main)

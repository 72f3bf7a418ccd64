"""Blend runs: their OOF with its CV, and their test predictions.

python src/ensemble.py --runs runs/sed/synth_cnn runs/sed/synth_b0 --weights search --out runs/ensembles/two.npz
python src/ensemble.py --runs A B C --auto --out runs/ensembles/three.npz     # try every mean and kind of weights
python src/ensemble.py --runs A --tune --out runs/ensembles/one.npz           # one run: its post-processing

Writes OUT (test), OUT's stem + _oof.npz and + .json (members, blend, CV). Every CV is nested: what blends a fold's OOF
was fitted on the other folds. Whatever is not the plain mean is kept only if it beats it by more than its gain deviates
over folds; else the plain mean is used, and that is said (--always keeps it all the same). A run of a part of the
classes (data.part), a specialist, counts in the classes that it knows, beside at least one run of all. --tune chooses
the competition's post-processing on the blended OOF under the same rule, from its own start or --post, and writes OUT's
stem + _post.json for src/submit.py --post. src/bundle.py --blend OUT.json takes all of it to a kernel.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from earshot.script import run_script

import numpy as np

from earshot import files, runs
from earshot.competitions import get_competition
from earshot.competitions.competition import Competition
from earshot.data.answers import truth_of
from earshot.data.prepared import PreparedData, load_data
from earshot.ensemble import origins, search
from earshot.ensemble.blends import MEANS, Blend, correlations
from earshot.ensemble.choice import as_dict, post_for, write_choice
from earshot.ensemble.oof import OofReport, check_watched, oof_when_complete, score_table
from earshot.ensemble.post_processing import choose_post
from earshot.ensemble.specialists import blend_weights, full_classes, knowledge, scattered
from earshot.ensemble.system import network_macs
from earshot.messages import Parser, plural
from earshot.prediction import predictions
from earshot.prediction.origin import TABLES
from earshot.records import to_dict
from earshot.tasks import Task, score_readable, task_of, upward

SAME_TABLES = (
    "a member would be judged on clips that it learned from, or its columns be taken for others: train them on one "
    "table. Where labels alone were corrected since, --other-labels takes them"
)


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    files.check_ending(options.out, ".npz")
    files.check_writable(options.out)
    members = [runs.load_run(folder) for folder in options.runs]
    tables = [key for key in TABLES if not (options.other_labels and key == "clips")]
    full, mask = check_members(members, tables)
    config = members[int(mask.all(axis=1).argmax())].config  # of a run that knows all classes
    competition, task, data = get_competition(config.data.competition), task_of(config), load_data(config.data)
    reports = oofs_of(members, mask, data, task, tables)
    oofs, names = [scattered(report.oof, full) for report in reports], [str(member.folder) for member in members]
    search.check_alike(names, oofs)
    watch = objective(config, competition, task, reports)
    for member, report, knows in zip(members, reports, mask, strict=True):
        if knows.all():
            check_watched(report.scores, watch, member.folder)
    truth = truth_of(oofs[0], data)
    if said := search.check_grids(names, oofs, task, truth, watch):
        print(said)
    oof, blend, way = choose(oofs, truth, task, watch, options, mask)
    scores = score_readable(task, oof, truth)
    of_folds = [score_readable(task, oof.take(oof.fold == f), truth.take(oof.fold == f)) for f in np.unique(oof.fold)]
    by_fold = [found[watch] for found in of_folds if watch in found]
    weights = mean_weights(blend, len(members))
    print_members(members, weights, reports, mask, watch)
    if len(members) > 1:
        print_correlations(members, correlations(oofs))
    spread = f"mean of folds {np.mean(by_fold):.4f} +- {np.std(by_fold):.4f}"
    print(f"ensemble of {len(members)}, {way}: {watch} {scores[watch]:.4f} ({spread})")
    print(score_table(scores))
    heard = [member for member, weight in zip(members, weights, strict=True) if weight]
    warn_over_limits(competition, heard)
    whole = np.flatnonzero(mask.all(axis=1))  # the score of a part of the classes is another one
    best = best_member([members[i] for i in whole], [reports[i] for i in whole], watch, scores)
    choice = choose_post_processing(oof, truth, competition, members, options) if options.tune else None
    about = {"watch": watch, "scores": scores, "by_fold": by_fold, "best_member": best, "post_processing": choice}
    write(options.out, members, blend, oof, about, full)


def check_members(members: list[runs.Run], tables: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Raise where runs cannot be blended -> the blend's classes, and (M, K) booleans: which of them each run knows.

    tables: keys of origin.TABLES that must be the same; of a specialist the class list may be another.
    """
    origins.check_distinct(members)
    general = [m for m in members if not (m.config.data.part or m.config.data.levels or m.config.data.where)]
    origins.check_same_tables(general, SAME_TABLES, tables)
    origins.check_same_tables(members, SAME_TABLES, [key for key in tables if key != "classes"])
    full = full_classes([str(m.folder) for m in members], [m.classes for m in members])
    mask = knowledge(full, [m.classes for m in members])
    for one, knows in zip(members, mask, strict=True):
        if one in general and not knows.all():
            raise ValueError(
                f"{one.folder} knows {knows.sum()} of {len(full)} classes, and its config chooses no part "
                f"of them (data.part): it was trained on another class list, and {SAME_TABLES}"
            )
    return full, mask


def oofs_of(
    members: list[runs.Run], mask: np.ndarray, data: PreparedData, task: Task, tables: list[str]
) -> list[OofReport]:
    """The joined OOF of each run and its scores; one whose folds are not all trained is an error."""
    of_member = [data if knows.all() else load_data(m.config.data) for m, knows in zip(members, mask, strict=True)]
    reports = [
        oof_when_complete(m.folder, own, task, tables=tables)
        for m, own in zip(members, of_member, strict=True)
    ]  # fmt: skip
    for report in reports:
        if report.oof is None:
            raise ValueError(f"{report.text}; train them first, by that command")
    return reports


def print_members(members: list[runs.Run], weights, reports: list[OofReport], mask: np.ndarray, watch: str):
    """A line a run: its weight, its own score, and of how many classes, where it does not know all."""
    for member, weight, report, knows in zip(members, weights, reports, mask, strict=True):
        part = "" if knows.all() else f" of {knows.sum()} of {len(knows)} classes"
        print(f"  {weight:.3f}  {member.name:32s} {watch} {report.scores.get(watch, np.nan):.4f}{part}")


def objective(config, competition: Competition, task: Task, reports) -> str:
    """The score that blends are chosen by: `watch` of the config, else the official one of scores that are not cut by
    post-processing, where every member has it, else the task's."""
    official = competition.oof_score.name
    if config.watch or competition.post or any(official not in r.scores for r in reports):
        return task.watch
    return official


def warn_over_limits(competition: Competition, members: list[runs.Run]):
    """Say so where the networks of a blend are together larger than the competition allows a system to be."""
    limits = competition.limits
    if not (limits.parameters_kb or limits.mmacs):
        return
    count = sum(len(member.folds) for member in members)
    parameters = sum(fold.about.get("parameters", 0) for member in members for fold in member.folds)
    macs = sum(len(member.folds) * network_macs(member) for member in members) if limits.mmacs else 0
    for said in limits.broken(parameters / 1000, macs / 1e6):
        print(f"WARNING: {competition.name} {said} in {plural(count, 'networks')} together, which are one system")


def best_member(members, reports, watch: str, scores: dict[str, float]) -> dict:
    """The member with the best OOF, and a word where the ensemble does not reach it."""
    values = [r.scores[watch] for r in reports]
    i = int(np.argmax([upward(watch, v) for v in values]))
    worse = upward(watch, scores[watch]) < upward(watch, values[i])
    if worse:
        print(
            f"the ensemble is WORSE than its best member alone: {members[i].name} {watch} {values[i]:.4f}, the "
            f"ensemble {scores[watch]:.4f}; submit that run, or leave weak members out"
        )
    return {"run": str(members[i].folder), "score": float(values[i]), "better_than_ensemble": bool(worse)}


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="folders of runs whose folds are all trained"
    )
    parser.add_argument("--weights", choices=search.WEIGHTS, default="equal")
    parser.add_argument("--mean", choices=MEANS, default="mean")
    parser.add_argument("--auto", action="store_true", help="try every mean and every kind of weights, keep the best")
    parser.add_argument("--tune", action="store_true", help="choose the competition's post-processing on the OOF")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="with --tune: only these, such as threshold")
    parser.add_argument("--post", type=Path, help="with --tune: where it starts (YAML or JSON)")
    parser.add_argument(
        "--other-labels", action="store_true", help="take runs that learned from other labels of the same clips"
    )
    parser.add_argument("--always", action="store_true", help="keep what was asked for, better than the mean or not")
    parser.add_argument("--out", type=Path, required=True, help="npz of the blended test predictions")
    options = parser.parse_args()
    if (options.steps or options.post) and not options.tune:
        parser.error("--steps and --post say how --tune searches: add --tune")
    return options


def choose(oofs, truth, task, watch: str, options, mask: np.ndarray) -> tuple[predictions.Predictions, Blend, str]:
    """Choose the plain mean, or what beats it in a nested search: (blended OOF, the blend for the test, its name).
    mask: (M, K) which classes each member knows; in the others it has no weight."""
    plain = Blend(weights=blend_weights(None, mask))
    asked = (options.mean, options.weights)
    ways = search.EVERY_WAY if options.auto else [asked] * (asked != ("mean", "equal"))
    if len(oofs) == 1 or not ways:
        return plain([o.aligned(oofs[0].clip_ids) for o in oofs]), plain, "plain mean"
    light = [dataclasses.replace(o, framewise_output=None, timebase=None) for o in oofs]
    fast = watch in score_readable(task, light[0], truth)  # scores of clips need no frames: many blends are tried

    def score(found, answers) -> float:
        return upward(watch, score_readable(task, found, answers).get(watch, np.nan))

    tried = light if fast else oofs
    base, candidates = search.try_blends(tried, truth, score, ways, mask)
    print(f"  the plain mean, {watch}: {upward(watch, score(base, truth)):.4f}")
    for candidate in candidates:
        print(f"  against the plain mean, {watch}: {candidate}")
    kept = [c for c in candidates if c.kept or options.always]
    if not kept:
        print("  -> the plain mean")
        return plain([o.aligned(oofs[0].clip_ids) for o in oofs]), plain, "plain mean"
    best = max(kept, key=lambda c: c.gains.mean())
    aligned = [o.aligned(oofs[0].clip_ids) for o in oofs]
    oof = search.nested(aligned, truth, score, best.mean, best.weights, mask) if fast else best.oof
    tried = [t.aligned(oofs[0].clip_ids) for t in tried]
    return oof, search.fit_blend(tried, truth, score, best.mean, best.weights, mask), best.way


def choose_post_processing(oof, truth, competition: Competition, members, options) -> dict | None:
    """The competition's post-processing chosen on the blended OOF, as JSON has it (see ensemble/choice.py)."""
    if competition.post is None:
        print(f"{competition.name} has no post-processing: its rows are scores")
        return None
    choice = choose_post(
        oof, truth, competition.oof_score, competition.post, post_for(options.post, competition), options.steps,
        always=options.always,
    )  # fmt: skip
    print(choice)
    return as_dict(choice, competition.name, [m.folder for m in members], runs.git_commit())


def mean_weights(blend: Blend, count: int) -> np.ndarray:
    """The weights of the members to print, (M,): over classes their mean."""
    weights = np.array(blend.weights or [1 / count] * count).reshape(count, -1)
    return (weights / weights.sum(axis=0)).mean(axis=1)


def print_correlations(members, matrix: np.ndarray):
    """Who says the same as whom (Spearman, mean over classes): members far apart are worth blending."""
    print("  correlation of the OOF:")
    for member, row in zip(members, matrix, strict=True):
        print(f"    {member.name:32s} {' '.join(f'{v:6.3f}' for v in row)}")


def test_of(member, path: Path) -> predictions.Predictions:
    """A member's test predictions; those of another run, or of weights that it no longer has, are an error."""
    found = predictions.Predictions.load(path)
    origins.check_predictions(found, path, member)
    return found


def write(out: Path, members, blend: Blend, oof: predictions.Predictions, about: dict, full: tuple[str, ...]):
    """The blend's files, its JSON last; without test predictions of every member only the OOF and the figures."""
    post, listing = f"{out.stem}_post.json", out.with_suffix(".json").name
    tests = [m.folder / "test.npz" for m in members]
    absent = [str(t) for t in tests if not t.is_file()]
    test = (
        None
        if absent
        else blend([scattered(test_of(member, path), full) for member, path in zip(members, tests, strict=True)])
    )
    listed = {
        "runs": [str(m.folder) for m in members], "weights": mean_weights(blend, len(members)).tolist(),
        "blend": dataclasses.asdict(blend), "watch": about["watch"],
        "cv": about["scores"][about["watch"]], "cv_folds": [float(v) for v in about["by_fold"]],
        "scores": {k: float(v) for k, v in about["scores"].items()}, "best_member": about["best_member"],
        "origins": to_dict(oof.origins), "commit": runs.git_commit(), "command": sys.argv[1:],
    }  # fmt: skip
    with files.whole_set(out.parent, last=listing, without=[post, out.name]) as partial:
        oof.save(partial / f"{out.stem}_oof.npz")
        if choice := about["post_processing"]:
            listed["post_processing"] = choice
            write_choice(partial / post, choice)
        if test is not None:
            test.save(partial / out.name)
        (partial / listing).write_text(files.as_json(listed, indent=1))
    if choice:
        print(f"-> {out.with_name(post)}")
    if test is None:
        print(f"no test predictions ({', '.join(absent)}): only the OOF was blended; make them with src/predict.py")
    else:
        print(f"-> {out} ({len(test)} test clips), {out.stem}_oof.npz, {listing}")


if __name__ == "__main__":
    run_script(main)

"""Blend runs: their OOF with its CV, and their test predictions.

python src/ensemble.py --runs runs/sed/synth_cnn runs/sed/synth_b0 --weights search --out runs/ensembles/two.npz
python src/ensemble.py --runs A B C --auto --out runs/ensembles/three.npz     # try every mean and kind of weights

Writes OUT (test), OUT's stem + _oof.npz and + .json (members, blend, CV). Every CV is nested: what blends a fold's OOF
was fitted on the other folds. Whatever is not the plain mean is kept only if it beats it by more than its gain deviates
over folds; else the plain mean is used, and that is said (--always keeps it all the same). --thresholds chooses event
thresholds on the blended OOF under the same rule. src/bundle.py --blend OUT.json takes all of it to a kernel.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from earshot import files, runs
from earshot.data.prepared import load_data
from earshot.ensemble import search
from earshot.ensemble.blends import MEANS, Blend, correlations
from earshot.ensemble.thresholds import tune_event_thresholds
from earshot.messages import run_script
from earshot.prediction import predictions
from earshot.tasks import get_task, score_readable


def main():
    options = parse_args()
    files.check_writable(options.out)
    members = [runs.load_run(folder) for folder in options.runs]
    config = members[0].config
    task = get_task(config.task)
    watch = config.watch or task.watch
    data = load_data(config.data)
    reports = [search.oof_when_complete(m.folder, data, task, watch) for m in members]
    for report in reports:
        if report.oof is None:
            raise ValueError(f"{report.text}; train them first")
    oofs = [r.oof for r in reports]
    truth = search.truth_of(oofs[0], data)
    oof, blend = choose(oofs, truth, task, watch, options)
    scores = score_readable(task, oof, truth)
    by_fold = [
        score_readable(task, oof.take(oof.fold == f), truth.take(oof.fold == f)).get(watch) for f in np.unique(oof.fold)
    ]
    by_fold = [value for value in by_fold if value is not None]
    for member, weight, report in zip(members, mean_weights(blend, len(members)), reports, strict=True):
        print(f"  {weight:.3f}  {member.name:32s} {watch} {report.scores[watch]:.4f}")
    if len(members) > 1:
        print_correlations(members, correlations(oofs))
    spread = f"folds {np.mean(by_fold):.4f} +- {np.std(by_fold):.4f}"
    print(f"ensemble of {len(members)}, {blend.mean} mean: {watch} {scores[watch]:.4f} ({spread})")
    print(search.score_table(scores))
    thresholds = choose_thresholds(oof, truth, options.thresholds)
    write(options.out, members, blend, oof, thresholds=thresholds, watch=watch, scores=scores, by_fold=by_fold)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="folders of runs whose folds are all trained"
    )
    parser.add_argument("--weights", choices=search.WEIGHTS, default="equal")
    parser.add_argument("--mean", choices=MEANS, default="mean")
    parser.add_argument("--auto", action="store_true", help="try every mean and every kind of weights, keep the best")
    parser.add_argument(
        "--thresholds",
        choices=("one", "per_class"),
        help="choose event thresholds on the blended OOF (row-wise micro F1)",
    )
    parser.add_argument("--always", action="store_true", help="keep what was asked for, better than the mean or not")
    parser.add_argument("--out", type=Path, required=True, help="npz of the blended test predictions")
    return parser.parse_args()


def choose(oofs, truth, task, watch: str, options) -> tuple[predictions.Predictions, Blend]:
    """(blended OOF, the blend for the test): the plain mean, or what beats it in a nested CV."""
    asked = (options.mean, options.weights)
    ways = search.EVERY_WAY if options.auto else [asked] * (asked != ("mean", "equal"))
    if len(oofs) == 1 or not ways:
        return predictions.weighted_mean(oofs), Blend()
    light = [dataclasses.replace(o, framewise_output=None, timebase=None) for o in oofs]
    fast = watch in score_readable(task, light[0], truth)  # scores of clips need no frames: many blends are tried

    def score(found, answers) -> float:
        return score_readable(task, found, answers)[watch]

    tried = light if fast else oofs
    _, candidates = search.try_blends(tried, truth, score, ways)
    for candidate in candidates:
        print(f"  against the plain mean, {watch}: {candidate}")
    kept = [c for c in candidates if c.kept or options.always]
    if not kept:
        print("  -> the plain mean")
        return predictions.weighted_mean(oofs), Blend()
    best = max(kept, key=lambda c: c.gains.mean())
    aligned = [o.aligned(oofs[0].clip_ids) for o in oofs]
    oof = search.nested(aligned, truth, score, best.mean, best.weights) if fast else best.oof
    return oof, search.fit_blend([t.aligned(oofs[0].clip_ids) for t in tried], truth, score, best.mean, best.weights)


def choose_thresholds(oof, truth, how: str | None) -> dict:
    """Fields of PostProcess: the threshold best on the OOF, or one a class where that gains over the folds."""
    if not how:
        return {}
    choice = tune_event_thresholds(oof, truth.target)
    print(f"threshold {choice.threshold:.3f}: row-wise micro F1 {choice.score:.4f} on {len(oof)} OOF clips")
    if how == "one":
        return {"threshold": float(choice.threshold)}
    gain = f"{choice.gains.mean():+.4f} +- {choice.gains.std():.4f} over folds"
    print(f"a threshold a class gains {gain}: {'kept' if choice.by_class else 'not kept'}")
    return {"threshold": float(choice.threshold), "class_thresholds": choice.by_class}


def mean_weights(blend: Blend, count: int) -> np.ndarray:
    """(M,) weights to print: those of the members, over classes their mean."""
    return np.array(blend.weights or [1 / count] * count).reshape(count, -1).mean(axis=1)


def print_correlations(members, matrix: np.ndarray):
    """Who says the same as whom (Spearman, mean over classes): members far apart are worth blending."""
    print("  correlation of the OOF:")
    for member, row in zip(members, matrix, strict=True):
        print(f"    {member.name:32s} {' '.join(f'{v:6.3f}' for v in row)}")


def write(out: Path, members, blend: Blend, oof, *, thresholds: dict, watch: str, scores: dict, by_fold: list):
    """The blend's files; without test predictions of every member only the OOF and the figures are written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    oof.save(out.with_name(f"{out.stem}_oof.npz"))
    about = {
        "runs": [str(m.folder) for m in members], "weights": mean_weights(blend, len(members)).tolist(),
        "blend": dataclasses.asdict(blend), "thresholds": thresholds, "watch": watch,
        "cv": scores[watch], "cv_folds": [float(v) for v in by_fold],
        "scores": {k: float(v) for k, v in scores.items()}, "commit": runs.git_commit(),
    }  # fmt: skip
    files.write_text(out.with_suffix(".json"), json.dumps(about, indent=1))
    tests = [m.folder / "test.npz" for m in members]
    absent = [str(t) for t in tests if not t.is_file()]
    if absent:
        print(f"no test predictions ({', '.join(absent)}): only the OOF was blended; make them with src/predict.py")
        return
    test = blend([predictions.Predictions.load(t) for t in tests])
    test.save(out)
    print(f"-> {out} ({len(test)} test clips), {out.with_suffix('.json')}")


if __name__ == "__main__":
    run_script(main)

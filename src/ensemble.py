"""Blend runs: their OOF with its CV, and their test predictions.

python src/ensemble.py --runs runs/sed/synth_cnn runs/sed/synth_b0 --weights search --out runs/ensembles/two.npz

Writes OUT (test), OUT's stem + _oof.npz and + .json (members, weights, CV). With --weights search the CV is nested: the
weights that blend a fold's OOF were searched on the other folds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from earshot import blending, predictions, runs
from earshot.dataset import load_data
from earshot.tasks import get_task, score_readable


def main():
    options = parse_args()
    members = [runs.load_run(folder) for folder in options.runs]
    config = members[0].config
    task = get_task(config.task)
    watch = config.watch or task.watch
    data = load_data(config.data)
    reports = [blending.oof_when_complete(m.folder, data, task, watch) for m in members]
    for report in reports:
        if report.oof is None:
            raise ValueError(f"{report.text}; train them first")
    oofs = [r.oof for r in reports]
    truth = blending.truth_of(oofs[0], data)
    oof, weights = blend(oofs, truth, task, watch, options.weights)
    scores = score_readable(task, oof, truth)
    by_fold = [
        score_readable(task, oof.take(oof.fold == f), truth.take(oof.fold == f))[watch] for f in np.unique(oof.fold)
    ]
    for member, weight, report in zip(members, weights, reports, strict=True):
        print(f"  {weight:.3f}  {member.name:32s} {watch} {report.scores[watch]:.4f}")
    spread = f"folds {np.mean(by_fold):.4f} +- {np.std(by_fold):.4f}"
    print(f"ensemble of {len(members)}: {watch} {scores[watch]:.4f} ({spread})")
    print(blending.score_table(scores))
    write(options.out, members, weights, watch, scores, by_fold, oof)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="folders of runs whose folds are all trained"
    )
    parser.add_argument("--weights", choices=("equal", "search"), default="equal")
    parser.add_argument("--out", type=Path, required=True, help="npz of the blended test predictions")
    return parser.parse_args()


def blend(oofs, truth, task, watch: str, how: str):
    """(blended OOF, weights): the plain mean, or weights by OOF search with a nested CV."""
    if how == "equal" or len(oofs) == 1:
        return predictions.weighted_mean(oofs), np.full(len(oofs), 1 / len(oofs))
    aligned = [o.aligned(oofs[0].clip_ids) for o in oofs]
    return blending.nested_blend(aligned, truth, lambda p, t: score_readable(task, p, t)[watch])


def write(out: Path, members, weights, watch: str, scores: dict, by_fold: list, oof):
    """The blend's files; without test predictions of every member only the OOF and the figures are written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    oof.save(out.with_name(f"{out.stem}_oof.npz"))
    about = {
        "runs": [str(m.folder) for m in members], "weights": [float(w) for w in weights], "watch": watch,
        "cv": scores[watch], "cv_folds": [float(v) for v in by_fold],
        "scores": {k: float(v) for k, v in scores.items()}, "commit": runs.git_commit(),
    }  # fmt: skip
    runs.write_text(out.with_suffix(".json"), json.dumps(about, indent=1))
    tests = [m.folder / "test.npz" for m in members]
    absent = [str(t) for t in tests if not t.is_file()]
    if absent:
        print(f"no test predictions ({', '.join(absent)}): only the OOF was blended; make them with src/predict.py")
        return
    test = predictions.weighted_mean([predictions.Predictions.load(t) for t in tests], weights)
    test.save(out)
    print(f"-> {out} ({len(test)} test clips), {out.with_suffix('.json')}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

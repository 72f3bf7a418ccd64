"""Every anomaly score of a trained run: log odds, nearest neighbour, Mahalanobis, Gaussian mixture; a threshold each.

python src/score_anomalies.py --run runs/asd/se_trans_fmix
python src/score_anomalies.py --run runs/asd/heart --also statistics exposure --combine statistics exposure

Of every fold: the held-out clips from its oof.npz, the normal training clips predicted once (kept in train.npz). Prints
and writes anomaly_scores.csv beside the run's folds: AUC and pAUC by machine, section and domain, and precision, recall
and F1 of decisions at the gamma threshold of training scores. The log odds of training clips are those of a network
that learned them: their threshold is too low for clips it has not heard.

--also adds scores that hear the clips themselves: `statistics` of the log-mel (nearest normal clips), `exposure` (a
small network that tells normal clips from anomalies made of them; for what beats; minutes). --combine adds one score
made of several, each by how few normal training clips score as high (Fisher's rule).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from earshot import files, runs
from earshot.anomaly import report as anomaly_report
from earshot.anomaly.report import Scores
from earshot.data.prepared import PreparedData, load_data
from earshot.messages import few, run_script, suggest
from earshot.metrics import anomalies as anomaly_metrics
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from earshot.sound import audio

ALSO = ("statistics", "exposure")  # of anomaly_clips, which imports torch


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if options.run.is_dir():
        files.check_writable(options.run / "anomaly_scores.csv", "copy the run where it can be written")
    run = runs.load_run(options.run)
    if run.config.task != "asd":
        raise ValueError(f"{options.run} is a run of the task {run.config.task}; anomaly scores are of the task asd")
    data = load_data(run.config.data)
    tables = []
    for fold in run.folds:
        found = score_fold(fold, data, options.also, options.combine)
        print(f"fold {fold.fold}\n{anomaly_report.text(found)}")
        tables.append(found.assign(fold=fold.fold))
    out = options.run / "anomaly_scores.csv"
    files.write_text(out, pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    print(f"-> {out}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of the task asd")
    parser.add_argument("--also", nargs="+", choices=ALSO, default=[], help="scores that hear the clips themselves")
    parser.add_argument("--combine", nargs="+", default=[], metavar="METHOD", help="methods to make one score of")
    return parser.parse_args()


def score_fold(fold: runs.FoldRun, data: PreparedData, also: Sequence[str] = (), combine: Sequence[str] = ()):
    """A fold's table of methods by machine, section and domain."""
    training, held_out = data.split(fold.fold, fold.config.data.folds)
    normal = training.take(~anomaly_metrics.anomalies(training.clips))
    known, judged = training_predictions(fold, normal), fold.oof()
    normal, known = readable(normal, known)
    held_out, judged = readable(held_out, judged)
    groups, normal_groups = held_out.clips.labels.to_numpy(str), normal.clips.labels.to_numpy(str)
    methods = {"log_odds": Scores(own_scores(known, normal), own_scores(judged, held_out))}
    if known.embedding is not None and judged.embedding is not None:
        methods |= anomaly_report.embedding_methods(known.embedding, normal_groups, judged.embedding, groups)
    methods |= heard_methods(fold, also, normal, normal_groups, held_out, groups)
    if combine:
        unknown = [name for name in combine if name not in methods]
        if unknown:
            raise ValueError(f"--combine: no anomaly score '{unknown[0]}' here{suggest(unknown[0], [*methods, *ALSO])}")
        several = [methods[name] for name in combine]
        methods["+".join(combine)] = anomaly_report.combined(several, normal_groups, groups)
    return anomaly_report.table(methods, normal_groups, groups, held_out.clips)


def heard_methods(
    fold: runs.FoldRun, names: Sequence[str], normal: PreparedData, normal_groups: np.ndarray, judged: PreparedData,
    groups: np.ndarray,
) -> dict[str, Scores]:  # fmt: skip
    """Scores of the named methods of anomaly_clips by the bands of the run's (first) log-mel."""
    if not names:
        return {}
    from earshot.anomaly.clips import clip_scores

    config, rate = fold.config, fold.config.data.sample_rate
    if not config.frontends:
        raise ValueError(f"--also {' '.join(names)} needs a run with a log-mel front end, {fold.folder} has none")
    params = next(iter(config.frontends.values()))
    normal_audio, judged_audio = ([audio.load(c.path, rate) for c in some.recordings()] for some in (normal, judged))
    return {
        name: clip_scores(name, normal_audio, normal_groups, judged_audio, groups, params, seed=config.seed)
        for name in dict.fromkeys(names)
    }


def training_predictions(fold: runs.FoldRun, normal: PreparedData) -> Predictions:
    """Predictions of the normal training clips: those of an earlier call, unless the weights are newer."""
    kept, weights = fold.folder / "train.npz", fold.folder / "best.safetensors"
    if kept.is_file() and kept.stat().st_mtime > weights.stat().st_mtime:
        return Predictions.load(kept)
    from earshot.prediction.backends import TorchBackend

    config, about = fold.config, fold.about
    backend = TorchBackend(runs.load_model(fold), config.frontends, precision=config.optim.precision)
    quiet = not sys.stderr.isatty()
    found, failed = predict_clips(
        [backend], normal.recordings(), config.predict, about["classes"], about["prior"],
        progress=lambda clips: tqdm(clips, "training clips", leave=False, disable=quiet),
    )  # fmt: skip
    if failed:
        print(f"{len(failed)} training clips could not be read: {few([c for c, _ in failed])}")
    found[0].save(kept)
    return found[0]


def readable(data: PreparedData, found: Predictions) -> tuple[PreparedData, Predictions]:
    """Clips and their predictions in one order, without those that could not be read."""
    found = found.aligned(data.clips.clip_id)
    return data.take(np.flatnonzero(~found.unreadable)), found.take(~found.unreadable)


def own_scores(found: Predictions, data: PreparedData) -> np.ndarray:
    """(N,) how unsure the network is of each clip's own section."""
    return anomaly_metrics.own_class_scores(found.clipwise_output, data.target.argmax(axis=1))


if __name__ == "__main__":
    run_script(main)

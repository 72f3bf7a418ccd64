"""Every anomaly score of trained runs: log odds, nearest neighbour, Mahalanobis, Gaussian mixture; a threshold each.

python src/score_anomalies.py --run runs/asd/se_trans_fmix
python src/score_anomalies.py --run runs/asd/heart --also statistics exposure --combine statistics exposure
python src/score_anomalies.py --run runs/asd/fan runs/asd/pump --method knn --out knn_oof.npz     # machines apart
python src/score_anomalies.py --run runs/asd/fan runs/asd/pump --clips data/d/test_clips.csv --method knn --out t.npz

Of every fold: the held-out clips from its oof.npz, the normal training clips predicted once (kept in train.npz). Prints
and writes anomaly_scores.csv beside each run's folds: AUC and pAUC by machine, section and domain, and precision,
recall and F1 of decisions at the gamma threshold of training scores; of several machines also their means. Thresholds
are kept in each fold's thresholds.json, where src/predict.py finds them. The log odds of training clips are those of a
network that learned them: their threshold is too low for clips it has not heard.

--also adds scores that hear the clips themselves: `statistics` of the log-mel (nearest normal clips), `exposure` (a
small network that tells normal clips from anomalies made of them; for what beats; minutes). --combine adds one score
made of several, each by how few normal training clips score as high (Fisher's rule).

--out FILE.npz --method NAME writes one method's scores and the clips' thresholds, all runs joined, for src/submit.py:
of the held-out clips, or with --clips of the recordings in a table of the same data folder (machine, section).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files, runs
from earshot.anomaly import report as anomaly_report
from earshot.anomaly.judged import joined, scored, sections_of
from earshot.anomaly.report import Scores
from earshot.anomaly.scores import EMBEDDING_SCORES
from earshot.data.labels import read_clips
from earshot.data.prepared import PreparedData, load_data
from earshot.ensemble.origins import check_tables
from earshot.inputs.waveforms import as_heard, decode
from earshot.messages import Parser, few, progress_bar, suggest
from earshot.metrics import anomalies as anomaly_metrics
from earshot.prediction.free_cores import use_free_cores
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.origin import weights_origin
from earshot.prediction.predictions import Predictions, join, read_origins, weighted_mean

ALSO = ("statistics", "exposure")  # of anomaly.clips, which imports torch


@dataclass(frozen=True)
class FoldScores:
    """What one fold says of the clips to judge, in the order of their predictions."""

    found: Predictions
    clips: pd.DataFrame
    readable: np.ndarray  # (N,) booleans
    groups: np.ndarray  # (N,) <machine>_<section>
    normal_groups: np.ndarray  # (M,) of the normal training clips
    methods: dict[str, Scores]  # judged scores are of the readable clips

    def table(self) -> pd.DataFrame:
        """AUC, pAUC and decisions of every method by machine, section and domain."""
        return anomaly_report.table(
            self.methods, self.normal_groups, self.groups[self.readable], self.clips[self.readable]
        )

    def of(self, method: str) -> Predictions:
        """One method's scores, and the thresholds."""
        if method not in self.methods:
            raise ValueError(f"--method: no anomaly score '{method}' here{suggest(method, [*self.methods, *ALSO])}")
        return scored(self.found, self.readable, self.methods[method], self.normal_groups, self.groups)

    def thresholds(self) -> dict[str, dict[str, float]]:
        """The threshold of each method and section, {method: {section of training: threshold}}."""
        return {
            name: anomaly_report.thresholds(scores.training, self.normal_groups, self.normal_groups)
            for name, scores in self.methods.items()
        }


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    use_free_cores(key="")
    tables, parts = [], []
    if options.out:
        files.check_ending(options.out, ".npz")
        files.check_writable(options.out)
    for folder in options.run:
        if folder.is_dir():
            files.check_writable(folder / "anomaly_scores.csv", "copy the run where it can be written")
        run = runs.load_run(folder)
        if run.config.task != "asd":
            raise ValueError(f"{folder} is a run of the task {run.config.task}; anomaly scores are of the task asd")
        data = load_data(run.config.data)
        check_tables(run.folds, data.digests)
        judged = clips_of_table(options.clips, run, data) if options.clips else None
        found = [score_fold(fold, data, options.also, options.combine, judged) for fold in run.folds]
        for fold, scores in zip(run.folds, found, strict=True):
            files.write_text(fold.folder / "thresholds.json", files.as_json(scores.thresholds(), indent=1))
        if options.out:
            of_folds = [scores.of(options.method) for scores in found]
            parts.append(weighted_mean(of_folds) if options.clips else join(of_folds))
        if judged is None:
            tables.append(report(run, found))
    if tables and pd.concat(tables).machine.nunique() > 1:
        print(f"means\n{means_text(anomaly_report.machine_means(pd.concat(tables)))}")
    if options.out:
        together = joined(parts)
        together.save(options.out)
        print(f"-> {options.out}: {options.method} of {len(together)} clips, with the thresholds of their sections")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="folders of runs of the task asd")
    parser.add_argument("--also", nargs="+", choices=ALSO, default=[], help="scores that hear the clips themselves")
    parser.add_argument(
        "--combine", nargs="+", default=[], metavar="METHOD", help="methods to make one score of (--also is implied)"
    )
    parser.add_argument("--clips", type=Path, help="recordings to score (clip_id, path, machine, section), with --out")
    parser.add_argument("--method", help="with --out: whose scores (default: the combination, else log_odds)")
    parser.add_argument("--out", type=Path, help="npz of one method's scores and thresholds, for src/submit.py")
    options = parser.parse_args()
    if (options.clips or options.method) and not options.out:
        parser.error("--clips and --method say what is written: add --out FILE.npz")
    known = ("log_odds", *EMBEDDING_SCORES, *ALSO)
    for name in options.combine:
        if name not in known:
            raise ValueError(f"--combine: no anomaly score '{name}'{suggest(name, known)}")
    options.also += [name for name in options.combine if name in ALSO and name not in options.also]
    if options.method and options.method not in (*known, "+".join(options.combine)):
        raise ValueError(f"--method: no anomaly score '{options.method}'{suggest(options.method, known)}")
    options.also += [name for name in ALSO if name == options.method and name not in options.also]
    options.method = options.method or "+".join(options.combine) or "log_odds"
    return options


def report(run: runs.Run, found: Sequence[FoldScores]) -> pd.DataFrame:
    """Print and write the table of a run's held-out clips."""
    tables = []
    for fold, scores in zip(run.folds, found, strict=True):
        tables.append(scores.table().assign(fold=fold.fold))
        print(f"{run.folder} fold {fold.fold}\n{anomaly_report.text(tables[-1].drop(columns='fold'))}")
    out = run.folder / "anomaly_scores.csv"
    files.write_text(out, pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    print(f"-> {out}")
    return tables[0] if len(tables) == 1 else pd.concat(tables)


def means_text(means: pd.DataFrame) -> str:
    return means.round(4).to_string(index=False, na_rep="-")


def clips_of_table(path: Path, run: runs.Run, data: PreparedData) -> PreparedData:
    """The recordings of a table that a run is to judge: those of the machines that it was trained on (data.where)."""
    clips, where = read_clips(path), run.config.data.where
    for column, value in where.items():
        if column not in clips:
            raise ValueError(f"{path} has no column '{column}', by which {run.folder} chose what it trained on")
        clips = clips[clips[column].astype(str) == value]
    if not len(clips):
        chosen = " ".join(f"{k}={v}" for k, v in where.items())
        raise ValueError(f"{path} lists no clip{f' of {chosen}' if where else ''} for {run.folder}")
    clips, none = clips.reset_index(drop=True), np.zeros((len(clips), len(data.classes)), data.target.dtype)
    return replace(data, clips=clips, target=none, mask=none + 1)


def score_fold(
    fold: runs.FoldRun, data: PreparedData, also: Sequence[str] = (), combine: Sequence[str] = (),
    judged: PreparedData | None = None,
) -> FoldScores:  # fmt: skip
    """What a fold says of its held-out clips, or of those to be `judged`."""
    training, held_out = data.split(fold.fold, fold.config.data.folds)
    normal = training.take(~anomaly_metrics.is_anomalous(training.clips))
    normal, known = readable(normal, kept_predictions(fold, normal, "train"))
    if judged is None:
        judged, found = held_out, fold.oof().aligned(held_out.clips.clip_id)
    else:
        found = predicted(fold, judged, "test clips")
    groups, normal_groups = sections_of(judged.clips), sections_of(normal.clips)
    fine = ~np.asarray(found.unreadable, bool)
    heard, some, own = judged.take(fine), found.take(fine), groups[fine]
    methods = {"log_odds": Scores(own_scores(known, normal), own_scores(some, heard))}
    if known.embedding is not None and some.embedding is not None:
        methods |= anomaly_report.embedding_methods(known.embedding, normal_groups, some.embedding, own)
    methods |= heard_methods(fold, also, normal, normal_groups, heard, own)
    if combine:
        unknown = [name for name in combine if name not in methods]
        if unknown:
            raise ValueError(f"--combine: no anomaly score '{unknown[0]}' here{suggest(unknown[0], [*methods, *ALSO])}")
        several = [methods[name] for name in combine]
        methods["+".join(combine)] = anomaly_report.combined(several, normal_groups, own)
    return FoldScores(found, judged.clips, fine, groups, normal_groups, methods)


def heard_methods(
    fold: runs.FoldRun, names: Sequence[str], normal: PreparedData, normal_groups: np.ndarray, judged: PreparedData,
    groups: np.ndarray,
) -> dict[str, Scores]:  # fmt: skip
    """Scores of the named methods of anomaly.clips by the bands of the run's (first) log-mel."""
    if not names:
        return {}
    from earshot.anomaly.clips import clip_scores

    config, rate = fold.config, fold.config.data.sample_rate
    logmels = [record for record in config.frontends.values() if record.kind == "logmel"]
    if not logmels:
        raise ValueError(f"--also {' '.join(names)} needs a run with a log-mel front end, {fold.folder} has none")
    params = replace(logmels[0], channels="mono")
    normal_audio, judged_audio = (
        [as_heard(decode(c.path, rate), rate, params) for c in some.recordings()] for some in (normal, judged)
    )
    return {
        name: clip_scores(name, normal_audio, normal_groups, judged_audio, groups, params, seed=config.seed)
        for name in dict.fromkeys(names)
    }


def kept_predictions(fold: runs.FoldRun, some: PreparedData, name: str) -> Predictions:
    """Predictions of the normal training clips: those of an earlier call, unless they are of other weights."""
    kept, origin = fold.folder / f"{name}.npz", weights_origin(fold.weights)
    known = read_origins(kept) if kept.is_file() else None
    if known == (origin,) or (origin is None and kept.is_file() and newer(kept, fold.weights)):
        return Predictions.load(kept)
    found = predicted(fold, some, "training clips")
    found.save(kept)
    return found


def newer(path: Path, than: Path) -> bool:
    """Whether a file was written after another: all that is known of what older versions wrote."""
    return path.stat().st_mtime > than.stat().st_mtime


def predicted(fold: runs.FoldRun, some: PreparedData, what: str) -> Predictions:
    """What the fold's network says of these clips, with its embeddings."""
    from earshot.prediction.backends import TorchBackend

    config, about = fold.config, fold.about
    model = runs.load_model(fold)
    backend = TorchBackend(model, config.inputs(model.inputs), precision=config.optim.precision)
    member = Member(
        backend=backend,
        windowing=config.predict,
        classes=about["classes"],
        prior=about["prior"],
        origin=weights_origin(fold.weights),
    )
    found, failed = predict_members(
        [member], some.recordings(), progress=lambda clips: progress_bar(clips, what, unit="clip")
    )
    if failed:
        print(f"{len(failed)} {what} could not be read: {few([c for c, _ in failed])}")
    return found[0]


def readable(data: PreparedData, found: Predictions) -> tuple[PreparedData, Predictions]:
    """Clips and their predictions in one order, without those that could not be read."""
    found = found.aligned(data.clips.clip_id)
    return data.take(np.flatnonzero(~found.unreadable)), found.take(~found.unreadable)


def own_scores(found: Predictions, data: PreparedData) -> np.ndarray:
    """Score clips by how unsure the network is of their own section, or of the one that each resembles most: (N,)."""
    own = sections_of(data.clips)
    scores, unseen = anomaly_metrics.scores_by_section(
        found.clipwise_output, found.classes, own, data.clips.machine.astype(str)
    )
    if said := anomaly_metrics.unseen_sections(own, unseen):
        logging.getLogger("earshot").warning(said)
    return scores


if __name__ == "__main__":
    run_script(main)

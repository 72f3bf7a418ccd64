"""Real anomalies: every method on the heart sounds, AUC and pAUC a domain, three seeds; normal clips alone train.

OMP_NUM_THREADS=1 python benchmarks/bench_heart.py --record     # trains what is missing of configs/asd/heart.yaml

Needs data/heart_asd (python src/prepare.py heart_asd --source ../shared/data/heart_asd). The means are over the domains
a, d and e; c has three normal test clips. Methods: the network's log odds and its embeddings (kNN, Mahalanobis, GMM);
an autoencoder on the log-mel, one a domain; the nearest normal clips by statistics of the log-mel, which has no seed;
a network exposed to anomalies made of the normal training clips, alone and combined with the statistics (its scores are
kept in runs/asd/heart_exposure_s<seed>.npz, four minutes of CPU each).
`statistics, kNN` averages the distances to the 1, 2, 3, 4 and 5 nearest, so that no number of neighbours is chosen.
Decisions at the threshold are those of score_anomalies.py.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot.anomaly import report as anomaly_report
from earshot.anomaly import scores as anomaly_scores
from earshot.anomaly.autoencoder import autoencoder_scores
from earshot.anomaly.clips import NEIGHBOURS, clip_scores
from earshot.anomaly.report import Scores
from earshot.anomaly.statistics import clip_statistics, level_statistics, nearest_scores, standardised
from earshot.competitions.heart_asd import means
from earshot.data.dataset import read_dataset
from earshot.data.labels import read_clips
from earshot.metrics import anomalies as anomaly_metrics
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel

DATA = Path("data/heart_asd")
SEEDS = (1, 2, 3)
RATE = 2000  # Hz: the content ends at 1 kHz
FRONT_END = LogmelParams(sample_rate=RATE, n_fft=128, hop_length=32, n_mels=32, fmin=20, fmax=1000)
EPOCHS, EVERY = 20, 2  # of the autoencoder
COLUMNS = ["auc_a", "auc_c", "auc_d", "auc_e", "auc", "pauc_a", "pauc_c", "pauc_d", "pauc_e", "pauc"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--no-networks", action="store_true", help="only what needs no training run")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    os.chdir(ROOT)
    clips = read_clips(DATA / "clips.csv")
    source = Path(read_dataset(DATA)["source"])
    waveforms = [audio.load(source / path, RATE) for path in clips.path]
    logmels = [log_mel(x, FRONT_END) for x in waveforms]
    found = statistics_methods(clips, logmels)
    found += [("autoencoder on log-mel", seed, by_autoencoder(clips, logmels, seed)) for seed in SEEDS]
    found += [line for seed in SEEDS for line in exposure_methods(clips, waveforms, seed)]
    if not options.no_networks:
        found += [line for seed in SEEDS for line in network_methods(seed)]
    table = pd.DataFrame([{"method": name, "seed": seed} | means(scored) for name, seed, scored in found])
    table.to_csv("benchmarks/heart.csv", index=False, float_format="%.4f", lineterminator="\n")
    print(markdown(table))
    if options.record:
        command = "python benchmarks/bench_heart.py" + " --no-networks" * options.no_networks + " --record"
        mean = table.groupby("method").auc.mean()
        unit = "mean AUC of domains a, d, e"
        both = float(mean["statistics + made anomalies"])
        record("heart_auc_ade", both, f"{unit}, statistics, kNN + network exposed to made anomalies, 3 seeds", command)
        record("heart_statistics_auc_ade", float(mean["statistics, kNN"]), f"{unit}, statistics, kNN", command)
        record("heart_autoencoder_auc_ade", float(mean["autoencoder on log-mel"]), f"{unit}, 3 seeds", command)


def by_domain(clips: pd.DataFrame, score) -> pd.DataFrame:
    """score(indices of a domain's training clips, of its test clips) -> AUC table of the test clips."""
    trains, scores = (clips.official_fold == -1).to_numpy(), np.full(len(clips), np.nan)
    for domain in sorted(clips.domain.unique()):
        here = (clips.domain == domain).to_numpy()
        scores[here & ~trains] = score(np.flatnonzero(here & trains), np.flatnonzero(here & ~trains))
    return anomaly_metrics.auc_table(scores[~trains], clips[~trains])


def statistics_methods(clips: pd.DataFrame, logmels: list[np.ndarray]) -> list[tuple[str, int, pd.DataFrame]]:
    """The nearest neighbour by the levels alone (reference), then the whole statistics by every number of neighbours,
    their mean, Mahalanobis and GMM."""
    levels = np.stack([level_statistics(x) for x in logmels])
    whole = np.stack([clip_statistics(x, FRONT_END.hop_length / RATE) for x in logmels])

    def nearest(values, neighbours):
        return by_domain(clips, lambda a, b: np.mean([nearest_scores(values[a], values[b], k) for k in neighbours], 0))

    found = [
        ("level statistics, nearest", 0, nearest(levels, (1,))),
        ("statistics, kNN", 0, nearest(whole, NEIGHBOURS)),
    ]
    found += [(f"statistics, {k} nearest", 0, nearest(whole, (k,))) for k in NEIGHBOURS]
    for name in ("mahalanobis", "gmm"):
        method = anomaly_scores.EMBEDDING_SCORES[name]

        def density(a, b, method=method):
            return method(standardised(whole[a], whole[a]), standardised(whole[a], whole[b]))

        found.append((f"statistics, {name}", 0, by_domain(clips, density)))
    return found


def by_autoencoder(clips: pd.DataFrame, logmels: list[np.ndarray], seed: int) -> pd.DataFrame:
    """One autoencoder a domain."""

    def score(training, test):
        normal, heard = [logmels[i] for i in training], [logmels[i] for i in test]
        return autoencoder_scores(normal, heard, seed, EPOCHS, every=EVERY)

    return by_domain(clips, score)


def exposure_methods(
    clips: pd.DataFrame, waveforms: list[np.ndarray], seed: int
) -> list[tuple[str, int, pd.DataFrame]]:
    """The exposed network and its combination with the statistics, as score_anomalies.py --also and --combine."""
    training, test = np.flatnonzero(clips.official_fold == -1), np.flatnonzero(clips.official_fold != -1)
    normal, heard = [waveforms[i] for i in training], [waveforms[i] for i in test]
    normal_groups, groups = clips.labels.to_numpy(str)[training], clips.labels.to_numpy(str)[test]
    kept = Path("runs/asd") / f"heart_exposure_s{seed}.npz"
    if not kept.is_file():
        scores = clip_scores("exposure", normal, normal_groups, heard, groups, FRONT_END, seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".part.{kept.name}")
        np.savez(partial, training=scores.training, judged=scores.judged)
        partial.replace(kept)
    with np.load(kept) as file:
        exposure = Scores(file["training"], file["judged"])
    statistics = clip_scores("statistics", normal, normal_groups, heard, groups, FRONT_END)
    both = anomaly_report.combined([statistics, exposure], normal_groups, groups)
    named = {"made anomalies, network": exposure, "statistics + made anomalies": both}
    return [(name, seed, anomaly_metrics.auc_table(scores.judged, clips.iloc[test])) for name, scores in named.items()]


def network_methods(seed: int) -> list[tuple[str, int, pd.DataFrame]]:
    """The trained network's own table by score_anomalies.py."""
    folder = Path("runs/asd") / f"heart_s{seed}"
    if not (folder / "fold0" / "run.json").is_file():
        command = [sys.executable, "src/train.py", "--config", "configs/asd/heart.yaml", "--name", folder.name]
        subprocess.run([*command, "--resume", f"seed={seed}"], check=True, stdout=subprocess.DEVNULL)
    if not (folder / "anomaly_scores.csv").is_file():
        command = [sys.executable, "src/score_anomalies.py", "--run", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    table = pd.read_csv(folder / "anomaly_scores.csv")
    return [(f"network, {name}", seed, rows) for name, rows in table.groupby("method", sort=False)]


def markdown(table: pd.DataFrame) -> str:
    """A line a method: means over seeds; of the leading mean also the deviation."""
    lines = ["| method | " + " | ".join(c.replace("_", " ") for c in COLUMNS) + " | deviation of auc |",
             "|---" * (len(COLUMNS) + 2) + "|"]  # fmt: skip
    for name, rows in table.groupby("method", sort=False):
        values = " | ".join(f"{rows[c].mean():.3f}" for c in COLUMNS)
        lines.append(f"| {name} | {values} | {f'{rows.auc.std(ddof=0):.3f}' if len(rows) > 1 else '-'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

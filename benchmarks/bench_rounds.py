"""Does labelling by networks gain anything? The schedule of configs/rounds/shift.yaml, judged on hidden sites.

OMP_NUM_THREADS=1 python benchmarks/bench_rounds.py --record                 # about 20 minutes a seed on a free core
OMP_NUM_THREADS=1 python benchmarks/bench_rounds.py --seeds 1213 1 2 --work runs/bench_rounds

Of every seed: the teacher (focal recordings alone) and the schedule's best run on the honest split, each as the mean of
its folds on the test's rows, whose sites nothing trained on. What is finished in --work is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import numpy as np
from results import record

from earshot.competitions import get_competition
from earshot.data.dataset import read_dataset
from earshot.data.labels import read_clips
from earshot.listening.members import fold_members
from earshot.prediction import predictions
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip
from earshot.tables import read_table

PLAN, DATA = "configs/rounds/shift.yaml", Path("data/synth_shift")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1213])
    parser.add_argument("--work", type=Path, default=Path("runs/bench_rounds"), help="folder that data and runs go to")
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in ("configs", "folds"):
        if not (options.work / name).exists():
            (options.work / name).symlink_to(ROOT / name)
    os.chdir(options.work)
    if not (DATA / "clips.csv").is_file():
        call("prepare.py", "synth_shift")
    found = [one_seed(seed) for seed in options.seeds]
    for name in ("supervised", "rounds", "best_round"):
        print(f"{name}: {np.mean([f[name] for f in found]):.4f} ({', '.join(f'{f[name]:.4f}' for f in found)})")
    gains = [f["rounds"] - f["supervised"] for f in found]
    print(f"gain: {np.mean(gains):+.4f} ({', '.join(f'{g:+.4f}' for g in gains)})")
    if options.record:
        command = (
            f"OMP_NUM_THREADS=1 python benchmarks/bench_rounds.py --seeds {' '.join(map(str, options.seeds))} --record"
        )
        unit = f"macro ROC-AUC of hidden sites, mean over {len(found)} seed{'s' * (len(found) > 1)}, folds 0 and 1"
        for name, values in (
            ("shift_rounds", [f["rounds"] for f in found]), ("shift_rounds_teacher", [f["supervised"] for f in found]),
            ("shift_rounds_gain", gains),
        ):  # fmt: skip
            record(name, round(float(np.mean(values)), 4), unit, command)
            if len(values) > 1:
                record(f"{name}_deviation", round(float(np.std(values, ddof=1)), 4), unit, command)


def one_seed(seed: int) -> dict:
    """Test scores of one seed: of the teacher, of the last round, and which round the honest split chose."""
    name = "shift" if seed == 1213 else f"shift-seed{seed}"
    call("run_rounds.py", PLAN, "--name", name, *([] if seed == 1213 else ["--set", f"seed={seed}"]))
    about = json.loads(Path(f"runs/rounds/{name}.json").read_text())
    for row in about["rounds"]:
        print(f"seed {seed} round {row['round']}: honest {row['value']:.4f}, test {on_test(Path(row['run'])):.4f}")
    best = next(i for i, row in enumerate(about["rounds"]) if row["run"] == about["best"])
    teacher = on_test(Path(about["rounds"][0]["run"]))
    return {"supervised": teacher, "rounds": on_test(Path(about["best"])), "best_round": best}


def on_test(run: Path) -> float:
    """Macro ROC-AUC of the test's rows by the mean of a run's folds."""
    kept = run / "test_score.json"
    if kept.is_file():
        return json.loads(kept.read_text())["macro_roc_auc"]
    competition, source = get_competition("synth_shift"), Path(read_dataset(DATA)["source"])
    table = read_clips(DATA / "test_clips.csv")
    clips = [Clip(c, source / p) for c, p in zip(table.clip_id, table.path, strict=True)]
    found, _ = predict_members([member for member, _ in fold_members(run)], clips)
    rows = competition.rows(predictions.weighted_mean(found), read_table(DATA / "test.csv"), competition.post.start)
    scores = competition.score(rows, read_table(DATA / "truth.csv"))
    kept.write_text(json.dumps(scores))
    return scores["macro_roc_auc"]


def call(script: str, *arguments: str):
    subprocess.run([sys.executable, str(ROOT / "src" / script), *arguments], check=True)


if __name__ == "__main__":
    main()

"""Accuracy against the number of training clips of a class: trains every count and seed, writes a table and a picture.

python src/fewshot.py --config configs/tagging/transfer/esc50_freeze_l1_cnn14.yaml \
    configs/tagging/transfer/esc50_finetune_cnn14.yaml --counts 1 2 4 8 16 --seeds 3 --fold 0

python src/fewshot.py --config configs/tagging/transfer/msos_finetune_cnn14.yaml \
    --modes scratch finetune freeze_l1 freeze_l3      # one YAML, a line a mode

Runs are named <config>_<count>clips_seed<seed>; those that are finished are kept and stopped ones go on, so that the
same command again adds what is missing. A seed chooses the clips and the initial weights; more clips add to fewer.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from earshot.script import run_script

from earshot import files, runs, tasks
from earshot.config import Config, flag_meant, load_config
from earshot.messages import Parser, suggest
from earshot.pictures import folds as fold_pictures
from earshot.processes import children

FROZEN = ["model.params.freeze=true", "data.cache=embedding", "augment={}", "optim.lr=1e-3", "optim.epochs=100"]
MODES = {  # of a transfer: overrides; rates and lengths are those of configs/tagging/transfer
    "scratch": ["model.weights=", "model.params.freeze=false", "data.cache=none", "optim.lr=1e-3", "optim.epochs=100"],
    "finetune": ["model.params.freeze=false", "data.cache=none", "optim.lr=1e-4", "optim.epochs=30"],
    "freeze_l1": [*FROZEN, "model.params.hidden=[]"],
    "freeze_l3": [*FROZEN, "model.params.hidden=[1024, 512]", "model.params.dropout=0.5"],
}


def main():
    options = parse_args()
    files.check_ending(options.out, ".csv")
    files.check_writable(options.out)
    lines = {(path, mode): load_config(path, of_mode(path, mode, options)) for path, mode in lines_of(options)}
    watch = common_watch(lines)
    rows = []
    for path, mode in lines:
        for count in sorted(set(options.counts)):
            for seed in range(options.seeds):
                rows += train(path, mode, count, seed, options, watch)
                write(rows, watch, options.out)
    print(f"-> {options.out}, {options.out.with_suffix('.png')}")


def parse_args() -> argparse.Namespace:
    parser = Parser(flag_meant, description=__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="one line of the picture each")
    parser.add_argument("--modes", nargs="+", help=f"of a transfer, a line each: {', '.join(MODES)}")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="training clips of a class")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default 3)")
    parser.add_argument("--fold", nargs="+", default=["0"], help="folds, or 'all'")
    parser.add_argument("--out", type=Path, default=Path("runs/fewshot.csv"), help="table; the picture lies beside it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, such as optim.epochs=20")
    options = parser.parse_intermixed_args()
    options.config, loose = [c for c in options.config if "=" not in str(c)], options.config
    options.overrides += [str(c) for c in loose if "=" in str(c)] + [f for f in options.fold if "=" in f]
    options.fold = [f for f in options.fold if "=" not in f]
    if min(options.counts) < 1 or options.seeds < 1:
        raise ValueError(f"--counts {options.counts} and --seeds {options.seeds} must all be 1 or more")
    stems = [config.stem for config in options.config]
    if twice := [stem for stem in set(stems) if stems.count(stem) > 1]:
        raise ValueError(f"two configs are called {twice[0]} and would share their runs: rename one")
    for mode in options.modes or ():
        if mode not in MODES:
            raise ValueError(f"unknown mode '{mode}'{suggest(mode, MODES)}")
    if owned := [o for o in options.overrides if o.startswith(("seed=", "data.clips_per_class="))]:
        raise ValueError(f"{owned[0]} is this script's own: use --seeds and --counts")
    return options


def lines_of(options: argparse.Namespace) -> list[tuple[Path, str]]:
    """The lines of the picture: (config, mode), the mode empty where the config is trained as it is."""
    return [(path, mode) for path in options.config for mode in options.modes or [""]]


def of_mode(path: Path, mode: str, options: argparse.Namespace) -> list[str]:
    """The overrides of a mode and the user's, which win; a config that is no transfer has no modes."""
    if not mode:
        return options.overrides
    if (name := load_config(path, options.overrides).model.name) != "transfer":
        raise ValueError(f"--modes are those of the model transfer, and {path} has {name}")
    return list({text.partition("=")[0]: text for text in (*MODES[mode], *options.overrides)}.values())


def label_of(path: Path, mode: str) -> str:
    return f"{path.stem}_{mode}" if mode else path.stem


def common_watch(lines: dict[tuple[Path, str], Config]) -> str:
    """The score that all configs watch."""
    watched = {label_of(*line): tasks.task_of(config).watch for line, config in lines.items()}
    if len(set(watched.values())) > 1:
        told = ", ".join(f"{label}: {name}" for label, name in watched.items())
        raise ValueError(f"the configs watch different scores ({told}): one picture shows one, give watch=...")
    return next(iter(watched.values()))


def train(path: Path, mode: str, count: int, seed: int, options: argparse.Namespace, watch: str) -> list[dict]:
    """Train one count and seed with train.py, or keep what is there -> a row a fold."""
    label, overrides = label_of(path, mode), of_mode(path, mode, options)
    name = f"{label}_{count}clips_seed{seed}"
    command = [sys.executable, str(Path(__file__).with_name("train.py")), "--config", str(path), "--name", name]
    command += ["--resume", "--fold", *options.fold, *overrides]
    command += [f"seed={seed}", f"data.clips_per_class={count}"]
    if children.run(command).returncode:
        raise ValueError(f"training of {name} failed; its error stands above")
    folder = runs.run_folder(load_config(path, overrides), path, name)
    folds = runs.load_run(folder).folds
    if options.fold != ["all"]:
        folds = [f for f in folds if str(f.fold) in options.fold]
    if waiting := [f.fold for f in folds if not f.finished]:
        raise ValueError(f"folds {waiting} of {folder} are not finished")
    return [
        {"config": label, "count": count, "seed": seed, "fold": f.fold, "score": f.about["scores"].get(watch, math.nan)}
        for f in folds
    ]


def write(rows: list[dict], watch: str, out: Path):
    """The table so far, and its picture."""
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_rows(out, rows)
    fold_pictures.score_by_count(rows, watch, out.with_suffix(".png"))


if __name__ == "__main__":
    run_script(main, RuntimeError)

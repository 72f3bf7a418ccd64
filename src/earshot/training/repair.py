"""What is missing from a trained fold's folder, made again by --resume from what is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from earshot import files, runs, tasks
from earshot.data.answers import truth_of
from earshot.messages import few, plural
from earshot.prediction import predictions
from earshot.prediction.origin import weights_digest, weights_origin
from earshot.processes import children
from earshot.records import to_dict
from earshot.stored import read_json
from earshot.training.setup import Training
from earshot.training.validation import predict

OF_A_FOLD = ("best.safetensors", "oof.npz", "classes.csv", "log.csv", "unreadable.csv")


def lost_files(run: runs.FoldRun) -> list[str]:
    """Names of the files that a finished fold has lost, in the order in which they are made again."""
    return [name for name in OF_A_FOLD if not (run.folder / name).is_file()]


def make_again(t: Training, run: runs.FoldRun):
    """Write what a fold has lost since it kept its best weights, and say so; a fold that has kept none yet is left.

    Weights come from last.ckpt, where these are the best ones; the OOF from predicting with the weights. Everything
    equals what was lost, on the same kind of machine. What cannot be made again is an error that says what to do.
    """
    lost = lost_files(run) if run.finished else [n for n in lost_files(run) if n in OF_A_FOLD[:2]]
    kept = t.progress.best_epoch >= 0 or run.finished
    if not lost or not kept:
        return
    makers = {"best.safetensors": _weights, "oof.npz": _oof, "classes.csv": _classes, "log.csv": _log,
              "unreadable.csv": _unreadable}  # fmt: skip
    for name in lost:
        made = makers[name](t)
        t.accelerator.print(f"fold {t.fold}: {run.folder / name} was missing: {made}")


def _weights(t: Training) -> str:
    """best.safetensors from last.ckpt, whose network was restored."""
    p, path = t.progress, t.folder / "best.safetensors"
    digest = weights_digest(t.predicting_network.state_dict())
    told = p.best_weights or next((o.weights for o in predictions.read_origins(t.folder / "oof.npz") or ()), "")
    if not (t.folder / "last.ckpt").is_file() or (digest != told if told else p.best_epoch != p.epoch - 1 or p.step):
        have = f"last.ckpt holds those after epoch {p.epoch - 1}, the best were of epoch {p.best_epoch}"
        raise ValueError(
            f"{path} is missing and cannot be made again: {have if p.epoch else 'last.ckpt is missing too'}; put it "
            f"back, or remove {t.folder} and train the fold again"
        )
    origin = t.origin and replace(t.origin, weights=digest)
    if t.accelerator.is_main_process:
        runs.save_weights(path, t.predicting_network, t.about | {"origin": to_dict(origin)})
    return "made again from last.ckpt"


def _oof(t: Training) -> str:
    """oof.npz by predicting the held-out clips with best.safetensors."""
    with _best_weights(t):
        found, unreadable = predict(t, t.held_out)
    t.progress.unreadable |= unreadable
    found = t.task.answered(found, truth_of(found, t.held_out))
    origin = weights_origin(t.folder / "best.safetensors")
    if t.accelerator.is_main_process:
        replace(found, origins=origin and (origin,)).save(t.folder / "oof.npz")
    return f"predicted again with best.safetensors ({plural(len(found), 'clips')})"


@contextmanager
def _best_weights(t: Training) -> Iterator[None]:
    """The predicting network with the weights of best.safetensors; afterwards with its own again."""
    network = t.predicting_network
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(load_file(t.folder / "best.safetensors"))
    try:
        yield
    finally:
        network.load_state_dict(own)


def _classes(t: Training) -> str:
    if t.accelerator.is_main_process:
        oof = predictions.Predictions.load(t.folder / "oof.npz")
        trained_on = (t.clips.prepared.target > 0.5).sum(axis=0)
        files.write_rows(t.folder / "classes.csv", tasks.class_table(oof, truth_of(oof, t.held_out).target, trained_on))
    return "counted and scored again from the OOF"


def _log(t: Training) -> str:
    if not t.progress.log:
        return "last.ckpt is missing too: it cannot be made again"
    if t.accelerator.is_main_process:
        files.write_rows(t.folder / "log.csv", t.progress.log)
    return "written again from last.ckpt"


def _unreadable(t: Training) -> str:
    if t.accelerator.is_main_process:
        rows = [{"clip_id": k, "reason": v} for k, v in sorted(t.progress.unreadable.items())]
        files.write_rows(t.folder / "unreadable.csv", rows)
    return "written again"


def predict_again(folder: Path, script: Path):
    """Repair a run's test predictions: where a test.npz is missing that predict.py had written, it writes all anew.

    script: predict.py.
    """
    how = folder / "predicted.json"
    wanted = [at / "test.npz" for at in (folder, *files.fold_folders(folder))]
    missing = [str(path) for path in wanted if not path.is_file()]
    if not how.is_file() or not missing:
        return
    print(f"{few(missing)} missing: predicting the test again, as before", flush=True)
    command = [sys.executable, str(script), *read_json(how, "command", "predict the test yourself", kind=list)]
    if children.run(command).returncode:
        raise ValueError(f"the test could not be predicted again ({' '.join(command[1:])}); its error stands above")

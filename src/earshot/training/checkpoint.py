"""last.ckpt of a fold: everything that a stopped training needs to go on as if it had never stopped."""

from __future__ import annotations

import math

from earshot import runs
from earshot.records import to_dict
from earshot.tasks import upward
from earshot.training.origins import check_checkpoint
from earshot.training.setup import Progress, Training


def write_checkpoint(t: Training):
    """last.ckpt: weights, optimiser, average and progress, from which --resume goes on as if never stopped."""
    if not t.accelerator.is_main_process:
        return
    scaler = t.accelerator.scaler
    state = {
        "model": t.network.state_dict(), "optimizer": t.optimizer.state_dict(),
        "average": t.average and t.average.state_dict(),
        "ema": t.ema.state_dict() if t.ema else None, "scaler": scaler.state_dict() if scaler else None,
        "guide": t.guide and t.accelerator.unwrap_model(t.guide).state_dict(),
        "progress": {**vars(t.progress), "out_of_time": False}, "origin": to_dict(t.origin),
    }  # fmt: skip
    runs.save_checkpoint(t.folder / "last.ckpt", state)


def restore_checkpoint(t: Training):
    """The opposite of `write_checkpoint`, on every process."""
    state = runs.load_checkpoint(t.folder / "last.ckpt")
    check_checkpoint(t.folder / "last.ckpt", state, t.origin)
    t.network.load_state_dict(state["model"])
    t.optimizer.load_state_dict(state["optimizer"])
    if t.average:
        t.average.load_state_dict(state["average"])
    if t.ema:
        t.ema.load_state_dict(state["ema"])
    if t.guide:
        t.accelerator.unwrap_model(t.guide).load_state_dict(state["guide"])
    if state["scaler"] and t.accelerator.scaler:
        t.accelerator.scaler.load_state_dict(state["scaler"])
    t.progress = Progress(**state["progress"])
    rescore_best(t.progress, t.task.watch)
    t.accelerator.print(f"fold {t.fold}: resuming at epoch {t.progress.epoch}, batch {t.progress.step}")


def rescore_best(p: Progress, watch: str):
    """Let the best epoch so far be held against others by this score, where an older version watched another one.

    Its value is looked up in the log; where that does not have it, the next epoch that does is the best.
    """
    if p.watched == watch or p.best_epoch < 0:
        return
    rows = [row for row in p.log if row["epoch"] == p.best_epoch and watch in row]
    row = next((row for row in rows if row.get("steps") == p.best_steps), rows[-1] if rows else {})
    p.best_score = upward(watch, row[watch]) if row else -math.inf
    p.watched = watch

"""What a fold tells its user: the set-up's figures, a line an epoch, and the files that complete its folder."""

from __future__ import annotations

import math
from collections.abc import Collection

from earshot import files, tasks
from earshot.data import pseudo
from earshot.data.answers import truth_of
from earshot.data.prepared import PreparedData
from earshot.data.soft_targets import told
from earshot.ensemble.oof import stopped_text
from earshot.messages import few, plural
from earshot.pictures import folds as fold_pictures
from earshot.prediction import predictions
from earshot.training.event_pictures import draw_event_maps
from earshot.training.lessons import told as taught
from earshot.training.pseudo import told as told_windows
from earshot.training.setup import Training

SHOWN = (  # in an epoch's line
    "map", "macro_f1_argmax", "accuracy", "pauc", "micro_auprc", "event_f1", "crop_lwlrap", "crop_macro_f1_argmax",
    "crop_map",
)  # fmt: skip


def announce(t: Training):
    """The derived numbers, once, where mistakes show."""
    o, n = t.config.optim, t.accelerator.num_processes
    parameters = sum(p.numel() for p in t.network.parameters()) / 1e6
    grid = predictions.TimeBase(*t.about["timebase"])
    labelled = t.clips.prepared.clips[: t.clips.n_labelled]  # of the others the lengths may not be known
    steps = (
        f"{plural(len(t.clips), 'clips train')}{unreadable(labelled)}, {len(t.held_out.clips)} held out"
        f"{unreadable(t.held_out.clips)} | "
        f"{n * o.accumulate} x {o.batch_size} = {plural(n * o.accumulate * o.batch_size, 'clips')} a step, "
        f"{t.batches_an_epoch // o.accumulate} steps an epoch"
    )
    if not o.epochs:
        held_out = plural(len(t.held_out.clips), "clips")
        steps = f"{held_out} held out{unreadable(t.held_out.clips)} | weights as given, no training step"
    rate = f"lr {o.lr:g} {o.schedule} | " * bool(o.epochs)
    device = f"{t.accelerator.device} {'float32' if o.precision == 'no' else o.precision}"
    size = f"{t.config.model.name} {parameters:.2f} M parameters | frame {1000 * grid.frame_seconds:.0f} ms"
    t.accelerator.print(f"fold {t.fold}: {size} | {rate}{device} | {t.folder}\nfold {t.fold}: {steps}")
    if o.lookahead > (all_steps := t.batches_an_epoch // o.accumulate * o.epochs) > 0:
        run = plural(all_steps, "steps")
        t.accelerator.print(f"fold {t.fold}: optim.lookahead={o.lookahead} does nothing: the run has {run}")
    if soft := t.clips.prepared.soft:
        t.accelerator.print(f"fold {t.fold}: {told(soft, t.clips.prepared.clips.clip_id, t.about['classes'])}")
    if t.clips.lessons:
        t.accelerator.print(f"fold {t.fold}: {taught(t.clips.lessons, t.about['classes'])}")
    if windows := t.clips.pseudo:
        prepared = t.clips.prepared
        made = pseudo.told(prepared.pseudo_manifest, windows.windows, t.config.data.pseudo, t.fold)
        t.accelerator.print(f"fold {t.fold}: {made}\nfold {t.fold}: {told_windows(windows)}")
    if voice := t.clips.voice:
        data = t.config.data
        t.accelerator.print(f"fold {t.fold}: {voice.told(labelled, data.crop_seconds, data.crop == 'random')}")
    announce_skipped(t)


def unreadable(clips) -> str:
    """How many clips of a table prepare.py could not read, for people; '' where that is none, or not known."""
    lost = int(clips.duration.isna().sum()) if "duration" in clips else 0
    return f" ({lost} of them unreadable)" * (0 < lost < len(clips))


def _is_score(value) -> bool:
    """A number that says something: what no clip defines is no score of the fold."""
    return isinstance(value, int | float) and math.isfinite(value)


def announce_skipped(t: Training):
    """The classes that the balanced sampler cannot give a turn."""
    if t.clips.turns and len(t.clips.turns.empty):
        names = [t.about["classes"][k] for k in t.clips.turns.empty]
        t.accelerator.print(
            f"fold {t.fold}: no training clip, so no turn, for {plural(len(names), 'classes')}: {few(names)}"
        )


def epoch_line(fold: int, row: dict, watch: str, epochs: int, left: str = "") -> str:
    """An epoch's row of log.csv as one line: losses, the watched and the best known scores, the time it took.

    Epochs are counted from 1 here ("epoch 5/16"), from 0 in the table.
    """
    losses = [f"{name} {row[name]:.4f}" for name in ("loss", "val_loss") if name in row]
    scores = [f"{name} {row[name]:.4f}" for name in dict.fromkeys((watch, *SHOWN)) if name in row]
    count = f"epoch {row['epoch'] + 1}/{epochs}" if epochs else "weights as given"
    count = f"mean of {row['averaged']} epochs' weights" if row.get("averaged") else count
    parts = [
        f"fold {fold} {count}",
        " ".join(losses),
        " ".join(scores),
        f"{row.get('seconds', row.get('validation_seconds', 0.0)):.1f} s",
        left,
    ]
    return " | ".join(part for part in parts if part)


def say_unreadable(clip_ids: Collection[str], trains: PreparedData) -> str:
    """How many clips could not be read, and the classes whose training clips they mostly are, for people."""
    classes = trains.mostly_among(clip_ids)
    return f"{plural(len(clip_ids), 'clips')} could not be read" + f", most or all that train {few(classes)}" * bool(
        classes
    )


def finish_fold(t: Training):
    """The list of unreadable clips, the pictures and, last, run.json: a fold that has it lacks nothing."""
    p = t.progress
    cut_short = p.out_of_time and p.epoch < t.config.optim.epochs
    if not t.accelerator.is_main_process:
        return
    of_best = [row for row in p.log if row["epoch"] == p.best_epoch and t.task.watch in row] or p.log[-1:]
    scored = next((row for row in of_best if row.get("steps") == p.best_steps), of_best[-1] if of_best else {})
    about = t.about | {
        "finished": not cut_short, "stopped_by_time": cut_short, "epochs": t.config.optim.epochs,
        "epochs_trained": p.epoch, "best_epoch": p.best_epoch,
        "threads": p.threads, "scores": {k: v for k, v in scored.items() if _is_score(v)},
    }  # fmt: skip
    rows = [{"clip_id": k, "reason": v} for k, v in sorted(p.unreadable.items())]
    files.write_rows(t.folder / "unreadable.csv", rows, ("clip_id", "reason"))
    if p.unreadable:
        lost = say_unreadable(p.unreadable, t.clips.prepared)
        print(f"fold {t.fold}: {lost}; see {t.folder / 'unreadable.csv'}")
    fold_pictures.learning_curves(p.log, t.task.watch, t.folder / "curves.png")
    oof = predictions.Predictions.load(t.folder / "oof.npz")
    truth = truth_of(oof, t.held_out)
    counted = t.held_out.counted(t.config.data.secondary_weight)
    fold_pictures.class_scores(oof, truth.target, t.folder / "classes.png", counted)
    tasks.draw_pictures(t.task, oof, truth, t.folder)
    draw_event_maps(oof, truth, t.held_out, t.folder / "events.png")
    trained_on = (t.clips.prepared.target > 0.5).sum(axis=0)
    files.write_rows(
        t.folder / "classes.csv", tasks.class_table(oof, t.held_out.target, trained_on), tasks.CLASS_COLUMNS
    )
    files.write_text(t.folder / "run.json", files.as_json(about, indent=1), on_disk=True)
    if cut_short:
        print(f"fold {t.fold}: {stopped_text(p.epoch, t.config.optim.epochs)}; the OOF is valid")

"""A run's own answers as new targets for its clips (data/soft_targets.py), and who may answer for whom.

Honest: a clip is answered by the fold that held it out, so by a network that never heard it, nor another clip of its
group (sensor). From source: one checkpoint answers for all clips, those that it was trained on among them, as Arnault
and Riche (2020) relabel; an OOF of networks trained on such targets is only honest where the held-out clips, and what
was learned from them, stayed out of the first run too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot import runs
from earshot.data.folds import held_out_folds, read_folds
from earshot.data.names import clean_names
from earshot.data.soft_targets import SoftTargets
from earshot.ensemble import lineage
from earshot.files import file_digest
from earshot.messages import few, suggest
from earshot.prediction import predictions
from earshot.prediction.predictions import Predictions
from earshot.runs import FoldRun, Run

MODES = ("honest", "source")


def kept_clips(clips: pd.DataFrame, conditions: list[str]) -> dict[str, np.ndarray]:
    """Clip table and `column=value` texts -> {text: (N,) bool, the clips that keep their labels for it}."""
    found = {}
    for text in conditions:
        column, equals, value = text.partition("=")
        if not equals or column not in clips:
            raise ValueError(f"--keep {text} is no column=value of the clip table{suggest(column, clips.columns)}")
        numbers, wanted = pd.to_numeric(clips[column], errors="coerce"), pd.to_numeric(value, errors="coerce")
        same = (clips[column].astype(str) == value) | ((numbers == wanted) & (not pd.isna(wanted)))
        found[text] = same.to_numpy(bool)
    return found


def honest_answers(run: Run, clips: pd.DataFrame) -> tuple[Predictions, str]:
    """The run's out-of-fold predictions, and the hash of its fold table, after everything that would betray them.

    Errors: a fold is not finished, a clip's answer comes from another fold than the table says, a group lies in two
    folds, or the run itself was trained on targets that did not keep folds apart.
    """
    path = Path(run.config.data.folds)
    folds = read_folds(path, clips)
    missing = sorted(set(held_out_folds(folds.fold)) - {f.fold for f in run.folds if f.finished})
    if missing:
        raise ValueError(f"{run.folder}: folds {missing} are not finished: train them, they answer for their clips")
    check_groups(folds, clips, path)
    for fold in run.folds:
        check_not_told(fold)
    found = predictions.join([fold.oof() for fold in run.folds])
    table = folds.set_index("clip_id").fold
    known = table.reindex(found.clip_ids)
    if (other := (known != found.fold).to_numpy()).any():
        raise ValueError(
            f"{run.folder} was trained on another fold table than {path}: {other.sum()} clips were held "
            f"out in another fold or are not there: {few(found.clip_ids[other])}"
        )
    return found, file_digest(path)


def check_groups(folds: pd.DataFrame, clips: pd.DataFrame, path: Path):
    """Refuse folds that part a group, of their own table or of the clip table: its other clips were heard in training.

    Both tables have the same clips in the same order.
    """
    for table in (folds, clips):
        if "group" not in table:
            continue
        names = clean_names(table.group).to_numpy()
        spread = pd.Series(folds.fold.to_numpy()[names != ""]).groupby(names[names != ""]).nunique()
        if (parted := spread[spread > 1]).size:
            raise ValueError(
                f"{path} has clips of {len(parted)} groups in several folds ({few(parted.index)}): a "
                "network that "
                "holds one out heard the others. Make folds that keep groups (src/make_folds.py --ignore-official), "
                "or relabel as the source does, with --mode source"
            )


def check_not_told(fold: FoldRun):
    """Refuse a fold that was trained on targets by networks which may have heard what it held out."""
    own = lineage.entries(fold.about | {lineage.INHERITED: []})
    for told in lineage.of_fold(fold):
        if told["mode"] in lineage.CLEAN:
            continue
        by = few(told.get("by", "an unknown maker").split(", "), 2)
        through = "" if told in own else ", through the weights that it started from or the run that taught it"
        raise ValueError(
            f"{fold.folder} was trained on {lineage.WHAT[told['trained_on']]} made by "
            f"{by} in mode '{told['mode']}', whose networks may have heard the clips "
            f"that it held out{through}: its answers are not honest. Train without them (data.soft_targets=none, and "
            "pseudo-labels of src/pseudo_label.py), or relabel with --mode source"
        )


def targets_of(
    found: Predictions, clips: pd.DataFrame, kept: dict[str, np.ndarray], hard: float | None
) -> tuple[SoftTargets, dict[str, int]]:
    """Answers -> targets of the clips of the table that they are to relabel, and counts of those that keep labels.

    hard: probability from which a target is 1 (else 0); None: the probability itself.
    """
    stays = np.zeros(len(clips), bool)
    counts = {}
    for text, some in kept.items():
        counts[text] = int((some & ~stays).sum())
        stays |= some
    answered = clips.clip_id.isin(found.clip_ids[~found.unreadable].tolist()).to_numpy()
    counts["no answer"] = int((~answered & ~stays).sum())
    chosen = clips.clip_id[answered & ~stays]
    if not len(chosen):
        raise ValueError(f"no clip is left to relabel: {counts}")
    values = found.aligned(chosen)
    if values.clipwise_output.min() < 0 or values.clipwise_output.max() > 1 + 1e-5:  # a pooled mean rounds
        raise ValueError("these answers are no probabilities of 0 to 1: they cannot be targets")
    target = (
        np.clip(values.clipwise_output, 0, 1) if hard is None else (values.clipwise_output >= hard).astype(np.float32)
    )
    targets = SoftTargets(
        clip_ids=values.clip_ids, classes=values.classes, target=target, mask=np.ones(target.shape, np.uint8),
        lineage={"answered_by_fold": values.fold.tolist()},
    )  # fmt: skip
    return targets, counts


def lineage_of(run: Run, folds: list[FoldRun], mode: str, counts: dict[str, int], hard: float | None) -> dict:
    """Who answered: the run, its folds with the hash of their weights, how they were chosen, what they started from."""
    config = run.config
    numbers = ", ".join(str(f.fold) for f in folds)
    return {
        "by": f"{run.name} (fold{'s' * (len(folds) > 1)} {numbers}, {mode})",
        "run": str(run.folder), "mode": mode, "hard": hard, "kept_labels": counts,
        "folds": {
            str(f.fold): {
                "weights_sha256": file_digest(f.weights),
                "best_epoch": f.about.get("best_epoch"), "commit": f.about.get("commit", ""),
            } for f in folds
        },
        "watch": config.watch, "select": config.optim.select, "started_from": config.model.weights,
        "trained_on": folds[0].about.get("soft_targets"), "commit": runs.git_commit(),
    }  # fmt: skip

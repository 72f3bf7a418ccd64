"""What networks learned from besides labels: what other networks said, also through the weights that they started from.

run.json says it under `soft_targets`, `pseudo` and `distill`; under `inherited` it repeats what the weights that a fold
started from, the members of a soup and the run that taught it had learned from. Weights carry the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from earshot.data.pseudo import ISOLATED
from earshot.prediction.origin import weights_about
from earshot.runs import FoldRun

WHAT = {"soft_targets": "targets", "pseudo": "pseudo-labels", "distill": "answers", "weights": "weights"}
CLEAN = (ISOLATED, "honest")  # modes that tell a fold nothing of the clips that it holds out
HEARD = "heard"  # of answers by networks that learned from what the fold holds out
INHERITED = "inherited"
KEPT = ("mode", "by", "folder", "commit")


def entries(about: dict) -> list[dict]:
    """run.json -> what the fold learned from, each once: `trained_on`, `mode`, `by`; inherited ones among them."""
    found = []
    for key in ("soft_targets", "pseudo", "distill"):
        if (made := about.get(key)) is not None:
            mode = distill_mode(made) if key == "distill" else "unknown"
            found.append({"trained_on": key, "mode": mode} | {k: v for k, v in made.items() if k in KEPT})
    return once([*found, *about.get(INHERITED, ())])


def distill_mode(made: dict) -> str:
    """How far answers that taught a fold keep apart what it holds out, where an older version did not say.

    Predictions of recordings without labels were made by all folds' networks.
    """
    if not made.get("predictions"):
        return ISOLATED
    return HEARD if made.get("unlabelled") else "honest"


def once(found: Iterable[dict]) -> list[dict]:
    """Each entry once, in order."""
    kept = []
    for entry in found:
        if entry not in kept:
            kept.append(entry)
    return kept


def of_weights(path: Path) -> list[dict]:
    """What weights learned from, as they say; [] of published ones."""
    about = weights_about(path)
    members = () if INHERITED in about else about.get("soup_of", ())  # a soup by an older version
    folds = [FoldRun(Path(folder)) for folder in members]
    return once([*entries(about), *(e for fold in folds if fold.finished for e in of_fold(fold))])


def of_fold(fold: FoldRun) -> list[dict]:
    """What a trained fold learned from; where an older version trained it, its start is asked now."""
    about = fold.about
    found = entries(about)
    start = Path(fold.config.model.weights.replace("{fold}", str(fold.fold)))
    if INHERITED not in about and start.is_file():
        found += of_weights(start)
    return once(found)

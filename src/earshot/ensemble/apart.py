"""Post-processing for sources that nobody heard or tuned on: each fold's is chosen on the other folds alone.

`post_processing.choose_post` nests each step's choice and then keeps, by all folds, the steps that gain. Where a fold
is a source (a bird, a site, a recorder) even that has looked at it. Here nothing of a fold chooses anything that judges
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from earshot.competitions.competition import OofScore, PostRanges
from earshot.ensemble.post_processing import choose_post, fit_post
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth


def choose_apart(
    oof: Predictions, truth: Truth, score: OofScore, ranges: PostRanges, steps: Sequence[str] | None = None,
    always: bool = False,
) -> dict[int, PostProcess]:  # fmt: skip
    """The post-processing of each fold, chosen by `choose_post` on the other folds: by fold.

    steps: those to try; always: keep what all clips of the other folds choose, also where it does not gain in each.

    Errors: predictions of one fold alone, which has no others.
    """
    numbers = sorted(int(f) for f in np.unique(oof.fold))
    if len(numbers) < 2:
        raise ValueError(f"these predictions are all of fold {numbers[0] if numbers else '-'}: train the other folds")
    others = {fold: oof.fold != fold for fold in numbers}
    choose = fit_post if always else lambda *clips, **asked: choose_post(*clips, **asked).post
    return {fold: choose(oof.take(rest), truth.take(rest), score, ranges, steps=steps) for fold, rest in others.items()}


def scores_apart(
    found: Predictions, truth: Truth, score: OofScore, posts: Mapping[int, PostProcess | None]
) -> dict[int, dict[str, float]]:
    """Scores of each fold's readable clips at its own post-processing, by fold; {} where there is no such score."""
    result = {}
    for fold in sorted(int(f) for f in np.unique(found.fold)):
        own = (found.fold == fold) & ~found.unreadable
        result[fold] = score.of(found.take(own), truth.take(own), posts[fold]) if own.any() else {}
    return result

"""Arrays that scores of clips refuse."""

import numpy as np
import pytest

from earshot.metrics import clips as clip_metrics

MULTI_LABEL = [
    clip_metrics.macro_f1, clip_metrics.micro_f1, clip_metrics.row_micro_f1_at, clip_metrics.macro_f1_argmax,
    clip_metrics.best_threshold, clip_metrics.best_thresholds, clip_metrics.average_precision,
    clip_metrics.mean_average_precision, clip_metrics.roc_auc, clip_metrics.macro_roc_auc, clip_metrics.padded_cmap,
    clip_metrics.lwlrap, clip_metrics.per_class_lwlrap, clip_metrics.accuracy, clip_metrics.class_mean_accuracy,
    clip_metrics.log_loss,
]  # fmt: skip


GOOD = np.array([[1, 0], [0, 1]])


@pytest.mark.parametrize("score", MULTI_LABEL, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        (GOOD, np.zeros((2, 3)), r"truth is \(2, 2\), scores are \(2, 3\)"),
        (GOOD, [[0.5, np.nan], [0.5, 0.5]], r"nan at \[0, 1\]: every score must be finite"),
        (GOOD, [[0.5, 0.5], [np.inf, 0.5]], r"inf at \[1, 0\]"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "nothing to score"),
        ([[0.3, 1]], [[0.5, 0.5]], "0 and 1 only, got 0.3"),
        ([[np.nan, 1]], [[0.5, 0.5]], "0 and 1 only, got nan"),
        ([1, 0], [0.5, 0.5], r"expected \(N, K\) arrays, got shape \(2,\)"),
    ],
)
def test_bad_arrays_are_refused(score, truth, scores, message):
    with pytest.raises(ValueError, match=message):
        score(truth, scores)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\) thresholds for 2 classes"):
        clip_metrics.macro_f1(GOOD, GOOD, [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="threshold is NaN"):
        clip_metrics.micro_f1(GOOD, GOOD, np.nan)
    with pytest.raises(ValueError, match="row 1 has 2 labels"):
        clip_metrics.accuracy([[1, 0], [1, 1]], GOOD)
    with pytest.raises(ValueError, match="row 1 has no label"):
        clip_metrics.macro_f1_argmax([[1, 0], [0, 0]], GOOD)
    with pytest.raises(ValueError, match="2 truth rows, 1 predicted"):
        clip_metrics.row_micro_f1(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 truth rows"):
        clip_metrics.row_micro_f1([], [])
    with pytest.raises(ValueError, match=r"need \[0, 1\]"):
        clip_metrics.padded_cmap(GOOD, GOOD * 1.5)
    with pytest.raises(ValueError, match="padding 0 leaves classes"):
        clip_metrics.padded_cmap([[1, 0]], [[0.5, 0.5]], padding=0)
    with pytest.raises(ValueError, match="all 2 clips are normal"):
        clip_metrics.auc([0, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="max_fpr is 0"):
        clip_metrics.pauc([0, 1], [0.1, 0.2], max_fpr=0)
    with pytest.raises(ValueError, match=r"decisions are \(1,\)"):
        clip_metrics.precision_recall_f1([0, 1], [True])

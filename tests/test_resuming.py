"""What a resumed training knows of the epochs before."""

import math

from earshot.training.checkpoint import rescore_best
from earshot.training.setup import Progress

LOG = [
    {"epoch": 0, "steps": 10, "map": 0.9, "log_loss": 1.5},
    {"epoch": 1, "steps": 15, "map": 0.5, "log_loss": 1.4},
    {"epoch": 1, "steps": 20, "map": 0.6, "log_loss": 1.2},
    {"epoch": 2, "steps": 30, "map": 0.4},
]


def before(epoch: int, steps: int, watched: str = "") -> Progress:
    return Progress(epoch=3, best_epoch=epoch, best_steps=steps, best_score=0.9, watched=watched, log=LOG)


def test_the_best_epoch_of_another_score_is_held_against_others_by_the_one_that_is_watched_now():
    progress = before(1, 20)
    rescore_best(progress, "log_loss")
    assert (progress.best_score, progress.best_epoch, progress.watched) == (-1.2, 1, "log_loss")
    progress = before(1, 15, watched="map")
    rescore_best(progress, "log_loss")
    assert progress.best_score == -1.4
    progress = before(0, -1)  # steps that an old version did not write
    rescore_best(progress, "map")
    assert progress.best_score == 0.9


def test_a_score_that_the_log_lacks_lets_the_next_epoch_be_the_best():
    progress = before(2, 30)
    rescore_best(progress, "log_loss")
    assert progress.best_score == -math.inf


def test_the_same_score_and_no_best_epoch_change_nothing():
    for progress in (before(0, 10, watched="map"), Progress()):
        was = vars(progress).copy()
        rescore_best(progress, "map")
        assert vars(progress) == was

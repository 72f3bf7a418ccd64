"""How sharp a teacher's answers are left by the temperature: it is said before training."""

from pathlib import Path

import numpy as np
import pytest

from earshot.inputs.teacher import Distill
from earshot.prediction.predictions import Predictions
from earshot.training.lessons import Lessons, told
from test_distillation import lessons_of, taught, teacher  # noqa: F401


@pytest.mark.parametrize(("temperature", "sharp"), [(0.01, True), (1000.0, False)])
def test_a_temperature_that_leaves_nothing_of_the_answers_shows(taught, temperature, sharp):  # noqa: F811
    data, lessons = lessons_of(taught, Distill(teacher=teacher(), answers="softmax", temperature=temperature))
    answers = [lessons.of_crop(c, 0.0, taught.data.crop_seconds)["teacher_answer"] for c in data.clips.clip_id]
    highest = float(np.mean([a.max() for a in answers]))
    assert (highest > 0.8) == sharp
    assert lessons.about["highest_answer"] == pytest.approx(highest)
    assert f", the likeliest class {highest:.2f} on average, 0.50 is chance)" in told(lessons, data.classes)
    assert sharp or f"{highest:.2f}" == "0.50"  # two of three classes are known


def test_of_classes_for_themselves_nothing_is_said_of_chance(taught):  # noqa: F811
    data, lessons = lessons_of(taught, Distill(teacher=teacher()))
    assert "chance" not in told(lessons, data.classes)
    assert not Path("runs").exists()


def test_clips_that_nobody_answers_for_do_not_count():
    answers = Predictions(
        np.array(["a", "b"]), ("x", "y"), np.array([[0.9, 0.1], [0.5, 0.5]], np.float32), np.array([0, 0]),
        unreadable=np.array([False, True]),
    )  # fmt: skip
    how = Distill(predictions=["oof.npz"], answers="softmax")
    lessons = Lessons(how=how, n_labelled=2, epochs=1, n_classes=2, answers=answers, place=np.array([0, 1]))
    assert lessons.highest_answer(["a", "b"], 1.0) == pytest.approx(0.9)

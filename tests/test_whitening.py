"""A teacher's embedding, centred and whitened over the clips that train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.teacher import Distill, Teacher
from earshot.training.lessons import prepare_lessons, told
from earshot.training.whitening import Whitening
from test_distillation import teacher, teacher_file


def directions(n=300, width=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)) @ rng.standard_normal((width, width)) + 30 * rng.random(width)


def test_as_scikit_learn_whitens():
    rows = directions()
    ours = Whitening.of_rows([rows[:100], rows[100:101], rows[101:]], 5)
    theirs = PCA(5, whiten=True).fit(rows)
    found = np.stack([ours(row) for row in rows])
    wanted = theirs.transform(rows) * np.sqrt(len(rows) / (len(rows) - 1))  # variances by n, not n - 1
    signs = np.sign((found * wanted).sum(axis=0))
    np.testing.assert_allclose(found, wanted * signs, atol=2e-4)
    assert (ours.basis[np.abs(ours.basis).argmax(axis=0), np.arange(5)] > 0).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 400))
def test_centred_of_variance_one_and_the_same_however_they_come(seed, components, cut):
    rows = directions(seed=seed)
    whitening = Whitening.of_rows([rows], components)
    found = np.stack([whitening(row) for row in rows])
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=2e-2)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(components), atol=3e-2)
    parts = Whitening.of_rows([rows[:cut], np.zeros((3, 8)), rows[cut:]], components)
    np.testing.assert_allclose(parts.basis, whitening.basis, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [[], [np.zeros((4, 6))], [np.ones((1, 6))], [np.ones((5, 6))]])
def test_rows_that_do_not_vary_are_refused(rows):
    with pytest.raises(ValueError, match="embedding_components is 1, but .* varies in 0 directions: set it to"):
        Whitening.of_rows(rows, 1)


def test_only_clips_that_train_say_what_is_the_mean(tiny):
    teacher_file()
    config = load_config(tiny)
    how = Distill(teacher=teacher(logits="", labels=""), embedding_components=2)
    data = load_data(config.data)
    clips, _ = data.split(0, config.data.folds)
    _, lessons = prepare_lessons(replace(config, distill=how), 0, clips, data.classes, Path("cache"), None)
    rows = np.concatenate([lessons.rows[clip] for clip in clips.clips.clip_id])
    np.testing.assert_allclose(lessons.whitening.mean, rows.mean(axis=0), rtol=1e-5)
    assert len(clips.clips) < len(data.clips)
    assert lessons.embedding_width == 2
    clip = clips.clips.clip_id.iloc[0]
    said = lessons.of_crop(clip, 0.0, 1.0)["teacher_embedding"]
    wanted = (lessons.rows[clip][:3].mean(axis=0) - lessons.whitening.mean) @ lessons.whitening.basis
    np.testing.assert_allclose(said, wanted / np.linalg.norm(wanted), rtol=1e-5)
    assert "2 components of its embedding of 3 (weight 1)" in told(lessons, data.classes)
    # level and the levels of two halves: the first is the mean of the others
    too_many = replace(how, embedding_components=3)
    with pytest.raises(ValueError, match=r"embedding_components is 3, but over the \d+ windows .* in 2 directions"):
        prepare_lessons(replace(config, distill=too_many), 0, clips, data.classes, Path("cache"), None)


def test_a_number_below_0_is_refused():
    with pytest.raises(ValueError, match="embedding_components must be 0 or more, got -1"):
        Distill(teacher=Teacher(), embedding_components=-1)

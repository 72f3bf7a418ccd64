"""Events that teachers find as targets in time: thresholds of other folds, frames without a say, recordings' levels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

import pseudo_label
from earshot import losses
from earshot.augment.mixing import fmix_batch, mix_batch
from earshot.augment.pseudo import PseudoMixing
from earshot.competitions import get_competition
from earshot.competitions.competition import OofScore, PostRanges
from earshot.data.pseudo import PseudoLabels
from earshot.ensemble.apart import choose_apart
from earshot.ensemble.post_processing import choose_post, fit_post
from earshot.events import PostProcess, detect, smoothed
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.rounds import frame_events, frames
from earshot.rounds.choosing import Choice
from earshot.rounds.plan import Plan, Trained
from earshot.sound.timebase import TimeBase
from earshot.sound.two_levels import centred, two_levels
from earshot.training.pseudo import PseudoWindows
from scripts import run

BASE = TimeBase(1000, 10, 1)  # a frame every 10 ms
NAN = np.nan


def test_two_levels_by_hand():
    low, high = two_levels(np.array([[0.0, 5], [1, 5], [10, 5], [12, 5], [11, 5]]))
    np.testing.assert_allclose(low, [0.5, 5])
    np.testing.assert_allclose(high, [11, 5])
    np.testing.assert_allclose(two_levels(np.array([[3.0]])), [[3], [3]])
    with pytest.raises(ValueError, match=r"at least one row, got shape \(0, 2\)"):
        two_levels(np.zeros((0, 2)))


def test_centred_outputs_do_not_depend_on_how_sure_a_network_is():
    odds = np.random.default_rng(0).normal(0, 0.5, (200, 1)) + 6 * (np.arange(200) % 40 < 12)[:, None] - 3
    found = [centred(expit(odds + shift).astype(np.float32)) for shift in (-4, 0, 3)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    np.testing.assert_allclose(found[2], found[1], atol=1e-4)
    assert ((found[0] > 0.5) == (odds > 0)).all()
    np.testing.assert_allclose(centred(np.array([[0.1], [0.9]]), 0.0)[:, 0], [0.5, 81 / 82], rtol=1e-6)


def test_a_class_that_is_nowhere_stays_as_it_is():
    quiet = expit(np.random.default_rng(0).normal(-6, 0.3, (100, 2))).astype(np.float32)
    np.testing.assert_allclose(centred(quiet), quiet, rtol=1e-4)
    assert centred(np.zeros((0, 3))).shape == (0, 3)


def test_centred_events_of_a_timid_network():
    prob = np.full((30, 1), 0.001, np.float32)
    prob[5:10] = 0.05
    assert not len(detect(prob, BASE, ["a"], "r", PostProcess(iou_threshold=None)))
    found = detect(prob, BASE, ["a"], "r", PostProcess(iou_threshold=None, centred=0.5))
    assert found[["onset", "offset"]].to_numpy().tolist() == [[0.05, 0.1]]
    np.testing.assert_allclose(found.max_confidence, smoothed(prob, BASE, PostProcess(centred=0.5))[5, 0])


def birds(shifts=(3.0, -3.0, 2.5, -2.5)) -> tuple[Predictions, Truth]:
    """A recording a fold, outputs shifted by so many log odds; an event is in ten frames of 25."""
    rng, outputs, events = np.random.default_rng(1), [], []
    names = np.array([f"r{fold}" for fold in range(len(shifts))])
    for name, shift in zip(names, shifts, strict=True):
        inside = np.arange(100) % 25 < 10
        outputs.append(expit(np.where(inside, 2.5, -2.5) + shift + rng.normal(0, 0.7, 100))[:, None])
        starts = np.arange(0, 100, 25) / 100
        events.append(pd.DataFrame({"filename": name, "onset": starts, "offset": starts + 0.1}))
    found = Predictions(
        names, ("vocal",), np.ones((len(names), 1), np.float32), np.arange(len(names)), np.zeros(len(names), bool),
        framewise_output=tuple(o.astype(np.float32) for o in outputs), timebase=BASE,
    )  # fmt: skip
    return found, Truth(
        np.ones((len(names), 1), bool), pd.concat(events, ignore_index=True).assign(event_label="vocal")
    )


FEW = PostRanges(
    start=PostProcess(iou_threshold=None), threshold=(0.1, 0.5, 0.9), centred=(None, 0.5), threshold_low=(None,)
)  # few values, and frames right or wrong: the real search takes seconds


def frames_right(found: Predictions, truth: Truth, post: PostProcess) -> dict[str, float]:
    inside = np.arange(100) % 25 < 10
    prob = np.stack([smoothed(f, BASE, post)[:, 0] for f in found.framewise_output])
    return {"right": float(((prob >= post.threshold) == inside).mean())}


RIGHT = OofScore("right", frames_right)


def test_the_search_centres_where_sources_differ():
    assert get_competition("finch_vocal").post.centred == (None, 0.5, 0.75)
    choice = choose_post(*birds(), RIGHT, FEW)
    assert choice.post.centred == 0.5
    assert choice.after.mean() > choice.before.mean() + 0.1
    assert choose_post(*birds((0.0,) * 4), RIGHT, FEW).post.centred is None, "where all are alike it gains nothing"


def test_event_frames_by_hand():
    odds = np.array([-5, -0.5, 1.0, 3.0, 0.2, -5, 0.3, -0.2, -5, 4.0])[:, None]
    post = PostProcess(threshold=0.5, iou_threshold=None)
    hard = frame_events.event_frames(expit(odds), BASE, ["a"], post)
    assert hard[:, 0].tolist() == [0, 0, 1, 1, 1, 0, 1, 0, 0, 1]
    unsure = frame_events.event_frames(expit(odds), BASE, ["a"], post, 0.6)
    np.testing.assert_array_equal(unsure[:, 0], [0, NAN, 1, 1, NAN, 0, NAN, NAN, 0, 1])
    both = frame_events.event_frames(expit(odds), BASE, ["a"], PostProcess(
        threshold=float(expit(2)), threshold_low=float(expit(0)), iou_threshold=None))  # fmt: skip
    assert both[:, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 1], "hysteresis"


def teachers_of(found: Predictions, competition="finch_vocal"):
    config = SimpleNamespace(data=SimpleNamespace(competition=competition))
    return SimpleNamespace(runs=[SimpleNamespace(config=config, folder="runs/sed/t", folds=[])], data=None)


def test_a_folds_own_clips_choose_nothing_of_its_frames(monkeypatch):
    found, truth = birds()
    monkeypatch.setattr(frame_events, "held_out", lambda teachers: found)
    monkeypatch.setattr(frame_events, "truth_of", lambda oof, data: truth)
    few = SimpleNamespace(post=FEW, oof_score=RIGHT)
    monkeypatch.setattr(frame_events, "get_competition", lambda name: few)
    posts = frame_events.posts_of(teachers_of(found))
    assert sorted(posts) == [0, 1, 2, 3]
    own = found.fold == 2
    spoilt = [1 - f if mine else f for f, mine in zip(found.framewise_output, own, strict=True)]
    found = Predictions(
        found.clip_ids, found.classes, found.clipwise_output, found.fold, found.unreadable,
        framewise_output=tuple(spoilt), timebase=BASE,
    )  # fmt: skip
    again = frame_events.posts_of(teachers_of(found))
    assert again[2] == posts[2]
    assert again[0] != posts[0]


@pytest.mark.parametrize("name", ["esc50", "", "birdclef2024"])
def test_competitions_without_thresholds_of_events_are_refused(name):
    with pytest.raises(ValueError, match=f"which '{name or 'no competition'}' does not search: leave it"):
        frame_events.posts_of(teachers_of(None, name))


def test_answers_without_frames_are_refused():
    found, _ = birds()
    bare = Predictions(found.clip_ids, found.classes, found.clipwise_output, found.fold, found.unreadable)
    run_ = SimpleNamespace(folder="runs/sed/t", folds=[SimpleNamespace(oof=lambda: bare)])
    with pytest.raises(ValueError, match="runs/sed/t have no frames, .* predict.oof_frames=true"):
        frame_events.held_out(SimpleNamespace(runs=[run_]))


def windows(values) -> PseudoLabels:
    values = np.asarray(values, np.float16)
    n = len(values)
    return PseudoLabels(
        clip_ids=np.array([f"u{i}" for i in range(n)]), paths=np.array([f"u{i}.wav" for i in range(n)]),
        starts=np.arange(n) * 0.1, target=np.ones((n, values.shape[2]), np.float16), confidence=np.ones(n),
        keys=np.array([""] * n), frames=values,
    )  # fmt: skip


def test_frames_are_found_in_whole_recordings_and_cut(monkeypatch):
    """A window that begins inside an event has its part of it, whichever window the event's certain frames are in."""
    odds = np.full((40, 1), -5.0)
    odds[5:15] = np.where(np.arange(10) < 5, 3.0, 0.2)[:, None]
    answers = Predictions(
        np.array(["u0", "u1"]), ("a",), np.ones((2, 1)), np.zeros(2, int), np.zeros(2, bool),
        framewise_output=(expit(odds), expit(odds)), timebase=BASE,
    )  # fmt: skip
    monkeypatch.setattr(frames, "predict_members", lambda members, clips, progress: ([answers], None))
    monkeypatch.setattr(frames, "as_framewise", lambda member: member)
    monkeypatch.setattr(frames, "posts_of", lambda teachers: {
        0: PostProcess(threshold=float(expit(2)), threshold_low=0.5, iou_threshold=None)})  # fmt: skip
    teachers = SimpleNamespace(members={0: ["x", "y"]}, windowing=SimpleNamespace(window_seconds=0.1))
    chosen = {0: windows(np.zeros((2, 10, 1)))}  # u0 from 0 s, u1 from 0.1 s
    found, every = frames.with_frames(teachers, chosen, frames.Path("."), Choice(frame_events=True))
    assert every == pytest.approx(0.01)
    assert found[0].frames[0, :, 0].tolist() == [0.0] * 5 + [1.0] * 5
    assert found[0].frames[1, :, 0].tolist() == [1.0] * 5 + [0.0] * 5
    found, _ = frames.with_frames(teachers, chosen, frames.Path("."), Choice(frame_events=True, frame_unsure=0.5))
    np.testing.assert_array_equal(found[0].frames[1, :, 0], [NAN] * 5 + [0.0] * 5)
    soft, _ = frames.with_frames(teachers, chosen, frames.Path("."), Choice())
    np.testing.assert_allclose(soft[0].frames[1, :5, 0], expit(0.2), atol=1e-3)


def test_windows_with_unknown_frames():
    own = windows([[[0.0], [NAN], [1.0]]])
    assert np.isnan(own.frames).sum() == 1
    assert len(windows(np.full((1, 3, 1), NAN)))
    with pytest.raises(ValueError, match=r"frames must lie in 0 to 1 or be NaN, got 0\.0 to 2\.0"):
        windows([[[0.0], [NAN], [2.0]]])


@pytest.mark.parametrize(
    ("values", "target", "known"),
    [([0, 0, 0], 0, 1), ([0, NAN, 1], 1, 1), ([0, NAN, 0], 0, 0), ([NAN] * 3, 0, 0), ([0.2, 0.4, 0], 0.4, 1)],
)
def test_a_crop_of_unknown_frames_is_unknown(values, target, known):
    """PseudoWindows.when on a crop of the whole window."""
    parts = PseudoWindows.__new__(PseudoWindows)
    own = windows(np.array(values, float).reshape(1, 3, 1))
    parts.record, parts.frames, parts.frame_seconds, parts.sample_rate = PseudoMixing(), own.frames, 0.01, 1000
    parts.target, parts.mask = own.target, np.ones((1, 1), np.uint8)
    found, highest, mask = parts.when(0, 0, BASE, 3)
    np.testing.assert_allclose(found[:, 0], values, atol=1e-3)
    assert (float(highest[0]), float(mask[0])) == (pytest.approx(target, abs=1e-3), known)


def test_unknown_frames_have_no_say():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 6, 3, generator=generator, requires_grad=True)
    target = (torch.rand(2, 6, 3, generator=generator) < 0.5).float()
    unknown = torch.rand(2, 6, 3, generator=generator) < 0.3
    batch = {"target": torch.zeros(2, 3), "frame_target": torch.where(unknown, torch.nan, target)}
    loss = losses.frame_bce({"segmentwise_logit": value}, batch)
    loss.backward()
    each = torch.nn.functional.binary_cross_entropy_with_logits(value, target, reduction="none")
    torch.testing.assert_close(loss, each[~unknown].mean())
    assert (value.grad[unknown] == 0).all()
    assert value.grad.isfinite().all()
    batch["frame_target"] = torch.full((2, 6, 3), torch.nan)
    assert losses.frame_bce({"segmentwise_logit": value}, batch).item() == 0


def test_a_mixture_with_an_unknown_frame_is_unknown_where_it_has_a_share():
    batch = {"target": torch.ones(2, 1), "frame_target": torch.tensor([[[1.0], [0.0]], [[torch.nan], [1.0]]])}
    index = torch.tensor([1, 0])
    mixed = mix_batch(batch, (), torch.tensor([0.5, 1.0]), index)["frame_target"]
    np.testing.assert_array_equal(mixed[:, :, 0], [[NAN, 0.5], [NAN, 1.0]])
    alone = mix_batch(batch, (), 1.0, index)["frame_target"]
    np.testing.assert_array_equal(alone[0, :, 0], [1, 0])
    mask = torch.tensor([[True], [False]])  # the first frame is the clip's own, the second its partner's
    pictures = batch | {"x": torch.zeros(2, 1, 2, 1)}
    cut = fmix_batch(pictures, ("x",), mask, index)["frame_target"]
    np.testing.assert_array_equal(cut[:, :, 0], [[1.0, 1.0], [NAN, 0.0]])


def test_options_that_do_not_go_together(tmp_path):
    words = ("--runs", "r", "--clips", "c", "--out", tmp_path / "o", "--frame-events")
    with pytest.raises(ValueError, match="--frame-events says what frames are: give --frames too"):
        run(pseudo_label, *words)
    with pytest.raises(ValueError, match="--frame-unsure is of thresholds that find events: give frame_events too"):
        run(pseudo_label, *words[:-1], "--frames", "--frame-unsure", "1")
    with pytest.raises(ValueError, match="--frame-unsure must be 0 or more log odds, got -1"):
        run(pseudo_label, *words, "--frames", "--frame-unsure", "-1")
    with pytest.raises(ValueError, match="a schedule labels whole windows"):
        Plan(teacher=Trained(config="a"), student=Trained(config="b"), unlabelled="u", labels={"frame_events": True})


def test_what_is_kept_in_any_case_needs_no_nesting():
    found, truth = birds()
    post = fit_post(found, truth, RIGHT, FEW)
    assert post == choose_post(found, truth, RIGHT, FEW, always=True).post
    assert choose_apart(found, truth, RIGHT, FEW, always=True)[1] == fit_post(*others(found, truth), RIGHT, FEW)
    with pytest.raises(ValueError, match="no clip of the OOF could be read"):
        fit_post(replace(found, unreadable=np.ones(4, bool)), truth, RIGHT, FEW)


def others(found: Predictions, truth: Truth) -> tuple[Predictions, Truth]:
    return found.take(found.fold != 1), truth.take(found.fold != 1)

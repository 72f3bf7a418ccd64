"""The search for post-processing from inside: which steps are possible, what each tries, which clips judge it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earshot.competitions.competition import OofScore, PostRanges
from earshot.competitions.row_steps import fit_odds
from earshot.ensemble import post_processing
from earshot.ensemble.post_processing import PostChoice, Step, choose_post, parts_of
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

NAN = float("nan")
SITES, HOURS = ["s", "s", "", "t"], ["7", "", "7", "8"]
ANSWERS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])


def oof(n=6, folds=3, classes=("a", "b"), frames=True, ids=None) -> tuple[Predictions, Truth]:
    framewise = tuple(np.zeros((3, len(classes)), np.float32) for _ in range(n)) if frames else None
    ids = np.arange(n).astype(str) if ids is None else np.array(ids)
    found = Predictions(ids, classes, np.zeros((n, len(classes)), np.float32), np.arange(n) % folds, np.zeros(n, bool),
                        framewise_output=framewise, timebase=TimeBase(8, 1))  # fmt: skip
    return found, Truth(np.ones((n, len(classes)), bool))


def by(value, **changed) -> OofScore:
    """A score that is a function of the post-processing alone."""
    return OofScore("s", lambda found, truth, post=None: {"s": value(post), "other": 9.0}, **changed)


def fit(step, score, ranges, post=None, of=None) -> PostProcess:
    return post_processing._Search(score, ranges).fit(step, post or PostProcess(), *(of or oof()))


# ---- which steps are tried

ROWS = PostRanges(threshold=(0.5,), class_thresholds=True, min_seconds=(0.0, 0.1), row_smooth=(0.0, 0.25),
                  row_site=(0.0, 1.0), row_hour=(0.0, 1.0), iou_threshold=(0.5,),
                  threshold_quantile=(None, 0.5))  # fmt: skip
NO_FRAMES = "the OOF has no frames (predict.oof_frames=true keeps them)"
NO_ROWS = "no annotated recording of the OOF has rows with answers"


@pytest.mark.parametrize(("changed", "rows", "start", "tried", "untried"), [
    ({}, (SITES, HOURS, ANSWERS), {},
     "threshold class_thresholds threshold_quantile min_seconds iou_threshold row_smooth row_site row_hour", {}),
    ({"classes": ("a",)}, (SITES, HOURS, ANSWERS[:, :1]), {},
     "threshold threshold_quantile min_seconds iou_threshold row_smooth row_site row_hour",
     {"class_thresholds": "there is one class"}),
    ({"frames": False}, (SITES, HOURS, ANSWERS), {}, "threshold class_thresholds threshold_quantile iou_threshold",
     {"min_seconds": NO_FRAMES, "row_smooth": NO_FRAMES, "row_site": NO_FRAMES, "row_hour": NO_FRAMES}),
    ({}, None, {}, "threshold class_thresholds threshold_quantile min_seconds iou_threshold",
     {"row_smooth": NO_ROWS, "row_site": NO_ROWS, "row_hour": NO_ROWS}),
    ({}, (["", ""], ["7", ""], ANSWERS[:2]), {},
     "threshold class_thresholds threshold_quantile min_seconds iou_threshold row_smooth row_hour",
     {"row_site": "no annotated recording's name has a site"}),
    ({}, (["s", ""], ["", ""], ANSWERS[:2]), {},
     "threshold class_thresholds threshold_quantile min_seconds iou_threshold row_smooth row_site",
     {"row_hour": "no annotated recording's name has a time"}),
    ({}, (SITES, HOURS, ANSWERS), {"strict": True}, "threshold iou_threshold",
     dict.fromkeys(("class_thresholds", "threshold_quantile", "min_seconds", "row_smooth", "row_site", "row_hour"),
                   "the start is strict")),
])  # fmt: skip
def test_steps_are_tried_where_these_predictions_can_tell(changed, rows, start, tried, untried):
    score = by(lambda post: 0.5, rows=lambda found, truth: rows)
    choice = choose_post(*oof(**changed), score, ROWS, PostProcess(**start))
    assert [step.name for step in choice.steps] == tried.split()
    assert choice.untried == untried
    assert list(choice.untried) == [n for n in post_processing.STEPS if n in untried], "in the order of the steps"
    assert choice.post == choice.start == PostProcess(**start), "nothing gained"


def test_steps_that_nobody_asked_for_are_not_told_of():
    score = by(lambda post: 0.5)  # without rows
    choice = choose_post(*oof(), score, ROWS, steps=["row_site", "min_seconds"])
    assert [step.name for step in choice.steps] == ["min_seconds"]
    assert choice.untried == {"row_site": NO_ROWS}
    asked = []
    silent = by(lambda post: 0.5, rows=lambda found, truth: asked.append(1))
    choose_post(*oof(), silent, ROWS, steps=["min_seconds"])
    assert not asked, "rows are made only where a step between rows is tried"
    for steps in (["coarse_from"], ["min_seconds", "row_sites"]):
        with pytest.raises(ValueError, match=f"^this competition has no post-processing step '{steps[-1]}'"):
            choose_post(*oof(), score, ROWS, steps=steps)
    assert choose_post(*oof(), score, ROWS, steps=[]).steps == []


# ---- what they try


def test_a_threshold_is_the_best_of_the_grid_and_then_of_its_neighbours():
    seen = []
    score = by(lambda post: seen.append(post.threshold) or -abs(post.threshold - 0.52))
    found = fit("threshold", score, PostRanges(threshold=(0.25, 0.5, 0.75)))
    beside = [1 / (1 + np.exp(-d)) for d in (-0.375, -0.25, -0.125, 0.125, 0.25, 0.375)]
    np.testing.assert_allclose(sorted(set(seen)), sorted([0.25, 0.5, 0.75, *beside]))
    assert found.threshold == pytest.approx(beside[3])
    cleared = fit("threshold", by(lambda post: post.threshold), PostRanges(threshold=(0.75,)),
                  PostProcess(threshold=0.5, class_thresholds={"a": 0.25}))  # fmt: skip
    assert (cleared.class_thresholds, cleared.threshold > 0.75) == ({}, True)


@pytest.mark.parametrize(("known", "chosen"), [(0.25, 0.25), (1.5, 1.0), (-0.5, 0.0)])
def test_a_threshold_that_the_score_knows_is_taken_where_it_is_better(known, chosen):
    def thresholds(found, truth):
        return known, np.array([known, 0.75])

    ranges = PostRanges(threshold=(0.3,), class_thresholds=True)
    better = by(lambda post: float(post.threshold == chosen), thresholds=thresholds)
    assert fit("threshold", better, ranges) == PostProcess(threshold=chosen)
    assert fit("threshold", by(lambda post: 0.0, thresholds=thresholds), ranges) == PostProcess()
    many = fit("class_thresholds", better, ranges)
    assert many.class_thresholds == {"a": chosen, "b": 0.75}
    assert all(type(t) is float for t in many.class_thresholds.values())
    search = post_processing._Search(better, ranges)
    assert search.tried("threshold") == search.tried("class_thresholds") == ["every value"]
    plain = post_processing._Search(by(lambda post: 0.0), replace(ranges, min_seconds=(0.1,)))
    assert plain.tried("threshold") == plain.tried("class_thresholds") == [0.3]
    assert plain.tried("min_seconds") == [0.1]
    assert search.value("class_thresholds", many) == {"a": chosen, "b": 0.75}
    assert search.value("threshold", many) == 0.5


def test_each_class_that_is_there_gets_the_threshold_of_its_own_answers():
    """Class a wants 0.2, b 0.8; c has no clip of its own and keeps the common one."""
    found, truth = oof(classes=("a", "b", "c"))
    truth = replace(truth, target=np.array([[1, 1, 0]] * 6) > 0)
    best = {"a": 0.2, "b": 0.8, "c": 0.4}

    def of(one, answers, post=None):
        assert len(one.classes) == 1
        assert answers.target.shape == (6, 1)
        return {"s": -abs(post.threshold - best[one.classes[0]])}

    ranges = PostRanges(threshold=(0.2, 0.4, 0.8), class_thresholds=True)
    post = fit("class_thresholds", OofScore("s", of), ranges, PostProcess(threshold=0.6), (found, truth))
    assert post == PostProcess(threshold=0.6, class_thresholds={"a": 0.2, "b": 0.8})
    low = fit(
        "class_thresholds", OofScore("s", of), ranges, PostProcess(threshold=0.6, threshold_low=0.5), (found, truth)
    )
    assert low.threshold_low == pytest.approx(0.2), "no lower than the least upper one"
    fine = fit(
        "class_thresholds", OofScore("s", of), ranges, PostProcess(threshold=0.6, threshold_low=0.1), (found, truth)
    )
    assert fine.threshold_low <= 0.1
    soft = replace(truth, target=np.array([[0.5, 1, 0.6]] * 6))
    assert set(fit("class_thresholds", OofScore("s", of), ranges, None, (found, soft)).class_thresholds) == {"b", "c"}


def test_what_sites_and_hours_say_is_learned_from_these_rows():
    ranges = PostRanges(row_site=(0.0, 0.5, 1.0), row_hour=(0.5,))

    def score(good):
        return by(good, rows=lambda found, truth: (SITES, HOURS, ANSWERS))

    site = fit("row_site", score(lambda post: -abs(post.row_site - 0.5)), ranges)
    assert site == PostProcess(row_site=0.5, site_odds=fit_odds(SITES, ANSWERS, ("a", "b")))
    hour = fit("row_hour", score(lambda post: post.row_hour), ranges)
    assert hour == PostProcess(row_hour=0.5, hour_odds=fit_odds(HOURS, ANSWERS, ("a", "b")))
    before = PostProcess(row_site=1.0, site_odds={"s": {"a": 1.0}})
    assert fit("row_site", score(lambda post: -post.row_site), ranges, before) == PostProcess()
    nothing = by(lambda post: post.row_site, rows=lambda found, truth: None)
    assert fit("row_site", nothing, ranges) == PostProcess()


def test_the_first_of_equals_stays_and_no_value_is_the_worst():
    ranges = PostRanges(min_seconds=(0.0, 0.1, 0.2, 0.3))
    values = {0.0: 0.5, 0.1: 0.5, 0.2: 0.5, 0.3: 0.5}

    def best(**changed):
        known = values | {float(k[1:]) / 10: v for k, v in changed.items()}
        return fit("min_seconds", by(lambda post: known[post.min_seconds]), ranges).min_seconds

    assert best() == 0.0
    assert best(_2=0.6, _3=0.6) == 0.2
    assert best(_1=NAN, _3=0.6) == 0.3
    assert best(_0=NAN) == 0.1, "anything is better than no value"
    assert best(_0=NAN, _1=-1.0, _2=-2.0, _3=-3.0) == 0.1
    assert best(_1=float("inf")) == 0.0


# ---- which clips judge


def test_only_readable_clips_choose_and_are_counted():
    found, truth = oof()
    unreadable = np.array([1, 0, 0, 0, 0, 1], bool)
    seen = set()

    def of(some, answers, post=None):
        assert len(some) == len(answers.target)
        seen.update(some.clip_ids.tolist())
        return {"s": 0.5}

    choice = choose_post(
        replace(found, unreadable=unreadable), truth, OofScore("s", of), PostRanges(min_seconds=(0.1,))
    )
    assert seen == {"1", "2", "3", "4"}
    assert (choice.n_clips, choice.folds, choice.parts, choice.score_name) == (4, [0, 1, 2], "3 folds", "s")
    assert all(type(f) is int for f in choice.folds)


def test_folds_that_do_not_define_the_score_do_not_judge():
    """Fold 1 never has a value, fold 2 loses its own at 0.1."""

    def of(some, answers, post=None):
        folds = set(some.fold.tolist())
        if folds == {1} or (folds == {2} and post.min_seconds):
            return {}
        return {"s": 0.5 + post.min_seconds * (1 + min(folds))}

    choice = choose_post(*oof(10, 5), OofScore("s", of), PostRanges(min_seconds=(0.1,)))
    np.testing.assert_allclose(choice.steps[0].gains, [0.1, 0.4, 0.5])
    assert choice.steps[0].kept
    assert choice.post.min_seconds == 0.1
    np.testing.assert_allclose(choice.before, [0.5] * 3)
    np.testing.assert_allclose(choice.after, [0.6, 0.9, 1.0])
    assert choice.fitted == pytest.approx(0.6)


def test_a_search_begins_where_it_is_told_to():
    ranges = PostRanges(start=PostProcess(threshold=0.25), min_seconds=(0.1,))
    assert choose_post(*oof(), by(lambda post: 0.5), ranges).start.threshold == 0.25
    own = choose_post(*oof(), by(lambda post: 0.5), ranges, PostProcess(threshold=0.75))
    assert own.start == own.post == PostProcess(threshold=0.75)
    lower = OofScore("s", lambda found, truth, post=None: {"s": 1 - post.min_seconds}, lower_is_better=True)
    assert choose_post(*oof(), lower, ranges, always=True).post.min_seconds == 0.1


@pytest.mark.parametrize(("frames", "events", "why"), [
    (False, None, "it has no framewise outputs"), (True, None, "no true events came with it"),
    (True, pd.DataFrame({"filename": []}), "its clips do not define it"),
])  # fmt: skip
def test_why_an_oof_cannot_have_a_score(frames, events, why):
    found, truth = oof(frames=frames)
    with pytest.raises(ValueError, match=f"^this OOF cannot have the competition's score, s: {why}"):
        choose_post(found, replace(truth, events=events), OofScore("s", lambda *a: {}), PostRanges())


def test_parts_depend_on_names_and_not_on_the_order_of_clips():
    found, truth = oof(7, folds=1, ids=list("gfedcba"))
    part, how = parts_of(found, truth)
    assert how == "5 parts of one fold"
    assert dict(zip("gfedcba", part.tolist(), strict=True)) == {"c": 0, "a": 0, "e": 1, "b": 1, "d": 2, "g": 3, "f": 4}
    turned, _ = parts_of(found.take(slice(None, None, -1)), truth)
    assert turned.tolist() == part.tolist()[::-1]
    grouped = replace(truth, clips=pd.DataFrame({"group": [1, 2, 3, 4, 5, 5, 6]}))
    by_group, how = parts_of(found, grouped)
    assert (by_group[4], len(set(by_group.tolist())), how) == (by_group[5], 5, "5 parts of one fold")
    assert len(set(parts_of(*oof(4, folds=1))[0].tolist())) == 4
    assert parts_of(*oof(4, folds=1))[1] == "4 parts of one fold"
    five = replace(oof(10, folds=1)[1], clips=pd.DataFrame({"group": list("vwxyz") * 2}))
    assert (parts_of(oof(10, folds=1)[0], five)[0][:5] == parts_of(oof(10, folds=1)[0], five)[0][5:]).all()
    bare = replace(truth, clips=pd.DataFrame({"site": list("aaaaaaa")}))
    np.testing.assert_array_equal(parts_of(found, bare)[0], part)
    two, how = parts_of(*oof(6, folds=2))
    assert (two.tolist(), how) == ([0, 1, 0, 1, 0, 1], "2 folds")


# ---- what is told


def test_a_choice_tells_its_steps_and_what_was_not_tried():
    post = PostProcess()
    choice = PostChoice(
        post=post, start=post, score_name="f1", before=np.array([0.5, 0.6]), after=np.array([0.7, 0.9]), fitted=0.95,
        n_clips=7, folds=[0, 1], parts="2 folds", steps=[Step("threshold", [], 0.25, np.array([0.2, 0.3]))],
        untried={"row_pool": "no frames", "row_site": "no site", "row_peak": "no frames"},
    )  # fmt: skip
    assert str(choice).splitlines() == [
        "post-processing by f1, 7 OOF clips, 2 folds: held-out folds 0.5500 -> 0.8000",
        "  threshold 0.25: +0.2500 +- 0.0500 over 2 folds, kept",
        "  not tried, no frames: row_pool, row_peak",
        "  not tried, no site: row_site",
        "  all clips at the choice: 0.9500 (they chose it)",
    ]
    bare = replace(choice, steps=[], untried={}, before=np.zeros(0), after=np.zeros(0))
    assert str(bare).splitlines() == [
        "post-processing by f1, 7 OOF clips, 2 folds: held-out folds -",
        "  no step to try",
        "  all clips at the choice: 0.9500 (they chose it)",
    ]
    assert str(Step("x", [], 1, np.zeros(0))) == "x: nothing to compare, not kept"
    assert Step("x", [], 1, np.array([-1.0, -1.0]), always=True).kept

"""Row post-processing of the AUC years: each step by hand, kept where it gains, one road for submission and OOF."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earshot.competitions import get_competition
from earshot.competitions.oof_scores import QUANTILE_ROWS
from earshot.competitions.row_steps import annotated_rows, fit_odds, hours_of, process_rows, site_of
from earshot.ensemble.choice import as_dict, read_post, write_choice
from earshot.ensemble.post_processing import choose_post
from earshot.events import PostProcess, build_post
from earshot.metrics import clips as clip_metrics
from earshot.prediction.detection import at_quantile
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

SECONDS = TimeBase(1, 1)
CLASSES = ("a", "b", "c")
AUC = get_competition("birdclef2026")


def by_rows(values, names=None, classes=("a",), **post):
    rows = [np.asarray(v, float).reshape(-1, len(classes)) for v in values]
    ends = [5.0 * np.arange(1, len(r) + 1) for r in rows]
    names = names or [f"r{i}" for i in range(len(rows))]
    return process_rows(rows, ends, names, classes, PostProcess(**post), 5.0)


def test_each_step_by_hand():
    alone = [[0.1, 0.5, 0.9]]
    np.testing.assert_allclose(by_rows(alone, row_smooth=0.25)[0][:, 0], [0.2, 0.5, 0.8])
    np.testing.assert_allclose(by_rows(alone, row_peak=1.0)[0][:, 0], [0.09, 0.45, 0.81])
    np.testing.assert_allclose(by_rows(alone, row_peak=0.5)[0][:, 0], np.array(alone[0]) * 0.9**0.5)
    np.testing.assert_allclose(by_rows(alone, row_power=2.0)[0][:, 0], [0.01, 0.25, 0.81])
    two = by_rows([[0.1, 0.5], [0.5, 0.9]], row_rank=True)
    np.testing.assert_allclose(np.concatenate(two)[:, 0], [0.25, 0.625, 0.625, 1.0])
    floored = by_rows([[0.1, 0.5], [0.2, 0.9]], row_floor=0.5)
    np.testing.assert_allclose(np.concatenate(floored)[:, 0], [0, 0.5, 0, 0.9])
    together = by_rows(alone, row_power=2.0, row_smooth=0.25, row_peak=1.0)[0][:, 0]
    smooth = np.array([0.07, 0.33, 0.67])
    np.testing.assert_allclose(
        together, smooth * 0.67, atol=1e-12, err_msg="power, then neighbours, then the peak of those"
    )


def test_no_step_changes_nothing_and_no_recording_is_no_error():
    values = np.random.default_rng(0).random((4, 1))
    np.testing.assert_array_equal(by_rows([values])[0], values)
    assert process_rows([], [], [], CLASSES, PostProcess(row_rank=True, row_floor=0.5), 5.0) == []


def test_sites_and_hours_are_read_from_names():
    assert site_of("BC2026_Test_0001_S05_20250227_010002") == "S05"
    assert site_of("H02_20230420_074000") == "H02"
    assert [site_of(n) for n in ("soundscape_29201", "20230420_074000", "XC123", "a_20230420")] == ["", "", "", ""]
    name = "S05_20250227_235950"
    assert hours_of(name, np.array([5, 15, 3615]), 5.0) == ["23", "0", "1"]
    assert hours_of("soundscape_29201", np.array([5, 10]), 5.0) == ["", ""]


def test_odds_of_a_site_are_drawn_to_what_all_say():
    """60 rows at x, half with the class, 60 at y with none: shares 0.5, 0 and 0.25, each drawn by 60 rows at 0.25."""
    keys = ["x"] * 60 + ["y"] * 60 + [""] * 10
    target = np.zeros((130, 2), bool)
    target[:30, 0] = True
    target[120:, 1] = True  # of rows whose site is not known
    odds = fit_odds(keys, target, ("a", "never"))
    assert odds == {"x": {"a": pytest.approx(np.log(1.5), abs=1e-4)}, "y": {"a": pytest.approx(-np.log(2), abs=1e-4)}}
    assert fit_odds(["", ""], target[:2], ("a", "never")) == {}


def test_what_a_site_says_moves_log_odds_and_an_unknown_site_nothing():
    post = {"row_site": 0.5, "site_odds": {"S01": {"a": 2.0}}, "row_hour": 1.0, "hour_odds": {"6": {"a": -1.0}}}
    names = ["S01_20250101_060000", "S01_20250101_070000", "S02_20250101_070000", "nameless"]
    found = np.concatenate(by_rows([[0.5]] * 4, names, **post))[:, 0]
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-1)), 0.5, 0.5])


# ---- soundscapes with answers


def soundscapes(n=48, seed=0, signal=1.5, sites=4) -> tuple[Predictions, Truth]:
    """Minutes of sound, frames of a second: calls last for some rows, each row is heard badly, by itself."""
    rng = np.random.default_rng(seed)
    names, frames, events = [], [], []
    for i in range(n):
        names.append(f"T_{i:03d}_S{i % sites:02d}_20250227_{6 + i // sites % 6:02d}0000")
        heard = np.zeros((12, len(CLASSES)))
        for k, label in enumerate(CLASSES):
            if rng.random() < 0.5:
                begin = int(rng.integers(0, 8))
                stop = begin + int(rng.integers(3, 6))
                heard[begin:stop, k] = 1
                events.append((names[-1], 5.0 * begin, 5.0 * min(stop, 12), label))
        odds = signal * heard - 2 + rng.normal(size=heard.shape)
        frames.append(np.repeat(1 / (1 + np.exp(-odds)), 5, axis=0).astype(np.float32))
    table = pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"])
    clip = np.stack([f.max(axis=0) for f in frames])
    found = Predictions(
        np.array(names), CLASSES, clip, np.arange(n) % 3, np.zeros(n, bool), framewise_output=tuple(frames),
        timebase=SECONDS,
    )  # fmt: skip
    target = np.array([[((table.filename == n) & (table.event_label == c)).any() for c in CLASSES] for n in names])
    return found, Truth(target, table, annotated=np.ones(n, bool))


def test_an_oof_of_annotated_soundscapes_is_scored_as_the_submission_is():
    """The competition's own score of the rows that submit.py would write."""
    found, truth = soundscapes(12)
    odds = {"S01": {"a": 1.0}}
    post = PostProcess(row_smooth=0.2, row_peak=0.5, row_power=1.5, row_rank=True, row_site=1.0, site_odds=odds)
    ids = [f"{c}_{end}" for c in found.clip_ids for end in range(5, 61, 5)]
    mixed = pd.DataFrame({"row_id": np.random.default_rng(1).permutation(ids)})
    names, _, answers = annotated_rows(found, truth, 5.0)
    assert names == found.clip_ids.tolist()
    target = pd.DataFrame(np.concatenate(answers).astype(int), columns=list(CLASSES)).assign(row_id=ids)
    official = AUC.score(AUC.rows(found, mixed, post), target)
    assert AUC.oof_score.of(found, truth, post) == pytest.approx(official, abs=1e-9)
    assert AUC.oof_score.of(found, truth, post) != AUC.oof_score.of(found, truth, None)
    labels = replace(truth, events=None, annotated=None)
    peaks = {"macro_roc_auc": pytest.approx(clip_metrics.macro_roc_auc(truth.target, found.clipwise_output))}
    assert AUC.oof_score.of(found, labels, None) == peaks, "without events a clip counts as its highest row"


def chosen(found, truth, *steps):
    choice = choose_post(found, truth, AUC.oof_score, AUC.post, steps=steps)
    return {s.name: s for s in choice.steps}, choice


def test_neighbours_are_kept_where_calls_last():
    steps, choice = chosen(*soundscapes(), "row_smooth", "row_floor")
    assert steps["row_smooth"].kept
    assert not steps["row_floor"].kept
    assert choice.after.mean() > choice.before.mean() + 0.03


def test_peaks_are_kept_where_a_recording_is_of_a_species_throughout():
    """Rows of a recording with the class are all positive, and its loudest row is surer than those of others."""
    found, truth = soundscapes(signal=1.0)
    whole = truth.events.drop_duplicates(["filename", "event_label"]).assign(onset=0.0, offset=60.0)
    steps, choice = chosen(found, replace(truth, events=whole), "row_peak")
    assert steps["row_peak"].kept
    assert choice.post.row_peak == 1.0


@pytest.mark.slow
def test_steps_that_gain_nothing_are_left_out():
    """Outputs that know nothing: whatever is chosen on the other folds says nothing of the one that judges."""
    found, truth = soundscapes(n=48, signal=0.0, seed=1)
    found = replace(found, fold=np.arange(48) % 6)
    everything = [s for s in AUC.post.__dataclass_fields__ if s.startswith("row_") and s != "row_pool"]
    _, choice = chosen(found, truth, *everything)
    assert len(choice.steps) == 7
    assert choice.post == PostProcess()
    assert choice.after.tolist() == choice.before.tolist()
    found, truth = soundscapes(n=12, signal=50.0)  # of rows that are right already nothing can be gained
    _, choice = chosen(found, truth, *everything)
    assert choice.before.tolist() == [1.0] * 3
    assert choice.post == PostProcess()


def at_one_place(which: str) -> tuple[Predictions, Truth]:
    """Soundscapes in which class a is heard at site S00 (or before 8 o'clock) alone, and outputs know little of it."""
    found, truth = soundscapes()
    there = np.array([site_of(n) == "S00" if which == "site" else n[-6:-4] in ("06", "07") for n in found.clip_ids])
    gone = set(found.clip_ids[~there].tolist())
    events = truth.events[~(truth.events.filename.isin(gone) & (truth.events.event_label == "a"))]
    rng, frames = np.random.default_rng(7), []
    for f in found.framewise_output:
        weak = np.repeat(1 / (1 + np.exp(2 - rng.normal(size=(12, 1)))), 5, axis=0)
        frames.append(np.concatenate([weak, f[:, 1:]], axis=1).astype(np.float32))
    # folds that share every site and every hour
    return replace(found, framewise_output=tuple(frames), fold=np.arange(48) // 24), replace(truth, events=events)


@pytest.mark.parametrize("which", ["site", "hour"])
def test_what_site_and_hour_say_is_kept_where_folds_share_them(which):
    steps, choice = chosen(*at_one_place(which), f"row_{which}")
    assert steps[f"row_{which}"].kept
    odds = choice.post.site_odds["S00"] if which == "site" else choice.post.hour_odds["6"]
    assert odds["a"] > 0.5
    assert choice.after.mean() > choice.before.mean() + 0.03


def test_a_site_that_no_other_fold_has_says_nothing():
    found, truth = at_one_place("site")
    held_out = replace(found, fold=np.array([int(site_of(n)[1:]) for n in found.clip_ids]))
    steps, choice = chosen(held_out, truth, "row_site")
    np.testing.assert_array_equal(steps["row_site"].gains, 0)
    assert choice.post == PostProcess()


def test_the_choice_travels_as_json_to_submission_and_kernel(tmp_path):
    from earshot.kernel.hidden_test import find_test
    from earshot.kernel.runner import write_submission
    from earshot.sound import audio

    found, truth = at_one_place("site")
    _, choice = chosen(found, truth, "row_smooth", "row_peak", "row_site")
    path = tmp_path / "post.json"
    write_choice(path, as_dict(choice, "birdclef2026", ["oof.npz"], "abc"))
    post = read_post(path, "birdclef2026")
    assert post == choice.post
    assert post.row_smooth
    assert post.site_odds
    folder = tmp_path / "test_soundscapes"
    folder.mkdir()
    for name in found.clip_ids[:3]:
        audio.write(folder / f"{name}.ogg", np.full(60 * 8000, 0.01, np.float32), 8000)
    test = find_test("birdclef2026", folder, CLASSES)
    three = found.take([0, 1, 2])
    write_submission(AUC, test, three, post, tmp_path / "kernel.csv")
    ours = AUC.rows(three, pd.DataFrame({"row_id": test.table.row_id}), post)
    written = pd.read_csv(tmp_path / "kernel.csv")
    assert written.row_id.tolist() == ours.row_id.tolist()
    np.testing.assert_allclose(written[list(CLASSES)], ours[list(CLASSES)], atol=1e-6)
    plain = AUC.rows(three, pd.DataFrame({"row_id": test.table.row_id}))
    assert np.abs(plain[list(CLASSES)].to_numpy() - ours[list(CLASSES)].to_numpy()).max() > 0.05


def test_steps_that_an_oof_cannot_judge_are_said():
    found, truth = soundscapes(12)
    labels = replace(truth, events=None, annotated=None)
    choice = choose_post(found, labels, AUC.oof_score, AUC.post)
    assert [s.name for s in choice.steps] == ["median_filter_seconds", "row_pool"]
    assert "not tried, no annotated recording of the OOF has rows with answers: row_smooth, row_peak" in str(choice)
    named = replace(found, clip_ids=np.array([f"soundscape_{i}" for i in range(12)]))
    events = truth.events.assign(filename=truth.events.filename.map(dict(zip(found.clip_ids, named.clip_ids))))
    choice = choose_post(named, replace(truth, events=events), AUC.oof_score, AUC.post, steps=["row_site", "row_hour"])
    assert choice.untried == {
        "row_site": "no annotated recording's name has a site", "row_hour": "no annotated recording's name has a time",
    }  # fmt: skip
    assert as_dict(choice, "birdclef2026", [], "")["untried"] == choice.untried


def test_names_that_do_not_say_their_site_are_warned_of(caplog):
    found, _ = soundscapes(3)
    post = PostProcess(row_site=1.0, site_odds={"S09": {"a": 1.0}})
    with caplog.at_level(logging.WARNING, "earshot"):
        AUC.rows(found, pd.DataFrame({"row_id": [f"{c}_5" for c in found.clip_ids]}), post)
    assert "row_site leaves 3 of 3 recordings as they are, whose names have no site that is known: T_000" in caplog.text


@pytest.mark.parametrize(("values", "message"), [
    ({"row_smooth": 0.6}, "row_smooth must lie in 0 ... 0.5, got 0.6"),
    ({"row_power": 0}, "row_power must lie in 0.1 ... 10, got 0"),
    ({"row_floor": 1.0}, "row_floor must lie in 0 ... 0.99, got 1.0"),
    ({"row_peak": -1}, "row_peak must lie in 0 ... 4, got -1"),
    ({"site_odds": {"S01": 3}}, "site_odds.S01 must be a mapping, got 3"),
    ({"row_smoth": 0.1}, "unknown key 'row_smoth'; did you mean 'row_smooth'"),
    ({"threshold_quantile": 2}, "threshold_quantile must lie in 0 ... 1, got 2"),
    ({"strict": True, "row_peak": 1}, "strict post-processing knows no row_peak"),
])  # fmt: skip
def test_what_is_no_row_step_is_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        build_post(values)


# ---- quantile thresholds of the years with a yes or no


def test_a_quantile_lets_in_the_same_share_of_every_class():
    values = np.stack([np.linspace(0, 0.1, 101), np.linspace(0.5, 1, 101)], axis=1)
    post = at_quantile(PostProcess(threshold_quantile=0.25, threshold_low=0.1), values, ("a", "b"))
    assert dict(post.class_thresholds) == {"a": pytest.approx(0.075), "b": pytest.approx(0.875)}
    assert (post.threshold_quantile, post.threshold_low) == (None, None)


def test_quantiles_are_chosen_where_classes_have_other_scales_in_every_fold():
    """Outputs of every fold have a scale of their own: no threshold does, a share of the rows does."""
    rng = np.random.default_rng(3)
    n, classes = 120, ("x", "y")
    target, fold = rng.random((n, 2)) < 0.25, np.arange(n) % 3
    odds = 6.0 * target + rng.normal(size=(n, 2)) + 3.0 * (fold[:, None] - 1)
    found = Predictions(np.arange(n).astype(str), classes, (1 / (1 + np.exp(-odds))).astype(np.float32), fold,
                        np.zeros(n, bool))  # fmt: skip
    birds = get_competition("birdclef2022")
    choice = choose_post(found, Truth(target), birds.oof_score, birds.post)
    assert choice.post.threshold_quantile in (0.1, 0.25)
    assert next(s for s in choice.steps if s.name == "threshold_quantile").kept
    assert choice.after.mean() > 0.9 > choice.before.mean()
    assert QUANTILE_ROWS.threshold_quantile


def test_rows_of_2022_take_the_quantile_of_all_rows():
    birds = get_competition("birdclef2022")
    frames = tuple(np.repeat(np.array(v, np.float32), 5)[:, None] for v in ([0.1, 0.2], [0.3, 0.4]))
    found = Predictions(np.array(["s", "t"]), ("x",), np.array([[0.2], [0.4]], np.float32), np.array([-1, -1]),
                        np.zeros(2, bool), framewise_output=frames, timebase=SECONDS)  # fmt: skip
    rows = [(f"{f}_x_{e}", f, "x", e) for f in "st" for e in (5, 10)]
    test = pd.DataFrame(rows, columns=["row_id", "file_id", "bird", "end_time"])
    said = birds.rows(found, test, {"threshold_quantile": 0.25})
    assert said.target.tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match="threshold_quantile needs the rows of all recordings"):
        get_competition("birdcall").rows(
            found, pd.DataFrame({"row_id": ["site_1_s_5"], "site": "site_1", "seconds": 5, "audio_id": "s"}),
            {"threshold_quantile": 0.25},
        )  # fmt: skip

"""Scores of machines, urban tags and events by hand: parts that other tests reach through whole evaluations only."""

import warnings

import numpy as np
import pandas as pd
import pytest

from earshot.metrics import anomalies, clips, events, urban

# ---- machines


def test_a_clip_is_scored_by_its_own_class_alone():
    p = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], np.float32)
    found = anomalies.own_class_scores(p, np.array([0, 1, 1]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [np.log(3), 0, 52 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(anomalies.own_class_scores(p, [0, 0, 0])[2], -52 * np.log(2), rtol=1e-6)
    odds = np.array([[2, -3], [0, 1]])
    assert anomalies.own_class_scores(odds, np.array([1, 0])).tolist() == [3, 0], "log odds are turned about"
    for row in ([0.5, 0.6], [1.25, -0.25], [0.3, 0.3]):  # no probabilities: they do not sum to 1, or leave 0 to 1
        assert anomalies.own_class_scores(np.array([row]), np.array([0])).tolist() == [-row[0]]
    near = np.array([[0.5, 0.5009]])
    assert anomalies.own_class_scores(near, np.array([0])).tolist() == [0], "sums may round"
    assert anomalies.own_class_scores(np.zeros((0, 2)), np.zeros(0, int)).shape == (0,)


def test_an_unseen_section_is_scored_by_the_one_of_its_machine_that_it_resembles():
    classes = np.array(["fan_00", "fan_01", "pump_00"])
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625], [0.125, 0.25, 0.625], [0.2, 0.2, 0.6]])
    own, machines = ["fan_01", "fan_02", "valve_00", "pump_00"], ["fan", "fan", "valve", "pump"]
    scores, unseen = anomalies.scores_by_section(p, classes, own, machines)
    assert unseen.tolist() == [False, True, True, False]
    expected = [np.log(3), np.log(3), np.log(0.375 / 0.625), np.log(0.4 / 0.6)]
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    nothing, unseen = anomalies.scores_by_section(np.zeros((0, 3)), classes, [], [])
    assert (nothing.shape, nothing.dtype, unseen.shape, unseen.dtype) == ((0,), float, (0,), bool)
    named = anomalies.scores_by_section(p[:1], ["fan_1", "fan", "fans_1"], ["fan_2"], ["fan"])
    assert named[0].tolist() == [pytest.approx(0.0)], "fans_1 is no section of fan, and fan none either"


def machines(**changed) -> pd.DataFrame:
    return pd.DataFrame({
        "machine": ["fan"] * 6, "section": [0, 0, 0, 0, 1, 1], "domain": ["s", "s", "t", "t", "s", "s"],
        "is_anomaly": [0, 1, 0, 1, 0, 0],
    } | changed)  # fmt: skip


def test_aucs_of_each_machine_section_and_domain():
    scores = np.array([0.1, 0.9, 0.8, 0.2, 0.3, 0.4])
    table = anomalies.auc_table(scores, machines())
    assert table.to_dict("list") == {
        "machine": ["fan"] * 3, "section": ["0", "0", "1"], "domain": ["s", "t", "s"], "n_normal": [1, 1, 2],
        "n_anomaly": [1, 1, 0], "auc": [1, 0, pytest.approx(np.nan, nan_ok=True)],
        "pauc": [1, pytest.approx(1 / 2 * (1 - 0.05 / 0.95)), pytest.approx(np.nan, nan_ok=True)],
    }  # fmt: skip
    across = anomalies.auc_table(scores, machines(), across_domains=True)
    assert across.auc.tolist()[:2] == [1, 0.5], "the normal clips of a domain against all anomalies of the section"
    assert across.n_anomaly.tolist() == [2, 2, 0]
    wide = anomalies.auc_table(scores, machines(), max_fpr=1.0)
    assert wide.pauc.tolist()[:2] == [1, 0]
    with pytest.raises(ValueError, match="^5 anomaly scores for 6 clips"):
        anomalies.auc_table(scores[:5], machines())
    means = anomalies.summary(pd.concat([table, table.assign(machine="pump", auc=0.5, pauc=0.25)]))
    assert means["undefined"] == 1
    assert (means["auc"], means["auc_fan"], means["auc_pump"]) == (0.5, 0.5, 0.5)
    assert means["auc_s"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert means["auc_t"] == pytest.approx(0.25)
    assert means["pauc_pump"] == 0.25
    assert anomalies.summary(table[table.auc.isna()]) == {"undefined": 1.0}
    half = table.iloc[:1].assign(auc=0.5, pauc=1.0)
    found = anomalies.summary(pd.concat([half, half.assign(auc=1.0, pauc=0.5)]))
    assert found["auc_harmonic"] == found["pauc_harmonic"] == found["score_harmonic"] == pytest.approx(2 / 3)


def test_which_clips_are_anomalous():
    assert anomalies.is_anomalous(machines()).tolist() == [False, True, False, True, False, False]
    assert anomalies.is_anomalous(machines(is_anomaly=["0", "1.0", "0", "0", "1", "0"])).tolist() == [
        False, True, False, False, True, False,
    ]  # fmt: skip
    said = machines().drop(columns="is_anomaly").assign(condition=["normal", "anomaly"] * 3)
    assert anomalies.is_anomalous(said).tolist() == [False, True] * 3
    for table, message in (
        (machines(is_anomaly=[0, 1, 2, 0, 0, 0]), "'is_anomaly' must be 0 or 1, got 2"),
        (machines(is_anomaly=[0, 1, None, 0, 0, 0]), "'is_anomaly' must be 0 or 1, got nan"),
        (said.assign(condition=["normal", "odd"] * 3), "'condition' must be normal or anomaly, got 'odd'"),
        (machines().drop(columns=["section", "is_anomaly"]), "need the columns section, is_anomaly in clips.csv"),
        (said.drop(columns=["machine"]), "need the columns machine in clips.csv"),
    ):
        with pytest.raises(ValueError, match=message):
            anomalies.is_anomalous(table)


@pytest.mark.parametrize(("truth", "what"), [([1, 1, 1], "anomalous"), ([0, 0, 0], "normal")])
def test_an_auc_needs_both_kinds(truth, what):
    with pytest.raises(ValueError, match=f"^all 3 clips are {what}: an AUC needs both kinds"):
        clips.auc(truth, [0.1, 0.2, 0.3])


# ---- urban tags

COLUMNS = ["1_a", "1-1_b", "1-2_c", "1-X_d", "2_e", "2-1_f"]


def test_tags_of_both_levels_and_incomplete_ones():
    assert urban.is_joint(COLUMNS)
    assert not urban.is_joint(["1_a", "2_e"])
    assert not urban.is_joint(["1-1_b", "1-X_d"])
    table = pd.DataFrame(np.arange(12).reshape(2, 6), columns=COLUMNS)
    assert list(urban.complete(table)) == ["1_a", "1-1_b", "1-2_c", "2_e", "2-1_f"]
    for name, parts in (("1_a", ("1", "")), ("12-3_b", ("12", "3")), ("1-X_d", ("1", "X"))):
        assert urban.parse_tag(name) == parts
    with pytest.raises(ValueError, match="^'engine' is no tag of SONYC-UST"):
        urban.parse_tag("engine")


def test_the_incomplete_tags_that_labels_name_are_added():
    truth = pd.DataFrame({"1_a": [1, 0, 1], "1-1_b": [0, 0, 1]}, index=[5, 6, 7])
    found = urban.with_incomplete(truth, ["1-X_d 2-X_g nocall", "", "1-1_b 1-X_d"])
    assert list(found) == ["1_a", "1-1_b", "1-X_d"], "of group 2 no fine tag is asked for"
    assert found["1-X_d"].tolist() == [1, 0, 1]
    assert found.index.tolist() == [5, 6, 7]
    assert urban.with_incomplete(found, ["", "1-X_d", ""]).equals(found), "what is there stays"
    assert list(urban.with_incomplete(truth[["1_a"]], ["1-X_d"] * 3)) == ["1_a"]


def test_coarse_truth_is_any_of_the_fine_tags_or_the_tag_itself():
    truth = pd.DataFrame(
        {"10_z": [0, 1, 0], "2_e": [1, 1, 1], "2-1_f": [0, 0, -1], "2-X_g": [0, 1, 0]}, index=[3, 4, 5]
    )
    found = urban.coarse_truth(truth)
    assert list(found) == ["2", "10"], "by number"
    assert found.to_numpy().tolist() == [[False, False], [True, True], [True, False]]
    assert found.index.tolist() == [3, 4, 5]


def test_each_level_is_evaluated_where_it_is_predicted():
    truth = pd.DataFrame({"1_a": [1, 1, 0], "1-1_b": [1, 0, 0], "1-2_c": [0, 0, 1]})
    predicted = pd.DataFrame({"1_a": [0.9, 0.8, 0.1], "1-1_b": [0.9, 0.2, 0.1], "1-2_c": [0.1, 0.2, 0.9]})
    found = urban.by_level(truth, predicted)
    assert list(found) == ["coarse", "fine"]
    assert found["fine"] == urban.evaluate(truth, predicted, "fine")
    assert found["coarse"] == urban.evaluate(truth, predicted, "coarse")
    assert (found["coarse"]["tp"], found["coarse"]["fp"], found["coarse"]["fn"]) == (1, 1, 1), "clip 2 has a fine tag"
    own = urban.by_level(truth, predicted, own_coarse=True)
    assert (own["coarse"]["tp"], own["coarse"]["fp"], own["coarse"]["fn"]) == (2, 0, 0)
    assert own["fine"] == found["fine"]
    # (0, 1) (0, 0) (0.5, 1) (1, 1): where nothing is predicted the precision is 0
    assert own["coarse"]["macro_auprc"] == 0.25 + 0.5
    assert list(urban.by_level(truth, predicted[["1_a"]])) == ["coarse"]
    assert list(urban.by_level(truth, predicted[["1-2_c"]])) == ["fine"]
    fine_only = truth[["1-1_b", "1-2_c"]]
    assert urban.by_level(fine_only, predicted[["1_a"]], True) == urban.by_level(fine_only, predicted[["1_a"]])


def test_counts_of_one_class_at_any_threshold():
    curve = urban.class_curve(np.array([[1], [0], [1]]), np.array([[0.75], [0.5], [0.005]]))
    assert curve.thresholds.tolist() == [1, 0.75, 0.5], "from 0.01 on, and 1"
    assert curve.counts(np.array([1, 0.75, 0.5, 0.001])).tolist() == [[0, 0, 2], [1, 0, 1], [1, 1, 1], [2, 1, 0]]
    assert curve.counts_from(np.array([2.0, 0.8, 0.75, 0.6, 0.1])).tolist() == [
        [0, 0, 0], [0, 0, 2], [1, 0, 1], [1, 0, 1], [1, 1, 1],
    ]  # fmt: skip
    floor = urban.class_curve(np.array([[1], [1]]), np.array([[0.01], [0.0099]]))
    assert floor.thresholds.tolist() == [1, 0.01]


@pytest.mark.parametrize(("truth", "predicted", "true_x", "predicted_x", "counts"), [
    ([1, 0], [1, 1], False, False, [1, 1, 0]), ([1, 0], [0, 1], False, False, [0, 1, 1]),
    ([1, 0], [1, 1], True, False, [1, 0, 0]), ([0, 0], [0, 1], True, False, [1, 0, 0]),
    ([0, 0], [0, 0], True, True, [1, 0, 0]), ([0, 0], [0, 0], True, False, [0, 0, 1]),
    ([1, 0], [0, 0], True, False, [0, 0, 1]), ([0, 0], [0, 0], False, True, [0, 1, 0]),
    ([0, 0], [1, 1], False, True, [0, 2, 0]), ([0, 0], [1, 0], False, True, [0, 2, 0]),
    ([1, 0], [0, 0], False, True, [0, 0, 1]), ([0, 0], [0, 0], False, False, [0, 0, 0]),
    ([1, 1], [1, 0], True, True, [1, 0, 1]),
])  # fmt: skip
def test_how_one_clip_counts(truth, predicted, true_x, predicted_x, counts):
    truth, predicted = np.array([truth], bool), np.array([predicted], bool)
    found = urban.clip_counts(truth, predicted, np.array([true_x]), np.array([predicted_x]))
    assert found.tolist() == [counts]


def test_precision_recall_and_area_by_hand():
    precision, recall = urban.precision_recall(np.array([[3, 1, 2], [0, 0, 4], [0, 0, 0], [0, 5, 0]]))
    assert precision.tolist() == [0.75, 0, 0, 0]
    assert recall.tolist() == [0.6, 0, 0, 0]
    # (0, 1) (0.5, 0.5) (1, 0.5) (1, 0)
    assert urban.auprc(np.array([0.5, 0.5]), np.array([0.5, 1.0])) == pytest.approx(0.375 + 0.25)
    assert urban.auprc(np.array([0.5, 0.5]), np.array([1.0, 0.5])) == pytest.approx(0.375 + 0.25), "sorted by recall"


def test_tables_of_tags_that_do_not_fit():
    truth = pd.DataFrame({"1_a": [1, 0]})
    for arguments, message in (
        ((truth, truth, "finest"), "level is 'finest'"), ((truth, truth[:1], "coarse"), "2 clips of truth for 1 pred"),
        ((truth[:0], truth[:0], "coarse"), "0 clips of truth"), ((truth, truth / 0, "coarse"), "no finite number"),
        ((truth, truth, "fine"), "the truth has no fine tag"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            urban.class_curves(*arguments)
    absent = urban.evaluate(truth, pd.DataFrame({"2_e": [0.5, 0.5]}))
    assert (absent["tp"], absent["fn"], absent["threshold"], absent["micro_f1"]) == (0, 1, 1.0, 0)


def test_all_values_of_an_evaluation_by_hand():
    """Class 1 is perfect, class 2 has it the wrong way round. Thresholds: 1, 0.75, 0.25."""
    truth = pd.DataFrame({"1_a": [1, 0], "2_e": [1, 0]})
    predicted = pd.DataFrame({"1_a": [0.75, 0.25], "2_e": [0.25, 0.75]})
    found = urban.evaluate(truth, predicted)
    # class 1: (0, 1) (0, 0) (1, 1) (1, 0.5) (1, 0); class 2: (0, 1) (0, 0) (0, 0) (1, 0.5) (1, 0)
    assert found["class_auprc"] == {"1": 0.5, "2": 0.25}
    assert found["macro_auprc"] == 0.375
    # TP, FP, FN of both: (0, 0, 2) (1, 1, 1) (2, 2, 0), so (R, P) = (0, 0) (0.5, 0.5) (1, 0.5)
    assert found["micro_auprc"] == 0.125 + 0.25
    assert (found["threshold"], found["tp"], found["fp"], found["fn"]) == (0.75, 1, 1, 1)
    assert (found["micro_f1"], found["n_thresholds"]) == (0.5, 3)
    # means of P: 0, 0.5, 0.5; of R: 0, 0.5, 1
    assert found["auprc_of_macro_curve"] == 0.125 + 0.25


# ---- events


def table(*rows) -> pd.DataFrame:
    return pd.DataFrame([("f", *row, "a") for row in rows], columns=events.COLUMNS)


@pytest.mark.parametrize(("found", "hits"), [((1.2, 3.0), 1), ((0.8, 3.0), 1), ((1.21, 3.0), 0), ((0.79, 3.0), 0)])
def test_an_onset_at_the_collar_is_a_hit(found, hits):
    result = events.event_based_f1(table((1.0, 3.0)), table(found), check_offset=False)
    assert result["overall"]["f_measure"]["recall"] == hits


@pytest.mark.parametrize(("end", "hits"), [(3.4, 1), (2.6, 1), (3.41, 0), (2.59, 0)])
def test_an_offset_may_be_off_by_a_fifth_of_the_event(end, hits):
    for check_onset in (True, False):
        result = events.event_based_f1(table((1.0, 3.0)), table((1.0, end)), check_onset=check_onset)
        assert result["overall"]["f_measure"]["recall"] == hits


def test_a_file_of_no_length_has_no_segments():
    one = table((0.0, 1.0))
    result = events.segment_based_f1(one, one, {"f": 2.0, "empty": 0.0})
    assert result["overall"]["f_measure"]["f_measure"] == 1
    assert result["overall"]["accuracy"]["accuracy"] == 1
    for seconds in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="the duration of empty is"):
            events.segment_based_f1(one, one, {"f": 2.0, "empty": seconds})


def test_a_class_without_true_or_found_events_warns_of_nothing():
    """It has no recall, or no precision; sed_eval's names for both."""
    true, found = table((0.0, 1.0)), table((0.0, 1.0)).assign(event_label="b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = events.event_based_f1(true, found, classes=["a", "b", "c"])["class_wise"]
    kinds = {label: result[label]["f_measure"] for label in "abc"}
    assert (kinds["a"]["recall"], kinds["b"]["precision"]) == (0, 0)
    for value in (kinds["a"]["precision"], kinds["b"]["recall"], *kinds["c"].values()):
        assert np.isnan(value)
    assert [result[c]["count"] for c in "abc"] == [
        {"Nref": 1, "Nsys": 0},
        {"Nref": 0, "Nsys": 1},
        {"Nref": 0, "Nsys": 0},
    ]
    silent = events.event_based_f1(true, found[:0], empty_system_output_handling="zero_score")
    assert silent["overall"]["f_measure"] == {"f_measure": 0, "precision": 0, "recall": 0}


def test_tables_of_events_are_named_where_they_cannot_be_scored():
    good, bad = table((0.0, 1.0)), table((0.0, 1.0)).drop(columns="offset")
    for call, name in (
        (lambda: events.merge_overlapping_events(bad), "table"),
        (lambda: events.event_based_f1(bad, good), "reference"),
        (lambda: events.event_based_f1(good, bad), "estimated"),
        (lambda: events.segment_based_f1(good, bad, None), "estimated"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} has no column \['offset'\]"):
            call()
    for rows in ([(2.0, 1.0)], [(-1.0, 1.0)], [(0.0, np.inf)], [(0.0, np.nan)]):
        with pytest.raises(ValueError, match="^what: .* needs 0 <= onset <= offset"):
            events.checked_events(table(*rows), "what")
    with pytest.raises(ValueError, match=r"^what has unknown labels \['a'\]; the classes are \['b'\]"):
        events.checked_events(good, "what", ["b"])
    with pytest.raises(ValueError, match="^what has an event without filename or label"):
        events.checked_events(good.assign(event_label=None), "what")
    assert len(events.checked_events(table((1.0, 1.0)), "what")) == 1
    assert len(events.checked_events(good.assign(onset=np.nan, offset=np.nan, event_label=None), "what")) == 0


def test_events_that_touch_or_overlap_are_one():
    rows = table((3.0, 4.0), (0.0, 2.0), (2.0, 3.0), (5.0, 9.0), (6.0, 7.0), (8.5, 10.0))
    apart = rows.assign(filename="e", event_label=list("abaaba"))
    merged = events.merge_overlapping_events(pd.concat([rows, apart]))
    assert merged[["filename", "event_label", "onset", "offset"]].values.tolist() == [
        ["e", "a", 2, 4], ["e", "a", 5, 10], ["e", "b", 0, 2], ["e", "b", 6, 7], ["f", "a", 0, 4], ["f", "a", 5, 10],
    ]  # fmt: skip


def test_a_class_that_is_nowhere_has_an_f1_of_nothing():
    assert clips.macro_f1([[1, 0], [1, 0]], [[0.9, 0.1], [0.5, 0.4]]) == 0.5
    assert clips.micro_f1([[0, 0]], [[0.1, 0.1]]) == 0
    assert clips.row_micro_f1_at([[0, 0], [1, 0]], [[0.1, 0.1], [0.9, 0.9]]) == pytest.approx((1 + 2 / 3) / 2)

"""Event-based and segment-based F1 and PSDS: by hand, against slow twins and sed_eval itself, properties."""

import warnings

import numpy as np
import pandas as pd
import pytest

from earshot.metrics import events as event_metrics
from earshot.metrics import psds as psds_metrics

LABELS = ["alarm", "dog", "water"]


def table(*rows):
    """("a", 0.0, 1.0, "dog"), ... -> a table of events."""
    return pd.DataFrame(rows, columns=event_metrics.COLUMNS)


def f1(result):
    return result["overall"]["f_measure"]["f_measure"]


def random_tables(seed, collar, files=4, events=9):
    """A reference, and an estimate of it with moved, mislabelled, missing and invented events."""
    rng = np.random.default_rng(seed)
    n = files * events
    onset = rng.uniform(0, 10, n).round(3)
    reference = pd.DataFrame({
        "filename": rng.choice([f"f{k}.wav" for k in range(files)], n),
        "onset": onset,
        "offset": (onset + rng.uniform(0.1, 3, n)).round(3),
        "event_label": np.append(LABELS, rng.choice(LABELS, n - 3)),
    })  # fmt: skip
    kept = reference.sample(frac=0.8, random_state=seed)
    moved = (kept["onset"] + rng.normal(0, collar, len(kept))).clip(0).round(3)
    estimated = pd.concat([
        kept.assign(
            onset=moved,
            offset=np.maximum(moved + 0.01, kept["offset"] + rng.normal(0, collar, len(kept))).round(3),
            event_label=kept["event_label"].where(rng.random(len(kept)) < 0.7, rng.choice(LABELS, len(kept))),
        ),
        reference.sample(5, random_state=seed + 1).assign(onset=1.0, offset=2.5),
    ]).reset_index(drop=True)  # fmt: skip
    return reference, estimated


def assert_same(ours, theirs, where=()):
    """Every number of sed_eval's nested dict is ours too; its empty groups we leave out."""
    for key, value in theirs.items():
        if isinstance(value, dict):
            assert_same(ours.get(key, {}), value, (*where, key))
        else:
            assert ours[key] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), (*where, key)


def sed_eval_result(metric, reference, estimated, files, **kwargs):
    for name in files:
        rows = [t[t["filename"] == name].to_dict("records") for t in (reference, estimated)]
        metric.evaluate(*rows, **kwargs)
    return metric.results()


@pytest.fixture(scope="module")
def sed_eval():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sed_eval")


# ---------------------------------------------------------------- event-based

REFERENCE = table(("a", 1.0, 2.0, "dog"), ("a", 3.0, 8.0, "dog"), ("b", 0.0, 1.0, "alarm"))


def test_event_based_f1_by_hand():
    estimated = table(
        ("a", 1.15, 2.15, "dog"),  # within 0.2 s at both ends
        ("a", 2.9, 7.1, "dog"),  # its offset is 0.9 s early, and 20 % of 5 s are allowed
        ("b", 0.0, 1.0, "dog"),  # wrong label: a substitution
        ("b", 5.0, 6.0, "alarm"),  # nothing there: an insertion
    )
    result = event_metrics.event_based_f1(REFERENCE, estimated)
    precision, recall = 2 / 4, 2 / 3
    assert result["overall"]["f_measure"] == pytest.approx(
        {"precision": precision, "recall": recall, "f_measure": 4 / 7}
    )
    assert result["overall"]["error_rate"] == pytest.approx(
        {"substitution_rate": 1 / 3, "deletion_rate": 0, "insertion_rate": 1 / 3, "error_rate": 2 / 3}
    )
    assert result["class_wise"]["alarm"]["f_measure"]["f_measure"] == 0
    assert result["class_wise"]["dog"]["count"] == {"Nref": 2, "Nsys": 3}
    assert result["class_wise_average"]["f_measure"]["f_measure"] == pytest.approx((0.8 + 0) / 2)


@pytest.mark.parametrize(
    ("changes", "hits"),
    [
        ({}, 1),
        ({"percentage_of_length": 0.0}, 0),
        ({"percentage_of_length": 0.0, "check_offset": False}, 1),
        ({"percentage_of_length": 0.0, "offset_collar": 1.0}, 1),
        ({"onset_collar": 0.05, "offset_collar": 1.0}, 0),
        ({"onset_collar": 0.05, "check_onset": False}, 1),
    ],
)
def test_collars(changes, hits):
    reference, estimated = table(("a", 3.0, 8.0, "dog")), table(("a", 2.9, 7.1, "dog"))
    assert f1(event_metrics.event_based_f1(reference, estimated, **changes)) == hits


def test_optimal_matching_finds_what_greedy_gives_away():
    reference = table(("a", 1.0, 2.0, "dog"), ("a", 1.3, 2.3, "dog"))
    estimated = table(("a", 1.15, 2.15, "dog"), ("a", 0.9, 1.9, "dog"))
    assert f1(event_metrics.event_based_f1(reference, estimated)) == 1
    assert f1(event_metrics.event_based_f1(reference, estimated, matching="greedy")) == 0.5


def slow_hits(reference, estimated, collar, percentage):
    """Most reference events that can have an estimated event of their own, by trying every choice."""

    def fits(ref, est):
        reach = max(collar, percentage * (ref.offset - ref.onset))
        same = (ref.filename, ref.event_label) == (est.filename, est.event_label)
        return same and abs(ref.onset - est.onset) <= collar and abs(ref.offset - est.offset) <= reach

    def most(refs, free):
        if not refs:
            return 0
        options = [1 + most(refs[1:], free - {k}) for k in free if fits(refs[0], rows[k])]
        return max([most(refs[1:], free), *options])

    rows = list(estimated.itertuples())
    return most(list(reference.itertuples()), frozenset(range(len(rows))))


@pytest.mark.parametrize("seed", range(8))
def test_hits_are_as_many_as_possible(seed):
    reference, estimated = random_tables(seed, collar=0.8, files=1, events=7)
    estimated = estimated.iloc[:6]
    result = event_metrics.event_based_f1(reference, estimated, 0.8, percentage_of_length=0.5)
    hits = slow_hits(reference, estimated, 0.8, 0.5)
    assert result["overall"]["f_measure"]["precision"] == pytest.approx(hits / 6)
    assert result["overall"]["f_measure"]["recall"] == pytest.approx(hits / 7)


@pytest.mark.parametrize(
    ("collar", "percentage", "onset", "offset"),
    [(0.2, 0.2, True, True), (1.0, 0.5, True, True), (0.5, 0.0, True, False), (0.3, 0.2, False, True)],
)
@pytest.mark.parametrize("matching", ["optimal", "greedy"])
@pytest.mark.parametrize("empty", [None, "zero_score"])
def test_events_equal_sed_eval(sed_eval, collar, percentage, onset, offset, matching, empty):
    for seed in range(3):
        reference, estimated = random_tables(seed, collar)
        if seed == 2:  # a class without any estimated event, and one without any reference event
            estimated = estimated.replace({"event_label": {"dog": "cat"}})
        theirs = sed_eval.sound_event.EventBasedMetrics(
            [*LABELS, "cat"],
            evaluate_onset=onset,
            evaluate_offset=offset,
            t_collar=collar,
            percentage_of_length=percentage,
            event_matching_type=matching,
            empty_system_output_handling=empty,
        )
        theirs = sed_eval_result(theirs, reference, estimated, sorted(set(reference["filename"])))
        ours = event_metrics.event_based_f1(
            reference,
            estimated,
            onset_collar=collar,
            percentage_of_length=percentage,
            check_onset=onset,
            check_offset=offset,
            matching=matching,
            classes=[*LABELS, "cat"],
            empty_system_output_handling=empty,
        )
        assert_same(ours, theirs)


@pytest.mark.parametrize("seed", [8, 16, 28, 30, 31])  # another order of visits gives other numbers on these
def test_substitutions_equal_sed_eval_where_several_matchings_are_largest(sed_eval, seed):
    reference, estimated = random_tables(seed, collar=2.0, files=2, events=20)
    theirs = sed_eval.sound_event.EventBasedMetrics(LABELS, evaluate_offset=False, t_collar=2.0)
    theirs = sed_eval_result(theirs, reference, estimated, ["f0.wav", "f1.wav"])
    ours = event_metrics.event_based_f1(reference, estimated, onset_collar=2.0, check_offset=False)
    assert_same(ours, theirs)


def test_no_estimated_event_is_nan_or_zero():
    nothing = REFERENCE.iloc[:0]
    assert np.isnan(f1(event_metrics.event_based_f1(REFERENCE, nothing)))
    zero = event_metrics.event_based_f1(REFERENCE, nothing, empty_system_output_handling="zero_score")
    assert f1(zero) == 0
    assert zero["class_wise_average"]["f_measure"]["f_measure"] == 0
    assert zero["overall"]["error_rate"]["deletion_rate"] == 1


def test_rows_with_a_filename_only_are_files_without_events():
    empty = table(("c", np.nan, np.nan, np.nan))
    with_empty = pd.concat([REFERENCE, empty])
    assert f1(event_metrics.event_based_f1(with_empty, with_empty)) == 1
    invented = pd.concat([REFERENCE, table(("c", 1.0, 2.0, "dog"))])
    result = event_metrics.event_based_f1(with_empty, invented)
    assert result["overall"]["f_measure"]["precision"] == pytest.approx(3 / 4)


def test_thirteen_thousand_events_of_one_file_match_themselves():
    rng = np.random.default_rng(0)
    onset = rng.uniform(0, 36000, 13_000)
    many = pd.DataFrame(
        {"filename": "a", "onset": onset, "offset": onset + 2, "event_label": rng.choice(LABELS, 13_000)}
    )
    shuffled = many.sample(frac=1, random_state=0).assign(onset=lambda t: t["onset"] + 0.1)
    assert f1(event_metrics.event_based_f1(many, shuffled)) == 1


# ---------------------------------------------------------------- segment-based


def test_segment_based_f1_by_hand():
    reference = table(("a", 0.0, 2.0, "dog"))
    estimated = table(("a", 1.5, 3.0, "dog"), ("a", 0.0, 0.5, "water"))
    result = event_metrics.segment_based_f1(reference, estimated, {"a": 4.0, "b": 1.0}, 1.0, ["dog", "water"])
    # dog: true 0 1, found 1 2; water: true none, found 0; segments 0 to 3 of a and 0 of b
    assert result["class_wise"]["dog"]["f_measure"]["f_measure"] == 0.5
    assert result["overall"]["f_measure"] == pytest.approx({"precision": 1 / 3, "recall": 0.5, "f_measure": 0.4})
    # segment 0: dog for water is a substitution; segment 2: an insertion
    assert result["overall"]["error_rate"] == pytest.approx(
        {"substitution_rate": 0.5, "deletion_rate": 0, "insertion_rate": 0.5, "error_rate": 1}
    )
    assert result["overall"]["accuracy"] == pytest.approx(
        {"accuracy": 7 / 10, "sensitivity": 1 / 2, "specificity": 6 / 8, "balanced_accuracy": 5 / 8}
    )


@pytest.mark.parametrize("segment", [1.0, 0.1])
@pytest.mark.parametrize("length", [10.0, 9.05, None])
def test_segments_equal_sed_eval(sed_eval, segment, length):
    reference, estimated = random_tables(3, 0.5)
    files = [*sorted(set(reference["filename"])), "silent.wav"]
    theirs = sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=segment)
    theirs = sed_eval_result(theirs, reference, estimated, files, evaluated_length_seconds=length)
    durations = None if length is None else dict.fromkeys(files, length)
    assert_same(event_metrics.segment_based_f1(reference, estimated, durations, segment), theirs)


def test_a_segment_is_found_in_floating_point_as_sed_eval_does():
    reference, estimated = table(("a", 0.3, 0.4, "dog")), table(("a", 0.2, 0.4, "dog"))
    result = event_metrics.segment_based_f1(reference, estimated, None, 0.1)
    assert f1(result) == 1  # 0.3 / 0.1 is 2.9999999999999996


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("reference", "estimated", "changes", "message"),
    [
        (REFERENCE.drop(columns="onset"), REFERENCE, {}, r"reference has no column \['onset'\]"),
        (REFERENCE, table(("a", 1.0, 2.0, "dgo")), {}, r"estimated has unknown labels \['dgo'\]"),
        (REFERENCE, REFERENCE, {"classes": ["dog"]}, r"reference has unknown labels \['alarm'\]"),
        (REFERENCE, table(("a", 2.0, 1.0, "dog")), {}, "needs 0 <= onset <= offset"),
        (REFERENCE, table(("a", -1.0, 1.0, "dog")), {}, "needs 0 <= onset"),
        (REFERENCE, table(("a", 1.0, np.nan, "dog")), {}, "needs 0 <= onset"),
        (REFERENCE, table(("a", 1.0, np.inf, "dog")), {}, "needs 0 <= onset"),
        (REFERENCE, table(("a", 1.0, 2.0, None)), {}, "without filename or label"),
        (REFERENCE.iloc[:0], REFERENCE, {"classes": LABELS}, "reference has no events"),
    ],
)
def test_bad_tables_are_refused(reference, estimated, changes, message):
    with pytest.raises(ValueError, match=message):
        event_metrics.event_based_f1(reference, estimated, **changes)
    with pytest.raises(ValueError, match=message):
        event_metrics.segment_based_f1(reference, estimated, {"a": 10.0, "b": 10.0}, **changes)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="both off"):
        event_metrics.event_based_f1(REFERENCE, REFERENCE, check_onset=False, check_offset=False)
    with pytest.raises(ValueError, match="unknown matching 'best'"):
        event_metrics.event_based_f1(REFERENCE, REFERENCE, matching="best")
    with pytest.raises(ValueError, match="neither may be negative"):
        event_metrics.event_based_f1(REFERENCE, REFERENCE, onset_collar=-0.2)
    with pytest.raises(ValueError, match="None or 'zero_score'"):
        event_metrics.event_based_f1(REFERENCE, REFERENCE, empty_system_output_handling="zero")
    with pytest.raises(ValueError, match=r"durations lack the files \['b'\]"):
        event_metrics.segment_based_f1(REFERENCE, REFERENCE, {"a": 10.0})
    with pytest.raises(ValueError, match="duration of b is nan"):
        event_metrics.segment_based_f1(REFERENCE, REFERENCE, {"a": 10.0, "b": np.nan})
    with pytest.raises(ValueError, match="segment_seconds is 0"):
        event_metrics.segment_based_f1(REFERENCE, REFERENCE, None, 0)


def test_a_missing_library_is_an_error_with_its_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sed_scores_eval.intersection_based", None)
    with pytest.raises(ValueError, match=r"pip install -r .*requirements/scores.txt"):
        psds_metrics.psds({}, [], REFERENCE, {}, dtc_threshold=0.5, gtc_threshold=0.5)

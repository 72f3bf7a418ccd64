"""Class lists, label texts and boxes -> targets and masks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.data.labels import clip_targets, crop_targets, encode, frame_targets, label_lists, read_classes, read_clips
from earshot.messages import suggest
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table

CLASSES = ["wren", "crow", "owl"]


def boxes(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["onset", "offset", "event_label", "is_negative"]).assign(filename="r1")


def write(path, text):
    path.write_text(text)
    return path


def test_encode_names_clip_label_and_suggestion():
    np.testing.assert_array_equal(encode("owl wren", CLASSES), [1, 0, 1])
    np.testing.assert_array_equal(encode("", CLASSES), [0, 0, 0])
    np.testing.assert_array_equal(encode(float("nan"), CLASSES), [0, 0, 0])
    with pytest.raises(
        ValueError, match="clip 'c7' has the label 'wrem', which is not in the class list; did you mean 'wren'"
    ):
        encode("owl wrem", CLASSES, "c7")


def test_clip_targets_of_primary_and_secondary_labels():
    clips = pd.DataFrame(
        {"clip_id": ["a", "b", "c"], "labels": ["wren", "crow", ""], "secondary_labels": ["crow", "crow owl", ""]}
    )
    target, mask = clip_targets(clips, CLASSES, 0.3)
    np.testing.assert_allclose(target, [[1, 0.3, 0], [0, 1, 0.3], [0, 0, 0]], rtol=1e-6)
    assert mask.min() == 1
    assert target.dtype == mask.dtype == np.float32
    target, mask = clip_targets(clips, CLASSES, -1)
    np.testing.assert_array_equal(target, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 0, 1], [1, 1, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match="clip 'b' has the label 'owl'"):
        clip_targets(clips, CLASSES[:2])
    with pytest.raises(ValueError, match="or -1 to mask, got 2"):
        clip_targets(clips, CLASSES, 2)


@given(st.lists(st.lists(st.sampled_from(CLASSES), max_size=4), min_size=1, max_size=8))
def test_clip_targets_are_the_rows_of_encode(names):
    clips = pd.DataFrame({"clip_id": [str(i) for i in range(len(names))], "labels": [" ".join(n) for n in names]})
    target, mask = clip_targets(clips, CLASSES)
    np.testing.assert_array_equal(target, [encode(text, CLASSES) for text in clips.labels])
    assert (mask == 1).all()
    assert [sorted(set(n)) for n in names] == [sorted(n) for n in label_lists(clips)]


def test_crop_targets_by_overlap():
    events = boxes((1, 3, "wren", 0), (8, 9, "crow", 0))
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 0, 5)[0], [1, 0, 0])
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 2.5, 8.5)[0], [1, 1, 0])
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 2.5, 8.5, min_overlap=0.5)[0], [0, 0, 0])
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 3, 8)[0], [0, 0, 0])  # touching is no overlap
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 3, 8)[1], [1, 1, 1])


def test_false_positive_boxes_are_negative_targets_and_mask_the_rest():
    events = boxes((4, 6, "crow", 1), (8, 9, "wren", 0))
    target, mask = crop_targets(events, CLASSES, 0, 5.5, only_annotated=True)
    np.testing.assert_array_equal(target, [0, 0, 0])
    np.testing.assert_array_equal(mask, [0, 1, 0])  # only that crow is not here
    target, mask = crop_targets(events, CLASSES, 0, 4.9, only_annotated=True)
    assert mask.sum() == 0  # the box's centre is outside: nothing is known
    target, mask = crop_targets(events, CLASSES, 0, 10, only_annotated=True)
    np.testing.assert_array_equal(target, [1, 0, 0])
    np.testing.assert_array_equal(mask, [1, 1, 0])
    np.testing.assert_array_equal(crop_targets(events, CLASSES, 0, 10)[1], [1, 1, 1])


def test_a_positive_box_wins_over_a_negative_one():
    events = boxes((4, 6, "crow", 1), (4, 5, "crow", 0))
    target, mask = crop_targets(events, CLASSES, 0, 10, only_annotated=True)
    np.testing.assert_array_equal(target, [0, 1, 0])
    np.testing.assert_array_equal(mask, [0, 1, 0])


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0.1, 3), st.sampled_from(CLASSES), st.booleans()), max_size=6),
    st.floats(0, 8),
    st.booleans(),
)
def test_crop_targets_equal_a_loop_over_boxes(rows, start, only):
    events = boxes(*((a, a + d, name, int(n)) for a, d, name, n in rows))
    target, mask = crop_targets(events, CLASSES, start, start + 2, only_annotated=only)
    for k, name in enumerate(CLASSES):
        positive = any(a < start + 2 and a + d > start and not n for a, d, c, n in rows if c == name)
        negative = any(start <= (a + a + d) / 2 < start + 2 and n for a, d, c, n in rows if c == name)
        assert target[k] == positive
        assert mask[k] == (positive or negative or not only)


def test_crop_targets_without_events_or_with_an_unknown_label():
    target, mask = crop_targets(boxes(), CLASSES, 0, 5, only_annotated=True)
    assert target.sum() == mask.sum() == 0
    with pytest.raises(ValueError, match="clip 'r1' has the label 'robin'"):
        crop_targets(boxes((0, 1, "robin", 0)), CLASSES, 0, 5)


def test_frame_targets_mark_the_frames_that_events_touch():
    base = TimeBase(100, 10)  # frames of 0.1 s
    events = boxes((1.0, 1.2, "wren", 0), (1.15, 1.3, "owl", 0), (0.0, 9.0, "crow", 1))
    target = frame_targets(events, CLASSES, 0.9, base, 5)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target.T, [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0]])
    assert frame_targets(events, CLASSES, 5.0, base, 4).sum() == 0


@given(st.integers(0, 15), st.integers(1, 8), st.integers(0, 12))
def test_frame_targets_of_whole_frames_are_exact(first, length, start):
    base = TimeBase(32000, 320, 32)
    events = boxes((float(base.seconds(first)), float(base.seconds(first + length)), "crow", 0))
    target = frame_targets(events, CLASSES, float(base.seconds(start)), base, 20)
    expected = [float(first <= t + start < first + length) for t in range(20)]
    np.testing.assert_array_equal(target[:, 1], expected)


def test_frame_targets_with_a_margin_keep_touching_events_apart():
    base = TimeBase(1000, 5)  # frames of 5 ms
    events = boxes((0.010, 0.050, "wren", 0), (0.051, 0.090, "wren", 0), (0.100, 0.104, "owl", 0))
    assert frame_targets(events, CLASSES, 0, base, 22)[2:18, 0].all()  # the pause of 1 ms is gone
    target = frame_targets(events, CLASSES, 0, base, 22, margin=0.010)
    np.testing.assert_array_equal(np.flatnonzero(target[:, 0]), [4, 5, 6, 7, 12, 13, 14, 15])
    np.testing.assert_array_equal(np.flatnonzero(target[:, 2]), [20])  # shorter than two margins: its middle stays


@given(st.lists(st.tuples(st.integers(2, 60), st.integers(0, 30)), min_size=1, max_size=6), st.integers(1, 9))
def test_frame_targets_with_a_margin_count_the_events(lengths_and_pauses, margin_ms):
    """Where events outlast two margins and a margin fills a frame, every event has a run of its own."""
    base, at, rows = TimeBase(1000, 1), 0, []
    for length, pause in lengths_and_pauses:
        rows.append((at / 1000, (at + length + 2 * margin_ms) / 1000, "wren", 0))
        at += length + 2 * margin_ms + pause
    target = frame_targets(boxes(*rows), CLASSES, 0, base, at + 1, margin_ms / 1000)[:, 0]
    assert np.sum(np.diff(target, prepend=0) == 1) == len(rows)


def test_read_classes_and_its_errors(tmp_path):
    path = tmp_path / "classes.csv"
    assert read_classes(write(path, "label\nwren\nNA\n007\n")) == ["wren", "NA", "007"]
    for text, message in (
        ("label\n", "names no class"),
        ("label\na\nb\na\n", "names a class twice: a"),
        ("label,x\na,1\n,2\n", "row 2: '' cannot be a class name"),
        ("label\nant bird\n", "row 1: 'ant bird' cannot be a class name"),
        ("labels\na\n", "no column 'label'; did you mean 'labels'"),
        ("", "is not a CSV table"),
    ):
        with pytest.raises(ValueError, match=message):
            read_classes(write(path, text))
    with pytest.raises(ValueError, match=r"clases.csv does not exist; did you mean 'classes.csv'"):
        read_classes(tmp_path / "clases.csv")


def test_tables_keep_names_as_text_and_numbers_as_numbers(tmp_path):
    path = write(tmp_path / "clips.csv", "clip_id,path,labels,fold,duration\n007,a.wav,NA,1,2.5\nnan,b.wav,,2,\n")
    clips = read_clips(path)
    assert clips.clip_id.tolist() == ["007", "nan"]
    assert clips.labels.tolist() == ["NA", ""]
    assert clips.fold.tolist() == [1, 2]
    assert clips.duration.isna().tolist() == [False, True]
    tsv = write(tmp_path / "events.tsv", "filename\tonset\tevent_label\na\t\t\n")
    assert read_table(tsv, ("onset",)).event_label.tolist() == [""]
    with pytest.raises(ValueError, match="lists 1 clip twice: x"):
        read_clips(write(path, "clip_id,path\nx,1\nx,2\n"))
    with pytest.raises(ValueError, match=r"no column 'path'; its columns: clip_id$"):
        read_clips(write(path, "clip_id\nx\n"))


def test_a_missing_folder_says_what_makes_it(tmp_path):
    with pytest.raises(ValueError, match=r"nor does its folder: data/<name>/ is made by src/prepare.py"):
        read_table(tmp_path / "data" / "nothing" / "clips.csv")


def test_suggest_lists_every_name_once_whether_one_is_near_or_not():
    names = ["onnx", "openvino"]
    assert suggest("onx", names) == "; did you mean 'onnx'?"
    assert suggest("onx", names, "it has") == "; did you mean 'onnx'? (it has: onnx, openvino)"
    assert suggest("zzz", names, "it has") == "; it has: onnx, openvino"
    assert suggest("zzz", [], "it has") == "; it has: (none)"

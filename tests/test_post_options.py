"""PostProcess and its YAML: ranges, types, and what errors say."""

import numpy as np
import pytest

from earshot.events import PostProcess, build_post, load_post


def test_post_process_checks_its_sense():
    for values, message in [
        ({"threshold": 1.5}, "threshold must lie in 0 ... 1, got 1.5"),
        ({"class_thresholds": {"a": -1}}, "class_thresholds.a must lie"),
        ({"threshold": 0.4, "threshold_low": 0.5}, "swap them"),
        ({"class_thresholds": {"a": 0.2}, "threshold_low": 0.3}, "swap them"),
        ({"min_seconds": -0.1}, "min_seconds must be 0 or more"),
        ({"strict": True, "min_seconds": 0.2, "per_class": True}, "knows no min_seconds, per_class"),
    ]:
        with pytest.raises(ValueError, match=message):
            PostProcess(**values)


def test_post_process_takes_the_ends_of_its_ranges():
    for name in ("threshold", "clip_threshold", "iou_threshold"):
        assert [getattr(PostProcess(**{name: v}), name) for v in (0, 1)] == [0, 1]
    assert PostProcess(threshold=0.4, threshold_low=0.4).threshold_low == 0.4
    assert PostProcess(strict=True, threshold=0.3, iou_threshold=0.2, row_pool="mean").strict
    for values, message in [
        ({"threshold_low": -0.1}, "threshold_low must lie in 0 ... 1, got -0.1"),
        ({"clip_threshold": 1.1}, "clip_threshold must lie"),
        ({"iou_threshold": -1}, "iou_threshold must lie"),
        ({"median_filter_seconds": np.inf}, "median_filter_seconds must be 0 or more seconds, got inf"),
        ({"max_gap_seconds": np.inf}, "max_gap_seconds must be"),
        ({"min_seconds": np.inf}, "min_seconds must be"),
        ({"row_pool": "means"}, "row_pool is 'means'; did you mean 'mean'"),
        ({"strict": True, "class_thresholds": {"a": 0.5}}, "knows no class_thresholds: leave"),
    ]:
        with pytest.raises(ValueError, match=message):
            PostProcess(**values)


def test_options_without_a_file_are_checked_alike():
    assert build_post({"row_pool": "mean", "class_thresholds": None, "iou_threshold": None, "strict": False}) == (
        PostProcess(row_pool="mean", iou_threshold=None)
    )
    assert build_post({"clip_threshold": None, "class_thresholds": {7: "5e-1"}}).class_thresholds == {"7": 0.5}
    with pytest.raises(ValueError, match="the post-processing options: unknown key 'min_second'; did you mean 'min_s"):
        build_post({"min_second": 1})
    with pytest.raises(ValueError, match="the post-processing options: per_class must be true or false, got 'yes'"):
        build_post({"per_class": "yes"})
    with pytest.raises(ValueError, match="here: class_thresholds.a must be a number, got None"):
        build_post({"class_thresholds": {"a": None}}, "here")
    with pytest.raises(ValueError, match="here: class_thresholds must be a mapping, got 3"):
        build_post({"class_thresholds": 3}, "here")


def test_load_post(tmp_path):
    path = tmp_path / "post.yaml"
    path.write_text("threshold: 4e-1\nthreshold_low: null\nclass_thresholds: {amber: 0.6}\nper_class: true\n")
    assert load_post(path) == PostProcess(threshold=0.4, class_thresholds={"amber": 0.6}, per_class=True)
    path.write_text("")
    assert load_post(path) == PostProcess()
    for text, message in [
        ("treshold: 0.5", "unknown key 'treshold'; did you mean 'threshold'"),
        ("threshold: high", "post.yaml: threshold must be a number, got 'high'"),
        ("threshold: true", "must be a number, got True"),
        ("min_seconds: null", "must be a number, got None"),
        ("strict: 1", "must be true or false"),
        ("class_thresholds: 0.5", "class_thresholds must be a mapping, got 0.5"),
        ("class_thresholds: {a: b}", "class_thresholds.a must be a number"),
        ("- 1", "must hold 'key: value' lines, got a list"),
        ("a: [", "not valid YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_post(path)
    with pytest.raises(ValueError, match=r"did you mean 'post\.yaml'"):
        load_post(tmp_path / "pots.yaml")

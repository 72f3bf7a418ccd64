"""The JSON in which chosen post-processing travels: what it holds, and how it is read back."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import bundle
from earshot.competitions import get_competition
from earshot.ensemble import choice
from earshot.ensemble.post_processing import PostChoice, Step
from earshot.events import PostProcess
from earshot.kaggle.bundling import BundleSettings


def chosen(**changed) -> PostChoice:
    values = {
        "post": PostProcess(threshold=0.25, class_thresholds={"a": 0.5}), "start": PostProcess(threshold=0.5),
        "score_name": "f1", "steps": [Step("threshold", [0.25, 0.5], 0.25, np.array([0.1, 0.3])),
                                Step("min_seconds", [0.1], 0.0, np.zeros(0), always=True)],
        "before": np.array([0.5, 0.75]), "after": np.array([0.75, 1.0]), "fitted": np.float64(0.9),
        "n_clips": 6, "folds": [0, 1],
        "parts": "2 folds", "untried": {"row_pool": "no frames"},
    }  # fmt: skip
    return PostChoice(**{**values, **changed})


def test_a_choice_as_json(tmp_path):
    about = choice.as_dict(chosen(), "synth", [Path("runs/a"), "oof.npz"], "c0ffee")
    path = tmp_path / "new" / "post.json"
    choice.write_choice(str(path), about)
    text = path.read_text()
    assert text.startswith('{\n "post"')
    assert text.endswith("}\n")
    assert json.loads(text) == about
    assert {k: v for k, v in about.items() if k not in ("post", "start", "steps")} == {
        "competition": "synth", "score": "f1", "fitted": 0.9, "untried": {"row_pool": "no frames"}, "commit": "c0ffee",
        "oof": {"of": ["runs/a", "oof.npz"], "clips": 6, "folds": [0, 1], "parts": "2 folds"},
        "nested": {"before": [0.5, 0.75], "after": [0.75, 1.0], "mean_before": 0.625, "mean_after": 0.875},
    }  # fmt: skip
    assert about["start"] == choice.fields_of(PostProcess(threshold=0.5))
    assert (about["post"]["threshold"], about["post"]["class_thresholds"]) == (0.25, {"a": 0.5})
    first, second = about["steps"]
    assert first == {"name": "threshold", "tried": [0.25, 0.5], "value": 0.25, "gains": [0.1, 0.3], "kept": True,
                     "mean": pytest.approx(0.2), "deviation": pytest.approx(0.1)}  # fmt: skip
    assert second == {"name": "min_seconds", "tried": [0.1], "value": 0.0, "gains": [], "kept": True, "mean": None,
                      "deviation": None}  # fmt: skip
    assert choice.read_post(path) == chosen().post
    assert choice.read_post(str(path), "synth") == chosen().post
    nothing = choice.as_dict(chosen(before=np.zeros(0), after=np.zeros(0)), "synth", [], "")["nested"]
    assert nothing == {"before": [], "after": [], "mean_before": None, "mean_after": None}
    choice.write_choice(path, {"post": {}, "competition": "x", "score": "s"})  # again, into a folder that is there
    assert choice.read_post(path) == PostProcess()


def test_odds_of_sites_and_hours_travel_as_plain_tables():
    from types import MappingProxyType as Read

    post = PostProcess(site_odds=Read({"s": Read({"a": 0.5})}), hour_odds=Read({"7": Read({"b": -1.0})}),
                       class_thresholds=Read({"a": 0.25}))  # fmt: skip
    found = choice.fields_of(post)
    assert (found["site_odds"], found["hour_odds"]) == ({"s": {"a": 0.5}}, {"7": {"b": -1.0}})
    assert found["class_thresholds"] == {"a": 0.25}
    assert all(type(found[k]) is dict for k in ("site_odds", "hour_odds", "class_thresholds"))
    json.dumps(found)


def test_post_processing_is_read_from_yaml_a_choice_or_an_ensemble(tmp_path):
    plain, made, ensemble = (tmp_path / name for name in ("p.yaml", "c.json", "e.json"))
    plain.write_text("threshold: 0.25\n")
    assert choice.read_post(str(plain)) == PostProcess(threshold=0.25)
    about = {"post": {"threshold": 0.75}, "competition": "synth", "score": "f1"}
    made.write_text(json.dumps(about))
    ensemble.write_text(json.dumps({"runs": [], "post_processing": about}))
    for path in (made, ensemble):
        assert choice.read_post(path, "synth") == choice.read_post(path) == PostProcess(threshold=0.75)
        with pytest.raises(ValueError, match=f"^{path} was chosen for synth, not for birdcall"):
            choice.read_post(path, "birdcall")
    ensemble.write_text(json.dumps(about | {"post_processing": None}))
    assert choice.read_post(ensemble) == PostProcess(threshold=0.75)
    made.write_text("[]")
    with pytest.raises(ValueError, match=f"post-processing {made} must hold .*submit.py --tune-on and ensemble.py"):
        choice.read_post(made)


@pytest.mark.parametrize(("about", "said"), [
    ([1], r"no post, competition, score\)"),
    ({}, r"no post, competition, score\)"),
    ({"post": {}, "score": "s"}, r"no competition\)"),
    ({"post": 3, "competition": "c", "score": "s"}, r"no fields in post\)"),
])  # fmt: skip
def test_a_file_that_is_no_choice_says_what_it_lacks(about, said):
    with pytest.raises(ValueError, match=f"^here holds no choice of post-processing \\({said}"):
        choice.post_of(about, "here")


def test_an_unknown_field_of_a_choice_names_the_file():
    with pytest.raises(ValueError, match=r"here: unknown key 'treshold'; did you mean 'threshold'"):
        choice.post_of({"post": {"treshold": 1}, "competition": "c", "score": "s"}, "here", "c")


def test_what_is_used_and_what_lies_unused_is_said(tmp_path):
    said = partial(choice.say_used, "synth", root=tmp_path)
    assert said(has_steps=True, used=None) == "post-processing: the competition's default"
    assert said(has_steps=True, used="post.yaml") == "post-processing of post.yaml"
    assert said(has_steps=False, used=None) == "no post-processing: the rows are scores"
    tuned = tmp_path / "submissions" / "mine_post.json"
    choice.write_choice(tuned, choice.as_dict(chosen(), "synth", [], ""))
    choice.write_choice(tmp_path / "runs/ensembles/other_post.json", choice.as_dict(chosen(), "birdcall", [], ""))
    (tmp_path / "submissions" / "torn_post.json").write_text("{")
    expected = f"post-processing: the competition's default; chosen before and not used: {tuned} (--post FILE)"
    assert said(has_steps=True, used=None) == expected
    assert "not used" not in said(has_steps=True, used=tuned)


def test_a_bundle_says_which_post_processing_it_uses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    choice.write_choice("submissions/synth_post.json", choice.as_dict(chosen(), "synth", [], ""))
    plain = BundleSettings(runs=(), competition="synth", slug="user/a-kernel")
    bundle.print_post(plain, tmp_path)
    assert "not used: submissions/synth_post.json (--post FILE)" in capsys.readouterr().out
    (tmp_path / "post.json").touch()
    for given in ("post", "blend"):
        bundle.print_post(replace(plain, **{given: Path("chosen.json")}), tmp_path)
        assert capsys.readouterr().out == "post-processing of chosen.json\n"


@pytest.mark.parametrize(
    ("competition", "post", "lost"),
    [
        ("synth", {"threshold": 0.3, "row_smooth": 0.1}, "sets row_smooth, and the rows of synth are made of events"),
        (
            "birdclef2026",
            {"median_filter_seconds": 1, "min_seconds": 1},
            "sets min_seconds, .* are probabilities: leave",
        ),
        ("sonyc_ust", {"coarse_from": "fine", "threshold": 0.4}, "sets threshold, .* are scores as they are"),
        ("rfcx", {"threshold": 0.4}, "sets threshold, and the rows of rfcx are scores as they are"),
    ],
)
def test_steps_that_make_no_difference_to_the_rows_are_refused(tmp_path, competition, post, lost):
    record, path = get_competition(competition), tmp_path / "mine.yaml"
    path.write_text(json.dumps(post))
    with pytest.raises(ValueError, match=f"mine.yaml {lost}"):
        choice.post_for(path, record)
    used = dict(list(post.items())[:1]) if competition != "rfcx" else {}
    path.write_text(json.dumps(used))
    assert choice.post_for(path, record) == PostProcess(**used)
    assert choice.post_for(None, record) is None

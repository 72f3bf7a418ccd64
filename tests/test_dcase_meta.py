"""<label>.meta.yaml of a DCASE system: what is filled in, what is asked for, and what a check says of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from earshot.augment.batch import BatchAugment
from earshot.competitions import dcase_meta, get_competition
from earshot.config import load_config
from earshot.config.sections import AugmentConfig
from earshot.ensemble.system import about_system, augmentation_of, meta_of, network_macs
from earshot.runs import load_run

COMPETITION = get_competition("dcase2022_task1")
KNOWN = {
    "input_sampling_rate": 44.1, "machine_learning_method": "separable_cnn", "ensemble_method_subsystem_count": 1,
    "total_model_size": 75.562, "total_parameters": 75_178, "total_parameters_non_zero": 75_178, "macs": 26_218_752,
}  # fmt: skip
RESULTS = {"overall": {"accuracy": 60.3, "logloss": 1.295}}
LABEL = "Muster_TUX_task1_1"


def filled(values):
    """What an author fills in, in place of every FILL IN."""
    if isinstance(values, dict):
        return {key: filled(value) for key, value in values.items()}
    if isinstance(values, list):
        return [filled(value) for value in values]
    return "ours" if isinstance(values, str) and dcase_meta.FILL_IN in values else values


def problems(folder, change=lambda values: None, label=LABEL, fill=filled):
    values = fill(yaml.safe_load(dcase_meta.make_meta(COMPETITION.challenge, LABEL, KNOWN, RESULTS)))
    change(values)
    path = folder / f"{label}.meta.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return dcase_meta.meta_problems(path, COMPETITION)


def test_what_is_known_stands_there_and_what_is_not_is_asked_for(tmp_path):
    values = yaml.safe_load(dcase_meta.make_meta(COMPETITION.challenge, LABEL, KNOWN, RESULTS))
    assert values["submission"]["label"] == LABEL
    assert values["system"]["complexity"]["total_parameters"] == 75_178
    assert values["results"]["development_dataset"] == RESULTS
    assert values["submission"]["authors"][0]["lastname"].startswith("FILL IN")
    (said,) = problems(tmp_path, fill=lambda values: values)
    assert "values say FILL IN: submission.name" in said


def test_a_filled_in_file_is_valid(tmp_path):
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("system.complexity.total_model_size", 300.7, "is 300.7, dcase2022_task1 allows 128"),
        ("system.complexity.macs", 40_000_000, "macs is 40,000,000, dcase2022_task1 allows 30,000,000"),
        ("system.complexity.total_parameters", "75 k", "total_parameters is '75 k', expected a whole number"),
        ("submission.label", "Other_TUX_task1_1", "submission.label is Other_TUX_task1_1, the file's name says"),
        ("submission.abbreviation", "much_too_long", "has more than 10 characters"),
        ("submission.authors", [], "is no list of authors"),
        ("results.development_dataset.overall.accuracy", "60 %", "accuracy is '60 %', expected a number"),
        ("system.complexity", None, "it has no block system.complexity"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, place, value, said):
    def change(values):
        *blocks, name = place.split(".")
        for block in blocks:
            values = values[block]
        values[name] = value

    assert any(said in one for one in problems(tmp_path, change))


@pytest.mark.parametrize("label", ["Muster_task1_1", "Muster_TUX_task1_5", "Muster_TUX_task2_1", "../x_TUX_task1_1"])
def test_a_label_that_is_none_is_refused(label):
    with pytest.raises(ValueError, match="the label .* is not <last name>_<institute>_task1_<1 to 4>"):
        dcase_meta.label_of(COMPETITION.challenge, label)
    assert dcase_meta.label_of(COMPETITION.challenge, LABEL) == LABEL
    with pytest.raises(ValueError, match="this competition has no labels"):
        dcase_meta.label_of(None, LABEL)


def test_what_a_trained_run_says_of_itself(trained):
    run = load_run(next(trained.glob("runs/*/*")))
    known = about_system([run, run], int8=False, mean="mean")
    assert known["ensemble_method_subsystem_count"] == 2 * len(run.folds)
    assert known["total_parameters"] == 2 * sum(fold.about["parameters"] for fold in run.folds)
    assert known["total_model_size"] == round(4 * known["total_parameters"] / 1000, 3)
    assert known["total_parameters_non_zero"] <= known["total_parameters"]
    assert known["macs"] == 2 * len(run.folds) * network_macs(run)
    assert "decision_making" not in about_system([replace(run, folds=run.folds[:1])], int8=False, mean="mean")
    often = about_system([replace(run, folds=run.folds[:1])], int8=False, mean="mean", hearings=8)
    assert often["decision_making"] == "mean of 1 network, 8 hearings of a clip each, macs are of one"
    folds = about_system([replace(run, folds=[*run.folds] * 3)], int8=False, mean="mean")
    assert (folds["ensemble_method_subsystem_count"], folds["macs"]) == (3, 3 * network_macs(run))


def test_augmentation_is_named_as_in_the_config():
    augment = load_config(Path(__file__).parents[1] / "configs/scenes/dcase2022_separable.yaml").augment
    assert augmentation_of(augment) == ["spec_augment_pp", "roll"]
    assert augmentation_of(replace(augment, spec_augment_pp={}, batch=BatchAugment(mixup_on="logmel"))) == ["mixup"]
    assert augmentation_of(AugmentConfig()) == []


def test_predictions_of_nobodys_run_leave_the_figures_to_their_author(tmp_path):
    text, said = meta_of(COMPETITION.challenge, LABEL, tmp_path / "test.npz")
    assert said.startswith(f"{LABEL}: no figures of the system: ")
    assert yaml.safe_load(text)["system"]["complexity"]["macs"].startswith("FILL IN")

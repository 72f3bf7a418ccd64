"""DCASE task 1, acoustic scenes: TAU Urban Acoustic Scenes 2019, 2020 Mobile, 2022 Mobile; ten scenes.

EDITIONS, below, says what a year asks for. 2019: subtask A, one device; 2020: subtask A, several devices; 2021 on:
small networks. TAU 2020 Mobile is the data of 2020 and 2021, TAU 2022 Mobile (1-s clips) of 2022 to 2024.

Download: meta.csv (`filename, scene_label, identifier, source_label`), audio/, evaluation_setup/fold1_train.csv and
fold1_evaluate.csv (`filename, scene_label`), fold1_test.csv (`filename`), all tab-separated. A file is
<scene>-<city>-<location>-<segment>[-<second>]-<device>.wav. The official split is kept: fold 0 is fold1_evaluate, the
clips of fold1_train always train (fold -1), clips in neither are left out and counted. `group` is the identifier (city
and location), `device` and `city` are from the file name. A clip of the split that meta.csv lacks is read from its
name, with a warning. 2024 trains on a share of the clips: `subset` 5, 10, 25, 50 or 100 per cent, listed in
split<subset>.csv (`filename`), which the year's baseline loads into split_setup; 2025 on 25 per cent. `evaluation`:
folder of the evaluation set, whose evaluation_setup/fold1_test.csv, test.csv or meta.csv is then the test, with the
`device_id` of 2025 as `device`; else fold1_test is, which the OOF answers.

Submission: `filename, scene_label` and from 2020 on a probability a scene. The challenge's own file has tabs, in 2019
no header (as remembered; compare with the task's page). A system of 2024 hands in one a training split
(<label>.output.split_5.csv to split_100.csv) and one meta file. 2025 wants its inference code too, which is not made
here; what a network would make of the device is its author's: none here hears it. Score: class-mean accuracy, log loss
over clips and as the mean over scenes, each device's class-mean accuracy; the first is the one that the year ranked by.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.checks import column_problems, id_problems, label_problems, number_problems, refuse
from earshot.competitions.clip_rows import class_scores
from earshot.competitions.competition import Challenge, Competition, Limits, by_name
from earshot.competitions.downloads import found_below, inner_folder, list_audio, located, root_of
from earshot.competitions.label_texts import check_labelled
from earshot.competitions.oof_scores import scenes, shares
from earshot.competitions.tables import Tables, absent, present
from earshot.messages import few, suggest
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.stored import read_text
from earshot.tables import read_table, require_columns, require_rows

META = ("filename", "scene_label", "identifier", "source_label")
SUBSETS = (5, 10, 25, 50, 100)
TEST_COLUMNS = ("clip_id", "filename")  # of the test table

logger = logging.getLogger("earshot")


@found_below("meta.csv", "evaluation_setup/fold1_train.csv")
def prepare(source: Path, subset: int = 100, evaluation: str | None = None) -> Tables:
    """Download folder -> clips in the official split, ten classes, the test; see the module's docstring."""
    source = Path(source)
    meta = read_tsv(source / "meta.csv", META).drop_duplicates("filename")
    check_labelled(meta.filename, meta.scene_label, "meta.csv")
    clips = located(_clips(source, meta, subset), source)
    classes = sorted(set(meta.scene_label))
    if lost := sorted(set(clips.labels) - set(classes)):
        raise ValueError(f"the split names the scene '{lost[0]}', which meta.csv lacks{suggest(lost[0], classes)}")
    missing, clips = absent(clips, source), present(clips, source, "evaluation_setup")
    test, test_clips, truth = _test(source, clips, evaluation)
    if test_clips is not None:
        missing += absent(test_clips, source)
    return Tables(
        clips=clips, classes=classes, test_clips=test_clips, test=test, truth=truth, missing=missing, task="scenes"
    )


def read_tsv(path: Path, columns) -> pd.DataFrame:
    """A tab-separated .csv as DCASE has them (copies: with commas), every cell as text."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; is --source the folder that holds meta.csv and evaluation_setup?")
    table = read_table(path, columns, all_text=True)
    require_rows(table, path)
    return table


def from_name(filename: str) -> dict[str, str]:
    """Read scene, city, identifier and device off a name such as 'audio/tram-lyon-1163-44730-3-s2.wav'; '' where it has
    none."""
    parts = Path(filename).stem.split("-")
    if len(parts) < 5:
        return {"scene": "", "city": "", "identifier": Path(filename).stem, "device": ""}
    return {"scene": parts[0], "city": parts[1], "identifier": f"{parts[1]}-{parts[2]}", "device": parts[-1]}


def _clips(source: Path, meta: pd.DataFrame, subset: int) -> pd.DataFrame:
    """The split's lists and meta.csv -> clips with official_fold."""
    train = _train_list(source, subset)
    held_out = read_tsv(source / "evaluation_setup" / "fold1_evaluate.csv", ("filename",))
    if both := sorted(set(train) & set(held_out.filename)):
        raise ValueError(f"{len(both)} clips are both in fold1_train and in fold1_evaluate: {few(both)}")
    files = pd.Series([*train, *held_out.filename], name="filename").drop_duplicates(ignore_index=True)
    known = meta.set_index("filename")
    if lost := [f for f in files if f not in known.index]:
        logger.warning("meta.csv lacks %d clips of the split, read from their names: %s", len(lost), few(lost))
    if unused := len(set(known.index) - set(files)):
        logger.warning("%d clips of meta.csv are in no list of the split and are left out", unused)
    there = {f"audio/{path.name}" for path in list_audio(source / inner_folder(source, "audio"))}
    if stray := sorted(there - set(known.index) - set(files)):
        logger.warning(
            "%d recordings are in neither meta.csv nor the split and are left out: %s", len(stray), few(stray)
        )
    named = pd.DataFrame([from_name(f) for f in files])
    found = known.reindex(files).reset_index(drop=True)
    return pd.DataFrame({
        "clip_id": [Path(f).stem for f in files], "path": files, "filename": files, "device": named.device,
        "labels": found.scene_label.fillna(named.scene), "group": found.identifier.fillna(named.identifier),
        "official_fold": np.where(files.isin(set(held_out.filename)), 0, -1), "city": named.city,
    })  # fmt: skip


def _train_list(source: Path, subset: int) -> list[str]:
    if subset not in SUBSETS:
        raise ValueError(f"subset is {subset!r}: choose one of {', '.join(map(str, SUBSETS))} per cent")
    places = [source / folder / f"split{subset}.csv" for folder in ("evaluation_setup", "split_setup")]
    path = next((p for p in places if p.is_file()), None)
    if path is None and subset == 100:
        path = source / "evaluation_setup" / "fold1_train.csv"
    elif path is None:
        raise ValueError(f"{places[0]} does not exist (nor in {places[1].parent}): it lists {subset} % of the clips")
    return read_tsv(path, ("filename",)).filename.drop_duplicates().tolist()


def _test(source: Path, clips: pd.DataFrame, evaluation: str | None):
    """(test: filename, clip_id; test_clips or None; truth or None)."""
    if evaluation is None:
        held_out = clips[clips.official_fold == 0]
        listed = source / "evaluation_setup" / "fold1_test.csv"
        if listed.is_file():
            held_out = held_out[held_out.filename.isin(set(read_tsv(listed, ("filename",)).filename))]
        truth = held_out[["filename", "labels", "device", "city"]].rename(columns={"labels": "scene_label"})
        return held_out[["filename", "clip_id"]].reset_index(drop=True), None, truth.reset_index(drop=True)
    folder = root_of(Path(evaluation).resolve(), ("evaluation_setup",))
    names = ("evaluation_setup/fold1_test.csv", "evaluation_setup/test.csv", "meta.csv")
    path = next((p for p in (folder / n for n in names) if p.is_file()), None)
    if path is None:
        raise ValueError(f"{folder} holds none of {', '.join(names)}")
    listed = read_tsv(path, ("filename",)).drop_duplicates("filename", ignore_index=True)
    files, stems = listed.filename, pd.Series([Path(f).stem for f in listed.filename])
    devices = {"device": listed.device_id} if "device_id" in listed else {}
    inside = located(pd.DataFrame({"clip_id": stems, "path": files} | devices), folder)
    test_clips = inside.assign(path=[str(folder / f) for f in inside.path])
    return pd.DataFrame({"filename": files, "clip_id": stems}), test_clips, None


# ---- submission


def rows(predictions: Predictions, test: pd.DataFrame, post=None, probabilities: bool = True) -> pd.DataFrame:
    """Predictions -> `filename, scene_label` (the best scene) and their probabilities; `post` is not used.

    Probabilities are made to sum to one, as a mean of models or a sigmoid may not.
    """
    require_columns(test, TEST_COLUMNS, "the test table")
    scores = class_scores(predictions, test.clip_id, predictions.classes, "clips")
    labels = np.array(predictions.classes)[scores.argmax(axis=1)]
    table = pd.DataFrame({"filename": test.filename.to_numpy(), "scene_label": labels})
    if not probabilities:
        return table
    return pd.concat([table, pd.DataFrame(shares(scores), columns=list(predictions.classes))], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes, probabilities: bool = True):
    """Raise unless every clip of `test` has a row, in its order, with a known scene and probabilities that sum to 1."""
    require_columns(test, TEST_COLUMNS, "the test table")
    columns = ["filename", "scene_label", *(classes if probabilities else ())]
    problems = column_problems(submission, columns)
    if "filename" in submission:
        problems += id_problems(submission.filename, test.filename, "filename")
    if "scene_label" in submission:
        problems += label_problems(submission.scene_label, classes, "scene_label")
    if probabilities:
        problems += number_problems(submission, classes, 0, 1)
        if not problems:
            total = submission[list(classes)].to_numpy(float).sum(axis=1)
            if (off := np.abs(total - 1) > 1e-3).any():
                problems.append(f"probabilities sum to {total[off][0]:.4g}, not 1, in {off.sum()} rows")
    refuse(problems)


def files(submission: pd.DataFrame, label: str, header: bool = True, part: str = "") -> dict[str, str]:
    """The challenge's own file: tab-separated; part: of a system with several, such as split_5."""
    name = f"{label}.output.{part}.csv" if part else f"{label}.output.csv"
    return {name: submission.to_csv(sep="\t", index=False, header=header, lineterminator="\n")}


def read_files(paths: Sequence[Path], test: pd.DataFrame, header: bool = True) -> pd.DataFrame:
    """The inverse of `files`: an output file of any name."""
    if len(paths) != 1:
        raise ValueError(f"a system has one output file of task 1, got {len(paths)}: {few(p.name for p in paths)}")
    names = None if header else ["filename", "scene_label"]
    text = io.StringIO(read_text(paths[0], "output"))
    return pd.read_csv(text, sep="\t", header=0 if header else None, names=names, dtype={"filename": str})


def score(submission: pd.DataFrame, truth: pd.DataFrame, first: str = "class_mean_accuracy") -> dict[str, float]:
    """Scores of a submission, `first` in front; `truth`: `filename, scene_label` and, where known, `device`.

    A scene that the truth lacks is left out of the mean over scenes; so is it within a device.
    """
    require_columns(truth, ("filename", "scene_label"), "the truth")
    problems = id_problems(submission.filename.sort_values(), sorted(truth.filename.astype(str)), "filename")
    if problems:
        raise ValueError("the submission does not answer the clips of this truth: " + "; ".join(problems))
    truth = truth.set_index("filename").loc[submission.filename]
    classes = sorted({*truth.scene_label, *submission.scene_label, *submission.columns[2:]})
    true, said = (
        pd.Categorical(s, classes).codes[:, None] == np.arange(len(classes))
        for s in (truth.scene_label, submission.scene_label)
    )
    result = {"class_mean_accuracy": float(clip_metrics.class_mean_accuracy(true, said.astype(float)))}
    result["accuracy"] = clip_metrics.accuracy(true, said.astype(float))
    if len(submission.columns) > 2:
        given = submission.reindex(columns=classes, fill_value=0).to_numpy(float)
        result["log_loss"] = clip_metrics.log_loss(true, given)
        by_scene = [clip_metrics.log_loss(true[rows], given[rows]) for rows in true.T if rows.any()]
        result["class_mean_log_loss"] = float(np.mean(by_scene))
    for device in sorted(set(truth.device) - {""}) if "device" in truth else ():
        at = (truth.device == device).to_numpy()
        result[f"class_mean_accuracy_{device}"] = float(
            clip_metrics.class_mean_accuracy(true[at], said[at].astype(float))
        )
    return {first: result[first]} | result


def results(found: Predictions, truth: Truth) -> dict:
    """Accuracy (per cent, mean over scenes) and log loss of an OOF: overall, of each scene, of each device."""
    scenes_of, target = np.array(found.classes), truth.target > 0.5
    classes = {c: target[:, k] for k, c in enumerate(found.classes) if target[:, k].any()}
    devices = truth.clips.device.fillna("").astype(str).to_numpy() if "device" in truth.clips else scenes_of[:0]
    by_device = {d: devices == d for d in sorted({*devices} - {""})}
    given = shares(found.clipwise_output.astype(float))

    def of(rows: np.ndarray) -> dict[str, float]:
        accuracy = float(clip_metrics.class_mean_accuracy(target[rows], given[rows]))
        return {
            "accuracy": round(100 * accuracy, 2),
            "logloss": round(clip_metrics.log_loss(target[rows], given[rows]), 4),
        }

    return {
        "overall": of(np.ones(len(target), bool)),
        "class_wise": {c: of(rows) for c, rows in classes.items()},
        "device_wise": {d: of(rows) for d, rows in by_device.items()},
    }


# ---- the editions


def _edition(year: int, first: str = "class_mean_accuracy", limits: Limits | None = None, **other) -> Competition:
    """The challenge of a year: `first` ranked it; `other`: what it did differently."""
    scored = partial(score, first=first)
    shared = {"prepare": prepare, "rows": rows, "validate": validate, "challenge": challenge_of(year)}
    return Competition(
        name=f"dcase{year}_task1", task="scenes", score=scored, oof_score=scenes(first),
        limits=limits or Limits(), **(shared | other),
    )  # fmt: skip


def challenge_of(year: int) -> Challenge:
    """Fields of the meta file as the published validators of 2020 and 2024 ask; 2021: as a team's file has them; of
    2019, 2022, 2023 and 2025 none was at hand: the years beside them."""
    header = year > 2019
    small, energy, size = year > 2020, year > 2022, "total_model_size" if year > 2021 else "model_size"
    return Challenge(
        task="task1a" if 2017 < year < 2022 else "task1", own=r".+\.output(\.split_\d+)?\.csv",
        parts=tuple(f"split_{share}" for share in SUBSETS) if year == 2024 else (),
        files=partial(files, header=header), read_files=partial(read_files, header=header), results=results,
        description=(
            "input_sampling_rate", "acoustic_features", "embeddings", "data_augmentation", "machine_learning_method",
            "ensemble_method_subsystem_count", "decision_making", "external_data_usage",
            *(("complexity_management", "pipeline", "framework") if small else ()),
        ),
        complexity=(
            *((size,) if small else ()), "total_parameters",
            *(("total_parameters_non_zero",) if small else ()), *(("memory_use",) if energy else ()),
            *(("macs",) if year > 2021 else ()),
        ),
        more=(*(("energy_consumption",) if energy else ()), "external_datasets", "source_code"),
    )  # fmt: skip


LABELS_ALONE = {"rows": partial(rows, probabilities=False), "validate": partial(validate, probabilities=False)}
EDITIONS = by_name(*[
    _edition(2019, **LABELS_ALONE),
    _edition(2020),
    _edition(2021, "log_loss", Limits(parameters_kb=128)),
    _edition(2022, "log_loss", Limits(parameters_kb=128, mmacs=30)),
    _edition(2023, limits=Limits(parameters_kb=128, mmacs=30)),
    _edition(2024, limits=Limits(parameters_kb=128, mmacs=30)),
    _edition(2025, limits=Limits(parameters_kb=128, mmacs=30), prepare=partial(prepare, subset=25)),
])  # fmt: skip
EDITIONS |= {f"tau{year}": EDITIONS[f"dcase{year}_task1"] for year in (2019, 2020, 2022)}

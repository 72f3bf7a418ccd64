"""DCASE task 2, anomalous sounds of machines, 2020 to 2025: normal clips to train on, an anomaly score a test clip.

EDITIONS, below, says how a year scores. 2020: six machines, ids 00 to 06; 2021: seven, sections 00 to 05, source and
target tested apart; 2022: the domains mixed in the test; 2023: first shot, other machines in the evaluation, one
section each; 2024: some machines without attributes; 2025: supplemental/ too (the machine alone, or noise), left out.

Download: <machine>/train/*.wav and <machine>/test/*.wav (2021: source_test and target_test), in any folder below the
source, so that development and evaluation data can lie beside each other; attributes_<section>.csv (`file_name, d1p,
d1v, ...`). What a clip is stands in its name:

    normal_id_00_00000000.wav, anomaly_id_02_00000005.wav, id_01_00000003.wav          2020 (an id is a section)
    section_00_source_train_normal_0000_strength_1_ambient.wav                         2021 on
    section_00_target_test_anomaly_0004_car_A2.wav, section_03_source_test_0007.wav, section_00_0001.wav

Classes are the sections of each machine that have training clips, such as fan_section_00: models learn to tell them
apart. Train clips always train (fold -1); test clips whose condition is known are fold 0, so that their AUC can be
watched; the others are test_clips. A machine or section with test clips and without training clips is no class: its
clips, known or not, are test_clips, and a warning says so. Anomalous clips among the training ones are left out, with
a warning. The test is the clips of unknown condition, or, without any, those of known one (the OOF answers it).
The organisers' ground_truth_*.csv, where they lie below the source, give the truth of the test, which stays the test.

Submission: `machine, part, filename, score, decision` (1 = anomaly); `files` are the challenge's own, without header:
anomaly_score_<machine>_<part>.csv and decision_result_<machine>_<part>.csv, part being section_00_test, in 2021
section_00_source_test, in 2020 id_00 (no decisions that year). dcase_task2_scores.py scores.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.checks import column_problems, id_problems, name_problems, number_problems, refuse
from earshot.competitions.competition import Challenge, Competition, OofScore, by_name
from earshot.competitions.dcase_task2_scores import clip_keys, oof_values, results, score
from earshot.competitions.tables import Tables
from earshot.messages import few
from earshot.metrics import anomalies as anomaly_metrics
from earshot.prediction.predictions import Predictions
from earshot.sound.folder import list_recordings
from earshot.stored import read_text
from earshot.tables import read_rows, read_table, require_columns

FOLDERS = ("train", "test", "source_test", "target_test")
NAME_2020 = re.compile(r"(?:(?P<condition>normal|anomaly)_)?(?P<section>id_\d+)_(?P<number>\d+)$")
NAME = re.compile(
    r"(?P<section>section_\d+)(?:_(?P<domain>source|target))?(?:_(?:train|test))?"
    r"(?:_(?P<condition>normal|anomaly))?_(?P<number>\d+)(?:_(?P<attributes>.+))?$"
)
SCORE_FILE = re.compile(
    r"(anomaly_score|decision_result)_(.+?)_((?:id|section)_\d+(?:_(?:source|target))?(?:_test)?)\.csv$"
)
TRUTH_FILE = re.compile(r"ground_truth_(.+?)_(?:id|section)_\d+(?:_(?:source|target))?_test\.csv$")
SECTION = re.compile(r"(.+)_((?:id|section)_\d+)$")  # of a class: its machine and section

logger = logging.getLogger("earshot")


def prepare(source: Path) -> Tables:
    """Download folder -> clips (training and known test clips), sections as classes, the test; see above."""
    source = Path(source)
    clips = scan(source)
    is_train = (clips.split == "train").to_numpy()
    wrong = is_train & (clips.is_anomaly == 1).to_numpy()
    if wrong.any():
        logger.warning("%d anomalous clips lie among the training clips and are left out: %s", wrong.sum(),
                       few(clips.clip_id[wrong]))  # fmt: skip
        clips, is_train = clips[~wrong].reset_index(drop=True), is_train[~wrong]
    if not is_train.any():
        raise ValueError(f"{source} has no training clip in any <machine>/train/; is --source the unzipped download?")
    classes = sorted(set(clips.labels[is_train]))
    unseen = ~clips.labels.isin(classes).to_numpy()
    if unseen.any():
        names = clips.labels[unseen].value_counts(sort=False)
        logger.warning("%d sections have test clips and no training clip; they are no classes: %s", len(names),
                       few([f"{name} ({n})" for name, n in names.items()]))  # fmt: skip
    known = clips.is_anomaly.notna().to_numpy()
    inside = is_train | (known & ~unseen)
    test_clips = clips[~inside].assign(labels="").reset_index(drop=True)
    trained = clips[inside].reset_index(drop=True)
    trained["official_fold"] = np.where(trained.split == "train", -1, 0)
    scored = clips[~is_train & (known if known[~is_train].all() else ~known)].reset_index(drop=True)
    columns = ["clip_id", "machine", "part", "filename", "section", "domain"]
    answers = _with_truth(scored, ground_truth(source))
    truth = answers[[*columns, "is_anomaly"]].astype({"is_anomaly": int}) if answers.is_anomaly.notna().all() else None
    return Tables(
        clips=trained, classes=classes, test_clips=test_clips if len(test_clips) else None, task="asd",
        test=scored[columns] if len(scored) else None, truth=truth if len(scored) else None,
    )  # fmt: skip


def _with_truth(test: pd.DataFrame, known: Mapping[tuple[str, str], tuple[int, str]]) -> pd.DataFrame:
    """Clips of the test -> the same with condition and domain, where `ground_truth` knows them."""
    if not known:
        return test
    keys = list(zip(test.machine, map(_stem, test.filename), strict=True))
    said = [known.get(key) for key in keys]
    if lost := [f"{machine} {name}" for (machine, name), one in zip(keys, said, strict=True) if one is None]:
        logger.warning("the ground truth lacks %d of %d test clips: %s", len(lost), len(test), few(lost))
    condition = [own if one is None else one[0] for own, one in zip(test.is_anomaly, said, strict=True)]
    domain = [own or (one[1] if one else "") for own, one in zip(test.domain, said, strict=True)]
    return test.assign(is_anomaly=pd.array(condition, "Int64"), domain=domain)


def scan(source: Path) -> pd.DataFrame:
    """Every wav in a <machine>/{train,test,...}/ below `source` -> what its name, folder and attribute file say."""
    found, odd, elsewhere = [], [], []
    for path in sorted(list_recordings(source).files, key=lambda p: (len(p.parts), p)):
        if path.suffix.lower() != ".wav" or path.parent.name not in FOLDERS:
            elsewhere.append(path.relative_to(source).as_posix())
            continue
        said = parse_name(path.name, path.parent.name)
        if said is None:
            odd.append(path.relative_to(source).as_posix())
        else:
            found.append({"machine": _machine(path), "path": path.relative_to(source).as_posix()} | said)
    if odd:
        logger.warning("%d files are not named as DCASE names them and are left out: %s", len(odd), few(odd))
    if elsewhere and found:
        logger.warning("%d recordings are no .wav in a <machine>/%s and are left out: %s", len(elsewhere),
                       "/, ".join((*FOLDERS[:-1], f"or {FOLDERS[-1]}/")), few(elsewhere))  # fmt: skip
    if not found:
        raise ValueError(f"{source} has no <machine>/train/*.wav; is --source the unzipped download of DCASE task 2?")
    clips = pd.DataFrame(found)
    clips.insert(0, "clip_id", [_clip_id(m, p) for m, p in zip(clips.machine, clips.path, strict=True)])
    twice = clips.clip_id.duplicated()
    if twice.any():
        logger.warning("%d recordings lie there twice and count once: %s", twice.sum(), few(clips.path[twice]))
        clips = clips[~twice].reset_index(drop=True)
    clips.insert(2, "labels", clips.machine + "_" + clips.section)
    listed = attribute_files(source)
    described = clips.machine.isin({machine for machine, _ in listed})
    keys = list(zip(clips.machine, map(_stem, clips.filename), strict=True))
    unlisted = np.array([key not in listed for key in keys])
    silent = described & unlisted & (clips.split == "train")
    if silent.any():
        logger.warning("%d training clips are in no attribute file; what their names say is kept: %s", silent.sum(),
                       few(clips.clip_id[silent]))  # fmt: skip
    clips["attributes"] = [listed.get(key, said) for key, said in zip(keys, clips.attributes, strict=True)]
    return clips.astype({"is_anomaly": "Int64"}).sort_values(["machine", "part", "filename"], ignore_index=True)


def _machine(path: Path) -> str:
    """The folder above train/, test/, ..., of which copies have one inside another."""
    return next(folder.name for folder in path.parents if folder.name not in FOLDERS)


def _clip_id(machine: str, path: str) -> str:
    """Machine and file name, and the folder where the name does not say train or test (2020 uses a name for both)."""
    folder, name = path.split("/")[-2], _stem(path)
    return f"{machine}_{name}" if folder in name else f"{machine}_{folder}_{name}"


def parse_name(filename: str, folder: str) -> dict | None:
    """File name and folder -> filename, section, domain, split, part, is_anomaly (None: unknown), attributes."""
    stem = Path(filename).stem
    match = NAME_2020.match(stem) or NAME.match(stem)
    if not match:
        return None
    said = match.groupdict()
    in_folder = folder.removesuffix("_test") if folder in ("source_test", "target_test") else ""
    domain = said.get("domain") or in_folder
    is_2020 = said["section"].startswith("id_")
    part = said["section"] if is_2020 else f"{said['section']}_{in_folder + '_' if in_folder else ''}test"
    condition = "normal" if folder == "train" and not said["condition"] else said["condition"]
    return {
        "filename": filename, "section": said["section"], "domain": domain or "",
        "split": "train" if folder == "train" else "test", "part": part,
        "is_anomaly": None if condition is None else int(condition == "anomaly"),
        "attributes": _pairs((said.get("attributes") or "").split("_")),
    }  # fmt: skip


def _pairs(words: list[str]) -> str:
    """['car', 'A2', 'spd', '28V'] -> 'car=A2 spd=28V'; an odd number of words stays as it is; 'noAttribute' is none."""
    words = [w for w in words if w not in ("", "noAttribute")]
    if len(words) % 2:
        return "_".join(words)
    return " ".join(f"{k}={v}" for k, v in zip(words[::2], words[1::2], strict=True))


def attribute_files(source: Path) -> dict[tuple[str, str], str]:
    """attributes_*.csv of every machine -> {(machine, file name without ending): 'speed=31V load=2'}.

    Some tables list files with their folders and endings, others (ToyDrone's) without.
    """
    listed = {}
    for path in sorted(source.rglob("attributes_*.csv")):
        table = read_table(path, ("file_name",)).fillna("")
        values = [c for c in table.columns if c != "file_name"]
        for name, row in zip(table.file_name, table[values].astype(str).to_numpy(), strict=True):
            listed[path.parent.name, _stem(str(name))] = _pairs(list(row))
    return listed


def _stem(name: str) -> str:
    """A file's name without its folders and without the ending .wav, in any case."""
    name = name.strip().replace("\\", "/").rpartition("/")[2]
    return name[: -len(".wav")] if name.lower().endswith(".wav") else name


def ground_truth(source: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """ground_truth_<machine>_section_<s>[_<domain>]_test.csv -> {(machine, file name): (is_anomaly, domain or '')}.

    The organisers publish them after a challenge, without header: `file name, 0 or 1` in 2021, then
    `file name, the name that says condition and domain`, in 2024 with a third column.
    """
    known = {}
    for path in sorted(source.rglob("ground_truth_*_test.csv")):
        if not (match := TRUTH_FILE.match(path.name)):
            continue
        for row in read_rows(path):
            if len(row) < 2:
                raise ValueError(f"{path.name}: a row needs a file's name and what it is, got '{row[0]}'")
            name, said = row[:2]
            full = parse_name(f"{_stem(said)}.wav", "test")
            condition = int(said) if said.strip() in ("0", "1") else full and full["is_anomaly"]
            if condition is None:
                raise ValueError(f"{path.name}: '{said}' of {name} says neither normal nor anomaly")
            known[match[1], _stem(name)] = (condition, (full or {}).get("domain", ""))
    return known


# ---- submission


def rows(
    predictions: Predictions, test: pd.DataFrame, post: Mapping | None = None, decisions: bool = True
) -> pd.DataFrame:
    """Predictions -> `machine, part, filename, score, decision`, in the order of `test`; scores by `anomaly_scores`.

    Decisions are score > threshold: that of `post={"thresholds": {"fan_section_00": 3.1, ...}}`, else the predictions'
    own (src/score_anomalies.py fits them on training scores), else the section's median, half of the clips being
    anomalous in these tests. A clip without score gets the mean of its section, else of its machine, else of all, with
    a warning.
    """
    place = {str(c): i for i, c in enumerate(predictions.clip_ids)}
    scores = np.where(predictions.unreadable, np.nan, anomaly_scores(predictions, test))
    found = np.array([scores[place[c]] if c in place else np.nan for c in test.clip_id.astype(str)])
    lost = ~np.isfinite(found)
    if lost.all():
        raise ValueError("no clip of the test has an anomaly score, so there is nothing to submit")
    require_columns(test, ("machine", "part", "filename"), "the test table")
    table = test[["machine", "part", "filename"]].assign(score=np.where(lost, np.nan, found)).reset_index(drop=True)
    if lost.any():
        logger.warning("%d of %d clips have no anomaly score and get the mean of their section: %s", lost.sum(),
                       len(test), few(test.clip_id[lost]))  # fmt: skip
    for keys in (["machine", "part"], ["machine"]):
        table["score"] = table.score.fillna(table.groupby(keys).score.transform("mean"))
    table["score"] = table.score.fillna(table.score.mean())
    if not decisions:
        return table
    own = None
    if predictions.threshold is not None:
        own = np.array([predictions.threshold[place[c]] if c in place else np.nan for c in test.clip_id.astype(str)])
    return with_decisions(table, test, post.get("thresholds", {}) if isinstance(post, Mapping) else {}, own)


def anomaly_scores(predictions: Predictions, test: pd.DataFrame) -> np.ndarray:
    """Anomaly scores of the predicted clips, (N,): `predictions.score`, else how unsure the network is of the section.

    A clip of a section that training never saw is scored by the section that it resembles most: of its machine where
    training had another section of that, else of all. A warning names such sections.
    """
    if predictions.score is not None:
        return predictions.score.astype(np.float64)
    if not any(SECTION.match(str(c)) for c in predictions.classes):
        raise ValueError("these predictions have no anomaly score: predict with a run of the task asd")
    place = {str(c): i for i, c in enumerate(predictions.clip_ids)}
    asked = test[test.clip_id.astype(str).isin(place)]
    index = np.array([place[str(c)] for c in asked.clip_id], dtype=int)
    own = (asked.machine.astype(str) + "_" + asked.section.astype(str)).to_numpy()
    scores = np.full(len(predictions), np.nan)
    scores[index], unseen = anomaly_metrics.scores_by_section(
        predictions.clipwise_output[index], predictions.classes, own, asked.machine.astype(str)
    )
    if said := anomaly_metrics.unseen_sections(own, unseen):
        logger.warning(said)
    return scores


def with_decisions(
    table: pd.DataFrame, test: pd.DataFrame, thresholds: Mapping[str, float], own: np.ndarray | None = None
) -> pd.DataFrame:
    """Submission -> the same with `decision`: score > threshold of the section, else > the clip's `own` (N,), else >
    the section's median."""
    labels = (test.machine + "_" + test.section).reset_index(drop=True)
    limit = labels.map(dict(thresholds)).astype(float)
    if own is not None:
        limit = limit.fillna(pd.Series(own, index=limit.index))
    if (none := limit.isna()).any():
        logger.warning(
            "%d of %d clips have no threshold from training scores, so that the upper half of their section's test is "
            "decided to be anomalous: %s; src/score_anomalies.py fits thresholds, src/predict.py then finds them",
            none.sum(), len(table), few(labels[none].unique()),
        )  # fmt: skip
    limit = limit.fillna(table.score.groupby(labels).transform("median"))
    return table.assign(decision=(table.score > limit).astype(int))


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes=(), decisions: bool = True):
    """Raise unless every clip of `test` has one row, in its order, with a finite score and a decision of 0 or 1."""
    require_columns(test, ("machine", "part", "filename"), "the test table")
    columns = ["machine", "part", "filename", "score", *(["decision"] if decisions else [])]
    problems = column_problems(submission, columns)
    if {"machine", "part", "filename"} <= set(submission.columns):
        problems += id_problems(clip_keys(submission), clip_keys(test), "clips")
    problems += number_problems(submission, ["score"])
    if decisions and "decision" in submission:
        wrong = ~pd.to_numeric(submission.decision, errors="coerce").isin((0, 1))
        if wrong.any():
            problems.append(f"decision is neither 0 nor 1 in {wrong.sum()} rows: {few(submission.decision[wrong])}")
    refuse(problems)


def files(submission: pd.DataFrame, label: str = "") -> dict[str, str]:
    """The challenge's own files: `filename,score` and `filename,decision` of a machine and part, without header."""
    texts = {}
    for (machine, part), table in submission.groupby(["machine", "part"], sort=True):
        for name, column in (("anomaly_score", "score"), ("decision_result", "decision")):
            if column in table:
                text = table[["filename", column]].to_csv(index=False, header=False, lineterminator="\n")
                texts[f"{name}_{machine}_{part}.csv"] = text
    return texts


def read_files(paths: Sequence[Path], test: pd.DataFrame, decisions: bool = True) -> pd.DataFrame:
    """The inverse of `files`: all files of a system -> the submission, in the order of `test`.

    Files of no machine and part of the test, and files that are missing, are one error that names them.
    """
    answer = test[["machine", "part", "filename"]].assign(score=0.0, **({"decision": 0} if decisions else {}))
    wanted, given = set(files(answer)), {p.name for p in paths}
    refuse(name_problems(wanted, given, "are missing", "are of no machine and part of the test"))
    problems = []
    found: dict[str, list[pd.DataFrame]] = {"anomaly_score": [], "decision_result": []}
    for path in sorted(paths):
        match = SCORE_FILE.match(path.name)
        value = "score" if match[1] == "anomaly_score" else "decision"
        text = io.StringIO(read_text(path, "file"))
        table = pd.read_csv(text, header=None, names=["filename", value], dtype={"filename": str})
        if len(twice := table.filename[table.filename.duplicated()].unique()):
            problems.append(f"{path.name} names {few(twice)} twice")
        found[match[1]].append(table.assign(machine=match[2], part=match[3]))
    refuse(problems)
    columns = ["machine", "part", "filename", "score"]
    table = pd.concat(found["anomaly_score"], ignore_index=True)[columns]
    if found["decision_result"]:
        decided = pd.concat(found["decision_result"], ignore_index=True)
        table = table.merge(decided, on=["machine", "part", "filename"], how="outer")
        whole = table.decision.notna().all() and pd.api.types.is_numeric_dtype(table.decision)
        table = table.astype({"decision": int}) if whole and (table.decision % 1 == 0).all() else table
    place = {key: i for i, key in enumerate(clip_keys(test))}
    order = clip_keys(table).map(place).fillna(len(place))  # each file is in any order of its own
    return table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


# ---- the editions


def _edition(year: int, mode: str, decisions: bool = True) -> Competition:
    """The challenge of a year, scored as `mode` says."""
    challenge = Challenge(
        task="task2", own=SCORE_FILE.pattern, joined=True, files=files,
        read_files=partial(read_files, decisions=decisions), results=partial(results, mode=mode),
        description=(
            "input_channels", "input_sampling_rate", "data_augmentation", "front_end", "acoustic_features",
            "embeddings", "machine_learning_method", "aggregation_method", "ensemble_method_subsystem_count",
            "decision_making", "external_data_usage",
        ),
        complexity=("total_parameters", *(("macs",) if year > 2021 else ())),
    )  # fmt: skip
    return Competition(
        name=f"dcase{year}_task2", task="asd", prepare=prepare, rows=partial(rows, decisions=decisions),
        validate=partial(validate, decisions=decisions), score=partial(score, mode=mode), challenge=challenge,
        oof_score=OofScore("official", partial(oof_values, mode=mode)),
    )  # fmt: skip


EDITIONS = by_name(
    _edition(2020, "plain", decisions=False),
    _edition(2021, "domain"),
    _edition(2022, "shared"),
    _edition(2023, "shared"),
    _edition(2024, "shared"),
    _edition(2025, "shared"),
)

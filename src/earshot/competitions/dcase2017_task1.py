"""DCASE 2017 task 1, acoustic scenes: TUT Acoustic Scenes 2017, fifteen scenes, 10-s stereo clips, four official folds.

Download: audio/, meta.txt (recording, scene, identifier) and evaluation_setup/fold1_train.txt (recording, scene),
fold1_test.txt (recording), fold1_evaluate.txt (recording, scene) to fold4_...; all tab-separated, without a header. A
recording is <identifier>_<start>_<end>.wav: segments of one identifier were cut from one recording, so that it is
the `group`. Fold k holds out fold<k>_evaluate (fold<k>_test where that is not there) and trains on the rest; what a
train list lacks of the rest is counted in a warning. Clips in no list are left out, and counted.
`evaluation`: folder of the evaluation set, whose test.txt is then the test (and evaluate.txt, where it is there, the
truth); else the clips of the four folds are, which the OOF answers.

Scenes keep their published names (`cafe/restaurant`). Submission and score are those of 2019: recording and scene,
class-mean accuracy. The official baseline is printed with 78.4 (Zhang, Zou and Li 2020).
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.dcase_task1 import LABELS_ALONE, challenge_of, score
from earshot.competitions.downloads import found_below, located, root_of
from earshot.competitions.oof_scores import scenes
from earshot.competitions.tables import Tables, absent, class_name, present
from earshot.messages import few
from earshot.tables import read_rows

FOLDS = (1, 2, 3, 4)
META = ("filename", "scene_label", "identifier")

logger = logging.getLogger("earshot")


@found_below("meta.txt", "evaluation_setup/fold1_train.txt")
def prepare(source: Path, evaluation: str | None = None) -> Tables:
    """Download folder -> clips in the official folds, their scenes, the test; see the module's docstring."""
    source = Path(source)
    meta = _read_list(source / "meta.txt", META).drop_duplicates("filename").set_index("filename")
    clips = located(_clips(meta, _held_out(source)), source)
    classes = sorted(set(clips.labels))
    missing, clips = absent(clips, source), present(clips, source, "evaluation_setup")
    if evaluation is None:
        test = clips[["filename", "clip_id"]]
        truth = clips[["filename", "labels"]].rename(columns={"labels": "scene_label"})
        return Tables(clips=clips, classes=classes, test=test, truth=truth, missing=missing, task="scenes")
    test, test_clips, truth, lost = _evaluation_set(Path(evaluation))
    return Tables(
        clips=clips,
        classes=classes,
        test_clips=test_clips,
        test=test,
        truth=truth,
        missing=(*missing, *lost),
        task="scenes",
    )


def _read_list(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table without a header -> its first columns by these names, as text; a row that lacks one is an error."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; is --source the folder that holds meta.txt and evaluation_setup?")
    rows = read_rows(path)
    if short := [row for row in rows if len(row) < len(columns)]:
        raise ValueError(f"{path}: a row needs {', '.join(columns)}, got '{' '.join(short[0])}'")
    table = pd.DataFrame([row[: len(columns)] for row in rows], columns=list(columns))
    return table.assign(scene_label=table.scene_label.map(class_name)) if "scene_label" in columns else table


def _held_out(source: Path) -> pd.DataFrame:
    """The lists of evaluation_setup -> `filename, scene_label` ('' where no list says it), `official_fold` 1 to 4."""
    folder, parts = source / "evaluation_setup", []
    for fold in FOLDS:
        labelled = folder / f"fold{fold}_evaluate.txt"
        if labelled.is_file():
            parts.append(_read_list(labelled, META[:2]).assign(official_fold=fold))
        else:
            held = _read_list(folder / f"fold{fold}_test.txt", META[:1])
            parts.append(held.assign(scene_label="", official_fold=fold))
    held = pd.concat(parts).drop_duplicates(["filename", "official_fold"], ignore_index=True)
    if twice := sorted(held.filename[held.filename.duplicated()]):
        raise ValueError(f"{folder}: {len(twice)} clips are held out in two folds: {few(twice)}")
    for fold in FOLDS:
        _check_train_list(folder / f"fold{fold}_train.txt", held, fold)
    return held


def _check_train_list(path: Path, held: pd.DataFrame, fold: int):
    """Error where a clip trains in the fold that holds it out; a warning of what the published list leaves out."""
    train = set(_read_list(path, META[:2]).filename)
    if both := sorted(train & set(held.filename[held.official_fold == fold])):
        raise ValueError(f"{path.name} lists {len(both)} clips that fold {fold} holds out: {few(both)}")
    if rest := sorted(set(held.filename[held.official_fold != fold]) - train):
        logger.warning("%s lacks %d clips of the other folds, which train here: %s", path.name, len(rest), few(rest))


def _clips(meta: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    if lost := [f for f in held.filename if f not in meta.index]:
        logger.warning("meta.txt lacks %d clips of the folds, read from the lists: %s", len(lost), few(lost))
    if unused := sorted(set(meta.index) - set(held.filename)):
        logger.warning("%d clips of meta.txt are in no fold and are left out: %s", len(unused), few(unused))
    stems = pd.Series([Path(f).stem for f in held.filename])
    found = meta.reindex(held.filename).reset_index(drop=True)
    labels = found.scene_label.fillna(held.scene_label)
    if unknown := sorted(held.filename[labels == ""]):
        raise ValueError(f"neither meta.txt nor the lists name the scene of {len(unknown)} clips: {few(unknown)}")
    return pd.DataFrame({
        "clip_id": stems, "path": held.filename, "filename": held.filename, "labels": labels,
        "group": found.identifier.fillna(stems.str.split("_").str[0]), "official_fold": held.official_fold,
    })  # fmt: skip


def _evaluation_set(folder: Path):
    """The evaluation set's folder -> test, test_clips, truth (None: unknown), absent files."""
    folder = root_of(folder.resolve(), ("evaluation_setup",))
    setup = folder / "evaluation_setup"
    truth = _read_list(setup / "evaluate.txt", META[:2]) if (setup / "evaluate.txt").is_file() else None
    listed = _read_list(setup / "test.txt", META[:1]) if truth is None else truth
    files = listed.filename.drop_duplicates(ignore_index=True)
    stems = pd.Series([Path(f).stem for f in files])
    inside = located(pd.DataFrame({"clip_id": stems, "path": files}), folder)
    test_clips = inside.assign(path=[str(folder / f) for f in inside.path])
    return pd.DataFrame({"filename": files, "clip_id": stems}), test_clips, truth, absent(test_clips, folder)


EDITIONS = by_name(
    Competition(
        name="dcase2017_task1",
        task="scenes",
        prepare=prepare,
        score=score,
        oof_score=scenes("class_mean_accuracy"),
        challenge=challenge_of(2017),
        **LABELS_ALONE,
    )
)
EDITIONS["tut2017"] = EDITIONS["dcase2017_task1"]

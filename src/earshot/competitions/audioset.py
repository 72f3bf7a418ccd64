"""AudioSet: 527 sound classes of 10-s clips, several labels each; official training and evaluation lists; mAP.

Source: one folder that holds, at any depth, the lists as published (`balanced_train_segments.csv`,
`unbalanced_train_segments.csv`, `eval_segments.csv`, `class_labels_indices.csv`) and the audio in either form:

- files whose name without its ending is Y<id> or <id>, optionally followed by _<start> or _<start>_<end> (seconds), in
  any format and any subfolder, such as `audios/eval_segments/Y<id>.wav`;
- HDF5 files as PANNs pack them, with datasets `audio_name` and `waveform`; rows of them become `FILE.h5#ROW`. A clip
  that is there both ways is taken as a file.

Clips that are gone from the web are in missing.csv. The evaluation clips are fold 0, the training clips in no fold. A
class is called by its display name without spaces; classes.csv has the machine identifier (`mid`) beside it.
`audioset_balanced` trains on the balanced list (22,160 clips) alone.
"""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.oof_scores import MAP
from earshot.competitions.tables import Tables, check_submission, class_name, require_columns
from earshot.data.folds import TRAIN_ONLY
from earshot.data.labels import clip_targets
from earshot.files import walk
from earshot.messages import few, plural, suggest
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.sound.audio import EXTENSIONS
from earshot.tables import check_table, find_encoding, read_table

LISTS = {"balanced": "balanced_train_segments", "unbalanced": "unbalanced_train_segments", "eval": "eval_segments"}
LABELS = "class_labels_indices.csv"
FORM = 'YTID, start_seconds, end_seconds, "mid,mid,..."'
SPAN = re.compile(r"_\d+(?:\.\d+)?(?:_\d+(?:\.\d+)?)?$")  # what download tools append: start, or start and end
TEST_COLUMNS = ("clip_id",)  # of the test table


def prepare(source: Path, subset: str = "full") -> Tables:
    """Download folder -> clips with `official_fold` 0 (evaluation) or -1; subset="balanced": the small list only."""
    if subset not in ("full", "balanced"):
        raise ValueError(f"unknown subset '{subset}'{suggest(subset, ('full', 'balanced'))}")
    files = list_files(Path(source))
    classes = read_labels(Path(source) / _listed_once(files, LABELS, source))
    parts = [p for p in LISTS if p != "unbalanced" or subset == "full"]
    lists = [read_segments(Path(source) / _listed_once(files, f"{LISTS[p]}.csv", source)).assign(part=p) for p in parts]
    clips = pd.concat(lists, ignore_index=True)
    clips["labels"] = label_texts(clips.mids, dict(zip(classes.mid, classes.label)))
    clips["official_fold"] = np.where(clips.part == "eval", 0, TRAIN_ONLY)
    clips["path"] = clips.clip_id.map(find_audio(Path(source), files, clips.clip_id))
    there = clips.path.notna()
    if not there.any():
        raise ValueError(
            f"{source} holds no audio of the {len(clips)} clips of its lists: neither a file such as "
            f"audios/{LISTS['eval']}/Y{clips.clip_id.iloc[-1]}.wav nor HDF5 with 'audio_name' and 'waveform'"
        )
    gone = clips[~there]
    expected = "audios/" + gone.part.map(LISTS) + "/Y" + gone.clip_id + ".wav"
    clips = clips.loc[there, ["clip_id", "path", "labels", "official_fold", "part", "start_seconds"]]
    clips = clips.reset_index(drop=True)
    evaluation = clips.loc[clips.part == "eval", ["clip_id", "labels"]].reset_index(drop=True)
    return Tables(
        clips=clips, classes=classes.label.tolist(), test=evaluation[["clip_id"]], truth=evaluation,
        missing=tuple(zip(gone.clip_id, expected, strict=True)), task="tagging", class_columns=classes[["mid", "name"]],
    )  # fmt: skip


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions of the evaluation clips -> `clip_id` and a column a class, in the order of `test`; `post` unused."""
    require_columns(test, TEST_COLUMNS, "the test table")
    found = predictions.aligned(test.clip_id)
    table = pd.DataFrame(found.clipwise_output, columns=list(found.classes))
    return pd.concat([test[["clip_id"]].reset_index(drop=True), table], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has one row, in its order, with a finite number for every class."""
    require_columns(test, TEST_COLUMNS, "the test table")
    check_submission(submission, ("clip_id", *classes), test.clip_id, numbers=list(classes))


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """`map`, `macro_auc` and `d_prime` of a submission; `truth` has `clip_id, labels`, in any order."""
    require_columns(truth, ("clip_id", "labels"), "the truth")
    if set(submission.clip_id) != set(truth.clip_id):
        raise ValueError(
            f"the submission has {plural(len(submission), 'clips')}, the truth {len(truth)}: they must be the same"
        )
    classes = [c for c in submission.columns if c != "clip_id"]
    target, _ = clip_targets(truth.set_index("clip_id", drop=False).loc[submission.clip_id], classes)
    scores = submission[classes].to_numpy(float)
    auc = clip_metrics.macro_roc_auc(target, scores)
    return {
        "map": float(clip_metrics.mean_average_precision(target, scores)), "macro_auc": float(auc),
        "d_prime": clip_metrics.d_prime(auc),
    }  # fmt: skip


# ---- what the folder holds


def list_files(source: Path) -> list[str]:
    """Every file below the folder, hidden ones left out, as sorted paths relative to it, '/' between their parts."""
    found = []
    for folder, names in walk(source):
        inside = folder.relative_to(source).as_posix()
        prefix = "" if inside == "." else inside + "/"
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def _listed_once(files: list[str], name: str, source) -> str:
    """The one file of that name, at any depth; of copies of the same content the first."""
    found = [f for f in files if f.rpartition("/")[2].lower() == name]
    if len({(Path(source) / f).read_bytes() for f in found}) == 1:
        return min(found, key=lambda f: (f.count("/"), f))
    if found:
        raise ValueError(f"{source} holds several {name}: {few(found)}; leave one")
    csv_files = few(f for f in files if f.lower().endswith(".csv")) or "none"
    remedy = "; audioset_balanced does without it" if name.startswith(LISTS["unbalanced"]) else ""
    raise ValueError(f"{source} does not hold {name}; its CSV files: {csv_files}{remedy}")


def find_audio(source: Path, files: list[str], ids: pd.Series) -> dict[str, str]:
    """YouTube ids -> path below `source`, a file or a row of an HDF5 file; ids without audio are left out."""
    rows_of = {}
    for file in (f for f in files if f.lower().endswith((".h5", ".hdf5"))):
        rows_of |= {name.rpartition(".")[0] or name: f"{file}#{i}" for i, name in enumerate(hdf5_names(source / file))}
    named = [(f.rpartition("/")[2].rpartition(".")[0], f) for f in files if f.lower().endswith(EXTENSIONS)]
    by_name = dict(reversed(named))  # of two, the first in the alphabet
    by_start = {SPAN.sub("", name): f for name, f in reversed(named) if SPAN.search(name)}
    found = {}
    for place in (rows_of, by_start, by_name):  # the last one that has a clip counts
        found |= {i: p for i in ids if (p := place.get("Y" + i) or place.get(i))}
    return found


def hdf5_names(path: Path) -> list[str]:
    """Names of an HDF5 file's clips, in the order of its rows; [] where it holds no waveforms."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "audio_name" not in file or "waveform" not in file:
                return []
            names = file["audio_name"][:]
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file: {error}") from error
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist()]


# ---- the published lists


def read_quality(path: Path) -> dict[str, float]:
    """AudioSet's qa_true_counts.csv -> {mid: num_true / num_rated}: how often raters heard what the label says.

    Its columns are a class's mid, how many of its clips were rated, in how many it was heard (as remembered), with or
    without a header; a class of which no clip was rated is left out.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; it is AudioSet's qa_true_counts.csv: mid, num_rated, num_true")
    shares = {}
    check_table(path)
    with path.open(newline="", encoding=find_encoding(path)) as lines:
        for number, row in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
            if not row or row[0].startswith("#") or (number == 1 and not row[-1].strip().isdigit()):
                continue
            counts = row[1:]
            if len(row) != 3 or not all(c.strip().isdigit() for c in counts) or int(counts[1]) > int(counts[0]):
                raise ValueError(f"{path} line {number} is no 'mid, num_rated, num_true': {','.join(row)}")
            if int(counts[0]):
                shares[row[0].strip()] = int(counts[1]) / int(counts[0])
    return shares


def read_labels(path: Path) -> pd.DataFrame:
    """class_labels_indices.csv -> `label` (the display name without spaces), `mid`, `name`, in the order of `index`."""
    table = read_table(path, ("index", "mid", "display_name")).sort_values("index", kind="stable")
    if table["index"].tolist() != list(range(len(table))):
        raise ValueError(f"{path}: 'index' must number the {plural(len(table), 'classes')} from 0, each once")
    label = table.display_name.map(class_name)
    if (twice := label[label.duplicated()]).size:
        raise ValueError(f"{path} names a class twice: {few(twice)}")
    return pd.DataFrame({"label": label, "mid": table.mid, "name": table.display_name}).reset_index(drop=True)


def read_segments(path: Path) -> pd.DataFrame:
    """A list of segments -> `clip_id` (YouTube's), `start_seconds`, `mids` (joined by commas), each row once.

    Comments (#) and a header of any names in front, spaces, quotes, and labels without quotes, as copies have them.
    """
    found = []
    check_table(path)
    with open(path, encoding=find_encoding(path), newline="") as file:
        for row in csv.reader((line for line in file if line.strip()), skipinitialspace=True):
            if row[0].startswith("#") or (not found and len(row) > 1 and not _is_number(row[1])):
                continue
            if len(row) < 4 or not _is_number(row[1]):
                raise ValueError(f"{path} is not a list of segments, {FORM}: {','.join(row)[:100]!r}")
            mids = ",".join(m.strip() for text in row[3:] for m in text.split(",") if m.strip())
            found.append((row[0].strip(), float(row[1]), mids))
    if not found:
        raise ValueError(f"{path} lists no segment; its lines must be {FORM}")
    table = pd.DataFrame(found, columns=["clip_id", "start_seconds", "mids"]).drop_duplicates(ignore_index=True)
    if len(empty := table.clip_id[table.mids == ""]):
        raise ValueError(f"{path}: clip '{empty.iloc[0]}' has no label; its lines must be {FORM}")
    return table


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def label_texts(mids: pd.Series, name_of: dict[str, str]) -> pd.Series:
    """Replace class numbers, 'mid,mid', by names joined by spaces; each combination is looked up once."""

    def names(text: str) -> str:
        some = [m.strip() for m in text.split(",")]
        if unknown := [m for m in some if m not in name_of]:
            raise ValueError(f"label '{unknown[0]}' is not in {LABELS}{suggest(unknown[0], name_of)}")
        return " ".join(name_of[m] for m in some)

    return mids.map({text: names(text) for text in mids.unique()})


# ---- the editions

_SHARED = {"task": "tagging", "rows": rows, "validate": validate, "score": score, "oof_score": MAP}
EDITIONS = by_name(
    Competition(name="audioset", prepare=prepare, **_SHARED),
    Competition(name="audioset_balanced", prepare=partial(prepare, subset="balanced"), **_SHARED),
)

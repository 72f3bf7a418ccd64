"""Cornell Birdcall Identification (Kaggle 2020): 264 species, weak labels, rows of 5 s or of a whole recording.

Download: train.csv, train_audio/<ebird_code>/<filename> (or the resampled one: train_mod.csv and five folders of wav),
test.csv (`site, row_id, seconds, audio_id`), test_audio/<audio_id>.mp3. A row's answer is its species, sorted, joined
by spaces, or `nocall`. Rows of site_1 and site_2 last 5 s and are named by the second at which they end; a recording of
site_3 is one row.

Score: row-wise micro F1, `nocall` being a label. A kernel had two hours, CPU or GPU, without internet, for about 150
hidden recordings of 10 minutes. The embedded competition has the same layout and rules.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.competition import Competition, Limits, Rules, by_name
from earshot.competitions.downloads import found_below, inner_folder, located, recordings_by_stem
from earshot.competitions.label_texts import listed, unlabelled
from earshot.competitions.oof_scores import EVENT_ROWS, ROW_MICRO_F1
from earshot.competitions.tables import Tables, absent, class_name, find_files, present
from earshot.events import EVENT_COLUMNS, PostProcess, build_post, detect, overlap_losers, strict_events
from earshot.messages import few, plural
from earshot.metrics.clips import row_micro_f1
from earshot.prediction.predictions import Predictions
from earshot.sound.windows import split_framewise
from earshot.tables import read_table, require_columns

TRAIN_COLUMNS = ("ebird_code", "filename", "primary_label", "secondary_labels", "duration", "recordist")
RESAMPLED_TABLE = "train_mod.csv"  # train.csv with resampled_sampling_rate, resampled_filename, resampled_channels
TEST_COLUMNS = ("site", "row_id", "seconds", "audio_id")
ROW_SITES, WHOLE_SITES = ("site_1", "site_2"), ("site_3",)
ROW_SECONDS, CHUNK_SECONDS = 5, 30
NOCALL = "nocall"

logger = logging.getLogger("earshot")


def prepare(source: Path) -> Tables:
    """Download folder -> one clip a recording of train.csv, the classes sorted, and the test if there is a test.csv.

    The resampled download that the source trains on, `train_mod.csv` in one or all of its five folders of wav, is taken
    where it is found at or below `source`; the test is then that of a test.csv there, if any.
    A recording labelled `nocall` is a clip without labels.
    Secondary labels are written as in `primary_label`; what names no species of the competition is dropped, counted in
    a warning. `group` is the recording itself: the source stratifies plainly; group by `recordist` for a harder split.
    """
    source = Path(source)
    return _prepare_resampled(source) if resampled_tables(source) else _prepare_published(source)


@found_below("train.csv")
def _prepare_published(source: Path) -> Tables:
    train = _read(source / "train.csv", TRAIN_COLUMNS)
    return _with_test(located(_clips(train.drop_duplicates(ignore_index=True)), source), source, "train.csv")


def resampled_tables(source: Path) -> list[Path]:
    """`train_mod.csv` of the resampled download: in the folder itself or in those just below it."""
    return [path for pattern in ("", "*/") for path in sorted(source.glob(f"{pattern}{RESAMPLED_TABLE}"))]


def _prepare_resampled(source: Path) -> Tables:
    """Five folders <name>-00 ... <name>-04 of <ebird_code>/<resampled_filename>, one or all of them with the table."""
    tables = [_read(path, (*TRAIN_COLUMNS, "resampled_filename")) for path in resampled_tables(source)]
    train = pd.concat(tables).drop_duplicates(ignore_index=True)
    clips = _clips(train)
    found = {
        (path.parts[-2].casefold(), stem): path.as_posix()
        for stem, paths in recordings_by_stem(source).items() for path in paths if len(path.parts) > 1
    }  # fmt: skip
    wanted = zip(train.ebird_code, train.resampled_filename, strict=True)
    paths = [found.get((code.casefold(), Path(name).stem.casefold())) for code, name in wanted]
    clips["path"] = [path or own for path, own in zip(paths, clips.path, strict=True)]
    return _with_test(clips, source, RESAMPLED_TABLE)


def _with_test(clips: pd.DataFrame, source: Path, table: str) -> Tables:
    """Clips of the training table -> the competition's tables, with the test where `source` has a test.csv."""
    classes = sorted(set(clips.labels) - {""})
    missing, clips = absent(clips, source), present(clips, source, table)
    if not (source / "test.csv").is_file():
        return Tables(clips=clips, classes=classes, missing=missing)
    test = _read(source / "test.csv", TEST_COLUMNS)
    check_site_rows(test)
    folder = inner_folder(source, "test_audio")
    found = find_files(source / folder)
    test_clips = test[["audio_id", "site"]].drop_duplicates("audio_id", ignore_index=True)
    test_clips = test_clips.rename(columns={"audio_id": "clip_id"})
    test_clips.insert(1, "path", [f"{folder}/{found.get(i, i + '.mp3')}" for i in test_clips.clip_id])
    return Tables(
        clips=clips, classes=classes, test_clips=test_clips, test=test, missing=missing + absent(test_clips, source)
    )


def _read(path: Path, columns) -> pd.DataFrame:
    """CSV with every name as text; a missing file or column is an error that says what came."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; is the source the unzipped download of the competition?")
    return read_table(path, columns)


def _clips(train: pd.DataFrame) -> pd.DataFrame:
    """train.csv -> clips.csv: the contract's columns, then what is left of the original's."""
    empty = (train[["ebird_code", "filename"]] == "").any(axis=1)
    if empty.any():
        raise ValueError(
            f"train.csv has no ebird_code or filename in {plural(empty.sum(), 'rows')}, first row {empty.argmax() + 2}"
        )
    clip_id = [Path(name).stem for name in train.filename]
    clips = pd.DataFrame({
        "clip_id": clip_id,
        "path": "train_audio/" + train.ebird_code + "/" + train.filename,
        "labels": unlabelled(train.ebird_code.map(class_name), "train.csv"),
        "secondary_labels": _secondary(train),
        "group": train.xc_id.where(train.xc_id != "", pd.Series(clip_id)) if "xc_id" in train else clip_id,
        "duration": train.duration,
    })  # fmt: skip
    rates = [c for c in ("resampled_sampling_rate", "sampling_rate") if c in train]  # '44100 (Hz)'
    if rates:
        rate = train[rates[0]].astype(str).str.extract(r"(\d+)")[0]
        clips["sample_rate"] = pd.to_numeric(rate).astype("Int64")
    used = {"ebird_code", "filename", "secondary_labels", "xc_id", "duration", "sampling_rate", *clips.columns}
    return pd.concat([clips, train[[c for c in train.columns if c not in used]]], axis=1)


def _secondary(train: pd.DataFrame) -> list[str]:
    """`['Empidonax alnorum_Alder Flycatcher', ...]` of each row -> codes joined by spaces, without the row's own."""
    code = dict(zip(train.primary_label, train.ebird_code, strict=True)) | {c: c for c in train.ebird_code}
    texts, unknown = [], {}
    for row, (own, text) in enumerate(zip(train.ebird_code, train.secondary_labels, strict=True)):
        names = listed(text, f"row {row + 2} of train.csv")
        for name in names:
            if name not in code:
                unknown[name] = unknown.get(name, 0) + 1
        codes = dict.fromkeys(code[n] for n in names if n in code and code[n] != own)
        texts.append(" ".join(class_name(c) for c in codes))
    if unknown:
        most = sorted(unknown.items(), key=lambda item: -item[1])[:5]
        logger.warning(
            "%d secondary labels of %d species outside the competition are dropped: %s%s",
            sum(unknown.values()), len(unknown), ", ".join(f"{n} ({k})" for n, k in most),
            ", ..." if len(unknown) > 5 else "",
        )  # fmt: skip
    return texts


def check_site_rows(test: pd.DataFrame):
    """Raise unless `test` is a test table of this competition; every problem found is in the message."""
    require_columns(test, TEST_COLUMNS, "the test table")
    if not len(test):
        raise ValueError("the test table has no rows, so there is nothing to predict")
    problems = []
    if (twice := test.row_id[test.row_id.duplicated()]).size:
        problems.append(f"{twice.nunique()} row_ids come twice: {few(twice.unique())}")
    unknown = sorted(set(test.site.astype(str)) - {*ROW_SITES, *WHOLE_SITES})
    if unknown:
        problems.append(f"unknown sites {few(unknown)}; known: {', '.join(ROW_SITES + WHOLE_SITES)}")
    sites = test.groupby("audio_id").site.nunique()
    if (sites > 1).any():
        problems.append(f"recordings at more than one site: {few(sites.index[sites > 1])}")
    in_rows = test[test.site.isin(ROW_SITES)]
    seconds = pd.to_numeric(in_rows.seconds, errors="coerce")
    off_grid = ~((seconds > 0) & (seconds % ROW_SECONDS == 0))
    if off_grid.any():
        problems.append(f"seconds of {few(in_rows.row_id[off_grid])} are not a multiple of {ROW_SECONDS}")
    else:
        wrong = _expected_ids(test) != test.row_id.astype(str)
        if wrong.any() and not unknown:
            row = test[wrong].iloc[0]
            problems.append(
                f"{wrong.sum()} row_ids do not follow from their columns: '{row.row_id}' for site {row.site}, "
                f"audio_id {row.audio_id}, seconds {row.seconds}, expected '{_expected_ids(test)[wrong].iloc[0]}'"
            )
    if problems:
        raise ValueError("the test table is not valid: " + "; ".join(problems))


def _expected_ids(test: pd.DataFrame) -> pd.Series:
    """<site>_<audio_id>_<seconds> where rows last 5 s, <site>_<audio_id> where the recording is one row."""
    seconds = pd.to_numeric(test.seconds, errors="coerce").fillna(0).astype(int).astype(str)
    return (
        test.site.astype(str) + "_" + test.audio_id.astype(str) + ("_" + seconds).where(test.site.isin(ROW_SITES), "")
    )


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Predictions of the recordings -> `row_id, birds` in the order of `test`.

    Each event marks every row that it overlaps. `post` may be a PostProcess, a mapping of its fields, or None for its
    defaults; with `strict` the source's rules hold to the letter: runs end every 30 s, an offset is the start of its
    last frame, and one exactly on a border marks the next row. A recording without prediction, or unreadable, is
    `nocall` throughout, with a warning.
    """
    check_site_rows(test)
    post = post if isinstance(post, PostProcess) else build_post(post or {})
    if predictions.framewise_output is None:
        raise ValueError(
            "rows of 5 s need framewise outputs, and these predictions have none: predict with "
            "predict.keep_frames=true and a model that has them"
        )
    place = {str(clip): i for i, clip in enumerate(predictions.clip_ids)}
    events, lost = [], []
    for audio_id in sorted(test.audio_id.astype(str).unique()):
        i = place.get(audio_id, -1)
        if i < 0 or predictions.unreadable[i]:
            lost.append(audio_id)
        else:
            events.append(_recording_events(predictions, i, audio_id, post))
    if lost:
        logger.warning("%d recordings have no prediction and are nocall: %s", len(lost), few(lost))
    table = pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=list(EVENT_COLUMNS))
    return answers(touched_rows(table, test, strict=post.strict), test)


def _recording_events(predictions: Predictions, i: int, audio_id: str, post: PostProcess) -> pd.DataFrame:
    """The surviving events of recording `i`."""
    prob, grid = predictions.framewise_output[i], predictions.timebase
    if not post.strict:
        return detect(prob, grid, predictions.classes, audio_id, post, predictions.clipwise_output[i])
    chunks = split_framewise(prob, grid.frame_samples, grid.hop_length, CHUNK_SECONDS * grid.sample_rate)
    return strict_survivors(chunks, audio_id, predictions.classes, post, grid.hop_length / grid.sample_rate)


def strict_survivors(
    chunks: np.ndarray, audio_id: str, classes, post: PostProcess, frame_seconds: float = 0.01
) -> pd.DataFrame:
    """Find the events that the birdcall source marks rows with, from (C, T, K) probabilities of a recording's 30-s
    chunks."""
    events = strict_events(chunks, audio_id, classes, post.threshold, frame_seconds, CHUNK_SECONDS)
    if post.iou_threshold is None:
        return events
    return events[~overlap_losers(events.onset, events.offset, events.max_confidence, post.iou_threshold)]


def truth_rows(events: pd.DataFrame, test: pd.DataFrame, min_overlap_seconds: float = 0.0) -> pd.DataFrame:
    """True events of the recordings -> `row_id, birds` in the order of `test`: who is heard in a row for longer."""
    check_site_rows(test)
    return answers(touched_rows(events, test, min_overlap_seconds=min_overlap_seconds), test)


def touched_rows(
    events: pd.DataFrame, test: pd.DataFrame, strict: bool = False, min_overlap_seconds: float = 0.0
) -> pd.DataFrame:
    """Events (filename = audio_id) -> `row_id, event_label`, each once, of the rows that they mark, sorted.

    An event marks a row when they share more than `min_overlap_seconds`. Strict: from the row of its onset to the row
    of its offset, both `time // 5`. Rows past the end of a recording are named too; recordings not in `test` are not.
    """
    audio = test.astype({"audio_id": str}).drop_duplicates("audio_id").set_index("audio_id")
    site = events.filename.astype(str).map(audio.site)
    events, site = events[site.notna()], site[site.notna()]
    onset, offset = events.onset.to_numpy(float), events.offset.to_numpy(float)
    whole = site.isin(WHOLE_SITES).to_numpy()
    first = np.where(whole, 0, onset // ROW_SECONDS).astype(np.int64)
    last = np.where(whole, 0, offset // ROW_SECONDS).astype(np.int64)
    event = np.repeat(np.arange(len(events)), last - first + 1)
    row = np.arange(len(event)) - np.repeat(np.cumsum(last - first + 1) - (last - first + 1), last - first + 1)
    row += first[event]
    begin, end = (
        np.where(whole[event], -np.inf, row * ROW_SECONDS),
        np.where(whole[event], np.inf, (row + 1) * ROW_SECONDS),
    )
    shared = np.minimum(offset[event], end) - np.maximum(onset[event], begin)
    keep = np.ones(len(event), bool) if strict else shared > min_overlap_seconds + 1e-9  # 1e-9: rounding of seconds
    event, row = event[keep], row[keep]
    name = (site + "_" + events.filename.astype(str)).to_numpy(dtype=object)[event]
    ending = np.where(whole[event], "", "_" + ((row + 1) * ROW_SECONDS).astype(str).astype(object))
    marked = pd.DataFrame({"row_id": name + ending, "event_label": events.event_label.to_numpy(dtype=object)[event]})
    return marked.drop_duplicates().sort_values(["row_id", "event_label"], ignore_index=True)


def answers(marked: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Marked rows -> one row of text for each of `test`; a network's own class `nocall` never stands beside a bird."""
    birds = marked[marked.event_label != NOCALL].groupby("row_id").event_label.agg(" ".join)
    return pd.DataFrame({"row_id": test.row_id.to_numpy(), "birds": test.row_id.map(birds).fillna(NOCALL).to_numpy()})


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` answers `test`, row by row, with sorted species of `classes`, or with nocall alone.

    Every kind of problem is in the message, because a submission costs hours.
    """
    check_site_rows(test)
    if problems := answer_problems(submission, test, classes):
        raise ValueError("the submission is not valid: " + "; ".join(problems))


def answer_problems(submission: pd.DataFrame, test: pd.DataFrame, classes) -> list[str]:
    """What is wrong with `row_id, birds` as the answer to `test`, whatever the rows stand for."""
    problems = []
    if list(submission.columns) != ["row_id", "birds"]:
        problems.append(f"columns are {', '.join(map(str, submission.columns))}, expected row_id, birds in this order")
    if "row_id" in submission:
        have, want = submission.row_id.astype(str), test.row_id.astype(str)
        of_ids = _row_problems(have, want)
        if not of_ids and have.tolist() != want.tolist():
            of_ids = ["row_ids are in another order than the test table"]
        problems += of_ids
    if "birds" in submission:
        problems += _species_problems(submission.birds, set(classes))
    return problems


def _row_problems(have: pd.Series, want: pd.Series) -> list[str]:
    found = {
        "are missing": sorted(set(want) - set(have)),
        "are not in the test table": sorted(set(have) - set(want)),
        "come twice": have[have.duplicated()].unique(),
    }
    return [f"{len(ids)} row_ids {what}: {few(ids)}" for what, ids in found.items() if len(ids)]


def _species_problems(birds: pd.Series, classes: set[str]) -> list[str]:
    filled = birds.map(lambda text: isinstance(text, str) and bool(text.strip())).to_numpy(bool)
    texts = birds[filled]
    labels = texts.str.split()
    strange = {name for row in labels for name in row} - classes - {NOCALL}
    unknown = sorted(strange)
    found = {
        "are empty (write nocall)": [f"row {i + 1}" for i in np.flatnonzero(~filled)],
        f"name unknown labels ({few(unknown)})": texts[[not strange.isdisjoint(row) for row in labels]],
        "mix nocall with labels": texts[[NOCALL in row and len(set(row)) > 1 for row in labels]],
        "name a label twice": texts[[len(set(row)) < len(row) for row in labels]],
        "are not sorted": texts[[row != sorted(row) for row in labels]],
        "hold other than single spaces": texts[[text != " ".join(row) for text, row in zip(texts, labels)]],
    }
    return [f"{plural(len(rows), f'rows {what}')}: {few(rows)}" for what, rows in found.items() if len(rows)]


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Row-wise micro F1 of a submission; `truth` is `row_id, birds` of the same rows, in any order."""
    for name, table in (("submission", submission), ("truth", truth)):
        require_columns(table, ("row_id", "birds"), f"the {name}")
    if problems := _row_problems(submission.row_id.astype(str), truth.row_id.astype(str)):
        raise ValueError("the submission does not answer the rows of this truth: " + "; ".join(problems))
    answers = submission.assign(row_id=submission.row_id.astype(str)).set_index("row_id").birds
    return {"row_micro_f1": row_micro_f1(truth.birds.tolist(), answers.reindex(truth.row_id.astype(str)).tolist())}


def ends_of_rows(seconds: float) -> range:
    """Seconds at which rows of 5 s end; the last one may be partial (rests below 0.05 s do not count)."""
    rows = max(1, int(np.ceil((seconds - 0.05) / ROW_SECONDS)))
    return range(ROW_SECONDS, ROW_SECONDS * rows + 1, ROW_SECONDS)


# ---- the hidden test of a kernel, and the edition


def _hidden_ids(table: pd.DataFrame) -> pd.Series:
    check_site_rows(table)
    return table.audio_id


def _hidden_rows(recordings, classes, source) -> pd.DataFrame:
    """Without test.csv the site is not known: rows of 5 s, as at the first."""
    site = ROW_SITES[0]
    rows = [(site, f"{site}_{name}_{end}", end, name) for name, seconds in recordings for end in ends_of_rows(seconds)]
    return pd.DataFrame(rows, columns=list(TEST_COLUMNS))


def _split_names(names: pd.Series) -> pd.DataFrame:
    """What row names say of their columns; the row_id of a name that says nothing is ''."""
    parts = names.str.extract(r"^(?P<site>site_[123])_(?P<audio_id>.+?)(?:_(?P<seconds>\d+))?$")
    seconds, whole = pd.to_numeric(parts.seconds), parts.site.isin(WHOLE_SITES)
    said = whole | ((seconds > 0) & (seconds % ROW_SECONDS == 0))
    audio_id = parts.audio_id.where(~whole, names.str.removeprefix(f"{WHOLE_SITES[0]}_"))
    return pd.DataFrame({
        "site": parts.site, "row_id": names.where(said, ""), "seconds": seconds.where(~whole), "audio_id": audio_id,
    })  # fmt: skip


HIDDEN = Rules(
    slug="birdsong-recognition", folder="test_audio", table="test.csv", seconds=600.0, read=_hidden_ids,
    make=_hidden_rows, split=_split_names,
)  # fmt: skip
EDITIONS = by_name(
    Competition(
        name="birdcall", prepare=prepare, rows=rows, validate=validate, score=score, limits=Limits(minutes=120),
        hidden=HIDDEN, oof_score=ROW_MICRO_F1, post=EVENT_ROWS,
    )
)  # fmt: skip

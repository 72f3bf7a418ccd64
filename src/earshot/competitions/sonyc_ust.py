"""SONYC-UST-V2, urban sound tagging (DCASE 2020 task 5; the 2019 release has the same tables): 8 coarse, 23 fine tags.

Download: annotations.csv, a row a clip and annotator: `split (train, validate, test), sensor_id, audio_filename,
annotator_id`, in V2 `borough, block, latitude, longitude, year, week, day, hour`, then `<tag>_presence` (1, 0, -1 =
not asked or not sure) and `<tag>_proximity`; dcase-ust-taxonomy.yaml is not needed: the columns carry the names. The
files may lie in any folder below the source (audio/, audio-dev/train/, ...). Annotator 0 is the agreed truth of a
verified clip, negative ids are the project's team, positive ones volunteers.

Labels. A verified clip has the truth; the votes of the others decide elsewhere: `majority` of those who gave one (a tie
counts as present: people miss more than they invent), or `any` of them (the 2019 baseline's rule). A tag without a vote
counts as absent. Where annotators heard something and no tag has a majority, the clip has no label; such clips and
ties are counted in a warning. `votes_<tag>` keeps the share of annotators who heard it (empty: no vote), `is_verified`
and `n_annotations` say what a clip rests on. `group` is the sensor. Train clips always train (fold -1), validate is
fold 0.
The test is the verified clips of the split test, or of validate where there is none (the OOF answers it); without
truth, all clips of test. A clip without any tag is a negative example, and has no label.

`crowd` says what becomes of validate clips that nobody verified, where some are: held_out (scored by their votes, apart
from verified_... scores), train (as Arnault and Riche 2020; the sensors of the scored clips are then trained on), or
left_out.

`sonyc_ust_fine` (level=fine): the classes are the 29 fine columns, the incomplete "X" tags among them. The submission
has them and the coarse columns, each the maximum of its fine ones. `sonyc_ust_joint` (level=joint): the 8 coarse
columns, then the 29 fine ones; classes.csv says the `level` of each: coarse, fine, incomplete, and
data.levels=[coarse, fine] leaves the X out of what a network answers (31 classes). `unknown_labels` names the fine tags
that a clip may have and nobody can say: where a coarse tag is there and its X is too, or none of its complete tags, the
complete ones that were not heard. The submission has the 8 coarse columns and the 23 complete ones; with
post-processing `coarse_from: fine` a coarse tag is at least as likely as its fine ones. Score: the challenge's public
evaluation (metrics/urban.py), of each level.

Week, day, hour, latitude and longitude are checked: an impossible or missing one is an error that names clip, column
and value; metadata=gaps makes it an empty cell, for data.metadata_missing to fill.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.checks import column_problems, id_problems, number_problems, refuse
from earshot.competitions.competition import Challenge, Competition, OofScore, PostRanges, by_name
from earshot.competitions.downloads import found_below
from earshot.competitions.tables import Tables, absent, present
from earshot.events import COARSE_FROM, PostProcess
from earshot.messages import few, plural, suggest
from earshot.metrics import urban as urban_metrics
from earshot.metrics.urban import parse_tag
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.folder import list_recordings
from earshot.tables import read_table, require_columns, with_numbers

COARSE = (
    "1_engine", "2_machinery-impact", "3_non-machinery-impact", "4_powered-saw", "5_alert-signal", "6_music",
    "7_human-voice", "8_dog",
)  # fmt: skip
COLUMNS = ("split", "sensor_id", "audio_filename", "annotator_id")
METADATA = ("borough", "block", "latitude", "longitude", "year", "week", "day", "hour")
OFFICIAL_FOLD = {"train": -1, "validate": 0}
VOTES = ("majority", "any")
LEVELS = (*urban_metrics.LEVELS, "joint")
CROWD = ("held_out", "train", "left_out")
METADATA_CHECKS = ("error", "gaps")
RANGES = {"week": (1, 53), "day": (0, 6), "hour": (0, 23), "latitude": (-90, 90), "longitude": (-180, 180)}
TEST_COLUMNS = ("clip_id", "audio_filename")  # of the test table

logger = logging.getLogger("earshot")


@found_below("annotations.csv")
def prepare(
    source: Path, level: str = "coarse", votes: str = "majority", crowd: str = "held_out", metadata: str = "error"
) -> Tables:
    """Download folder -> clips with labels by `votes` (majority | any) at `level` (coarse | fine | joint), test, truth.

    crowd: held_out | train | left_out, see above; metadata: error | gaps.
    """
    source = Path(source)
    for value, known in ((level, LEVELS), (votes, VOTES), (crowd, CROWD), (metadata, METADATA_CHECKS)):
        if value not in known:
            raise ValueError(f"unknown option '{value}'{suggest(value, known)}")
    annotations = read_annotations(source / "annotations.csv")
    clips, tags = clip_table(annotations, level, votes), tags_of(annotations, level)
    clips = with_possible_metadata(clips, metadata)
    found = (p for p in list_recordings(source).files if p.suffix.lower() == ".wav")
    files = {p.name: p.relative_to(source).as_posix() for p in found}
    warn_of_disagreement(annotations, clips, tags, votes)
    if silent := sorted(set(files) - set(clips.audio_filename)):
        logger.warning("%d recordings are not in annotations.csv and are left out: %s", len(silent), few(silent))
    clips.insert(1, "path", [files.get(f, f"audio/{f}") for f in clips.audio_filename])
    is_test = (clips.split == "test").to_numpy()
    test_clips, clips = clips[is_test].reset_index(drop=True), clips[~is_test].reset_index(drop=True)
    missing = absent(clips, source) + absent(test_clips, source)
    clips = present(clips, source, "annotations.csv")
    clips = with_crowd(clips.assign(official_fold=clips.split.map(OFFICIAL_FOLD)), crowd)
    scored = test_clips if is_test.any() else clips[clips.split == "validate"]
    if scored.is_verified.any():
        scored = scored[scored.is_verified == 1]
    truth = truth_table(annotations)
    truth = truth[truth.audio_filename.isin(scored.audio_filename)].reset_index(drop=True)
    test = scored[["audio_filename", "clip_id"]].reset_index(drop=True)
    return Tables(
        clips=clips, classes=tags, test_clips=test_clips if len(test_clips) else None, test=test if len(test) else None,
        missing=missing, task="ust", truth=truth if len(truth) else None,
        class_columns=pd.DataFrame({"level": [level_of(t) for t in tags]}) if level == "joint" else None,
    )  # fmt: skip


def read_annotations(path: Path) -> pd.DataFrame:
    """annotations.csv, each row once; every presence must be 1, 0 or -1, since a gap would count as heard."""
    table = read_table(path, COLUMNS).drop_duplicates(ignore_index=True)
    said = [c for c in table.columns if c.endswith("_presence")]
    table = with_numbers(table, ["annotator_id", *said], path.name)
    for column in said:
        if (wrong := ~table[column].isin((-1, 0, 1))).any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(f"{path.name}: {column} is {table[column][row]} in row {row + 1}, expected 1, 0 or -1")
    return table


def with_crowd(clips: pd.DataFrame, crowd: str) -> pd.DataFrame:
    """The clips with the validate ones that nobody verified held out, always trained on, or left out.

    Where no validate clip is verified, the votes are all there is and `crowd` is an error.
    """
    by_votes = (clips.split == "validate") & (clips.is_verified == 0)
    if crowd == "held_out" or not by_votes.any():
        return clips
    if not ((clips.split == "validate") & (clips.is_verified == 1)).any():
        raise ValueError(f"crowd={crowd} would leave nothing held out: no validate clip has the rows of annotator 0")
    logger.warning("%d validate clips that nobody verified are %s", by_votes.sum(),
                   "trained on, together with the sensors of those that are scored" if crowd == "train" else
                   "left out")  # fmt: skip
    if crowd == "left_out":
        return clips[~by_votes].reset_index(drop=True)
    return clips.assign(official_fold=clips.official_fold.mask(by_votes, OFFICIAL_FOLD["train"]))


def with_possible_metadata(clips: pd.DataFrame, how: str) -> pd.DataFrame:
    """The clips with times and places that can be; others are an error that names them, or (gaps) empty cells."""
    for column, (low, high) in RANGES.items():
        if column not in clips:
            continue
        values = pd.to_numeric(clips[column], errors="coerce")
        whole = column not in ("latitude", "longitude")
        wrong = ~values.between(low, high) | (whole & (values % 1 != 0))
        if not wrong.any():
            continue
        said = [f"{c}: {'nothing' if pd.isna(v) else v}" for c, v in zip(clips.clip_id[wrong], clips[column][wrong])]
        text = f"{column} must be {'a whole number ' * whole}from {low} to {high}; {wrong.sum()} clips have another: "
        if how == "error":
            raise ValueError(
                f"annotations.csv: {text}{few(said)}; --set metadata=gaps makes them empty cells, which "
                "data.metadata_missing fills"
            )
        logger.warning("%s%s; they are empty now", text, few(said))
        clips = clips.assign(**{column: values.mask(wrong)})
    return clips


def warn_of_disagreement(annotations: pd.DataFrame, clips: pd.DataFrame, tags: list[str], votes: str):
    """Say how many unverified clips have tied tags, and how many lost every tag for want of a majority."""
    shares = vote_shares(annotations, tags)
    open_ = clips.audio_filename[clips.is_verified == 0]
    shares = shares[shares.index.isin(open_)]
    tied, lost = (shares == 0.5).any(axis=1), (shares > 0).any(axis=1) & ~(shares >= 0.5).any(axis=1)
    if votes == "majority" and tied.any():
        logger.warning("%d clips have tags that half of their annotators heard, which count as present: %s", tied.sum(),
                       few(shares.index[tied]))  # fmt: skip
    if votes == "majority" and lost.any():
        logger.warning("the annotators of %d clips heard something, but no tag has a majority: these clips have no "
                       "label (votes=any keeps every tag): %s", lost.sum(), few(shares.index[lost]))  # fmt: skip


def level_of(tag: str) -> str:
    """A tag -> coarse, fine, or incomplete (an X)."""
    fine = parse_tag(tag)[1]
    return ("incomplete" if fine == "X" else "fine") if fine else "coarse"


def tags_of(annotations: pd.DataFrame, level: str) -> list[str]:
    """Tags of a level in the table's order; fine ones with the incomplete "X"; joint: coarse ones, then fine ones."""
    if level == "joint":
        return [*tags_of(annotations, "coarse"), *tags_of(annotations, "fine")]
    tags = [c.removesuffix("_presence") for c in annotations.columns if c.endswith("_presence")]
    tags = [t for t in tags if bool(parse_tag(t)[1]) == (level == "fine")]
    if not tags:
        raise ValueError(f"annotations.csv has no {level} presence column")
    return tags


def is_agreed(annotations: pd.DataFrame) -> pd.Series:
    """Find the rows of annotator 0, which hold the agreed truth: (N,) booleans."""
    return pd.to_numeric(annotations.annotator_id) == 0


def vote_shares(annotations: pd.DataFrame, tags: list[str]) -> pd.DataFrame:
    """Share of the annotators (without annotator 0) who heard each tag, by audio_filename; NaN where nobody voted."""
    people = annotations
    if "annotator_id" in annotations:
        people = annotations[~is_agreed(annotations)]
    said = people[[f"{t}_presence" for t in tags]].set_axis(tags, axis=1)
    return (said == 1).astype(float).where(said >= 0).groupby(people.audio_filename, sort=True).mean()


def truth_table(annotations: pd.DataFrame) -> pd.DataFrame:
    """Annotator 0's rows -> `audio_filename` and a column a tag, coarse and fine, as annotated."""
    rows = annotations[is_agreed(annotations)]
    if (twice := rows.audio_filename[rows.audio_filename.duplicated()]).size:
        raise ValueError(f"annotator 0 has {plural(twice.nunique(), 'clips')} twice: {few(twice.unique())}")
    presence = rows[[c for c in rows.columns if c.endswith("_presence")]].rename(columns=_tag)
    table = pd.concat([rows[["audio_filename"]], presence], axis=1)
    return table.sort_values("audio_filename", ignore_index=True)


def _tag(column: str) -> str:
    return column.removesuffix("_presence")


def present_tags(annotations: pd.DataFrame, tags: list[str], votes: str = "majority") -> pd.DataFrame:
    """Say which tags are present in each clip, (clips by audio_filename, tags) booleans: the truth where it is
    verified, else the vote."""
    shares = vote_shares(annotations, tags)
    heard = shares >= 0.5 if votes == "majority" else shares > 0
    truth = truth_table(annotations).set_index("audio_filename")[tags] == 1
    return pd.concat([heard[~heard.index.isin(truth.index)], truth]).sort_index()


def clip_table(annotations: pd.DataFrame, level: str = "coarse", votes: str = "majority") -> pd.DataFrame:
    """Annotations -> a row a clip, sorted by file: labels, group, split, votes, metadata. No file is looked at."""
    by_clip = annotations.groupby("audio_filename", sort=True)
    if (mixed := by_clip.split.nunique() > 1).any():
        raise ValueError(f"{plural(mixed.sum(), 'clips are')} in more than one split: {few(mixed.index[mixed])}")
    tags = tags_of(annotations, level)
    heard = present_tags(annotations, tags, votes)
    known = [c for c in ("split", "sensor_id", *METADATA) if c in annotations]
    clips = by_clip[known].first()
    if unknown := sorted(set(clips.split) - {*OFFICIAL_FOLD, "test"}):
        raise ValueError(f"annotations.csv has the split '{unknown[0]}', not train, validate or test")
    clips.insert(0, "labels", [" ".join(np.array(tags)[row]) for row in heard.to_numpy()])
    clips.insert(1, "group", "sensor_" + clips.sensor_id.astype(str))
    if level == "joint":
        clips.insert(1, "unknown_labels", unknown_labels(heard))
    agreed = is_agreed(annotations).groupby(annotations.audio_filename, sort=True)
    clips["is_verified"] = agreed.any().astype(int)
    clips["n_annotations"] = agreed.agg(lambda rows: int((~rows).sum()))
    shares = vote_shares(annotations, tags).reindex(clips.index).round(4)
    clips = clips.join(shares.rename(columns=lambda tag: f"votes_{tag}")).reset_index()
    clips.insert(0, "clip_id", [Path(f).stem for f in clips.audio_filename])
    return clips


def unknown_labels(heard: pd.DataFrame) -> list[str]:
    """List the fine tags that may be there without anybody having said so.

    (clips, tags of both levels) booleans -> of each clip the complete fine tags that may be there unheard.

    Those of a coarse tag that is there, where its X is too or none of its complete tags is.
    """
    unknown = pd.DataFrame(False, index=heard.index, columns=heard.columns)
    for coarse in (t for t in heard if level_of(t) == "coarse"):
        fine = [t for t in heard if level_of(t) != "coarse" and parse_tag(t)[0] == parse_tag(coarse)[0]]
        complete = [t for t in fine if level_of(t) == "fine"]
        x = heard[[t for t in fine if t not in complete]].any(axis=1)
        open_ = x | (heard[coarse] & ~heard[complete].any(axis=1))
        unknown[complete] = ~heard[complete] & open_.to_numpy()[:, None]
    names = np.array(unknown.columns)
    return [" ".join(names[row]) for row in unknown.to_numpy()]


def submission_tags(classes) -> list[str]:
    """The columns of a submission: the coarse classes, or the fine ones and every coarse one that they belong to.

    Of classes of both levels: these without the incomplete ones.
    """
    classes = [str(c) for c in classes]
    if urban_metrics.is_joint(classes):
        classes = [c for c in classes if level_of(c) != "incomplete"]
    fine = {parse_tag(c)[0] for c in classes if parse_tag(c)[1]}
    return [*classes, *(c for c in COARSE if parse_tag(c)[0] in fine and c not in classes)]


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `audio_filename` and a probability a tag, in the order of `test`; of `post`: coarse_from."""
    require_columns(test, TEST_COLUMNS, "the test table")
    table = submitted(predictions.aligned(test.clip_id), post)
    table.insert(0, "audio_filename", test.audio_filename.to_numpy())
    return table


def submitted(found: Predictions, post: PostProcess | None = None) -> pd.DataFrame:
    """A column a submission tag. A coarse tag that is no class is the maximum of its fine ones, X included; with
    post-processing coarse_from=fine one that is a class is at least that."""
    table = pd.DataFrame(found.clipwise_output.astype(np.float64), columns=list(found.classes))
    at_least = post is not None and post.coarse_from == "fine"
    for name in (t for t in submission_tags(found.classes) if level_of(t) == "coarse"):
        if name not in table or at_least:
            table[name] = table[[c for c in table if parse_tag(c)[0] == parse_tag(name)[0]]].max(axis=1)
    return table[submission_tags(found.classes)]


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has a row, in its order, with a probability a tag."""
    require_columns(test, TEST_COLUMNS, "the test table")
    tags = submission_tags(classes)
    problems = column_problems(submission, ["audio_filename", *tags])
    if "audio_filename" in submission:
        problems += id_problems(submission.audio_filename, test.audio_filename, "audio_filename")
    refuse(problems + number_problems(submission, tags, 0, 1))


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """The public evaluation's macro- and micro-AUPRC and micro-F1, at each level that the submission has columns of."""
    for name, table in (("submission", submission), ("truth", truth)):
        require_columns(table, ("audio_filename",), f"the {name}")
    problems = id_problems(submission.audio_filename.sort_values(), sorted(truth.audio_filename), "audio_filename")
    if problems:
        raise ValueError("the submission does not answer the clips of this truth: " + "; ".join(problems))
    truth = truth.set_index("audio_filename").loc[submission.audio_filename]
    return _by_level(truth, submission.set_index("audio_filename"))


def tag_values(found: Predictions, truth: Truth, post=None) -> dict[str, float]:
    """As `score`, of an OOF, whose truth is the labels of the clip table: agreed ones, else votes.

    Incomplete tags that are no classes are taken from these labels.
    """
    if not len(found):
        return {}
    true = pd.DataFrame((truth.target > 0.5).astype(int), columns=list(found.classes))
    if truth.clips is not None and urban_metrics.is_joint(found.classes):
        true = urban_metrics.with_incomplete(true, truth.clips.labels.fillna(""))
    return _by_level(true, submitted(found, post), own_coarse=True)


def _by_level(truth: pd.DataFrame, said: pd.DataFrame, own_coarse: bool = False) -> dict[str, float]:
    """The public evaluation at each level that the submission has columns of."""
    names = ("macro_auprc", "micro_auprc", "micro_f1")
    levels = urban_metrics.by_level(truth, said, own_coarse)
    return {f"{level}_{name}": values[name] for level, values in levels.items() for name in names}


def files(submission: pd.DataFrame, label: str) -> dict[str, str]:
    """The table by the challenge's name."""
    return {f"{label}.output.csv": submission.to_csv(index=False, lineterminator="\n")}


def read_files(paths: Sequence[Path], test: pd.DataFrame) -> pd.DataFrame:
    """The inverse of `files`."""
    if len(paths) != 1:
        raise ValueError(f"a system has one output file of task 5, got {len(paths)}: {few(p.name for p in paths)}")
    return read_table(paths[0])


def results(found: Predictions, truth: Truth) -> dict:
    """The public evaluation of an OOF, by level."""
    values: dict[str, dict] = {}
    for name, value in tag_values(found, truth).items():
        level, _, score_name = name.partition("_")
        values.setdefault(level, {})[score_name] = round(float(value), 4)
    return {level: {"overall": scores} for level, scores in values.items()}


CHALLENGE = Challenge(
    task="task5", own=r".+\.output\.csv", files=files, read_files=read_files, results=results,
    description=(
        "input_sampling_rate", "acoustic_features", "embeddings", "data_augmentation", "machine_learning_method",
        "ensemble_method_subsystem_count", "decision_making", "external_data_usage",
    ),
    complexity=("total_parameters",),
)  # fmt: skip
JOINT_POST = PostRanges(coarse_from=COARSE_FROM)
_SHARED = {
    "task": "ust", "rows": rows, "validate": validate, "score": score,
    "oof_score": OofScore("coarse_macro_auprc", tag_values), "challenge": CHALLENGE,
}  # fmt: skip
EDITIONS = by_name(
    Competition(name="sonyc_ust", prepare=prepare, **_SHARED),
    Competition(name="sonyc_ust_fine", prepare=partial(prepare, level="fine"), **_SHARED),
    Competition(name="sonyc_ust_joint", prepare=partial(prepare, level="joint"), post=JOINT_POST, **_SHARED),
)

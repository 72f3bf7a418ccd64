"""Finch songs with onsets and offsets (strong labels): 245 recordings of four caged birds, 13,087 events of 80 ms.

Source: meta.csv (`filename, species, individual, session, split, duration_s, labelling, ...`) and events.csv
(`filename, onset_s, offset_s, event_type, individual, raw_label, ...`). Two tasks, and both at once:
- `finch_vocal`: one class, `vocal`, any bird. Cage noise is no event; sounds that the annotators' codes leave open
  ("unsure") are none either, and clips that hold some say so in the column `is_unsure`.
- `finch_syllables`: the nine syllables syl_0 ... syl_8 of bird0; the labels of one bird mean nothing in another.
- `finch_songs`: the classes of both, for one network. Syllables of the other birds are `unknown_labels`: nobody can say
  which they would be. Syllables are judged where the truth names some, and the score is the mean of both tasks.
The recordings are split by time inside each bird: val is fold 0, train is fold 1 (train.py --fold 0), and test is in
test_clips.csv with its events in test_events.csv. Events are well above the noise, so that energy alone finds them:
`mix_backgrounds` makes the hard version. Score: event-based F1, onsets and offsets within 50 ms (offsets also within
20 % of the event), overall as DCASE counts it. A submission is DCASE's event table (name it
.tsv); its `filename` is the clip_id.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.competition import Competition, Flag, Remake, by_name
from earshot.competitions.downloads import found_below, located
from earshot.competitions.esc50 import find_meta
from earshot.competitions.oof_scores import EVENTS, of_events, psds_of_frames
from earshot.competitions.tables import Tables, absent, present, require_columns, write_csv
from earshot.events import PostProcess, detect
from earshot.messages import few, plural, suggest
from earshot.metrics.events import event_based_f1
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.tables import read_table

META_COLUMNS = ("filename", "species", "individual", "session", "split", "duration_s", "labelling")
EVENT_COLUMNS = ("filename", "onset_s", "offset_s", "event_type", "individual", "raw_label")
SUBMISSION_COLUMNS = ("filename", "onset", "offset", "event_label")
TEST_COLUMNS = ("clip_id", "duration")  # of the test table
COLLAR = 0.05  # seconds
BIRDS = replace(EVENTS, centred=(None, 0.5, 0.75))  # networks are less sure of a bird that they never heard
OFFICIAL_FOLD = {"val": 0, "train": 1}
LABELS = ("vocal", "syllables", "songs")
VOCAL = "vocal"

BACKGROUND_RATE = 32000  # Hz of the mixtures
LOUDEST_DB = 100  # of a recording over its background, or under it
BACKGROUND_FOLDS = {"train": (1, 2, 3), "val": (4,), "test": (5,)}  # of ESC-50: no background in two splits
ANIMALS = (
    "dog",
    "rooster",
    "pig",
    "cow",
    "frog",
    "cat",
    "hen",
    "insects",
    "sheep",
    "crow",
    "chirping_birds",
    "crickets",
)
SILENCE = 1e-4  # what stays below is the zero padding of an ESC-50 clip
FADE_SECONDS = 0.02


@found_below("meta.csv")
def prepare(source: Path, labels: str = "vocal", unlabelled: str = "") -> Tables:
    """Data folder -> clips, events, test clips and their true events; `labels`: vocal | syllables | songs (both).

    unlabelled: birds, joined by spaces, whose recordings of train and val come without labels, in unlabelled.csv; those
    of their test are left out.
    """
    source = Path(source)
    if labels not in LABELS:
        raise ValueError(f"unknown labels '{labels}'{suggest(labels, LABELS)}")
    meta = read_table(source / "meta.csv", META_COLUMNS)
    typed = (meta.individual == "bird0") & (meta.labelling == "typed")
    if labels == "syllables":
        meta, typed = meta[typed].reset_index(drop=True), typed[typed]
    raw = read_table(source / "events.csv", EVENT_COLUMNS)
    clips = _clips(meta)
    events = [] if labels == "syllables" else [_events(raw, "vocal")]
    if labels != "vocal":
        events += [_events(raw[raw.filename.isin(meta.filename[typed.to_numpy()])], "syllables")]
    events = pd.concat(events, ignore_index=True)
    clips["is_unsure"] = meta.filename.isin(raw.filename[raw.event_type == "unsure"]).astype(int)
    events = events[events.filename.isin(clips.clip_id)].sort_values(["filename", "onset"], kind="stable")
    syllables = sorted(set(events.event_label) - {VOCAL})
    if labels == "songs":
        clips["unknown_labels"] = np.where(typed.to_numpy(), "", " ".join(syllables))
    present_labels = events.groupby("filename").event_label.agg(lambda names: " ".join(sorted(set(names))))
    clips["labels"] = clips.clip_id.map(present_labels).fillna("")
    clips["annotated"] = 1  # whole recordings: one without a vocalisation is silent
    classes = syllables if labels == "syllables" else [VOCAL, *syllables]
    clips = located(clips, source)
    missing, clips = absent(clips, source), present(clips, source, "meta.csv")
    clips, silent = _without_labels(clips, unlabelled)
    events = events[events.filename.isin(clips.clip_id)]
    is_test = clips.split == "test"
    test_clips = clips[is_test].reset_index(drop=True)
    clips = clips[~is_test].reset_index(drop=True)
    clips["official_fold"] = clips.split.map(OFFICIAL_FOLD)
    if clips.official_fold.isna().any():
        raise ValueError(
            f"meta.csv has the split '{clips.split[clips.official_fold.isna()].iloc[0]}', not train, val, test"
        )
    in_test = events.filename.isin(test_clips.clip_id)
    truth = events[in_test].reset_index(drop=True)
    tested = {
        "test_clips": test_clips,
        "test": test_clips[["clip_id", "duration"]],
        "test_events": truth,
        "truth": truth,
    }
    return Tables(
        clips=clips.astype({"official_fold": int}), classes=classes, events=events[~in_test].reset_index(drop=True),
        missing=missing, unlabelled=silent, **(tested if len(test_clips) else {}),
    )  # fmt: skip


def _without_labels(clips: pd.DataFrame, birds: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Clips -> (those of the other birds, the recordings of these without what is heard in them; None of no bird)."""
    names = str(birds).split()
    known = sorted(clips.individual.unique())
    for name in names:
        if name not in known:
            raise ValueError(f"unlabelled names the bird '{name}'{suggest(name, known)}")
    if not names:
        return clips, None
    own = clips.individual.isin(names)
    if own.all():
        raise ValueError(f"unlabelled names every bird ({few(known)}): nothing would be left to train on")
    silent = clips.loc[own & (clips.split != "test"), ["clip_id", "path", "individual", "session", "duration"]]
    return clips[~own].reset_index(drop=True), silent.reset_index(drop=True)


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | None = None) -> pd.DataFrame:
    """Framewise predictions -> events `filename, onset, offset, event_label` of the recordings of `test`.

    A recording without an event has one row with its name only, as DCASE writes it; so has an unreadable one. The last
    frame of a network may reach past the end of a recording: events end where it ends.
    """
    require_columns(test, TEST_COLUMNS, "the test table")
    if predictions.framewise_output is None:
        raise ValueError("events need framewise outputs: predict with predict.keep_frames=true")
    post = PostProcess(threshold=0.5, iou_threshold=None) if post is None else post
    tables, ends = [], pd.to_numeric(test.duration, errors="coerce").to_numpy(float)
    ordered = predictions.aligned(test.clip_id)
    for i, clip_id in enumerate(ordered.clip_ids):
        frames, clipwise = ordered.framewise_output[i], ordered.clipwise_output[i]
        if ordered.unreadable[i]:
            frames = frames[:0]
        found = detect(frames, ordered.timebase, ordered.classes, str(clip_id), post, clipwise)
        if np.isfinite(end := ends[i]):
            found = found[found.onset < end]
            found = found.assign(offset=found.offset.clip(upper=end))
        tables.append(found if len(found) else pd.DataFrame({"filename": [str(clip_id)]}))
    return (
        pd.concat(tables, ignore_index=True).reindex(columns=list(SUBMISSION_COLUMNS)).round({"onset": 4, "offset": 4})
    )


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every recording of `test` is there, with events inside it and labels of `classes`."""
    require_columns(test, TEST_COLUMNS, "the test table")
    require_columns(submission, SUBMISSION_COLUMNS, "the submission")
    problems = []
    if lost := sorted(set(test.clip_id) - set(submission.filename)):
        problems.append(
            f"{plural(len(lost), 'recordings are')} not there (one row with the name only where there is no event): "
            f"{few(lost)}"
        )
    if extra := sorted(set(submission.filename) - set(test.clip_id)):
        problems.append(f"{plural(len(extra), 'recordings are')} not asked for: {few(extra)}")
    events = _real_events(submission)
    end = events.filename.map(test.set_index("clip_id").duration).fillna(np.inf) + COLLAR
    good = (events.onset >= 0) & (events.offset > events.onset) & (events.offset <= end)
    if not good.all():
        row = events[~good].iloc[0]
        problems.append(f"{plural((~good).sum(), 'events do')} not lie in their recording, such as {row.to_dict()}")
    if unknown := sorted(set(events.event_label.astype(str)) - set(classes)):
        problems.append(f"label '{unknown[0]}' is not a class{suggest(unknown[0], classes)}")
    if problems:
        raise ValueError("submission is not valid: " + "; ".join(problems))


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Event-based F1 (overall, and the mean over classes) with a collar of 50 ms, precision and recall."""
    classes = sorted(set(truth.event_label) | set(_real_events(submission).event_label))
    result = event_based_f1(
        truth, _real_events(submission), onset_collar=COLLAR, classes=classes, empty_system_output_handling="zero_score"
    )
    overall, average = result["overall"]["f_measure"], result["class_wise_average"]["f_measure"]
    return {
        "event_f1": overall["f_measure"], "event_f1_macro": average["f_measure"],
        "event_precision": overall["precision"], "event_recall": overall["recall"],
    }  # fmt: skip


def score_songs(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Scores of vocal activity and of syllables, each by `score`; `event_f1` is the mean of those that the truth has.

    Syllables are judged in the recordings in which the truth names some: of others nobody knows them.
    """
    found = _real_events(submission)
    result, there = {}, truth[truth.event_label != VOCAL]
    for name, true, own in (
        ("vocal", truth[truth.event_label == VOCAL], found[found.event_label == VOCAL]),
        ("syllables", there, found[(found.event_label != VOCAL) & found.filename.isin(set(there.filename))]),
    ):
        if len(true):
            result |= {f"{name}_{key}": value for key, value in score(own, true).items()}
    return {"event_f1": float(np.mean([v for k, v in result.items() if k.endswith("_event_f1")]))} | result


def mix_backgrounds(
    source: Path, out: Path, backgrounds: Path, snr_db: float = 0.0, mixed_splits: str = "train val test", seed: int = 0
) -> int:
    """Write the recordings over `backgrounds` (a folder of ESC-50) to `out`, of the same layout; returns how many.

    Backgrounds are clips that are no animal, of ESC-50 folds 1-3 for train, 4 for val, 5 for test: brought to one
    power, joined until they are as long as the recording. `snr_db`: mean power of the recording over its vocal events,
    over the mean power of the background. 32 kHz mono FLAC, scaled down as a whole where the sum would clip. The choice
    depends on (seed, recording) only. meta.csv gets the columns `snr_db` and `backgrounds`.

    mixed_splits: those that get a background; recordings of the others are written as they are. A training that lays
    other sounds under its clips each time (`augment.background`) wants its own clean, and finds in
    train_backgrounds.csv those that it may take.
    """
    if not abs(snr_db) <= LOUDEST_DB:
        raise ValueError(f"--snr-db must be from {-LOUDEST_DB} to {LOUDEST_DB}, got {snr_db}")
    source, out = Path(source), Path(out)
    meta = read_table(source / "meta.csv", META_COLUMNS)
    events = read_table(source / "events.csv", EVENT_COLUMNS)
    clips = _backgrounds(Path(backgrounds))
    splits, used = mixed_splits.split(), []
    for name in splits:
        if name not in BACKGROUND_FOLDS:
            raise ValueError(f"unknown split '{name}' to mix{suggest(name, BACKGROUND_FOLDS)}")
    for row in meta.itertuples():
        rng = np.random.default_rng([seed, zlib.crc32(Path(row.filename).stem.encode())])
        song = audio.load(source / row.filename, BACKGROUND_RATE)
        if row.split not in splits:
            audio.write(out / _mixed(row.filename), song, BACKGROUND_RATE)
            used.append("")
            continue
        own = events[(events.filename == row.filename) & (events.event_type == "vocal")]
        choice = clips[clips.fold.isin(BACKGROUND_FOLDS[row.split])].path.tolist()
        noise, names = join_backgrounds(choice, len(song), rng)
        mixture = mix_at_snr(song, noise, own.onset_s.to_numpy(), own.offset_s.to_numpy(), snr_db)
        audio.write(out / _mixed(row.filename), mixture, BACKGROUND_RATE)
        used.append(" ".join(names))
    level = [snr_db if names else np.nan for names in used]
    renamed = meta.assign(filename=meta.filename.map(_mixed), snr_db=level, backgrounds=used)
    of_train = clips[clips.fold.isin(BACKGROUND_FOLDS["train"])].path
    listed = pd.DataFrame({"clip_id": [p.stem for p in of_train], "path": [str(p.resolve()) for p in of_train]})
    write_csv(listed, out / "train_backgrounds.csv")
    write_csv(events.assign(filename=events.filename.map(_mixed)), out / "events.csv")
    write_csv(renamed, out / "meta.csv")
    return len(meta)


def mix_at_snr(song: np.ndarray, noise: np.ndarray, onset, offset, snr_db: float) -> np.ndarray:
    """Mix a song with noise at a given ratio of their powers.

    (S,), (S,) -> (S,): the song over noise at `snr_db` = power over the events [onset, offset) (s) : power of noise.

    Without events the power of the whole song counts. Peaks above 0.99 scale the sum down, which keeps the ratio.
    """
    inside = np.zeros(len(song), bool)
    for first, last in zip(onset, offset, strict=True):
        inside[round(first * BACKGROUND_RATE) : round(last * BACKGROUND_RATE)] = True
    heard = song[inside] if inside.any() else song
    power, noise_power = np.mean(heard.astype(np.float64) ** 2), np.mean(noise.astype(np.float64) ** 2)
    if noise_power == 0:
        raise ValueError("the background is silent: no level gives it a signal-to-noise ratio")
    mixture = song + noise * np.sqrt(power / noise_power * 10 ** (-snr_db / 10))
    return (mixture / max(1.0, np.abs(mixture).max() / 0.99)).astype(np.float32)


def join_backgrounds(paths: list[Path], n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Join background clips until they are as long as is asked.

    (S,) of clips drawn without repetition (until all are used), each of power 1, cross-faded; and their names.
    """
    fade = round(FADE_SECONDS * BACKGROUND_RATE)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    joined, names, order, tried_all = np.zeros(0, np.float32), [], [], False
    while len(joined) < n_samples:
        if not order:
            if tried_all and not names:
                raise ValueError(f"all {len(paths)} backgrounds are silent, such as {paths[0]}")
            order, tried_all = list(rng.permutation(len(paths))), True
        path = paths[order.pop()]
        clip = without_silence(audio.load(path, BACKGROUND_RATE))
        if len(clip) <= 2 * fade:
            continue
        clip = clip / np.sqrt(np.mean(clip**2))
        if len(joined):
            clip[:fade] = clip[:fade] * ramp + joined[-fade:] * ramp[::-1]
            joined = joined[:-fade]
        joined = np.concatenate([joined, clip])
        names.append(path.stem)
    return joined[:n_samples], names


def without_silence(waveform: np.ndarray, block_seconds: float = 0.05) -> np.ndarray:
    """Cut the digital silence out of a background clip.

    (S,) -> (S',): the blocks that hold any sound; ESC-50 fills short sounds up with digital silence.
    """
    size = round(block_seconds * BACKGROUND_RATE)
    blocks = np.pad(waveform, (0, -len(waveform) % size)).reshape(-1, size)
    return blocks[np.abs(blocks).max(axis=1) > SILENCE].ravel()


def _backgrounds(esc50: Path) -> pd.DataFrame:
    """ESC-50 folder -> `path, fold` of the clips that are no animal."""
    meta = read_table(find_meta(esc50), ("filename", "fold", "category"))
    meta = meta[~meta.category.isin(ANIMALS)]
    clips = pd.DataFrame({
        "path": [esc50 / (f if "/" in f else f"audio/{f}") for f in meta.filename], "fold": meta.fold.to_numpy(),
    })  # fmt: skip
    if absent_folds := sorted(set(range(1, 6)) - set(clips.fold)):
        raise ValueError(f"{esc50} has no background in ESC-50 fold {few(absent_folds)}; all five are needed")
    return clips


def _clips(meta: pd.DataFrame) -> pd.DataFrame:
    clips = meta[["species", "individual", "session", "split"]].copy()
    clips.insert(0, "clip_id", [Path(f).stem for f in meta.filename])
    clips.insert(1, "path", meta.filename)
    return clips.assign(labels="", duration=meta.duration_s)


def _events(raw: pd.DataFrame, labels: str) -> pd.DataFrame:
    raw = raw[raw.event_type == "vocal"]
    name = "vocal" if labels == "vocal" else "syl_" + raw.raw_label.astype(str)
    ids = raw.filename.map({f: Path(f).stem for f in raw.filename.unique()})
    return pd.DataFrame({"filename": ids, "onset": raw.onset_s, "offset": raw.offset_s, "event_label": name})


def _real_events(submission: pd.DataFrame) -> pd.DataFrame:
    """The rows that are events: those with an onset or a label (a name alone says that there is none)."""
    label = submission.event_label.fillna("").astype(str)
    return submission[submission.onset.notna() | (label != "")]


def _mixed(filename: str) -> str:
    return f"audio/{Path(filename).stem}.flac"


# ---- the variants

BACKGROUNDS = Remake(
    "mixed",
    (
        Flag("--backgrounds", Path, "mix over ESC-50, into <out>/mixed", metavar="ESC50"),
        Flag("--snr-db", float, "events over background (default 0)", 0.0),
        Flag("--mixed-splits", str, "which get one (default all); the others stay clean", "train val test", "SPLITS"),
    ),
    mix_backgrounds,
)
_SHARED = {"rows": rows, "validate": validate, "remake": BACKGROUNDS, "post": BIRDS, "frame_score": psds_of_frames}
_ONE_TASK = {"score": score, "oof_score": of_events("event_f1", score)}
_BOTH = {"score": score_songs, "oof_score": of_events("event_f1", score_songs)}
EDITIONS = by_name(
    Competition(name="finch_vocal", prepare=partial(prepare, labels="vocal"), **_SHARED, **_ONE_TASK),
    Competition(name="finch_syllables", prepare=partial(prepare, labels="syllables"), **_SHARED, **_ONE_TASK),
    Competition(name="finch_songs", prepare=partial(prepare, labels="songs"), **_SHARED, **_BOTH),
)

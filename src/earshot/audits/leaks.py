"""What a fold or the test shares with the training, found in the tables and in the sounds themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.audits.fingerprints import Fingerprint, same_sound
from earshot.audits.same_waveform import COPY
from earshot.data import pseudo
from earshot.data.folds import TRAIN_ONLY
from earshot.data.names import NOBODY, clean_names
from earshot.messages import plural

TEST = "test"
PERHAPS = "perhaps "  # how a kind begins where it is not sure that the leak is there
PEOPLE = ("group", "author", "recordist", "identifier", "sensor_id", "individual")
PLACES = ("site", "location", "city")
RECORDINGS = ("recording", "recording_id", "src_file", "source_label", "freesound_id", "xc_id", "url")


@dataclass(frozen=True)
class Leak:
    """One thing that two folds, or training and test, share. grave: it raises scores for sure."""

    kind: str
    what: str
    where: str
    clips: tuple[str, ...]
    grave: bool = True


def leaks_of(
    clips: pd.DataFrame, folds: pd.DataFrame, prints: list[Fingerprint | None], test: pd.DataFrame | None = None,
    test_prints: Sequence[Fingerprint | None] = (),
) -> list[Leak]:  # fmt: skip
    """Every leak between folds, and between training and test.

    clips: the clip table; folds: its fold table in the same order; prints: a fingerprint each; test: `clip_id, ...`
    """
    clips = clips.reset_index(drop=True).assign(fold=folds.fold.to_numpy())
    found = of_sounds(clips, prints, test, test_prints)
    found += of_content(clips, test)
    found += of_columns(clips, PEOPLE, "one source in two folds", grave=True)
    found += of_columns(clips, RECORDINGS, "one recording in two folds", grave=True)
    found += of_columns(clips, PLACES, "one place in two folds", grave=False)
    found += of_file_names(clips)
    found += of_test_columns(clips, test)
    return found


def of_sounds(clips, prints, test, test_prints) -> list[Leak]:
    """The same sound in two folds, in training and test, and under two labels."""
    n = len(clips)
    pairs, found = same_sound([*prints, *test_prints]), []
    names = [*clips.clip_id.astype(str), *([] if test is None else test.clip_id.astype(str))]
    for pair in pairs.itertuples():
        both = names[pair.a], names[pair.b]
        told, sure = _alike(pair), not pair.likeness < COPY
        perhaps = "" if sure else PERHAPS
        if pair.b >= n:
            if pair.a < n:
                found.append(Leak(f"{perhaps}a sound of the test in training", told, TEST, both, grave=sure))
            continue
        a, b = clips.fold[pair.a], clips.fold[pair.b]
        if a != b and TRAIN_ONLY not in (a, b):
            found.append(Leak(f"{perhaps}one sound in two folds", told, f"folds {a}, {b}", both, grave=sure))
        elif a != b:
            found.append(Leak(f"{perhaps}a held-out sound always trains", told, f"fold {max(a, b)}", both, grave=sure))
        if "labels" in clips and clips.labels[pair.a] != clips.labels[pair.b]:
            labels = f"{clips.labels[pair.a] or 'nothing'}, {clips.labels[pair.b] or 'nothing'}; {told}"
            found.append(Leak(f"{perhaps}one sound under two labels", labels, f"folds {a}, {b}", both, grave=False))
    return found


def _alike(pair) -> str:
    """What two recordings have in common, in words: a row of `same_sound`."""
    waveforms = "" if np.isnan(pair.likeness) else f", waveforms {pair.likeness:.2f} alike"
    return f"{plural(pair.matches, 'pairs')} of peaks alike{waveforms}, {abs(pair.delay):.2f} s apart"


def of_content(clips: pd.DataFrame, test: pd.DataFrame | None) -> list[Leak]:
    """The same samples (prepare.py --check-audio) in two folds, or in training and test: silence and noise too."""
    if "content_hash" not in clips:
        return []
    found = of_columns(clips, ("content_hash",), "the same samples in two folds", grave=True)
    if test is not None and "content_hash" in test:
        known = clips.dropna(subset="content_hash").drop_duplicates("content_hash").set_index("content_hash").clip_id
        shared = test[test.content_hash.isin(known.index)]
        found += [
            Leak("the same samples in training and test", str(row.content_hash), TEST,
                 (str(known[row.content_hash]), str(row.clip_id)))
            for row in shared.itertuples()
        ]  # fmt: skip
    return found


def of_columns(clips: pd.DataFrame, columns: Sequence[str], kind: str, grave: bool) -> list[Leak]:
    """Values of these columns that two held-out folds share, in any spelling of spaces and cases."""
    found = []
    for column in columns:
        if column not in clips:
            continue
        values = clean_names(clips[column]).str.casefold()
        known = clips[(values != "") & ~values.isin(NOBODY) & (clips.fold != TRAIN_ONLY)].assign(value=values)
        for value, rows in known.groupby("value"):
            if rows.fold.nunique() > 1:
                at = " ".join(str(f) for f in sorted(rows.fold.unique()))
                found.append(Leak(kind, f"{column} {value}", f"folds {at}", tuple(rows.clip_id.astype(str)), grave))
    return found


def of_file_names(clips: pd.DataFrame) -> list[Leak]:
    """Clips whose names differ by a part's number alone (rec_part1, rec_part2; XC123-0, XC123-1) in two folds."""
    stems = clips.clip_id.astype(str).map(lambda name: re.sub(r"([-_ .](part|seg|chunk|clip|take)?\d{1,3})$", "", name))
    if "group" in clips or stems.nunique() < 2 or stems.nunique() == len(clips):
        return []  # a group column says better what belongs together
    share = stems.duplicated(keep=False).mean()
    if stems.value_counts().max() > 0.2 * len(clips) or share > 0.9:
        return []  # numbered throughout: names say nothing
    found = []
    for stem, rows in clips[clips.fold != TRAIN_ONLY].assign(stem=stems).groupby("stem"):
        if rows.fold.nunique() > 1:
            at = " ".join(str(f) for f in sorted(rows.fold.unique()))
            found.append(Leak("parts of one file, by their names, in two folds", stem, f"folds {at}",
                              tuple(rows.clip_id.astype(str)), grave=False))  # fmt: skip
    return found


def of_test_columns(clips: pd.DataFrame, test: pd.DataFrame | None) -> list[Leak]:
    """Recordings that training and test name alike, by their ids or the columns of recordings."""
    if test is None:
        return []
    found = []
    for column in ("clip_id", *RECORDINGS):
        if column not in clips or column not in test:
            continue
        own, other = clean_names(clips[column]).str.casefold(), clean_names(test[column]).str.casefold()
        for value in sorted((set(own) & set(other)) - {"", *NOBODY}):
            rows = (*clips.clip_id[own == value].astype(str), *test.clip_id[other == value].astype(str))
            found.append(Leak("one recording in training and test", f"{column} {value}", TEST, rows))
    return found


def of_targets(lineage: dict, clips: pd.DataFrame, folds_sha256: str) -> list[Leak]:
    """Soft targets (data/soft_targets.py) whose teacher heard the clips that it labelled for the folds they train.

    folds_sha256: hash of the fold table now; labels that were honest for another one are not for this.
    """
    if lineage.get("mode") == "honest" and lineage.get("folds_sha256") in ("", None, folds_sha256):
        return []
    honest = lineage.get("mode") == "honest"
    kind = "labels made for another fold table" if honest else "labels made by a teacher that trained on the clip"
    return [Leak(kind, str(lineage.get("by", "an unknown teacher")), "every fold", tuple(clips.clip_id.astype(str)))]


def of_pseudo(
    folder: str | Path, clips: pd.DataFrame, folds: pd.DataFrame, source: str | Path, tables_folds: str = "",
    test: pd.DataFrame | None = None,
) -> list[Leak]:  # fmt: skip
    """Pseudo-labels (data/pseudo.py) that tell a fold, or the test, of what it is scored on.

    clips: the clip table; folds: its fold table in the same order; tables_folds: digest of the fold table now.
    """
    manifest = pseudo.read_manifest(folder)
    clips, found = clips.reset_index(drop=True).assign(fold=folds.fold.to_numpy()), []
    if "group" in folds:
        clips["group"] = folds.group.to_numpy()
    said = f"{folder} by {', '.join(manifest.runs)}"
    if tables_folds and manifest.tables.folds != tables_folds:
        everyone = tuple(clips.clip_id[clips.fold != TRAIN_ONLY].astype(str))
        found.append(Leak("pseudo-labels made for another fold table", said, "every fold", everyone))
    of_test: dict[tuple, list[int]] = {}  # the test's recordings -> the folds that they train
    for fold in manifest.folds:
        held = clips[clips.fold == fold]
        at = f"fold {fold}"
        if reasons := pseudo.why_not_isolated(manifest, fold):
            kind, told = "pseudo-labels by a teacher that heard the held-out clips", f"{said}: {'; '.join(reasons)}"
            found.append(Leak(kind, told, at, tuple(held.clip_id.astype(str))))
        windows = pseudo.read_windows(folder, fold)
        for kind, some, same_clip in (
            ("pseudo-labels of a fold's own recordings", held, False),
            ("pseudo-labels of clips that have labels", clips[clips.fold != fold], True),
        ):
            if shared := pseudo.of_recordings(windows, manifest.source, some, source, same_clip):
                found.append(Leak(kind, said, at, tuple(shared)))
        if test is not None and (shared := pseudo.of_recordings(windows, manifest.source, test, source, True)):
            of_test.setdefault(tuple(shared), []).append(fold)
    for shared, trained in of_test.items():
        told = f"{said}, for fold{'s' * (len(trained) > 1)} {' '.join(map(str, trained))}"
        found.append(Leak("pseudo-labels of the test's recordings", told, TEST, shared))
    return found


def of_pseudo_sounds(
    folder: str | Path, ids: Sequence[str], own_prints: Sequence[Fingerprint | None], clips: pd.DataFrame,
    folds: pd.DataFrame, prints: Sequence[Fingerprint | None],
) -> list[Leak]:  # fmt: skip
    """Pseudo-labelled recordings that sound as clips do which the fold that they train holds out.

    ids, own_prints: the recordings of the pseudo-labels with a fingerprint each; prints: one of each clip.
    """
    manifest, n, found = pseudo.read_manifest(folder), len(clips), []
    trained = {fold: set(pseudo.read_windows(folder, fold).clip_ids.tolist()) for fold in manifest.folds}
    fold_of = folds.fold.to_numpy()
    for pair in same_sound([*prints, *own_prints]).itertuples():
        if pair.a >= n or pair.b < n:
            continue
        fold, name = int(fold_of[pair.a]), str(ids[pair.b - n])
        if name in trained.get(fold, ()):
            told, sure = f"{folder}: {_alike(pair)}", not pair.likeness < COPY
            both, kind = (str(clips.clip_id.iloc[pair.a]), name), "a held-out sound among its fold's pseudo-labels"
            found.append(Leak(kind if sure else PERHAPS + kind, told, f"fold {fold}", both, grave=sure))
    return found


def surest_first(found: Sequence[Leak]) -> list[Leak]:
    """What raises scores, then what may, then what is only perhaps there at all."""
    return sorted(found, key=lambda leak: (not leak.grave, leak.kind.startswith(PERHAPS)))


def by_kind(found: Sequence[Leak]) -> pd.DataFrame:
    """`kind, leaks, clips, grave`, the gravest and most frequent first."""
    rows = [
        (kind, len(some), len({c for leak in some for c in leak.clips}), any(leak.grave for leak in some))
        for kind in dict.fromkeys(leak.kind for leak in found)
        if (some := [leak for leak in found if leak.kind == kind])
    ]
    table = pd.DataFrame(rows, columns=["kind", "leaks", "clips", "grave"])
    return table.sort_values(["grave", "leaks"], ascending=False, kind="stable", ignore_index=True)


def duplicates_together(clips: pd.DataFrame, prints: list[Fingerprint | None]) -> pd.Series:
    """Group clips so that those of one sound stay together: (N,) the table's own groups, joined by shared sounds."""
    own = clean_names(clips.group) if "group" in clips else pd.Series("", index=clips.index)
    names = own.where(own != "", clips.clip_id.astype(str)).to_numpy(object)
    parent = {name: name for name in names}

    def root(name):
        while parent[name] != name:
            name = parent[name]
        return name

    for pair in same_sound(prints).itertuples():
        a, b = root(names[pair.a]), root(names[pair.b])
        parent[max(a, b)] = min(a, b)
    return pd.Series([root(name) for name in names], index=clips.index, dtype=object)

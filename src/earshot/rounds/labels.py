"""From answers to a folder of pseudo-labels: for each fold its own choice, without the recordings that it holds out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import files, runs
from earshot.data import pseudo
from earshot.data.pseudo import ISOLATED, Manifest, PseudoLabels, files_of, joined, recording_keys
from earshot.records import to_dict
from earshot.rounds.choosing import Candidates, Choice, choose
from earshot.rounds.hearing import shards
from earshot.rounds.teachers import Teachers, labelled_mass


def held_out_rows(table: pd.DataFrame, root: Path, teachers: Teachers, fold: int) -> np.ndarray:
    """Say which recordings, (N,), are of clips that a fold holds out: the same file, clip, recording or group."""
    own = teachers.data.clips[(teachers.data.clips.fold == fold).to_numpy()]
    if not len(own):
        return np.zeros(len(table), bool)
    keys = set().union(*recording_keys(own))
    held = set(files_of(own.path, teachers.data.source))
    both = zip(files_of(table.path, root), recording_keys(table), strict=True)
    return np.array([file in held or not keys.isdisjoint(of_row) for file, of_row in both], bool)


def candidates(folder: Path, count: int, place: int, asked: Choice, out: np.ndarray, site: np.ndarray) -> tuple:
    """Find the windows of one fold that are sure enough -> (Candidates, (N, 2) shard and position of each).

    place: the fold's place in the shards; out: (R,) recordings that may not train it; site: (R,) numbers.
    """
    parts, where = [], []
    for number, shard in enumerate(shards(folder, count)):
        answers = shard.answers[place].astype(np.float32)
        confidence = answers.max(axis=1, initial=0)
        kept = np.flatnonzero((confidence >= asked.min_confidence) & ~out[shard.recording])
        parts.append((
            confidence[kept], answers[kept].argmax(axis=1) if len(kept) else kept, shard.recording[kept],
            asked.targets(answers[kept]).sum(axis=1, dtype=np.float64),
        ))  # fmt: skip
        where.append(np.stack([np.full(len(kept), number), kept], axis=1))
    confidence, top, recording, mass = (np.concatenate([p[i] for p in parts]) for i in range(4))
    found = Candidates(confidence=confidence, top=top, recording=recording, site=site[recording], mass=mass)
    return found, np.concatenate(where)


def gather(
    folder: Path, count: int, place: int, asked: Choice, where: np.ndarray, table: pd.DataFrame, seconds: float
) -> PseudoLabels:  # fmt: skip
    """The chosen windows (shard, position) of one fold, in their recordings' order, with their targets."""
    rows, windows, targets, confidence = [], [], [], []
    for number, shard in enumerate(shards(folder, count)):
        own = np.sort(where[where[:, 0] == number, 1])
        answers = shard.answers[place][own].astype(np.float32)
        rows.append(shard.recording[own])
        windows.append(shard.window[own])
        confidence.append(answers.max(axis=1, initial=0))
        targets.append(asked.targets(answers).astype(np.float16))
    row, window = np.concatenate(rows), np.concatenate(windows)
    keys = joined(recording_keys(table.iloc[np.unique(row)]))
    return PseudoLabels(
        clip_ids=table.clip_id.to_numpy(str)[row], paths=table.path.to_numpy(str)[row], starts=window * seconds,
        target=np.concatenate(targets), confidence=np.concatenate(confidence),
        keys=keys[np.unique(row, return_inverse=True)[1]] if len(row) else np.zeros(0, str),
    )  # fmt: skip


def make_labels(
    teachers: Teachers, table: pd.DataFrame, root: Path, sites: pd.Series, asked: Choice, answers: Path, count: int
) -> tuple[Manifest, dict[int, PseudoLabels], dict[int, dict]]:  # fmt: skip
    """Choose each fold's windows among its teachers' answers -> (manifest, {fold: windows}, {fold: figures})."""
    numbers, _ = pd.factorize(sites.where(sites != ""))
    chosen, figures, masses = {}, {}, {}
    seconds = teachers.windowing.window_seconds
    for place, fold in enumerate(teachers.members):
        out = held_out_rows(table, root, teachers, fold)
        labels = labelled_mass(teachers.data, fold)
        found, where = candidates(answers, count, place, asked, out, numbers)
        taken = choose(found, asked, labels)
        chosen[fold] = gather(answers, count, place, asked, where=where[taken], table=table, seconds=seconds)
        masses[str(fold)] = [chosen[fold].mass, labels]
        figures[fold] = {
            "windows": len(taken), "sure": len(found), "held_out_recordings": int(out.sum()),
            "recordings": len(np.unique(chosen[fold].clip_ids)), "mass": chosen[fold].mass, "labels": labels,
            "classes": len(np.unique(found.top[taken])),
        }  # fmt: skip
    manifest = Manifest(
        mode=ISOLATED, classes=teachers.classes, window_seconds=seconds, source=str(root),
        folds_table=teachers.runs[0].config.data.folds, tables=teachers.tables,
        teachers={str(fold): origins for fold, origins in teachers.origins.items()}, masses=masses,
        settings=to_dict(asked), lineage=teachers.lineage, commit=runs.git_commit(),
    )  # fmt: skip
    return manifest, chosen, figures


def write(out: Path, manifest: Manifest, chosen: dict[int, PseudoLabels], unreadable: list[dict]):
    """The folder of pseudo-labels; the manifest comes last. windows.csv is for people."""
    gone = [path.name for path in out.glob("fold*.npz")]
    with files.whole_set(out, pseudo.FILE, without=[*gone, "unreadable.csv"]) as partial:
        for fold, windows in chosen.items():
            with open(pseudo.fold_file(partial, fold), "wb") as file:
                np.savez_compressed(file, **windows.arrays)
        files.write_rows(partial / "windows.csv", rows_of(manifest, chosen), COLUMNS)
        if unreadable:
            files.write_rows(partial / "unreadable.csv", unreadable)
        about = dataclasses.asdict(manifest)
        files.write_text(partial / pseudo.FILE, files.as_json(about, indent=1) + "\n")


COLUMNS = ("fold", "clip_id", "path", "start", "end", "label", "confidence", "mass")


def rows_of(manifest: Manifest, chosen: dict[int, PseudoLabels]) -> list[dict]:
    """A row a fold and window, for people."""
    return [
        {"fold": fold, "clip_id": w.clip_ids[i], "path": w.paths[i], "start": round(float(w.starts[i]), 3),
         "end": round(float(w.starts[i]) + manifest.window_seconds, 3),
         "label": manifest.classes[int(w.target[i].argmax())], "confidence": round(float(w.confidence[i]), 4),
         "mass": round(float(w.target[i].sum(dtype=np.float64)), 3)}
        for fold, w in chosen.items() for i in range(len(w))
    ]  # fmt: skip

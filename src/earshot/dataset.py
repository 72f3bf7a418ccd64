"""A prepared data folder as tables, and the training examples cut from it.

The random stream of an example depends on (seed, epoch, index of the clip, how often the epoch had it before) and
nothing else: not on the worker or the process. So a resumed run equals one that was never stopped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from earshot import audio
from earshot.augment.waveform import apply as apply_waveform
from earshot.cache import LogmelCache, waveform_cache
from earshot.cache_embedding import EmbeddingCache
from earshot.cache_packed import packed_clips
from earshot.competitions.tables import read_dataset
from earshot.config import DataConfig
from earshot.folds import read_folds, select_fold
from earshot.labels import (
    clip_metadata,
    clip_targets,
    crop_targets,
    frame_targets,
    negative_events,
    read_classes,
    read_clips,
    read_table,
)
from earshot.logmel import LogmelParams, n_frames, silence_db
from earshot.predictions import Clip
from earshot.sampling import ClassTurns, epoch_order, stratified_share
from earshot.spelling import suggest
from earshot.timebase import TimeBase

MAX_SUBSTITUTES = 20  # unreadable clips in a row before training gives up

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class PreparedData:
    """What prepare.py and make_folds.py wrote, joined: N clips in the order of the fold table."""

    clips: pd.DataFrame  # clip_id, path, labels, fold, ...
    classes: list[str]
    source: Path  # paths of the clip table are relative to it
    target: np.ndarray  # (N, K), uint8 where every value is 0 or 1: 2 million clips of 527 classes are 1 GB
    mask: np.ndarray  # (N, K), 0 = unknown
    events: pd.DataFrame | None
    whole: pd.DataFrame  # clip_id, path of every clip of the data set, whichever of them are taken: for caches
    metadata: tuple[str, ...] = ()  # numeric columns of `clips` that the network takes

    def take(self, index: np.ndarray) -> PreparedData:
        """The clips at `index`; events stay whole."""
        index = np.arange(len(self.clips))[index]
        clips = self.clips.iloc[index].reset_index(drop=True)
        return replace(self, clips=clips, target=self.target[index], mask=self.mask[index])

    def split(self, fold: int, folds_path: str) -> tuple[PreparedData, PreparedData]:
        """(training clips, held-out clips) of a fold."""
        held_out = select_fold(self.clips, fold, folds_path)
        return self.take(~held_out), self.take(held_out)

    def share(self, share: float, seed: int) -> PreparedData:
        """`share` (0 ... 1] of the clips, of every class about as much; a smaller share is part of a larger one."""
        return self if share >= 1 else self.take(np.sort(stratified_share(self.target > 0.5, share, seed)))

    def limit(self, clips_per_class: int, seed: int) -> PreparedData:
        """So many clips of each class, the seed's first ones, so that more add to fewer; 0: all.

        A clip of several classes stays if it is among the first of any of them, which then may have more. A class of
        fewer clips keeps them all; clips without a label go.
        """
        if not clips_per_class:
            return self
        order = np.random.default_rng([seed, 0xFE3]).permutation(len(self.clips))
        positive = self.target[order] > 0.5
        first = (positive & (positive.cumsum(axis=0) <= clips_per_class)).any(axis=1)
        return self.take(np.sort(order[first]))

    def recordings(self) -> list[Clip]:
        """The clips as inference takes them."""
        clips = [Clip(c, self.source / p) for c, p in zip(self.clips.clip_id, self.clips.path)]
        if not self.metadata:
            return clips
        values = clip_metadata(self.clips, self.metadata)
        return [replace(c, metadata=v) for c, v in zip(clips, values, strict=True)]

    def clip_events(self, clip_ids) -> pd.DataFrame | None:
        """True events of the given clips (an expert's false positives are none)."""
        if self.events is None:
            return None
        events = self.events[self.events.filename.isin(set(clip_ids))]
        return events[~negative_events(events)]


def load_data(data: DataConfig) -> PreparedData:
    """Read the tables that a config names and join them; every inconsistency is an error that names clip and file."""
    root = Path(data.root)
    clips, classes = read_clips(root / "clips.csv"), read_classes(data.classes or root / "classes.csv")
    folds = read_folds(data.folds, clips)
    clips = clips.drop(columns=[c for c in ("group", "fold") if c in clips])
    clips = folds[["clip_id", "group", "fold"]].merge(clips, on="clip_id", validate="one_to_one")
    clips, classes = _chosen(_drop_unusable(clips, data), classes, data.where)
    if data.cache == "packed":
        source = read_dataset(root)["source"]
        clips = packed_clips(
            root / "cache", clips, source, data.sample_rate, data.pack_seconds, data.workers, logger.warning
        )
    whole = "secondary_labels" not in clips or data.secondary_weight in (-1, 0, 1)
    target, mask = clip_targets(clips, classes, data.secondary_weight, np.uint8 if whole else np.float32)
    events = None
    if (root / "events.csv").is_file():
        events = read_table(root / "events.csv", ("filename", "onset", "offset", "event_label"))
        events = events.sort_values(["filename", "onset"], kind="stable").reset_index(drop=True)
    for needs in ("crop=box", "frame_targets=True", "targets=events", "false_positives=True"):
        key, value = needs.split("=")
        if str(getattr(data, key)) == value and events is None:
            raise ValueError(f"data.{needs} needs {root / 'events.csv'}, which this competition does not have")
    source, whole = Path(read_dataset(root)["source"]), clips[["clip_id", "path"]]
    clip_metadata(clips, data.metadata, root / "clips.csv")
    return PreparedData(clips, classes, source, target, mask, events, whole, data.metadata)


def _chosen(clips: pd.DataFrame, classes: list[str], where: dict[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """The clips whose columns have the values of `where`, and the classes that these clips have."""
    if not where:
        return clips, classes
    for column, value in where.items():
        if column not in clips:
            raise ValueError(f"data.where names column '{column}'{suggest(column, clips.columns)}, not in clips.csv")
        values = clips[column].astype(str)
        if not (values == value).any():
            raise ValueError(f"data.where: no clip has {column} '{value}'{suggest(value, sorted(set(values)))}")
        clips = clips[values == value]
    used = set(" ".join(clips.labels.fillna("")).split())
    return clips.reset_index(drop=True), [c for c in classes if c in used]


def _drop_unusable(clips: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Leave out, and count aloud, clips that carry no statement: no label, unless that says something here."""
    if data.keep_unlabelled or data.false_positives or data.targets == "events":
        return clips
    empty = clips.labels.fillna("").str.strip() == ""
    if empty.any():
        logger.warning("%d of %d clips have no label and are left out", empty.sum(), len(clips))
    return clips[~empty].reset_index(drop=True)


class ShorterThanPromised(Exception):
    """A crop of a damaged recording has less sound than the recording's length leaves room for."""


class TrainingClips(torch.utils.data.Dataset):
    """Map (epoch, index[, repeat]) -> one training example (dict of arrays; contract 2 of the design)."""

    def __init__(
        self, prepared: PreparedData, data: DataConfig, frontends: dict[str, LogmelParams], seed: int,
        waveform_augment=None, cache_folder: Path = Path("data/cache"), embeddings: EmbeddingCache | None = None,
    ):  # fmt: skip
        """embeddings: given in place of a waveform (data.cache=embedding)."""
        self.embeddings = embeddings
        self.prepared, self.data, self.frontends, self.seed = prepared, data, frontends, seed
        self.augment = waveform_augment
        self.target, self.mask = prepared.target, prepared.mask
        if data.shuffle_labels:
            order = np.random.default_rng([seed, 0xC0]).permutation(len(prepared.clips))
            self.target, self.mask = self.target[order], self.mask[order]
        self.paths = prepared.clips.path.to_numpy()  # below prepared.source, or absolute
        self.caches: dict[str, LogmelCache] = {}
        if data.cache == "waveform":
            cached = waveform_cache(cache_folder, prepared.whole, prepared.source, data.sample_rate)
            self.paths = cached.set_index("clip_id").path[prepared.clips.clip_id].to_numpy()
        elif data.cache == "logmel":
            for name, params in frontends.items():
                whole, source = prepared.whole, prepared.source  # so that all folds share it
                self.caches[name] = LogmelCache.build(cache_folder, whole, source, params, data.sample_rate)
        self.turns = ClassTurns(self.target > 0.5) if data.sampler == "balanced" else None
        self.event_rows = _event_rows(prepared)
        self.first_params = next(iter(frontends.values())) if frontends else None

    def __len__(self) -> int:
        return len(self.prepared.clips)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) indices of the clips that an epoch hears, in turn, by the config's sampler."""
        return self.turns.order(self.seed, epoch) if self.turns else epoch_order(len(self), self.seed, epoch)

    def __getitem__(self, key: tuple[int, ...]) -> dict:
        """An unreadable clip is replaced by the next readable one and reported under `unreadable`."""
        epoch, index, repeat = (*key, 0)[:3]
        unreadable = []
        for attempt in range(min(MAX_SUBSTITUTES, len(self))):
            now = (index + attempt) % len(self)
            try:
                example = self._heard_example(now, [self.seed, epoch, now, repeat])
            except audio.UnreadableAudio as error:
                unreadable.append((self.prepared.clips.clip_id[now], str(error)))
                continue
            return example | {"clip_id": self.prepared.clips.clip_id[now], "unreadable": unreadable}
        raise ValueError(
            f"{len(unreadable)} clips in a row could not be read, the last: {unreadable[-1][1]}; "
            "check dataset.json's source folder and prepare.py's unreadable.csv"
        )

    def _heard_example(self, index: int, seed: list[int]) -> dict:
        """An example of what the clip really holds: where its crop falls behind damage it is drawn again, before it.

        Whether the damage was known before makes no difference to what is drawn.
        """
        try:
            return self._example(index, np.random.default_rng(seed))
        except ShorterThanPromised:
            return self._example(index, np.random.default_rng(seed), decoded=True)

    def _example(self, index: int, rng: np.random.Generator, decoded: bool = False) -> dict:
        if self.embeddings is not None:
            embedding = self._embedding(index, rng)
            return {"embedding": embedding, "target": self.target[index], "mask": self.mask[index]}
        rate, crop = self.data.sample_rate, round(self.data.crop_seconds * self.data.sample_rate)
        n_samples = self._n_samples(index, decoded)
        start, only_annotated = self._start(index, n_samples, crop, rng)
        pad = int(rng.integers(crop - n_samples + 1)) if n_samples < crop and self.data.crop != "full" else 0
        if self.caches:
            inputs, start = self._cached(index, start, pad, crop)
        else:
            promised = 0 if decoded or self.data.crop == "full" else min(crop, n_samples - start)
            inputs = {"waveform": self._waveform(index, start, pad, crop, rng, promised)}
        heard_from = (start - pad) / rate
        target, mask = self._targets(index, heard_from, heard_from + crop / rate, only_annotated)
        example = inputs | {"target": target, "mask": mask}
        if self.data.frame_targets:
            base = TimeBase(rate, self.first_params.hop_length)
            example["frame_target"] = frame_targets(
                self._events(index), self.prepared.classes, heard_from, base, base.n_frames(crop),
                self.data.frame_margin_seconds,
            )  # fmt: skip
        if self.data.metadata:
            example["metadata"] = self.prepared.clips.loc[index, list(self.data.metadata)].to_numpy(np.float32)
        return example

    def _path(self, index: int) -> Path:
        return self.prepared.source / self.paths[index]

    def _n_samples(self, index: int, decoded: bool = False) -> int:
        """Length of the clip at the data's rate, by its header or by decoding."""
        if self.caches:
            length = next(iter(self.caches.values())).n_samples(self.prepared.clips.clip_id[index])
            if not length:
                raise audio.UnreadableAudio(f"{self._path(index)} is listed as unreadable in the log-mel cache")
            return length
        info = (audio.decoded_info if decoded else audio.info)(self._path(index))
        return max(1, round(info.n_samples * self.data.sample_rate / info.sample_rate))

    def _start(self, index: int, n_samples: int, crop: int, rng) -> tuple[int, bool]:
        """First sample of the crop, and whether classes without a statement are to be masked."""
        last = max(0, n_samples - crop)
        if self.data.crop == "full":
            return 0, False
        if self.data.crop == "random":
            return int(rng.integers(last + 1)), False
        events = self._events(index)
        if not self.data.false_positives:
            events = events[~negative_events(events)]
        if not len(events):
            return int(rng.integers(last + 1)), False
        box = events.iloc[int(rng.integers(len(events)))]
        centre = (box.onset + box.offset) / 2 * self.data.sample_rate
        start = centre - crop / 2 + self.data.box_jitter * (rng.random() - 0.5) * crop
        return int(np.clip(round(start), 0, last)), bool(box.get("is_negative", 0))

    def _waveform(self, index, start, pad, crop, rng, promised: int) -> np.ndarray:
        """(crop,) samples; ShorterThanPromised where decoding gives fewer than `promised` of the clip."""
        rate = self.data.sample_rate
        waveform = audio.load(self._path(index), rate, start / rate, crop / rate)
        if len(waveform) < promised - audio.ROUNDING_SAMPLES:
            raise ShorterThanPromised
        waveform = audio.crop_or_pad(waveform, crop, 0, pad if len(waveform) + pad <= crop else 0)
        return apply_waveform(self.augment, waveform, rate, rng) if self.augment is not None else waveform

    def _cached(self, index, start, pad, crop) -> tuple[dict, int]:
        """Crops of the cached log-mels (1, T, F), and the crop's start moved to a whole frame."""
        inputs = {}
        for name, params in self.frontends.items():
            frames = self.caches[name][self.prepared.clips.clip_id[index]]
            hop, length = params.hop_length, n_frames(crop, params)
            first = start // hop
            out = np.full((length, params.n_mels), silence_db(params), np.float32)
            piece = frames[first : first + length - pad // hop]
            out[pad // hop : pad // hop + len(piece)] = piece
            inputs[name] = out[None]
        return inputs, start // hop * hop

    def _embedding(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """(D,) of the clip's first segment, with crop=random of any of them."""
        segments = self.embeddings[self.prepared.clips.clip_id[index]]
        if not len(segments):
            raise audio.UnreadableAudio(f"{self.paths[index]} is listed as unreadable in the embedding cache")
        return np.array(segments[0 if self.data.crop == "full" else rng.integers(len(segments))])

    def _targets(self, index, start, end, only_annotated) -> tuple[np.ndarray, np.ndarray]:
        if self.data.crop != "box" and self.data.targets == "labels":
            return self.target[index].astype(np.float32), self.mask[index].astype(np.float32)
        return crop_targets(
            self._events(index), self.prepared.classes, start, end, self.data.min_overlap_seconds, only_annotated
        )

    def _events(self, index: int) -> pd.DataFrame:
        first, stop = self.event_rows[index]
        return self.prepared.events.iloc[first:stop]


def _event_rows(prepared: PreparedData) -> np.ndarray:
    """(N, 2) first and stop row of each clip in the sorted event table."""
    if prepared.events is None:
        return np.zeros((len(prepared.clips), 2), int)
    names, ids = prepared.events.filename.to_numpy(str), prepared.clips.clip_id.to_numpy(str)
    return np.stack([np.searchsorted(names, ids, "left"), np.searchsorted(names, ids, "right")], axis=1)


def collate(examples: list[dict]) -> dict:
    """Examples -> batch: arrays stacked to tensors, ids and reports as lists."""
    batch = {"clip_id": [e["clip_id"] for e in examples], "unreadable": [u for e in examples for u in e["unreadable"]]}
    for key in examples[0]:
        if key not in batch:
            batch[key] = torch.from_numpy(np.stack([e[key] for e in examples]))
    return batch

"""A prepared data folder (what prepare.py and make_folds.py wrote) joined to one table of clips with targets."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.config import DataConfig
from earshot.data.dataset import read_dataset
from earshot.data.digests import table_digests
from earshot.data.event_checks import checked_events
from earshot.data.folds import TRAIN_ONLY, read_folds, select_fold
from earshot.data.labels import (
    annotated_clips,
    clip_metadata,
    clip_targets,
    distinct_labels,
    heard_shares,
    negative_events,
    read_classes,
    read_clips,
    sample_weights,
    split_classes,
)
from earshot.data.packed import packed_clips
from earshot.data.pseudo import Manifest, PseudoLabels, read_pseudo
from earshot.data.sampling import stratified_share
from earshot.data.soft_targets import SoftTargets, find_targets, read_targets
from earshot.data.stale_folds import stale_folds
from earshot.data.voice import read_voice
from earshot.inputs.given import Metadata
from earshot.inputs.record import CHANNELS
from earshot.messages import suggest
from earshot.prediction.origin import TableDigests
from earshot.prediction.predictions import Clip
from earshot.tables import read_table, require_columns

logger = logging.getLogger("earshot")


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What prepare.py and make_folds.py wrote, joined: N clips in the order of the clip table."""

    clips: pd.DataFrame  # clip_id, path, labels, fold, ...
    classes: list[str]
    source: Path  # paths of the clip table are relative to it
    target: np.ndarray  # (N, K), uint8 where every value is 0 or 1: 2 million clips of 527 classes are 1 GB
    mask: np.ndarray  # (N, K), 0 = unknown
    events: pd.DataFrame | None
    whole: pd.DataFrame  # clip_id, path of every clip of the data set, whichever of them are taken: for caches
    metadata: Metadata = field(default_factory=Metadata)  # numeric columns of `clips` that the network takes
    digests: TableDigests | None = None  # of the tables as they were read, whichever clips are taken
    soft: SoftTargets | None = None  # what trains in place of the labels; never what is held out
    others: float = 1.0  # share of the clips without any class that train (data.part_others)
    not_drawn: frozenset[str] = frozenset()  # clips that `others` keeps from these training clips
    pseudo_folder: Path | None = None  # of pseudo-labels, read for the fold that `split` parts off
    pseudo: PseudoLabels | None = None  # windows that train beside these clips, of one fold's training clips alone
    pseudo_manifest: Manifest | None = None
    voice: pd.DataFrame | None = None  # stretches of speech that training keeps away from
    stale_folds: str = ""  # what to say of groups that the folds part without knowing them

    def take(self, index: np.ndarray) -> PreparedData:
        """The clips at `index`; events stay whole."""
        index = np.arange(len(self.clips))[index]
        if len(index) == len(self.clips) and (np.diff(index, prepend=-1) == 1).all():
            return self  # all of them, as they are: nothing is copied
        clips = self.clips.iloc[index].reset_index(drop=True)
        return replace(self, clips=clips, target=self.target[index], mask=self.mask[index])

    def split(self, fold: int, folds_path: str) -> tuple[PreparedData, PreparedData]:
        """Part the clips into those that train and those that a fold holds out."""
        held_out = select_fold(self.clips, fold, folds_path)
        train, validates = self.take(~held_out & self.trains).relabelled(), self.take(held_out)
        train = replace(train, not_drawn=frozenset(self.clips.clip_id[~held_out & ~self.trains]))
        if self.pseudo_folder is None:
            return train, validates
        manifest, windows = read_pseudo(
            self.pseudo_folder, fold, self.digests, folds_path,
            held_out=validates.clips, labelled=self.clips, source=self.source, classes=self.classes,
        )  # fmt: skip
        return replace(train, pseudo=windows, pseudo_manifest=manifest), validates

    def ever_held_out(self) -> PreparedData:
        """The clips that some fold holds out: those of an OOF."""
        return self.take((self.clips.fold != TRAIN_ONLY).to_numpy())

    @property
    def trains(self) -> np.ndarray:
        """Which clips may train, (N,) bool; of those without any class so many as `others` says, by their names."""
        if self.others >= 1:
            return np.ones(len(self.clips), bool)
        drawn = np.array([zlib.crc32(c.encode()) / 2**32 < self.others for c in self.clips.clip_id.astype(str)])
        return drawn | (self.target > 0).any(axis=1)

    def relabelled(self) -> PreparedData:
        """The same clips with the targets that train in place of their labels, where there are such."""
        if self.soft is None:
            return self
        target, mask = self.soft.over(self.clips.clip_id, self.classes, self.target, self.mask)
        return replace(self, target=target, mask=mask)

    def thinned(self, data: DataConfig, seed: int) -> PreparedData:
        """Of a fold's training clips those that data.train_share and data.clips_per_class leave."""
        return self.share(data.train_share, seed).limit(data.clips_per_class, seed)

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

    def mostly_among(self, clip_ids) -> list[str]:
        """Classes of which more than half of the clips are among these, with how many: 'crow (25 of 26)'."""
        among = self.clips.clip_id.isin(set(clip_ids)).to_numpy()
        lost = (self.target[among] > 0.5).sum(axis=0)
        of = {k: (self.target[:, k] > 0.5).sum() for k in np.flatnonzero(lost)}  # not all at once: of AudioSet a GB
        return [f"{self.classes[k]} ({lost[k]} of {n})" for k, n in of.items() if 2 * lost[k] > n]

    def recordings(self) -> list[Clip]:
        """The clips as inference takes them."""
        clips = [Clip(c, self.source / p) for c, p in zip(self.clips.clip_id, self.clips.path)]
        if not self.metadata.columns:
            return clips
        values = self.metadata_values()
        return [replace(c, metadata=v) for c, v in zip(clips, values, strict=True)]

    def metadata_values(self) -> np.ndarray:
        """The columns that the network takes besides the sound, (N, M) float32."""
        return clip_metadata(self.clips, self.metadata.columns, missing=self.metadata.missing)

    @property
    def annotated(self) -> np.ndarray:
        """Say of which clips the events are all that is heard, (N,) bool; of the others nobody knows."""
        return annotated_clips(self.clips, self.events)

    def counted(self, secondary_weight: float) -> str:
        """What a count of positive targets is of: primary labels alone, or secondary ones too."""
        has = "secondary_labels" in self.clips and self.clips.secondary_labels.fillna("").str.strip().any()
        return "clips, secondary labels counted" if has and secondary_weight > 0.5 else "clips"

    def clip_events(self, clip_ids) -> pd.DataFrame | None:
        """True events of the given clips (an expert's false positives are none)."""
        if self.events is None:
            return None
        events = self.events[self.events.filename.isin(set(clip_ids))]
        return events[~negative_events(events)]


def load_data(data: DataConfig) -> PreparedData:
    """Read the tables that a config names and join them; every inconsistency is an error that names clip and file."""
    root = Path(data.root)
    clips, class_list = read_clips(root / "clips.csv"), data.classes or root / "classes.csv"
    classes = read_classes(class_list)
    chosen, left_out = split_classes(class_list, data.levels, data.part)
    require_columns(clips, ("labels",), root / "clips.csv")
    folds = read_folds(data.folds, clips)
    voice = None if data.voice == "keep" else read_voice(root, clips.clip_id)
    part = [t[_where(clips, data.where)].reset_index(drop=True) if data.where else t for t in (clips, folds)]
    stale = stale_folds(*part)
    rest = [c for c in clips if c not in ("clip_id", "group", "fold")]
    clips = pd.concat([folds[["clip_id", "group", "fold"]], clips[rest]], axis=1)  # both in the order of the clips
    events, listed = read_events(root / "events.csv", clips, classes), clips
    _check_events(data, events, root / "events.csv")
    clips, classes = _chosen(_drop_unusable(clips, data, events), classes, data.where)
    classes = [c for c in classes if c in chosen]
    check_annotated(clips, events, data, root / "clips.csv")
    dataset = read_dataset(root)
    _check_channels(data, dataset)
    source = Path(dataset["source"])
    if data.cache == "packed":
        clips = packed_clips(
            data.caches, clips, source, sample_rate=data.sample_rate, seconds=data.pack_seconds, workers=data.workers,
            say=logger.warning, n_channels=CHANNELS[data.channels],
        )  # fmt: skip
    zeros_and_ones = "secondary_labels" not in clips or data.secondary_weight in (-1, 0, 1)
    kind = np.uint8 if zeros_and_ones else np.float32
    target, mask = clip_targets(clips, classes, data.secondary_weight, kind, left_out, data.mask_unknown)
    if data.sample_weight:
        sample_weights(clips, data.sample_weight, root / "clips.csv")  # raises where one cannot be
    metadata = data.metadata_record
    clip_metadata(clips, metadata.columns, root / "clips.csv", metadata.missing)  # raises where a value cannot be
    asked = events if events is None or data.event_shares else events.drop(columns="share", errors="ignore")
    if events is not None and len(left_out):  # of the others nothing is asked; that a clip is annotated stays
        clips = clips.assign(annotated=annotated_clips(clips, events, root / "clips.csv").astype(int))
        asked = asked[asked.event_label.isin(classes)].reset_index(drop=True)
    path = find_targets(data.soft_targets, root)
    soft = read_targets(path, clips.clip_id, classes) if path else None
    return PreparedData(
        clips=clips,
        classes=classes,
        source=source,
        target=target,
        mask=mask,
        events=asked,
        whole=clips[["clip_id", "path"]],
        metadata=metadata,
        digests=table_digests(folds, listed, events, classes, soft),
        soft=soft,
        others=data.part_others if data.part else 1.0,
        voice=voice,
        stale_folds=stale.say(root / "clips.csv", data.folds),
        pseudo_folder=Path(data.pseudo) if data.pseudo else None,
    )


def _check_events(data: DataConfig, events: pd.DataFrame | None, path: Path):
    """Raise where a setting needs events and there are none."""
    for needs in ("crop=box", "frame_targets=True", "targets=events", "false_positives=True"):
        key, value = needs.split("=")
        if str(getattr(data, key)) == value and events is None:
            raise ValueError(f"data.{needs} needs {path}, which this competition does not have")


def _check_channels(data: DataConfig, dataset: dict):
    """Raise where two channels are asked of copies that prepare.py made with one."""
    if CHANNELS[data.channels] > 1 and dataset.get("copied_channels") == "mono":
        raise ValueError(
            f"data.channels is {data.channels}, but the copies that {Path(data.root)} was prepared with (--resample) "
            "are mono: prepare it again with --channels stereo, or set data.channels=mono"
        )


def _chosen(clips: pd.DataFrame, classes: list[str], where: dict[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """The clips whose columns have the values of `where`, and the classes that these clips have."""
    if not where:
        return clips, classes
    clips = clips[_where(clips, where)]
    used = set(" ".join(clips.labels.fillna("")).split())
    return clips.reset_index(drop=True), [c for c in classes if c in used]


def _where(clips: pd.DataFrame, where: dict[str, str]) -> np.ndarray:
    """(N,) bool: the clips whose columns have these values; a column or a value that none of them has is an error."""
    taken = np.ones(len(clips), bool)
    for column, value in where.items():
        if column not in clips:
            raise ValueError(f"data.where names column '{column}'{suggest(column, clips.columns)}, not in clips.csv")
        values = clips[column].astype(str)
        taken &= (values == value).to_numpy()
        if not taken.any():
            raise ValueError(f"data.where: no clip has {column} '{value}'{suggest(value, sorted(set(values)))}")
    return taken


def read_events(path: Path, clips: pd.DataFrame, classes: list[str]) -> pd.DataFrame | None:
    """events.csv sorted by clip and onset, held against its clips (event_checks.py); None: no such file."""
    if not path.is_file():
        return None
    table = read_table(path, ("filename", "onset", "offset", "event_label"))
    events, said = checked_events(table, clips, str(path), classes)
    for line in said:
        logger.warning(line)
    heard_shares(events)  # raises where one cannot be
    return events.sort_values(["filename", "onset"], kind="stable").reset_index(drop=True)


def check_annotated(clips: pd.DataFrame, events: pd.DataFrame | None, data: DataConfig, path: Path):
    """Say how many clips have no annotation in time, where targets come from events; frame targets need some."""
    if not (data.frame_targets or data.targets == "events" or data.crop == "box"):
        return
    known = annotated_clips(clips, events, path)
    if data.frame_targets and not known.any():
        raise ValueError(
            f"data.frame_targets: no clip of {path} is annotated in time, so no frame has a target; the events of a "
            "clip count as all that is heard where its column `annotated` is 1 (or says nothing)"
        )
    unknown = ~known & ~clips.clip_id.isin(events.filename).to_numpy(bool)
    if unknown.any():
        logger.warning(
            "%d of %d clips have no events and are not `annotated`: they train on their labels%s, and scores in time "
            "leave them out", unknown.sum(), len(clips), ", their frames are masked" if data.frame_targets else "",
        )  # fmt: skip


def says_nothing(clips: pd.DataFrame, data: DataConfig, events: pd.DataFrame | None) -> np.ndarray:
    """Say which clips carry no statement and are left out; (N,) bool."""
    if data.keep_unlabelled or data.false_positives:
        return np.zeros(len(clips), bool)
    code, names = distinct_labels(clips)
    empty = np.array([not some for some in names])[code]
    return empty & ~annotated_clips(clips, events if data.targets == "events" else None)


def _drop_unusable(clips: pd.DataFrame, data: DataConfig, events: pd.DataFrame | None) -> pd.DataFrame:
    """Leave out, and count aloud, clips that carry no statement: no label, unless that says something here.

    An annotated clip without a label is silent: it trains and is scored.
    """
    empty = says_nothing(clips, data, events)
    if empty.any():
        logger.warning("%d of %d clips have no label and are left out", empty.sum(), len(clips))
    return clips[~empty].reset_index(drop=True)

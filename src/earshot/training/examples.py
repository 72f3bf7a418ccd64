"""Training examples, cut from prepared clips.

The random stream of an example depends on (seed, epoch, index of the clip, how often the epoch had it before) and
nothing else: not on the worker or the process. So a resumed run equals one that was never stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from earshot.augment.waveform import apply as apply_waveform
from earshot.config import DataConfig
from earshot.data.caches import LogmelCache, waveform_cache
from earshot.data.embeddings import EmbeddingCache
from earshot.data.labels import negative_events, sample_weights
from earshot.data.prepared import PreparedData
from earshot.data.sampling import ClassTurns, epoch_order
from earshot.data.targets import CropTargets
from earshot.data.voice import Voice
from earshot.inputs.network import Inputs
from earshot.inputs.record import Input
from earshot.inputs.waveforms import as_heard, decode, own_samples, steps
from earshot.messages import plural
from earshot.sound import audio
from earshot.sound.loudness import gain_of
from earshot.training.background import Background, level_of_events
from earshot.training.extractors import extractor_caches
from earshot.training.lessons import Lessons
from earshot.training.pseudo import PseudoWindows

logger = logging.getLogger("earshot")

MAX_SUBSTITUTES = 20  # unreadable clips in a row before training gives up


class ShorterThanPromised(Exception):
    """A crop of a damaged recording has less sound than the recording's length leaves room for."""


class TrainingClips(torch.utils.data.Dataset):
    """Map (epoch, index[, repeat]) -> one training example (dict of arrays; contract 3 of ARCHITECTURE.md)."""

    def __init__(
        self, prepared: PreparedData, data: DataConfig, inputs: Mapping[str, Input], seed: int,
        waveform_augment=None, cache_folder: Path = Path("data/cache"), embeddings: EmbeddingCache | None = None,
        pseudo: PseudoWindows | None = None, progress: Callable = iter, lessons: Lessons | None = None,
        background: Background | None = None,
    ):  # fmt: skip
        """inputs: what is heard, a config's front ends or an `Inputs`; embeddings: given in place of a waveform
        (data.cache=embedding); pseudo: windows that come in place of clips, or over them; progress: wraps the files of
        which an extractor's rows are computed; lessons: what teachers say of these clips, of which the last ones may be
        unlabelled; background: what is laid under clips."""
        self.embeddings, self.pseudo, self.lessons, self.background = embeddings, pseudo, lessons, background
        self.n_labelled = lessons.n_labelled if lessons else len(prepared.clips)
        inputs = Inputs.made(inputs, None, data.sample_rate, data.channels, data.metadata_record)
        self.prepared, self.data, self.inputs, self.seed = prepared, data, inputs, seed
        self.augment = waveform_augment
        self.target, self.mask = prepared.target, prepared.mask
        if data.shuffle_labels:
            order = np.random.default_rng([seed, 0xC0]).permutation(self.n_labelled)
            order = np.r_[order, self.n_labelled : len(prepared.clips)]
            self.target, self.mask = self.target[order], self.mask[order]
        self.paths = prepared.clips.path.to_numpy()  # below prepared.source, or absolute
        self.caches: dict[str, LogmelCache] = {}
        if data.cache == "waveform":
            cached = waveform_cache(
                cache_folder, prepared.whole, prepared.source, data.sample_rate, n_channels=inputs.n_channels
            )
            self.paths = cached.set_index("clip_id").path[prepared.clips.clip_id].to_numpy()
        elif data.cache == "logmel":
            for name in inputs.of(sounds=True, of_clip=False):
                self.caches[name] = LogmelCache.build(  # of the whole data set, so that all folds share it
                    cache_folder, prepared.whole, prepared.source, inputs[name], data.sample_rate,
                    n_channels=inputs.n_channels, level=data.level,
                )  # fmt: skip
        self.event_levels: dict[int, float | None] = {}  # of clips that were heard
        self.turns = ClassTurns(self.target[: self.n_labelled] > 0.5) if data.sampler == "balanced" else None
        self.targets = CropTargets(prepared, data, (self.target, self.mask))
        self.cache_folder = cache_folder
        self.voice = None if prepared.voice is None else Voice(prepared.voice, data.voice, data.voice_share)
        self.rows = extractor_caches(inputs, prepared, cache_folder, progress) if self.embeddings is None else {}
        self.metadata = prepared.metadata_values() if data.metadata else None
        self.weights = mean_of_one(prepared.clips, data.sample_weight) if data.sample_weight else None
        self.hears = pseudo is not None or bool(inputs.of(sounds=True, of_clip=False))  # else rows of clips say it all

    def __len__(self) -> int:
        """Examples an epoch: every labelled clip, and the draws of unlabelled recordings."""
        return self.n_labelled + (self.lessons.draws if self.lessons else 0)

    def order(self, epoch: int) -> np.ndarray:
        """Indices of the clips that an epoch hears, (N,), in turn, by the config's sampler."""
        n = self.n_labelled
        labelled = self.turns.order(self.seed, epoch) if self.turns else epoch_order(n, self.seed, epoch)
        return self.lessons.order(labelled, self.seed, epoch) if self.lessons else labelled

    def __getitem__(self, key: tuple[int, ...]) -> dict:
        """An unreadable clip is replaced by the next readable one and reported under `unreadable`."""
        epoch, index, repeat = (*key, 0)[:3]
        unreadable = []
        n_clips = len(self.prepared.clips)
        for attempt in range(min(MAX_SUBSTITUTES, n_clips)):
            now = (index + attempt) % n_clips
            seed = [self.seed, epoch, now, repeat]
            try:
                example, name = self._with_pseudo(now, seed, unreadable) if self.pseudo else (None, "")
                example = example or self._labelled(now, seed)
            except audio.UnreadableAudio as error:
                unreadable.append((self.prepared.clips.clip_id[now], str(error)))
                continue
            return example | {"clip_id": name or self.prepared.clips.clip_id[now], "unreadable": unreadable}
        raise ValueError(
            f"{plural(len(unreadable), 'clips')} in a row could not be read, the last: {unreadable[-1][1]}; "
            "check dataset.json's source folder and prepare.py's unreadable.csv"
        )

    def _labelled(self, index: int, seed: list[int]) -> dict:
        """An example of a clip alone."""
        return self._heard_example(index, seed) | self._marks(index, None)

    def _marks(self, index: int, window: int | None) -> dict:
        """What a batch says of each example besides: how much it counts and, beside pseudo-labels, its kind."""
        if self.pseudo is None:
            return {} if self.weights is None else {"weight": self.weights[index]}
        own = 1.0 if self.weights is None else self.weights[index]
        weight = own if window is None else self.pseudo.record.weight
        return {"weight": np.float32(weight), "soundscape": np.int64(self.pseudo.kind(index, window))}

    def _with_pseudo(self, index: int, seed: list[int], unreadable: list) -> tuple[dict | None, str]:
        """An example that is or holds a pseudo-labelled window, and its name; (None, "") where the clip comes alone.

        A window that cannot be read is reported as a clip is, and leaves the clip alone.
        """
        drawn = self.pseudo.draw(seed, index)
        if drawn is None:
            return None, ""
        window, rng = drawn
        name = f"{self.pseudo.windows.clip_ids[window]}@{self.pseudo.windows.starts[window]:g}"
        try:
            if self.pseudo.record.how == "mix":
                return self._heard_example(index, seed, drawn) | self._marks(index, window), ""
            crop = round(self.data.crop_seconds * self.data.sample_rate)
            offset = self.pseudo.offset(crop, rng)
            waveform = self._augmented(self.pseudo.crop(window, crop, rng, offset), rng)
        except audio.UnreadableAudio as error:
            unreadable.append((name, str(error)))
            return None, ""
        if self.caches:
            inputs = {n: self.inputs[n].compute(as_heard(waveform, self.data.sample_rate, self.inputs[n]))
                      for n in self.caches}  # fmt: skip
        else:
            inputs = self.inputs.training_sounds(waveform)
        example = inputs | {"target": self.pseudo.target[window].astype(np.float32),
                            "mask": self.pseudo.mask[window].astype(np.float32)}  # fmt: skip
        if self.data.frame_targets:
            base = self.inputs.timebase(1)
            if self.pseudo.frames is None:  # nobody said when
                frames = np.zeros((base.n_frames(crop), len(example["target"])), np.float32)
                example |= {"frame_target": frames, "frame_mask": np.zeros_like(example["mask"])}
            else:
                frames, target, known = self.pseudo.when(window, offset, base, base.n_frames(crop))
                example |= {"frame_target": frames, "frame_mask": example["mask"], "target": target, "mask": known}
        return example | self._marks(index, window), name

    def _heard_example(self, index: int, seed: list[int], over: tuple | None = None) -> dict:
        """An example of what the clip really holds: where its crop falls behind damage it is drawn again, before it.

        Whether the damage was known before makes no difference to what is drawn. over: a pseudo-labelled window to lay
        over the crop, with its stream.
        """
        try:
            return self._example(index, np.random.default_rng(seed), over=over)
        except ShorterThanPromised:
            return self._example(index, np.random.default_rng(seed), decoded=True, over=over)

    def _example(
        self, index: int, rng: np.random.Generator, decoded: bool = False, over: tuple | None = None
    ) -> dict:  # fmt: skip
        if self.embeddings is not None:
            embedding = self._embedding(index, rng)
            return {"embedding": embedding, "target": self.target[index], "mask": self.mask[index]}
        rate, crop = self.data.sample_rate, round(self.data.crop_seconds * self.data.sample_rate)
        n_samples = self._n_samples(index, decoded)
        start, only_annotated = self._start(index, n_samples, crop, rng)
        clip_id = self.prepared.clips.clip_id[index]
        if self.data.loudest_of > 1 and n_samples > crop:
            start = self._loudest(index, start, n_samples - crop, crop, rng)
        if self.voice and self._crops_anywhere(index):
            start = self.voice.start(clip_id, start, n_samples=n_samples, crop=crop, rate=rate, rng=rng)
        pad = int(rng.integers(crop - n_samples + 1)) if n_samples < crop and self.data.crop != "full" else 0
        if self.caches:
            inputs, start = self._cached(index, start, pad, crop)
        elif not self.hears:
            inputs = {}
        else:
            promised = 0 if decoded or self.data.crop == "full" else min(crop, n_samples - start)
            waveform = self._waveform(index, start, pad, crop, promised)
            if self.voice:
                waveform = self.voice.silenced(waveform, clip_id, (start - pad) / rate, rate)
            waveform = waveform if over is None else self.pseudo.laid_over(waveform, *over)
            if self.background is not None:  # a stream of its own: without it nothing else moves
                own = np.random.default_rng(int(rng.integers(2**63)))
                waveform = self.background.under(waveform, own, self.event_level(index))
            inputs = self.inputs.training_sounds(self._augmented(waveform, rng))
        heard_from = (start - pad) / rate
        target, mask = self.targets.of_crop(index, heard_from, heard_from + crop / rate, only_annotated)
        if over is not None:
            target, mask = self.pseudo.over(target, mask, over[0])
        example = inputs | {"target": target, "mask": mask}
        if self.data.frame_targets:
            base = self.inputs.timebase(1)
            frames, known = self.targets.of_frames(index, heard_from, base, base.n_frames(crop))
            known = known if over is None else np.zeros_like(known)  # when the window's sounds are heard nobody said
            example |= {"frame_target": frames, "frame_mask": np.minimum(known, mask)}
        for name, cache in self.rows.items():
            example[name] = self._taken(name, cache, index, max(0, start), crop)
        if self.lessons:
            example |= self.lessons.of_crop(clip_id, max(0, start) / rate, self.data.crop_seconds)
        if self.metadata is not None:
            example["metadata"] = self.metadata[index]
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
        return info.samples_at(self.data.sample_rate)

    def _start(self, index: int, n_samples: int, crop: int, rng) -> tuple[int, bool]:
        """First sample of the crop, and whether classes without a statement are to be masked."""
        last = max(0, n_samples - crop)
        if self.data.crop == "full" and index < self.n_labelled:
            return 0, False
        if self._crops_anywhere(index):
            return int(rng.integers(last + 1)), False
        events = self.targets.events(index)
        if not self.data.false_positives:
            events = events[~negative_events(events)]
        if not len(events):
            return int(rng.integers(last + 1)), False
        box = events.iloc[int(rng.integers(len(events)))]
        centre = (box.onset + box.offset) / 2 * self.data.sample_rate
        if self.data.box_place == "first_half":  # as the rainforest system's source draws it
            least = int(max(0, round(centre) - crop // 2))
            return min(int(rng.integers(least, max(round(centre), least + 1))), last), bool(box.get("is_negative", 0))
        start = centre - crop / 2 + self.data.box_jitter * (rng.random() - 0.5) * crop
        return int(np.clip(round(start), 0, last)), bool(box.get("is_negative", 0))

    def _loudest(self, index: int, start: int, last: int, crop: int, rng) -> int:
        """Of a crop at `start` and others drawn up to `last` (data.loudest_of in all), where the loudest begins."""
        starts = [start, *rng.integers(last + 1, size=self.data.loudest_of - 1).tolist()]
        return max(starts, key=lambda at: float(np.square(self._waveform(index, at, 0, crop, 0)).mean()))

    def _crops_anywhere(self, index: int) -> bool:
        return self.data.crop == "random" or index >= self.n_labelled

    def _waveform(self, index, start, pad, crop, promised: int) -> np.ndarray:
        """(crop,) samples; ShorterThanPromised where decoding gives fewer than `promised` of the clip."""
        rate = self.data.sample_rate
        waveform = decode(self._path(index), rate, self.inputs.n_channels, start / rate, crop / rate, self.data.level)
        if waveform.shape[-1] < promised - audio.ROUNDING_SAMPLES:
            raise ShorterThanPromised
        return audio.crop_or_pad(waveform, crop, 0, pad if waveform.shape[-1] + pad <= crop else 0)

    def event_level(self, index: int) -> float | None:
        """RMS of a clip over its events, where background is laid under it by that; None: that of the crop counts."""
        if self.background.record.level == "crop":
            return None
        if index not in self.event_levels:
            events = self.targets.events(index)
            events = events[~negative_events(events)]
            path, rate, gain = self._path(index), self.data.sample_rate, 1.0
            if self.data.level != "recorded" and len(events):
                gain = gain_of(path, rate)
            level = level_of_events(path, events, rate, self.inputs.n_channels)
            self.event_levels[index] = None if level is None else gain * level
        return self.event_levels[index]

    def _augmented(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.augment is None:
            return waveform
        return apply_waveform(self.augment, waveform, self.data.sample_rate, rng)

    def _cached(self, index, start, pad, crop) -> tuple[dict, int]:
        """Crops of the cached pictures (C, T, F), and the crop's start moved to a whole frame."""
        inputs, hop, rate = {}, self.inputs.hop_length, self.data.sample_rate
        start = start // hop * hop
        for name, cache in self.caches.items():
            record = self.inputs[name]
            frames = cache[self.prepared.clips.clip_id[index]]
            frames = frames[None] if frames.ndim == 2 else frames
            out = record.silence(own_samples(crop, rate, record))
            first, before = (int(i) for i in steps([start, pad], rate, record))
            piece = frames[:, first : first + out.shape[1] - before]
            out[:, before : before + piece.shape[1]] = piece
            inputs[name] = out
        return inputs, start

    def _embedding(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """(D,) of the clip's first segment, with crop=random of any of them."""
        segments = self.embeddings[self.prepared.clips.clip_id[index]]
        if not len(segments):
            raise audio.UnreadableAudio(f"{self.paths[index]} is listed as unreadable in the embedding cache")
        return np.array(segments[0 if self.data.crop == "full" else rng.integers(len(segments))])

    def _taken(self, name: str, cache: EmbeddingCache, index: int, start: int, crop: int) -> np.ndarray:
        """What an extractor gives the crop, of its rows of the whole clip."""
        record, rate = self.inputs[name], self.data.sample_rate
        rows = cache[self.prepared.clips.clip_id[index]]
        if not len(rows):
            raise audio.UnreadableAudio(f"{self.paths[index]} is listed as unreadable in the cache of input '{name}'")
        return record.taken(rows, record.row_of(start * record.sample_rate // rate), own_samples(crop, rate, record))


def mean_of_one(clips: pd.DataFrame, column: str) -> np.ndarray:
    """How much each of these clips counts in the loss, (N,) float32, 1 on average."""
    weights = sample_weights(clips, column)
    if (none := weights == 0).any():
        logger.warning(
            "data.sample_weight: %d of %d clips have a %s of 0: they teach nothing", none.sum(), len(clips), column
        )
    return weights / weights.mean()


def collate(examples: list[dict]) -> dict:
    """Examples -> batch: arrays stacked to tensors, ids and reports as lists."""
    batch = {"clip_id": [e["clip_id"] for e in examples], "unreadable": [u for e in examples for u in e["unreadable"]]}
    for key in examples[0]:
        if key not in batch:
            batch[key] = torch.from_numpy(np.stack([e[key] for e in examples]))
    return batch

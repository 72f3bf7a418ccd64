"""Validation: what the held-out clips get from the weights so far by the code that predicts; which weights stay."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from accelerate import utils

from earshot import losses, runs, tasks
from earshot.config import Config
from earshot.data.answers import truth_of
from earshot.data.prepared import PreparedData
from earshot.data.targets import CropTargets
from earshot.prediction import predictions
from earshot.prediction.backends import TorchBackend
from earshot.prediction.clip_answers import clip_answer
from earshot.prediction.inference import predict_clips
from earshot.prediction.origin import weights_digest
from earshot.prediction.truth import Truth
from earshot.records import to_dict
from earshot.training.examples import TrainingClips, collate
from earshot.training.extractors import with_rows
from earshot.training.norms import measure_on_clean
from earshot.training.setup import Training, main_bar

LOSS_WINDOWS = 64  # windows of a clip whose loss is taken at a time


def validate_and_keep(t: Training) -> dict[str, float]:
    """Scores of the held-out clips; better weights than any before are saved together with their OOF."""
    started, p = time.monotonic(), t.progress
    if t.config.optim.norm_batch and p.step + p.epoch:
        measure_on_clean(t)
    found, unreadable, loss = validate(t)
    p.unreadable |= unreadable
    truth = truth_of(found, t.held_out)
    task = t.task
    found = task.answered(found, truth)
    scores = tasks.score_readable(task, found, truth)
    # None: the held-out clips do not define it, the last weights stay
    value = tasks.upward(task.watch, scores[task.watch]) if task.watch in scores else None
    never = p.best_score == -math.inf
    if t.config.optim.select == "last" or p.best_epoch < 0 or (never if value is None else value > p.best_score):
        p.best_score, p.best_epoch = p.best_score if value is None else value, p.epoch
        p.best_steps, p.watched = t.steps, task.watch
        if t.accelerator.is_main_process:
            keep(t, found)
    scores |= loss | score_crops(t, ~found.unreadable)  # shown and logged, never watched: an OOF does not have it
    scores |= score_training_clips(t)
    return scores | {"validation_seconds": round(time.monotonic() - started, 2)}


def keep(t: Training, found: predictions.Predictions):
    """The weights at hand are the best so far: save what they said of the held-out clips, then them."""
    origin = t.origin and replace(t.origin, weights=weights_digest(t.predicting_network.state_dict()))
    t.progress.best_weights = origin.weights if origin else ""
    replace(found, origins=origin and (origin,)).save(t.folder / "oof.npz")
    runs.save_weights(t.folder / "best.safetensors", t.predicting_network, t.about | {"origin": to_dict(origin)})


def validate(t: Training) -> tuple[predictions.Predictions, dict[str, str], dict[str, float]]:
    """Predict the held-out clips: (predictions, {unreadable clip: reason}, {"val_loss": loss of their windows}).

    `val_loss` is left out where no window has known targets or the run hears in one pass, which has no windows.
    """
    accelerator, clips = t.accelerator, t.held_out
    mine = np.arange(accelerator.process_index, len(clips.clips), accelerator.num_processes)
    losses_of = WindowLosses(t.config, clips.take(mine))
    found, unreadable = predict(t, clips, losses_of.hear)
    each = [x for some in utils.gather_object([losses_of.of_clips()]) for x in some]
    return found, unreadable, {"val_loss": float(np.mean(each))} if each else {}


def predict(t: Training, data: PreparedData, listen=None) -> tuple[predictions.Predictions, dict[str, str]]:
    """Predict clips by the inference code, each process its share, every clip exactly once.

    listen: hears the windows of this process's share; see `predict_members`.
    """
    accelerator, clips = t.accelerator, with_rows(data.recordings(), t.clips.inputs, t.clips.rows)
    mine = clips[accelerator.process_index :: accelerator.num_processes]
    windowing = t.config.predict
    windowing = replace(windowing, keep_frames=windowing.keep_frames and windowing.oof_frames)
    found, unreadable = predict_clips(
        [predicting_backend(t)], mine, windowing, t.about["classes"], t.about["prior"], t.fold,
        progress=lambda some: main_bar(some, "validate", accelerator), listen=listen,
    )  # fmt: skip
    parts = utils.gather_object([(found[0], dict(unreadable))])
    whole = predictions.join([p for p, _ in parts if len(p)])
    predictions.check_complete(whole, [c.clip_id for c in clips], f"fold {t.fold}")
    return whole.aligned([c.clip_id for c in clips]), {k: v for _, u in parts for k, v in u.items()}


class WindowLosses:
    """The run's training loss on the windows that validation hears, of every clip the mean over its known entries.

    A window's targets are those that a training crop at its place would have (`data.targets`, `data.crop=box`,
    `data.frame_targets`), without mixing. Clips without a known entry say nothing and are left out.
    """

    def __init__(self, config: Config, clips: PreparedData):
        self.data, self.clips = config.data, clips
        self.loss_of = losses.build_loss(**vars(config.loss), classes=clips.classes)
        self.window = config.predict.window_samples
        self.frames = config.inputs().timebase(1)
        self.targets = CropTargets(clips, config.data)
        self.waiting: list[tuple[int, int, Mapping[str, np.ndarray]]] = []  # windows of one clip
        self.sums = np.zeros((len(clips.clips), 2))  # of each clip: loss times known entries, known entries

    def hear(self, clip: int, start: int, outputs: Mapping[str, np.ndarray]):
        """The outputs of one window, from sample `start` of the clip; windows of a clip come one after the other."""
        if self.waiting and (self.waiting[0][0] != clip or len(self.waiting) == LOSS_WINDOWS):
            self._take()
        self.waiting.append((clip, start, outputs))

    def of_clips(self) -> list[float]:
        """Losses of the clips heard so far, in their order."""
        if self.waiting:
            self._take()
        return [float(total / known) for total, known in self.sums if known]

    def _take(self):
        clip = self.waiting[0][0]
        examples = [self._targets(clip, start / self.data.sample_rate) for _, start, _ in self.waiting]
        outputs = [out for _, _, out in self.waiting]
        self.waiting = []
        batch = {key: torch.from_numpy(np.stack([e[key] for e in examples])) for key in examples[0]}
        known = float(batch["mask"].sum())
        if known:
            out = {key: torch.from_numpy(np.stack([o[key] for o in outputs])) for key in outputs[0]}
            with torch.inference_mode():
                self.sums[clip] += (known * float(self.loss_of(out, batch)), known)

    def _targets(self, clip: int, start: float) -> dict[str, np.ndarray]:
        """What a window from second `start` is to answer."""
        end = start + self.window / self.data.sample_rate
        target, mask = self.targets.of_crop(clip, start, end)
        if self.data.false_positives and not target.any():  # as around an expert's "not there": only that is known
            target, mask = self.targets.of_crop(clip, start, end, only_annotated=True)
        if not self.data.frame_targets:
            return {"target": target, "mask": mask}
        frames, known = self.targets.of_frames(clip, start, self.frames, self.frames.n_frames(self.window))
        return {"target": target, "mask": mask, "frame_target": frames, "frame_mask": np.minimum(known, mask)}


def score_training_clips(t: Training) -> dict[str, float]:
    """`train_<watch>`: the watched score on optim.score_training of the training clips, the same ones every epoch."""
    if not t.config.optim.score_training:
        return {}
    everything = t.clips.prepared
    order = np.random.default_rng([t.config.seed, 0x7A]).permutation(t.clips.n_labelled)
    chosen = np.sort(order[: t.config.optim.score_training])
    some = everything.take(chosen)
    found, _ = predict(t, some)
    truth = replace(truth_of(found, some), target=t.clips.target[chosen] > 0.5)
    task = t.task
    scores = tasks.score_readable(task, found, truth)
    return {f"train_{task.watch}": scores[task.watch]} if task.watch in scores else {}


def score_crops(t: Training, readable: np.ndarray) -> dict[str, float]:
    """`crop_<score>` on one training crop a held-out clip, against that crop's labels, as two of the sources score.

    `crop_lwlrap` where data.crop is box (what the rainforest system's source prints and selects on); with
    optim.score_crops also `crop_map`, `crop_macro_f1_argmax` (the birdcall source's) and the watched score. A crop
    depends on (seed, clip) alone, so that epochs compare. `readable` (N,) of the held-out clips; those without a label
    are left out too.
    """
    accelerator, clips = t.accelerator, t.held_out.take(readable & t.held_out.target.any(axis=1))
    names = ["lwlrap"] * (t.config.data.crop == "box")
    names += ["map", "macro_f1_argmax", t.task.watch] * t.config.optim.score_crops
    if not names:
        return {}
    data = replace(t.config.data, cache="none", shuffle_labels=False, false_positives=False, frame_targets=False)
    clips = replace(clips, voice=None)
    crops = TrainingClips(clips, data, t.clips.inputs, t.config.seed, None, t.clips.cache_folder)
    mine = range(accelerator.process_index, len(crops), accelerator.num_processes)
    size, pairs = t.config.predict.batch_size, []
    for some in (mine[i : i + size] for i in range(0, len(mine), size)):
        pairs.append(_predict_crops(t, collate([crops[(0, i)] for i in some])))
    pairs = utils.gather_object(pairs)
    if not any(target.any() for target, _ in pairs):
        return {}
    target, answers = map(np.concatenate, zip(*pairs, strict=True))
    some = predictions.Predictions(
        np.arange(len(answers)).astype(str), tuple(t.about["classes"]), answers, np.full(len(answers), t.fold),
        np.zeros(len(answers), bool),
    )  # fmt: skip
    found = tasks.score_clips(some, Truth(target))
    return {f"crop_{name}": float(found[name]) for name in dict.fromkeys(names) if name in found}


def _predict_crops(t: Training, batch: dict) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) targets and answers of a batch of crops."""
    on_device = {k: v.to(t.accelerator.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    inputs = {name: value.cpu().numpy() for name, value in t.front_ends(on_device).items()}
    answers = clip_answer(predicting_backend(t).run(inputs), t.config.predict.clip_from)
    return batch["target"].numpy() > 0.5, answers


def predicting_backend(t: Training) -> TorchBackend:
    network, config = t.predicting_network, t.config
    return TorchBackend(network, config.inputs(network.inputs), t.accelerator.device, config.optim.precision)

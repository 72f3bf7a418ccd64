"""Whether a network's head, the loss and the targets fit together: what cannot learn is refused before training.

| refused | why | what to set |
|---|---|---|
| cross_entropy on pooled sigmoid probabilities | least where every class is at 1, whatever is heard | softmax, or bce |
| a softmax head of one class | it says 1 of every clip | sigmoid |
| a softmax head, clips of several labels or none | it shares 1 among the classes | sigmoid with bce |
| cross_entropy, single classes masked | the softmax ties all classes together | bce |
| a softmax head with frame targets | of silence it would have to say a class too | sigmoid |
| bce_clip_frame, a head without segments | nothing answers for a moment | bce |
| coarse_fine with frame targets | it is of whole clips | data.frame_targets=false |
| cross_entropy_sigmoid, a softmax head | the head answers by softmax as well | sigmoid, or cross_entropy |
| cross_entropy_sigmoid, one class | nothing competes | bce |
| no class has clips with and without it | nothing to tell apart | other clips, or times |
| task scenes, clips of several labels or none | its scores are of one label a clip | task=tagging |

benchmarks/heads_and_losses.py holds it against training: every head and loss learns a toy set or is refused here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from earshot import losses
from earshot.config import Config
from earshot.inputs.network import Inputs
from earshot.messages import plural
from earshot.prediction.clip_answers import clip_answer

FEW = 0.1  # a share of clips that do not fit a head, up to which it is said and not refused
PROBE_CLIPS, PROBE_SECONDS = 4, 1.0

logger = logging.getLogger("earshot")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a network answers with: sigmoid or softmax over classes, with logits or without, of segments too or not."""

    activation: str
    logit: bool
    segments: bool

    @classmethod
    def of(cls, out: Mapping[str, torch.Tensor]) -> Head:
        """Read from a network's outputs of a few clips of noise: a softmax is what sums to 1 over classes."""
        clip = out["clipwise_output"].float()
        softmax = bool(torch.allclose(clip.sum(dim=1), torch.ones(len(clip)), atol=1e-4))
        if "logit" in out:  # two sigmoids near 0.5 sum to 1 as well, and one that is sure is 1
            softmax = softmax and not torch.allclose(torch.sigmoid(out["logit"].float()), clip, atol=1e-5)
        elif clip.shape[1] == 1:
            softmax = False  # every softmax head here has a logit
        return cls(
            activation="softmax" if softmax else "sigmoid", logit="logit" in out, segments="segmentwise_output" in out
        )


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the clips ask for: (N, K) targets, 0 to 1, and which of them are known; whether frames have targets too."""

    target: np.ndarray
    mask: np.ndarray
    frames: bool = False  # frame_target in the batch
    cut: bool = False  # a crop's targets are its own events: clips of one label give crops of none

    @property
    def labels(self) -> np.ndarray:
        """The number of labels of each clip of which all classes are known, (M,)."""
        known = (self.mask > 0).all(axis=1)
        return (self.target[known] > 0.5).sum(axis=1)

    @property
    def not_single(self) -> float:
        """Share of the wholly known clips that have several labels, or none."""
        return float((self.labels != 1).mean()) if len(self.labels) else 0.0

    @property
    def partly_masked(self) -> int:
        """Clips of which some classes are known and others not."""
        known = self.mask > 0
        return int((known.any(axis=1) & ~known.all(axis=1)).sum())

    @property
    def telling(self) -> int:
        """Classes that some known clips have and some have not."""
        known, there = self.mask > 0, self.target > 0.5
        return int(((known & there).any(axis=0) & (known & ~there).any(axis=0)).sum())


@torch.no_grad()
def probe(network: torch.nn.Module, heard: Inputs, seconds: float = PROBE_SECONDS) -> dict[str, torch.Tensor]:
    """The outputs of an evaluating network for a few short clips of noise, on its own device."""
    device = next(network.parameters()).device
    chance = torch.Generator().manual_seed(0)
    shapes = heard.shapes(round(seconds * (heard.sample_rate or 1)))
    inputs = {
        name: torch.randn(PROBE_CLIPS, *shapes[name], generator=chance).to(device) for name in network.inputs
    }  # fmt: skip
    training = network.training
    out = network.eval()(**inputs)
    network.train(training)
    return {key: value.float().cpu() for key, value in out.items()}


def check_learnable(network: torch.nn.Module, config: Config, target: np.ndarray, mask: np.ndarray):
    """Refuse a config whose network, loss, task and targets cannot learn together, and answers it cannot give."""
    heard = config.inputs(network.inputs)
    out = probe(network, heard, min(PROBE_SECONDS, config.data.crop_seconds))
    clip_answer({name: value.numpy() for name, value in out.items()}, config.predict.clip_from)
    if not config.optim.epochs:
        return
    data = config.data
    asked = Targets(
        target=target, mask=mask, frames=data.frame_targets, cut=data.crop == "box" or data.targets == "events"
    )  # fmt: skip
    if refusal := why_not(Head.of(out), config.loss.name, config.task, asked):
        raise ValueError(f"{config.model.name} cannot learn this: {refusal}")
    check_loss(out, losses.build_loss(**vars(config.loss)), asked)
    if Head.of(out).activation == "softmax" and asked.not_single:
        logger.warning(
            "%d of %d clips have several labels or none, and a softmax head can say one class only",
            (asked.labels != 1).sum(), len(asked.labels),
        )  # fmt: skip


def check_loss(out: Mapping[str, torch.Tensor], loss_of: Callable[[dict, dict], torch.Tensor], asked: Targets):
    """The loss of the probe's outputs against the first clips' targets: what does not fit is the loss's own error."""
    index = np.resize(np.arange(len(asked.target)), len(out["clipwise_output"]))
    batch = {
        "target": torch.from_numpy(asked.target[index].astype(np.float32)),
        "mask": torch.from_numpy((asked.mask[index] > 0).all(axis=1, keepdims=True) * np.ones_like(asked.mask[index])),
    }
    if asked.frames and "framewise_output" in out:
        batch["frame_target"] = torch.zeros_like(out["framewise_output"])
    loss_of(dict(out), batch)


def why_not(head: Head, loss: str, task: str, asked: Targets) -> str:
    """Why this combination cannot learn, with what to set instead; '' where it can."""
    softmax, classes = head.activation == "softmax", asked.target.shape[1]
    one_label = f"{asked.not_single:.0%} of the clips have several labels or none"
    if not (asked.mask > 0).any():
        return "no training clip has a known class (every one is masked)"
    if loss == "bce_clip_frame" and not head.segments:
        return "loss bce_clip_frame needs answers for segments, and this network answers for whole clips: loss.name=bce"
    if softmax and classes == 1:
        return "a softmax head of one class says 1 of every clip: set model.params.activation=sigmoid and loss.name=bce"
    if loss == "coarse_fine" and classes == 1:
        return "loss coarse_fine is of two label levels, and there is one class: set loss.name=bce"
    if loss == "coarse_fine" and asked.frames:
        return "loss coarse_fine is of whole clips and has no part for targets in time: set data.frame_targets=false"
    if loss == "cross_entropy_sigmoid" and (softmax or classes == 1):
        what = "a head that answers by softmax" if softmax else "one class"
        return (
            f"cross_entropy_sigmoid trains classes against each other for a sigmoid head, and this is {what}: set "
            + ("model.params.activation=sigmoid, or loss.name=cross_entropy" if softmax else "loss.name=bce")
        )
    if loss == "cross_entropy":
        if classes == 1:
            return "cross_entropy tells classes apart, and there is one: set loss.name=bce"
        if asked.partly_masked:
            return (
                f"cross_entropy cannot mask single classes of a clip ({plural(asked.partly_masked, 'clips have')} "
                "some): set "
                "loss.name=bce with model.params.activation=sigmoid, or data.secondary_weight from 0 to 1 and "
                "data.false_positives=false"
            )
        if not softmax and not head.logit:
            return (
                "cross_entropy of sigmoid probabilities is least where every class is at 1, whatever is heard: set "
                "model.params.activation=softmax (one label a clip), or loss.name=bce"
            )
        if asked.not_single > FEW or asked.cut:
            told = "crops without an event have no label" if asked.cut else one_label
            return f"cross_entropy takes one label a clip, and {told}: set loss.name=bce and a sigmoid head"
    if softmax and (asked.frames or asked.cut):
        return (
            "a softmax head says a class of every moment, and targets in time have moments without one: set "
            "model.params.activation=sigmoid and loss.name=bce or bce_clip_frame"
        )
    if softmax and asked.not_single > FEW:
        return f"a softmax head can say one class, and {one_label}: set model.params.activation=sigmoid, loss.name=bce"
    if task == "scenes" and asked.not_single > FEW:
        return f"the task scenes has one label a clip, and {one_label}: set task=tagging"
    if not (asked.telling or asked.frames or asked.cut):
        return "no class has clips with it and clips without it: there is nothing to tell apart"
    return ""

"""Every registered head with every loss and kind of target: it learns a made set within seconds, or is refused.

The networks are those of tiny_networks.py. Three classes, each louder in bands of its own (a log-mel, VGGish's
examples), a tone of its own (a waveform), or columns of its own (an extractor); learned is what ranks the clips, or for
targets in time the frames, with a mean average precision of 0.9 on the clips it trained on (chance: about 0.4).
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from earshot.losses import LOSSES, build_loss
from earshot.metrics.clips import mean_average_precision
from earshot.models import MODELS, build_model, layers, talnet
from earshot.training.learnable import Head, Targets, check_loss, why_not
from tiny_networks import INPUTS, SMALL, F

CLIPS, FRAMES = 12, 64
FRAMES_IN_TIME = 256  # of targets in time: segments may be of 32 frames, smoothed over three
LOSS_PARAMS = {"coarse_fine": {"coarse": 1}}  # of three classes the first one is the coarse level
NARROW = {  # leenet24 loses a tenth of its few channels nine times over: with four a block nothing gets through
    "cnn_small": {"widths": (8, 8, 8, 16), "embedding": 16},
    "leenet24": {"widths": (16,) * 8 + (32,), "embedding": 32},
}
LEARNED = 0.9
TRIES = ((1e-2, 60), (3e-3, 200), (1e-3, 400), (3e-3, 800))  # learning rate, steps
KINDS = ("single", "several", "silent", "soft", "masked", "one", "frames")
TASKS = ("tagging", "scenes")


@dataclass(frozen=True)
class Variant:
    """A network with one of the activations and poolings that it has."""

    name: str
    params: tuple[tuple[str, str], ...] = ()

    def build(self, classes: int) -> torch.nn.Module:
        return build_model(
            self.name, classes, F, SMALL.get(self.name, {}) | NARROW.get(self.name, {}) | dict(self.params)
        )

    def __str__(self) -> str:
        return " ".join([self.name, *(value for _, value in self.params)])


def variants(names=tuple(MODELS)) -> list[Variant]:
    """All networks with all their activations and poolings; what a network refuses to be is left out."""
    found = []
    for name in names:
        known = inspect.signature(MODELS[name]).parameters
        activations = layers.ACTIVATIONS if "activation" in known else [""]
        poolings = [""]
        if "pooling" in known:
            poolings = layers.POOLINGS if known["pooling"].default in layers.POOLINGS else talnet.POOLINGS
        for activation in activations:
            for pooling in poolings:
                params = (("activation", activation), ("pooling", pooling))
                variant = Variant(name, tuple((k, v) for k, v in params if v))
                try:
                    variant.build(2)
                except ValueError:  # softmax with a pooling of probabilities
                    continue
                found.append(variant)
    return found


def toy_targets(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) targets and masks of a kind."""
    chance = np.random.default_rng(0)
    target = np.eye(3, dtype=np.float32)[np.arange(CLIPS) % 3]
    mask = np.ones_like(target)
    if kind == "several":
        target = 1 - target
    elif kind == "silent":
        target = np.array([[i >> k & 1 for k in range(3)] for i in range(CLIPS)], np.float32)
    elif kind == "soft":
        target = 0.8 * target + 0.1
    elif kind == "masked":
        mask = (chance.random(target.shape) < 0.7).astype(np.float32)
    elif kind == "one":
        target, mask = (np.arange(CLIPS) % 2)[:, None].astype(np.float32), mask[:, :1]
    return target, mask


def toy_batch(kind: str, inputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A batch of all clips with the network's inputs; of the kind "frames" each class sounds in a half of its clip."""
    torch.manual_seed(0)
    target, mask = (torch.from_numpy(values) for values in toy_targets(kind))
    frames = FRAMES_IN_TIME if kind == "frames" else FRAMES
    active = (target > 0.5).float()[:, None].expand(-1, frames, -1).clone()  # (N, T, K)
    if kind == "frames":
        late = torch.arange(CLIPS) % 2 == 1
        active[late, : frames // 2] = 0
        active[~late, frames // 2 :] = 0
    batch = {"target": target, "mask": mask}
    for name in inputs:
        quiet = INPUTS[name](4 if name == "metadata" else CLIPS, frames)
        batch[name] = quiet.repeat(CLIPS // 4, 1) if name == "metadata" else _sounding(name, quiet, active)
    return batch | ({"frame_target": active} if kind == "frames" else {})


def _sounding(name: str, quiet: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """The input of noise with what the active classes add to it."""
    classes = active.shape[2]
    width = quiet.shape[-1] // 3
    if name == "waveform":
        seconds = torch.arange(quiet.shape[1]) / 32000
        tones = torch.stack([torch.sin(2 * torch.pi * f * seconds) for f in (400, 2000, 8000)[:classes]], dim=1)
        when = active.repeat_interleave(320, dim=1)[:, : quiet.shape[1]]
        return 0.1 * quiet + (0.5 * when * tones).sum(dim=2)
    bands = torch.zeros(classes, quiet.shape[-1])
    for k in range(classes):
        bands[k, k * width : (k + 1) * width] = 1
    if name == "logmel":
        return quiet + 30 * (active @ bands)[:, None]
    steps = quiet.shape[1]
    there = torch.nn.functional.adaptive_avg_pool1d(active.transpose(1, 2), steps).transpose(1, 2)
    loud = there @ bands  # (N, steps, width)
    return quiet + 3 * (loud if name == "extractor" else loud[:, :, None])


def head_of(network: torch.nn.Module, batch: dict) -> tuple[Head, tuple, dict]:
    """(its head, what tells it from other heads, its outputs)."""
    level = {name: torch.randn_like(batch[name]) if name == "logmel" else batch[name] for name in network.inputs}
    with torch.no_grad():
        out = network.eval()(**level)
    pooling = getattr(getattr(network, "head", network), "pooling", "")
    return (
        Head.of(out),
        (Head.of(out), str(pooling), "auxiliary_logit" in out, type(network).__name__ == "TimmSED"),
        out,
    )


def score(out: dict[str, torch.Tensor], batch: dict, in_time: bool) -> float:
    """Mean average precision of clips, and with targets in time at most that of frames."""
    known = (batch["mask"] > 0).all(dim=1).numpy()
    target = (batch["target"] > 0.5).numpy()[known]
    found = float(mean_average_precision(target, out["clipwise_output"].float().numpy()[known]))
    if not in_time:
        return found
    frames, truth = out["framewise_output"].float().flatten(0, 1), batch["frame_target"].flatten(0, 1) > 0.5
    return min(found, float(mean_average_precision(truth.numpy(), frames.numpy())))


def learn(variant: Variant, loss: str, kind: str, tries=TRIES) -> float:
    """The best score that training reaches; it ends once that is LEARNED."""
    best, loss_of, in_time = 0.0, build_loss(loss, LOSS_PARAMS.get(loss)), kind == "frames" and loss == "bce_clip_frame"
    for seed, (lr, steps) in enumerate(tries):
        torch.manual_seed(seed)
        network = variant.build(1 if kind == "one" else 3)
        batch = toy_batch(kind, network.inputs)
        inputs = {name: batch[name] for name in network.inputs}
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr)
        for step in range(1, steps + 1):
            value = loss_of(network.train()(**inputs), batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if step % 10 == 0:
                with torch.no_grad():
                    best = max(best, score(network.eval()(**inputs), batch, in_time))
                if best >= LEARNED:
                    return best
    return best


def own_refusal(out: dict[str, torch.Tensor], loss: str, asked: Targets) -> str:
    """The error of a loss that does not fit these outputs and targets; '' without one."""
    try:
        check_loss(out, build_loss(loss, LOSS_PARAMS.get(loss)), asked)
    except ValueError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Outcome:
    """One combination: refused with what to set, or what it learned."""

    variant: Variant
    loss: str
    kind: str
    task: str
    refusal: str = ""
    score: float = 0.0

    @property
    def fine(self) -> bool:
        return bool(self.refusal) or self.score >= LEARNED

    def __str__(self) -> str:
        told = f"refused: {self.refusal}" if self.refusal else f"{self.score:.3f}"
        return f"{self.variant} | {self.loss} | {self.kind} | {self.task} | {told}"


def walk(chosen: list[Variant], losses=tuple(LOSSES), kinds=KINDS, tasks=TASKS) -> Iterator[Outcome]:
    """Every combination of these. All networks learn single labels; the other kinds are learned by one of each head.

    A head that was learned with is not tried again by the next network that has the same.
    """
    tried: dict[tuple, float] = {}
    for variant in chosen:
        for kind in kinds:
            network = variant.build(1 if kind == "one" else 3)
            batch = toy_batch(kind, network.inputs)
            head, signature, out = head_of(network, batch)
            asked = Targets(
                target=batch["target"].numpy(), mask=batch["mask"].numpy(), frames=kind == "frames"
            )  # fmt: skip
            for loss in losses:
                who = variant if kind == "single" else signature
                for task in tasks:
                    if refusal := why_not(head, loss, task, asked) or own_refusal(out, loss, asked):
                        yield Outcome(variant, loss, kind, task, refusal)
                        continue
                    if (who, loss, kind) not in tried:
                        tried[who, loss, kind] = learn(variant, loss, kind)
                    yield Outcome(variant, loss, kind, task, score=tried[who, loss, kind])

"""Losses on dicts: `loss(out, batch) -> scalar`, where `out` is a model's dict and `batch` holds the targets.

Conventions. `target` (B, K) may be soft (mixup). BCE runs on `logit` where the model gives one, else on the clipwise
probabilities, in float32 outside autocast, kept float32's epsilon away from 0 and 1 (an entry's loss is at most 15.9).
`mask` (B, K), 1 = known, `weight` (B,) or (B, K) and `class_weight` (K,) are multiplied to one coefficient an entry; a
loss is the mean weighted by it, so an unknown entry counts nowhere and a batch without any known entry gives 0. What
the target says there is never read. Nothing is hidden: a NaN in the outputs makes the loss NaN, and the training loop
stops on it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from earshot.messages import check_params, suggest

COARSE = 8  # coarse classes of SONYC-UST
EPSILON = torch.finfo(torch.float32).eps


def bce(out: dict, batch: dict, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross entropy of the clip output, mean over known entries.

    label_smoothing e moves targets towards 0.5: t * (1 - e) + e / 2.
    """
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    return weighted_mean(elementwise_bce(value, label_smoothed(target, label_smoothing), from_logit), coefficient)


def coarse_fine(
    out: dict, batch: dict, coarse: float | None = None, coarse_weight: float = 1.0, fine_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Two label levels: coarse_weight * BCE of the first `coarse` classes + fine_weight * BCE of the others.

    Each is the mean over its own known entries (a fine tag that nobody can tell is masked), so that neither level
    outweighs the other by its number of classes. coarse: None: the 8 of SONYC-UST, of fewer classes all but the last.
    Errors: fewer classes than that, or a `coarse` that is no number of classes.
    """
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    coarse = min(COARSE, value.shape[1] - 1) if coarse is None else coarse
    n = int(coarse)
    if n != coarse or not 0 < n < value.shape[1]:
        raise ValueError(
            f"loss.params.coarse is {coarse:g}: the first so many classes are the coarse ones, and the network has "
            f"{value.shape[1]}"
        )
    loss = elementwise_bce(value, label_smoothed(target, label_smoothing), from_logit)
    levels = (weighted_mean(loss[:, part], coefficient[:, part]) for part in (slice(None, n), slice(n, None)))
    of_coarse, of_fine = levels
    return coarse_weight * of_coarse + fine_weight * of_fine


def bce_clip_frame(out: dict, batch: dict, frame_weight: float = 0.5, label_smoothing: float = 0.0) -> Tensor:
    """Clip BCE + frame_weight * frame BCE: against `frame_target` where the batch has it, else of the frames' maximum.

    Without times the strongest segment must answer for the clip's label (the birdcall and rainforest winners' loss).
    """
    clip = bce(out, batch, label_smoothing)
    if "frame_target" in batch:
        return clip + frame_weight * frame_bce(out, batch, label_smoothing)
    value, from_logit = segment_output(out)
    strongest = value.amax(dim=1)
    target, coefficient = known_target(batch, strongest)
    frame = elementwise_bce(strongest, label_smoothed(target, label_smoothing), from_logit)
    return clip + frame_weight * weighted_mean(frame, coefficient)


def frame_bce(out: dict, batch: dict, label_smoothing: float = 0.0) -> Tensor:
    """BCE of the framewise output against `frame_target`, mean over time and known classes.

    frame_target is (B, S, K) on the model's segments or (B, T, K) on input frames; see `frame_pair`. Known is what
    `frame_mask` (B, K) says where the batch has it: of a clip whose labels are known its times need not be. A frame
    whose target is NaN has no say.
    """
    value, frame_target, from_logit = frame_pair(out, batch["frame_target"])
    known = batch if batch.get("frame_mask") is None else batch | {"mask": batch["frame_mask"]}
    coefficient = entry_coefficient(known, batch["target"])[:, None, :] * frame_target.isfinite()
    target = torch.where(coefficient > 0, frame_target.float(), 0.0)
    return weighted_mean(elementwise_bce(value, label_smoothed(target, label_smoothing), from_logit), coefficient)


def focal(out: dict, batch: dict, gamma: float = 2.0, alpha: float = 0.25, label_smoothing: float = 0.0) -> Tensor:
    """Focal loss (Lin et al. 2017): alpha_t * (1 - p_t)^gamma * BCE, mean over known entries.

    alpha weighs positives, 1 - alpha negatives; a negative alpha leaves both at 1. Soft targets interpolate p_t and
    alpha_t.
    """
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    target = label_smoothed(target, label_smoothing)
    probability = torch.sigmoid(value) if from_logit else value
    p_t = probability * target + (1 - probability) * (1 - target)
    loss = (1 - p_t) ** gamma * elementwise_bce(value, target, from_logit)
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return weighted_mean(loss, coefficient)


def asymmetric_focal(
    out: dict, batch: dict, gamma_positive: float = 0.0, gamma_negative: float = 4.0, margin: float = 0.05
) -> Tensor:  # fmt: skip
    """Asymmetric loss (Ridnik et al. 2021): easy absences count little, those below `margin` not at all.

    -t (1 - p)^gamma_positive log p - (1 - t) q^gamma_negative log(1 - q) with q = max(p - margin, 0), mean over known
    entries. Soft targets take both terms in proportion.
    """
    if margin >= 1:
        raise ValueError(f"loss.params.margin must lie in [0, 1), got {margin:g}")
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    p = torch.sigmoid(value) if from_logit else value
    log_p = F.logsigmoid(value) if from_logit else value.clamp(EPSILON, 1).log()
    q = (p - margin).clamp(min=0)
    there = target * (1 - p) ** gamma_positive * log_p
    absent = (1 - target) * q**gamma_negative * torch.log1p(-q.clamp(max=1 - EPSILON))
    return weighted_mean(-(there + absent), coefficient)


def soft_auc(out: dict, batch: dict, temperature: float = 1.0, bce_weight: float = 0.25) -> Tensor:
    """How far clips with a class rank below clips without it, a smooth 1 - AUC, plus bce_weight * BCE.

    Of each class: the mean over pairs (i, j) of the batch, weighted by target_i (1 - target_j), of
    log(1 + exp(-(s_i - s_j) / temperature)) on log odds s; then the mean over classes, one whose pairs weigh less than
    1 in proportion. Pairs have no level: that the BCE gives. A batch of one clip has no pairs.
    """
    if not temperature:
        raise ValueError("loss.params.temperature must be above 0")
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    score = value if from_logit else torch.logit(value, EPSILON)
    pairs = (coefficient * target)[:, None] * (coefficient * (1 - target))[None]  # (B, B, K)
    apart = F.softplus((score[None] - score[:, None]) / temperature)
    total = pairs.sum(dim=(0, 1))
    of_class = (pairs * apart).sum(dim=(0, 1)) / total.clamp(min=1e-12)
    ranked = weighted_mean(of_class, total.clamp(max=1))
    if not bce_weight:
        return ranked
    return ranked + bce_weight * weighted_mean(elementwise_bce(value, target, from_logit), coefficient)


def cross_entropy_sigmoid(
    out: dict, batch: dict, label_smoothing: float = 0.0, bce_weight: float = 0.1
) -> Tensor:  # fmt: skip
    """Cross entropy over a clip's classes in training, while a sigmoid head answers: classes compete to be learned.

    A clip's labels share 1 in proportion to their targets (label_smoothing e: t (1 - e) + e / known classes); unknown
    classes are left out of the softmax, and clips without a label out of this term. The softmax knows no level, and
    nothing of silence: bce_weight * BCE gives both.
    """
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    score = value if from_logit else torch.logit(value, EPSILON)
    known = (coefficient > 0).float()
    labels = target.sum(dim=1)
    share = target / labels.clamp(min=1e-12)[:, None]
    share = known * (share * (1 - label_smoothing) + label_smoothing / known.sum(dim=1).clamp(min=1)[:, None])
    log_p = F.log_softmax(torch.where(known > 0, score, torch.full_like(score, -1e4)), dim=1)
    weight = (coefficient * target).sum(dim=1) / labels.clamp(min=1e-12)
    loss = weighted_mean(-(share * log_p).sum(dim=1), weight * (labels > 0).float())
    if not bce_weight:
        return loss
    return loss + bce_weight * weighted_mean(elementwise_bce(value, target, from_logit), coefficient)


def cross_entropy(out: dict, batch: dict, label_smoothing: float = 0.0, auxiliary_weight: float = 0.25) -> Tensor:
    """Cross entropy of one label a clip, soft targets (B, K) allowed, weighted mean over clips.

    label_smoothing e: t * (1 - e) + e / K. A model of several experts gives `auxiliary_logit` (B, A, K): each answers
    for itself with `auxiliary_weight` w, the sum divided by 1 + A w. A clip whose mask is 0 throughout is left out;
    single unknown classes cannot be (the softmax ties them together), nor can weights differ within a clip: both are
    errors.
    """
    value, from_logit = clip_output(out)
    target, coefficient = known_target(batch, value)
    if bool((coefficient != coefficient[:, :1]).any()):
        raise ValueError(
            "cross_entropy cannot mask or weight single classes of a clip (mask, weight (B, K)): use bce, or leave the "
            "whole clip out"
        )
    target = target * (1 - label_smoothing) + label_smoothing / target.shape[1]
    log_p = F.log_softmax(value, dim=1) if from_logit else value.clamp(EPSILON, 1.0).log()
    loss = -(target * log_p).sum(dim=1)
    if auxiliary_weight and "auxiliary_logit" in out:
        experts = F.log_softmax(out["auxiliary_logit"].float(), dim=2)
        each = -(target[:, None] * experts).sum(dim=2)
        loss = (loss + auxiliary_weight * each.sum(dim=1)) / (1 + auxiliary_weight * each.shape[1])
    return weighted_mean(loss, coefficient[:, 0])


def cosine_distance(embedding: Tensor, wanted: Tensor) -> Tensor:
    """Mean of 1 - cosine between (B, D) embeddings and those wanted; an embedding of nothing but zeros is left out."""
    there = (wanted.square().sum(dim=1) > 0).float()
    return weighted_mean(1 - F.cosine_similarity(embedding.float(), wanted.float(), dim=1), there)


def soft_answers(out: dict, answer: Tensor, known: Tensor, temperature: float = 1.0, kind: str = "sigmoid") -> Tensor:
    """Cross entropy of the clip output against a teacher's softened answers (B, K), over known (B, K) classes.

    `answer` are probabilities at this temperature: each class by itself (sigmoid), or summing to one over the known
    classes (softmax, of which a clip knows all or those of every other clip). Scaled by temperature squared, so that
    gradients keep their size (Hinton et al. 2015).
    """
    value, from_logit = clip_output(out)
    logit = (value if from_logit else torch.logit(value, EPSILON)) / temperature
    if kind == "sigmoid":
        return temperature**2 * weighted_mean(elementwise_bce(logit, answer.float(), True), known.float())
    log_p = F.log_softmax(logit.masked_fill(known == 0, -torch.inf), dim=1)
    each = -(answer.float() * torch.where(known > 0, log_p, 0.0)).sum(dim=1)
    return temperature**2 * weighted_mean(each, (known > 0).any(dim=1).float())


def clip_output(out: dict) -> tuple[Tensor, bool]:
    """The clip's logits, float32 (B, K), and True; its probabilities and False where the head has no logit."""
    return (out["logit"].float(), True) if "logit" in out else (out["clipwise_output"].float(), False)


def segment_output(out: dict) -> tuple[Tensor, bool]:
    """The segments' logits, float32 (B, S, K), and True; their probabilities and False where the head has no logit."""
    if "segmentwise_logit" in out:
        return out["segmentwise_logit"].float(), True
    if "segmentwise_output" in out:
        return out["segmentwise_output"].float(), False
    raise ValueError(
        "a frame loss needs a model with segmentwise_output, this one answers for whole clips only: use bce"
    )


def frame_pair(out: dict, frame_target: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Bring outputs and targets in time to the same grid.

    (value, target, value is a logit), all (B, N, K): on segments if the target is, else on the T input frames.

    Each segment repeated to frames meets the mean of its frames' targets: BCE is linear in the target, so that this
    equals the comparison on segments, incomplete last ones included. Errors: a target of neither length.
    """
    value, from_logit = segment_output(out)
    if frame_target.shape == value.shape:
        return value, frame_target, from_logit
    frames = out["framewise_logit" if from_logit else "framewise_output"].float()
    if frame_target.shape != frames.shape:
        raise ValueError(
            f"frame_target is {tuple(frame_target.shape)}; expected {tuple(frames.shape)} (input frames) or "
            f"{tuple(value.shape)} (segments)"
        )
    return frames, frame_target, from_logit


def elementwise_bce(value: Tensor, target: Tensor, from_logit: bool) -> Tensor:
    """Binary cross entropy an entry, of logits or of probabilities, in float32."""
    with torch.autocast(value.device.type, enabled=False):
        if from_logit:
            return F.binary_cross_entropy_with_logits(value.float(), target.float(), reduction="none")
        # not F.binary_cross_entropy: on a NaN it aborts the CUDA process, where the loop would name epoch and clips
        p = value.float().clamp(EPSILON, 1 - EPSILON)
        return -(target * p.log() + (1 - target) * torch.log1p(-p))


def known_target(batch: dict, like: Tensor) -> tuple[Tensor, Tensor]:
    """Give the target and how much each of its entries counts.

    (target, coefficient), both float32 (B, K): 0 as target where the coefficient is 0 (unknown may be -1 or NaN).
    """
    target = batch["target"].float()
    if target.shape != like.shape:
        raise ValueError(f"target is {tuple(target.shape)} but the model gives {tuple(like.shape)}")
    coefficient = entry_coefficient(batch, target)
    return torch.where(coefficient > 0, target, 0.0), coefficient


def entry_coefficient(batch: dict, like: Tensor) -> Tensor:
    """Say how much each entry of the target counts.

    (B, K) mask * weight * class_weight of each entry, 1 where the batch has none of them.
    """
    coefficient = torch.ones_like(like, dtype=torch.float32)
    if batch.get("class_weight") is not None:
        coefficient = coefficient * batch["class_weight"].float()
    if batch.get("mask") is not None:
        coefficient = coefficient * batch["mask"].float()
    weight = batch.get("weight")
    if weight is not None:
        coefficient = coefficient * (weight.float()[:, None] if weight.ndim == 1 else weight.float())
    return coefficient


def weighted_mean(loss: Tensor, coefficient: Tensor) -> Tensor:
    """sum(coefficient * loss) / sum(coefficient); 0, still with a gradient of 0, where no entry is known."""
    return (coefficient * loss).sum() / coefficient.sum().clamp(min=1e-12)


def label_smoothed(target: Tensor, label_smoothing: float) -> Tensor:
    """Binary targets moved towards 0.5."""
    return target * (1 - label_smoothing) + label_smoothing / 2


LOSSES = {
    "bce": bce,
    "bce_clip_frame": bce_clip_frame,
    "coarse_fine": coarse_fine,
    "focal": focal,
    "asymmetric_focal": asymmetric_focal,
    "soft_auc": soft_auc,
    "cross_entropy_sigmoid": cross_entropy_sigmoid,
    "cross_entropy": cross_entropy,
}
# those that are a mean over entries, each class for itself: class weights say how much each counts in it
BY_CLASS = ("bce", "bce_clip_frame", "coarse_fine", "focal", "asymmetric_focal")


def build_loss(
    name: str, params: Mapping[str, float] | None = None, class_weights: Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
) -> Callable[[dict, dict], Tensor]:  # fmt: skip
    """Name of LOSSES and its parameters -> loss(out, batch); one that the loss does not take is an error.

    class_weights: how often the entries of a class count, 1 of those not named; classes: names in model order, without
    which the weights are only checked. Errors: a loss in which classes compete, a name that is no class, all weights 0.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss '{name}'{suggest(name, LOSSES)}")
    known, options = list(inspect.signature(LOSSES[name]).parameters)[2:], {}
    check_params(params or {}, known, f"loss {name}")
    for key, value in (params or {}).items():
        try:
            options[key] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"loss.params.{key} must be a number, got {value!r}") from None
        if not math.isfinite(options[key]) or (options[key] < 0 and key != "alpha"):
            raise ValueError(f"loss.params.{key} must be a number from 0 on, got {value!r}")
    if options.get("alpha", 0) > 1:
        raise ValueError(f"loss.params.alpha weighs positives against 1 - alpha: at most 1, got {options['alpha']:g}")
    smoothing = options.get("label_smoothing", 0)
    if not 0 <= smoothing < 1:
        raise ValueError(f"loss label_smoothing must be in [0, 1), got {smoothing}")
    loss = partial(LOSSES[name], **options)
    if not class_weights:
        return loss
    if name not in BY_CLASS:
        raise ValueError(
            f"loss.class_weights is for losses that take each class by itself ({', '.join(BY_CLASS)}), and {name} "
            "compares classes or clips: leave it out"
        )
    if classes is None:
        return loss
    for label in class_weights:
        if label not in classes:
            raise ValueError(f"loss.class_weights names '{label}', which is no class{suggest(label, classes)}")
    weight = torch.tensor([float(class_weights.get(label, 1.0)) for label in classes])
    if not weight.any():
        raise ValueError("loss.class_weights is 0 for every class: nothing would be learned")
    return lambda out, batch: loss(out, batch | {"class_weight": weight.to(batch["target"].device)})

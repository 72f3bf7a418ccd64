import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from earshot import losses
from earshot.config.sections import LossConfig

B, S, T, K = 4, 3, 10, 5
POOL = 4


def example(seed=0, with_logit=True):
    """A model's dict with segments of 4 frames, and a batch."""
    g = torch.Generator().manual_seed(seed)
    segment = torch.randn(B, S, K, generator=g)
    index = (torch.arange(T) // POOL).clamp(max=S - 1)
    clip = torch.randn(B, K, generator=g)
    out = {
        "clipwise_output": torch.sigmoid(clip),
        "segmentwise_logit": segment,
        "segmentwise_output": torch.sigmoid(segment),
        "framewise_logit": segment[:, index],
        "framewise_output": torch.sigmoid(segment)[:, index],
    }
    if with_logit:
        out["logit"] = clip
    return out, {"target": (torch.rand(B, K, generator=g) < 0.4).float()}


def test_bce_golden_values():
    # -ln 0.9 = 0.1053605, -ln(1 - 0.2) = 0.2231436
    out = {"clipwise_output": torch.tensor([[0.9, 0.2]])}
    batch = {"target": torch.tensor([[1.0, 0.0]])}
    assert float(losses.bce(out, batch)) == pytest.approx((0.1053605 + 0.2231436) / 2, rel=1e-6)
    # logit 0: ln 2, whatever the target
    assert float(losses.bce({"logit": torch.zeros(1, 2)}, batch)) == pytest.approx(math.log(2), rel=1e-6)
    # smoothing 0.2: targets 0.9 and 0.1
    smooth = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / 2 - (0.1 * math.log(0.2) + 0.9 * math.log(0.8)) / 2
    assert float(losses.bce(out, batch, label_smoothing=0.2)) == pytest.approx(smooth, rel=1e-6)


def test_bce_equals_torch_on_logits_and_probabilities():
    out, batch = example()
    expected = F.binary_cross_entropy_with_logits(out["logit"], batch["target"])
    torch.testing.assert_close(losses.bce(out, batch), expected)
    del out["logit"]
    torch.testing.assert_close(losses.bce(out, batch), F.binary_cross_entropy(out["clipwise_output"], batch["target"]))


def test_bce_uses_the_logit_where_there_is_one():
    out, batch = example()
    out["clipwise_output"] = torch.full((B, K), float("nan"))
    assert torch.isfinite(losses.bce(out, batch))


def test_saturated_probabilities_give_a_finite_loss_and_gradient():
    p = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = losses.bce({"clipwise_output": p}, {"target": torch.tensor([[1.0, 0.0]])})
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(losses.EPSILON), rel=1e-2)
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
@pytest.mark.parametrize("with_logit", [True, False])
def test_nan_is_not_hidden_and_half_precision_is_computed_in_float32(name, with_logit):
    out, batch = example(with_logit=with_logit)
    loss = losses.build_loss(name)
    value = loss(out, batch)
    assert value.shape == ()
    assert torch.isfinite(value)
    half = {k: v.half() for k, v in out.items()}
    assert loss(half, batch).dtype == torch.float32
    key = "logit" if with_logit else "clipwise_output"
    out[key] = out[key].index_fill(0, torch.tensor(1), float("nan"))
    assert torch.isnan(loss(out, batch))


@pytest.mark.parametrize(
    "name", ["bce", "bce_clip_frame", "focal", "asymmetric_focal", "soft_auc", "cross_entropy_sigmoid"]
)
@pytest.mark.parametrize("with_logit", [True, False])
def test_masked_entries_have_no_gradient_and_their_targets_are_not_read(name, with_logit):
    out, batch = example(with_logit=with_logit)
    out = {k: v.clone().requires_grad_() for k, v in out.items()}
    batch["mask"] = torch.ones(B, K)
    batch["mask"][1, 2] = 0
    batch["target"][1, 2] = float("nan")
    loss = losses.build_loss(name)(out, batch)
    loss.backward()
    used = [v for k, v in out.items() if v.grad is not None]
    assert used
    for tensor in used:
        gradient = tensor.grad.movedim(-1, 1).reshape(B, K, -1)
        assert (gradient[1, 2] == 0).all()
        assert gradient[0].abs().sum() > 0
    batch["target"][1, 2] = -1.0
    torch.testing.assert_close(losses.build_loss(name)(out, batch), loss)


def test_mask_is_the_mean_over_known_entries_and_a_weight_of_0_is_a_mask():
    out, batch = example()
    each = F.binary_cross_entropy_with_logits(out["logit"], batch["target"], reduction="none")
    mask = torch.ones(B, K)
    mask[0] = 0
    mask[2, 3] = 0
    expected = each[mask > 0].mean()
    torch.testing.assert_close(losses.bce(out, batch | {"mask": mask}), expected)
    torch.testing.assert_close(losses.bce(out, batch | {"weight": mask}), expected)
    per_clip = torch.tensor([0.0, 1.0, 3.0, 1.0])
    torch.testing.assert_close(
        losses.bce(out, batch | {"weight": per_clip}), (each.mean(1) * per_clip).sum() / per_clip.sum()
    )


def test_a_batch_without_known_entries_gives_0():
    out, batch = example()
    out["logit"].requires_grad_()
    loss = losses.bce(out, batch | {"mask": torch.zeros(B, K)})
    loss.backward()
    assert float(loss.detach()) == 0
    assert (out["logit"].grad == 0).all()


def test_clip_frame_without_times_takes_the_strongest_segment():
    out, batch = example()
    strongest = out["segmentwise_output"].amax(dim=1)
    expected = losses.bce(out, batch) + 0.7 * F.binary_cross_entropy(strongest, batch["target"])
    torch.testing.assert_close(losses.bce_clip_frame(out, batch, frame_weight=0.7), expected)


def test_frame_targets_on_frames_and_on_segments_by_a_slow_loop():
    out, batch = example()
    frame_target = (torch.rand(B, T, K, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    total = 0.0
    for b in range(B):
        for t in range(T):
            for k in range(K):
                p = float(out["segmentwise_output"][b, min(t // POOL, S - 1), k])
                total -= math.log(p) if frame_target[b, t, k] else math.log(1 - p)
    value = losses.frame_bce(out, batch | {"frame_target": frame_target})
    assert float(value) == pytest.approx(total / (B * T * K), rel=1e-5)
    both = losses.bce_clip_frame(out, batch | {"frame_target": frame_target}, frame_weight=0.5)
    torch.testing.assert_close(both, losses.bce(out, batch) + 0.5 * value)
    on_segments = frame_target[:, :S]
    torch.testing.assert_close(
        losses.frame_bce(out, batch | {"frame_target": on_segments}),
        F.binary_cross_entropy(out["segmentwise_output"], on_segments),
    )


def test_frames_against_segments_weighted_by_their_frames():
    """10 frames in segments of 4, 4, 2: the loss on frames is that of segment means, weighted 4 : 4 : 2."""
    out, batch = example()
    frame_target = torch.rand(B, T, K, generator=torch.Generator().manual_seed(2))
    means = torch.stack([frame_target[:, a:b].mean(1) for a, b in ((0, 4), (4, 8), (8, 10))], dim=1)
    each = F.binary_cross_entropy(out["segmentwise_output"], means, reduction="none").mean(dim=(0, 2))
    expected = (each * torch.tensor([4.0, 4.0, 2.0])).sum() / 10
    torch.testing.assert_close(losses.frame_bce(out, batch | {"frame_target": frame_target}), expected)


def test_focal_golden_value_and_limits():
    # p = 0.9, target 1: 0.25 * 0.1^2 * 0.1053605
    out = {"clipwise_output": torch.tensor([[0.9]])}
    value = losses.focal(out, {"target": torch.ones(1, 1)})
    assert float(value) == pytest.approx(0.25 * 0.01 * 0.1053605, rel=1e-4)
    value = losses.focal(out, {"target": torch.zeros(1, 1)})
    assert float(value) == pytest.approx(0.75 * 0.81 * 2.302585, rel=1e-4)
    out, batch = example()
    torch.testing.assert_close(losses.focal(out, batch, gamma=0.0, alpha=-1), losses.bce(out, batch))


def test_focal_equals_a_loop_over_entries():
    out, batch = example()
    total = 0.0
    for logit, target in zip(out["logit"].flatten().tolist(), batch["target"].flatten().tolist()):
        p_t = 1 / (1 + math.exp(-logit if target else logit))
        total -= (0.3 if target else 0.7) * (1 - p_t) ** 1.5 * math.log(p_t)
    assert float(losses.focal(out, batch, gamma=1.5, alpha=0.3)) == pytest.approx(total / (B * K), rel=1e-5)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3]))
def test_cross_entropy_equals_torch_with_soft_targets_and_smoothing(seed, label_smoothing):
    g = torch.Generator().manual_seed(seed)
    logit = torch.randn(B, K, generator=g)
    target = torch.softmax(torch.randn(B, K, generator=g), dim=1)
    expected = F.cross_entropy(logit, target, label_smoothing=label_smoothing)
    value = losses.cross_entropy({"logit": logit}, {"target": target}, label_smoothing)
    torch.testing.assert_close(value, expected)
    from_probability = losses.cross_entropy(
        {"clipwise_output": torch.softmax(logit, 1)}, {"target": target}, label_smoothing
    )
    torch.testing.assert_close(from_probability, expected, rtol=1e-4, atol=1e-5)


def test_cross_entropy_weights_clips_and_refuses_classes():
    logit, target = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weight = torch.tensor([1.0, 3.0])
    value = losses.cross_entropy({"logit": logit}, {"target": target, "weight": weight})
    assert float(value) == pytest.approx((math.log(2) + 3 * math.log(4 / 3)) / 4, rel=1e-6)
    unknown_clip = losses.cross_entropy({"logit": logit}, {"target": target, "mask": torch.tensor([[0, 0], [1, 1]])})
    assert float(unknown_clip) == pytest.approx(math.log(4 / 3), rel=1e-6)
    with pytest.raises(ValueError, match="cannot mask or weight single classes"):
        losses.cross_entropy({"logit": logit}, {"target": target, "mask": torch.tensor([[1, 0], [1, 1]])})


def test_build_loss_passes_each_loss_its_options():
    out, batch = example()
    for name, options in (("bce", {"label_smoothing": 0.1}), ("focal", {"gamma": 3.0, "alpha": 0.5})):
        expected = losses.LOSSES[name](out, batch, **options)
        torch.testing.assert_close(losses.build_loss(name, options)(out, batch), expected)


@pytest.mark.parametrize("name", losses.BY_CLASS)
def test_class_weights_say_how_often_the_entries_of_a_class_count(name):
    out, batch = example()
    classes = [f"c{k}" for k in range(K)]
    weights = torch.ones(K)
    weights[1] = 3
    weighted = losses.build_loss(name, None, {"c1": 3.0}, classes)(out, batch)
    torch.testing.assert_close(weighted, losses.build_loss(name)(out, batch | {"weight": weights.expand(B, K)}))
    assert not torch.allclose(weighted, losses.build_loss(name)(out, batch))
    torch.testing.assert_close(
        losses.build_loss(name, None, dict.fromkeys(classes, 2.0), classes)(out, batch),
        losses.build_loss(name)(out, batch),
    )
    assert "class_weight" not in batch


def test_class_weights_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="names 'vocl', which is no class; did you mean 'vocal'"):
        losses.build_loss("bce", None, {"vocl": 2.0}, ["vocal", "syl_0"])
    with pytest.raises(ValueError, match="class_weights is 0 for every class"):
        losses.build_loss("bce", None, {"a": 0.0, "b": 0.0}, ["a", "b"])
    for name in sorted(set(losses.LOSSES) - set(losses.BY_CLASS)):
        with pytest.raises(ValueError, match=f"takes? each class by itself .*, and {name} compares"):
            losses.build_loss(name, None, {"a": 2.0})
    with pytest.raises(ValueError, match=r"class_weights of 'a' must be from 0 to 1e\+06, got -1"):
        LossConfig(class_weights={"a": -1.0})


def test_errors_say_what_came():
    out, batch = example()
    with pytest.raises(ValueError, match="unknown loss 'bec'; did you mean 'bce'"):
        losses.build_loss("bec")
    with pytest.raises(ValueError, match="unknown parameter 'gama' of loss bce; known: label_smoothing"):
        losses.build_loss("bce", {"gama": 1.0})
    with pytest.raises(ValueError, match=r"loss.params.gamma must be a number, got 'two'"):
        losses.build_loss("focal", {"gamma": "two"})
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1.5"):
        losses.build_loss("bce", {"label_smoothing": 1.5})
    for name, params in (("bce_clip_frame", {"frame_weight": -1}), ("focal", {"gamma": "nan"})):
        with pytest.raises(ValueError, match=f"loss.params.{next(iter(params))} must be a number from 0 on"):
            losses.build_loss(name, params)
    losses.build_loss("focal", {"alpha": -1})  # no weights of classes
    with pytest.raises(ValueError, match=r"target is \(4, 1\) but the model gives \(4, 5\)"):
        losses.bce(out, {"target": torch.ones(B, 1)})
    with pytest.raises(ValueError, match=r"frame_target is \(4, 7, 5\); expected \(4, 10, 5\)"):
        losses.frame_bce(out, batch | {"frame_target": torch.zeros(B, 7, K)})
    with pytest.raises(ValueError, match="answers for whole clips only"):
        losses.bce_clip_frame({"logit": out["logit"]}, batch)


def test_losses_of_a_perfect_and_a_random_model_are_ordered():
    target = torch.from_numpy(np.eye(K, dtype=np.float32)[:B])
    perfect, wrong = {"logit": 20 * (2 * target - 1)}, {"logit": -20 * (2 * target - 1)}
    for name in ("bce", "focal", "cross_entropy"):
        loss = losses.build_loss(name)
        assert float(loss(perfect, {"target": target})) < 1e-6 < 1 < float(loss(wrong, {"target": target}))


def test_experts_of_a_model_answer_for_themselves_too():
    target = torch.tensor([[1.0, 0.0]])
    logit, experts = torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    one = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(3))]
    out = {"logit": logit, "clipwise_output": logit.softmax(1), "auxiliary_logit": experts}
    both = losses.build_loss("cross_entropy", {"auxiliary_weight": 0.25})(out, {"target": target})
    assert both.item() == pytest.approx((one[0] + 0.25 * (one[1] + one[2])) / 1.5, abs=1e-6)
    alone = losses.build_loss("cross_entropy", {"auxiliary_weight": "0e-3"})(out, {"target": target})
    assert alone.item() == pytest.approx(one[0], abs=1e-6)


def test_asymmetric_focal_golden_values():
    # of an absence at 0.5: q = 0.45, -0.45^4 ln 0.55; of a presence at 0.5 with gamma 1: -0.5 ln 0.5; at 0.04: nothing
    out = {"clipwise_output": torch.tensor([[0.5, 0.5, 0.04]])}
    batch = {"target": torch.tensor([[0.0, 1.0, 0.0]])}
    expected = (-(0.45**4) * math.log(0.55) - 0.5 * math.log(0.5)) / 3
    assert float(losses.asymmetric_focal(out, batch, gamma_positive=1.0)) == pytest.approx(expected, rel=1e-6)
    from_logit = losses.asymmetric_focal({"logit": torch.logit(out["clipwise_output"])}, batch, gamma_positive=1.0)
    assert float(from_logit) == pytest.approx(expected, rel=1e-5)
    plain = losses.asymmetric_focal(out, batch, gamma_negative=0, margin=0)
    torch.testing.assert_close(plain, losses.bce(out, batch))
    with pytest.raises(ValueError, match=r"margin must lie in \[0, 1\), got 1"):
        losses.asymmetric_focal(out, batch, margin=1.0)


def slow_auc(score, target, weight, temperature):
    """Pair by pair."""
    values, weights = [], []
    for k in range(score.shape[1]):
        total = mass = 0.0
        for i in range(len(score)):
            for j in range(len(score)):
                w = float(weight[i, k] * target[i, k] * weight[j, k] * (1 - target[j, k]))
                total += w * math.log1p(math.exp(-float(score[i, k] - score[j, k]) / temperature))
                mass += w
        if mass:
            values.append(total / mass)
            weights.append(min(1.0, mass))
    return np.average(values, weights=weights)


def test_soft_auc_is_the_mean_over_pairs_of_each_class():
    g = torch.Generator().manual_seed(3)
    logit, target = torch.randn(6, 4, generator=g), torch.rand(6, 4, generator=g)
    target[:, :2] = (target[:, :2] > 0.5).float()
    target[:, 1] = 0  # a class without a positive has no pairs
    mask = (torch.rand(6, 4, generator=g) < 0.8).float()
    found = losses.soft_auc({"logit": logit}, {"target": target, "mask": mask}, temperature=0.5, bce_weight=0)
    assert float(found) == pytest.approx(slow_auc(logit, target, mask, 0.5), rel=1e-5)
    with_bce = losses.soft_auc({"logit": logit}, {"target": target}, bce_weight=0.5)
    alone = losses.soft_auc({"logit": logit}, {"target": target}, bce_weight=0)
    torch.testing.assert_close(with_bce, alone + 0.5 * losses.bce({"logit": logit}, {"target": target}))
    single = {"logit": logit[:1].requires_grad_()}
    value = losses.soft_auc(single, {"target": torch.eye(4)[:1]}, bce_weight=0)
    value.backward()
    assert float(value.detach()) == 0
    right, wrong = torch.tensor([[5.0], [-5.0]]), torch.tensor([[-5.0], [5.0]])
    truth = {"target": torch.tensor([[1.0], [0.0]])}
    values = [float(losses.soft_auc({"logit": x}, truth, bce_weight=0)) for x in (right, wrong)]
    assert values == pytest.approx([4.54e-5, 10.0], rel=1e-2)


def test_cross_entropy_of_a_sigmoid_head():
    logit = torch.tensor([[0.0, 0.0, math.log(2)], [1.0, 2.0, 3.0]])
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    batch = {"target": target}
    alone = losses.cross_entropy_sigmoid({"logit": logit}, batch, bce_weight=0)
    assert float(alone) == pytest.approx(math.log(4), rel=1e-6), "two labels share 1; silence says nothing"
    single = {"target": torch.eye(3)[:2]}
    torch.testing.assert_close(
        losses.cross_entropy_sigmoid({"logit": logit}, single, bce_weight=0),
        losses.cross_entropy({"logit": logit}, single),
    )
    masked = losses.cross_entropy_sigmoid({"logit": logit}, batch | {"mask": torch.tensor([[1, 1, 0], [1, 1, 1]])},
                                          bce_weight=0)  # fmt: skip
    assert float(masked) == pytest.approx(math.log(2), rel=1e-6), "an unknown class does not compete"
    both = losses.cross_entropy_sigmoid({"logit": logit}, batch, bce_weight=0.3)
    torch.testing.assert_close(both, alone + 0.3 * losses.bce({"logit": logit}, batch))
    weighed = losses.cross_entropy_sigmoid(
        {"logit": logit}, single | {"weight": torch.tensor([1.0, 0.0])}, bce_weight=0
    )
    torch.testing.assert_close(weighed, losses.cross_entropy({"logit": logit[:1]}, {"target": single["target"][:1]}))

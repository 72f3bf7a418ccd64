"""A part of the walk over heads and losses; the whole of it is benchmarks/heads_and_losses.py."""

import pytest
import torch

import toy_heads
from earshot.losses import LOSSES, cross_entropy
from earshot.models import MODELS
from toy_heads import Variant

FAST = [
    Variant("cnn_small", (("activation", "sigmoid"), ("pooling", "attention"))),
    Variant("cnn_small", (("activation", "softmax"), ("pooling", "clip"))),
]


@pytest.mark.slow
def test_two_heads_learn_or_are_refused():
    """A sigmoid head of segments and a softmax head of clips, with every loss, on single and on several labels."""
    found = list(toy_heads.walk(FAST, kinds=("single", "several"), tasks=("tagging",)))
    assert len(found) == 2 * len(LOSSES) * 2
    assert [str(o) for o in found if not o.fine] == []
    learned = {(o.variant.params[0][1], o.loss, o.kind) for o in found if not o.refusal}
    assert learned == {
        ("sigmoid", "coarse_fine", "single"), ("sigmoid", "coarse_fine", "several"),
        ("softmax", "coarse_fine", "single"),
        ("sigmoid", "bce", "single"), ("sigmoid", "bce_clip_frame", "single"), ("sigmoid", "focal", "single"),
        ("sigmoid", "bce", "several"), ("sigmoid", "bce_clip_frame", "several"), ("sigmoid", "focal", "several"),
        ("softmax", "bce", "single"), ("softmax", "focal", "single"), ("softmax", "cross_entropy", "single"),
        ("sigmoid", "asymmetric_focal", "single"), ("sigmoid", "asymmetric_focal", "several"),
        ("sigmoid", "soft_auc", "single"), ("sigmoid", "soft_auc", "several"),
        ("sigmoid", "cross_entropy_sigmoid", "single"), ("sigmoid", "cross_entropy_sigmoid", "several"),
        ("softmax", "asymmetric_focal", "single"), ("softmax", "soft_auc", "single"),
    }  # fmt: skip


@pytest.mark.slow
def test_cross_entropy_of_sigmoid_probabilities_says_every_class_is_there():
    """Why it is refused: the loss falls to nothing while every class of every clip goes to 1."""
    torch.manual_seed(0)
    network = FAST[0].build(3)
    batch = toy_heads.toy_batch("single", network.inputs)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        out = network.train()(logmel=batch["logmel"])
        loss = cross_entropy(out, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    assert out["clipwise_output"][batch["target"] == 0].mean() > 0.9, "where the truth is 0"


def test_every_network_is_walked():
    assert {v.name for v in toy_heads.variants(("cnn_small", "talnet"))} == {"cnn_small", "talnet"}
    kinds = {v.params for v in toy_heads.variants(("cnn_small",))}
    assert len(kinds) == 11, "seven poolings of probabilities, four of logits"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_head_learns_or_is_refused(name):
    """Single labels only: the other kinds of targets, and every task, are the benchmark's."""
    found = list(toy_heads.walk(toy_heads.variants((name,)), kinds=("single",), tasks=("tagging",)))
    assert found
    assert [str(o) for o in found if not o.fine] == []

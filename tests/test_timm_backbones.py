"""timm backbones of other families: which parts of them a feature map comes through, and that all of those learn."""

import pytest
import torch

from earshot.models import build_model

K, F = 3, 32
# what each has between its feature map and the classes that it was made for
HEADS = {
    "test_efficientnet": (),
    "mobilenetv4_conv_small_035": ("backbone.conv_head.", "backbone.norm_head."),
    "efficientvit_b0": ("backbone.head.",),
    "convnext_atto": ("backbone.head.",),
    "regnety_002": (),
}


@pytest.mark.parametrize("backbone", HEADS)
def test_what_no_output_depends_on_is_declared_and_all_else_learns(backbone):
    torch.manual_seed(0)
    model = build_model("timm_sed", K, F, {"backbone": backbone, "pretrained": False, "units": 16}).train()
    assert model.dead_parameters == HEADS[backbone]
    out = model(logmel=torch.randn(2, 1, 96, F))
    assert out["framewise_output"].shape == (2, 96, K)
    (out["clipwise_output"] * torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])).sum().backward()
    unmoved = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert unmoved == {key for key, _ in model.named_parameters() if key.startswith(model.dead_parameters)}


def test_looking_through_a_backbone_leaves_it_as_it_was():
    """What finds the parts unused hears zeros: batch norms must not have learned from them."""
    model = build_model("timm_sed", K, F, {"backbone": "test_efficientnet", "pretrained": False, "units": 16})
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(int(m.num_batches_tracked) == 0 and not m.running_mean.any() for m in norms)
    assert model.backbone.training
    assert not any(m._forward_pre_hooks for m in model.backbone.modules())


@pytest.mark.parametrize(
    "backbone",
    [
        "test_efficientnet",
        "regnety_002",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("convnext_atto", "efficientvit_b0")),
    ],
)
def test_a_backbone_ends_where_its_reduction_says(backbone):
    params = {"backbone": backbone, "pretrained": False, "units": 16}
    whole = build_model("timm_sed", K, F, params)
    cut = build_model("timm_sed", K, F, params | {"reduction": 16}).train()
    assert (whole.pool, cut.pool) == (32, 16)
    assert not cut.dead_parameters
    sizes = [sum(p.numel() for p in network.backbone.parameters()) for network in (cut, whole)]
    assert sizes[0] < 0.9 * sizes[1], "the later stages are gone"
    x = torch.randn(2, 1, 96, F)
    out = cut(logmel=x)
    assert out["segmentwise_output"].shape == (2, 6, K)
    assert out["framewise_output"].shape == (2, 96, K)
    (out["clipwise_output"] * torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])).sum().backward()
    assert all(parameter.grad is not None for parameter in cut.parameters())
    traced = torch.jit.trace(cut.eval(), example_kwarg_inputs={"logmel": x}, strict=False, check_trace=False)
    with torch.no_grad():
        longer = torch.randn(1, 1, 160, F)
        torch.testing.assert_close(traced(logmel=longer)["clipwise_output"], cut(logmel=longer)["clipwise_output"])


def test_a_reduction_that_a_backbone_does_not_have_is_said():
    params = {"backbone": "convnext_atto", "pretrained": False, "reduction": 2}
    with pytest.raises(ValueError, match=r"'convnext_atto' divides by 4, 8, 16, 32, not by reduction 2"):
        build_model("timm_sed", K, F, params)
    same = build_model("timm_sed", K, F, {"backbone": "test_efficientnet", "pretrained": False, "reduction": 32})
    assert (same.pool, same.stage) == (32, None)

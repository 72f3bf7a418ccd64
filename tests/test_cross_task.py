"""FA, VEM, JRM and CMAM: printed sizes, equations by hand, what the event model may and may not do in training."""

import math

import numpy as np
import pytest
import torch

from earshot.models import build_model
from earshot.models.blocks import depth_blocks
from earshot.models.cross_task import Attention, AttentionPooling, positions
from earshot.models.weights import load_weights

K = 3
VGGISH = {"widths": [4, 8, 8, 8], "hidden": 16, "embedding": 12}
NARROW = {"widths": [4, 8, 8, 8], "attention": 8}
SMALL = {
    "cross_task_vem": NARROW,
    "cross_task_jrm": NARROW | {"deep_widths": [4, 8, 8, 8, 8, 8, 16]},
    "cross_task_cmam": NARROW | {"query_dim": 32, "query_heads": 4},
}


def on_meta(name, params=None, classes=10):
    with torch.device("meta"):
        return build_model(name, classes, 64, params)


def convolutions(encoder):
    return [m.weight.numel() for m in encoder if isinstance(m, torch.nn.Conv2d)]


def examples(batch, count=4):
    return torch.randn(batch, count, 96, 64)


# sizes, shapes


def test_sizes_are_the_printed_ones():
    fa = convolutions(on_meta("cross_task_fa", {"in_chans": 2}).encoder)
    assert sum(fa) == 1_549_440
    assert sum(fa[2:]) == 1_474_560  # the printed 1.47 M
    deep = convolutions(on_meta("cross_task_jrm").deep_encoder)
    assert sum(deep) == 34_579_008
    assert sum(deep[4:]) == 33_030_144  # the printed 33 M
    cmam = on_meta("cross_task_cmam")
    matrices = [p.numel() for a in (cmam.self_attention, cmam.cross_attention) for p in a.parameters() if p.ndim == 2]
    assert matrices == [2048 * 2048] * 8
    assert sum(matrices) == 33_554_432  # the printed 33 M


def test_attention_pooling_has_four_heads_of_dimension_1024_over_steps_of_2048():
    fa, jrm, vem = (on_meta(f"cross_task_{name}") for name in ("fa", "jrm", "vem"))
    for pooling, width in ((fa.attention, 2048), (jrm.attention, 2048), (jrm.deep_attention, 2048),
                           (vem.attention, 4096)):  # fmt: skip
        assert pooling.hidden.weight.shape == (1024, width)
        assert pooling.heads.weight.shape == (4, 1024)
    assert fa.fc.weight.shape == (10, 4 * 2048)
    assert jrm.fc.weight.shape == (10, 2 * 4 * 2048)


def test_maps_have_the_sources_sizes():
    fa = build_model("cross_task_fa", K, 64, {"widths": [2, 2, 2, 512]}).eval()
    assert fa.encoder(torch.zeros(1, 1, 501, 64)).shape == (1, 31, 4 * 512)
    jrm = build_model("cross_task_jrm", K, 64, SMALL["cross_task_jrm"]).eval()
    assert jrm.deep_encoder(torch.zeros(1, 1, 10, 128)).shape == (1, 2, 16)
    vem = build_model("cross_task_vem", K, 64, NARROW).eval()
    assert vem.encoder(torch.zeros(1, 1, 10, 128)).shape == (1, 10, 8 * 8), "time is not pooled"


# equations


def test_attention_pooling_by_hand():
    torch.manual_seed(0)
    pooling, x = AttentionPooling(5, 6, 2), torch.randn(3, 4, 5)
    out = pooling(x).detach().numpy()
    w1, w2 = pooling.hidden.weight.detach().numpy(), pooling.heads.weight.detach().numpy()
    for b in range(3):
        for head in range(2):
            scores = [w2[head] @ np.maximum(w1 @ step, 0) for step in x[b].numpy()]
            weights = np.exp(scores) / np.exp(scores).sum()
            expected = sum(w * step for w, step in zip(weights, x[b].numpy()))
            np.testing.assert_allclose(out[b, 5 * head : 5 * head + 5], expected, atol=1e-5)


@pytest.mark.parametrize("scale", ["head", "query"])
def test_equations_1_to_6_by_hand(scale):
    torch.manual_seed(0)
    layer = Attention(6, 5, query_dim=8, heads=2, dropout=0.5, scale=scale).double().eval()
    x, other = torch.randn(2, 3, 6).double(), torch.randn(2, 4, 5).double()
    query, key, value, out = (m.weight.detach().numpy() for m in (layer.query, layer.key, layer.value, layer.out))
    d = 4 if scale == "head" else 8
    for b in range(2):
        joined = np.zeros((3, 8))
        for head in (slice(0, 4), slice(4, 8)):
            q, k, v = x[b].numpy() @ query[head].T, other[b].numpy() @ key[head].T, other[b].numpy() @ value[head].T
            weights = np.exp(q @ k.T / math.sqrt(d))
            joined[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v
        rows = joined @ out.T + x[b].numpy()
        rows = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(layer(x, other)[b].detach().numpy(), rows, atol=1e-9)
    assert not torch.equal(layer.train()(x, other), layer(x, other)), "dropout acts in training"


def test_positions_by_hand():
    table = positions(torch.zeros(1, 7, 6)).numpy()
    for place in range(7):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            np.testing.assert_allclose(table[place, 2 * pair : 2 * pair + 2], [math.sin(angle), math.cos(angle)],
                                       atol=1e-6)  # fmt: skip


def test_order_counts_in_cmam_alone():
    """Without positions, reversed embeddings would give the same answer; the log-mel side has none."""
    torch.manual_seed(0)
    model = build_model("cross_task_cmam", K, 64, SMALL["cross_task_cmam"]).eval()
    logmel, sequence = torch.randn(1, 1, 64, 64), torch.randn(1, 6, 128)
    with torch.no_grad():
        there, back = (model(logmel=logmel, extractor=s)["logit"] for s in (sequence, sequence.flip(1)))
    assert (there - back).abs().max() > 1e-4


@pytest.mark.parametrize("query", ["extractor", "logmel"])
def test_the_query_side_gives_the_steps(query):
    params = SMALL["cross_task_cmam"] | {"query": query}
    model = build_model("cross_task_cmam", K, 64, params).eval()
    seen = []
    model.attention.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(logmel=torch.randn(2, 1, 160, 64), extractor=torch.randn(2, 7, 128))
    assert seen == [(2, 7, 32) if query == "extractor" else (2, 10, 8 * 4)]


# the event model


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [128, 20])
def test_embeddings_of_any_width_and_number(name, width):
    model = build_model(name, K, 64, SMALL[name] | {"extractor_width": width}).eval()
    for steps in (1, 3, 10):
        inputs = {"logmel": torch.randn(2, 1, 50, 64), "extractor": torch.randn(2, steps, width)}
        out = model(**{k: inputs[k] for k in model.inputs})
        assert torch.isfinite(out["logit"]).all()
    with pytest.raises(ValueError, match=rf"extractor must be \(batch, steps, {width}\), got \(2, 4, 7\)"):
        model(**{k: {**inputs, "extractor": torch.randn(2, 4, 7)}[k] for k in model.inputs})


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("freeze", [False, True])
def test_vggish_inside_learns_unless_frozen(name, freeze):
    torch.manual_seed(0)
    params = SMALL[name] | {"extractor": "vggish", "freeze": freeze, "extractor_params": VGGISH}
    model = build_model(name, K, 64, params).train()
    assert model.inputs[-1] == "vggish"
    assert model.extractor.training != freeze
    inputs = {"logmel": torch.randn(3, 1, 70, 64), "vggish": examples(3)}
    out = model(**{k: inputs[k] for k in model.inputs})
    (out["logit"] * torch.randn(3, K)).sum().backward()
    learning = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert ("extractor" in learning) != freeze
    assert {"bn_extractor", "encoder", "attention", "fc"} <= learning
    first = depth_blocks(model)[0].name
    assert first.startswith("extractor.features.0") != freeze, "the event model is nearest to the input"


@pytest.mark.parametrize("name", SMALL)
def test_inside_or_given_gives_the_same_answer(name):
    torch.manual_seed(0)
    inside = build_model(name, K, 64, SMALL[name] | {"extractor": "vggish", "extractor_params": VGGISH}).eval()
    given = build_model(name, K, 64, SMALL[name] | {"extractor_width": 12}).eval()
    state = {k: v for k, v in inside.state_dict().items() if not k.startswith("extractor.")}
    given.load_state_dict(state)
    inputs = {"logmel": torch.randn(2, 1, 70, 64), "vggish": examples(2)}
    with torch.no_grad():
        expected = inside(**{k: inputs[k] for k in inside.inputs})["logit"]
        inputs["extractor"] = inside.extractor(inputs["vggish"])
        torch.testing.assert_close(given(**{k: inputs[k] for k in given.inputs})["logit"], expected)


def test_weights_of_the_event_model_load_by_its_prefix(tmp_path):
    torch.manual_seed(0)
    source = build_model("vggish", 527, 64, VGGISH)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("head.")}
    torch.save(state, tmp_path / "vggish.pth")
    params = SMALL["cross_task_jrm"] | {"extractor": "vggish", "extractor_params": VGGISH}
    model = build_model("cross_task_jrm", K, 64, params)
    report = load_weights(model, tmp_path / "vggish.pth", prefix=model.weights_prefix)
    assert report.loaded == len(state)
    assert torch.equal(model.extractor.features[0].weight, source.features[0].weight)


def test_post_processed_embeddings_are_frozen(tmp_path):
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(12), pca_means=np.zeros(12))
    params = SMALL["cross_task_jrm"] | {"extractor": "vggish", "extractor_params": VGGISH | {"postprocess": True}}
    model = build_model("cross_task_jrm", K, 64, params | {"pretrained": str(tmp_path / "pca.npz")}).train()
    assert not any(p.requires_grad for p in model.extractor.parameters())
    model(logmel=torch.randn(2, 1, 70, 64), vggish=examples(2))["logit"].sum().backward()
    torch.save({k: v for k, v in model.extractor.state_dict().items() if "pproc" not in k}, tmp_path / "vggish.pth")
    report = load_weights(model, tmp_path / "vggish.pth", ("pproc",), prefix=model.weights_prefix)
    assert {k for k in report.kept if k.startswith("extractor.")} == {
        "extractor.pproc.pca_eigen_vectors", "extractor.pproc.pca_means",
    }  # fmt: skip
    build_model("cross_task_jrm", K, 64, params | {"pretrained": "elsewhere"}, weights_follow=True)


@pytest.mark.parametrize("name", SMALL)
def test_a_second_encoder_of_the_log_mel_stands_in_for_the_event_model(name):
    params = SMALL[name] | {"extractor": "logmel", "extractor_params": {"widths": [2, 2, 2, 4], "embedding": 6}}
    model = build_model(name, K, 64, params | {"in_chans": 2}).train()
    assert model.inputs == ("logmel",)
    model(logmel=torch.randn(2, 2, 130, 64))["logit"].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.extractor.parameters())
    assert model.extractor(torch.randn(2, 2, 130, 64)).shape == (2, 8, 6)
    with pytest.raises(ValueError, match="needs extractor: vggish"):
        build_model(name, K, 64, params | {"pretrained": "pca.npz"})


def test_what_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="extractor is 'vgish'; choose one of "):
        build_model("cross_task_jrm", K, 64, {"extractor": "vgish"})
    with pytest.raises(ValueError, match="need extractor: vggish or logmel"):
        build_model("cross_task_vem", K, 64, NARROW | {"extractor_params": VGGISH})
    with pytest.raises(ValueError, match="query_dim 30 must be a multiple of heads 8"):
        build_model("cross_task_cmam", K, 64, NARROW | {"query_dim": 30})
    with pytest.raises(ValueError, match="here has 7 convolutions"):
        build_model("cross_task_jrm", K, 64, NARROW | {"deep_widths": [4, 4]})
    with pytest.raises(ValueError, match="at least 16 mel bins, got 12"):
        build_model("cross_task_fa", K, 12, NARROW)

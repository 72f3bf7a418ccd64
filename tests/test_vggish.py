"""VGGish: its input by two paths, by hand and by the reference; its network's sizes, post-processor and options."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.inputs import vggish
from earshot.inputs.vggish_torch import VggishExamples
from earshot.models import build_model
from earshot.models.vggish import Postprocessor, VggishExtractor
from earshot.models.weights import load_weights

SMALL = {"widths": [4, 8, 8, 8], "hidden": 16, "embedding": 16}


@given(st.integers(1, 80_000), st.integers(1, 3))
@settings(max_examples=12)
def test_both_paths_agree_at_every_length(n_samples, clips):
    waveform = np.random.default_rng(n_samples).standard_normal((clips, n_samples)).astype(np.float32) * 0.1
    ours = vggish.examples(waveform)
    twin = VggishExamples()(torch.from_numpy(waveform)).numpy()
    assert ours.shape == twin.shape == (clips, vggish.n_examples(n_samples), 96, 64)
    np.testing.assert_allclose(ours, twin, atol=1e-4)
    np.testing.assert_array_equal(vggish.examples(waveform[0]), ours[0])


def test_the_number_of_examples():
    rate = vggish.SAMPLE_RATE
    assert vggish.n_examples(10 * rate) == 10
    assert vggish.n_examples(5 * rate) == 5
    assert [vggish.n_examples(n) for n in (1, 15_600, 15_600 + 96 * 160 - 1, 15_600 + 96 * 160)] == [1, 1, 1, 2]


def test_silence_and_a_short_clip():
    """Zeros are log(0.01) everywhere; a short clip is itself with zeros behind it."""
    np.testing.assert_allclose(vggish.examples(np.zeros(16_000)), math.log(0.01), rtol=1e-6)
    clip = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    padded = np.pad(clip, (0, 15_600 - 5000))
    np.testing.assert_array_equal(vggish.examples(clip), vggish.examples(padded))
    for path in (vggish.examples, lambda x: VggishExamples()(torch.from_numpy(x))):
        with pytest.raises(ValueError, match="with samples in it"):
            path(np.zeros((2, 0), np.float32))


def test_a_tone_by_a_second_implementation():
    """One frame in float64 by definition: sum of magnitudes weighted by triangles over HTK mel."""
    t = np.arange(16_000) / 16_000
    clip = (0.3 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    frame = clip[160 * 7 :][:400].astype(float) * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    magnitude = np.abs(turns @ frame)

    def mel(hz):
        return 1127 * math.log(1 + hz / 700)

    low, high = mel(125), mel(7500)
    step = (high - low) / 65
    for band in (0, 20, 21, 22, 63):
        centre = low + (band + 1) * step
        weights = [max(0.0, 1 - abs(mel(31.25 * k) - centre) / step) if k else 0.0 for k in range(257)]
        expected = math.log(float(np.dot(weights, magnitude)) + 0.01)
        assert vggish.examples(clip)[0, 7, band] == pytest.approx(expected, abs=1e-4)
    assert vggish.examples(clip)[0].mean(axis=0).argmax() == round((mel(1000) - low) / step) - 1


def test_the_torch_path_has_a_gradient():
    waveform = torch.randn(2, 16_000, requires_grad=True)
    VggishExamples()(waveform).sum().backward()
    assert torch.isfinite(waveform.grad).all()
    assert waveform.grad.abs().sum() > 0


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        network = VggishExtractor(postprocess=True)
    assert sum(p.numel() for p in network.parameters()) == 72_141_184
    assert sum(b.numel() for b in network.buffers()) == 128 * 128 + 128
    assert {k.split(".")[0] for k in network.state_dict()} == {"features", "embeddings", "pproc"}


def test_the_post_processor_by_hand():
    post = Postprocessor(2)
    post.pca_eigen_vectors.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    post.pca_means.copy_(torch.tensor([[0.5], [1.0]]))
    out = post(torch.tensor([[0.5, 1.0], [0.5, 1.5], [9.0, -9.0]]))
    # (0, 0) -> 127.5, to the even neighbour; 2 x 0.5 = 1 -> 191.25; +-2 and beyond -> 0 and 255
    assert out.tolist() == [[128, 128], [191, 128], [0, 255]]


def test_pieces_keep_their_order():
    network = build_model("vggish", 3, 64, SMALL).eval()
    x = torch.randn(2, 5, 96, 64)
    with torch.no_grad():
        sequence = network.embed(x)
        alone = network.embed(x[1:, 3:4])
        out = network(vggish=x)
    torch.testing.assert_close(sequence[1:, 3:4], alone)
    torch.testing.assert_close(out["embedding"], sequence.mean(dim=1))
    assert out["segmentwise_output"].shape == (2, 5, 3)
    assert "framewise_output" not in out
    with pytest.raises(ValueError, match=r"vggish must be \(batch, examples, 96, 64\), got \(2, 1, 501, 64\)"):
        network(vggish=torch.zeros(2, 1, 501, 64))


@pytest.mark.parametrize("kind", ["npz", "pth"])
def test_the_post_processor_comes_from_its_file_and_only_the_head_learns(tmp_path, kind):
    vectors, means = np.random.default_rng(0).standard_normal((16, 17)).astype(np.float32).T[:16].T, np.ones(16)
    path = str(tmp_path / f"pca.{kind}")
    if kind == "npz":
        np.savez(path, pca_eigen_vectors=vectors, pca_means=means)
    else:
        torch.save({"pca_eigen_vectors": torch.tensor(vectors), "pca_means": torch.tensor(means)[:, None]}, path)
    network = build_model("vggish", 3, 64, SMALL | {"postprocess": True, "pretrained": path}).train()
    np.testing.assert_array_equal(network.pproc.pca_eigen_vectors, vectors)
    out = network(vggish=torch.randn(2, 3, 96, 64))
    assert (out["embedding"] * 3 % 1 < 1e-3).logical_or(out["embedding"] * 3 % 1 > 1 - 1e-3).all(), "whole numbers"
    out["clipwise_output"].sum().backward()
    assert network.head.cla.weight.grad.abs().sum() > 0
    assert network.features[0].weight.grad is None
    build_model("vggish", 3, 64, SMALL | {"postprocess": True, "pretrained": "elsewhere"}, weights_follow=True)
    with pytest.raises(ValueError, match="is the post-processor's file: set postprocess: true"):
        build_model("vggish", 3, 64, SMALL | {"pretrained": path})


def test_wrong_files_are_named(tmp_path):
    np.savez(tmp_path / "other.npz", means=np.ones(16))
    np.savez(tmp_path / "wide.npz", pca_eigen_vectors=np.eye(8), pca_means=np.ones(8))
    params = SMALL | {"postprocess": True}
    with pytest.raises(ValueError, match=r"is no PCA of VGGish: it holds means"):
        build_model("vggish", 3, 64, params | {"pretrained": str(tmp_path / "other.npz")})
    with pytest.raises(ValueError, match=r"pca_\w+ is \(8.*, the network needs \(16"):
        build_model("vggish", 3, 64, params | {"pretrained": str(tmp_path / "wide.npz")})


def test_published_weights_load_strictly_and_carry_over(tmp_path):
    """A file of features.* and embeddings.* alone, as published: the head is dropped by name; transfer takes it too."""
    torch.manual_seed(0)
    source = build_model("vggish", 527, 64, SMALL)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("head.")}
    torch.save(state, tmp_path / "vggish.pth")
    network = build_model("vggish", 3, 64, SMALL)
    report = load_weights(network, tmp_path / "vggish.pth", drop=("head",))
    assert report.loaded == len(state)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in state.items())
    moved = build_model("transfer", 5, 64, {"base": "vggish", "base_classes": 3, "base_params": SMALL}).eval()
    assert moved(vggish=torch.randn(2, 3, 96, 64))["clipwise_output"].shape == (2, 5)

"""The urban networks: Time2Vec and places by hand, missing values, the specific network's layers, both ways to join."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import export
import predict
import train
from earshot.models import build_model
from earshot.models.time2vec import MetadataEncoder, PlacePath, Time2Vec
from earshot.models.urban import COLUMNS, StandardisedConv
from earshot.models.weights import load_weights
from earshot.prediction.predictions import Predictions
from scripts import run
from test_metadata import add_columns

NARROW = {"embedding": 32, "heads": 4, "ffn": 8, "metadata_size": 8, "place_width": 4}
ALL = NARROW | {"branches": ["generic", "specific", "metadata"]}
ROWS = torch.tensor([[40.7295, -73.9939, 23.0, 3.0, 14.0], [40.81, -73.95, 51.0, 0.0, 2.0]])
NAN = math.nan


def metadata_encoder(columns=COLUMNS, **changed):
    torch.manual_seed(0)
    sizes = {"size": 8, "layers": 1, "heads": 4, "ffn": 8, "place_width": 4, "dropout": 0.0}
    return MetadataEncoder(columns, **{**sizes, **changed})


# when and where


def test_time2vec_by_hand():
    layer = Time2Vec((52.0, 24.0), 5)
    with torch.no_grad():
        layer.frequency.copy_(torch.arange(10.0).reshape(2, 5))
        layer.phase.copy_(torch.linspace(-1, 1, 10).reshape(2, 5))
    out = layer(torch.tensor([[13.0, 6.0]])).detach().numpy()
    phase = np.linspace(-1, 1, 10).reshape(2, 5)
    for value in range(2):  # both are a quarter of a turn
        for i in range(5):
            angle = (5 * value + i) * math.pi / 2 + phase[value, i]
            expected = angle if i == 0 else math.sin(angle)
            assert out[0, value, i] == pytest.approx(expected, abs=1e-5)


def test_the_hours_lie_on_a_circle_at_the_start():
    layer = Time2Vec((24.0,), 64)
    vectors = layer(torch.arange(25.0)[:, None]).detach()[:, 0]
    torch.testing.assert_close(vectors[0, 1:], vectors[24, 1:], atol=1e-4, rtol=0)
    near, far = ((vectors[0, 1:] - vectors[hour, 1:]).norm() for hour in (23, 12))
    assert near < far
    torch.testing.assert_close(vectors[:, 0], torch.arange(25.0) / 24)


def test_places_by_hand():
    path = PlacePath(("longitude", "latitude"), 3)
    degrees = torch.tensor([[-73.93, 40.68], [-73.98, 40.73]])
    expected = path.linear.weight @ torch.tensor([1.0, -1.0]) + path.linear.bias
    torch.testing.assert_close(path(degrees)[0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(path(degrees)[1], path.linear.bias, atol=1e-3, rtol=0)


def test_a_missing_value_takes_its_learned_vector_and_spoils_nothing_else():
    encoder = metadata_encoder()
    known = ROWS.clone()
    missing = ROWS.clone()
    missing[0, 4] = missing[1, 0] = NAN
    with torch.no_grad():
        encoder.time2vec.missing[2] = 0.5
        encoder.place.missing[:] = 7.0
        out = encoder(missing)
        tokens = encoder.time2vec(missing[:, 2:])
    assert torch.isfinite(out).all()
    torch.testing.assert_close(tokens[0, 2], torch.full((8,), 0.5))
    torch.testing.assert_close(tokens[0, :2], encoder.time2vec(known[:, 2:])[0, :2])
    assert out[1, -4:].tolist() == [7.0] * 4, "one coordinate alone is no place"
    torch.testing.assert_close(out[1, :-4], encoder(known)[1, :-4])
    torch.testing.assert_close(out[0, -4:], encoder(known)[0, -4:])
    encoder(missing).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert encoder.time2vec.missing.grad[2].abs().sum() > 0
    assert not metadata_encoder().time2vec.missing.any()
    assert not metadata_encoder().place.missing.any()


def test_values_are_dropped_in_training_only():
    encoder = metadata_encoder(drop=0.5)
    encoder.eval()
    assert torch.equal(encoder(ROWS), encoder(ROWS))
    encoder.train()
    many = ROWS[:1].repeat(400, 1)
    missing_place = (encoder(many)[:, -4:] == 0).all(dim=1).float().mean()
    assert float(missing_place.detach()) == pytest.approx(0.75, abs=0.1)  # either coordinate


def test_columns_choose_the_paths_and_their_order_is_the_tables():
    encoder = metadata_encoder(("hour", "latitude", "week"))
    assert encoder.width == 2 * 8 + 4
    swapped = metadata_encoder(("week", "hour", "latitude"))
    state = encoder.state_dict()
    for key in ("time2vec.frequency", "time2vec.phase"):
        state[key] = state[key].flip(0)
    swapped.load_state_dict(state)
    row = torch.tensor([[14.0, 40.7, 23.0]])
    expected = swapped(row[:, [2, 0, 1]])
    torch.testing.assert_close(encoder(row)[:, 8:16], expected[:, :8])  # the week's token
    torch.testing.assert_close(encoder(row)[:, 16:], expected[:, 16:])
    assert not hasattr(metadata_encoder(("week", "day", "hour")), "place")
    assert metadata_encoder(("latitude", "longitude")).width == 4
    with pytest.raises(ValueError, match="each once, got .*; did you mean 'hour'"):
        metadata_encoder(("hours",))
    with pytest.raises(ValueError, match="each once"):
        metadata_encoder(("hour", "hour"))
    with pytest.raises(ValueError, match=r"metadata must be \(batch, 5\), got \(2, 3\): data.metadata must name"):
        metadata_encoder()(ROWS[:, :3])


# the specific network


def test_weights_are_standardised():
    torch.manual_seed(0)
    conv, x = StandardisedConv(3, 4, 3, padding=1), torch.randn(2, 3, 6, 5)
    out = conv(x)
    weight = conv.weight.detach().numpy().reshape(4, -1)
    weight = (weight - weight.mean(axis=1, keepdims=True)) / weight.std(axis=1, ddof=1, keepdims=True)
    plain = F.conv2d(x, torch.tensor(weight).reshape(4, 3, 3, 3), conv.bias, padding=1)
    torch.testing.assert_close(out, plain, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        conv.weight.mul_(3).add_(2)
    torch.testing.assert_close(conv(x), out, atol=1e-3, rtol=1e-3)


def test_the_specific_network_has_the_papers_parts():
    with torch.device("meta"):
        model = build_model("urban_tagger", 31, 64, {"branches": ["generic", "specific", "metadata"]})
    kinds = {type(m).__name__ for m in model.specific.modules()}
    assert {"GroupNorm", "StandardisedConv", "EncoderLayer"} <= kinds
    assert not kinds & {"BatchNorm2d", "GRU"}
    attention, gru = (sum(p.numel() for p in m.parameters()) for m in (model.specific.encoder, model.generic.gru))
    assert attention < gru, "the paper replaces the GRU by fewer parameters"
    assert model.specific.width == model.generic.width == 1024
    assert model.metadata.width == 3 * 128 + 16
    assert model.fc.weight.shape == (31, 1024 + 1024 + 3 * 128 + 16)


def test_clips_do_not_see_each_other_in_training():
    """Group norms, unlike batch norms, take their numbers from each clip alone."""
    torch.manual_seed(0)
    model = build_model("urban_tagger", 3, 64, NARROW | {"branches": ["specific"], "dropout": 0.0}).train()
    x = torch.randn(4, 1, 40, 64)
    torch.testing.assert_close(model.specific(x)[1:2], model.specific(x[1:2]))


# together


def test_branches_and_joins():
    logmel = torch.randn(2, 1, 41, 64)
    for branches in (["specific"], ["generic"], ["specific", "metadata"], ["generic", "specific", "metadata"]):
        for join in ("clip", "time"):
            model = build_model("urban_tagger", 31, 64, NARROW | {"branches": branches, "join": join}).eval()
            inputs = {"logmel": logmel} | ({"metadata": ROWS} if "metadata" in branches else {})
            assert set(model.inputs) == set(inputs)
            out = model(**inputs)
            assert out["clipwise_output"].shape == (2, 31)
            assert ("logit" in out) == (join == "clip")
            assert ("segmentwise_output" in out) == (join == "time")
    assert out["segmentwise_output"].shape == (2, 10, 31)
    for join in ("clip", "time"):
        model = build_model("urban_tagger", 5, 64, NARROW | {"join": join, "activation": "softmax"}).eval()
        clip = model(logmel=logmel, metadata=ROWS)["clipwise_output"]
        torch.testing.assert_close(clip.sum(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="branches need generic or specific"):
        build_model("urban_tagger", 3, 64, {"branches": ["metadata"]})
    with pytest.raises(ValueError, match="branch is 'generik'; choose one of "):
        build_model("urban_tagger", 3, 64, {"branches": ["generik"]})
    with pytest.raises(ValueError, match="join is 'tme'; choose one of "):
        build_model("urban_tagger", 3, 64, NARROW | {"join": "tme"})


@pytest.mark.parametrize("join", ["clip", "time"])
def test_both_joins_hear_the_hour(join):
    model = build_model("urban_tagger", 3, 64, ALL | {"join": join}).eval()
    logmel, later = torch.randn(2, 1, 41, 64), ROWS.clone()
    later[0, 4] += 6
    with torch.no_grad():
        before, after = (model(logmel=logmel, metadata=m)["clipwise_output"] for m in (ROWS, later))
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert torch.equal(before[1], after[1])


def test_talnets_published_weights_start_the_generic_branch(tmp_path):
    torch.manual_seed(0)
    source = build_model("talnet", 527, 64, {"embedding": 32, "pooling": "att"})
    torch.save({"model": source.state_dict()}, tmp_path / "TALNet.pt")
    model = build_model("urban_tagger", 31, 64, ALL)
    report = load_weights(model, tmp_path / "TALNet.pt", ("fc_prob", "fc_att"), prefix=model.weights_prefix)
    assert torch.equal(model.generic.gru.weight_hh_l0, source.gru.weight_hh_l0)
    assert set(report.dropped) == {f"generic.{n}.{k}" for n in ("fc_prob", "fc_att") for k in ("weight", "bias")}
    assert "specific.blocks.0.conv.weight" in report.kept


def test_it_learns_what_only_the_hour_tells():
    """Night or day, and nothing to hear: the metadata path is enough; without it there is nothing to learn."""
    torch.manual_seed(0)
    hours = torch.arange(48.0) % 24
    target = ((hours < 6) | (hours >= 20)).float()[:, None]
    metadata = torch.stack([torch.full((48,), 40.73), torch.full((48,), -73.98), torch.ones(48), torch.ones(48), hours])
    model = build_model("urban_tagger", 1, 32, NARROW | {"dropout": 0.0}).train()
    logmel = torch.randn(1, 1, 8, 32).expand(48, -1, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        logit = model(logmel=logmel, metadata=metadata.T)["logit"]
        loss = F.binary_cross_entropy_with_logits(logit, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        out = model.eval()(logmel=logmel, metadata=metadata.T)["clipwise_output"]
    assert ((out > 0.5) == (target > 0)).float().mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("join", ["clip", "time"])
def test_trained_exported_and_predicted(tiny, join):
    """Through the scripts, with columns of the tables; the export's own gate compares graph and network."""
    for table in ("clips", "test_clips"):
        add_columns(f"data/{table}.csv", week=np.arange(60) % 52 + 0.5, hour=np.arange(60) % 24)
    params = "branches: [generic, specific, metadata], columns: [week, hour], embedding: 32, heads: 4, ffn: 8"
    run(train, "--config", tiny, "--fold", 0, "--name", "urban", "model.name=urban_tagger",
        f"model.params={{{params}, metadata_size: 8, join: {join}}}", "data.metadata=[week, hour]",
        "frontends.logmel.n_mels=32", "loss.name=bce", "predict.keep_frames=false", "watch=map",
        "optim.epochs=1")  # fmt: skip
    run(export, "--run", "runs/sed/urban", "--format", "onnx")
    answers = []
    for backend in ("torch", "onnx"):
        run(
            predict, "--run", "runs/sed/urban", "--clips", "data/test_clips.csv", "--backend", backend, "--out",
            "out.npz",
        )  # fmt: skip
        answers.append(Predictions.load("out.npz").clipwise_output)
    np.testing.assert_allclose(*answers, atol=1e-4)

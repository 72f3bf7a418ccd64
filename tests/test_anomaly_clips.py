"""Anomalies made of normal recordings, the network exposed to them, scores of several methods as one."""

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import make_folds
import prepare
import score_anomalies
import train
from conftest import HEART_CONFIG
from earshot.anomaly import clips as anomaly_clips
from earshot.anomaly import made as anomaly_made
from earshot.anomaly import report as anomaly_report
from earshot.anomaly import scores as anomaly_scores
from earshot.anomaly.clips import clip_scores, several_nearest
from earshot.anomaly.exposure import augmented, exposure_scores, parts_of
from earshot.anomaly.report import Scores
from earshot.anomaly.statistics import nearest_scores
from earshot.sound.logmel import LogmelParams
from scripts import run

RATE = 2000
FRONT_END = LogmelParams(sample_rate=RATE, n_fft=128, hop_length=32, n_mels=16, fmin=20, fmax=1000)


def heart(rng, seconds=4.0, period=0.8, noise=0.002):
    """Two sounds a beat, 0.3 s apart, and where they are."""
    time = np.arange(int(seconds * RATE)) / RATE
    x, places = rng.normal(0, noise, len(time)), []
    for start in np.arange(0.2, seconds - 0.4, period):
        for at, level in ((start, 0.6), (start + 0.3, 0.4)):
            x += level * np.exp(-(((time - at) / 0.02) ** 2)) * np.sin(2 * np.pi * 60 * (time - at) + 0.5)
            places.append(at)
    return x.astype(np.float32), np.array(places)


def test_pulses_are_where_the_beats_are():
    x, places = heart(np.random.default_rng(0))
    assert anomaly_made.pulses(x, RATE) / RATE == pytest.approx(places, abs=0.015)
    with pytest.raises(ValueError, match="600 Hz or more"):
        anomaly_made.pulses(x, 500)


def test_each_kind_does_what_it_says():
    x, places = heart(np.random.default_rng(0), noise=0)
    beats = anomaly_made.pulses(x, RATE)
    level = np.median([np.sqrt(np.mean(x[q - 60 : q + 60] ** 2)) for q in beats])
    near = np.abs(np.arange(len(x))[:, None] / RATE - places).min(axis=1) < 0.02

    def changed(kind, seed):
        return anomaly_made.KINDS[kind](x.astype(float), beats, RATE, np.random.default_rng(seed)) - x

    for seed in range(5):
        noise = changed("murmur", seed)
        assert not noise[near].any()  # between the sounds alone
        pauses = [noise[a:b] for a, b in pairwise(beats)]
        assert sum(p.any() for p in pauses) in (4, 5)  # every second one of nine
        assert level * 10 ** (-32 / 20) < np.sqrt(np.mean(noise[noise != 0] ** 2)) < level * 10 ** (-3 / 20)
        tone = changed("further_sound", seed)
        assert 4 * 0.02 * RATE < np.count_nonzero(tone) < 5 * 0.08 * RATE  # short, in every second pause
        assert 10 ** (-17 / 20) < np.abs(tone).max() / (1.4 * level) < 10 ** (-2 / 20)
        weaker = np.array([np.ptp((changed("weak_sound", seed) + x)[q - 40 : q + 40]) / np.ptp(x[q - 40 : q + 40])
                           for q in beats])  # fmt: skip
        assert np.sum(weaker < 0.6) == 5
        assert np.sum(weaker > 0.999) == 5
        uneven = anomaly_made.pulses(changed("uneven_beats", seed) + x, RATE)
        assert np.std(np.diff(uneven)[::2]) + np.std(np.diff(uneven)[1::2]) > 0.03 * RATE


@given(seed=st.integers(0, 10_000), n=st.integers(200, 6000), loud=st.sampled_from([0.0, 1e-4, 1.0]))
@settings(max_examples=15, deadline=None)
def test_made_clips_keep_length_and_type_and_follow_the_seed(seed, n, loud):
    x = (np.random.default_rng(seed).normal(0, 1, n) * loud).astype(np.float32)
    before = x.copy()
    found = anomaly_made.made(x, RATE, np.random.default_rng(seed))
    assert (found.shape, found.dtype) == (x.shape, np.float32)
    assert np.isfinite(found).all()
    assert np.array_equal(found, anomaly_made.made(x, RATE, np.random.default_rng(seed)))
    assert np.array_equal(x, before)


def test_augmentation_changes_gain_noise_and_tilt_within_bounds():
    x, _ = heart(np.random.default_rng(0))
    ratios = [np.std(augmented(x, np.random.default_rng(seed))) / np.std(x) for seed in range(40)]
    assert 0.2 < min(ratios) < 0.8
    assert 1.3 < max(ratios) < 3.5


@pytest.mark.slow
def test_scores_of_the_exposed_network_follow_the_seed():
    rng = np.random.default_rng(1)
    normal = [heart(rng, 2.0)[0] for _ in range(6)]
    groups, judged = np.repeat(["a", "b"], 3), np.array(["a", "never heard"])
    one, again, other = (exposure_scores(normal, groups, normal[:2], judged, FRONT_END, seed=s, rounds=1, copies=1)
                         for s in (1, 1, 2))  # fmt: skip
    assert (one.training.shape, one.judged.shape) == ((6,), (2,))
    assert np.isfinite([*one.training, *one.judged]).all()
    np.testing.assert_array_equal(one.judged, again.judged)
    assert not np.array_equal(one.judged, other.judged)
    with pytest.raises(ValueError, match="at least 5 normal clips, got 4"):
        exposure_scores(normal[:4], groups[:4], normal[:2], judged, FRONT_END, seed=1)


@pytest.mark.slow
def test_the_exposed_network_hears_murmurs_it_was_never_shown():
    rng = np.random.default_rng(1)
    normal = [heart(rng, period=rng.uniform(0.7, 1.0))[0] for _ in range(10)]
    clips = [heart(rng, period=rng.uniform(0.7, 1.0))[0] for _ in range(8)]
    for x in clips[4:]:  # noise in all pauses, at all frequencies
        x += rng.normal(0, 0.1, len(x)) * (np.abs(np.arange(len(x)) / RATE % 0.4 - 0.2) < 0.1)
    groups = np.repeat(["a", "b"], [5, 5])
    judged = np.array(["a", "b", "a", "b", "a", "b", "a", "never heard"])
    found = exposure_scores(normal, groups, clips, judged, FRONT_END, seed=1, rounds=10, copies=2)
    assert found.judged[4:].min() > found.judged[:4].max()
    assert found.training.shape == (10,)
    assert found.training.mean() < found.judged[4:].mean()


def test_parts_take_the_clips_of_each_group_in_turn():
    assert parts_of(np.array(list("abababaa"))).tolist() == [0, 0, 1, 1, 2, 2, 3, 4]


def test_statistics_of_clips_are_judged_by_their_own_group():
    rng = np.random.default_rng(2)
    normal, clips = [rng.normal(0, 0.1, 5000).astype(np.float32) for _ in range(12)], []
    clips = [normal[0] * 1.0, normal[0] * 3.0, normal[11] * 1.0]
    found = clip_scores("statistics", normal, np.repeat(["a", "b"], 6), clips, np.array(["a", "a", "?"]), FRONT_END)
    assert found.judged[1] > 3 * found.judged[0]
    assert found.training.min() > found.judged[0]  # a training clip is not its own neighbour
    with pytest.raises(ValueError, match="unknown anomaly score of clips 'exposed'; did you mean 'exposure'"):
        clip_scores("exposed", normal, np.repeat("a", 12), clips, np.repeat("a", 3), FRONT_END)


def test_several_nearest_is_the_mean_over_numbers_of_neighbours():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    assert several_nearest(a, b) == pytest.approx(sum(nearest_scores(a, b, k) for k in range(1, 6)) / 5)


# ---- several scores as one


def test_surprise_is_the_logarithm_of_a_share():
    normal = stats.gamma.ppf((np.arange(2000) + 0.5) / 2000, 3, scale=2)
    x = np.array([0.0, 2.0, 6.0, 30.0])
    assert anomaly_scores.surprise(normal, x) == pytest.approx(-stats.gamma.logsf(x, 3, scale=2), rel=0.02, abs=1e-3)
    far = anomaly_scores.surprise(normal, np.array([1e3, 1e4, 1e5, 1e6]))
    assert np.isfinite(far).all()
    assert (np.diff(far) > 0).all()
    assert far[1] == pytest.approx(1e4 / 2, rel=0.02)  # the tail of a gamma distribution is exponential
    assert anomaly_scores.surprise(normal - 50, x - 50) == pytest.approx(
        anomaly_scores.surprise(normal, x), rel=0.3, abs=0.1
    )
    assert anomaly_scores.surprise(np.full(4, 2.0), np.array([1.0, 2.0, 5.0])).tolist() == [0, 0, 3]
    with pytest.raises(ValueError, match="finite training scores"):
        anomaly_scores.surprise(np.array([1.0, np.nan]), x)


def test_combined_scores_weigh_alike_whatever_their_units_and_each_group_by_itself():
    rng = np.random.default_rng(4)
    one, two = Scores(rng.gamma(3, 1, 60), rng.gamma(3, 2, 8)), Scores(rng.gamma(2, 1, 60), rng.gamma(2, 2, 8))
    normal_groups, groups = np.repeat(["a", "b"], 30), np.array(["a", "b"] * 3 + ["new"] * 2)
    found = anomaly_report.combined([one, two], normal_groups, groups)
    scaled = anomaly_report.combined([Scores(one.training * 1e4, one.judged * 1e4), two], normal_groups, groups)
    assert scaled.judged == pytest.approx(found.judged, rel=1e-4)
    for i, group in enumerate(groups):
        known = normal_groups == group if group != "new" else np.ones(60, bool)
        by_hand = sum(anomaly_scores.surprise(s.training[known], s.judged[[i]])[0] for s in (one, two))
        assert found.judged[i] == pytest.approx(by_hand)
    assert found.training[:30] == pytest.approx(
        sum(anomaly_scores.surprise(s.training[:30], s.training[:30]) for s in (one, two))
    )


@pytest.mark.slow
def test_a_run_is_scored_by_its_clips_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(5), []
    for domain, period in (("a", 0.7), ("b", 0.9)):
        for i in range(8):
            label, split = ("anomaly" if i >= 6 else "normal"), ("train" if i < 4 else "test")
            wave = heart(rng, 3.0, period)[0]
            wave = wave + rng.normal(0, 0.2, len(wave)) * (label == "anomaly")
            name = f"{domain}{i}.wav"
            (tmp_path / "source").mkdir(exist_ok=True)
            soundfile.write(tmp_path / "source" / name, wave.clip(-1, 1), RATE)
            rows.append((name, label, domain, split, f"{domain}{i}"))
    meta = pd.DataFrame(rows, columns=["filename", "label", "domain", "split", "record"])
    meta.to_csv(tmp_path / "source/meta.csv", index=False)
    (tmp_path / "heart.yaml").write_text(HEART_CONFIG)
    run(prepare, "heart_asd", "--source", "source", "--out", "data")
    run(make_folds, "--clips", "data/clips.csv", "--out", "folds.csv")
    run(train, "--config", "heart.yaml", "data.crop_seconds=1.0", "optim.epochs=1")
    short = partial(exposure_scores, rounds=1, copies=1)
    monkeypatch.setitem(anomaly_clips.CLIP_METHODS, "exposure", short)
    run(score_anomalies, "--run", "runs/asd/heart", "--combine", "statistics", "exposure")  # --also is implied
    found = pd.read_csv(tmp_path / "runs/asd/heart/anomaly_scores.csv")
    assert found.method.unique().tolist()[-3:] == ["statistics", "exposure", "statistics+exposure"]
    assert found[found.method == "statistics"].auc.tolist() == [1.0, 1.0]
    assert "statistics+exposure" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--combine: no anomaly score 'exposre'; did you mean 'exposure'"):
        run(score_anomalies, "--run", "runs/asd/none", "--combine", "statistics", "exposre")  # before it is looked for
    with pytest.raises(ValueError, match="--method: no anomaly score 'kn'; did you mean 'knn'"):
        run(score_anomalies, "--run", "runs/asd/none", "--method", "kn", "--out", "x.npz")

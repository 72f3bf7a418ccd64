"""A run that hears every recording equally loud decodes it twice, and the time of a kernel's plan has both."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

import tiny_graphs
from earshot.kernel import speed as kernel_speed
from earshot.kernel.bundle import open_bundle
from earshot.kernel.speed import Network, Speed, front_ends
from earshot.sound import loudness


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return open_bundle(tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), "birdclef2026")).networks[0]


def levelled(network: Network) -> Network:
    members = [replace(m, windowing=replace(m.windowing, level="normalised")) for m in network.members]
    return replace(network, members=tuple(members))


def test_decoding_for_the_level_is_in_the_plan_once(network):
    rate = network.windowing.sample_rate
    speed = Speed({rate: 0.01}, dict.fromkeys(front_ends(network), 0.0), {network.alike: 0.0}, {network.alike: 0.0})
    for seconds, more in ((60, 60), (3600, loudness.SPAN_SECONDS * loudness.MOST_SPANS)):
        plain, twice = speed.stages([network], seconds), speed.stages([levelled(network)], seconds)
        assert twice["decode"] == pytest.approx(plain["decode"] + 0.01 * more)
        assert {k: v for k, v in twice.items() if k != "decode"} == {k: v for k, v in plain.items() if k != "decode"}


def test_joining_is_measured_without_the_level(network, monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(
        kernel_speed, "predict_members", lambda members, clips: heard.extend(m.windowing.level for m in members)
    )
    recording = kernel_speed.synthetic_recording(tmp_path, 2.0)
    logmel = dict.fromkeys(front_ends(network), 0.0)
    kernel_speed._join_seconds(levelled(network), {}, recording, logmel, time.process_time, math.inf)
    assert set(heard) == {"recorded"}


def test_what_is_measured_of_a_recording_is_what_is_decoded(monkeypatch, tmp_path):
    from earshot.sound import audio

    for seconds in (1.0, 5.0):
        audio.write(tmp_path / "x.wav", np.zeros(round(8000 * seconds), np.float32), 8000)
        monkeypatch.setattr(loudness, "SPAN_SECONDS", 0.5)
        monkeypatch.setattr(loudness, "MOST_SPANS", 4)
        decoded = sum(len(piece) for piece in loudness.pieces(tmp_path / "x.wav", 8000)) / 8000
        assert loudness.measured_seconds(seconds) == pytest.approx(decoded)

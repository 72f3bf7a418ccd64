"""What a kernel's networks take by stage, and how long a whole test would."""

from dataclasses import replace

import pytest

import tiny_graphs
from earshot.kernel import speed as kernel_speed
from earshot.kernel.bundle import open_bundle
from earshot.kernel.speed import Speed, simulate


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), "birdclef2026", folds=3))


def halved(member):
    return replace(member, windowing=replace(member.windowing, stride_seconds=0.5))


def test_simulated_time_grows_with_recordings_and_shrinks_with_cores(bundle):
    networks = [replace(n, tta=()) for n in bundle.networks]
    rates = {n.windowing.sample_rate: 2.0 for n in networks}
    keys = {k: 1.0 for n in networks for k in kernel_speed.front_ends(n)}
    speed = Speed(rates, keys, {"sed/tiny": 4.0}, {"sed/tiny": 0.5})
    stages = speed.stages(networks, 10.0)
    assert stages == {"decode": 20.0, "logmel": 10.0, "network": 3 * 40.0, "join": 3 * 5.0}
    assert speed.wall(networks, 10.0, 4) == 15.0 + 150.0 / 4
    assert speed.stages(networks[:1], 10.0, "multi_window")["network"] == 19 * 4.0, "starts every half second"
    half = [replace(n, members=tuple(halved(m) for m in n.members)) for n in networks[:1]]
    assert speed.stages(half, 10.0)["logmel"] == 10.0, "windows share one log-mel"
    assert speed.stages(half, 10.0, "tempo")["logmel"] == 2 * 19 * 1.0, "each has its own, slower and faster"
    assert speed.stages(networks[:1], 0.1)["network"] == 4.0, "a short recording is one window"


def test_simulate_adds_up(bundle, tmp_path):
    recording = kernel_speed.synthetic_recording(tmp_path, 3.0)
    found = simulate(bundle.networks[:1], 100, 60.0, 4, recording)
    assert found["cpu_seconds"] == pytest.approx(sum(found["stages"].values()))
    assert 0 < found["minutes"] * 60 <= found["cpu_seconds"]
    assert min(found["stages"].values()) >= 0

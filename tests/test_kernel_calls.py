"""How a kernel calls its networks: measured where it pays, never before the first round is safe."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

import run_kernel
import tiny_graphs
from earshot.kernel import calls as kernel_calls
from earshot.kernel import runner as kernel_runner
from earshot.kernel.bundle import open_bundle
from earshot.kernel.calls import choose_calls, heaviest, reason_not_to, reopened
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun
from earshot.kernel.speed import Speed, front_ends
from earshot.tables import read_table

COMPETITION = "birdclef2026"


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return open_bundle(tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), COMPETITION)).networks


def speed_of(networks, window_seconds=0.01) -> Speed:
    """CPU seconds that nobody measured."""
    rates = {n.windowing.sample_rate: 1e-5 for n in networks}
    keys = {k: 1e-5 for n in networks for k in front_ends(n)}
    costs = {n.alike: window_seconds for n in networks}
    return Speed(rates, keys, costs, dict.fromkeys(costs, 0.0))


@pytest.mark.parametrize(("cores", "left", "work", "first", "window", "reason"), [
    (4, 5000, 5000, 100, 0.1, ""),
    (1, 5000, 5000, 100, 0.1, "one core"),
    (4, 100, 5000, 90, 0.1, "no time before the first round"),
    (4, 100, 5000, 200, 0.1, "no time before the first round"),
    (4, 30, 5000, 1, 0.1, "it would take 4 s, which 30 s of work or time left do not repay"),
    (4, 5000, 40, 10, 0.1, "it would take 4 s, which 40 s of work or time left do not repay"),
    (4, 5000, 5000, 1000, 60.0, "it would take 318 s, which 5000 s of work or time left do not repay"),
])  # fmt: skip
def test_when_it_is_measured(networks, cores, left, work, first, window, reason):
    network = replace(
        networks[0],
        members=tuple(replace(m, windowing=replace(m.windowing, batch_size=1)) for m in networks[0].members),
    )
    assert reason_not_to(network, speed_of(networks, window), cores, left, work, first) == reason


def test_the_heaviest_run_is_measured(networks):
    light, one = replace(networks[0], alike="light"), replace(networks[0], alike="one")
    speed = Speed(network={"light": 1.0, "one": 2.5})
    assert heaviest([light, one], speed) is one
    assert heaviest([light, light, light, one], speed).alike == "light"


def test_networks_are_opened_again_where_more_threads_are_faster(networks, monkeypatch):
    monkeypatch.setattr(kernel_calls, "tune", lambda opened, *_: (opened(2), (2, 1, {(1, 2): 5.0, (2, 1): 10.0}))[1])
    speed, opened = speed_of(networks), []

    def reopen(network, threads):
        opened.append((network.name, threads))
        return reopened(network, threads)

    found, calls = choose_calls(networks, speed, 2, 5000.0, 4000.0, 100.0, reopen)
    assert (calls.threads, calls.streams, calls.why) == (2, 1, "the fastest")
    assert calls.windows_a_second == {"1 x 2": 5.0, "2 x 1": 10.0}
    assert opened[1:] == [(n.name, 2) for n in networks]
    inputs = kernel_runner.one_window(networks[0])
    for before, after in zip(networks, found, strict=True):
        assert after.backend is not before.backend
        assert after.backend.windows == before.backend.windows
        np.testing.assert_allclose(
            after.backend.run(inputs)["clipwise_output"], before.backend.run(inputs)["clipwise_output"], atol=1e-6
        )
    monkeypatch.setattr(kernel_calls, "REOPENING", 1e9)
    found, calls = choose_calls(networks, speed, 2, 5000.0, 4000.0, 100.0)
    assert found == list(networks)
    assert (calls.threads, calls.streams) == (1, 2)
    assert "gain less than they cost" in calls.why


@pytest.fixture
def kernel(networks, tmp_path):
    """(cores, speed) -> a run on two recordings."""
    folder = tmp_path / "test_soundscapes"
    folder.mkdir()
    for i in range(2):
        soundfile.write(folder / f"rec{i}.wav", 0.1 * np.sin(np.arange(8000 * (5 + 5 * i)) * (0.5 + i)), 8000)

    def make(cores, speed, out="s.csv"):
        test = find_test(COMPETITION, folder, tiny_graphs.CLASSES)
        post = kernel_runner.PostProcess()
        return KernelRun(
            competition=COMPETITION,
            test=test,
            networks=networks,
            post=post,
            out=tmp_path / out,
            cores=cores,
            speed=speed,
        )

    return make


def test_a_run_measures_and_answers_the_same(kernel, networks, monkeypatch, capsys):
    plain = kernel_runner.run_kernel(kernel(1, speed_of(networks), "plain.csv"), 1.0)
    assert plain["calls"]["why"] == "not measured: one core"
    monkeypatch.setattr(kernel_calls, "CHOICE_SECONDS", 0.01)
    monkeypatch.setattr(kernel_calls, "SHARE", 100.0)
    run = kernel(2, speed_of(networks))
    report = kernel_runner.run_kernel(run, 1.0)
    assert set(report["calls"]["windows_a_second"]) == {"1 x 2", "2 x 1"}
    assert report["calls"]["seconds"] > 0
    assert report["heard"] == 2
    assert not report["failures"]
    pd.testing.assert_frame_equal(read_table(run.out), read_table(run.out.with_name("plain.csv")), atol=1e-6)
    run_kernel.print_report(report, run.out)
    said = capsys.readouterr().out
    assert "calls at a time, threads of each: " in said
    assert "threads x calls, windows: 1 x 2 " in said


def test_a_measurement_that_fails_costs_nothing_else(kernel, networks, monkeypatch):
    monkeypatch.setattr(kernel_calls, "SHARE", 100.0)
    monkeypatch.setattr(kernel_calls, "tune", lambda *_: 1 / 0)
    report = kernel_runner.run_kernel(kernel(2, speed_of(networks)), 1.0)
    assert [f["what"] for f in report["failures"]] == ["measuring threads x calls"]
    assert report["heard"] == 2
    assert not report["left_out"]


def test_it_is_not_measured_where_the_first_round_needs_the_time(kernel, networks, monkeypatch):
    monkeypatch.setattr(kernel_calls, "SHARE", 100.0)
    monkeypatch.setattr(kernel_calls, "tune", lambda *_: 1 / 0)
    report = kernel_runner.run_kernel(kernel(2, speed_of(networks)), 0.1)
    assert report["calls"]["why"] == "not measured: no time before the first round"
    assert not report["failures"]

"""The GPU benchmark without a GPU: its watch, what it refuses, and all of its ways in small on the CPU."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import forget_runs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))


@pytest.fixture(scope="module")
def bench():
    import bench_gpu

    return bench_gpu


def test_a_watch_counts_what_comes_after_the_first_batches():
    from gpu_ways import Watched

    def slow():
        for number in range(1000):
            time.sleep(0.002)
            yield number

    watched, heard = Watched("cpu", 0.05, batch=4, warm=3), []
    for number in watched.watch(slow()):
        heard.append(number)
        time.sleep(0.001)
    assert watched.done
    assert watched.seconds >= 0.05
    assert watched.clips == 4 * (watched.seen - 4)  # three warm ones, and the one at which the clock starts
    assert len(heard) == watched.seen - 1, "the batch that ends it is not trained on"
    assert 0.3 < watched.wait_share < 1


def test_a_watch_goes_on_in_the_next_epoch():
    from gpu_ways import Watched

    watched = Watched("cpu", 10, batch=2, warm=1)
    assert list(watched.watch(range(3))) == [0, 1, 2]
    assert list(watched.watch(range(3))) == [0, 1, 2]
    assert (watched.seen, watched.clips, watched.done) == (6, 8, False)


def test_figures_are_kept_of_a_gpu_alone(bench, monkeypatch, capsys):
    for words, message in (
        (["--device", "cpu", "--quick", "--record"], "keeps figures of a GPU"),
        ([], "torch sees no GPU"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *words])
        with pytest.raises(SystemExit):
            bench.parse_args()
        assert message in capsys.readouterr().err


def test_the_largest_difference_is_that_of_any_weight():
    from gpu_ways import largest_difference

    one = {"__loss__": np.array([1.0, 2.0]), "a": np.zeros(3), "b": np.ones(2)}
    two = {"__loss__": np.array([1.0, 2.5]), "a": np.array([0, 0.25, 0]), "b": np.ones(2)}
    assert largest_difference(one, two) == (0.5, 0.25)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_way_of_training_runs_in_small(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--device", "cpu", "--quick", "--workers", "0"])
    options = bench.parse_args()
    forget_runs()
    figures = bench.measure_network("cnn14", tmp_path, options, time.monotonic())
    assert set(figures) == {
        *(f"gpu_{what}_cnn14_{way}" for what in ("clips_per_second", "wait_share") for way in bench.WAYS),
        "gpu_clips_per_second_cnn14_plain", "gpu_speedup_cnn14",
    }  # fmt: skip
    assert all(value > 0 for value, _ in figures.values())
    assert all(value < 1 for name, (value, _) in figures.items() if "share" in name)
    assert "left out" not in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_as_one(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--device", "cpu", "--quick"])
    ((difference, unit),) = bench.measure_equality(tmp_path, bench.parse_args()).values()
    assert difference < 1e-5
    assert "gloo" in unit

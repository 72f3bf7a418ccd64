"""Work on tables grows as the tables do, counted, not timed; and the benchmark of it on few clips."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import make_folds
from earshot.competitions.own import labels as own_labels
from earshot.competitions.own.recordings import OwnRecordings
from earshot.competitions.own.tables import LabelTable
from earshot.data import folds

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


class Counted(str):
    """A text that counts how often any such text is hashed."""

    hashed = 0

    def __hash__(self):
        Counted.hashed += 1
        return super().__hash__()


def hashes_of_joining(n: int, tmp_path: Path) -> int:
    """How often paths are looked up while a table of labels is joined to `n` recordings."""
    paths = tuple(Counted(f"r{i}.wav") for i in range(n))
    by_name = defaultdict(list, {str(p): [p] for p in paths})
    recordings = OwnRecordings(tmp_path, paths, tuple(f"r{i}" for i in range(n)), by_name)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"r{i}.wav,{'ab'[i % 2]}\n" for i in range(n - 5)))
    Counted.hashed = 0
    found = own_labels.from_table(recordings, LabelTable((table,)), "", "", "", has_events=False)
    assert list(found.clips.path) == list(paths), "those without a label come last"
    return Counted.hashed


def test_a_table_is_joined_to_recordings_in_work_that_grows_as_they_do(tmp_path):
    few, many = hashes_of_joining(50, tmp_path), hashes_of_joining(400, tmp_path)
    assert many <= 9 * few, f"8 times the recordings were looked up {many / few:.0f} times as often"


def test_groups_are_dealt_out_without_counting_all_folds_again_for_each(monkeypatch):
    rng, counted, bincount = np.random.default_rng(0), [], np.bincount

    def counting(values, *args, **kwargs):
        counted.append(len(values))
        return bincount(values, *args, **kwargs)

    monkeypatch.setattr(folds.np, "bincount", counting)
    clips = pd.DataFrame({
        "clip_id": [f"c{i:03d}" for i in range(300)],
        "labels": rng.choice(["a", "b", "c"], 300),
        "group": [f"g{g}" for g in rng.integers(0, 60, 300)],
    })  # fmt: skip
    made = folds.make_folds(clips, k=3)
    assert sum(counted) <= 3 * len(clips), "the folds of all groups were counted for each group"
    assert made.groupby("group").fold.nunique().max() == 1
    assert (made.fold.value_counts() > 90).all()


def test_texts_of_groups_are_looked_up_once_when_folds_are_made(monkeypatch, tmp_path, capsys):
    """Those of a million clips fit in no cache: each further look takes as long as reading them."""
    rng, looked, factorize = np.random.default_rng(0), [], pd.factorize
    groups, labels = [f"g{g}" for g in rng.integers(0, 60, 300)], rng.choice(["a", "b"], 300)
    clips = pd.DataFrame({"clip_id": [f"c{i:03d}" for i in range(300)], "path": "a.wav", "labels": labels})
    clips.assign(group=groups).to_csv(tmp_path / "clips.csv", index=False)

    def counting(values, *args, **kwargs):
        code, names = factorize(values, *args, **kwargs)
        looked.append(values.dtype == object and len(names) > 50 and len(values) > 200)
        return code, names

    monkeypatch.setattr(pd, "factorize", counting)
    monkeypatch.setattr(sys, "argv", ["x", "--clips", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "f.csv")])
    make_folds.main()
    assert f"{len(set(groups))} groups" in capsys.readouterr().out
    assert sum(looked) == 1
    monkeypatch.undo()
    expected = folds.make_folds(clips.assign(group=groups))
    pd.testing.assert_frame_equal(folds.read_folds(tmp_path / "f.csv", clips), expected)
    assert expected.group.dtype == object, "texts stay texts"


def test_values_that_no_two_folds_share_are_not_looked_at_one_by_one(monkeypatch):
    clips = pd.DataFrame({"clip_id": [f"c{i:03d}" for i in range(200)], "labels": "a", "site": [*range(199), 7]})
    table = pd.DataFrame({"clip_id": clips.clip_id, "group": clips.clip_id, "fold": np.arange(200) % 2})
    looked, split = [], np.split
    monkeypatch.setattr(np, "split", lambda rows, ends: (looked.append(len(ends) + 1), split(rows, ends))[1])
    found = folds.audit(clips, table, ("site",))
    assert found.to_dict("records") == []  # c007 and c199 are both in fold 1
    table.loc[199, "fold"] = 0
    assert not looked
    (row,) = folds.audit(clips, table, ("site",)).to_dict("records")
    assert row == {"column": "site", "value": "7", "folds": "0 1", "clips": "c007 c199", "of": 199}
    assert looked == [1]


# ---- the benchmark


@pytest.fixture(scope="module")
def bench():
    import bench_growth

    return bench_growth


def test_an_exponent_is_that_of_what_grows(bench):
    line = {n: 5 + 1e-3 * n for n in (100, 1000, 10_000, 100_000)}
    slope, over = bench.exponent(line)
    assert slope == pytest.approx(1, abs=0.02)
    assert over == "1,000 to 100,000"
    noisy = {100: 50.0, 1000: 50.1, 10_000: 60.0, 100_000: 150.0}  # of which the second says nothing
    slope, over = bench.exponent(noisy)
    assert slope == pytest.approx(1, abs=0.02)
    assert over == "10,000 to 100,000"
    square = {n: 5 + 1e-6 * n**2 for n in (100, 1000, 10_000, 100_000)}
    assert bench.exponent(square)[0] == pytest.approx(2, abs=0.05)


def test_of_several_rows_the_steepest_counts(bench):
    def grown(power):
        fixed = {"wall": 9.0, "peak_mb": 800}
        return {n: {"cpu": 1 + n**power, "own_mb": 100 + n / 10} | fixed for n in (100, 1000, 10_000)}

    once = {"cpu": 1, "wall": 1, "own_mb": 1, "peak_mb": 1}
    start = {10_000: once | {"uniform, 0 workers": 0.1, "balanced, 2 workers": 0.4}}
    found = {"folds, groups": grown(1.5), "folds, several labels": grown(1.0), "training, an epoch's start": start}
    figures = bench.summary(found)
    assert figures["growth_exponent_folds"][0] == pytest.approx(1.5, abs=0.05)
    assert figures["growth_exponent_folds_memory"][0] == pytest.approx(1.0, abs=0.05)
    assert figures["epoch_start_seconds_1e4"][0] == 0.4
    assert set(figures) == {"growth_exponent_folds", "growth_exponent_folds_memory", "epoch_start_seconds_1e4"}


def test_memory_of_its_own_leaves_libraries_files_out(bench, tmp_path):
    held = "import time; kept = b'x' * 50_000_000; time.sleep(0.3)"
    took = bench.run([sys.executable, "-S", "-c", held], tmp_path)
    assert 48 < took["own_mb"] < took["peak_mb"]
    assert took["own_mb"] < 60


def test_of_several_processes_the_least_time_and_the_most_memory_count(bench, tmp_path, monkeypatch):
    folders, turns = {n: tmp_path / str(n) for n in (100, 1000)}, []
    for folder in folders.values():
        (folder / "data").mkdir(parents=True)
    each = {
        "x": iter([{"cpu": 12.0, "wall": 15.0, "own_mb": 9}, {"cpu": 13.0, "wall": 14.0, "own_mb": 11}]),
        "quick": iter([{"cpu": cpu, "wall": 1.0, "own_mb": 1} for cpu in (2.0, 1.8, 1.9, 1.7, 1.5, 1.6)]),
    }

    def run(command, folder):
        assert {p.name for p in folder.iterdir()} == {"data"}, "what the process before wrote is still there"
        (folder / "runs").mkdir()
        (folder / "folds.csv").write_text("")
        turns.append(int(folder.name))
        return next(each[command[0]])

    monkeypatch.setattr(bench, "run", run)
    took = bench.in_turns({100: ["quick"], 1000: ["x"]}, folders, 2)
    assert took[1000] == {"cpu": 12.0, "wall": 14.0, "own_mb": 11}
    assert took[100]["cpu"] == 1.5, "what takes little is measured more often"
    assert turns == [100, 1000, 100, 1000, 100, 100, 100, 100]
    assert (folders[100] / "folds.csv").is_file(), "what the next step needs"


def test_made_recordings_are_names_of_few_files(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "LINKS", 30)
    bench.make_source(tmp_path, 100)
    names = list((tmp_path / "source").rglob("*.wav"))
    assert len(names) == 100
    assert len({p.stat().st_ino for p in names}) == 5


@pytest.mark.slow
def test_every_step_is_measured_on_few_clips(bench, tmp_path, monkeypatch):
    """prepare and folds as commands, the OOF and the loop's first batches in this process."""
    bench.make_source(tmp_path / "recordings", 120)
    steps = bench.commands(tmp_path / "recordings", 120, ["prepare"])
    assert bench.run(steps["prepare"], tmp_path)["cpu"] > 0
    tables = tmp_path / "tables"
    bench.make_tables(tables, 120)
    found = (tmp_path / "recordings/data/clips.csv").read_text().splitlines()[0]
    assert {"clip_id", "path", "labels", "group", "sample_rate", "duration"} <= set(found.split(","))
    assert bench.run(bench.commands(tables, 120, ["folds"])["folds, groups"], tmp_path)["own_mb"] > 0
    assert bench.join_oof(120, tables)["join"] > 0
    monkeypatch.chdir(tmp_path)
    assert set(bench.epoch_start(120, tables)) == {
        f"{sampler}, {workers} workers" for sampler in ("uniform", "balanced") for workers in (0, 2)
    }

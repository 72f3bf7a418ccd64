"""One recording may not starve a kernel: lying headers, hours among minutes, a full disk, little memory."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import fuzz_folders
import run_kernel
import scripts
import tiny_graphs
from earshot.competitions import get_competition
from earshot.kernel import speed as kernel_speed
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun
from earshot.kernel.runner import run_kernel as run_all
from earshot.kernel.speed import Speed, measure
from earshot.prediction.inference import Until, predict_members
from earshot.sound import audio
from earshot.tables import read_table
from tiny_graphs import CLASSES

COMPETITION = "birdclef2026"
LYING_SEEDS = (0, 1, 11)  # one of each kind
SCRIPT = Path(run_kernel.__file__)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tiny_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), COMPETITION, folds=2)
    return open_bundle(folder, COMPETITION)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three healthy recordings of 5 s."""
    test = tmp_path / "input" / "test_soundscapes"
    test.mkdir(parents=True)
    for i in range(3):
        tone(test / f"rec{i}.wav", 5.0)
    return test


def tone(path: Path, seconds: float, pitch: float = 200):
    """A tone in noise at 8 kHz, five seconds again and again."""
    t = np.arange(40000) / 8000
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(t))
    sound = (0.3 * np.sin(2 * np.pi * pitch * t) + noise).astype(np.float32)
    soundfile.write(path, np.resize(sound, round(8000 * seconds)), 8000)


def play(bundle, folder, out, minutes=0.5, **options):
    test = find_test(COMPETITION, folder, bundle.classes)
    networks = options.pop("networks", bundle.networks)
    run = KernelRun(
        competition=COMPETITION, test=test, networks=networks, post=bundle.post, out=out, cores=2, **options
    )
    report = run_all(run, minutes)
    table = read_table(out)
    get_competition(COMPETITION).validate(table, test.table, list(CLASSES))
    return table, report


@pytest.mark.parametrize("seed", LYING_SEEDS)
def test_lying_headers_cost_the_healthy_nothing(bundle, folder, tmp_path, seed):
    """The first file by name lies, so that it is among those that speed is measured on."""
    fuzz_folders.lie(folder / "aaa.wav", np.random.default_rng(seed))
    began = time.monotonic()
    _, report = play(bundle, folder, tmp_path / "s.csv")
    assert report["heard"] >= 3
    assert not [name for name in report["unreadable"] if name != "aaa"]
    assert not report["left_out"]
    assert time.monotonic() - began < 30


def test_lies_of_every_kind_are_among_the_seeds(tmp_path):
    kinds = {str(np.random.default_rng(seed).choice(fuzz_folders.LIES)) for seed in LYING_SEEDS}
    assert kinds == set(fuzz_folders.LIES)


def test_speed_is_the_median_of_decoded_seconds(bundle, folder, tmp_path):
    """Recordings of a few samples, and one that takes far longer, do not count for the others."""
    paths = sorted(folder.iterdir())
    usual = measure(bundle.networks, paths[0]).decode[8000]
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 384000)
    slow = fast = 0

    def clock():
        return time.process_time() + slow

    load = audio.load

    def loaded(path, *arguments, **options):
        nonlocal slow, fast
        slow += 100.0 if path.name == "rec1.wav" else 0.0
        fast += path.name != "rec1.wav"
        return load(path, *arguments, **options)

    kernel_speed.audio.load, original = loaded, kernel_speed.audio.load
    try:
        found = measure(bundle.networks, [tmp_path / "one.wav", *paths], clock).decode[8000]
    finally:
        kernel_speed.audio.load = original
    assert fast
    assert found < 20 * usual, "100 s for one of three is not the median"


def test_nothing_readable_is_measured_on_a_made_recording(bundle, tmp_path):
    (tmp_path / "bad.ogg").write_bytes(b"OggS")
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 384000)
    speed = measure(bundle.networks, [tmp_path / "bad.ogg", tmp_path / "one.wav"])
    assert 0 < speed.decode[8000] < 1
    assert all(0 <= value < 1 for part in (speed.logmel, speed.network, speed.join) for value in part.values())


def test_measuring_keeps_to_its_limit(bundle, folder):
    class Slow:
        calls = 0

        def __getattr__(self, name):
            return getattr(bundle.networks[0].backend, name)

        def run(self, inputs):
            Slow.calls += 1
            time.sleep(0.2)
            return bundle.networks[0].backend.run(inputs)

    member = replace(bundle.networks[0].members[0], backend=Slow())
    began = time.monotonic()
    measure([replace(bundle.networks[0], members=(member,))], sorted(folder.iterdir()), limit=0.0)
    assert Slow.calls == 2, "one call that sets up, one that is timed"
    assert time.monotonic() - began < 10


def known_speed(bundle, seconds_a_window: float) -> Speed:
    keys = {key: 0.0 for n in bundle.networks for key in kernel_speed.front_ends(n)}
    return Speed({8000: 0.0}, keys, {"sed/tiny": seconds_a_window}, {"sed/tiny": 0.0})


class Sleepy:
    """A network that takes so long for a window."""

    def __init__(self, backend, seconds):
        self.backend, self.seconds = backend, seconds

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def run(self, inputs):
        time.sleep(self.seconds * len(inputs["logmel"]))
        return self.backend.run(inputs)


@pytest.mark.slow
def test_hours_among_minutes_are_heard_last_and_in_part(bundle, folder, tmp_path):
    """A recording that would take all the time and more: both networks hear the others, then its beginning is heard."""
    tone(folder / "a_long.wav", 4000.0, pitch=1000)
    seconds = 0.02
    networks = [
        replace(n, members=tuple(replace(m, backend=Sleepy(m.backend, seconds)) for m in n.members))
        for n in bundle.networks
    ]
    speed = known_speed(bundle, 2 * seconds)  # divided by two cores; calls wait for each other here
    began = time.monotonic()
    table, report = play(bundle, folder, tmp_path / "s.csv", 12 / 60, networks=networks, speed=speed)
    assert report["left_out"] == []
    assert report["heard"] == 4
    assert report["partly"] == ["a_long"]
    assert time.monotonic() - began < 30, "40 s of hearing were cut at 12"
    best = table.set_index("row_id")[list(CLASSES)].idxmax(axis=1)
    assert [best[f"rec{i}_5"] for i in range(3)] == ["low"] * 3
    assert best["a_long_5"] == "mid"
    assert "what fitted" in report["writes"][-1]["what"]


def test_a_pass_that_is_cut_keeps_what_was_heard(bundle, folder):
    """The clock strikes while the second recording is heard: the first is whole, of the third nothing is known."""
    tone(folder / "rec1.wav", 200.0)
    clips = find_test(COMPETITION, folder, CLASSES).clips
    members = list(bundle.networks[0].members)
    (whole,), _ = predict_members(members, clips)
    ticks = iter(range(10**6))
    until = Until(2, clock=lambda: next(ticks))
    (found,), unreadable = predict_members(members, clips, until=until)
    assert until.partly == ["rec1"]
    assert until.unheard == ["rec2"]
    assert [clip for clip, _ in unreadable] == ["rec2"]
    np.testing.assert_array_equal(found.framewise_output[0], whole.framewise_output[0])
    part = found.framewise_output[1]
    assert 0 < len(part) < len(whole.framewise_output[1])
    last = len(part) - 1  # where the last window ends there is nothing to take a mean with
    np.testing.assert_array_equal(part[:last], whole.framewise_output[1][:last])


# ---- what fails after a valid file


def test_a_report_that_cannot_be_written_is_no_error(bundle, folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("earshot.kernel.runner.write_report", full)
    _, report = play(bundle, folder, tmp_path / "s.csv")
    assert report["heard"] == 3
    assert [f["how"] for f in report["failures"]] == ["was not written"]


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"),
    *(pytest.param(e, marks=pytest.mark.slow) for e in (MemoryError(), KeyError("x"))),
])  # fmt: skip
def test_what_fails_after_a_valid_file_ends_well(bundle, folder, tmp_path, monkeypatch, capsys, error):
    def broken(self, spent, minutes):
        raise error

    monkeypatch.setattr(KernelRun, "report", broken)
    arguments = ["--bundle", bundle.folder, "--competition", COMPETITION, "--test-folder", folder]
    scripts.run(run_kernel, *arguments, "--minutes", 0.2, "--out", tmp_path / "s.csv")
    said = capsys.readouterr().err
    assert "the run ended early" in said
    assert "s.csv is valid" in said
    assert len(read_table(tmp_path / "s.csv")) == 3
    with pytest.raises(type(error)):
        scripts.run(run_kernel, *arguments, "--minutes", 0.2, "--out", tmp_path / "s.csv", "--strict")


def limited(bundle, folder, out: Path, limit: str) -> subprocess.CompletedProcess:
    arguments = ["--bundle", bundle.folder, "--competition", COMPETITION, "--test-folder", folder, "--out", out]
    words = " ".join(f"'{word}'" for word in [sys.executable, SCRIPT, *arguments, "--minutes", "0.1"])
    own = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # else cut files of it stay, and fail later
    return subprocess.run(["bash", "-c", f"ulimit {limit}; exec {words}"], capture_output=True, text=True, env=own)


@pytest.mark.slow
def test_a_disk_that_fills_after_the_submission_ends_with_0(bundle, folder, tmp_path):
    """Files of 1 KiB at most: the submission fits, the report, which names all that is odd, does not."""
    for i in range(40):
        (folder / f"notes_{i}.txt").write_text("no recording")
    ran = limited(bundle, folder, tmp_path / "s.csv", "-f 1")
    assert ran.returncode == 0, ran.stderr
    assert len(read_table(tmp_path / "s.csv")) == 3
    assert "s_report.json was not written: OSError" in ran.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["input", "s.csv"], "nothing half written is left"


@pytest.mark.slow
def test_a_disk_without_room_for_the_submission_is_a_message(bundle, folder, tmp_path):
    ran = limited(bundle, folder, tmp_path / "s.csv", "-f 0")
    assert ran.returncode == 2
    assert ran.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ran.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["input"]


def test_little_memory_is_a_message(bundle, folder, tmp_path):
    ran = limited(bundle, folder, tmp_path / "s.csv", "-v 300000")
    assert ran.returncode == 1
    assert ran.stderr.strip() == (
        "error: this process may use 292 MiB of addresses (ulimit -v), a kernel needs 768 MiB or more: raise the limit"
    )


def test_a_bundle_whose_runtime_is_missing_answers_with_its_priors(bundle, folder, tmp_path, monkeypatch, capsys):
    about = json.loads((bundle.folder / "bundle.json").read_text())
    other = tmp_path / "bundle"
    tiny_graphs.write_bundle(other, COMPETITION, folds=2)
    (other / "bundle.json").write_text(json.dumps(about | {"prior": [0.25, 0.5, 0.125]}))
    from earshot.kernel.manifest import write_manifest

    write_manifest(other)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = ["--bundle", other, "--competition", COMPETITION, "--test-folder", folder]
    scripts.run(run_kernel, *arguments, "--minutes", 0.2, "--out", tmp_path / "s.csv")
    table = read_table(tmp_path / "s.csv")
    assert table[list(CLASSES)].to_numpy().tolist() == [[0.25, 0.5, 0.125]] * 3
    said = capsys.readouterr().out
    assert "0 of 3 recordings heard" in said
    assert "needs onnxruntime, which cannot be imported here" in said
    assert "no network of the bundle runs here; the submission holds priors" in said
    with pytest.raises(ValueError, match="no graph of bundle"):
        scripts.run(run_kernel, "--bundle", other, "--simulate", "600x60s")


HANGS = """
import sys, time
sys.path.insert(0, {src!r})
import run_kernel
from earshot.kernel.runner import KernelRun
hear = KernelRun._hear
KernelRun.batches = lambda run, steps, left: [[0], [1], [2]]
KernelRun._hear = lambda run, steps, batch: time.sleep(600) if batch == [1] else hear(run, steps, batch)
run_kernel.LEAST_LATE = 0.5
run_kernel.main()
"""


@pytest.mark.slow
def test_a_recording_that_never_comes_back_ends_in_what_was_heard_before(bundle, folder, tmp_path):
    """As of a decoder that hangs: Kaggle would stop the kernel and take nothing of it."""
    arguments = ["--bundle", bundle.folder, "--competition", COMPETITION, "--test-folder", folder]
    script = [sys.executable, "-c", HANGS.format(src=str(SCRIPT.parent)), *arguments]
    ran = subprocess.run(
        [*script, "--out", tmp_path / "s.csv", "--minutes", "0.15"], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "FAILED: the run hangs" in ran.stdout
    table = read_table(tmp_path / "s.csv")
    get_competition(COMPETITION).validate(table, find_test(COMPETITION, folder, CLASSES).table, list(CLASSES))
    assert table.row_id.tolist() == ["rec0_5", "rec1_5", "rec2_5"]
    assert (table.iloc[1, 1:] == table.iloc[2, 1:]).all(), "nobody heard them"
    plain = first_row(bundle, folder)
    np.testing.assert_allclose(table.iloc[0, 1:].to_numpy(float), plain, rtol=1e-3)


def first_row(bundle, folder) -> np.ndarray:
    """The first network's answer to the first recording's only row."""
    test = find_test(COMPETITION, folder, CLASSES)
    (found, *_), _ = predict_members(bundle.networks[0].members, test.clips[:1])
    return found.framewise_output[0].max(axis=0)

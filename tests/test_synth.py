"""The embedded competition: the same bytes from a seed, true events where the audio has them, and no free points."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot.competitions import birdcall, get_competition
from earshot.synth import birds
from earshot.synth import sounds as synth_sounds
from earshot.tables import read_table

COMPETITION = get_competition("synth")
TINY = {"clips_per_species": 2, "recordings": 1, "recording_seconds": 40.0, "short_recordings": 3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny variant, written once for this module."""
    folder = tmp_path_factory.mktemp("synth") / "tiny"
    birds.make_birds(folder, seed=0, **TINY)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Path relative to the folder -> sha256 of its bytes."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def slow_truth(events: pd.DataFrame, test: pd.DataFrame) -> list[str]:
    """The birds of each row of `test`, by asking of every row and every event whether they meet."""
    answers = []
    for row in test.itertuples():
        start, end = (0, np.inf) if row.site == "site_3" else (row.seconds - 5, row.seconds)
        birds = set()
        for event in events[events.filename == row.audio_id].itertuples():
            if event.onset < end and event.offset > start:
                birds.add(event.event_label)
        answers.append(" ".join(sorted(birds)) or "nocall")
    return answers


def row_micro_f1(answers, truth) -> float:
    """Mean over rows of 2 TP / (2 TP + FP + FN), nocall being a label."""
    scores = []
    for answer, true in zip(answers, truth, strict=True):
        a, b = set(answer.split()), set(true.split())
        scores.append(2 * len(a & b) / (2 * len(a & b) + len(a - b) + len(b - a)))
    return float(np.mean(scores))


# ---- bytes


def test_same_seed_same_bytes(tiny, tmp_path):
    birds.make_birds(tmp_path / "again", seed=0, **TINY)
    assert digests(tmp_path / "again") == digests(tiny)


def test_other_seed_other_bytes(tiny, tmp_path):
    birds.make_birds(tmp_path / "other", seed=1, **TINY)
    first, other = digests(tiny), digests(tmp_path / "other")
    sounds = [name for name in first if name.startswith("train_audio")]
    assert len(sounds) == 20
    assert not {first[name] for name in sounds} & set(other.values())


def test_a_clip_depends_on_nothing_but_seed_and_index():
    alone, row = birds.train_clip(0, 7, "duswhi")
    birds.train_clip(0, 3, "reequa")
    again, row_again = birds.train_clip(0, 7, "duswhi")
    np.testing.assert_array_equal(alone, again)
    assert row == row_again


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(birds.soundfile, "write", full_disk)
    with pytest.raises(OSError, match="disk full"):
        birds.make_birds(tmp_path / "birds", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        birds.make_birds(tmp_path, **TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


# ---- what is in it


def test_layout(tiny):
    train, test = pd.read_csv(tiny / "train.csv"), pd.read_csv(tiny / "test.csv")
    assert len(train) == 20
    assert all((tiny / "train_audio" / r.ebird_code / r.filename).is_file() for r in train.itertuples())
    assert list(test.columns) == ["site", "row_id", "seconds", "audio_id"]
    assert test.groupby("site").audio_id.nunique().to_dict() == {"site_1": 1, "site_2": 1, "site_3": 3}
    assert (test.site == "site_1").sum() == 8
    assert test.seconds[test.site == "site_3"].isna().all()
    sample = pd.read_csv(tiny / "sample_submission.csv")
    assert sample.row_id.tolist() == test.row_id.tolist()
    COMPETITION.validate(sample, test, sorted(synth_sounds.SPECIES))


def test_every_species_in_train_and_test(tiny):
    species = set(synth_sounds.SPECIES)
    assert len(species) == 10
    assert set(pd.read_csv(tiny / "train.csv").ebird_code) == species
    assert set(pd.read_csv(tiny / "test_events.csv").event_label) == species


def test_events_lie_within_their_recordings(tiny):
    events = pd.read_csv(tiny / "test_events.csv")
    seconds = events.filename.map(lambda name: soundfile.info(tiny / "test_audio" / f"{name}.flac").duration)
    assert (events.onset >= 0).all()
    assert (events.offset <= seconds).all()
    assert (events.offset - events.onset).between(0.3, 3.0).all()


def test_events_keep_clear_of_row_borders(tiny):
    test, events = pd.read_csv(tiny / "test.csv"), pd.read_csv(tiny / "test_events.csv")
    in_rows = events[events.filename.isin(test.audio_id[test.site != "site_3"])]
    for event in in_rows.itertuples():
        for border in np.arange(0, 41, 5):
            if event.onset < border < event.offset:
                assert min(border - event.onset, event.offset - border) >= birds.STRADDLE_SECONDS - 0.002
            else:
                assert min(abs(border - event.onset), abs(event.offset - border)) >= birds.BORDER_SECONDS - 0.002


def test_truth_agrees_with_the_events(tiny):
    test, events = pd.read_csv(tiny / "test.csv"), pd.read_csv(tiny / "test_events.csv")
    truth = pd.read_csv(tiny / "truth.csv")
    assert truth.row_id.tolist() == test.row_id.tolist()
    assert truth.birds.tolist() == slow_truth(events, test)
    assert truth.birds.tolist() == birdcall.truth_rows(events, test).birds.tolist()


def test_events_are_louder_than_their_surroundings(tiny):
    """In the band of the calls (1.5 to 6 kHz) recordings have more energy within events than without."""
    events = pd.read_csv(tiny / "test_events.csv")
    ratios = []
    for name, own in events.groupby("filename"):
        wave, rate = soundfile.read(tiny / "test_audio" / f"{name}.flac")
        spectrum = np.abs(np.fft.rfft(wave[: len(wave) // 1600 * 1600].reshape(-1, 1600), axis=1)) ** 2
        energy, at = spectrum[:, 150:600].sum(axis=1), (np.arange(len(spectrum)) + 0.5) * 1600 / rate
        inside = np.zeros(len(at), bool)
        for event in own.itertuples():
            inside |= (at > event.onset) & (at < event.offset)
        ratios.append(energy[inside].mean() / np.median(energy[~inside]))
    assert np.median(ratios) > 2


def test_levels(tiny):
    for path in tiny.rglob("*.flac"):
        wave, rate = soundfile.read(path)
        assert rate == 16000
        assert np.isfinite(wave).all()
        assert 0.003 < np.abs(wave).max() <= 0.951, path  # audible, nothing clipped (16 bits round 0.95 up)
        assert abs(wave.mean()) < 0.01


def test_clips_are_five_to_eight_seconds(tiny):
    for row in pd.read_csv(tiny / "train.csv").itertuples():
        seconds = soundfile.info(tiny / "train_audio" / row.ebird_code / row.filename).duration
        assert seconds == pytest.approx(row.duration, abs=1e-4)
        assert 5 <= seconds <= 8


# ---- the default: its plan needs no audio


def planned_truth(seed: int) -> pd.DataFrame:
    """Truth rows of the default test if every planned call were heard in the stretch that it is planned for."""
    rows = []
    for plan in birds.plan_test(seed, recordings=2, recording_seconds=90.0, short_recordings=8):
        events = [(start + 1, start + 2, code) for start, _, codes in plan.stretches for code in codes]
        rows += birds.truth_rows(events, plan)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_answer_scores_low(seed):
    truth = planned_truth(seed)
    assert len(truth) == 80
    nocall = (truth.birds == "nocall").mean()
    assert nocall == pytest.approx(0.3125)  # a third of 72 rows, one of eight recordings
    for answer in ["nocall", *synth_sounds.SPECIES, " ".join(sorted(synth_sounds.SPECIES))]:
        score = row_micro_f1([answer] * len(truth), truth.birds)
        assert score <= 0.35, answer
        mine = COMPETITION.score(truth.assign(birds=answer)[["row_id", "birds"]], truth)["row_micro_f1"]
        assert mine == pytest.approx(score)


def test_species_are_dealt_evenly():
    calls = [c for p in birds.plan_test(0, 2, 90.0, 8) for _, _, codes in p.stretches for c in codes]
    counts = pd.Series(calls).value_counts()
    assert len(counts) == 10
    assert counts.max() - counts.min() <= 2


def test_some_second_species_are_listed_and_some_are_not(monkeypatch):
    rows, sung = [], []

    def remember(scene, sounds):
        sung.append({s.event_label for s in sounds})
        return scene, []

    monkeypatch.setattr(birds, "background", lambda rng, n, layers: np.ones(n, np.float32))
    monkeypatch.setattr(birds, "mix", remember)
    for index in range(100):
        rows.append(birds.train_clip(0, index, "duswhi")[1])
    second = [len(labels - {""}) == 2 for labels in sung]
    listed = [row["secondary_labels"] != "[]" for row in rows]
    assert 0.15 < np.mean(second) < 0.35
    assert all(s for s, was_listed in zip(second, listed) if was_listed)
    assert 0.6 < sum(listed) / sum(second) < 1


# ---- sounds


def test_snr_is_counted_in_the_band_of_the_call():
    """A call of 2 to 4 kHz over white noise: 90 % of its energy lie in 2.1 to 3.9 kHz."""
    rng, n = np.random.default_rng(0), 16000
    hz = np.fft.rfftfreq(n, 1 / 16000)
    call = np.fft.irfft(np.exp(2j * np.pi * rng.random(len(hz))) * ((hz >= 2000) & (hz <= 4000)), n)
    noise = 0.1 * rng.standard_normal(n)
    gain = synth_sounds.snr_gain(call, noise, 6.0)
    power = np.abs(np.fft.rfft(gain * call)) ** 2, np.abs(np.fft.rfft(noise)) ** 2
    ratio = power[0].sum() / power[1][(hz >= 2100) & (hz <= 3900)].sum()
    assert 10 * np.log10(ratio) == pytest.approx(6.0, abs=0.02)


def test_inaudible_calls_and_distractors_are_no_events():
    wave = np.sin(np.arange(1600)).astype(np.float32)
    sounds = [
        synth_sounds.Sound(label, onset, wave, 0.1, snr_db)
        for label, onset, snr_db in [("b", 1.0, 5.0), ("a", 0.5, 0.0), ("a", 0.2, -0.1), ("", 0.7, 20.0)]
    ]
    scene = np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    before = scene.copy()
    _, events = synth_sounds.mix(scene, sounds)
    assert events == [(0.5, 0.6, "a"), (1.0, 1.1, "b")]
    np.testing.assert_array_equal(scene, before)


@pytest.mark.parametrize(("code", "rises"), [("aspswe", True), ("fenswe", False), ("marwhi", True), ("duswhi", False)])
def test_calls_go_where_their_names_say(code, rises):
    rng = np.random.default_rng(0)
    notes = synth_sounds.SPECIES[code].sing(rng)[:2]
    wave = synth_sounds.render_phrase(notes, synth_sounds.Voice(), rng)
    wave = wave[: round(0.32 * 16000)] if "swe" in code else wave
    halves = [np.argmax(np.abs(np.fft.rfft(half, 16000))) for half in np.array_split(wave, 2)]
    assert (halves[1] > halves[0]) == rises


@pytest.mark.parametrize("code", synth_sounds.SPECIES)
def test_phrases_fit_a_row_in_any_voice(code):
    rng = np.random.default_rng(0)
    for _ in range(30):
        _, seconds = synth_sounds.sing(code, synth_sounds.Voice(tempo=0.78), rng, 1.0)
        assert 0.3 < seconds <= birds.ROW_SECONDS - 2 * birds.BORDER_SECONDS


def test_distance_takes_the_highs():
    rng = np.random.default_rng(0)
    click = np.zeros(1600, np.float32)
    click[800] = 1
    near, far = (np.abs(np.fft.rfft(synth_sounds.propagate(click, d, rng), 16000)) for d in (0.0, 1.0))
    np.testing.assert_allclose(near, 1.0, atol=1e-4)
    assert far[6000:8000].mean() < 0.5 * far[500:2000].mean()


def test_unknown_background_layer():
    with pytest.raises(ValueError, match="unknown background layer 'snow'; known: white"):
        synth_sounds.background(np.random.default_rng(0), 1600, {"snow": 1.0})


# ---- prepare


def test_prepare_reads_what_is_there(tiny):
    tables = COMPETITION.prepare(tiny)
    assert list(tables.classes) == sorted(synth_sounds.SPECIES)
    assert len(tables.clips) == 20
    assert tables.clips.group.str.fullmatch(r"Recordist_\d+").all()
    assert tables.missing == ()
    assert set(tables.test_events.filename) <= set(tables.test_clips.clip_id)
    pd.testing.assert_frame_equal(tables.test_events, read_table(tiny / "test_events.csv"))


def test_prepare_makes_what_is_missing(tmp_path, monkeypatch):
    make = birds.make_birds
    monkeypatch.setattr(birds, "make_birds", lambda folder, seed: make(folder, seed, 1, 1, 10.0, 1))
    assert len(COMPETITION.prepare(tmp_path / "new" / "download", seed=5).clips) == 10
    assert len(COMPETITION.prepare(tmp_path / "new" / "download").clips) == 10
    with pytest.raises(ValueError, match=r"was not made with .*'seed': 6"):
        COMPETITION.prepare(tmp_path / "new" / "download", seed=6)


def test_prepare_refuses_a_foreign_folder(tmp_path):
    (tmp_path / "train.csv").write_text("ebird_code\n")
    with pytest.raises(ValueError, match=r"its synth\.json: missing"):
        COMPETITION.prepare(tmp_path)


@pytest.mark.slow
def test_the_default(tmp_path):
    started = time.process_time()
    birds.make_birds(tmp_path / "birds")
    size = sum(p.stat().st_size for p in (tmp_path / "birds").rglob("*") if p.is_file())
    print(f"\ndefault competition: {time.process_time() - started:.1f} s of CPU, {size / 1e6:.0f} MB")
    test, truth = pd.read_csv(tmp_path / "birds" / "test.csv"), pd.read_csv(tmp_path / "birds" / "truth.csv")
    events = pd.read_csv(tmp_path / "birds" / "test_events.csv")
    assert size < 60e6
    assert len(test) == 80
    assert 0.25 <= (truth.birds == "nocall").mean() <= 0.4
    assert events.event_label.value_counts().min() >= 5
    assert truth.birds.tolist() == slow_truth(events, test)
    assert max(row_micro_f1([a] * 80, truth.birds) for a in ["nocall", *synth_sounds.SPECIES]) <= 0.35

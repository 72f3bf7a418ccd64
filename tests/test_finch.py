"""Finch songs: events of two tasks, the split, mixing at a stated SNR, event-based scores."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.competitions import finch, get_competition
from earshot.data.folds import make_folds
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table

RATE = finch.BACKGROUND_RATE
META = pd.DataFrame({
    "filename": ["audio/b0_1.wav", "audio/b0_2.wav", "audio/b0_3.wav", "audio/z_1.wav"],
    "species": ["bengalese_finch"] * 3 + ["zebra_finch"],
    "individual": ["bird0"] * 3 + ["z"],
    "session": "",
    "split": ["train", "val", "test", "train"],
    "duration_s": [1.0, 1.0, 1.0, 1.5],
    "labelling": ["typed"] * 3 + ["generic"],
})  # fmt: skip
EVENTS = pd.DataFrame(
    [
        ("audio/b0_1.wav", 0.5, 0.6, "vocal", "bird0", 1),
        ("audio/b0_1.wav", 0.1, 0.2, "vocal", "bird0", 0),
        ("audio/b0_2.wav", 0.1, 0.2, "vocal", "bird0", 1),
        ("audio/b0_3.wav", 0.1, 0.2, "vocal", "bird0", 0),
        ("audio/b0_3.wav", 0.4, 0.5, "vocal", "bird0", 1),
        ("audio/z_1.wav", 0.2, 0.4, "vocal", "z", "s"),
        ("audio/z_1.wav", 0.5, 0.6, "noise", "z", "n"),
        ("audio/z_1.wav", 0.7, 0.8, "unsure", "z", "x"),
    ],
    columns=["filename", "onset_s", "offset_s", "event_type", "individual", "raw_label"],
)


@pytest.fixture
def songs(tmp_path):
    """Tones at the events over a faint noise."""
    folder = tmp_path / "songs"
    for i, row in enumerate(META.itertuples()):
        t = np.arange(round(row.duration_s * RATE)) / RATE
        waveform = 1e-3 * np.random.default_rng(i).standard_normal(len(t))
        for event in EVENTS[EVENTS.filename == row.filename].itertuples():
            waveform += 0.2 * np.sin(2 * np.pi * 3000 * t) * ((t >= event.onset_s) & (t < event.offset_s))
        audio.write(folder / row.filename, waveform, RATE)
    META.to_csv(folder / "meta.csv", index=False)
    EVENTS.to_csv(folder / "events.csv", index=False)
    return folder


@pytest.fixture
def esc50(tmp_path):
    """Two backgrounds and a bird a fold; 0.3 s of noise, then silence."""
    folder = tmp_path / "esc"
    rows = []
    for fold in range(1, 6):
        for category in ("rain", "wind", "chirping_birds"):
            waveform = np.zeros(RATE, np.float32)
            waveform[: RATE * 3 // 10] = 0.1 * np.random.default_rng(fold).standard_normal(RATE * 3 // 10)
            rows.append((f"{fold}-{category}.wav", fold, category))
            audio.write(folder / "audio" / rows[-1][0], waveform, RATE)
    pd.DataFrame(rows, columns=["filename", "fold", "category"]).to_csv(folder / "meta.csv", index=False)
    return folder


def test_vocal_activity_of_every_bird(songs):
    tables = get_competition("finch_vocal").prepare(songs)
    assert list(tables.classes) == ["vocal"]
    clips = tables.clips.set_index("clip_id")
    assert clips.index.tolist() == ["b0_1", "b0_2", "z_1"]
    assert clips.official_fold.tolist() == [1, 0, 1]
    assert clips.is_unsure.tolist() == [0, 0, 1]
    assert tables.events.filename.tolist() == ["b0_1", "b0_1", "b0_2", "z_1"]  # no noise, nothing unsure
    assert tables.events.onset.tolist() == [0.1, 0.5, 0.1, 0.2]
    assert tables.test_clips.clip_id.tolist() == ["b0_3"]
    assert tables.test_events[["onset", "event_label"]].values.tolist() == [[0.1, "vocal"], [0.4, "vocal"]]
    assert make_folds(tables.clips).fold.tolist() == [1, 0, 1]


def test_syllables_of_one_bird(songs):
    tables = get_competition("finch_syllables").prepare(songs)
    assert list(tables.classes) == ["syl_0", "syl_1"]
    assert tables.clips.labels.tolist() == ["syl_0 syl_1", "syl_1"]
    assert tables.events.event_label.tolist() == ["syl_0", "syl_1", "syl_1"]
    with pytest.raises(ValueError, match="unknown labels 'vocals'; did you mean 'vocal'"):
        finch.prepare(songs, "vocals")
    META.assign(split="dev").to_csv(songs / "meta.csv", index=False)
    with pytest.raises(ValueError, match="split 'dev', not train, val, test"):
        finch.prepare(songs)


def test_both_tasks_for_one_network(songs):
    """Every event of bird0 twice, as vocal and by name; of other birds nobody knows syllables."""
    tables = get_competition("finch_songs").prepare(songs)
    assert list(tables.classes) == ["vocal", "syl_0", "syl_1"]
    clips = tables.clips.set_index("clip_id")
    assert clips.labels.to_dict() == {"b0_1": "syl_0 syl_1 vocal", "b0_2": "syl_1 vocal", "z_1": "vocal"}
    assert clips.unknown_labels.to_dict() == {"b0_1": "", "b0_2": "", "z_1": "syl_0 syl_1"}
    assert tables.events.groupby("filename").event_label.agg(list).to_dict() == {
        "b0_1": ["vocal", "syl_0", "vocal", "syl_1"], "b0_2": ["vocal", "syl_1"], "z_1": ["vocal"],
    }  # fmt: skip
    assert tables.test_events.event_label.tolist() == ["vocal", "syl_0", "vocal", "syl_1"]
    silent = finch.prepare(songs, "songs", unlabelled="z")
    assert silent.clips.unknown_labels.tolist() == ["", ""]


def test_the_score_of_both_tasks_is_their_mean():
    truth = pd.DataFrame(
        [("a", 1.0, 1.1, "vocal"), ("a", 1.0, 1.1, "syl_0"), ("b", 1.0, 1.1, "vocal")],
        columns=["filename", "onset", "offset", "event_label"],
    )
    assert finch.score_songs(truth, truth)["event_f1"] == 1
    wrong = truth.assign(event_label=["vocal", "syl_1", "vocal"])
    scores = finch.score_songs(wrong, truth)
    assert (scores["vocal_event_f1"], scores["syllables_event_f1"], scores["event_f1"]) == (1, 0, 0.5)
    more = pd.concat([truth, truth.iloc[2:].assign(event_label="syl_0")])  # b's syllables nobody knows
    assert finch.score_songs(more, truth)["syllables_event_f1"] == 1
    alone = truth[truth.event_label == "vocal"]
    assert "syllables_event_f1" not in finch.score_songs(alone, alone)
    assert finch.score_songs(alone, alone)["event_f1"] == 1


def frames(*active, n=100):
    out = np.full((n, 1), 0.1, np.float32)
    for first, stop in active:
        out[first:stop] = 0.9
    return out


def test_rows_are_events_and_silent_recordings_keep_a_row(tmp_path):
    test = pd.DataFrame({"clip_id": ["a", "b", "c"], "duration": [1.0, 1.0, 1.0]})
    found = Predictions(
        np.array(["c", "a", "b"]),
        ("vocal",),
        np.full((3, 1), 0.5, np.float32),
        np.full(3, -1),
        np.array([True, False, False]),
        framewise_output=(frames((0, 50)), frames((10, 20), (40, 45)), frames()),
        timebase=TimeBase(RATE, 320),
    )
    submission = finch.rows(found, test)
    assert list(submission.columns) == ["filename", "onset", "offset", "event_label"]
    assert submission.iloc[:2].values.tolist() == [["a", 0.1, 0.2, "vocal"], ["a", 0.4, 0.45, "vocal"]]
    assert submission.filename.tolist() == ["a", "a", "b", "c"]
    assert submission.onset.isna().tolist() == [False, False, True, True]
    submission.to_csv(tmp_path / "s.tsv", sep="\t", index=False)
    again = read_table(tmp_path / "s.tsv")
    finch.validate(submission, test, ["vocal"])
    finch.validate(again, test, ["vocal"])
    truth = pd.DataFrame({"filename": ["a", "a"], "onset": [0.1, 0.7], "offset": [0.2, 0.8], "event_label": "vocal"})
    assert finch.score(again, truth) == finch.score(submission, truth)
    assert finch.score(again, truth)["event_f1"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"predict\.keep_frames=true"):
        finch.rows(Predictions(np.array(["a"]), ("vocal",), np.ones((1, 1)), np.zeros(1), np.zeros(1, bool)), test)


def test_validate_names_what_is_wrong():
    test = pd.DataFrame({"clip_id": ["a", "b"], "duration": [1.0, 1.0]})
    good = pd.DataFrame(
        {"filename": ["a", "b"], "onset": [0.1, np.nan], "offset": [0.2, np.nan], "event_label": ["vocal", ""]}
    )
    finch.validate(good, test, ["vocal"])
    for wrong, message in (
        (good.iloc[:1], "1 recording is not there .*: b"),
        (good.assign(filename=["a", "x"]), "1 recording is not asked for: x"),
        (good.assign(offset=[1.2, np.nan]), "1 event does not lie in their recording"),
        (good.assign(offset=[0.1, np.nan]), "1 event does not lie in their recording"),
        (good.assign(event_label=["vocals", ""]), "label 'vocals' is not a class; did you mean 'vocal'"),
        (good.drop(columns="onset"), "no column 'onset'"),
    ):
        with pytest.raises(ValueError, match=message):
            finch.validate(wrong, test, ["vocal"])


def test_score_has_a_collar_of_50_ms_and_counts_silence_as_zero():
    truth = pd.DataFrame({"filename": "a", "onset": [1.0, 2.0], "offset": [1.1, 2.1], "event_label": ["x", "y"]})
    near = truth.assign(onset=truth.onset + 0.049, offset=truth.offset - 0.049)
    far = truth.assign(onset=truth.onset + [0.0, 0.051])
    assert finch.score(near, truth)["event_f1"] == 1
    assert finch.score(far, truth) == {
        "event_f1": 0.5, "event_f1_macro": 0.5, "event_precision": 0.5, "event_recall": 0.5,
    }  # fmt: skip
    assert finch.score(truth.iloc[:0], truth)["event_f1"] == 0
    extra = pd.concat([truth, truth.assign(onset=5.0, offset=6.0).iloc[:1].replace("x", "z")])
    assert finch.score(extra, truth)["event_f1"] == pytest.approx(0.8)  # a class that the truth lacks is an insertion


@given(st.floats(-20, 40), st.floats(0.01, 0.9), st.integers(0, 50))
def test_mixtures_have_the_snr_asked_for(snr_db, level, seed):
    rng = np.random.default_rng(seed)
    song = (1e-3 * rng.standard_normal(6400)).astype(np.float32)
    song[1600:3200] += level * np.sin(np.arange(1600) * 0.3).astype(np.float32)
    noise = rng.standard_normal(6400).astype(np.float32)
    mixture = finch.mix_at_snr(song, noise, [0.05], [0.1], snr_db)
    assert np.abs(mixture).max() <= 0.99 + 1e-6
    # the mixture is a * song + b * noise: find a and b, then compare powers
    (a, b), *_ = np.linalg.lstsq(np.stack([song, noise], 1).astype(float), mixture.astype(float), rcond=None)
    power = np.mean((a * song[1600:3200].astype(float)) ** 2) / np.mean((b * noise.astype(float)) ** 2)
    assert 10 * np.log10(power) == pytest.approx(snr_db, abs=0.02)
    assert a <= 1 + 1e-5


def test_a_silent_background_has_no_snr():
    with pytest.raises(ValueError, match="background is silent"):
        finch.mix_at_snr(np.ones(100, np.float32), np.zeros(100, np.float32), [], [], 0)
    with pytest.raises(ValueError, match="--snr-db must be from -100 to 100, got nan"):
        finch.mix_backgrounds("songs", "out", "backgrounds", snr_db=float("nan"))


def test_backgrounds_are_joined_without_gaps_and_of_equal_power(esc50):
    paths = sorted((esc50 / "audio").glob("1-*.wav"))
    noise, names = finch.join_backgrounds(paths, 2 * RATE, np.random.default_rng(0))
    assert len(noise) == 2 * RATE
    assert len(names) == 8  # 0.3 s each but for the fades, the silence left out
    assert set(names[:3]) == {p.stem for p in paths}  # all are used before one comes again
    blocks = noise.reshape(-1, RATE // 10)
    assert (np.sqrt(np.mean(blocks**2, axis=1)) > 0.8).all()


def test_mix_backgrounds_writes_a_folder_of_the_same_shape(songs, esc50, tmp_path):
    out = tmp_path / "mixed"
    assert finch.mix_backgrounds(songs, out, esc50, snr_db=-5, seed=1) == 4
    meta = read_table(out / "meta.csv")
    assert meta.filename.tolist() == [f"audio/{Path}.flac" for Path in ("b0_1", "b0_2", "b0_3", "z_1")]
    used = [{name.split("-")[0] for name in text.split()} for text in meta.backgrounds]
    assert used[1] == {"4"}  # val
    assert used[2] == {"5"}  # test
    assert used[0] | used[3] <= {"1", "2", "3"}
    assert "chirping" not in " ".join(meta.backgrounds)
    assert (meta.snr_db == -5).all()
    before, after = finch.prepare(songs), finch.prepare(out)
    pd.testing.assert_frame_equal(before.events, after.events)
    assert after.clips.path[0] == "audio/b0_1.flac"
    clean, mixture = (
        audio.load(folder / name, RATE) for folder, name in ((songs, META.filename[3]), (out, "audio/z_1.flac"))
    )
    quiet = slice(round(1.0 * RATE), round(1.4 * RATE))  # no event: background alone
    inside = slice(round(0.2 * RATE), round(0.4 * RATE))
    ratio = np.mean(clean[inside] ** 2) / np.mean(mixture[quiet] ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(-5, abs=1.5)
    first = (out / "audio" / "z_1.flac").read_bytes()
    finch.mix_backgrounds(songs, out, esc50, snr_db=-5, seed=1)
    assert (out / "audio" / "z_1.flac").read_bytes() == first
    finch.mix_backgrounds(songs, out, esc50, snr_db=-5, seed=2)
    assert (out / "audio" / "z_1.flac").read_bytes() != first


def test_songs_that_train_may_stay_clean(songs, esc50, tmp_path):
    """Only the splits that are named are mixed; backgrounds for training are listed, none of another split's."""
    out = tmp_path / "mixed"
    finch.mix_backgrounds(songs, out, esc50, mixed_splits="val test")
    meta = pd.read_csv(out / "meta.csv")
    assert meta.backgrounds.isna().tolist() == meta.snr_db.isna().tolist() == [True, False, False, True]
    clean, kept = audio.load(songs / META.filename[3], RATE), audio.load(out / meta.filename[3], RATE)
    np.testing.assert_allclose(kept, clean, atol=1e-4)
    listed = read_table(out / "train_backgrounds.csv")
    assert listed.clip_id.tolist() == [f"{fold}-{name}" for fold in (1, 2, 3) for name in ("rain", "wind")]
    assert all(audio.info(path).duration == 1 for path in listed.path)
    with pytest.raises(ValueError, match="unknown split 'valid' to mix; did you mean 'val'"):
        finch.mix_backgrounds(songs, out, esc50, mixed_splits="valid test")


def test_missing_backgrounds_are_an_error(songs, esc50, tmp_path):
    meta = read_table(esc50 / "meta.csv")
    meta[meta.fold != 5].to_csv(esc50 / "meta.csv", index=False)
    with pytest.raises(ValueError, match="no background in ESC-50 fold 5"):
        finch.mix_backgrounds(songs, tmp_path / "out", esc50)


def test_the_real_songs(shared_data):
    vocal, syllables = (
        get_competition(f"finch_{n}").prepare(shared_data / "finch_sed") for n in ("vocal", "syllables")
    )
    assert len(vocal.clips) + len(vocal.test_clips) == 245
    assert len(vocal.events) + len(vocal.test_events) == 12840  # 13,087 less 86 noise and 161 unsure
    assert list(syllables.classes) == [f"syl_{i}" for i in range(9)]
    assert len(syllables.events) + len(syllables.test_events) == 7652
    finch.validate(vocal.test_events, vocal.test, vocal.classes)
    assert finch.score(vocal.test_events, vocal.truth)["event_f1"] == 1
    late = vocal.test_events.assign(onset=lambda e: e.onset + 0.06, offset=lambda e: e.offset + 0.06)
    assert finch.score(late, vocal.truth)["event_f1"] < 0.3  # not 0: birds repeat themselves every 60 ms or so
    for _, events in syllables.events.groupby("filename"):
        assert all(a <= b for a, b in pairwise(events.onset))


def test_a_bird_without_labels(songs):
    """Its recordings of train and val lie in unlabelled.csv, those of its test nowhere; no event of it is left."""
    tables = finch.prepare(songs, unlabelled="bird0")
    assert tables.clips.clip_id.tolist() == ["z_1"]
    assert tables.unlabelled.clip_id.tolist() == ["b0_1", "b0_2"]
    assert "labels" not in tables.unlabelled
    assert set(tables.events.filename) == {"z_1"}
    assert tables.test_clips is None
    with pytest.raises(ValueError, match="unlabelled names the bird 'bird1'; did you mean 'bird0'"):
        finch.prepare(songs, unlabelled="bird1")
    with pytest.raises(ValueError, match="names every bird"):
        finch.prepare(songs, unlabelled="bird0 z")

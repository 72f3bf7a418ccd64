"""Birdcall: the download's layout, row arithmetic, both sets of rules, validation, score."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from earshot.competitions import birdcall, get_competition
from earshot.events import PostProcess, load_post
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.timebase import TimeBase, repeat_to_frames
from earshot.sound.windows import frame_starts, join_framewise

CLASSES = ("aldfly", "ameavo", "amebit")
GRID = TimeBase(32000, 320, 10)  # 0.1 s a frame
POST = PostProcess(iou_threshold=None)


def table_of_test(*recordings):
    """(site, audio_id, seconds) -> the published form of test.csv."""
    rows = []
    for site, audio_id, seconds in recordings:
        ends = [None] if site == "site_3" else range(5, seconds + 1, 5)
        rows += [(site, f"{site}_{audio_id}" + (f"_{e}" if e else ""), e, audio_id) for e in ends]
    return pd.DataFrame(rows, columns=list(birdcall.TEST_COLUMNS))


def predictions(recordings: dict[str, np.ndarray], grid=GRID, unreadable=()):
    frames = tuple(np.asarray(f, np.float32) for f in recordings.values())
    return Predictions(
        np.array(list(recordings)), CLASSES, np.stack([f.max(axis=0) for f in frames]), np.full(len(frames), -1),
        np.array([c in unreadable for c in recordings]), framewise_output=frames, timebase=grid,
    )  # fmt: skip


def frames_of(seconds, *events, grid=GRID):
    """(class, onset, offset) -> (T, 3) probabilities, 0.9 within the events, 0.1 elsewhere."""
    prob = np.full((grid.n_frames(int(seconds * grid.sample_rate)), 3), 0.1, np.float32)
    for k, onset, offset in events:
        prob[grid.frame(onset) : grid.frame(offset), k] = 0.9
    return prob


# ---- the download


def train_table():
    return pd.DataFrame({
        "rating": [4.0, 3.5, 5.0, 2.0],
        "ebird_code": ["ameavo", "aldfly", "aldfly", "amebit"],
        "duration": [12, 25, 7, 40],
        "filename": ["XC10.mp3", "XC11.mp3", "XC12.mp3", "XC13.mp3"],
        "secondary_labels": ["[]", "['Botaurus lentiginosus_American Bittern', 'Corvus corax_Common Raven']",
                             "['Empidonax alnorum_Alder Flycatcher']", "['Corvus corax_Common Raven']"],
        "primary_label": ["Recurvirostra americana_American Avocet", "Empidonax alnorum_Alder Flycatcher",
                          "Empidonax alnorum_Alder Flycatcher", "Botaurus lentiginosus_American Bittern"],
        "sampling_rate": ["48000 (Hz)", "44100 (Hz)", "44100 (Hz)", "22050 (Hz)"],
        "xc_id": [10, 11, 12, 13],
        "recordist": ["A. Bird", "A. Bird", "NA", "C. Wren"],
    })  # fmt: skip


def download(folder: Path, train=None, test=None, absent=()):
    train = train_table() if train is None else train
    train.to_csv(folder / "train.csv", index=False)
    for code, name in zip(train.get("ebird_code", []), train.get("filename", [])):
        if name not in absent:
            path = folder / "train_audio" / code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"mp3")
    if test is not None:
        test.to_csv(folder / "test.csv", index=False)
        (folder / "test_audio").mkdir()
        for audio_id in test.audio_id.unique():
            (folder / "test_audio" / f"{audio_id}.mp3").write_bytes(b"mp3")
    return folder


def test_prepare_reads_the_published_layout(tmp_path, caplog):
    test = table_of_test(("site_1", "00a7", 15), ("site_3", "b2", 0))
    with caplog.at_level(logging.WARNING, "earshot"):
        tables = birdcall.prepare(download(tmp_path, test=test))
    clips = tables.clips
    assert tables.classes == ["aldfly", "ameavo", "amebit"]
    assert clips.clip_id.tolist() == ["XC10", "XC11", "XC12", "XC13"]
    assert clips.path[1] == "train_audio/aldfly/XC11.mp3"
    assert clips.labels.tolist() == ["ameavo", "aldfly", "aldfly", "amebit"]
    assert clips.secondary_labels.tolist() == ["", "amebit", "", ""]  # neither unknown species nor the clip's own
    assert clips.group.tolist() == ["10", "11", "12", "13"]
    assert clips.sample_rate.tolist() == [48000, 44100, 44100, 22050]
    assert clips.duration.tolist() == [12, 25, 7, 40]
    assert clips.recordist.tolist()[::3] == ["A. Bird", "C. Wren"]
    assert "2 secondary labels of 1 species outside the competition are dropped: Corvus corax" in caplog.text
    assert tables.test_clips.to_dict("list") == {
        "clip_id": ["00a7", "b2"], "path": ["test_audio/00a7.mp3", "test_audio/b2.mp3"], "site": ["site_1", "site_3"],
    }  # fmt: skip
    assert tables.test.row_id.tolist() == test.row_id.tolist()
    assert tables.missing == ()
    assert tables.task == "sed"
    assert get_competition("birdcall").rows is birdcall.rows


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_prepare_reads_the_resampled_download(tmp_path, ending):
    """Five folders of wav, some under names that say mp3, the table in the first; rows keep the table's order."""
    table = train_table().assign(
        resampled_sampling_rate="32000 (Hz)", resampled_channels="1 (mono)",
        resampled_filename=[f"XC{n}.{ending}" for n in (10, 11, 12, 13)],
    )  # fmt: skip
    for number, (code, name) in enumerate(zip(table.ebird_code, table.resampled_filename, strict=True)):
        folder = tmp_path / f"birdsong-resampled-train-audio-{number:02d}" / code
        folder.mkdir(parents=True)
        soundfile.write(folder / name, np.full(3200, 0.25 * (number % 3 + 1)), 32000, format="WAV")
    (tmp_path / "birdsong-resampled-train-audio-04").mkdir()
    table.to_csv(tmp_path / "birdsong-resampled-train-audio-00" / "train_mod.csv", index=False)
    found = birdcall.prepare(tmp_path)
    assert found.clips.clip_id.tolist() == ["XC10", "XC11", "XC12", "XC13"]
    assert found.clips.path[2] == f"birdsong-resampled-train-audio-02/aldfly/XC12.{ending}"
    assert found.clips.sample_rate.tolist() == [32000] * 4
    assert not found.missing
    for number, path in enumerate(found.clips.path):
        np.testing.assert_allclose(audio.load(tmp_path / path, 32000), 0.25 * (number % 3 + 1), atol=1e-4)
    table_of_test(("site_1", "r1", 10)).to_csv(tmp_path / "test.csv", index=False)
    assert birdcall.prepare(tmp_path).test_clips.clip_id.tolist() == ["r1"]
    one = birdcall.prepare(tmp_path / "birdsong-resampled-train-audio-00")
    assert one.clips.clip_id.tolist() == ["XC10"]
    assert [clip for clip, _ in one.missing] == ["XC11", "XC12", "XC13"]


def test_absent_audio_is_listed_and_left_out(tmp_path):
    tables = birdcall.prepare(download(tmp_path, absent=("XC11.mp3", "XC10.mp3")))
    assert tables.clips.clip_id.tolist() == ["XC12", "XC13"]
    assert tables.missing == (("XC10", "train_audio/ameavo/XC10.mp3"), ("XC11", "train_audio/aldfly/XC11.mp3"))
    assert tables.classes == ["aldfly", "ameavo", "amebit"]  # the model order does not hang on what was downloaded
    assert tables.test is None


def test_absent_test_audio_keeps_its_place(tmp_path):
    folder = download(tmp_path, test=table_of_test(("site_1", "a", 5), ("site_2", "b", 5)))
    (folder / "test_audio" / "b.mp3").unlink()
    (folder / "test_audio" / "a.mp3").rename(folder / "test_audio" / "a.flac")
    tables = birdcall.prepare(folder)
    assert tables.test_clips.path.tolist() == ["test_audio/a.flac", "test_audio/b.mp3"]
    assert tables.missing == (("b", "test_audio/b.mp3"),)


@pytest.mark.parametrize("column", birdcall.TRAIN_COLUMNS)
def test_a_missing_column_is_named_with_those_that_came(tmp_path, column):
    folder = download(tmp_path, train_table())
    train_table().drop(columns=column).to_csv(folder / "train.csv", index=False)
    with pytest.raises(ValueError, match=f"no column '{column}'.*its columns: rating"):
        birdcall.prepare(folder)


def test_broken_downloads_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match=r"train\.csv does not exist"):
        birdcall.prepare(tmp_path)
    train = train_table()
    download(tmp_path, train, absent=tuple(train.filename))
    with pytest.raises(ValueError, match="none of the 4 recordings"):
        birdcall.prepare(tmp_path)
    download(tmp_path, train.assign(secondary_labels=["[]", "Alder Flycatcher", "[]", "[]"]))
    with pytest.raises(ValueError, match=r"row 3 of train\.csv is 'Alder Flycatcher', expected a list"):
        birdcall.prepare(tmp_path)
    download(tmp_path, train.assign(filename=["XC10.mp3", "XC11.mp3", "XC10.mp3", "XC13.mp3"]))
    with pytest.raises(ValueError, match="lists 1 clip twice: XC10"):
        birdcall.prepare(tmp_path)
    train.assign(ebird_code=["a", None, "b", "c"]).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ValueError, match="no ebird_code or filename in 1 row, first row 3"):
        birdcall.prepare(tmp_path)


# ---- the test table


def test_check_site_rows_accepts_the_published_form():
    test = table_of_test(("site_1", "41e6fe", 25), ("site_2", "cce64f", 10), ("site_3", "9cc5d9", 0))
    birdcall.check_site_rows(test)
    birdcall.check_site_rows(test.astype({"seconds": float}).sample(frac=1, random_state=0))


def test_check_site_rows_names_every_problem():
    good = table_of_test(("site_1", "a", 10), ("site_3", "b", 0))
    for change, message in [
        (good.drop(columns="seconds"), "no column 'seconds'"),
        (good.iloc[:0], "has no rows"),
        (pd.concat([good, good.iloc[:1]]), "1 row_ids come twice: site_1_a_5"),
        (good.assign(site=["site_1", "site_1", "site_4"]), "unknown sites site_4; known: site_1, site_2, site_3"),
        (good.assign(seconds=[5, 7, None]), "seconds of site_1_a_10 are not a multiple of 5"),
        (good.assign(seconds=[5, None, None]), "seconds of site_1_a_10 are not"),
        (good.assign(seconds=[5, 15, None]), "'site_1_a_10' for site site_1, audio_id a, .* expected 'site_1_a_15'"),
        (good.assign(row_id=["site_1_a_5", "site_1_a_10", "site_3_b_5"]), "'site_3_b_5' .* expected 'site_3_b'"),
        (good.assign(audio_id=["a", "b", "b"]), "recordings at more than one site: b"),
    ]:
        with pytest.raises(ValueError, match=message):
            birdcall.check_site_rows(change)


# ---- rows


def test_rows_by_hand():
    test = table_of_test(("site_1", "a", 20), ("site_3", "b", 0))
    found = predictions({
        "a": frames_of(20, (1, 1.0, 2.0), (0, 3.0, 3.5), (2, 4.0, 12.0)),
        "b": frames_of(50, (2, 40.0, 41.0), (0, 45.0, 46.0)),
    })  # fmt: skip
    result = birdcall.rows(found, test, POST)
    assert result.row_id.tolist() == test.row_id.tolist()
    assert result.birds.tolist() == ["aldfly ameavo amebit", "amebit", "amebit", "nocall", "aldfly amebit"]
    birdcall.validate(result, test, CLASSES)


def test_an_event_that_ends_on_a_border_stays_in_its_row():
    test = table_of_test(("site_1", "a", 15))
    ends = predictions({"a": frames_of(15, (0, 4.0, 5.0))})
    assert birdcall.rows(ends, test, POST).birds.tolist() == ["aldfly", "nocall", "nocall"]
    begins = predictions({"a": frames_of(15, (0, 5.0, 6.0))})
    assert birdcall.rows(begins, test, POST).birds.tolist() == ["nocall", "aldfly", "nocall"]


def test_strict_offset_on_a_border_marks_the_next_row():
    """The source's offset is the last frame's own time: frame 500 is 5.00 s, and 5.00 // 5 is the second row."""
    frame = TimeBase(32000, 320)
    prob = np.zeros((1501, 3), np.float32)
    prob[400:501, 0] = 0.9  # last frame at 5.00 s
    prob[900:1000, 1] = 0.9  # last frame at 9.99 s
    found, test = predictions({"a": prob}, frame), table_of_test(("site_1", "a", 15))
    assert birdcall.rows(found, test, {"strict": True}).birds.tolist() == ["aldfly", "aldfly ameavo", "nocall"]
    prob[500] = 0
    found = predictions({"a": prob}, frame)
    assert birdcall.rows(found, test, {"strict": True}).birds.tolist() == ["aldfly", "ameavo", "nocall"]


def test_strict_rows_cut_events_at_chunks_and_count_padding_for_whole_recordings():
    frame = TimeBase(32000, 320)
    prob = np.zeros((6001, 3), np.float32)
    prob[2800:3200, 0] = 0.9
    prob[2980:2990, 1] = 0.95  # within the long event, and more confident
    prob[5000:5010, 2] = 0.9  # beyond the 35 s of the recording
    test = table_of_test(("site_1", "a", 35), ("site_3", "b", 0))
    found = predictions({"a": prob, "b": prob}, frame)
    strict = birdcall.rows(found, test, {"strict": True, "iou_threshold": 0.03})  # IoU 0.09 / 2 with its first half
    assert strict.birds.tolist()[5:] == ["ameavo", "aldfly", "aldfly ameavo amebit"]
    mended = birdcall.rows(found, test, {"iou_threshold": 0.02})  # IoU 0.1 / 4 with the whole event
    assert mended.birds.tolist()[5:] == ["ameavo", "nocall", "ameavo amebit"]


@pytest.mark.parametrize("pool", [1, 8, 32])
def test_strict_rows_are_those_of_the_models_chunks(pool):
    """Cnn14's 93 segments of 30 s, joined on any grid as inference does, give the rows of its repeated frames."""
    rng = np.random.default_rng(5)
    segments = np.round(rng.beta(0.4, 1.2, (9, 93, 3)), 3).astype(np.float32)
    chunks = repeat_to_frames(segments, 32, 3001)
    grid, starts = TimeBase(32000, 320, pool), np.arange(9) * 960000
    repeated = repeat_to_frames(segments, 32 // pool, 93 if pool == 32 else 3000 // pool)
    joined = join_framewise(repeated, frame_starts(starts, grid.frame_samples), grid.n_frames(9 * 960000))
    test, post = table_of_test(("site_2", "a", 270)), PostProcess(strict=True)
    expected = birdcall.strict_survivors(chunks, "a", CLASSES, post)
    assert len(expected) > 100
    expected = birdcall.answers(birdcall.touched_rows(expected, test, strict=True), test)
    pd.testing.assert_frame_equal(birdcall.rows(predictions({"a": joined}, grid), test, post), expected)


def test_recordings_without_prediction_are_nocall_and_logged(caplog):
    test = table_of_test(("site_1", "a", 10), ("site_1", "b", 10), ("site_3", "c", 0))
    loud = np.full((200, 3), 0.9, np.float32)
    with caplog.at_level(logging.WARNING, "earshot"):
        result = birdcall.rows(predictions({"a": loud, "c": loud, "zz": loud}, unreadable=("c",)), test, POST)
    assert result.birds.tolist() == ["aldfly ameavo amebit"] * 2 + ["nocall"] * 3
    assert "2 recordings have no prediction and are nocall: b, c" in caplog.text
    birdcall.validate(result, test, CLASSES)


def test_silence_is_nocall_throughout():
    test = table_of_test(("site_1", "a", 10), ("site_3", "b", 0))
    silent = {name: np.zeros((200, 3)) for name in "ab"}
    for post in (None, {"strict": True}, POST):
        assert birdcall.rows(predictions(silent), test, post).birds.tolist() == ["nocall"] * 3


def test_rows_need_frames_and_known_options():
    test = table_of_test(("site_1", "a", 10))
    clip_only = Predictions(np.array(["a"]), CLASSES, np.zeros((1, 3), np.float32), np.array([-1]), np.array([False]))
    with pytest.raises(ValueError, match=r"predict\.keep_frames=true"):
        birdcall.rows(clip_only, test)
    with pytest.raises(ValueError, match="did you mean 'threshold'"):
        birdcall.rows(clip_only, test, {"treshold": 0.5})


def test_the_order_of_the_test_table_is_kept():
    test = table_of_test(("site_1", "a", 20), ("site_3", "b", 0)).sample(frac=1, random_state=3)
    found = predictions({"b": frames_of(20, (1, 1, 2)), "a": frames_of(20, (0, 11, 14))})
    result = birdcall.rows(found, test, POST).set_index("row_id").birds
    assert result.index.tolist() == test.row_id.tolist()
    assert result["site_1_a_15"] == "aldfly"
    assert result["site_3_b"] == "ameavo"
    assert (result.drop(["site_1_a_15", "site_3_b"]) == "nocall").all()


intervals = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 38), st.integers(1, 25)), max_size=8
)  # class, onset and length in units of 0.5 s


@given(intervals)
def test_rows_of_detected_events_are_rows_of_the_true_ones(boxes):
    """What is drawn into the frames is found again, and asking twice changes nothing."""
    drawn = [(k, a / 2, min((a + n) / 2, 20)) for k, a, n in boxes]
    test = table_of_test(("site_1", "a", 20), ("site_3", "b", 0))
    found = predictions({"a": frames_of(20, *drawn), "b": frames_of(20, *drawn)})
    truth = pd.DataFrame(
        [(name, on, off, CLASSES[k]) for name in "ab" for k, on, off in drawn],
        columns=["filename", "onset", "offset", "event_label"],
    )
    result = birdcall.rows(found, test, POST)
    pd.testing.assert_frame_equal(result, birdcall.rows(found, test, POST))
    pd.testing.assert_frame_equal(result, birdcall.truth_rows(truth, test))
    expected = []
    for low in range(0, 20, 5):
        heard = {CLASSES[k] for k, on, off in drawn if on < low + 5 and off > low}
        expected.append(" ".join(sorted(heard)) or "nocall")
    assert result.birds.tolist()[:4] == expected
    assert birdcall.score(result, birdcall.truth_rows(truth, test)) == {"row_micro_f1": 1.0}


def test_truth_rows_can_ask_for_a_minimum_overlap():
    test = table_of_test(("site_1", "a", 10), ("site_3", "b", 0))
    events = pd.DataFrame({
        "filename": ["a", "a", "b", "zz"], "onset": [4.0, 9.8, 1.0, 0.0], "offset": [5.3, 9.9, 1.2, 9.0],
        "event_label": ["aldfly", "ameavo", "amebit", "ameavo"],
    })  # fmt: skip
    assert birdcall.truth_rows(events, test).birds.tolist() == ["aldfly", "aldfly ameavo", "amebit"]
    assert birdcall.truth_rows(events, test, 0.25).birds.tolist() == ["aldfly", "aldfly", "nocall"]
    assert birdcall.truth_rows(events, test, 0.5).birds.tolist() == ["aldfly", "nocall", "nocall"]
    assert birdcall.truth_rows(events.iloc[:0], test).birds.tolist() == ["nocall"] * 3


# ---- validation and score


def submission(*birds):
    return pd.DataFrame({"row_id": ["site_1_a_5", "site_1_a_10", "site_3_b"], "birds": list(birds)})


def test_validate_names_every_problem():
    test, good = table_of_test(("site_1", "a", 10), ("site_3", "b", 0)), submission("aldfly", "nocall", "aldfly amebit")
    birdcall.validate(good, test, CLASSES)
    for change, message in [
        (good[["birds", "row_id"]], "columns are birds, row_id, expected row_id, birds"),
        (good.rename(columns={"birds": "species"}), "columns are row_id, species"),
        (good.iloc[::-1], "another order"),
        (good.iloc[:2], "1 row_ids are missing: site_3_b"),
        (pd.concat([good, good.iloc[:1]]), "1 row_ids come twice: site_1_a_5"),
        (good.assign(row_id=["site_1_a_5", "site_1_a_10", "site_3_c"]), "missing: site_3_b; 1 row_ids are not in the"),
        (submission("aldfly", None, "nocall"), r"1 row is empty \(write nocall\): row 2"),
        (submission("aldfly", np.nan, " "), "2 rows are empty .*: row 2, row 3"),
        (submission("aldfly", "robin", "aldfly zebra"), r"2 rows name unknown labels \(robin, zebra\): robin, aldfly"),
        (submission("aldfly nocall", "nocall", "nocall"), "1 row mixes nocall with labels"),
        (submission("amebit aldfly", "nocall", "nocall"), "1 row is not sorted: amebit aldfly"),
        (submission("aldfly aldfly", "nocall", "nocall"), "1 row names a label twice"),
        (submission("aldfly  amebit", "nocall", "nocall"), "other than single spaces"),
    ]:
        with pytest.raises(ValueError, match=message):
            birdcall.validate(change, test, CLASSES)
    both = pd.concat([submission("robin", "", "nocall"), submission("nocall", "nocall", "nocall")])
    with pytest.raises(ValueError, match=r"come twice.*is empty.*unknown labels"):
        birdcall.validate(both, test, CLASSES)


def test_score_by_hand():
    truth = submission("aldfly", "nocall", "aldfly amebit")
    assert birdcall.score(truth.iloc[::-1], truth) == {"row_micro_f1": 1.0}
    guess = submission("aldfly ameavo", "aldfly", "aldfly")
    assert birdcall.score(guess, truth)["row_micro_f1"] == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)
    with pytest.raises(ValueError, match="missing: site_3_b"):
        birdcall.score(guess.iloc[:2], truth)


def test_limits_are_frozen():
    limits = get_competition("birdcall").limits
    assert limits.minutes == 120
    with pytest.raises(AttributeError):
        limits.minutes = 500


def test_committed_post_processing_loads():
    folder = Path(__file__).resolve().parents[1] / "configs" / "post"
    assert load_post(folder / "birdcall.yaml") == PostProcess(threshold=0.5, iou_threshold=0.4)
    assert load_post(folder / "birdcall_strict.yaml") == PostProcess(threshold=0.5, iou_threshold=0.4, strict=True)

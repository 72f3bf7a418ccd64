"""Speech: heard by a graph of Silero's signature, listed by prepare.py, avoided or silenced in training."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prepare
from earshot.config import load_config
from earshot.data import voice
from earshot.data.prepared import load_data
from earshot.data.voice import Voice, hear_voice, read_voice
from earshot.prediction.voice import CONTEXT, FILE, WINDOW, VoiceDetector, stretches_of
from earshot.sound import audio
from earshot.training.examples import TrainingClips

RATE = 16000
FRAME = WINDOW / RATE


def write_detector(path: Path, steps: float = 0.0, context: int = CONTEXT, takes: str = "state") -> Path:
    """Silero's signature: what is loud is speech; with `steps` each frame before adds as much, by way of the state."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Slice", ["input", "first", "last", "axis"], ["own"]),
        helper.make_node("Abs", ["own"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["loud"], axes=[1], keepdims=1),
        helper.make_node("ReduceMean", [takes], ["memory"], keepdims=0),
        helper.make_node("Mul", ["loud", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "memory"], ["both"]),
        helper.make_node("Clip", ["both", "zero", "one"], ["output"]),
        helper.make_node("Add", [takes, "steps"], ["stateN"]),
    ]
    constants = {
        "first": np.array([context]), "last": np.array([2**31]), "axis": np.array([1]),
        "gain": np.float32(10), "zero": np.float32(0), "one": np.float32(1), "steps": np.float32(steps),
    }  # fmt: skip
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "voice",
        [tensor("input", TensorProto.FLOAT, ["batch", "sequence"]), tensor(takes, TensorProto.FLOAT, [2, "batch", 128]),
         tensor("sr", TensorProto.INT64, [])],
        [tensor("output", TensorProto.FLOAT, ["batch", 1]), tensor("stateN", TensorProto.FLOAT, [2, "batch", 128])],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return VoiceDetector(write_detector(tmp_path_factory.mktemp("voice") / "tiny.onnx"))


def loud(*spans: tuple[float, float], seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """Silence with a tone of mean size 0.09 in spans of seconds: the tiny graph says 0.9 there."""
    t = np.arange(round(seconds * rate)) / rate
    on = np.any([(t >= a) & (t < b) for a, b in spans], axis=0) if spans else np.zeros(len(t), bool)
    return (0.09 * np.pi / 2 * np.sin(2 * np.pi * 400 * t) * on).astype(np.float32)


def test_blocks_of_any_size_give_the_same_probabilities(tmp_path):
    counting = VoiceDetector(write_detector(tmp_path / "counts.onnx", steps=0.01))
    wave = loud((1.0, 2.0), seconds=2.1)
    whole = counting.probabilities([wave])
    assert len(whole) == np.ceil(len(wave) / WINDOW)
    np.testing.assert_allclose(whole[:10], 0.01 * np.arange(10), atol=1e-6)  # the state went from frame to frame
    for cut in (100, WINDOW, 7777):
        pieces = [wave[i : i + cut] for i in range(0, len(wave), cut)]
        np.testing.assert_array_equal(counting.probabilities(pieces), whole)
    assert len(counting.probabilities([])) == 0


def test_the_samples_before_a_frame_are_given_with_it(tmp_path):
    """A graph that looks at all 576 samples hears the last 64 of the frame before."""
    wide = VoiceDetector(write_detector(tmp_path / "wide.onnx", context=0))
    wave = np.zeros(4 * WINDOW, np.float32)
    wave[:WINDOW] = 0.05
    np.testing.assert_allclose(
        wide.probabilities([wave]), 10 * 0.05 * np.array([WINDOW, CONTEXT, 0, 0]) / (WINDOW + CONTEXT), atol=1e-6
    )


def test_stretches_bridge_short_pauses_and_drop_what_is_short():
    p = np.zeros(60)
    p[10:20], p[20:23], p[23:30] = 0.9, 0.1, 0.8  # one of 20 frames, with a pause of three
    p[40:47] = 0.9  # seven frames are less than 0.25 s
    p[50:60] = 0.4  # never at 0.5
    found = stretches_of(p, 0.5, 60 * FRAME)
    assert found.onset.tolist() == [round(10 * FRAME - 0.03, 3)]
    assert found.offset.tolist() == [round(30 * FRAME + 0.03, 3)]
    assert found.probability[0] == pytest.approx((9 + 0.3 + 5.6) / 20, abs=1e-3)
    assert stretches_of(np.full(20, 0.9), 0.5, 0.6).to_numpy().tolist() == [[0.0, 0.6, 0.9]]


def test_a_file_that_is_no_detector_is_an_error_that_says_what_it_takes(tmp_path):
    with pytest.raises(ValueError, match=r"no voice detector of Silero.* takes h, input, sr"):
        VoiceDetector(write_detector(tmp_path / "older.onnx", takes="h"))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ValueError, match="text.onnx is not a graph that ONNX Runtime can run"):
        VoiceDetector(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match=r"the file .*nowhere.onnx that hears speech is not there$"):
        VoiceDetector(tmp_path / "nowhere.onnx")


def test_without_the_package_the_error_has_the_install_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -r .*requirements/voice.txt'?, or give --voice-model FILE"):
        VoiceDetector()


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "own"
    for name, wave in {"call": loud(), "talk": loud((1.0, 2.0)), "all": loud((0.0, 4.0))}.items():
        audio.write(folder / "bird" / f"{name}.wav", wave, RATE)
    audio.write(folder / "frog" / "croak.wav", loud(), RATE)
    return folder


def test_prepare_lists_speech_and_hears_only_what_is_new(recordings, tmp_path, monkeypatch, capsys, detector):
    model, out = write_detector(tmp_path / "tiny.onnx"), tmp_path / "data"
    words = ["prepare.py", "mine", "--source", recordings, "--out", out, "--voice", "--voice-model", model]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    prepare.main()
    said = capsys.readouterr().out
    assert "voice (voice.csv): 2 of 4 recordings hold speech, 0.1 min" in said
    assert "by class: bird 2 of 3" in said
    assert "more than half of bird: data.voice would take the sound of such classes away" in said
    table = pd.read_csv(out / "voice.csv").set_index("clip_id")
    talk = table.loc[next(c for c in table.index if "talk" in c)]
    assert (talk.onset, talk.offset) == pytest.approx((1.0, 2.0), abs=2 * FRAME)
    assert table.loc[next(c for c in table.index if "all" in c)].offset == pytest.approx(4.0, abs=0.01)
    kept = (out / "voice_heard.jsonl").read_text().splitlines()
    assert len(kept) == 5
    heard = []

    def stretches(self, path, threshold):
        heard.append(path.name)
        return stretches_of(np.zeros(9), threshold, 1)

    monkeypatch.setattr(VoiceDetector, "stretches", stretches)
    (out / "voice_heard.jsonl").write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])  # as a kill leaves it
    lost = json.loads(kept[-1])["path"]
    audio.write(recordings / "bird" / "talk.wav", loud((0.5, 3.0)), RATE)  # another recording under the same name
    prepare.main()
    assert sorted(heard) == sorted({Path(lost).name, "talk.wav"})
    heard.clear()
    prepare.main()
    assert not heard, "the half line is gone, and nothing is lost behind it"
    capsys.readouterr()
    audio.write(recordings / "bird" / "call.wav", loud((0.5, 3.5)), RATE)
    monkeypatch.setattr(sys, "argv", [str(w) for w in words[: words.index("--voice")]])
    prepare.main()
    assert "of recordings that have changed since: bird/call.wav; prepare with --voice again" in capsys.readouterr().out
    with pytest.raises(ValueError, match="heard before recordings changed"):
        read_voice(out, pd.read_csv(out / "clips.csv").clip_id)
    heard.clear()
    monkeypatch.setattr(sys, "argv", [str(w) for w in [*words, "--voice-threshold", "0.7"]])
    prepare.main()
    assert len(heard) == 4


def test_an_unreadable_recording_is_no_speech(tmp_path, detector):
    (tmp_path / "odd.wav").write_text("no sound")
    clips = pd.DataFrame({"clip_id": ["odd", "away"], "path": ["odd.wav", "away.wav"]})
    assert not len(hear_voice(clips, tmp_path, tmp_path / "out", detector, threshold=0.5))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--voice-threshold", "0.4"], "are of --voice: give it as well"),
        (["--voice", "--voice-threshold", "1.5"], "between 0 and 1, got 1.5"),
    ],
)
def test_wrong_options_are_refused(recordings, tmp_path, monkeypatch, words, error):
    given = ["prepare.py", "mine", "--source", str(recordings), "--out", str(tmp_path / "data"), *words]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(ValueError, match=error):
        prepare.main()


def test_voice_csv_is_held_against_the_clips(tmp_path):
    with pytest.raises(
        ValueError, match=r"voice.csv, where prepare.py lists speech: prepare the data again with --voi"
    ):
        read_voice(tmp_path, ["a"])
    (tmp_path / "voice.csv").write_text("clip_id,onset,offset\na,1,2\na,3,3\n")
    with pytest.raises(ValueError, match="row 2: onset and offset are seconds"):
        read_voice(tmp_path, ["a"])
    (tmp_path / "voice.csv").write_text("clip_id,onset,offset\na,1,2\n")
    assert len(read_voice(tmp_path, ["a", "b"])) == 1
    (tmp_path / "voice.json").write_text(json.dumps({"clips": voice._digest(["b", "a"])}))
    assert len(read_voice(tmp_path, ["a", "b"])) == 1
    with pytest.raises(ValueError, match="is of other clips than"):
        read_voice(tmp_path, ["a", "b", "c"])


def spoken(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["clip_id", "onset", "offset"])


def test_crops_are_drawn_elsewhere_only_where_they_hold_speech():
    table = spoken(("a", 2.0, 5.0), ("a", 4.0, 6.0), ("b", 0.0, 10.0))
    keeper, rng = Voice(table, "avoid", 0.0), np.random.default_rng(0)
    of = {"n_samples": 10 * RATE, "crop": RATE, "rate": RATE, "rng": rng}
    before = rng.bit_generator.state["state"]["state"]
    for start in (0.0, 0.99, 6.0, 9.0):
        assert keeper.start("a", round(start * RATE), **of) == round(start * RATE)
    assert keeper.start("nobody", 2 * RATE, **of) == 2 * RATE
    assert rng.bit_generator.state["state"]["state"] == before, "no other draw moves"
    drawn = np.array([keeper.start("a", round(3.5 * RATE), **of) for _ in range(300)]) / RATE
    assert ((drawn <= 1.0 + 1e-6) | (drawn >= 6.0 - 1e-6)).all()
    assert 0.1 < (drawn <= 1.0).mean() < 0.4, "one second of four"
    assert 0 <= keeper.start("b", 3 * RATE, **of) <= 9 * RATE, "nothing else is left"
    half = Voice(table, "avoid", 0.5)
    assert half.start("a", round(1.4 * RATE), **of) == round(1.4 * RATE)
    assert half.start("a", round(1.6 * RATE), **of) != round(1.6 * RATE)


def test_where_no_crop_is_without_speech_one_with_the_least_is_taken():
    keeper = Voice(spoken(("a", 0.0, 1.0), ("a", 1.5, 4.0)), "avoid", 0.0)
    start = keeper.start("a", 2 * RATE, n_samples=4 * RATE, crop=RATE, rate=RATE, rng=np.random.default_rng(0))
    assert 0.5 - 0.02 <= start / RATE <= 1.0 + 0.02


def test_silence_is_laid_over_speech_alone():
    keeper = Voice(spoken(("a", 1.0, 2.0)), "silence", 0.0)
    wave = np.ones((2, 3 * RATE), np.float32)
    quiet = keeper.silenced(wave, "a", 0.5, RATE)
    assert not quiet[:, round(0.5 * RATE) : round(1.5 * RATE) + 1].any()
    assert (quiet[:, : round(0.48 * RATE)] == 1).all()
    assert (quiet[:, round(1.52 * RATE) :] == 1).all()
    assert (np.abs(np.diff(quiet[0])) < 0.01).all(), "faded"
    assert keeper.silenced(wave, "b", 0.5, RATE) is wave
    assert Voice(spoken(("a", 1.0, 2.0)), "avoid", 0.0).silenced(wave, "a", 0.5, RATE) is wave


def test_training_keeps_away_from_speech(tiny):
    clips = pd.read_csv("data/clips.csv")
    table = spoken(*((c, 0.4, 30.0) for c in clips.clip_id))
    table.to_csv("data/voice.csv", index=False)

    def examples(*settings):
        config = load_config(tiny, ["data.crop_seconds=0.3", *settings])
        train, _ = load_data(config.data).split(0, config.data.folds)
        return TrainingClips(train, config.data, config.inputs(), config.seed)

    plain = examples()
    silent = examples("data.voice=silence", "data.voice_share=0.2")
    assert plain.voice is None
    for i in range(len(plain)):
        wave = silent[(0, i)]["waveform"]
        assert np.any(wave)
        assert (wave == 0).mean() <= 0.2 + 0.03
    assert all(np.array_equal(silent[(0, i)]["target"], plain[(0, i)]["target"]) for i in range(len(plain)))
    said = silent.voice.told(plain.prepared.clips.assign(duration=0.5), 0.3, True)
    assert f"{len(plain)} of {len(plain)} training clips hold speech" in said
    assert "have no crop free of it" not in said
    said = silent.voice.told(plain.prepared.clips.assign(duration=0.5), 0.5, True)
    assert f"{len(plain)} clips have no crop free of it: it is silenced there" not in said, (
        "0.1 s of 0.5 is a share of 0.2"
    )
    assert (
        Voice(table, "avoid", 0.1)
        .told(plain.prepared.clips.assign(duration=0.5), 0.5, True)
        .endswith(f"; {len(plain)} clips have no crop free of it: they are heard where there is least")
    )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (["data.voice=avoid", "data.crop=full"], "voice=avoid draws crops elsewhere, which crop=full does not"),
        (["data.voice=silence", "data.cache=logmel"], "voice=silence needs the waveform"),
        (
            ["data.voice=avoid", "data.crop=full", "data.cache=logmel"],
            "set crop=random, or voice=silence and cache=wav",
        ),
        (["data.voice=silence", "data.crop=full", "data.cache=logmel"], "set cache=waveform, or voice=avoid and crop="),
        (["data.voice=drop"], "voice is 'drop'; choose one of keep, avoid, silence"),
        (["data.voice=avoid", "data.voice_share=2"], "voice_share must be from 0 to 1"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        load_config(None, settings)


@pytest.mark.parametrize(("voice", "crop", "cache"), [("avoid", "random", "logmel"), ("silence", "full", "waveform")])
def test_what_the_errors_of_voice_name_works(voice, crop, cache):
    """Of crop=full and cache=logmel, the one that each error says to change is enough."""
    data = load_config(None, [f"data.voice={voice}", f"data.crop={crop}", f"data.cache={cache}"]).data
    assert (data.voice, data.crop, data.cache) == (voice, crop, cache)


def test_the_real_detector_tells_spoken_digits_from_rain(shared_data):
    """Needs the package silero-vad, whose wheel carries the file; 7 s."""
    from earshot.inputs.extractor import found_file

    if not found_file(FILE).is_file():
        pytest.skip("no silero-vad, whose wheel carries the detector (pip install -r requirements/voice.txt)")
    detector = VoiceDetector()
    digits = sorted((shared_data / "fsdd_small" / "audio").glob("*_jackson_*"))[:20]
    rain = sorted((shared_data / "esc50" / "audio").glob("*-10.*"))[:6]
    held = [[len(detector.stretches(path)) > 0 for path in some] for some in (digits, rain)]
    assert np.mean(held[0]) >= 0.7
    assert not any(held[1])

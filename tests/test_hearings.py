"""How recordings are heard, exactly: a network on the waveform whose segments are means and peaks, window by window."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from earshot.inputs.given import Metadata, Waveform
from earshot.prediction import reading
from earshot.prediction.clip_answers import clip_answer
from earshot.prediction.inference import Member, Until, predict_clips, predict_members
from earshot.prediction.predictions import Clip
from earshot.prediction.tta import tta_variants
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

RATE, CELL = 16000, 800  # samples of a segment, 50 ms
CLASSES, PRIOR = ("mean", "peak"), np.array([0.25, 0.75], np.float32)
SECONDS = (0.3, 1.0, 2.35, 3.0)


class Segments:
    """Mean and peak of each segment of the waveform; the first samples of a window are its embedding."""

    inputs = ("waveform",)
    frontends = {"waveform": Waveform(sample_rate=RATE)}  # noqa: RUF012
    timebase = TimeBase(RATE, 160, 5)
    pooling = "mean"

    def __init__(self):
        self.batches = []

    def run(self, inputs):
        x = inputs["waveform"]
        self.batches.append(x)
        pieces = x[:, : x.shape[1] // CELL * CELL].reshape(len(x), -1, CELL)
        segments = np.stack([pieces.mean(axis=2), pieces.max(axis=2)], axis=-1)
        return {"clipwise_output": segments.mean(axis=1), "segmentwise_output": segments, "embedding": x[:, :3],
                "logit": segments.mean(axis=1)}  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    rng, found = np.random.default_rng(0), []
    for i, seconds in enumerate(SECONDS):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, rng.uniform(-0.4, 0.5, round(seconds * RATE)).astype(np.float32), RATE, subtype="FLOAT")
        found.append(Clip(str(i), path))
    return found


def windowing(stride=0.5, **values):
    return Windowing(
        sample_rate=RATE, window_seconds=1.0, stride_seconds=stride, **{"keep_frames": True, "batch_size": 3} | values
    )


def slow(clip, stride, delay=0, gain=1.0, rule=np.mean):
    """One hearing, window by window: (K,) clip answer, (T, K) frames, (3,) embedding."""
    waveform = gain * soundfile.read(clip.path, dtype="float32")[0]
    delayed = np.concatenate([np.zeros(delay, np.float32), waveform])
    starts = [0]
    while starts[-1] + RATE < len(delayed):
        starts.append(starts[-1] + stride)
    padded = np.pad(delayed, (0, starts[-1] + RATE - len(delayed)))
    outputs = [Segments().run({"waveform": padded[None, s : s + RATE]}) for s in starts]
    cells = [[] for _ in range((starts[-1] + RATE) // CELL)]
    for start, out in zip(starts, outputs, strict=True):
        for i, segment in enumerate(out["segmentwise_output"][0]):
            cells[start // CELL + i].append(segment)
    frames = np.array([np.mean(c, axis=0) for c in cells])[delay // CELL :]
    n_frames = Segments.timebase.n_frames(len(waveform))  # of a centred STFT: one more may lie on the end
    frames = np.concatenate([frames, frames[-1:]])
    answer = rule([o["clipwise_output"][0] for o in outputs], axis=0)
    return answer, frames[:n_frames], np.mean([o["embedding"][0] for o in outputs], axis=0)


HEARINGS = {  # test-time augmentation -> what is heard besides the plain recording; None: only of clips beyond a window
    "time_shift": [{"delay": 4000}], "multi_window": [{"stride": 4000}],
    "gain": [{"gain": 10**-0.3}, {"gain": 10**0.3}],
}  # fmt: skip


@pytest.mark.parametrize("tta", [(), ("time_shift",), ("multi_window",), ("gain",), ("gain", "time_shift")], ids=str)
@pytest.mark.parametrize("span_seconds", [60.0, 1.2])
def test_answers_are_means_over_windows_and_hearings(clips, monkeypatch, tta, span_seconds):
    monkeypatch.setattr(reading, "SPAN_SECONDS", span_seconds)
    (found,), unreadable = predict_clips([Segments()], clips, windowing(workers=2), CLASSES, PRIOR, tta=tta)
    assert not unreadable
    assert found.timebase == Segments.timebase
    for i, clip in enumerate(clips):
        ways = [{}] + [w for name in tta for w in HEARINGS[name] if "delay" not in w or SECONDS[i] > 1]
        hearings = [slow(clip, **({"stride": 8000} | way)) for way in ways]
        answer, frames, embedding = (np.mean([h[part] for h in hearings], axis=0) for part in range(3))
        np.testing.assert_allclose(found.clipwise_output[i], answer, atol=1e-6)
        np.testing.assert_allclose(found.framewise_output[i], frames, atol=1e-6)
        np.testing.assert_allclose(found.embedding[i], embedding, atol=1e-6)


@pytest.mark.parametrize("one_pass", [False, True])
def test_columns_of_a_table_come_with_every_window(clips, one_pass):
    """The network adds a clip's own two numbers to what it hears; a file that is no sound loses nobody else's."""

    class Told(Segments):
        inputs = ("waveform", "metadata")
        frontends = Segments.frontends | {"metadata": Metadata(columns=("a", "b"))}

        def run(self, inputs):
            out = super().run({"waveform": inputs["waveform"]})
            return out | {
                "clipwise_output": out["clipwise_output"] + inputs["metadata"],
                "segmentwise_output": out["segmentwise_output"] + inputs["metadata"][:, None],
            }

    bad = clips[1].path.with_name("bad.wav")
    bad.write_bytes(b"no sound")
    given = [replace(c, metadata=np.float32([i, 10 * i])) for i, c in enumerate([clips[0], Clip("bad", bad), clips[3]])]
    how = windowing(one_pass=one_pass, batch_size=2)
    (plain,), _ = predict_clips([Segments()], [clips[0], clips[3]], how, CLASSES, PRIOR)
    (found,), unreadable = predict_clips([Told()], given, how, CLASSES, PRIOR)
    assert [clip for clip, _ in unreadable] == ["bad"]
    assert found.unreadable.tolist() == [False, True, False]
    np.testing.assert_array_equal(found.clipwise_output[1], PRIOR)
    np.testing.assert_allclose(found.clipwise_output[[0, 2]] - plain.clipwise_output, [[0, 0], [2, 20]], atol=1e-5)


@pytest.mark.parametrize("rule", ["max", "sum"])
def test_windows_are_joined_by_the_rule_and_hearings_by_their_mean(clips, rule):
    how = windowing(aggregate=rule, keep_frames=False)
    (found,), _ = predict_clips([Segments()], clips, how, CLASSES, PRIOR, tta=["gain"])
    assert found.framewise_output is None
    assert found.timebase is None
    for i, clip in enumerate(clips):
        answers = [slow(clip, 8000, gain=g, rule=getattr(np, rule))[0] for g in (1, 10**-0.3, 10**0.3)]
        np.testing.assert_allclose(found.clipwise_output[i], np.mean(answers, axis=0), atol=1e-6)


@pytest.mark.parametrize("clip_from", ["clipwise", "frame_max"])
@pytest.mark.parametrize("seconds", [60.0, 2.0])
def test_one_pass_pools_the_same_windows(clips, monkeypatch, clip_from, seconds):
    """Of whole segments; the last windows reach into the padding, of which one pass hears nothing."""
    monkeypatch.setattr(reading, "ONE_PASS_SECONDS", seconds)
    exact, fast = (windowing(clip_from=clip_from, one_pass=p) for p in (False, True))
    (slowly,), _ = predict_clips([Segments()], clips[1:], exact, CLASSES, PRIOR)
    backend = Segments()
    (found,), _ = predict_clips([backend], clips[1:], fast, CLASSES, PRIOR)
    for i in (0, 2):  # whole windows
        np.testing.assert_allclose(found.clipwise_output[i], slowly.clipwise_output[i], atol=1e-6)
    for a, b in zip(found.framewise_output, slowly.framewise_output, strict=True):
        np.testing.assert_allclose(a[:-1], b[:-1], atol=1e-6)
        assert a.shape == b.shape
    assert len(backend.batches) == (3 if seconds == 60 else 5)
    assert found.embedding is None, "an embedding of the whole recording is not that of its windows"


def test_noise_lies_thirty_decibels_below_the_recording(clips):
    plain, noisy = Segments(), Segments()
    member = [Member(backend=plain, windowing=windowing(), classes=CLASSES, prior=PRIOR)]
    predict_members(member, clips[3:])
    for _ in range(2):
        predict_members(
            [Member(backend=noisy, windowing=windowing(), classes=CLASSES, prior=PRIOR)],
            clips[3:],
            ["noise"],
            plain=False,
        )
    heard, with_noise, again = np.concatenate(plain.batches), *np.split(np.concatenate(noisy.batches), 2)
    np.testing.assert_array_equal(with_noise, again)
    ratio = np.sqrt(np.mean((with_noise - heard) ** 2) / np.mean(heard**2))
    assert 20 * np.log10(ratio) == pytest.approx(-30, abs=0.2)


def test_random_copies_are_circular_shifts_by_the_networks_frames(clips):
    """Exactly four hearings for copies:4, each the whole clip rolled by whole frames of 10 ms."""
    backend = Segments()
    predict_clips([backend], clips[1:2], windowing(keep_frames=False), CLASSES, PRIOR, tta=["copies:4"])
    heard, plain = np.concatenate(backend.batches), soundfile.read(clips[1].path, dtype="float32")[0]
    assert len(heard) == 4
    shifts = [round(v.roll_seconds * RATE) for v in tta_variants(["copies:4"], hop_seconds=160 / RATE)]
    assert all(shift % 160 == 0 for shift in shifts)
    assert len(set(shifts)) > 1
    np.testing.assert_array_equal(heard, [np.roll(plain, shift) for shift in shifts])
    for wrong in ("0", "", "-1", "x"):
        with pytest.raises(ValueError, match=f"copies:{wrong}: N copies are asked for by copies:N, N from 1"):
            tta_variants([f"copies:{wrong}"])
    with pytest.raises(ValueError, match="unknown test-time augmentation 'copy:30'; did you mean 'copies:30'"):
        tta_variants(["copy:30"])


def test_clips_without_the_hearing_that_is_asked_for(clips):
    member = Member(backend=Segments(), windowing=windowing(), classes=CLASSES, prior=PRIOR, fold=3)
    (found,), unreadable = predict_members([member], clips, ["time_shift"], plain=False)
    assert [c for c, _ in unreadable] == ["0", "1"]
    assert unreadable[0][1] == f"{clips[0].path} is one window long: it has no other hearing"
    np.testing.assert_array_equal(found.clipwise_output[:2], [PRIOR, PRIOR])
    assert [f.tolist() for f in found.framewise_output[:2]] == [[PRIOR.tolist()]] * 2
    np.testing.assert_array_equal(found.embedding[:2], np.zeros((2, 3)))
    np.testing.assert_allclose(found.clipwise_output[2], slow(clips[2], 8000, delay=4000)[0], atol=1e-6)
    assert found.unreadable.tolist() == [True, True, False, False]
    assert found.fold.tolist() == [3] * 4


def test_one_window_more_where_the_source_has_one(clips):
    """An exact multiple of the window gets a window of padding; frames reach to the end of the last window."""
    backend = Segments()
    (found,), _ = predict_clips([backend], clips[2:], windowing(1.0, extra_window=True), CLASSES, PRIOR)
    assert sum(len(b) for b in backend.batches) == 3 + 4
    assert [len(f) for f in found.framewise_output] == [60, 80]
    assert not found.framewise_output[1][60:].any()


@pytest.mark.parametrize("streams", [1, 2])
def test_batches_go_across_clips_and_every_window_is_told(clips, streams):
    backend, heard = Segments(), []
    member = Member(backend=backend, windowing=windowing(1.0, batch_size=2), classes=CLASSES, prior=PRIOR)
    smaller = Member(backend=Segments(), windowing=windowing(1.0, batch_size=5), classes=CLASSES, prior=PRIOR)
    predict_members(
        [member, smaller], clips, streams=streams,
        listen=lambda clip, start, out: heard.append((clip, start, out["clipwise_output"].tolist())),
    )  # fmt: skip
    assert [len(b) for b in backend.batches] == [2, 2, 2, 2], "the smallest batch of all members; none half empty"
    assert [(clip, start) for clip, start, _ in heard] == [
        (0, 0), (1, 0), (2, 0), (2, RATE), (2, 2 * RATE), (3, 0), (3, RATE), (3, 2 * RATE),
    ]  # fmt: skip
    assert heard[1][2] == pytest.approx(slow(clips[1], RATE)[0].tolist(), abs=1e-6)


def test_when_the_time_is_up_clips_end_with_what_was_heard(clips, monkeypatch):
    """One span of 1.5 s a chunk: the clock strikes after the third, within the third clip."""
    monkeypatch.setattr(reading, "SPAN_SECONDS", 1.5)
    how, ticks = windowing(workers=1, batch_size=1), iter(range(99))
    until = Until(1, clock=lambda: next(ticks))  # asked after each chunk: 0, 1, then 2, which is over
    (found,), unreadable = predict_members(
        [Member(backend=Segments(), windowing=how, classes=CLASSES, prior=PRIOR)], clips, until=until
    )
    assert (until.partly, until.unheard) == (["2"], ["3"]), "three windows of the third clip's four were heard"
    assert unreadable == [("3", f"{clips[3].path} was not heard: the time was up")]
    np.testing.assert_allclose(found.clipwise_output[1], slow(clips[1], 8000)[0], atol=1e-6)
    whole = soundfile.read(clips[2].path, dtype="float32")[0]
    outputs = [Segments().run({"waveform": whole[None, s : s + RATE]})["clipwise_output"][0] for s in (0, 8000, 16000)]
    np.testing.assert_allclose(found.clipwise_output[2], np.mean(outputs, axis=0), atol=1e-6)
    assert len(found.framewise_output[2]) == Segments.timebase.n_frames(2 * RATE)
    np.testing.assert_allclose(found.framewise_output[2][:10], slow(clips[2], 8000)[1][:10], atol=1e-6)
    np.testing.assert_array_equal(found.clipwise_output[3], PRIOR)
    late = Until(10**6)
    predict_members([Member(backend=Segments(), windowing=how, classes=CLASSES, prior=PRIOR)], clips, until=late)
    assert (late.partly, late.unheard) == ([], [])


def test_no_clips_give_empty_answers_of_the_usual_types():
    (nothing,), _ = predict_clips([Segments()], [], windowing(keep_frames=False), CLASSES, PRIOR)
    assert (nothing.clip_ids.dtype.kind, nothing.clipwise_output.dtype) == ("U", np.float32)
    assert nothing.fold.shape == nothing.unreadable.shape == (0,)


def test_log_odds_by_hand():
    logit = np.array([[2.0, 0.0, 0.0], [90.0, -10.0, 0.0]])
    found = clip_answer({"logit": logit}, "log_odds")
    expected = [[2 - np.log(2), -np.log(np.exp(2) + 1), -np.log(np.exp(2) + 1)], [90, -100, -90]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert clip_answer({"clipwise_output": logit, "logit": 0 * logit}, "clipwise") is logit
    segments = np.array([[[0.1, 0.9], [0.3, 0.2]]])
    assert clip_answer({"segmentwise_output": segments}, "frame_max").tolist() == [[0.3, 0.9]]


def test_members_that_cannot_be_heard_together(clips):
    class Aware(Segments):
        inputs = ("waveform", "metadata")

    with pytest.raises(ValueError, match="metadata of each recording, which 4 of 4 come without, such as 0: name a ta"):
        predict_clips([Aware()], clips, windowing(), CLASSES, PRIOR)
    for change, name in (({"one_pass": True}, "one_pass"), ({"extra_window": True}, "extra_window")):
        members = [
            Member(backend=Segments(), windowing=windowing(**c), classes=CLASSES, prior=PRIOR) for c in ({}, change)
        ]
        with pytest.raises(ValueError, match=f"must hear the same windows, but {name} is False and True"):
            predict_members(members, clips)
    with pytest.raises(
        ValueError, match="'roll' moves events in time: it cannot be used with keep_frames. Leave it out"
    ):
        predict_clips([Segments()], clips, windowing(), CLASSES, PRIOR, tta=["gain", "roll"])

"""The one inference path against a slow, readable second implementation, with a backend whose answers are known."""

import numpy as np
import pytest
import soundfile
import torch

from earshot.inputs.logmel import Logmel
from earshot.models import build_model
from earshot.prediction import reading
from earshot.prediction.backends import TorchBackend
from earshot.prediction.clip_answers import output_timebase
from earshot.prediction.inference import Member, predict_clips, predict_members
from earshot.prediction.predictions import Clip
from earshot.prediction.tta import TTA, tta_variants
from earshot.sound import audio
from earshot.sound.logmel import log_mel, n_frames
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

RATE = 16000
PARAMS = Logmel(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=16, fmin=50, fmax=7000)
CLASSES, PRIOR = ("low", "high"), np.array([0.25, 0.75], np.float32)


class MeanBackend:
    """Segments of `pool` frames: their mean log-mel below and above band 8, squashed; clip: mean of segments."""

    inputs = ("logmel",)
    frontends = {"logmel": PARAMS}  # noqa: RUF012

    def __init__(self, pool=8, scale=1.0):
        self.timebase, self.scale, self.shapes = TimeBase(RATE, 160, pool), scale, []

    def run(self, inputs):
        x = inputs["logmel"][:, 0]
        self.shapes.append(x.shape)
        pool = self.timebase.pool
        segments = -(-x.shape[1] // pool)
        pieces = [x[:, s * pool : (s + 1) * pool] for s in range(segments)]
        values = np.stack([np.stack([p[..., :8].mean((1, 2)), p[..., 8:].mean((1, 2))], -1) for p in pieces], 1)
        probability = (1 / (1 + np.exp(-self.scale * (values + 60) / 10))).astype(np.float32)
        return {"clipwise_output": probability.mean(1), "segmentwise_output": probability}


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    clips = []
    for name, seconds in (("a", 3.0), ("b", 0.4), ("c", 7.3), ("d", 2.0)):
        t = np.arange(int(seconds * RATE)) / RATE
        tone = np.sin(2 * np.pi * (300 + 900 * t) * t) * (np.sin(2 * np.pi * 0.7 * t) > 0)
        path = tmp_path / f"{name}.wav"
        audio.write(path, (0.3 * tone + 0.01 * rng.standard_normal(len(t))).astype(np.float32), RATE)
        clips.append(Clip(name, path))
    return clips


def windowing(window=2.0, stride=2.0, **kwargs):
    own = {"sample_rate": RATE, "window_seconds": window, "stride_seconds": stride}
    return Windowing(**own, **{"keep_frames": True, "batch_size": 3} | kwargs)


def slow(path, backend, window, stride, rule=np.mean):
    """Every window by itself from the zero-padded waveform: (K,) and the list of (start, (S, K))."""
    waveform = audio.load(path, RATE)
    starts = [0]
    while starts[-1] + window < len(waveform):
        starts.append(starts[-1] + stride)
    padded = np.pad(waveform, (0, starts[-1] + window - len(waveform)))
    outputs = [backend.run({"logmel": log_mel(padded[None, s : s + window], PARAMS)[:, None]}) for s in starts]
    clip = rule([o["clipwise_output"][0] for o in outputs], axis=0)
    return clip, [(s, o["segmentwise_output"][0]) for s, o in zip(starts, outputs, strict=True)]


@pytest.mark.parametrize("stride", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("workers", [1, 3])
def test_equals_windows_one_by_one(recordings, stride, workers):
    (found,), unreadable = predict_clips(
        [MeanBackend()], recordings, windowing(stride=stride, workers=workers), CLASSES, PRIOR, fold=2
    )
    assert not unreadable
    assert found.clip_ids.tolist() == ["a", "b", "c", "d"]
    assert (found.fold == 2).all()
    for i, clip in enumerate(recordings):
        expected, _ = slow(clip.path, MeanBackend(), 2 * RATE, round(stride * RATE))
        # frames at window borders see the neighbouring sound instead of a reflection: 3 of 201 frames
        np.testing.assert_allclose(found.clipwise_output[i], expected, atol=0.004)


def test_windows_between_frames_get_their_own_logmel(recordings):
    stride = 0.655  # 10,480 samples: no multiple of the hop
    (found,), _ = predict_clips([MeanBackend()], recordings, windowing(stride=stride), CLASSES, PRIOR)
    for i, clip in enumerate(recordings):
        expected, _ = slow(clip.path, MeanBackend(), 2 * RATE, round(stride * RATE))
        np.testing.assert_allclose(found.clipwise_output[i], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "rule"), [("max", np.max), ("sum", np.sum)])
def test_joining_rules(recordings, name, rule):
    (found,), _ = predict_clips([MeanBackend()], recordings, windowing(aggregate=name), CLASSES, PRIOR)
    expected, _ = slow(recordings[2].path, MeanBackend(), 2 * RATE, 2 * RATE, rule)
    np.testing.assert_allclose(found.clipwise_output[2], expected, atol=0.01)


@pytest.mark.parametrize(("name", "rule"), [("max", np.max), ("sum", np.sum)])
def test_frame_max_joins_the_best_segment_of_each_window(recordings, name, rule):
    (found,), _ = predict_clips(
        [MeanBackend()], recordings, windowing(stride=1.0, aggregate=name, clip_from="frame_max", keep_frames=False),
        CLASSES, PRIOR,
    )  # fmt: skip
    assert found.framewise_output is None
    for i, clip in enumerate(recordings):
        _, windows = slow(clip.path, MeanBackend(), 2 * RATE, RATE)
        expected = rule([segments.max(axis=0) for _, segments in windows], axis=0)
        # the best segment may be one of 3 frames at a window's border, which see sound instead of a reflection
        tolerance = 0.02 * (len(windows) if rule is np.sum else 1)
        np.testing.assert_allclose(found.clipwise_output[i], expected, atol=tolerance)


def test_frame_max_needs_segments(recordings):
    class ClipOnly(MeanBackend):
        def run(self, inputs):
            return {"clipwise_output": super().run(inputs)["clipwise_output"]}

    how = windowing(clip_from="frame_max", keep_frames=False)
    with pytest.raises(ValueError, match=r"clip_from=frame_max needs a model with framewise output"):
        predict_clips([ClipOnly()], recordings, how, CLASSES, PRIOR)


@pytest.mark.parametrize("pool", [1, 8, 32])
def test_frames_stand_where_the_sound_is(tmp_path, pool):
    """A burst's frames lie at its seconds, in every window: times neither drift nor move with the window."""
    waveform = 1e-4 * np.random.default_rng(1).standard_normal(30 * RATE).astype(np.float32)
    bursts = [1.0, 7.0, 13.0, 22.0, 28.5]
    for second in bursts:
        waveform[int(second * RATE) : int((second + 0.5) * RATE)] += 0.3 * np.sin(np.arange(RATE // 2) * 2.0)
    audio.write(tmp_path / "x.wav", waveform, RATE)
    (found,), _ = predict_clips(
        [MeanBackend(pool)], [Clip("x", tmp_path / "x.wav")], windowing(5.0, 5.0), CLASSES, PRIOR
    )
    frames, grid = found.framewise_output[0], found.timebase
    assert len(frames) == grid.n_frames(30 * RATE)
    loud = frames[:, 1] > 0.5
    onsets = grid.seconds(np.flatnonzero(loud & ~np.r_[False, loud[:-1]]))
    np.testing.assert_allclose(onsets, bursts, atol=pool * 0.01 + 0.02)


def test_output_grid_is_common_to_segments_and_windows():
    segments = TimeBase(32000, 320, 32)
    assert output_timebase(segments, 30 * 32000).pool == 8  # 3,000 frames
    assert output_timebase(segments, 5 * 32000).pool == 4  # 500 frames
    assert output_timebase(TimeBase(48000, 512, 32), 5 * 48000).pool == 1  # windows start between frames


def test_long_recordings_are_read_in_spans(recordings, monkeypatch):
    whole, _ = predict_clips([MeanBackend()], recordings, windowing(stride=1.0), CLASSES, PRIOR)
    monkeypatch.setattr("earshot.prediction.reading.SPAN_SECONDS", 2.5)
    spans, _ = predict_clips([MeanBackend()], recordings, windowing(stride=1.0), CLASSES, PRIOR)
    np.testing.assert_allclose(spans[0].clipwise_output, whole[0].clipwise_output, atol=1e-5)
    for a, b in zip(spans[0].framewise_output, whole[0].framewise_output, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_members_share_windows_and_logmel(recordings):
    backends = [MeanBackend(), MeanBackend(scale=2.0)]
    both, _ = predict_clips(backends, recordings, windowing(), CLASSES, PRIOR)
    alone, _ = predict_clips([MeanBackend(scale=2.0)], recordings, windowing(), CLASSES, PRIOR)
    np.testing.assert_array_equal(both[1].clipwise_output, alone[0].clipwise_output)
    assert backends[0].shapes == backends[1].shapes
    assert all(shape[0] <= 3 for shape in backends[0].shapes), "batches are no larger than asked"


class StackedBackend(MeanBackend):
    """Two folds in one graph, on axis 1 of its outputs: scales 1 and 2."""

    def run(self, inputs):
        both = [MeanBackend.run(self, inputs), MeanBackend(scale=2.0).run(inputs)]
        return {k: np.stack([o[k] for o in both], axis=1) for k in both[0]}


def network_of(backend, how: Windowing, **more) -> Member:
    return Member(**{"backend": backend, "windowing": how, "classes": CLASSES, "prior": PRIOR} | more)


@pytest.mark.parametrize("streams", [1, 3])
def test_folds_stacked_in_one_graph_run_once_and_answer_apart(recordings, streams):
    backend = StackedBackend()
    members = [network_of(backend, windowing(), fold=fold, place=fold) for fold in (0, 1)]
    (first, second), _ = predict_members(members, recordings, streams=streams)
    alone, _ = predict_clips([MeanBackend(), MeanBackend(scale=2.0)], recordings, windowing(), CLASSES, PRIOR)
    np.testing.assert_array_equal(first.clipwise_output, alone[0].clipwise_output)
    np.testing.assert_array_equal(second.clipwise_output, alone[1].clipwise_output)
    np.testing.assert_array_equal(second.framewise_output[2], alone[1].framewise_output[2])
    assert (second.fold == 1).all()
    assert sum(shape[0] for shape in backend.shapes) == 2 + 1 + 4 + 1, "every window went through once"


def test_members_of_different_runs_share_one_pass(recordings, monkeypatch):
    """Other classes, another rule, another front end under the same name: each answers as it does alone, and each of
    the distinct log-mels is computed once a recording."""

    class Coarse(MeanBackend):
        frontends = {"logmel": Logmel(sample_rate=RATE, n_fft=1024, hop_length=160, n_mels=16, fmax=7000)}  # noqa: RUF012

    by_max = network_of(Coarse(), windowing(stride=1.0, aggregate="max"), classes=("a", "b"), prior=1 - PRIOR)
    members = [
        network_of(MeanBackend(), windowing(stride=1.0)),
        by_max,
        network_of(MeanBackend(3), windowing(stride=1.0)),
    ]
    computed = []
    monkeypatch.setattr("earshot.inputs.logmel.log_mel", lambda x, p: computed.append(p) or log_mel(x, p))
    together, _ = predict_members(members, recordings)
    assert sum(p is Coarse.frontends["logmel"] for p in computed) == sum(p is PARAMS for p in computed) == 2 + 2
    for member, found in zip(members, together, strict=True):
        (alone,), _ = predict_members([member], recordings)
        assert found.classes == tuple(member.classes)
        np.testing.assert_array_equal(found.clipwise_output, alone.clipwise_output)
    with pytest.raises(ValueError, match="must hear the same windows, but stride_samples is 16000 and 32000"):
        predict_members([members[0], network_of(MeanBackend(), windowing())], recordings)


@pytest.mark.parametrize("clip_from", ["clipwise", "frame_max"])
@pytest.mark.parametrize("span_seconds", [60.0, 4.0])
def test_one_pass_equals_windows_where_the_network_looks_at_single_segments(
    recordings, monkeypatch, clip_from, span_seconds
):
    """A network without context beyond its segment gains or loses nothing by hearing a minute at once."""
    monkeypatch.setattr("earshot.prediction.reading.ONE_PASS_SECONDS", span_seconds)
    backend = MeanBackend(pool=20)  # 1-s strides are five segments
    backend.pooling = "mean"
    (exact,), _ = predict_clips([backend], recordings, windowing(stride=1.0, clip_from=clip_from), CLASSES, PRIOR)
    backend.shapes.clear()
    fast = windowing(stride=1.0, clip_from=clip_from, one_pass=True)
    (found,), _ = predict_clips([backend], recordings, fast, CLASSES, PRIOR)
    # a window's last segment is its one frame past the last whole segment; what else differs is its reflected edge
    whole = [0, 1, 3]  # c ends within its last window, which alone is filled up with silence
    np.testing.assert_allclose(found.clipwise_output[whole], exact.clipwise_output[whole], atol=0.05)
    for a, b in zip(found.framewise_output, exact.framewise_output, strict=True):
        assert a.shape == b.shape
        assert np.median(np.abs(a - b)) < 1e-3
    heard = sum(shape[1] for shape in backend.shapes) * 160 / RATE
    seconds = 2 + 3 + 8 + 2 if span_seconds == 60 else 2 + 4 + 13 + 2
    assert heard < seconds + 1.5 * len(backend.shapes), "overlapping windows share a pass"


def test_one_pass_hears_as_far_beyond_a_minute_as_a_network_reaches(recordings, monkeypatch):
    """Spans of 2 s give the frames of one over 7.3 s, where a dilated network is told of 31 segments either side."""
    torch.manual_seed(0)
    params = {"widths": [4], "blocks": [1], "time_strides": [2], "freq_strides": [4], "embedding": 8}
    how, found = windowing(1.0, 1.0, one_pass=True), []
    for dilations in ((), (1, 2, 4, 8, 16)):
        network = build_model("cnn_small", 2, 16, params | {"dilations": list(dilations)}).eval()
        backend = TorchBackend(network, {"logmel": PARAMS})
        assert backend.reach == sum(dilations)
        for seconds in (60.0, 2.0):
            monkeypatch.setattr(f"{predict_clips.__module__}.ONE_PASS_SECONDS", seconds)
            monkeypatch.setattr(reading, "ONE_PASS_SECONDS", seconds)
            found.append(predict_clips([backend], recordings[2:3], how, CLASSES, PRIOR)[0][0].framewise_output[0])
    for whole, in_spans in (found[:2], found[2:]):
        np.testing.assert_allclose(in_spans, whole, atol=1e-5)


@pytest.mark.parametrize(("hop_length", "n_samples"), [(480, 31 * 48000), (512, 31 * 48000), (480, 21 * 48000)])
def test_windows_are_slices_of_one_logmel_where_they_can_be(tmp_path, hop_length, n_samples, monkeypatch):
    """10-s windows every 5 s at 48 kHz: within 1e-2 dB of their own log-mel but for the edges; exact where hop 512 does
    not divide the stride. Frames within half an n_fft of an edge see sound there instead of its reflection."""
    params = Logmel(sample_rate=48000, n_fft=2048, hop_length=hop_length, n_mels=64, fmin=40, fmax=24000)
    audio.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(3).standard_normal(n_samples), 48000)
    calls = []
    windowing = Windowing(sample_rate=48000, window_seconds=10.0, stride_seconds=5.0, batch_size=32)
    monkeypatch.setattr("earshot.inputs.logmel.log_mel", lambda x, p: calls.append(1) or log_mel(x, p))
    (job,) = reading.jobs([(0, Clip("x", tmp_path / "x.wav"))], windowing, tta_variants([]), {}, [params], 0)
    chunk = job()
    n_windows = -(-(n_samples - 480000) // 240000) + 1
    assert len(chunk.span.starts) == n_windows
    assert len(calls) == (1 if hop_length == 480 else n_windows)
    waveform = np.pad(audio.load(tmp_path / "x.wav", 48000), (0, 480000))
    edge = -(-1024 // hop_length) if hop_length == 480 else 0
    for i, start in enumerate(chunk.span.starts):
        own, sliced = log_mel(waveform[start : start + 480000], params), chunk.window(i)[params][0]
        assert own.shape == sliced.shape
        inside = slice(edge, len(own) - edge)
        assert np.abs(own[inside] - sliced[inside]).max() < 1e-2
        assert hop_length == 512 or np.abs(own - sliced).max() > 1, "edges do differ"


def test_in_one_pass_no_window_hears_silence_past_the_end(recordings):
    """Squeeze and excitation averages over the whole pass: a second of silence behind 7.3 s changes all of it."""
    backend = MeanBackend()
    backend.pooling = "mean"
    predict_clips([backend], recordings, windowing(stride=1.0, one_pass=True), CLASSES, PRIOR)
    lengths = [n_frames(round(seconds * RATE), PARAMS) for seconds in (3.0, 2.0, 7.3, 2.0)]
    assert [shape[1] for shape in backend.shapes] == lengths, "a clip below one window is filled up, as in training"


def test_one_pass_needs_pooled_segments(recordings):
    with pytest.raises(ValueError, match="one pass needs a network whose clip output is pooled from its segments"):
        predict_clips([MeanBackend()], recordings, windowing(one_pass=True), CLASSES, PRIOR)


def test_unreadable_clips_get_the_prior_and_are_listed(recordings, tmp_path):
    (tmp_path / "broken.ogg").write_bytes(b"OggS" + bytes(300))
    clips = [recordings[0], Clip("broken", tmp_path / "broken.ogg"), Clip("gone", tmp_path / "gone.wav"), recordings[1]]
    (found,), unreadable = predict_clips([MeanBackend()], clips, windowing(), CLASSES, PRIOR)
    assert found.unreadable.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(found.clipwise_output[1:3], [PRIOR, PRIOR])
    assert [c for c, _ in unreadable] == ["broken", "gone"]
    assert "does not exist" in unreadable[1][1]


def test_only_unreadable_or_no_clips_at_all(tmp_path):
    (found,), unreadable = predict_clips([MeanBackend()], [Clip("x", tmp_path / "x.wav")], windowing(), CLASSES, PRIOR)
    assert found.unreadable.all()
    assert len(unreadable) == 1
    (nothing,), _ = predict_clips([MeanBackend()], [], windowing(keep_frames=False), CLASSES, PRIOR)
    assert nothing.clipwise_output.shape == (0, 2)


@pytest.mark.parametrize("name", [n for n in TTA if not any(v.moves for v in TTA[n])])
def test_augmented_hearings_stay_near_the_plain_one(recordings, name):
    plain, _ = predict_clips([MeanBackend()], recordings, windowing(), CLASSES, PRIOR)
    augmented, _ = predict_clips([MeanBackend()], recordings, windowing(), CLASSES, PRIOR, tta=[name])
    difference = np.abs(plain[0].clipwise_output - augmented[0].clipwise_output)
    assert 0 < difference[2].max() < 0.2, "the 7-s recording"
    if name == "time_shift":
        assert (difference[[1, 3]] == 0).all(), "a recording of one window has no borders to move"
    for a, b in zip(plain[0].framewise_output, augmented[0].framewise_output, strict=True):
        assert a.shape == b.shape


def test_errors_name_what_is_wrong(recordings):
    with pytest.raises(ValueError, match="unknown test-time augmentation 'gains'; did you mean 'gain'"):
        tta_variants(["gains"])
    with pytest.raises(ValueError, match="'roll' moves events in time"):
        predict_clips([MeanBackend()], recordings, windowing(), CLASSES, PRIOR, tta=["roll"])

    class Odd(MeanBackend):
        inputs = ("logmal",)

    with pytest.raises(
        ValueError, match="model input 'logmal' is not a front end of the config; did you mean 'logmel'"
    ):
        predict_clips([Odd()], recordings, windowing(), CLASSES, PRIOR)


def test_real_recording_against_single_windows(shared_data):
    path = sorted((shared_data / "finch_sed" / "audio").glob("*.ogg"))[3]
    (found,), _ = predict_clips([MeanBackend()], [Clip("x", path)], windowing(stride=1.0), CLASSES, PRIOR)
    expected, _ = slow(path, MeanBackend(), 2 * RATE, RATE)
    np.testing.assert_allclose(found.clipwise_output[0], expected, atol=0.004)


@pytest.mark.parametrize("n_samples", [1, 10, 159, 161, 600])
def test_recordings_shorter_than_a_frame_get_an_answer(tmp_path, n_samples):
    audio.write(tmp_path / "x.wav", np.full(n_samples, 0.1, np.float32), RATE)
    (found,), unreadable = predict_clips([MeanBackend()], [Clip("x", tmp_path / "x.wav")], windowing(), CLASSES, PRIOR)
    assert not unreadable
    assert np.isfinite(found.clipwise_output).all()
    assert len(found.framewise_output[0]) == found.timebase.n_frames(n_samples)


@pytest.mark.slow
def test_one_corrupt_file_among_a_thousand(tmp_path):
    rng, clips = np.random.default_rng(2), []
    for i in range(1000):
        path = tmp_path / f"{i}.wav"
        if i == 617:
            path.write_bytes(rng.bytes(500))
        else:
            soundfile.write(path, 0.1 * rng.standard_normal(400), RATE)
        clips.append(Clip(str(i), path))
    short = windowing(0.05, 0.05, batch_size=64, workers=2)
    (found,), unreadable = predict_clips([MeanBackend(pool=1)], clips, short, CLASSES, PRIOR)
    assert [c for c, _ in unreadable] == ["617"]
    assert np.flatnonzero(found.unreadable).tolist() == [617]
    assert np.isfinite(found.clipwise_output).all()
    alone, _ = predict_clips([MeanBackend(pool=1)], [clips[999]], short, CLASSES, PRIOR)
    np.testing.assert_allclose(found.clipwise_output[999], alone[0].clipwise_output[0], atol=1e-6)

"""Every test-time augmentation in every window mode: an event at a known place is found there, and nowhere else."""

import itertools

import numpy as np
import pytest
import soundfile

from earshot.inputs.given import Waveform
from earshot.prediction.inference import Member, Until, predict_clips, predict_members
from earshot.prediction.predictions import Clip
from earshot.prediction.tta import TTA
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

RATE, WINDOW = 1000, 30.0
CLASSES, PRIOR = ("sound",), np.zeros(1, np.float32)
LENGTHS = {7.0: 3.0, 30.0: 20.0, 33.3: 29.0, 45.0: 43.0, 60.0: 12.0, 80.0: 66.0, 600.0: 584.0}  # seconds -> onset
EVENT_SECONDS = 2.0
MODES = {
    "plain": {}, "half": {"stride_seconds": 15.0}, "thirds": {"stride_seconds": 10.0}, "extra": {"extra_window": True},
    "extra_half": {"extra_window": True, "stride_seconds": 15.0}, "one_pass": {"one_pass": True},
    "one_pass_half": {"one_pass": True, "stride_seconds": 15.0},
    "one_pass_extra": {"one_pass": True, "extra_window": True},
}  # fmt: skip
MOVES = [("roll",), ("copies:3",)]  # of clips alone: they move events in time
STAYS = [name for name in TTA if not any(v.moves or v.redraws for v in TTA[name])]  # of waveforms
VARIANTS = [(), *((name,) for name in STAYS), ("time_shift", "multi_window", "gain")]


class Ear:
    """Fires in the segments where there is sound: 32 frames each, an incomplete last one dropped, as Cnn14's are."""

    inputs = ("waveform",)
    frontends = {"waveform": Waveform(sample_rate=RATE)}  # noqa: RUF012
    timebase = TimeBase(RATE, 10, 32)
    pooling = "max"

    def run(self, inputs):
        x, size = np.abs(inputs["waveform"]), self.timebase.frame_samples
        segments = (x[:, : x.shape[1] // size * size].reshape(len(x), -1, size).max(axis=2) > 0.1).astype(np.float32)
        return {"clipwise_output": segments.max(axis=1)[:, None], "segmentwise_output": segments[:, :, None]}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A recording of each length: near silence, and an event of 2 s."""
    folder, rng, found = tmp_path_factory.mktemp("events"), np.random.default_rng(0), []
    for seconds, onset in LENGTHS.items():
        sound = 0.001 * rng.standard_normal(round(seconds * RATE))
        sound[round(onset * RATE) : round((onset + EVENT_SECONDS) * RATE)] = 0.5
        soundfile.write(folder / f"{seconds}.wav", sound.astype(np.float32), RATE, subtype="FLOAT")
        found.append(Clip(str(seconds), folder / f"{seconds}.wav"))
    return found


def windowing(mode, **values):
    return Windowing(
        sample_rate=RATE, window_seconds=WINDOW, batch_size=4, aggregate="max", **{"keep_frames": True} | mode | values
    )


@pytest.mark.parametrize(("mode", "tta"), itertools.product(MODES, VARIANTS), ids=str)
def test_an_event_is_found_where_it_is(clips, mode, tta):
    (found,), unreadable = predict_clips([Ear()], clips, windowing(MODES[mode]), CLASSES, PRIOR, tta=tta)
    assert not unreadable
    cell, segment = found.timebase.frame_seconds, Ear.timebase.frame_seconds
    for (seconds, onset), answer, frames in zip(
        LENGTHS.items(), found.clipwise_output, found.framewise_output, strict=True
    ):
        assert answer[0] == 1, "heard by every hearing"
        times = np.flatnonzero(frames[:, 0] >= 0.5) * cell
        assert times[0] == pytest.approx(onset, abs=segment + cell)
        assert times[-1] + cell == pytest.approx(onset + EVENT_SECONDS, abs=segment + cell)
        assert len(times) == 1 + round((times[-1] - times[0]) / cell), "in one piece"
        loud = np.flatnonzero(frames[:, 0] > 0) * cell
        assert loud[0] >= onset - segment - cell
        assert loud[-1] <= onset + EVENT_SECONDS + segment + cell
        if "extra" in mode:  # to the end of the window that follows the last
            whole = WINDOW if "half" not in mode else 15.0
            windows = 1 + max(0, int(np.ceil((seconds - WINDOW) / whole)))
            reach = (windows - 1) * whole + WINDOW
            reach += whole if reach == seconds else 0
            assert len(frames) * cell == pytest.approx(reach, abs=cell)
        else:
            assert len(frames) == found.timebase.n_frames(round(seconds * RATE))


SLOW_MODES = ("thirds", "extra_half", "one_pass_half")  # parts of them are tried by the others


@pytest.mark.parametrize("tta", [*VARIANTS, *MOVES], ids=str)
@pytest.mark.parametrize("mode", [pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW_MODES)) for m in MODES])
def test_every_hearing_gives_a_clip_its_event(clips, mode, tta):
    """Without frames, and of each hearing alone, as kernels ask for them."""
    how = windowing(MODES[mode], keep_frames=False)
    (found,), _ = predict_clips([Ear()], clips[:-1], how, CLASSES, PRIOR, tta=tta)
    assert (found.clipwise_output == 1).all()
    if not tta:
        return
    (alone,), unreadable = predict_members(
        [Member(backend=Ear(), windowing=how, classes=CLASSES, prior=PRIOR)], clips[:-1], tta, plain=False
    )
    assert (alone.clipwise_output[~alone.unreadable] == 1).all()
    short = [str(s) for s in LENGTHS if s <= WINDOW] if tta == ("time_shift",) else []
    assert [c for c, _ in unreadable] == short, "one window has no borders to move"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tta", MOVES, ids=str)
def test_hearings_that_move_events_are_refused_with_frames(clips, mode, tta):
    with pytest.raises(ValueError, match="moves events in time"):
        predict_clips([Ear()], clips, windowing(MODES[mode]), CLASSES, PRIOR, tta=tta)


@pytest.mark.parametrize("mode", ["plain", "extra", "half", "extra_half"])
@pytest.mark.parametrize("name", STAYS)
def test_a_hearing_alone_lies_on_the_grid_of_the_plain_one(clips, mode, name):
    """A kernel averages passes: each has the same frames."""
    member = Member(backend=Ear(), windowing=windowing(MODES[mode]), classes=CLASSES, prior=PRIOR)
    (plain,), _ = predict_members([member], clips[3:6])
    (alone,), _ = predict_members([member], clips[3:6], [name], plain=False)
    for a, b in zip(plain.framewise_output, alone.framewise_output, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).sum() <= 10, "the borders of the event may differ by a segment of four cells"


def test_windows_of_padding_have_no_say_in_the_clip(clips):
    class Hush(Ear):
        """Fires in windows of digital silence."""

        def run(self, inputs):
            quiet = (np.abs(inputs["waveform"]).max(axis=1) == 0).astype(np.float32)
            return {"clipwise_output": quiet[:, None], "segmentwise_output": np.tile(quiet[:, None, None], (1, 93, 1))}

    (found,), _ = predict_clips([Hush()], clips, windowing(MODES["extra"]), CLASSES, PRIOR, tta=["time_shift"])
    assert not found.clipwise_output.any()
    at_60 = found.framewise_output[list(LENGTHS).index(60.0)][:, 0]
    assert at_60[round(75 / found.timebase.frame_seconds) :].any(), "but their frames are kept, as the source's"


def test_a_cut_hearing_gives_way_to_a_whole_one(clips):
    """The time is up while the second of two hearings comes: the first one counts, on its own grid."""
    ticks = iter(range(999))
    how = windowing({}, workers=1)
    (whole,), _ = predict_members([Member(backend=Ear(), windowing=how, classes=CLASSES, prior=PRIOR)], clips[-1:])
    until = Until(14, clock=lambda: next(ticks))
    (found,), _ = predict_members(
        [Member(backend=Ear(), windowing=how, classes=CLASSES, prior=PRIOR)], clips[-1:], ["gain"], until=until
    )
    np.testing.assert_array_equal(found.framewise_output[0], whole.framewise_output[0])
    assert not until.partly


@pytest.mark.parametrize(("rest", "windows"), [(0.0, [1, 1, 2, 2]), (3.3, [1, 1, 1, 2]), (15.0, [1, 1, 1, 1])])
def test_a_small_rest_gets_no_window_of_its_own(clips, rest, windows):
    """9.98-s windows of 10-s clips are 500 frames: one window, not a second one of 20 ms."""
    heard = []
    how = windowing({}, rest_seconds=rest)
    (found,), _ = predict_members(
        [Member(backend=Ear(), windowing=how, classes=CLASSES, prior=PRIOR)],
        clips[:4],
        listen=lambda clip, start, out: heard.append(clip),
    )
    assert [heard.count(i) for i in range(4)] == windows
    assert [len(f) for f in found.framewise_output] == [found.timebase.n_frames(round(s * RATE)) for s in LENGTHS][:4]

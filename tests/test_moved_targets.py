"""What moves a sound in time moves its frame targets alike, in every picture that a network hears, or is refused."""

from types import SimpleNamespace

import pytest
import torch

from earshot.augment import image, spectrogram
from earshot.augment.waveform import build_waveform_augment
from earshot.training.checks import check_times

B, T, F = 4, 61, 20
MOVING = [
    {"name": "roll", "std_frames": 10},
    {"name": "roll", "max_frames": 20},
    {"name": "time_stretch", "min_rate": 0.7, "max_rate": 1.4},
    {"name": "time_warp", "max_frames": 10},
    {"name": "crop_resize", "min_time": 0.5},
]
IMAGES = [
    {"name": "VerticalFlip", "p": 1.0},
    {"name": "Affine", "p": 1.0, "translate_percent": (0.1, 0.2)},
    {"name": "Rotate", "p": 1.0, "limit": (-4, 4)},
    {"name": "RandomGridShuffle", "p": 1.0, "grid": (3, 1)},
    {"name": "OneOf", "transforms": [{"name": "GridDistortion", "p": 1.0}, {"name": "CoarseDropout", "p": 1.0}]},
]


def sounds(frames, starts, length):
    """(B, 1, frames, F): clip b is loud from the share `starts[b]` of its time on, for the share `length`."""
    place = torch.arange(frames)[None] / (frames - 1)
    loud = (place >= starts[:, None]) & (place < starts[:, None] + length)
    return loud.float()[:, None, :, None].expand(-1, -1, -1, F).clone()


def differing(picture, target):
    """Share of frames in which a picture's middle band and a target (B, N, 1) of as many frames say otherwise."""
    return float(((picture[:, 0, :, F // 2] > 0.5) != (target[:, :, 0] > 0.5)).float().mean())


@pytest.mark.parametrize("spec", MOVING, ids=str)
def test_time_moves_alike_in_all_pictures_of_a_clip(spec):
    generator = torch.Generator().manual_seed(4)
    starts = torch.rand(B, generator=generator) * 0.7
    pictures = [sounds(n, starts, 0.2) for n in (T, 2 * T - 1, T)]  # the second has frames of half the length
    target = pictures[0][:, 0, :, :1]
    out, moved = spectrogram.apply_logmel([spec | {"p": 0.8}], pictures, target, generator)
    assert (moved != target).any()
    torch.testing.assert_close(out[2], out[0], rtol=0, atol=0)
    assert differing(out[0], moved) < 0.03
    assert differing(out[1][:, :, ::2], moved) < 0.05
    fine = pictures[1][:, 0, :, :1]  # the grid of another front end than the first
    _, also = spectrogram.apply_logmel([spec | {"p": 0.8}], pictures, fine, torch.Generator().manual_seed(9))
    again, _ = spectrogram.apply_logmel([spec | {"p": 0.8}], pictures, None, torch.Generator().manual_seed(9))
    assert differing(again[1], also) < 0.03


def test_what_moves_nothing_in_time_is_drawn_for_each_picture():
    same = [sounds(T, torch.full((B,), 0.3), 0.2) for _ in range(2)]
    out, moved = spectrogram.apply_logmel(
        [{"name": "gain_db", "p": 1.0}], same, same[0][:, 0, :, :1], torch.Generator()
    )
    assert (out[0] != out[1]).all()
    torch.testing.assert_close(moved, same[0][:, 0, :, :1])
    assert spectrogram.apply_logmel(MOVING, [], None, torch.Generator()) == ([], None)
    assert image.apply_image(IMAGES, [], None, torch.Generator()) == ([], None)


@pytest.mark.parametrize("spec", IMAGES, ids=lambda spec: spec["name"])
def test_image_augmentation_moves_frame_targets(spec):
    """The middle band of a frame says which frame is heard there; fill is silence."""
    starts = torch.tensor([0.1, 0.3, 0.5, 0.7])
    pictures = [sounds(T, starts, 0.25), sounds(T, starts, 0.25)]
    target = pictures[0][:, 0, :, :1].clone()
    out, moved = image.apply_image([spec], pictures, target, torch.Generator().manual_seed(1))
    assert differing(out[0], moved) < 0.05
    torch.testing.assert_close(out[1], out[0])
    alone, nothing = image.apply_image([spec], pictures[:1], None, torch.Generator().manual_seed(1))
    torch.testing.assert_close(alone[0], out[0], msg="following the frames changes no picture")
    assert nothing is None
    fine = target.repeat_interleave(2, dim=1)[:, :-1]  # twice as many frames
    _, doubled = image.apply_image([spec], pictures, fine, torch.Generator().manual_seed(1))
    assert differing(out[0], doubled[:, ::2]) < 0.05


def test_an_image_flip_of_time_is_exact_and_what_was_filled_in_is_silent():
    target = torch.rand(B, T, 3)
    picture = target[:, None, :, :1].expand(-1, 1, -1, F)
    _, moved = image.apply_image([{"name": "VerticalFlip", "p": 1.0}], [picture], target, torch.Generator())
    torch.testing.assert_close(moved, target.flip(1))
    shift = {"name": "Affine", "p": 1.0, "translate_px": {"x": 0, "y": 7}}
    _, moved = image.apply_image([shift], [picture], target + 1, torch.Generator())
    torch.testing.assert_close(moved[:, 7:], target[:, :-7] + 1)
    assert moved[:, :7].abs().max() == 0


@pytest.mark.parametrize("name", ["Shift", "TimeStretch", "Reverse", "RepeatPart"])
def test_waveform_augmentation_that_moves_sounds_is_refused_beside_frame_targets(name):
    augment = build_waveform_augment([{"name": "Gain"}, {"name": "OneOf", "transforms": [{"name": name}]}])
    data = SimpleNamespace(frame_targets=True)
    with pytest.raises(ValueError, match=f"{name} moves sounds in time.*use roll or time_stretch"):
        check_times(augment, data)
    check_times(augment, SimpleNamespace(frame_targets=False))
    check_times(build_waveform_augment([{"name": "Gain"}, {"name": "PitchShift"}, {"name": "TimeMask"}]), data)
    check_times(None, data)

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earshot.augment import image, mixing, spectrogram

B, T, F, K = 3, 60, 20, 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def logmels(seed=0, channels=1):
    return torch.randn(B, channels, T, F, generator=generator(seed)) * 8 - 30


# log-mel

ALL = [
    {"name": "gain_db", "min_db": -3.0, "max_db": 3.0},
    {"name": "roll", "max_frames": 20},
    {"name": "time_stretch", "min_rate": 0.7, "max_rate": 1.4},
    {"name": "time_warp", "max_frames": 10},
    {"name": "frequency_shift", "max_bins": 3},
    {"name": "frequency_warp", "max_bins": 3},
    {"name": "frequency_stretch", "max_stretch": 0.2},
    {"name": "equalise", "max_db": 6},
    {"name": "crop_resize", "min_time": 0.5},
    {"name": "spec_augment", "time_width": 10},
]


def augmented(specs, x, generator):
    return spectrogram.apply_logmel(specs, [x], None, generator)[0][0]


def test_the_list_above_holds_every_log_mel_augmentation():
    assert {spec["name"] for spec in ALL} == set(spectrogram.LOGMEL_AUGMENTS)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec["name"])
def test_log_mel_augmentation_keeps_shape_changes_values_and_repeats_with_its_generator(spec):
    x = logmels(channels=2)
    before = x.clone()
    out = augmented([spec | {"p": 1.0}], x, generator(3))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, x)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    again = augmented([spec | {"p": 1.0}], x, generator(3))
    torch.testing.assert_close(again, out, rtol=0, atol=0)
    # with p 0 the same draws are made and nothing is applied
    torch.testing.assert_close(augmented([spec | {"p": 0.0}], x, generator(3)), x, rtol=0, atol=0)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec["name"])
def test_log_mel_augmentation_takes_one_frame(spec):
    out = augmented([spec | {"p": 1.0}], torch.zeros(2, 1, 1, F), generator(0))
    assert out.shape == (2, 1, 1, F)
    assert torch.isfinite(out).all()


def test_p_is_the_share_of_clips():
    x = torch.zeros(4000, 1, 2, 2)
    out = augmented([{"name": "gain_db", "p": 0.3}], x, generator(0))
    assert float((out != 0).any(dim=(1, 2, 3)).float().mean()) == pytest.approx(0.3, abs=0.03)


@given(st.integers(-200, 200))
def test_roll_equals_torch_roll_and_by_the_length_is_the_identity(shift):
    x = logmels()
    rolled = spectrogram.roll(x, torch.full((B,), float(shift)))
    torch.testing.assert_close(rolled, torch.roll(x, shift, dims=2), rtol=0, atol=0)
    torch.testing.assert_close(spectrogram.roll(x, torch.full((B,), float(T))), x, rtol=0, atol=0)


def test_roll_by_a_normal_number_of_frames():
    shift = spectrogram.sample_roll(generator(0), (4000, 1, T, F), std_frames=10)["shift_frames"]
    assert float(shift.std()) == pytest.approx(10, rel=0.05)
    assert float(shift.mean()) == pytest.approx(0, abs=0.5)
    assert (shift == shift.round()).all()


def ramp(dim):
    """Each entry is its own index along `dim`."""
    shape = (1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1)
    return torch.arange((T, F)[dim - 2], dtype=torch.float32).view(shape).expand(1, 1, T, F)


def test_time_stretch_reads_twice_as_fast_and_begins_again():
    out = spectrogram.time_stretch(ramp(2), torch.tensor([2.0]))[0, 0, :, 0]
    assert out.tolist() == [float(2 * t % T) for t in range(T)]
    slow = spectrogram.time_stretch(ramp(2), torch.tensor([0.5]))[0, 0, :, 0]
    assert slow.tolist() == [t / 2 for t in range(T)]


def test_warp_moves_the_centre_and_keeps_the_ends():
    out = spectrogram.time_warp(ramp(2), torch.tensor([20.0]), torch.tensor([30.0]))[0, 0, :, 0]
    assert out[0] == 0
    assert out[30] == 20
    assert out[-1] == T - 1
    assert (out.diff() > 0).all()
    assert out[15] == pytest.approx(10)  # half way to the centre stays half way


def test_frequency_shift_by_fractions_and_kept_edge():
    out = spectrogram.frequency_shift(ramp(3), torch.tensor([2.5]))[0, 0, 0]
    assert out[:5].tolist() == [0.0, 0.0, 0.0, 0.5, 1.5]
    assert out[-1] == F - 1 - 2.5


def test_crop_resize_reads_the_named_part():
    numbers = {"start": torch.tensor([[0.25, 0.5]]), "size": torch.tensor([[0.5, 0.25]])}
    out = spectrogram.crop_resize(ramp(2), **numbers)[0, 0, :, 0]
    assert out[0] == pytest.approx(0.25 * (T - 1))
    assert out[-1] == pytest.approx(0.75 * (T - 1))
    out = spectrogram.crop_resize(ramp(3), **numbers)[0, 0, 0]
    assert out[0] == pytest.approx(0.5 * (F - 1))
    assert out[-1] == pytest.approx(0.75 * (F - 1))


@given(st.integers(0, 10**6))
def test_frame_targets_move_with_their_sound(seed):
    loud = torch.zeros(B, 1, T, F)
    starts = torch.randint(0, T - 12, (B,), generator=generator(seed))
    for clip, start in zip(loud, starts):
        clip[:, start : start + 12] = 1.0
    frame_target = loud[:, 0, :, :1].clone()
    moving = [spec | {"p": 0.7} for spec in ALL if spec["name"] not in ("gain_db", "equalise", "spec_augment")]
    (out,), moved = spectrogram.apply_logmel(moving, [loud], frame_target, generator(seed))
    # nearest against linear reading, of up to four maps in a row: they agree but at the borders
    assert ((out[:, 0, :, 10] > 0.5).float() - moved[:, :, 0]).abs().sum(dim=1).max() <= 8
    alone = augmented(moving, loud, generator(seed))
    torch.testing.assert_close(alone, out, rtol=0, atol=0)


def test_unknown_log_mel_names_are_errors_with_a_suggestion():
    with pytest.raises(ValueError, match="'rol'; did you mean 'roll'"):
        augmented([{"name": "rol"}], logmels(), generator())
    with pytest.raises(ValueError, match="'max_frame' of log-mel augmentation roll; did you mean 'max_frames'"):
        spectrogram.check_logmel([{"name": "roll", "p": 1.0, "max_frame": 3}])
    with pytest.raises(ValueError, match="'time_widht' of augment.spec_augment; did you mean"):
        spectrogram.build_spec_augment({"time_widht": 3})
    assert spectrogram.build_spec_augment({}) is None


def test_spec_augment_masks_as_torchlibrosa_does_on_average():
    from torchlibrosa.augmentation import SpecAugmentation

    params = {"time_width": 64, "time_stripes": 2, "freq_width": 8, "freq_stripes": 2}
    shape = (1500, 1, 101, 64)
    torch.manual_seed(0)
    ours = spectrogram.SpecAugment(**params).train()(torch.ones(shape)) == 0
    theirs = SpecAugmentation(64, 2, 8, 2).train()(torch.ones(shape)) == 0
    for axis in (2, 3):  # share of frames, and of bins, that are masked throughout
        share = [float(m.all(dim=5 - axis).float().mean()) for m in (ours, theirs)]
        assert share[0] == pytest.approx(share[1], rel=0.04)
    widths = spectrogram.sample_stripes(generator(0), 20000, 101, 64, 1).sum(dim=1)
    assert (int(widths.min()), int(widths.max())) == (0, 63)
    assert float(widths.float().mean()) == pytest.approx(31.5, abs=0.5)
    assert torch.bincount(widths, minlength=64).min() > 200  # uniform: 312 expected each


def test_spec_augment_leaves_evaluation_alone_and_follows_torch_seeds():
    module = spectrogram.build_spec_augment({"time_width": 30, "freq_width": 5})
    x = logmels()
    assert module.eval()(x) is x
    outs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outs.append(module.train()(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert list(module.state_dict()) == []


def test_spec_augment_of_decibels_fills_with_the_clips_mean():
    x = logmels()
    time_mask = torch.zeros(B, T, dtype=torch.bool)
    time_mask[:, 5:9] = True
    out = spectrogram.spec_augment(x, time_mask, torch.zeros(B, F, dtype=torch.bool))
    torch.testing.assert_close(out[1, 0, 5:9], x[1].mean().expand(4, F))
    torch.testing.assert_close(out[:, :, 9:], x[:, :, 9:], rtol=0, atol=0)


# image


IMAGE = [
    {"name": "ShiftScaleRotate", "rotate_limit": [-5, 5], "p": 1.0},
    {"name": "OneOf", "transforms": [{"name": "GridDistortion", "p": 1.0}, {"name": "CoarseDropout", "p": 1.0}]},
]


def drawn(specs, x, generator):
    return image.apply_image(specs, [x], None, generator)[0][0]


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case")
def test_image_augmentation_is_deterministic_from_its_generator_and_stays_in_range():
    x = logmels()
    first, again, other = (drawn(IMAGE, x, generator(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert first.shape == x.shape
    assert (first.amin(dim=(1, 2, 3)) >= x.amin(dim=(1, 2, 3)) - 1e-3).all()
    assert (first.amax(dim=(1, 2, 3)) <= x.amax(dim=(1, 2, 3)) + 1e-3).all()


def test_image_flip_of_time_is_exact_and_constant_clips_pass():
    x = logmels()
    flipped = drawn([{"name": "VerticalFlip", "p": 1.0}], x, generator())
    torch.testing.assert_close(flipped, x.flip(2), rtol=1e-6, atol=1e-4)
    silent = torch.full((1, 1, T, F), -100.0)
    torch.testing.assert_close(drawn([{"name": "VerticalFlip", "p": 1.0}], silent, generator()), silent)
    assert drawn([], x, generator()) is x


def test_image_errors():
    with pytest.raises(ValueError, match="'GridDistorsion'; did you mean 'GridDistortion'"):
        drawn([{"name": "GridDistorsion"}], logmels(), generator())
    with pytest.raises(ValueError, match="'num_step' of image augmentation GridDistortion; did you mean 'num_steps'"):
        drawn([{"name": "GridDistortion", "num_step": 3}], logmels(), generator())
    with pytest.raises(ValueError, match=r"changed the log-mel from \(60, 20, 1\) to \(8, 8, 1\)"):
        drawn([{"name": "Resize", "height": 8, "width": 8}], logmels(), generator())


# mixing


@given(st.integers(0, 10**6), st.booleans(), st.floats(0.05, 5.0))
def test_mixup_keeps_the_mass_of_labels(seed, per_clip, alpha):
    g = generator(seed)
    target = (torch.rand(B, K, generator=g) < 0.4).float()
    lam = mixing.sample_lam(alpha, g, B if per_clip else None)
    assert lam.shape == ((B,) if per_clip else ())
    assert 0 <= float(lam.min()) <= float(lam.max()) <= 1
    index = mixing.sample_partners(B, g)
    x = torch.randn(B, 7, generator=g)
    mixed_x, mixed = mixing.mix(x, lam, index), mixing.mix(target, lam, index)
    if per_clip:
        each = lam * target.sum(1) + (1 - lam) * target[index].sum(1)
        torch.testing.assert_close(mixed.sum(1), each)
    else:
        torch.testing.assert_close(mixed.sum(), target.sum())
        torch.testing.assert_close(mixed_x.sum(), x.sum(), rtol=1e-4, atol=1e-5)
    assert ((mixed >= 0) & (mixed <= 1)).all()


def test_mixup_by_hand():
    x, target = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    index = torch.tensor([1, 0])
    mixed, labels = mixing.mix(x, 0.3, index), mixing.mix(target, 0.3, index)
    assert mixed.flatten().tolist() == pytest.approx([7.0, 3.0])
    torch.testing.assert_close(labels, torch.tensor([[0.3, 0.7], [0.7, 0.3]]))
    assert torch.equal(mixing.mix(x, 1.0, index), x)
    assert torch.equal(mixing.mix(target, 1.0, index), target)


def test_mixed_as_sounds_by_hand():
    # -10 dB and -30 dB, shares 0.75 and 0.25: (0.5625 * 0.1 + 0.0625 * 0.001) / 0.625 = 0.0901
    x = torch.tensor([-10.0, -30.0]).reshape(2, 1, 1, 1)
    mixed = mixing.mix_power(x, torch.tensor([0.75, 1.0]), torch.tensor([1, 0])).flatten()
    assert mixed[0].item() == pytest.approx(-10.4527, abs=1e-3)
    assert mixed[1].item() == -30.0, "a share of 1 changes nothing"
    itself = mixing.mix_power(x, 0.3, torch.tensor([0, 1])).flatten()
    torch.testing.assert_close(itself, torch.tensor([-10.0, -30.0]))


def test_equalise_and_frequency_stretch_by_hand():
    x = torch.arange(5.0).reshape(1, 1, 1, 5).repeat(1, 1, 2, 1)
    curved = spectrogram.equalise(x, torch.tensor([[0.0, 4.0, 0.0]]))
    torch.testing.assert_close(curved[0, 0, 0], torch.tensor([0.0, 3.0, 6.0, 5.0, 4.0]))
    squeezed = spectrogram.frequency_stretch(x, torch.tensor([0.5]))
    torch.testing.assert_close(squeezed[0, 0, 0], torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))


def test_mix_batch_mixes_what_is_linear_and_intersects_the_mask():
    batch = {
        "logmel": torch.stack([torch.zeros(1, 4, 2), torch.ones(1, 4, 2)]),
        "target": torch.tensor([[1.0, float("nan")], [0.0, 1.0]]),
        "frame_target": torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]),
        "mask": torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        "weight": torch.tensor([[1.0, 1.0], [0.5, 0.5]]),
        "metadata": torch.tensor([[3.0], [4.0]]),
        "clip_id": ["a", "b"],
    }
    out = mixing.mix_batch(batch, ("logmel",), torch.tensor([0.75, 1.0]), torch.tensor([1, 0]))
    assert float(out["logmel"][0].mean()) == 0.25
    torch.testing.assert_close(out["target"], torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    torch.testing.assert_close(out["frame_target"][0, 0], torch.tensor([0.75, 0.25]))
    assert out["mask"].tolist() == [[1.0, 0.0], [1.0, 1.0]]  # the second clip keeps itself: nothing unknown comes in
    torch.testing.assert_close(out["weight"][:, 0], torch.tensor([0.875, 0.5]))
    assert out["clip_id"] == ["a", "b"]
    assert out["metadata"] is batch["metadata"]
    assert torch.isnan(batch["target"][0, 1])  # the caller's batch is untouched


def test_lam_follows_the_beta_distribution_and_its_generator():
    lam = mixing.sample_lam(0.4, generator(0), 20000)
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(lam.var()) == pytest.approx(0.25 / (2 * 0.4 + 1), rel=0.03)  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert torch.equal(lam, mixing.sample_lam(0.4, generator(0), 20000))
    assert float(mixing.sample_lam(0.0, generator(0))) == 1.0
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        mixing.sample_lam(-1, generator(0))


def test_mixup_is_that_of_panns():
    """PANNs mix neighbours: out[i] = lam[2i] * x[2i] + lam[2i+1] * x[2i+1], their shares add to 1, targets likewise."""
    rng = torch.Generator().manual_seed(0)
    x, target, lam = torch.rand(8, 1, 5, 3, generator=rng), torch.eye(8), torch.rand(4, generator=rng)
    expected = [(x[2 * i] * lam[i] + x[2 * i + 1] * (1 - lam[i])) for i in range(4)]
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    shares = lam.repeat_interleave(2)
    mixed, mixed_target = mixing.mix(x, shares, partner), mixing.mix(target, shares, partner)
    torch.testing.assert_close(mixed[::2], torch.stack(expected))
    torch.testing.assert_close(mixed_target[0, :2], torch.stack([lam[0], 1 - lam[0]]))


def test_shares_of_mixup_per_clip_are_beta_1_1():
    """Beta(1, 1) is uniform; of two exchangeable clips it does not matter which one has the larger share."""
    lam = mixing.sample_lam(1.0, torch.Generator().manual_seed(0), 20_000)
    larger = torch.maximum(lam, 1 - lam)
    np.testing.assert_allclose(np.quantile(lam, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.015)
    np.testing.assert_allclose(np.quantile(larger, [0.1, 0.5, 0.9]), [0.55, 0.75, 0.95], atol=0.01)

"""What the PANNs and rainforest sources do their own way, as options: mixing, noise, box crops, validation by steps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import fewshot
import train
from earshot import runs
from earshot.augment.batch import BatchAugment
from earshot.augment.hidden import mixed_maps
from earshot.augment.mixing import Mixing
from earshot.augment.pipeline import augment_batch
from earshot.augment.waveform import apply, build_waveform_augment
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.given import Waveform
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.models import build_model
from earshot.prediction.predictions import Predictions
from earshot.training.checks import check_inputs
from earshot.training.examples import TrainingClips
from scripts import run

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RATE, CLASSES = 8000, 3
LOGMEL = Logmel(sample_rate=RATE, n_fft=256, hop_length=80, n_mels=16, fmax=4000)


def batch_of(size, seconds=0.2):
    generator = torch.Generator().manual_seed(size)
    return {
        "clip_id": [f"c{i}" for i in range(size)],
        "waveform": torch.randn(size, round(seconds * RATE), generator=generator),
        "target": torch.eye(CLASSES)[torch.arange(size) % CLASSES], "mask": torch.ones(size, CLASSES),
    }  # fmt: skip


def front_ends(*names):
    records = {"logmel": LOGMEL, "waveform": Waveform(sample_rate=RATE)}
    return FrontEnds(Inputs.made(records, names, RATE))


@pytest.mark.parametrize("on", ["logmel", "waveform"])
def test_sixty_four_clips_are_mixed_into_thirty_two(on):
    """do_mixup of the published code: clip 2 i takes lam, clip 2 i + 1 the rest; an odd last one stays itself."""
    made, batch = front_ends("logmel"), batch_of(65)
    augment = BatchAugment(mixup_on=on, mixup_alpha=1.0, mixup_pairs=True)
    out = augment_batch(batch, made, augment, torch.Generator().manual_seed(7))
    assert out["clip_id"] == batch["clip_id"][::2]
    assert len(out["logmel"]) == len(out["target"]) == len(out["mask"]) == 33
    lam = [float(out["target"][i][2 * i % CLASSES]) for i in range(32)]
    assert len({round(share, 4) for share in lam}) > 20, "each pair has its own share"
    source = made(batch)["logmel"] if on == "logmel" else batch["waveform"]
    mixed = torch.stack([lam[i] * source[2 * i] + (1 - lam[i]) * source[2 * i + 1] for i in range(32)])
    expected = mixed if on == "logmel" else made({"waveform": mixed})["logmel"]
    torch.testing.assert_close(out["logmel"][:32], expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(out["logmel"][32], made(batch)["logmel"][64])
    with pytest.raises(ValueError, match="mixup_pairs halves every batch: mixup_p must be 1"):
        BatchAugment(mixup_pairs=True, mixup_p=0.5)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("name", ["wavegram_logmel_cnn14", "wavegram_cnn14"])
def test_a_wavegram_is_mixed_as_its_log_mel_is(name, pairs):
    """The maps behind pre_block4 are mixed by the log-mel's shares; what comes before hears each clip alone."""
    model = build_model(name, CLASSES, 64, {"widths": [4] * 6, "pre_widths": [4, 4], "embedding": 8}).train()
    seen = {}
    model.conv_block2.register_forward_pre_hook(lambda _, args: seen.__setitem__("joined", args[0]))
    lam, index = torch.tensor([0.25, 0.75, 0.5, 1.0]), torch.tensor([1, 0, 3, 2])
    mixing = Mixing(lam, index, 2 if pairs else 1)
    waveform = torch.randn(4, 320 * 70)
    with torch.no_grad():
        model.eval()
        alone = model.wavegram(waveform)
        logmel = torch.randn(2 if pairs else 4, 1, 71, 64)
        inputs = {"waveform": waveform} | ({"logmel": logmel} if model.with_logmel else {})
        with mixed_maps(model, mixing):
            out = model(**inputs)
        expected = lam[:, None, None, None] * alone + (1 - lam)[:, None, None, None] * alone[index]
        expected = expected[::2] if pairs else expected
        heard = seen["joined"][:, -alone.shape[1] :]
        torch.testing.assert_close(heard, expected[:, :, : heard.shape[2]], atol=1e-5, rtol=1e-5)
        assert len(out["clipwise_output"]) == len(expected)
        assert len(model.pre_block4._forward_hooks) == 0, "the hook is gone"
        with mixed_maps(model, None):
            torch.testing.assert_close(model.wavegram(waveform), alone)


def test_networks_that_cannot_mix_what_they_make_of_a_waveform_say_so():
    mixing = Mixing(torch.ones(1), torch.zeros(1).long())
    with (
        pytest.raises(ValueError, match="which augment.batch.mixup_on=logmel does not mix"),
        mixed_maps(torch.nn.Linear(2, 2), mixing),
    ):
        pass
    config = load_config(CONFIGS / "tagging/panns/wavegram_logmel_cnn14.yaml")
    assert config.augment.batch.mixup_on == "logmel"
    with torch.device("meta"):
        check_inputs(build_model("wavegram_logmel_cnn14", 5, 64, {}), config)


def test_a_batch_of_a_wavegram_network_keeps_its_waveforms_and_says_how_it_was_mixed():
    batch = batch_of(6)
    augment = BatchAugment(mixup_on="logmel", mixup_alpha=1.0, mixup_per_clip=True)
    out = augment_batch(batch, front_ends("waveform", "logmel"), augment, torch.Generator().manual_seed(7))
    torch.testing.assert_close(out["waveform"], batch["waveform"])
    plain = front_ends("waveform", "logmel")(batch)["logmel"]
    torch.testing.assert_close(out["logmel"], out["mixing"].of(plain), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out["target"], out["mixing"].of(batch["target"]))


def test_noise_by_its_share_of_the_waveforms_deviation():
    augment = build_waveform_augment([{"name": "AddGaussianNoiseShare", "p": 1.0}])
    sound = 0.2 * np.sin(np.arange(40000)).astype(np.float32)
    shares = [np.std(apply(augment, sound, 8000, np.random.default_rng(i)) - sound) / np.std(sound) for i in range(60)]
    assert 0.001 <= min(shares) < 0.15
    assert 0.85 < max(shares) <= 1.01
    assert np.mean(shares) == pytest.approx(0.5, abs=0.12)
    with pytest.raises(ValueError, match="needs 0 <= min_share <= max_share, got 2, 1"):
        build_waveform_augment([{"name": "AddGaussianNoiseShare", "min_share": 2, "max_share": 1}])
    names = [entry["name"] for entry in load_config(CONFIGS / "sed/rfcx_b0.yaml").augment.waveform]
    assert names == ["AddGaussianNoise", "AddGaussianNoiseShare"]


@pytest.mark.slow
def test_scores_and_checkpoints_come_by_the_steps_of_the_run(tiny, monkeypatch):
    """Epochs of 3 steps: validated after steps 2, 4, 6 (an epoch's end), ...; a checkpoint every 4, 8 in epoch 3."""
    kept = []
    original = train.write_checkpoint
    monkeypatch.setattr(train, "write_checkpoint", lambda t: (kept.append(t.steps), original(t)))
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=3", "optim.validate_steps=2", "optim.checkpoint_steps=4",
        "optim.select=best", "watch=map", "optim.ema_decay=0")  # fmt: skip
    fold = runs.FoldRun(Path("runs/sed/tiny/fold0"))
    log = pd.read_csv(fold.folder / "log.csv")
    every = log.steps.tolist()
    per_epoch = every[-1] // 3
    ends = [per_epoch * n for n in (1, 2, 3)]
    assert every == sorted({*range(2, every[-1], 2), *ends})
    assert {4, 8} & set(range(every[-1])) <= set(kept)
    best = log.loc[log["map"].idxmax()]
    assert fold.about["scores"]["map"] == pytest.approx(best["map"])
    assert log.lr.notna().all()
    found = Predictions.load(fold.folder / "oof.npz")
    assert len(found.clip_ids) == len(set(found.clip_ids))
    run(train, "--config", tiny, "--fold", "0", "--name", "plain", "optim.epochs=3", "optim.validate_steps=0",
        "optim.select=last", "watch=map", "optim.ema_decay=0")  # fmt: skip
    plain = pd.read_csv("runs/sed/plain/fold0/log.csv")
    ours = log[log.steps.isin(ends)]["map"].to_numpy()
    np.testing.assert_allclose(ours, plain["map"], atol=1e-6, err_msg="validation on the way changes no weight")


def test_modes_of_a_transfer_without_a_config_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, commands = CONFIGS / "tagging/transfer/msos_finetune_cnn14.yaml", []

    def trained(command, **options):
        commands.append([str(c) for c in command])
        raise KeyboardInterrupt

    monkeypatch.setattr(fewshot.children, "run", trained)
    with pytest.raises(KeyboardInterrupt):
        run(fewshot, "--config", config, "--modes", "freeze_l3", "--counts", 2, "--seeds", 1, "optim.epochs=3")
    (command,) = commands
    assert command[command.index("--name") + 1] == "msos_finetune_cnn14_freeze_l3_2clips_seed0"
    assert [c for c in command if c.startswith("optim.epochs=")] == ["optim.epochs=3"], "the user's word counts"
    for mode, overrides in fewshot.MODES.items():
        found = load_config(config, overrides)
        as_published = load_config(config.with_name(f"msos_{mode}_cnn14.yaml"))
        assert (found.augment, found.data) == (as_published.augment, as_published.data)
        assert found.model.weights == as_published.model.weights
        assert found.model.params == ({"hidden": []} if mode == "freeze_l1" else {}) | as_published.model.params
        assert (found.optim.lr, found.optim.epochs) == (as_published.optim.lr, as_published.optim.epochs)
    with pytest.raises(ValueError, match="unknown mode 'freeze'; did you mean 'freeze_l"):
        run(fewshot, "--config", config, "--modes", "freeze")
    with pytest.raises(ValueError, match="--modes are those of the model transfer, and .* has cnn14"):
        run(fewshot, "--config", CONFIGS / "tagging/panns/cnn14.yaml", "--modes", "scratch")


@pytest.mark.parametrize("data", ["esc50", "dcase2019_task1", "dcase2018_task2", "msos", "gtzan", "ravdess"])
def test_the_transfer_tables_have_four_cells_a_data_set(data):
    for mode, overrides in fewshot.MODES.items():
        config = load_config(CONFIGS / f"tagging/transfer/{data}_{mode}_cnn14.yaml")
        assert config.data.competition == data
        frozen = mode.startswith("freeze")
        assert config.model.params["freeze"] == frozen
        assert (config.data.cache == "embedding") == frozen
        assert bool(config.model.weights) == (mode != "scratch")
        assert len(config.model.params.get("hidden", ())) == 2 * (mode == "freeze_l3")
        assert overrides


def test_a_box_in_the_first_half_of_its_crop_as_the_source_draws_it(tiny):
    """Starts lie evenly between half a crop before the box's centre and the centre, cut at the recording's ends."""
    config = load_config(tiny, ["data.crop=box", "data.box_place=first_half", "data.crop_seconds=0.5"])
    everything, _ = load_data(config.data).split(0, config.data.folds)
    crops = TrainingClips(everything, config.data, config.inputs(), config.seed)
    rate, crop = config.data.sample_rate, round(0.5 * config.data.sample_rate)
    index = next(i for i in range(len(crops)) if len(crops.targets.events(i)) == 1)
    box = crops.targets.events(index).iloc[0]
    centre, n_samples = (box.onset + box.offset) / 2 * rate, 60 * rate
    starts = [crops._start(index, n_samples, crop, np.random.default_rng(i))[0] for i in range(400)]
    least = max(0, centre - crop / 2)
    assert least - 1 <= min(starts) < least + 0.05 * crop
    assert centre - 0.05 * crop < max(starts) <= centre
    assert np.mean(starts) == pytest.approx((least + centre) / 2, abs=0.05 * crop)
    late = [crops._start(index, round(centre), crop, np.random.default_rng(i))[0] for i in range(50)]
    assert max(late) <= max(0, round(centre) - crop), "the crop ends with the recording"

"""Say what a config costs and sees: parameters, multiply-accumulates, bytes, frames, empty mel bands; draw its inputs.

python src/describe.py --config configs/sed/synth_cnn.yaml --clips 6     # pictures of 6 augmented training inputs
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from earshot import pictures, runs
from earshot.augment.pipeline import augment_batch
from earshot.augment.spectrogram import build_spec_augment
from earshot.augment.waveform import build_waveform_augment
from earshot.config import Config, load_config
from earshot.dataset import TrainingClips, collate, load_data
from earshot.features import FrontEnds
from earshot.labels import read_classes
from earshot.logmel import empty_mel_bands, n_frames
from earshot.timebase import TimeBase
from earshot.training import batch_augment, seed_step


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    config = load_config(options.config, options.overrides)
    describe(config, options.classes or count_classes(config), options.seconds or config.window_seconds)
    if options.clips:
        out = options.out or Path("runs") / "describe" / f"{options.config.stem}.png"
        draw_inputs(config, options.clips, out)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=0, help="draw so many augmented training inputs (needs the data)")
    parser.add_argument("--out", type=Path, help="PNG of --clips (default: runs/describe/<config>.png)")
    parser.add_argument("--classes", type=int, default=0, help="number of classes (default: that of the data)")
    parser.add_argument("--seconds", type=float, default=0, help="length of the counted input (default: the window)")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def count_classes(config: Config) -> int:
    path = Path(config.data.classes or Path(config.data.root) / "classes.csv")
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist, so the number of classes is unknown: prepare the data or give --classes"
        )
    return len(read_classes(path))


def describe(config: Config, classes: int, seconds: float):
    """Print the figures of one input of `seconds`."""
    model = runs.make_model(config, classes, weights_follow=True).eval()
    n_samples = round(seconds * config.data.sample_rate)
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"model {config.model.name}, {classes} classes")
    print(f"  parameters           {parameters:,} ({trained:,} trained)")
    for name, size in (("fp32", 4), ("fp16", 2), ("int8", 1)):
        print(f"  bytes in {name}        {parameters * size:,} + {buffers * size:,} of batch norm statistics")
    print(f"  multiply-accumulates {count_macs(model, config, n_samples):,} for {seconds:g} s (without front end)")
    for name, params in config.frontends.items():
        grid = TimeBase(config.data.sample_rate, params.hop_length)
        frames = n_frames(n_samples, params)
        output_ms = 1000 * grid.pooled(model.pool).frame_seconds
        frame_ms = 1000 * grid.frame_seconds
        size = f"{frames} frames x {params.n_mels} mels"
        print(f"  front end {name}: {size}, a frame every {frame_ms:g} ms, an output every {output_ms:g} ms")
        empty = empty_mel_bands(params)
        if empty:
            print(
                f"  WARNING: {len(empty)} of {params.n_mels} mel bands hold no FFT bin and are always silent: {empty}"
            )
            print("  raise n_fft or lower n_mels")


def count_macs(model: torch.nn.Module, config: Config, n_samples: int) -> int:
    """True multiply-accumulates of convolutions and matrix products for one input (PyTorch's FLOP counter / 2)."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = {}
    for name in model.inputs:
        if name in config.frontends:
            params = config.frontends[name]
            inputs[name] = torch.zeros(1, 1, n_frames(n_samples, params), params.n_mels)
        else:
            inputs[name] = torch.zeros(1, n_samples if name == "waveform" else len(config.data.metadata))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return counter.get_total_flops() // 2


def draw_inputs(config: Config, count: int, path: Path):
    """The first training clips of fold 0, plain and, where the config augments, twice as the model would see them."""
    train, _ = load_data(config.data).split(0, config.data.folds)
    a, cache = config.augment, Path(config.data.root) / "cache"
    plain = TrainingClips(train, config.data, config.frontends, config.seed, None, cache)
    augmented = TrainingClips(
        train, config.data, config.frontends, config.seed, build_waveform_augment(a.waveform), cache
    )
    augments = a.waveform or a.image or a.logmel or a.spec_augment or a.mixup_on != "none"
    hearings = [("plain", plain, 0)] + [(f"augmented {n + 1}", augmented, n) for n in range(2 if augments else 0)]
    name, params = next(iter(config.frontends.items()))
    front_ends, index = FrontEnds(config.frontends, (name,)), [i % len(plain) for i in range(count)]
    columns = []
    for title, clips, epoch in hearings:
        batch = collate([clips[(epoch, i)] for i in index])
        generator = seed_step(config.seed, epoch, 0, 0)
        if clips is plain:
            logmel = front_ends(batch)[name]
        else:
            logmel = masked(augment_batch(batch, front_ends, batch_augment(a), generator)[name], a.spec_augment)
        columns.append([(f"{title}: {c}", image[0].numpy()) for c, image in zip(batch["clip_id"], logmel, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = [image for row in zip(*columns, strict=True) for image in row]
    pictures.logmels(sheet, params.hop_length / params.sample_rate, path, columns=len(columns))
    how = "plain and twice augmented" if augments else "plain: this config augments nothing"
    print(f"-> {path}: {count} clips, {how}")


def masked(logmel: torch.Tensor, spec_augment: dict) -> torch.Tensor:
    """(B, C, T, F) with the stripes that the model drops after its input batch norm: at the mean of each band."""
    module = build_spec_augment(spec_augment)
    if module is None:
        return logmel
    mean = logmel.mean(dim=(0, 1, 2), keepdim=True)
    return module.train()(logmel - mean) + mean


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

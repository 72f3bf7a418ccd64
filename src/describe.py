"""Say what a config costs and sees: parameters, operations, bytes, frames, empty mel bands; draw its inputs.

python src/describe.py --config configs/sed/synth_cnn.yaml --clips 6     # pictures of 6 augmented training inputs
python src/describe.py --config configs/sed/synth_cnn.yaml --gallery 3   # each kind of augmentation on 3 of them
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from earshot.script import check_first, run_script

from earshot.config import Config, check_config, flag_meant, load_config
from earshot.messages import Parser, check_numbers, command_line, plural


def parse_args() -> argparse.Namespace:
    parser = Parser(flag_meant, description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=0, help="draw so many augmented training inputs (needs the data)")
    parser.add_argument("--gallery", type=int, default=0, help="draw every mixing and masking on so many inputs")
    parser.add_argument("--out", type=Path, help="PNG (default: runs/describe/<config>.png, <config>_gallery.png)")
    parser.add_argument("--classes", type=int, default=0, help="number of classes (default: that of the data)")
    parser.add_argument("--seconds", type=float, default=0, help="length of the counted input (default: the window)")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    check_numbers(options, "clips", "gallery", "classes", "seconds")
    return options


def check_command():
    """What needs no data and no network: the options, and the config with its overrides."""
    options = parse_args()
    check_config(options.config, options.overrides)


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

import torch

from earshot import runs
from earshot.augment.hidden import INPUT, SCHEMES, SpecAugmentPP, sample_spec_augment_pp, spec_augment_pp
from earshot.augment.mixing import fmix, mix, sample_fmix_mask
from earshot.augment.pipeline import augment_batch
from earshot.augment.spectrogram import build_spec_augment, roll, sample_roll, sample_spec_augment, spec_augment
from earshot.augment.waveform import build_waveform_augment
from earshot.competitions import get_competition
from earshot.data import pseudo
from earshot.data.labels import split_classes
from earshot.data.prepared import load_data
from earshot.files import check_ending, check_writable
from earshot.inputs.record import Input
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.models.counting import count, folded_bytes
from earshot.pictures.sounds import logmels
from earshot.sound.logmel import LogmelParams, empty_mel_bands
from earshot.sound.timebase import TimeBase
from earshot.training.checks import check_shapes
from earshot.training.examples import TrainingClips, collate
from earshot.training.schedule import seed_step


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    default = str(Path("runs") / "describe" / options.config.stem)
    inputs, gallery = (options.out or Path(default + ending) for ending in (".png", "_gallery.png"))
    for asked, out in ((options.clips, inputs), (options.gallery, gallery)):
        if asked:
            check_ending(out, ".png", ".pdf", ".svg")
            check_writable(out, "give --out FILE")
    config = load_config(options.config, options.overrides)
    describe(config, options.classes or count_classes(config), options.seconds or config.predict.window_seconds)
    if options.clips:
        draw_inputs(config, options.clips, inputs)
    if options.gallery:
        draw_gallery(config, options.gallery, gallery)


def count_classes(config: Config) -> int:
    path = Path(config.data.classes or Path(config.data.root) / "classes.csv")
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist, so the number of classes is unknown: prepare the data "
            f"({command_line('prepare', config.data.competition or 'NAME')}, --source FOLDER) or give --classes N"
        )
    return len(split_classes(path, config.data.levels, config.data.part)[0])


def describe(config: Config, classes: int, seconds: float):
    """Print the figures of one input of `seconds`."""
    model = runs.make_model(config, classes, weights_follow=True).eval()
    check_shapes(model, config, classes)
    n_samples, heard = round(seconds * config.data.sample_rate), config.inputs(model.inputs)
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"model {config.model.name}, {plural(classes, 'classes')}, reads {', '.join(model.inputs)}")
    print(f"  parameters           {parameters:,} ({trained:,} trained)")
    for name, size in (("fp32", 4), ("fp16", 2)):
        print(f"  bytes in {name}        {parameters * size:,} + {buffers * size:,} of batch norm statistics")
    given = {name: torch.empty((1, *heard.shapes(n_samples)[name]), device="meta") for name in model.inputs}
    folded = f"{folded_bytes(model, given):,} with batch norm folded and biases of 4 bytes"
    print(f"  bytes in int8        {folded} (a graph's own: src/export.py)")
    for length in sorted({seconds, 10.0}):  # 10 s: what the PANNs paper states
        costs = count(model, heard, round(length * config.data.sample_rate))
        print(f"  multiply-accumulates {costs.macs:,} for {length:g} s, and {costs.front_end_macs:,} of the front end")
        if length == seconds:
            limits = get_competition(config.data.competition).limits
            for said in limits.broken(parameters / 1000, costs.macs / 1e6):
                print(f"  WARNING: {config.data.competition} {said}")
        if length == 10.0:
            print(f'  PANNs\' "multi-adds" {costs.paper_multi_adds:,} for 10 s (as their paper counts, STFT included)')
    describe_pseudo(config)
    for name, shape in heard.shapes(n_samples).items():
        describe_input(name, heard[name], shape, heard.sample_rate, model.pool)


def describe_pseudo(config: Config):
    """Print what pseudo-labels train and how, fold by fold."""
    if not config.data.pseudo:
        return
    manifest, record, o = pseudo.read_manifest(config.data.pseudo), config.augment.pseudo, config.optim
    asked = [record.probability(epoch, o.epochs) for epoch in range(o.epochs)] or [0.0]
    how = f"{record.how}, probability {asked[0]:.2f} to {max(asked):.2f}, weight {record.weight:g}"
    print(f"  pseudo-labels {config.data.pseudo}: {how}, {manifest.mode}, by {', '.join(manifest.runs)}")
    for fold in manifest.folds:
        own, labels = manifest.masses[str(fold)]
        windows = pseudo.read_windows(config.data.pseudo, fold)
        print(
            f"    fold {fold}: {plural(len(windows), 'windows')} of {manifest.window_seconds:g} s, mass {own:.1f} "
            f"beside {labels:.1f} of labels"
        )


def describe_input(name: str, record: Input, shape: tuple[int, ...], rate: int, pool: int):
    """Print what an input is: its shape, its frames, bands that hold nothing."""
    own = f" at {record.sample_rate} Hz" if record.sample_rate not in (0, rate) else ""
    sides = f", {record.channels}" if record.channels not in ("", "mono") else ""
    if not record.picture:
        if record.kind not in ("waveform", "metadata"):
            print(f"  input {name}: {record.kind} of shape {' x '.join(map(str, shape))}{own}{sides}")
        return
    size = f"{shape[1]} frames x {shape[2]} {'mels' if isinstance(record, LogmelParams) else 'bands'}{own}{sides}"
    grid = TimeBase(record.sample_rate, record.hop) if record.hop else None
    times = f", a frame every {1000 * grid.frame_seconds:g} ms, an output every " + (
        f"{1000 * grid.pooled(pool).frame_seconds:g} ms") if grid else ""  # fmt: skip
    print(f"  front end {name}: {size}{times}")
    empty = empty_mel_bands(record) if isinstance(record, LogmelParams) else []
    if empty:
        print(f"  WARNING: {len(empty)} of {record.n_mels} mel bands hold no FFT bin and are always silent: {empty}")
        print("  raise n_fft or lower n_mels")


def first_picture(config: Config) -> str:
    """The input that is drawn."""
    if name := next((name for name, record in config.frontends.items() if record.picture), ""):
        return name
    raise ValueError("no input of this config is a picture: there is nothing to draw")


def draw_inputs(config: Config, count: int, path: Path):
    """The first training clips of fold 0, plain and, where the config augments, twice as the model would see them."""
    train = load_data(config.data).split(0, config.data.folds)[0].thinned(config.data, config.seed)
    a, cache = config.augment, config.data.caches
    name = first_picture(config)
    heard = config.inputs((name,))
    plain = TrainingClips(train, config.data, heard, config.seed, None, cache)
    augmented = TrainingClips(train, config.data, heard, config.seed, build_waveform_augment(a.waveform), cache)
    augments = any(a.acting.values())
    hearings = [("plain", plain, 0)] + [(f"augmented {n + 1}", augmented, n) for n in range(2 if augments else 0)]
    front_ends, index = FrontEnds(heard), [i % len(plain) for i in range(count)]
    columns = []
    for title, clips, epoch in hearings:
        batch = collate([clips[(epoch, i)] for i in index])
        generator = seed_step(config.seed, epoch, 0, 0)
        if clips is plain:
            logmel = front_ends(batch)[name]
        else:
            logmel = masked(augment_batch(batch, front_ends, a.batch, generator)[name], config)
        columns.append([(f"{title}: {c}", image[0].numpy()) for c, image in zip(batch["clip_id"], logmel, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = [image for row in zip(*columns, strict=True) for image in row]
    logmels(sheet, heard.timebase(1).frame_seconds, path, len(columns), heard[name].hertz)
    how = "plain and twice augmented" if augments else "plain: this config augments nothing"
    print(f"-> {path}: {plural(count, 'clips')}, {how}")


def masked(logmel: torch.Tensor, config: Config) -> torch.Tensor:
    """Mask the stripes of (B, C, T, F) that the model masks in training, after its input batch norm: 0 is the mean of
    each band."""
    plus = {k: v for k, v in config.augment.spec_augment_pp.items() if k != "layers"}
    if plus and INPUT in config.augment.spec_augment_pp.get("layers", (INPUT,)):
        module = SpecAugmentPP(**plus)
    else:
        module = build_spec_augment(config.augment.spec_augment)
    if module is None:
        return logmel
    mean = logmel.mean(dim=(0, 1, 2), keepdim=True)
    return module.train()(logmel - mean) + mean


def draw_gallery(config: Config, count: int, path: Path):
    """Training inputs of fold 0 side by side, and below each what every augmentation makes of it."""
    train, _ = load_data(config.data).split(0, config.data.folds)
    cache = config.data.caches
    name = first_picture(config)
    heard = config.inputs((name,))
    clips = TrainingClips(train, config.data, heard, config.seed, None, cache)
    # clips far apart, so that partners differ in class
    batch = collate([clips[(0, i * len(clips) // count)] for i in range(count)])
    logmel = FrontEnds(heard)(batch)[name]
    rows = gallery(logmel, config, seed_step(config.seed, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    titles = [str(c) for c in batch["clip_id"]]
    sheet = [
        (f"{kind}: {titles[i]}" if kind == "plain" else kind, images[i, 0].numpy())
        for kind, images in rows.items() for i in range(count)
    ]  # fmt: skip
    logmels(sheet, heard.timebase(1).frame_seconds, path, count, heard[name].hertz)
    print(f"-> {path}: {plural(count, 'clips')}, {', '.join(rows)}")


def gallery(logmel: torch.Tensor, config: Config, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Show what every augmentation makes of the same clips, (B, C, T, F) each; a clip's partner is the next one."""
    a, partner = config.augment, torch.arange(len(logmel)).roll(-1)
    mask = sample_fmix_mask(generator, tuple(logmel.shape[2:]), 0.6, a.batch.fmix_decay)
    mean = logmel.mean(dim=(0, 1, 2), keepdim=True)
    low, high = logmel.amin(), logmel.amax()
    stripes = sample_spec_augment(generator, logmel.shape, **a.spec_augment)
    shown = {
        "plain": logmel,
        "FMix mask": torch.where(mask, high, low).expand_as(logmel),
        "FMix": fmix(logmel, mask, partner),
        "mixup": mix(logmel, 0.6, partner),
        "SpecAugment": spec_augment(logmel, **stripes),
    }
    plus = {k: v for k, v in a.spec_augment_pp.items() if k not in ("layers", "scheme")}
    numbers = sample_spec_augment_pp(generator, logmel.shape, **plus) | {"index": partner}
    for scheme in SCHEMES:
        shown[f"SpecAugment++ {scheme}"] = spec_augment_pp(logmel - mean, **numbers, scheme=scheme) + mean
    return shown | {"time shift": roll(logmel, **sample_roll(generator, logmel.shape))}


if __name__ == "__main__":
    run_script(main)

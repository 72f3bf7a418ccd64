"""Predict recordings with a trained run: every fold, then their mean.

python src/predict.py --run runs/sed/synth_cnn --clips data/synth/test_clips.csv     # -> the run's own test.npz
python src/predict.py --run runs/sed/synth_cnn --clips ~/recordings --out mine.npz --tta time_shift
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from earshot import audio, predictions, runs
from earshot.backends import TorchBackend
from earshot.competitions.tables import read_dataset
from earshot.inference import predict_clips, tta_variants
from earshot.labels import read_clips
from earshot.predictions import Clip


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    tta_variants(options.tta or ())
    run = runs.load_run(options.run)
    config = run.config
    clips = find_clips(options.clips, options.audio_root)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backends = [
        TorchBackend(runs.load_model(fold).to(device), config.frontends, device, config.optim.precision)
        for fold in run.folds
    ]
    started = time.monotonic()
    found, unreadable = predict_clips(
        backends, clips, runs.windowing(config), run.folds[0].about["classes"], run.folds[0].about["prior"],
        tta=config.predict.tta if options.tta is None else options.tta,
        progress=lambda some: tqdm(some, "predict", leave=False, disable=not sys.stderr.isatty()),
    )  # fmt: skip
    out = options.out or run.folder / "test.npz"
    if not options.out:
        for fold, of_fold in zip(run.folds, found, strict=True):
            of_fold.save(fold.folder / "test.npz")
    predictions.weighted_mean(found).save(out)
    seconds = time.monotonic() - started
    print(f"{len(clips)} recordings, {len(backends)} folds of {run.name}, {seconds:.1f} s -> {out}")
    if unreadable:
        listing = out.with_name(f"{out.stem}_unreadable.csv")
        runs.write_rows(listing, [{"clip_id": c, "reason": r} for c, r in unreadable])
        print(f"{len(unreadable)} recordings could not be read and got the training prior; see {listing}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run: runs/<task>/<name>")
    parser.add_argument("--clips", type=Path, required=True, help="a table (clip_id, path) or a folder of recordings")
    parser.add_argument(
        "--audio-root", type=Path, help="folder the table's paths are relative to (default: dataset.json)"
    )
    parser.add_argument("--out", type=Path, help="where to write (default: test.npz of the run and of each fold)")
    parser.add_argument("--tta", nargs="*", help="test-time augmentations (default: the config's)")
    return parser.parse_args()


def find_clips(source: Path, audio_root: Path | None) -> list[Clip]:
    """A clip table or a folder -> recordings; a folder's ids are the file names without their endings."""
    if source.is_dir():
        paths = audio.find_audio(source)
        if not paths:
            raise ValueError(f"{source} holds no wav, flac, ogg or mp3 file")
        ids = [str(p.relative_to(source).with_suffix("")) for p in paths]
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise ValueError(
                f"{source} holds several files of one name: {', '.join(twice[:5])}; rename them or use a table"
            )
        return [Clip(i, p) for i, p in zip(ids, paths, strict=True)]
    table = read_clips(source)
    if not len(table):
        raise ValueError(f"{source} lists no clips")
    root = audio_root
    if root is None:
        beside = source.parent / "dataset.json"
        root = Path(read_dataset(source.parent)["source"]) if beside.is_file() else source.parent
    return [Clip(i, root / p) for i, p in zip(table.clip_id, table.path, strict=True)]


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

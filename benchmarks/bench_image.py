"""Whether a bundle passes its dry run where only Kaggle's image and its own wheels can be imported.

OMP_NUM_THREADS=1 python benchmarks/bench_image.py --record          # about three minutes; fetches wheels through pip

A network like the demo's (its config, random weights, all folds) is exported and bundled with the wheels that
src/bundle.py --fetch-wheels finds, twice: as Kaggle gets it, with wheels for the image's Python, whose tags, needs and
sizes are checked and for which this machine's package stands in during the run; and with wheels for this Python, which
the run really imports. Both times every scene must pass, and a bundle without wheels must be refused. The figure is 1
where all that holds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np
from results import record

import tiny_wheels
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kaggle.dry_run import dry_run
from earshot.kaggle.image import Image, read_image
from earshot.kaggle.wheels import RUNTIMES, fetch_wheels

FOLDS, MINUTES = 2, 2.0
CONFIG = ROOT / "configs" / "sed" / "synth_cnn.yaml"


def make_run(root: Path, config_path: Path) -> Path:
    """A run folder with the exported graphs of the demo's network, untrained."""
    import onnx
    import torch

    from earshot import files, runs
    from earshot.config import load_config
    from earshot.export.graph import ExportSettings, export_run
    from earshot.sound.timebase import TimeBase
    from earshot.synth.sounds import SPECIES

    torch.set_num_threads(1)
    config, classes = load_config(config_path), sorted(SPECIES)
    torch.manual_seed(0)
    model = runs.make_model(config, len(classes)).eval()
    front_end = next(iter(config.frontends.values()))
    fold = runs.create_fold(root / "sed" / "demo" / "fold0", config, resume=False)
    grid = TimeBase(config.data.sample_rate, front_end.hop_length, model.pool)
    about = runs.describe_run(config, 0, classes, np.full(len(classes), 0.1), grid) | {"finished": True}
    runs.save_weights(fold.folder / "best.safetensors", model, about)
    files.write_text(fold.folder / "run.json", json.dumps(about))
    (path,) = export_run(runs.load_run(fold.folder.parent), ExportSettings(check_oof=False), say=lambda text: None)
    graph = onnx.load(path)
    said = json.loads(next(p.value for p in graph.metadata_props if p.key == "earshot"))
    for k in range(1, FOLDS):
        onnx.helper.set_model_props(graph, {"earshot": json.dumps(said | {"folds": [k]})})
        (fold.folder.with_name(f"fold{k}")).mkdir()
        onnx.save(graph, fold.folder.with_name(f"fold{k}") / path.name)
    return fold.folder.parent


def passes(run: Path, root: Path, image: Image, image_list: Path | None) -> bool:
    """Wheels fetched for `image`, a bundle of them, all scenes of its dry run."""
    wheels = root / "wheels"
    fetch_wheels(wheels, image, [RUNTIMES["onnx"]])
    settings = BundleSettings(
        runs=(run,), competition="synth", slug="some-one/image-bench", wheels=wheels, image_packages=image_list
    )
    results = dry_run(build(settings, root / "kernels"), MINUTES, image=image)
    return all(not result.problems for result in results)


def is_refused_without_wheels(run: Path, root: Path) -> bool:
    try:
        build(BundleSettings(runs=(run,), competition="synth", slug="some-one/image-bench"), root / "bare")
    except ValueError as error:
        return "--fetch-wheels" in str(error)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figure to results.json")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the network (default: the demo's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        run = make_run(root / "runs", options.config)
        image = read_image()
        here = replace(image, python=sys.version_info[:2])
        found = {
            "refused without wheels": is_refused_without_wheels(run, root),
            f"Python {image.version}, as Kaggle": passes(run, root / "kaggle", image, None),
            f"Python {here.version}, wheels really imported": passes(
                run, root / "here", here, tiny_wheels.write_image(root / "image.txt")
            ),
        }
    for what, holds in found.items():
        print(f"{what}: {'yes' if holds else 'NO'}")
    if options.record:
        command = "OMP_NUM_THREADS=1 python benchmarks/bench_image.py --record"
        record("image_dry_run", int(all(found.values())), "1: a bundle passes on Kaggle's packages", command)


if __name__ == "__main__":
    main()

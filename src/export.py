"""Export a trained run to graphs that predict fast on a CPU, without PyTorch.

python src/export.py --run runs/sed/synth_cnn --format onnx                 # fold<k>/model.onnx
python src/export.py --run runs/sed/synth_cnn --format openvino --int8      # fold<k>/model_int8.xml and .bin
python src/export.py --run runs/sed/synth_cnn --format openvino --precision auto    # bf16 where the gates accept it
python src/export.py --run runs/sed/synth_cnn --format onnx --together      # together.onnx: all folds in one
python src/export.py --run runs/scenes/separable_coordatt --int8 --int8-head    # every layer: the smallest file
python src/export.py --run runs/sed/synth_cnn --push-to-hub me/synth-cnn   # and to the Hugging Face Hub, with a card

A graph is written only if it answers as PyTorch does and scores on the held-out clips what the run's OOF scores.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from earshot.script import check_first, run_script

from earshot import runs
from earshot.export.settings import AUTO, CHOICES, FLOAT_PARTS, ExportSettings
from earshot.files import check_writable
from earshot.messages import Parser
from earshot.prediction.backends import ENDINGS, check_format
from earshot.prediction.precision import PRECISIONS

DEFAULTS = ExportSettings()


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run: runs/<task>/<name>")
    add("--format", default="onnx", help=" or ".join(ENDINGS))
    add("--int8", action="store_true", help="8-bit integers, calibrated on clips of each fold")
    add("--int8-head", action="store_true", help="first convolution and last layers in 8 bits too (else float32)")
    add(
        "--precision",
        choices=(*PRECISIONS, AUTO),
        default=DEFAULTS.precision,
        help="that OpenVINO computes in: bf16 is faster where a processor multiplies in it; auto: that where it passes",
    )
    add(
        "--exporter",
        choices=CHOICES,
        default=DEFAULTS.exporter,
        help="of torch's: the older one, the newer one, or (auto, default) the newer where the older cannot",
    )
    add("--folds", type=int, nargs="+", help="only these (default: all trained)")
    add("--together", action="store_true", help="one graph for all folds, which share one log-mel")
    add("--out", type=Path, help="folder for the graphs (default: the run's own)")
    add("--push-to-hub", metavar="USER/NAME", help="upload the graphs to a model of the Hugging Face Hub, with a card")
    add("--public", action="store_true", help="a new model is for everybody (default: private)")
    add("--license", default="", metavar="ID", help="that the card names, such as mit or cc-by-nc-4.0")
    add("--max-drop", type=float, default=DEFAULTS.max_drop, help="of the watched score on held-out clips")
    add("--max-difference", type=float, default=DEFAULTS.max_difference, help="of a probability to PyTorch")
    add("--oof-clips", type=int, default=0, help="check only so many held-out clips a fold (default: all)")
    add("--no-oof", action="store_true", help="do not check held-out clips (where the training data is not at hand)")
    add("--calibration-clips", type=int, default=DEFAULTS.calibration_clips, help="for --int8: how many")
    add(
        "--calibrate-on",
        choices=("held-out", "training"),
        default=DEFAULTS.calibrate_on,
        help="for --int8: clips of a fold (--together: all); held-out ones are like the test, the gate hears them too",
    )
    return parser.parse_args()


def check_command() -> argparse.Namespace:
    """What needs no network: options that go together, and a run that is there."""
    options = parse_args()
    check_format(options.format)
    if options.int8_head and not options.int8:
        raise ValueError("--int8-head says more of --int8: give both")
    if (options.public or options.license) and not options.push_to_hub:
        raise ValueError("--public and --license are of --push-to-hub: give it too")
    check_writable((options.out or options.run) / "fold0" / f"model.{options.format}", "give --out FOLDER")
    settings_of(options)
    runs.load_run(options.run)
    return options


def settings_of(options: argparse.Namespace) -> ExportSettings:
    """What is exported, by the options."""
    return ExportSettings(
        graph_format=options.format,
        int8=options.int8,
        precision=options.precision,
        together=options.together,
        max_difference=options.max_difference,
        max_drop=options.max_drop,
        check_oof=not options.no_oof,
        oof_clips=options.oof_clips,
        calibration_clips=options.calibration_clips,
        calibrate_on=options.calibrate_on,
        float_parts=() if options.int8_head else FLOAT_PARTS,
        exporter=options.exporter,
    )


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

from earshot import files
from earshot.export.graph import export_run
from earshot.kaggle import hub
from earshot.kaggle.model_card import build_model_folder
from earshot.prediction.free_cores import use_free_cores


def main():
    options = check_command()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    run = runs.load_run(options.run)
    if options.folds:
        here = {fold.fold: fold for fold in run.folds}
        if unknown := sorted(set(options.folds) - set(here)):
            raise ValueError(f"{run.folder} has no trained fold {', '.join(map(str, unknown))} (folds: {sorted(here)})")
        run = replace(run, folds=tuple(here[fold] for fold in sorted(set(options.folds))))
    hub_client = hub.connect(options.push_to_hub) if options.push_to_hub else None
    use_free_cores(key="")
    graphs = export_run(run, settings_of(options), options.out)
    if hub_client:
        with files.scratch_folder() as folder:
            build_model_folder(run, graphs, folder, options.license)
            hub.push_model(hub_client, folder, options.push_to_hub, options.public)


if __name__ == "__main__":
    run_script(main)

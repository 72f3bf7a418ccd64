"""How far int8 graphs are from float32 ones, by how NNCF finds ranges and corrects biases; on a trained run.

OMP_NUM_THREADS=1 python benchmarks/bench_int8.py runs/sed/synth_cnn14_att          # all folds
OMP_NUM_THREADS=1 python benchmarks/bench_int8.py runs/scenes/esc10_cnn9 --folds 0

Ranges are measured on 64 held-out clips, errors on the same windows: root mean square and largest difference of logits
(of probabilities, where a head has no logits), and how often the first class is another.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import numpy as np
import onnx
from nncf.quantization.range_estimator import RangeEstimatorParameters

from earshot import runs
from earshot.data.prepared import load_data
from earshot.export import graph as graph_export
from earshot.export import tracing
from earshot.export.int8 import FLOAT_PARTS, calibration_inputs, idle_casts_to_identities, quantise, quantised
from earshot.prediction.backends import TorchBackend, open_graph

CLIPS = 64
WAYS = {  # NNCF's fast bias correction, advanced parameters other than ours
    "NNCF's defaults": (True, {"activations_range_estimator_params": RangeEstimatorParameters()}),
    "ranges of all values": (True, {}),
    "these, biases not corrected": (True, {"disable_bias_correction": True}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folds", type=int, nargs="+")
    options = parser.parse_args()
    run = runs.load_run(options.run)
    data = load_data(run.config.data)
    print("| fold | int8 | rms | largest | other first class |\n|---|---|---|---|---|")
    for fold in run.folds:
        if not options.folds or fold.fold in options.folds:
            measure(run, fold, data.split(fold.fold, run.config.data.folds)[1])


def measure(run, fold, held_out):
    """Print a line for each way of one fold."""
    with tempfile.TemporaryDirectory() as work:
        path, model = Path(work) / "fp32.onnx", runs.load_model(fold)
        about = graph_export.describe(run, [fold], [model], graph_export.ExportSettings())
        tracing.trace([model], run.config, about, path)
        inputs = calibration_inputs(TorchBackend(model, run.config.inputs(model.inputs)), run, held_out, CLIPS)
        expected = answers(path, inputs)
        for name, (fast, advanced) in WAYS.items():
            report(fold, name, expected, answers(small_graph(path, inputs, fast, advanced, about), inputs))
        report(fold, "as exported", expected, answers(graph_export.to_openvino(quantise(path, inputs), about), inputs))


def small_graph(path: Path, inputs, fast: bool, advanced: dict, about: dict) -> Path:
    """The int8 graph of one way, in OpenVINO."""
    graph = quantised(idle_casts_to_identities(onnx.load(path)), inputs, FLOAT_PARTS, fast, **advanced)
    onnx.save(graph, path.with_name("way.onnx"))
    return graph_export.to_openvino(path.with_name("way.onnx"), about)


def answers(path: Path, inputs) -> tuple[np.ndarray, np.ndarray]:
    """(logits or probabilities of all that the graph decides, clip outputs) of every window."""
    graph = open_graph(path)
    outputs = [graph.run(one) for one in inputs]
    name = next(n for n in ("segmentwise_logit", "logit", "clipwise_output") if n in outputs[0])
    return np.concatenate([o[name].reshape(1, -1) for o in outputs]), np.concatenate(
        [o["clipwise_output"] for o in outputs]
    )


def report(fold, name: str, expected, found):
    error = found[0] - expected[0]
    other = np.sum(expected[1].argmax(axis=1) != found[1].argmax(axis=1))
    print(
        f"| {fold.fold} | {name} | {np.sqrt(np.mean(error**2)):.4f} | {np.abs(error).max():.3f} | "
        f"{other} of {len(error)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

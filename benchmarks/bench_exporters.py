"""Torch's two exporters on every network: which graphs pass, and which run faster.

OMP_NUM_THREADS=1 python benchmarks/bench_exporters.py                       # narrow networks; ten minutes of a core
OMP_NUM_THREADS=1 python benchmarks/bench_exporters.py --full --networks efficientnet_b0 cnn14_att cnn_small

Narrow networks (tests/tiny_networks.py) must answer as PyTorch does, within 3e-3, at four batch sizes and lengths of
which the exporter saw none. --full: networks of their real size (bench_backbones.py), one 5-s window, CPU milliseconds
in ONNX Runtime, both graphs by turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np
import torch
from bench_backbones import MELS, NETWORKS
from results import machine

import tiny_networks
from earshot.export.tracing import EXPORTERS, _Traced, reason, written
from earshot.models import MODELS, build_model

OUTPUTS = ("clipwise_output", "segmentwise_output")
SHAPES = ((1, 101), (3, 101), (1, 203), (1, 64))  # clips, frames
TIME_AXIS = {"logmel": 2, "waveform": 1, "extractor": 1, "vggish": 1}
PARITY = 3e-3


def main():
    options = parse_args()
    print(machine())
    if options.full:
        for name in options.networks or ("efficientnet_b0", "cnn14_att", "cnn_small"):
            print(timed(name, options.rounds), flush=True)
        return
    passed = dict.fromkeys(EXPORTERS, 0)
    names = options.networks or list(MODELS)
    for name in names:
        said = {exporter: tried(name, exporter) for exporter in EXPORTERS}
        for exporter, text in said.items():
            passed[exporter] += text.startswith("passes")
        print(f"| {name} | " + " | ".join(said.values()) + " |", flush=True)
    print(", ".join(f"{exporter}: {count} of {len(names)}" for exporter, count in passed.items()))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--full", action="store_true", help="speeds of networks of real size")
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


def tried(name: str, exporter: str) -> str:
    """What came of exporting one narrow network."""
    torch.manual_seed(0)
    model = build_model(name, tiny_networks.K, tiny_networks.F, tiny_networks.SMALL.get(name, {})).eval()
    given = {key: tiny_networks.INPUTS[key](2, 101) for key in model.inputs}
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph, network, outputs = exported(model, given, Path(folder) / "model.onnx", exporter)
            session, worst = session_of(Path(folder) / "model.onnx"), 0.0
            for clips, frames in SHAPES:
                inputs = {key: tiny_networks.INPUTS[key](clips, frames) for key in model.inputs}
                with torch.no_grad():
                    expected = network(*inputs.values())
                found = session.run(outputs, {key: value.numpy() for key, value in inputs.items()})
                worst = max(worst, *(float(np.abs(f - e.numpy()).max()) for f, e in zip(found, expected, strict=True)))
    except Exception as error:  # of any kind: what an exporter or its runtime raises
        return f"refused: {reason(error)[:110]}"
    if worst > PARITY:
        return f"differs by {worst:.2g}"
    norms = sum(node.op_type == "BatchNormalization" for node in graph.graph.node)
    return f"passes, {len(graph.graph.node)} nodes" + f", {norms} batch norms left" * bool(norms)


def exported(model, given: dict[str, torch.Tensor], path: Path, exporter: str):
    """(graph, the traced network, its outputs)."""
    with torch.no_grad():
        outputs = [name for name in OUTPUTS if name in model(**given)]
    network = _Traced([model], list(given), outputs, False).eval()
    axes = {n: {0: "batch"} | ({TIME_AXIS[n]: f"{n}_steps"} if n in TIME_AXIS else {}) for n in given}
    axes |= {n: {0: "batch"} | ({1: "segments"} if n == "segmentwise_output" else {}) for n in outputs}
    return written(network, given, axes, path, exporter), network, outputs


def session_of(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def timed(name: str, rounds: int) -> str:
    """CPU milliseconds of one network's two graphs, as a row."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = NETWORKS[name]
    model = build_model(network["name"], 264, MELS["n_mels"], network.get("params", {})).eval()
    given = {"logmel": torch.randn(1, 1, 321, MELS["n_mels"]) * 8 - 30}
    with tempfile.TemporaryDirectory() as folder:
        sessions, times = {}, {exporter: [] for exporter in EXPORTERS}
        for exporter in EXPORTERS:
            path = Path(folder) / f"{exporter}.onnx"
            exported(model, given, path, exporter)
            sessions[exporter] = session_of(path)
        for _ in range(rounds + 1):
            for exporter, session in sessions.items():
                started = time.process_time()
                session.run(None, {"logmel": given["logmel"].numpy()})
                times[exporter].append((time.process_time() - started) * 1000)
    legacy, dynamo = (float(np.median(times[exporter][1:])) for exporter in EXPORTERS)
    return f"| {name} | {legacy:.1f} ms | {dynamo:.1f} ms | {legacy / dynamo:.2f} |"


if __name__ == "__main__":
    main()

"""Which backbone for a CPU kernel: milliseconds a 5-s window, memory, and what it scores after equal training minutes.

OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --record                      # speeds; some 30 minutes of a core
OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --networks efficientnet_b0 cnn_small --no-int8
OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --scores 3 --out benchmarks/backbones.csv     # trained 3 minutes

Speed: an ogg of invented sounds at 32 kHz from the file to probabilities on one thread, in windows of 5 s, through
ONNX Runtime and OpenVINO, in float32 and int8. All graphs are made first and then take turns; a figure is the median of
CPU seconds over rounds. `network` is the graph alone, `x limit` its time over that of its multiply-accumulates at the
rate at which this core multiplies matrices (float32, same run). Memory is of a process that never sees torch.
Scores (--scores MINUTES): each network trains from scratch for so many minutes of this machine, epochs chosen by its
own time, on the hard embedded competition (configs/sed/shift_cnn.yaml) and on ESC-10 (configs/tagging/esc10_cnn.yaml
with a loss for sigmoid heads), fold 0 of each: log-mels of 250 x 64, a third of what the speeds are of. Runs are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import bench_inference
import numpy as np
import pandas as pd
from results import machine, record

from earshot.messages import progress_bar

RATE, SECONDS, WINDOW = 32000, 60, 5
MELS = {"n_fft": 1024, "hop_length": 500, "n_mels": 128, "fmin": 50, "fmax": 14000}  # as configs/sed/birdcall_b0


def timm(backbone: str) -> dict:
    return {"name": "timm_sed", "params": {"backbone": backbone, "pretrained": False}}


NETWORKS = {
    "efficientnet_b0": timm("tf_efficientnet_b0"),
    "efficientnet_b1": timm("tf_efficientnet_b1"),
    "efficientnetv2_b0": timm("tf_efficientnetv2_b0"),
    "mobilenetv3_large": timm("mobilenetv3_large_100"),
    "mobilenetv4_small": timm("mobilenetv4_conv_small"),
    "mobilenetv4_medium": timm("mobilenetv4_conv_medium"),
    "regnety_200mf": timm("regnety_002"),
    "regnety_400mf": timm("regnety_004"),
    "regnety_800mf": timm("regnety_008"),
    "efficientvit_b0": timm("efficientvit_b0"),
    "convnext_atto": timm("convnext_atto"),
    "nfnet_l0": timm("eca_nfnet_l0"),
    "resnet18d": timm("resnet18d"),
    "cnn14_att": {"name": "cnn14_att"},
    "cnn_small": {"name": "cnn_small"},
}
RUNTIMES = {"onnx": "model.onnx", "openvino": "model.xml", "onnx int8": "int8.onnx", "openvino int8": "int8.xml"}


@dataclass
class Made:
    """The graphs of one network, its front end's windows and what it costs."""

    name: str
    graphs: dict[str, Path]  # by runtime
    macs: int  # a window, true multiply-accumulates of the network
    parameters: int


def main():
    options = parse_args()
    os.chdir(ROOT)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.scores:
        table = pd.DataFrame([scores_of(name, options.scores, work) for name in options.networks]).set_index("network")
        print(table.to_string())
        if options.out:
            finish(table, options.out)
        return
    made = [make(name, work / name, options.int8) for name in progress_bar(options.networks, "graphs")]
    table = measure(made, bench_inference.make_sounds(work / "sounds.ogg", SECONDS, RATE), options.rounds)
    print(f"\n{machine()}: {peak_rate() / 1e9:.1f} G multiply-accumulates a second\n{table.round(2).to_string()}")
    if options.out:
        finish(table, options.out)
    if options.record and "efficientnet_b0" in table.index:
        value = table.loc["efficientnet_b0", "x limit"]
        command = "OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --networks efficientnet_b0 --no-int8 --record"
        record("kernel_limit_ratio", round(float(value), 3), "times the core's arithmetic limit, B0, 5 s", command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    add("--rounds", type=int, default=5)
    add("--no-int8", dest="int8", action="store_false", help="leave int8 out, which takes a minute a network to make")
    add("--scores", type=float, metavar="MINUTES", help="train each network for so long instead of measuring speeds")
    add("--out", type=Path, help="CSV that columns are written to, beside those that stand there; a picture beside it")
    add("--work", type=Path, default=Path("runs/bench_backbones"), help="folder of graphs and runs")
    add("--record", action="store_true", help="append kernel_limit_ratio to benchmarks/results.json")
    return parser.parse_args()


def make(name: str, folder: Path, int8: bool) -> Made:
    """Export one untrained network, whose batch norms know the sounds, to every runtime; graphs that are there stay."""
    import torch

    from earshot.export import graph as graph_export
    from earshot.export.int8 import quantise
    from earshot.models import counting
    from earshot.prediction.backends import open_graph
    from earshot.sound import audio
    from earshot.sound.logmel import log_mel

    bench_inference.SYSTEMS[name] = (NETWORKS[name], MELS, RATE, WINDOW, WINDOW)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {runtime: folder / file for runtime, file in RUNTIMES.items() if int8 or "int8" not in runtime}
    costs = folder / "costs.json"
    if not (costs.is_file() and all(path.is_file() for path in graphs.values())):
        run, model = bench_inference.make_run(name, folder)
        graph = bench_inference.export(run, model, folder)
        about = open_graph(graph).about
        graph_export.to_openvino(graph, about)
        if int8:
            sounds = audio.load(folder / "calibration.ogg", RATE).reshape(8, -1)
            inputs = [{"logmel": log_mel(s[None], run.config.frontends["logmel"])[:, None]} for s in sounds]
            small = quantise(graph, inputs)
            graph_export.to_openvino(small.rename(folder / "int8.onnx"), about)
        heard = counting.count(model, run.config.inputs(model.inputs), WINDOW * RATE)
        costs.write_text(json.dumps([heard.macs, sum(p.numel() for p in model.parameters())]))
    return Made(name, graphs, *json.loads(costs.read_text()))


def measure(made: list[Made], recording: Path, rounds: int) -> pd.DataFrame:
    """A row a network: milliseconds a window of each runtime, from file to probabilities and of the graph alone."""
    from earshot.prediction.predictions import Clip

    clip, windows = Clip("sounds", recording), SECONDS // WINDOW
    ways = {(m.name, runtime): bench_inference.Fast(path, False) for m in made for runtime, path in m.graphs.items()}
    inputs = {key: window_of(way, recording) for key, way in ways.items()}
    whole, alone, rates = {key: [] for key in ways}, {key: [] for key in ways}, []
    for _ in progress_bar(range(rounds + 1), "rounds"):  # the first one warms up
        rates.append(peak_rate())
        for key, way in ways.items():
            whole[key].append(cpu_ms(lambda: way.predicted(clip)) / windows)  # noqa: B023
            alone[key].append(cpu_ms(lambda: way.member.backend.run(inputs[key])))  # noqa: B023
    rows = []
    for m in made:
        row = {"network": m.name, "M parameters": m.parameters / 1e6, "M MACs": m.macs / 1e6}
        row |= {f"{runtime} ms": np.median(whole[m.name, runtime][1:]) for runtime in m.graphs}
        best = min(("onnx", "openvino"), key=lambda runtime: np.median(alone[m.name, runtime][1:]))
        network = np.median(alone[m.name, best][1:])
        row |= {"network ms": network, "by": best, "x limit": network / (m.macs / max(rates) * 1000)}
        row["peak MB"] = peak_memory(m.graphs["onnx"], recording)
        rows.append(row)
    return pd.DataFrame(rows).set_index("network")


def window_of(way, recording: Path) -> dict[str, np.ndarray]:
    """What the graph is fed for the recording's first window."""
    from earshot.sound import audio

    frontends = way.member.backend.frontends
    heard = frontends.hear(audio.load(recording, RATE, 0, WINDOW), {})
    return {name: values[None] for name, values in heard.items()}


def cpu_ms(call) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1000


def peak_rate(size: int = 1024) -> float:
    """Multiply-accumulates a second of one thread, in a product of two matrices: the best of some."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    return size**3 / min(cpu_ms(lambda: a @ b) / 1000 for _ in range(5))


def peak_memory(graph: Path, recording: Path) -> float:
    """MB of a process that hears the recording through the graph."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "bench_inference.py"),
        "--memory-of",
        str(graph),
        str(recording),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["peak_mb"]


def scores_of(name: str, minutes: float, work: Path) -> dict:
    """One network after equal training time: macro AUC of hidden sites, accuracy of ESC-10's fold 0."""
    import bench_shift

    bench_shift.prepare()
    shift = trained(name, "configs/sed/shift_cnn.yaml", minutes)
    row = {"network": name, "minutes": minutes, "synth_shift validation": bench_shift.row_score(shift, "validation"),
           "synth_shift test": bench_shift.row_score(shift, "test")}  # fmt: skip
    if Path("data/esc10/dataset.json").is_file():
        run = trained(name, "configs/tagging/esc10_cnn.yaml", minutes, "loss={name: cross_entropy_sigmoid}")
        row["ESC-10 fold 0"] = accuracy_of(run)
    return row


def trained(name: str, config: str, minutes: float, *more: str) -> Path:
    """The run of one network and config, trained now for so many minutes where it is not finished."""
    import bench_shift

    from earshot import runs

    task, run = Path(config).parent.name, f"backbone_{name}_{minutes:g}min"
    fold = runs.FoldRun(Path("runs", task, run, "fold0"))
    if not (fold.folder.is_dir() and fold.finished):
        settings = (
            "train.py",
            "--config",
            config,
            "--fold",
            "0",
            "--resume",
            f"model={json.dumps(NETWORKS[name])}",
            *more,
        )

        def epochs(n: int) -> list[str]:
            return [f"optim.{key}" for key in (f"epochs={n}", "warmup_epochs=1", f"validate_every={n}")]

        bench_shift.script(*settings, "--name", f"{run}_timed", *epochs(2))
        seconds = pd.read_csv(Path("runs", task, f"{run}_timed", "fold0", "log.csv")).seconds.min()
        bench_shift.script(*settings, "--name", run, *epochs(max(int(minutes * 60 / seconds), 3)))
    return fold.folder.parent


def accuracy_of(folder: Path) -> float:
    from earshot import runs
    from earshot.data.prepared import load_data
    from earshot.ensemble.search import truth_of
    from earshot.metrics.clips import accuracy

    fold = runs.FoldRun(folder / "fold0")
    oof = fold.oof()
    return float(accuracy(truth_of(oof, load_data(fold.config.data)).target > 0.5, oof.clipwise_output))


def finish(table: pd.DataFrame, out: Path):
    """Put the columns into the CSV, beside those of other calls, and draw scores against speed where both are there."""
    if out.is_file():
        before = pd.read_csv(out, index_col="network")
        table = table.combine_first(before)[list(dict.fromkeys([*before.columns, *table.columns]))]
    table.to_csv(out, float_format="%.4g")
    scores = [c for c in ("synth_shift test", "ESC-10 fold 0") if c in table]
    if scores and "onnx ms" in table:
        draw(table.dropna(subset=["onnx ms", *scores]), scores, out.with_suffix(".png"))


def draw(table: pd.DataFrame, scores: list[str], path: Path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(scores), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, score in zip(np.atleast_1d(figure.subplots(1, len(scores))), scores, strict=True):
        speed = table[[c for c in table if c.endswith(" ms") and c != "network ms"]].min(axis=1)
        axes.scatter(speed, table[score])
        for name, x, y in zip(table.index, speed, table[score], strict=True):
            axes.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.set(xscale="log", xlabel="ms a 5-s window, the fastest runtime", ylabel=score)
        axes.margins(x=0.15)
    figure.savefig(path, dpi=90)
    print(f"-> {path}")


if __name__ == "__main__":
    main()

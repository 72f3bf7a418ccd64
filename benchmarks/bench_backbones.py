"""Which backbone for a CPU kernel: milliseconds a 5-s window, memory, and what it scores after equal training minutes.

OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --out benchmarks/backbones.csv    # speeds; ten minutes of a core
OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --networks efficientnet_b0 cnn_small --no-int8
OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --scores 2 --out benchmarks/backbones.csv      # two minutes each
OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --recipe 8 --networks mobilenetv4_small --record
python benchmarks/bench_backbones.py --table --out benchmarks/backbones.csv              # what stands there, drawn

Speed: an ogg of invented sounds at 32 kHz from the file to probabilities on one thread, in windows of 5 s, through
ONNX Runtime and OpenVINO, in float32 and int8. All graphs are made first and then take turns; a figure is the median of
CPU seconds over rounds. `network` is the graph alone, called once at a time, `x limit` its time over that of its
multiply-accumulates at the rate at which this core multiplies matrices (float32, same run). Memory is of a process that
never sees torch.
Scores (--scores MINUTES): each network trains from scratch for so many minutes of CPU time, its epochs chosen by the
CPU seconds of its own steps, so that others on the machine change nothing: on ESC-10 (configs/tagging/esc10_timm.yaml)
and on the hard embedded competition (configs/sed/shift_cnn.yaml), fold 0 of each: log-mels of 250 x 64, a third of what
the speeds are of. Runs are kept.
Recipe (--recipe EPOCHS): ESC-10 by configs/tagging/esc10_timm.yaml, and without what it says of timm backbones (WAYS),
equal epochs, --folds and --seeds: recorded as esc10_timm_recipe_gain_<network>.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
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
TASKS = {"esc10": "configs/tagging/esc10_timm.yaml", "synth_shift": "configs/sed/shift_cnn.yaml"}
WAYS = {  # what the recipe for timm backbones changes
    "plain": ("model.params.reduction=0", "optim.norm_batch=0"),
    "recipe": ("model.params.reduction=16", "optim.norm_batch=64"),
}
for _name in ("efficientnet_b0", "mobilenetv4_small", "regnety_200mf", "resnet18d"):  # without their last stage
    NETWORKS[f"{_name}_r16"] = {"name": "timm_sed", "params": NETWORKS[_name]["params"] | {"reduction": 16}}
RUNTIMES = {"onnx": "model.onnx", "openvino": "model.xml", "onnx int8": "int8.onnx", "openvino int8": "int8.xml"}
SPEEDS = {"float32": ("onnx ms", "openvino ms"), "int8": ("onnx int8 ms", "openvino int8 ms")}
COLUMNS = ("M parameters", "M MACs", *SPEEDS["float32"], *SPEEDS["int8"], "network ms", "by", "x limit", "peak MB",
           "minutes", "ESC-10 epochs", "ESC-10 fold 0", "synth_shift epochs", "synth_shift validation",
           "synth_shift test")  # fmt: skip


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
    if options.table or options.scores or options.recipe:
        if options.recipe:
            return compare_recipe(options)
        found = [scores_of(name, options.scores, options.tasks) for name in options.networks if options.scores]
        table = pd.DataFrame(found, columns=None if found else ["network"]).set_index("network")
        if found:
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
    add("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="what --scores trains on")
    add("--recipe", type=int, metavar="EPOCHS", help="train ESC-10 with and without the recipe for timm backbones")
    add("--folds", nargs="+", type=int, default=[0], help="of --recipe")
    add("--seeds", nargs="+", type=int, default=[1213], help="of --recipe")
    add("--table", action="store_true", help="measure nothing: draw what --out holds")
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
        shutil.rmtree(folder / "runs", ignore_errors=True)  # of a call that was stopped, or made no int8
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


def scores_of(name: str, minutes: float, chosen: list[str]) -> dict:
    """One network after equal training time: macro AUC of hidden sites, accuracy of ESC-10's fold 0."""
    import bench_shift

    row = {"network": name, "minutes": minutes}
    if "synth_shift" in chosen:
        bench_shift.prepare()
        run, row["synth_shift epochs"] = trained(name, TASKS["synth_shift"], minutes)
        row |= {f"synth_shift {split}": bench_shift.row_score(run, split) for split in ("validation", "test")}
    if "esc10" in chosen:
        run, row["ESC-10 epochs"] = trained(name, TASKS["esc10"], minutes)
        row["ESC-10 fold 0"] = accuracy_of(run)
    return row


def trained(name: str, config: str, minutes: float) -> tuple[Path, int]:
    """The run of one network and config of so many minutes' epochs, trained where it is not finished; its epochs."""
    task, run = Path(config).parent.name, f"backbone_{name}_{minutes:g}min"
    if not finished(folder := Path("runs", task, run)):
        epochs = max(int(minutes * 60 / epoch_seconds(name, config)), 2)
        train(name, config, run, 0, epochs)
    return folder, len(pd.read_csv(folder / "fold0" / "log.csv"))


def finished(run: Path, fold: int = 0) -> bool:
    from earshot import runs

    found = runs.FoldRun(run / f"fold{fold}")
    return found.folder.is_dir() and found.finished


def train(name: str, config: str, run: str, fold: int, epochs: int, *more: str):
    """One fold of one network by a config, for so many epochs, the first tenth of them warming up."""
    import bench_shift

    told = (f"optim.epochs={epochs}", f"optim.warmup_epochs={epochs / 10:g}", f"optim.validate_every={epochs}")
    bench_shift.script("train.py", "--config", config, "--fold", fold, "--resume", "--name", run, "threads=1",
                       *network_of(name, config), *told, *more)  # fmt: skip


def network_of(name: str, config: str) -> list[str]:
    """The settings that put a network into a config: timm backbones keep what the config says of them.

    Where one label is learned by a softmax, heads that have none learn by the loss for sigmoids.
    """
    from earshot.config import load_config

    network, made = NETWORKS[name], load_config(config)
    if network["name"] == made.model.name == "timm_sed":
        network = network | {"params": made.model.params | {"reduction": 0} | network["params"]}
    elif made.loss.name == "cross_entropy" and name == "cnn_small":
        network = network | {"params": {"activation": "softmax"}}
    told = [f"model={json.dumps(network)}"]
    if made.loss.name == "cross_entropy" and network.get("params", {}).get("activation") != "softmax":
        told.append("loss={name: cross_entropy_sigmoid}")
    return told


def epoch_seconds(name: str, config: str) -> float:
    """CPU seconds of an epoch's steps of a network on clips of noise: the fastest of some steps times their number."""
    import torch

    from earshot import losses, optim, runs
    from earshot.config import load_config
    from earshot.data.prepared import load_data

    made = load_config(config, network_of(name, config))
    data = load_data(made.data)
    clips = len(data.split(0, made.data.folds)[0].clips)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = runs.make_model(made, len(data.classes)).train().to(memory_format=torch.channels_last)
    optimizer = optim.build_optimizer("adamw", network, 1e-4, 0.0)
    loss_of, size = losses.build_loss(**vars(made.loss)), made.optim.batch_size
    batch = {"target": torch.eye(len(data.classes))[torch.arange(size) % len(data.classes)]}
    heard = torch.randn(size, *made.inputs(network.inputs)["logmel"].shape(made.data.sample_rate * 5))

    def step():
        loss_of(network(logmel=heard), batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return min(cpu_ms(step) for _ in range(5)) / 1000 * (clips // size)


def compare_recipe(options: argparse.Namespace):
    """ESC-10 with and without the recipe, equal epochs: accuracies of folds and seeds, and the mean gain recorded."""
    config, rows = TASKS["esc10"], []
    for name, seed, fold in itertools.product(options.networks, options.seeds, options.folds):
        found = {}
        for way, more in WAYS.items():
            run = f"backbone_{name}_{way}_{options.recipe}epochs_s{seed}"
            if not finished(folder := Path("runs/tagging", run), fold):
                train(name, config, run, fold, options.recipe, f"seed={seed}", *more)
            found[way] = accuracy_of(folder, fold)
        rows.append({"network": name, "seed": seed, "fold": fold} | found | {"gain": found["recipe"] - found["plain"]})
    table = pd.DataFrame(rows)
    print(table.round(4).to_string())
    for name, some in table.groupby("network") if options.record else ():
        folds, seeds = (" ".join(map(str, values)) for values in (options.folds, options.seeds))
        command = (f"OMP_NUM_THREADS=1 python benchmarks/bench_backbones.py --recipe {options.recipe} "
                   f"--networks {name} --folds {folds} --seeds {seeds} --record")  # fmt: skip
        unit = (f"gain of accuracy, folds {folds}, seeds {seeds}, {options.recipe} epochs: {some.plain.mean():.4f} to "
                f"{some.recipe.mean():.4f}")  # fmt: skip
        record(f"esc10_timm_recipe_gain_{name}", round(float(some.gain.mean()), 4), unit, command)


def accuracy_of(folder: Path, fold: int = 0) -> float:
    from earshot import runs
    from earshot.data.answers import truth_of
    from earshot.data.prepared import load_data
    from earshot.metrics.clips import accuracy

    run = runs.FoldRun(folder / f"fold{fold}")
    oof = run.oof()
    return float(accuracy(truth_of(oof, load_data(run.config.data)).target > 0.5, oof.clipwise_output))


def finish(table: pd.DataFrame, out: Path):
    """Put the columns into the CSV, beside those of other calls, and draw scores against speed where both are there."""
    if out.is_file():
        table = table.combine_first(pd.read_csv(out, index_col="network"))
    known = [name for name in NETWORKS if name in table.index]
    table = table.loc[known, [c for c in COLUMNS if c in table]]
    table.to_csv(out, float_format="%.4g")
    scores = [c for c in ("ESC-10 fold 0", "synth_shift test") if c in table]
    if scores and "onnx ms" in table:
        draw(table, scores, out.with_suffix(".png"))


def draw(table: pd.DataFrame, scores: list[str], path: Path):
    """A panel a score: the network's fastest runtime in float32, and in int8 where there is one, hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(7 * len(scores), 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, score in zip(np.atleast_1d(figure.subplots(1, len(scores))), scores, strict=True):
        some = table.dropna(subset=[score])
        speed = {kind: some[[c for c in some if c in columns]].min(axis=1) for kind, columns in SPEEDS.items()}
        for name in some.index:
            axes.plot([speed[kind][name] for kind in speed], [some[score][name]] * len(speed), color="0.8", zorder=1)
        axes.scatter(speed["float32"], some[score], label="float32")
        axes.scatter(speed["int8"], some[score], facecolors="white", edgecolors="C0", label="int8 (score of float32)")
        axes.set(xscale="log", xlabel="CPU milliseconds a 5-s window, the fastest runtime", ylabel=score)
        axes.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2, y=0.1)
        axes.legend(fontsize=8, loc="upper right")
        figure.draw_without_rendering()
        placed: list[tuple[float, float]] = []  # of names, in points; each goes up until it covers no other
        for name in some[score].sort_values().index:
            point = speed["float32"][name], some[score][name]
            x, at = axes.transData.transform(point) * 72 / figure.dpi
            y = at - 3
            while any(abs(x - other) < 95 and abs(y - under) < 9 for other, under in placed):
                y += 3
            placed.append((x, y))
            axes.annotate(name, point, xytext=(6, y - at), textcoords="offset points", fontsize=8)
    figure.savefig(path, dpi=90)
    print(f"-> {path}")


if __name__ == "__main__":
    main()

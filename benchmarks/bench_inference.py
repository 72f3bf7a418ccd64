"""From an ogg file to rows on one thread of a CPU: exported graphs against the notebook's way, with the same weights.

python benchmarks/bench_inference.py               # all parts, about three minutes of CPU
python benchmarks/bench_inference.py b0 overlap    # some: b0 overlap cnn14 memory
python benchmarks/bench_inference.py --run runs/sed/synth_cnn data/synth/test_audio/a.ogg   # a trained run's rows
python benchmarks/bench_inference.py --oof runs/sed/synth_cnn runs/scenes/esc10_cnn9   # scores of exported runs
--record appends the figures to benchmarks/results.json.

The notebook's way: librosa.load, a waveform a window, torchlibrosa inside the eager network, Python loops over frames.
Both ways alternate in this one process; the figure is the median of process CPU seconds. The networks have random
weights, batch norms that know such sounds, and logits of deviation 1; the threshold lies in the widest gap of the
outputs around it, so that equal rows do not hang on rounding. Where the processor multiplies in bf16, graphs for it are
measured beside float32 ones; units say how many rows differ from the notebook's. Sounds are invented: sweeps over
noise. A network with random weights amplifies the edges of overlapping windows (they see sound instead of reflection)
and rounding: see --run and --oof for those.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
import numpy as np
from notebook_way import ROW_SECONDS, Notebook
from results import record

B0 = {"name": "timm_sed", "params": {"backbone": "tf_efficientnet_b0", "pretrained": False}}
BIRDS = {"n_fft": 1024, "hop_length": 500, "n_mels": 128, "fmin": 50, "fmax": 14000}  # as configs/sed/birdcall_b0
FINE = {"n_fft": 2048, "hop_length": 480, "n_mels": 128, "fmin": 40, "fmax": 24000}  # as configs/sed/rfcx_b0_hop480
PANNS = {"n_fft": 1024, "hop_length": 320, "n_mels": 64, "fmin": 50, "fmax": 14000}  # as configs/sed/birdcall_cnn14_att
SYSTEMS = {  # network, front end, Hz, window and stride in seconds
    "b0": (B0, BIRDS, 32000, 5, 5),
    "overlap": (B0, FINE, 48000, 10, 5),
    "cnn14": ({"name": "cnn14_att"}, PANNS, 32000, 30, 30),
}  # fmt: skip
N_CLASSES = 264
PARTS = (*SYSTEMS, "memory")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument(
        "--oof", nargs="+", type=Path, help="trained and exported runs: what fast prediction costs them"
    )
    parser.add_argument("--run", nargs=2, type=Path, metavar=("RUN", "RECORDING"), help="a trained run on a recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)  # graph, recording: a process of its own
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory_of(*options.memory_of)))
        return
    command = f"python benchmarks/bench_inference.py {' '.join(options.parts)}"
    with tempfile.TemporaryDirectory() as work:
        if options.oof:
            figures = {"oof_drop_fast": (max(oof_drop(run) for run in options.oof), "score")}
            command = f"python benchmarks/bench_inference.py --oof {' '.join(map(str, options.oof))}"
        elif options.run:
            compare_trained(*options.run, Path(work), options.rounds)
            return
        else:
            figures = {}
            for part in options.parts:
                figures |= measure_memory(Path(work)) if part == "memory" else measure(part, Path(work), options.rounds)
    for name, (value, unit) in figures.items():
        print(f"{name} = {value:.3f} {unit}")
        if options.record:
            record(name, round(value, 4), unit, command)


def measure(part: str, work: Path, rounds: int) -> dict:
    """Alternate the notebook's way and ours on one invented recording -> times faster, by figure."""
    from earshot.prediction.predictions import Clip

    run, model = make_run(part, work)
    seconds, rate = 120 if part == "b0" else 60, SYSTEMS[part][2]
    clip = Clip("sounds", make_sounds(work / f"{part}.ogg", seconds, rate))
    ways = {"notebook": Notebook(model, run, batched=part == "overlap")}
    ways |= {name: Fast(graph, one_pass) for name, graph, one_pass in graphs_of(part, run, model, work, clip)}
    print(f"{part}: {seconds} s of ogg at {rate} Hz, {rounds} rounds")
    medians, unlike = alternate(ways, clip, gap(ways["notebook"].frames(clip)), rounds)
    figures = {}
    for name, way in ways.items():
        if name != "notebook":
            unit = f"times, {name}; random weights: {unlike[name]}"
            figures[way.figure(part)] = (medians["notebook"] / medians[name], unit)
    return figures


def compare_trained(folder: Path, recording: Path, work: Path, rounds: int):
    """The same table of a trained run's first fold at threshold 0.5, windows as the run has them and in one pass."""
    from earshot import runs
    from earshot.prediction.precision import multiplies_bf16
    from earshot.prediction.predictions import Clip

    run = runs.load_run(folder)
    run = replace(run, folds=run.folds[:1])
    model = runs.load_model(run.folds[0]).eval()
    plain = export(run, model, work)
    graphs = {"ONNX Runtime": filtered(plain)} | ({"bf16, OpenVINO": in_bf16(plain)} if multiplies_bf16() else {})
    ways = {"notebook": Notebook(model, run, batched=True)}
    for name, graph in graphs.items():
        ways[f"windows, {name}"] = Fast(graph, False)
        if ways[f"windows, {name}"].member.backend.pooling:
            ways[f"one pass, {name}"] = Fast(graph, True)
    windowing = run.config.predict
    print(f"{folder} on {recording.name}, windows of {windowing.window_seconds} s every {windowing.stride_seconds} s")
    alternate(ways, Clip("sounds", recording), 0.5, rounds)


def alternate(ways: dict, clip, threshold: float, rounds: int) -> tuple[dict[str, float], dict[str, str]]:
    """Median CPU seconds of each way, and how it differs from the notebook's; prints both."""
    expected, rows, unlike, times = ways["notebook"].frames(clip), {}, {}, {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            rows[name] = way.rows(clip, threshold)
            times[name].append(time.process_time() - started)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    print(f"threshold {threshold:.4f}")
    print("| way | CPU s | times faster | max, mean difference of frames | rows that differ |\n|---|---|---|---|---|")
    for name, way in ways.items():
        found = way.frames(clip)
        n = min(len(found), len(expected))
        difference = np.abs(found[:n] - expected[:n])
        other = sum(rows[name].get(row) != labels for row, labels in rows["notebook"].items())
        unlike[name] = f"{other} of {len(rows['notebook'])} rows differ, frames by at most {difference.max():.1e}"
        print(
            f"| {name} | {medians[name]:.3f} | {medians['notebook'] / medians[name]:.2f} | {difference.max():.1e}, "
            f"{difference.mean():.1e} | {other} of {len(rows['notebook'])} |",
            flush=True,
        )
    return medians, unlike


def make_run(part: str, work: Path):
    """A run folder with one untrained fold -> (Run, its network)."""
    import torch

    from earshot import files, runs
    from earshot.config import from_dict
    from earshot.sound import audio
    from earshot.sound.logmel import log_mel
    from earshot.sound.timebase import TimeBase

    network, front_end, rate, window, stride = SYSTEMS[part]
    config = from_dict({
        "data": {"sample_rate": rate, "crop_seconds": window}, "model": network, "frontends": {"logmel": front_end},
        "predict": {"window_seconds": window, "stride_seconds": stride, "aggregate": "max", "keep_frames": True},
    })  # fmt: skip
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = runs.make_model(config, N_CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain mean of what it hears
    sounds = audio.load(make_sounds(work / "calibration.ogg", 40, rate), rate).reshape(8, -1)
    heard = log_mel(sounds, config.frontends["logmel"])[:, None]
    with torch.no_grad():
        model.train()(logmel=torch.from_numpy(heard))
        spread = model.eval()(logmel=torch.from_numpy(heard))["segmentwise_logit"].std()
        (
            model.att_block if hasattr(model, "att_block") else model.head
        ).cla.weight /= spread  # else most outputs are 0 or 1
    fold = runs.create_fold(work / "runs" / "sed" / part / "fold0", config, resume=False)
    classes = [f"bird{i:03d}" for i in range(N_CLASSES)]
    grid = TimeBase(rate, front_end["hop_length"], model.pool)
    about = runs.describe_run(config, 0, classes, np.zeros(N_CLASSES), grid) | {"finished": True}
    runs.save_weights(fold.folder / "best.safetensors", model, about)
    files.write_text(fold.folder / "run.json", json.dumps(about))
    return runs.load_run(fold.folder.parent), model.eval()


def make_sounds(path: Path, seconds: int, rate: int) -> Path:
    """Sweeps of one second at several pitches and levels over noise, as ogg."""
    from earshot.sound import audio

    rng = np.random.default_rng(1)
    sound = 0.01 * rng.standard_normal(seconds * rate)
    t = np.arange(rate) / rate
    for second in range(0, seconds - 1, 2):
        pitch, sweep = rng.uniform(1000, 6000), rng.uniform(-800, 3000)
        sound[second * rate : (second + 1) * rate] += rng.uniform(0.02, 0.3) * np.sin(
            2 * np.pi * (pitch + sweep * t) * t
        )
    audio.write(path, sound.astype(np.float32), rate)
    return path


def graphs_of(part: str, run, model, work: Path, clip) -> list[tuple]:
    """(name, graph file, one pass) of what is measured beside the notebook."""
    from earshot.export import graph as graph_export
    from earshot.export.int8 import quantise
    from earshot.prediction.backends import open_graph
    from earshot.prediction.precision import multiplies_bf16
    from earshot.sound import audio
    from earshot.sound.logmel import log_mel

    graph = export(run, model, work / f"graphs_{part}")
    plain, graph = graph, filtered(graph)
    halves = [in_bf16(plain)] if multiplies_bf16() else []
    if part != "cnn14":
        passes = {"windows": False, "one pass": True} if part == "overlap" else {"windows": False}
        ways = [(f"{what}, float32, ONNX Runtime", graph, one_pass) for what, one_pass in passes.items()]
        return ways + [(f"{what}, bf16, OpenVINO", half, passes[what]) for half in halves for what in passes]
    rate, front_end = run.config.data.sample_rate, run.config.frontends["logmel"]
    pieces = [audio.load(clip.path, rate, start, 5) for start in range(0, 50, 10)]
    inputs = [{"logmel": log_mel(piece[None], front_end)[:, None]} for piece in pieces]
    small = graph_export.to_openvino(quantise(plain, inputs), open_graph(plain).about)
    ways = [("float32, ONNX Runtime", graph, False), ("int8, OpenVINO", small, False)]
    return ways + [("bf16, OpenVINO", half, False) for half in halves]


def in_bf16(graph: Path) -> Path:
    """The ONNX graph as src/export.py --precision bf16 writes it."""
    from earshot.export import graph as graph_export
    from earshot.prediction.backends import open_graph

    folder = graph.parent / "bf16"
    folder.mkdir()
    shutil.copyfile(graph, folder / graph.name)
    return graph_export.to_openvino(folder / graph.name, open_graph(graph).about | {"precision": "bf16"})


def export(run, model, folder: Path) -> Path:
    """The network as one ONNX graph, without the gates of export.py."""
    from earshot.export import graph as graph_export
    from earshot.export import tracing

    folder.mkdir(parents=True, exist_ok=True)
    about = graph_export.describe(run, list(run.folds), [model], graph_export.ExportSettings())
    tracing.trace([model], run.config, about, folder / "model.onnx")
    return folder / "model.onnx"


def filtered(graph: Path) -> Path:
    """The graph as src/export.py writes it for ONNX Runtime in float32: wide convolutions by minimal filtering."""
    from earshot.export import rewriting

    return rewriting.filtered(graph)[0]


class Fast:
    """An exported graph through the one inference path."""

    def __init__(self, graph: Path, one_pass: bool):
        from earshot.prediction.backends import open_graph
        from earshot.prediction.graphs import members_of

        (self.member,) = members_of(open_graph(graph), one_pass)
        self.one_pass, self.int8 = one_pass, "int8" in graph.stem

    def figure(self, part: str) -> str:
        """The name of its figure: float32 has the plain one, whose rows are to be the notebook's."""
        precision, overlaps = self.member.backend.precision, part == "overlap"
        if part == "cnn14":
            return f"e2e_speedup_cnn14_{'int8' if self.int8 else 'fp32' if precision == 'float32' else precision}"
        name = "e2e_speedup_b0" + "_overlap" * overlaps + "_exact" * (overlaps and not self.one_pass)
        return name + f"_{precision}" * (precision != "float32")

    def predicted(self, clip):
        """Predictions of the one recording."""
        from earshot.prediction.inference import predict_members

        (found,), _ = predict_members([self.member], [clip])
        return found

    def frames(self, clip) -> np.ndarray:
        found = self.predicted(clip)
        return np.repeat(found.framewise_output[0], found.timebase.pool, axis=0)

    def rows(self, clip, threshold: float) -> dict[str, str]:
        """The same rows by the code of predict.py and submit.py."""
        import pandas as pd

        from earshot.competitions import birdcall
        from earshot.events import PostProcess, detect

        found = self.predicted(clip)
        (frames,), grid = found.framewise_output, found.timebase
        events = detect(frames, grid, found.classes, clip.clip_id, PostProcess(threshold=threshold, iou_threshold=None))
        ends = range(ROW_SECONDS, round(len(frames) * grid.frame_seconds) + 1, ROW_SECONDS)
        test = pd.DataFrame([("site_1", f"site_1_{clip.clip_id}_{end}", end, clip.clip_id) for end in ends],
                            columns=["site", "row_id", "seconds", "audio_id"])  # fmt: skip
        rows = birdcall.answers(birdcall.touched_rows(events, test), test)
        return dict(zip(rows.row_id, rows.birds))


def gap(frames: np.ndarray) -> float:
    """A threshold that about 2 % of the values exceed, in the widest gap between the values near it."""
    values = np.sort(frames.ravel())
    some = values[int(0.97 * len(values)) : int(0.99 * len(values))]
    widest = int(np.argmax(np.diff(some)))
    return float((some[widest] + some[widest + 1]) / 2)


def measure_memory(work: Path) -> dict:
    """Peak memory of ten minutes through the exported graph, in a process that never saw torch."""
    figures = {}
    for part, suffix in (("b0", ""), ("cnn14", "_cnn14")):
        folder = work / f"memory_{part}"
        run, model = make_run(part, folder)
        graph = filtered(export(run, model, folder))
        sounds = make_sounds(folder / "long.ogg", 600, 32000)
        done = subprocess.run(
            [sys.executable, __file__, "--memory-of", str(graph), str(sounds)],
            capture_output=True,
            text=True,
            check=True,
        )
        result = json.loads(done.stdout.splitlines()[-1])
        if result["torch"]:
            raise RuntimeError("torch was imported")
        print(f"10 minutes, {part}: peak {result['peak_mb']:.0f} MB, {result['cpu_seconds']:.1f} s of CPU")
        figures["soundscape_10min_peak_rss_mb" + suffix] = (result["peak_mb"], "MB")
    return figures


def memory_of(graph: str, recording: str) -> dict:
    from earshot.prediction.backends import open_graph
    from earshot.prediction.graphs import members_of
    from earshot.prediction.inference import predict_members
    from earshot.prediction.predictions import Clip

    predict_members(members_of(open_graph(graph)), [Clip("x", Path(recording))])
    # not getrusage: its peak starts with that of the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    return {"peak_mb": peak, "cpu_seconds": time.process_time(), "torch": "torch" in sys.modules}


def oof_drop(folder: Path) -> float:
    """The largest drop of a run's watched OOF score by its graphs (all that were exported) and by one pass."""
    from earshot import runs, tasks
    from earshot.data.answers import truth_of
    from earshot.data.prepared import load_data
    from earshot.prediction import predictions
    from earshot.prediction.backends import ENDINGS
    from earshot.prediction.graphs import find_graphs, graph_name, members_of
    from earshot.prediction.inference import predict_members

    run = runs.load_run(folder)
    data, task = load_data(run.config.data), tasks.get_task(run.config.task)
    watch = run.config.watch or task.watch

    def score(parts) -> float:
        whole = predictions.join(parts)
        return tasks.score_readable(task, whole, truth_of(whole, data))[watch]

    before, drops = score([fold.oof() for fold in run.folds]), []
    exported = [(f, q) for f in ENDINGS for q in (False, True) if (run.folds[0].folder / graph_name(f, q)).is_file()]
    for graph_format, int8 in exported:
        graphs = find_graphs(folder, graph_format, int8)
        for one_pass in [False] + [True] * bool(graphs[0].pooling):
            parts = []
            for graph, fold in zip(graphs, run.folds, strict=True):
                (member,) = members_of(graph, one_pass)
                keep = run.config.predict.keep_frames and run.config.predict.oof_frames
                member = replace(member, fold=fold.fold, windowing=replace(member.windowing, keep_frames=keep))
                held_out = data.split(fold.fold, run.config.data.folds)[1].recordings()
                parts.append(predict_members([member], held_out)[0][0])
            drops.append(before - score(parts))
            what = graph_format + " int8" * int8 + " one pass" * one_pass
            print(f"{folder}, {what}: {watch} {before:.4f} -> {before - drops[-1]:.4f}", flush=True)
    if not drops:
        raise ValueError(f"{folder} has no exported graphs: make them with src/export.py")
    return max(drops)


if __name__ == "__main__":
    main()

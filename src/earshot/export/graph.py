"""A run's networks -> ONNX or OpenVINO graphs, in float32, bfloat16 or int8, each through two gates before it is named.

Parity: the graph answers as PyTorch does at several batch sizes and lengths, at the first call and at the second, and
once more when compiled for its own window.
OOF: the graph predicts the clips held out of its fold through the one inference path, and the run's watched score may
not drop by more than `max_drop`. A graph that fails leaves no file. Bfloat16 is a way to compute a float32 graph: its
parity is held in float32, what it is worth is up to the OOF, and a processor without it computes the file in float32.

What exporters get wrong, and what guards against it: a time axis that is silently static (names of the axes, and
lengths the tracer never saw), weights in a file beside (one file is checked for), batch norms left unfolded (counted in
the report), precision lost on saving (OpenVINO's default is float16), a first call that differs from the second.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from earshot import runs, tasks
from earshot.data.answers import truth_of
from earshot.data.prepared import PreparedData, load_data
from earshot.data.sampling import evenly
from earshot.ensemble.origins import check_tables
from earshot.export.int8 import calibration_inputs, check_stored, quantise, stored_bytes
from earshot.export.rewriting import filtered
from earshot.export.settings import AUTO, ExportSettings
from earshot.export.tracing import example, random_inputs, trace
from earshot.files import as_json, file_digest, whole_set
from earshot.messages import need, progress_bar
from earshot.prediction import predictions
from earshot.prediction.backends import METADATA_KEY, TorchBackend, check_format, open_graph
from earshot.prediction.graphs import graph_name, members_of
from earshot.prediction.inference import predict_members
from earshot.prediction.origin import as_text
from earshot.prediction.precision import BF16, FLOAT32, multiplies_bf16

logger = logging.getLogger("earshot")
REPEATED = (
    "framewise_output",
    "framewise_logit",
)  # segments repeated to frames: prediction/inference.py does that itself
SECOND_CALL = 1e-5  # how far a second call may be from the first


def export_run(run: runs.Run, settings: ExportSettings, out: Path | None = None, say=print) -> list[Path]:
    """Export the run's folds (a `Run` with fewer folds: those); returns the graphs' paths, in `out` or the run folder.

    Errors (ValueError): a network that cannot be traced, a gate that fails (with its figures), a folder that cannot be
    written.
    """
    check_format(settings.graph_format)
    for library in ("onnx", "onnxruntime", *["openvino"] * (settings.graph_format == "openvino")):
        need(library, "export", "an exported graph")
    precision = _precision(settings.precision)
    wants_clips = settings.check_oof or settings.int8
    data = load_data(run.config.data) if wants_clips else None
    if data is not None:
        check_tables(run.folds, data.digests)
    groups = [list(run.folds)] if settings.together else [[fold] for fold in run.folds]
    paths = []
    for name, record in run.config.frontends.items():
        if record != record.exported():
            say(
                f"frontends.{name}.engine={record.engine} serves training and eager prediction; graphs and kernels are "
                "fed by the NumPy log-mel, which agrees within 2e-3 dB"
            )
    for folds in progress_bar(groups, "graphs", unit="graph"):
        folder = (out or run.folder) / ("" if settings.together else folds[0].folder.name)
        path = folder / graph_name(settings.graph_format, settings.int8, settings.together)
        report = _export(run, folds, settings, path, data, precision)
        say(_summary(path, report))
        paths.append(path)
    return paths


def _precision(wanted: str) -> str:
    """What to try here; auto: bfloat16 where the processor multiplies in it."""
    if wanted == FLOAT32 or multiplies_bf16():
        return BF16 if wanted == AUTO else wanted
    if wanted == AUTO:
        logger.warning("in float32: this processor does not multiply in bf16")
        return FLOAT32
    raise ValueError(
        "--precision bf16: this processor does not multiply in it (Linux would name avx512_bf16 or amx_bf16), so that "
        "its gates cannot be held here; export where it does, or say --precision auto, which takes float32 here"
    )


def _export(
    run, folds: list[runs.FoldRun], settings: ExportSettings, path: Path, data: PreparedData | None, precision: str
) -> dict:
    """Build one graph in a folder of its own, check it, and only then move it to `path`."""
    started = time.monotonic()
    models = [runs.load_model(fold) for fold in folds]
    about = describe(run, folds, models, settings)
    where = "folds together" if settings.together else f"fold {folds[0].fold}"
    with whole_set(path.parent, last=path.name) as found:  # the graph itself last
        folder = found / "work"
        folder.mkdir()
        traced = trace(models, run.config, about, folder / "fp32.onnx", settings.exporter)
        report = {
            "graph": path.name, "run": run.name, "folds": about["folds"], "batch_norms": traced,
            "exporter": about["exporter"],
        }  # fmt: skip
        eager = [TorchBackend(model, run.config.inputs(model.inputs)) for model in models]
        windows = parity_inputs(eager[0], run.config.predict.window_samples)
        graph_file = folder / "fp32.onnx"
        if settings.int8:
            check_parity(open_graph(graph_file), eager, windows, settings.max_difference, f"{where}, before int8")
            clips = data if settings.together else _calibration_clips(run, folds[0], data, settings)
            inputs = calibration_inputs(eager[0], run, clips, settings.calibration_clips)
            graph_file = quantise(graph_file, inputs, settings.float_parts)
        elif settings.graph_format == "onnx":
            graph_file, report["minimal_filters"] = _filtered(graph_file, eager, windows, settings, where)
        onnx_file = graph_file
        if settings.graph_format == "openvino":
            graph_file = to_openvino(onnx_file, about | {"precision": precision})
        report["stored_bytes"] = stored_bytes(graph_file)
        if settings.int8:
            check_stored(report["stored_bytes"], run.config.budget.parameters_kb * len(folds), where)
        if precision == BF16:
            check_parity(open_graph(graph_file, precision=FLOAT32), eager, windows, settings.max_difference, where)
        gates = partial(
            _gates, eager=eager, windows=windows, run=run, folds=folds, data=data, settings=settings, where=where
        )
        try:
            report |= gates(graph_file)
        except ValueError as error:
            if precision == FLOAT32 or settings.precision != AUTO:
                raise
            logger.warning("in float32, for bf16 does not pass: %s", error)
            graph_file = to_openvino(onnx_file, about | {"precision": FLOAT32})
            report |= gates(graph_file)
        report["bytes"] = sum(p.stat().st_size for p in _files(graph_file))
        report["weights_bytes"] = sum(f.weights.stat().st_size for f in folds)
        report |= {"seconds": round(time.monotonic() - started, 1), "settings": asdict(settings)}
        for part in _files(graph_file):
            os.replace(part, found / path.with_suffix(part.suffix).name)
        (found / f"{path.name}.json").write_text(as_json(report, indent=1))
        shutil.rmtree(folder)
    return report


def _gates(graph_file: Path, *, eager: list, windows: list[dict], run, folds, data, settings, where: str) -> dict:
    """Both gates on a graph as it will be computed: {"precision", "parity", "oof"} of its report."""
    graph = open_graph(graph_file)
    tolerance = None if settings.int8 or graph.precision == BF16 else settings.max_difference
    parity = check_parity(graph, eager, windows, tolerance, where)
    members_of(graph)  # compiles it for its window, as prediction does
    parity += check_parity(graph, eager, windows[1:2], tolerance, f"{where}, compiled for its window")
    oof = _check_oof(graph_file, run, folds, data, settings, where) if settings.check_oof else None
    return {"precision": "int8" if settings.int8 else graph.precision, "parity": parity, "oof": oof}


def _filtered(path: Path, eager: list, windows: list[dict], settings: ExportSettings, where: str) -> tuple[Path, int]:
    """The graph with wide convolutions by minimal filtering, and how many; the plain one where that fails the gate."""
    found, count = filtered(path)
    if count:
        try:
            check_parity(open_graph(found), eager, windows, settings.max_difference, where)
        except ValueError as error:
            logger.warning("%s: without minimal filtering, which rounds more than this network bears: %s", where, error)
            return path, 0
    return found, count


def _calibration_clips(run, fold: runs.FoldRun, data: PreparedData, settings: ExportSettings) -> PreparedData:
    training, held_out = data.split(fold.fold, run.config.data.folds)
    return held_out if settings.calibrate_on == "held-out" else training


def describe(run, folds, models, settings: ExportSettings) -> dict:
    """All that prediction needs besides the graph; it goes into the graph."""
    config, abouts = run.config, [fold.about for fold in folds]
    origins = replace(run, folds=tuple(folds)).origins
    inputs = config.inputs(models[0].inputs)
    outputs = TorchBackend(models[0], inputs).run(example(models[0], config))
    return {
        "format": 1, "run": run.name, "task": config.task, "competition": config.data.competition,
        "folds": [fold.fold for fold in folds], "stacked": settings.together, "int8": settings.int8,
        "classes": abouts[0]["classes"], "priors": [about["prior"] for about in abouts],
        "sample_rate": config.data.sample_rate, "channels": config.data.channels, "inputs": list(inputs),
        "outputs": [name for name in outputs if name not in REPEATED],
        "frontends": inputs.exported().to_json(),
        "extractors": {name: inputs[name].network.digest for name in inputs.of(kind="extractor")},
        "metadata": list(config.data.metadata), "timebase": abouts[0]["timebase"], "pool": models[0].pool,
        "min_frames": max(getattr(models[0], "min_frames", 1), models[0].pool),
        "min_samples": getattr(models[0], "min_samples", 1), "pooling": getattr(models[0], "pooling", ""),
        "reach": getattr(models[0], "reach", 0),
        "windowing": asdict(config.predict), "tta": list(config.predict.tta),
        "weights": [file_digest(fold.weights) for fold in folds],
        "origins": as_text(origins) if origins else None,
        "commit": abouts[0]["commit"], "libraries": abouts[0]["libraries"],
    }  # fmt: skip


def parity_inputs(backend, window_samples: int) -> list[dict[str, np.ndarray]]:
    """Batches of 1 and 7; a window, an odd number of frames, a single segment, three windows and one frame."""
    hop, segment = backend.timebase.hop_length, backend.timebase.frame_samples
    odd = window_samples * 3 // 5 // (2 * hop) * 2 * hop
    shapes = [
        (7, odd),
        (1, window_samples),
        (1, min(max(hop, segment - hop), window_samples)),
        (1, 3 * window_samples + hop),
    ]
    return [random_inputs(backend, batch, n, seed) for seed, (batch, n) in enumerate(shapes)]


def check_parity(graph, eager: list, windows: list[dict], tolerance: float | None, where: str) -> list[dict]:
    """Largest differences of a graph to PyTorch at every shape; raises over `tolerance` (None: only say it).

    Each shape is called twice: a graph whose second answer differs from its first is refused at any tolerance.
    """
    rows = []
    for inputs in windows:
        expected = [backend.run(inputs) for backend in eager]
        expected = {k: np.stack([e[k] for e in expected], axis=1) for k in expected[0]} if graph.about["stacked"] else (
            expected[0])  # fmt: skip
        first, second = graph.run(inputs), graph.run(inputs)
        shape = {name: list(values.shape) for name, values in inputs.items()}
        for name, values in first.items():
            if values.shape != expected[name].shape:
                raise ValueError(f"{where}: {name} of {shape} is {values.shape}, PyTorch gives {expected[name].shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{where}: {name} of {shape} is not finite")
        differences = {k: float(np.abs(first[k] - expected[k]).max()) for k in first}
        again = max(float(np.abs(first[k] - second[k]).max()) for k in first if k.endswith("_output"))
        rows.append({"inputs": shape, "max_difference": differences, "second_call": again})
        worst = max(v for k, v in differences.items() if k.endswith("_output"))
        if again > SECOND_CALL:
            raise ValueError(f"{where}: the second call differs from the first by {again:.2g} at {shape}")
        if tolerance is not None and worst > tolerance:
            raise ValueError(
                f"{where}: the graph differs from PyTorch by {worst:.2g} at {shape}, more than the "
                f"{tolerance:g} allowed (--max-difference); nothing was written"
            )
    return rows


def to_openvino(path: Path, about: dict) -> Path:
    """ONNX graph -> OpenVINO's .xml and .bin, beside it."""
    import openvino

    model = openvino.Core().read_model(str(path))
    model.set_rt_info(json.dumps(about), METADATA_KEY)
    out = path.with_suffix(".xml")
    openvino.save_model(model, str(out), compress_to_fp16=False)
    return out


def _check_oof(path: Path, run, folds, data: PreparedData, settings: ExportSettings, where: str) -> dict:
    """Scores of the graph and of the run's own OOF on the same held-out clips; raises over `max_drop`."""
    members, config = members_of(open_graph(path)), run.config
    ours, theirs = [], []
    for member, fold in zip(members, folds, strict=True):
        held_out = data.split(fold.fold, config.data.folds)[1]
        held_out = held_out.take(evenly(len(held_out.clips), settings.oof_clips or len(held_out.clips)))
        keep = member.windowing.keep_frames and config.predict.oof_frames
        member = replace(member, windowing=replace(member.windowing, keep_frames=keep), fold=fold.fold)
        (found,), _ = predict_members(
            [member], held_out.recordings(), progress=lambda clips: progress_bar(clips, "held-out clips", unit="clip")
        )
        ours.append(found)
        theirs.append(fold.oof().aligned(found.clip_ids))
    task = tasks.task_of(config)
    watch = task.watch
    scores = []
    for parts in (theirs, ours):
        whole = predictions.join(parts)
        scored = tasks.score_readable(task, whole, truth_of(whole, data))
        if watch not in scored:
            raise ValueError(
                f"{where}: the {len(whole)} held-out clips do not define {watch}; --no-oof leaves this out"
            )
        scores.append(scored)
    (oof, graph), drop = scores, tasks.upward(watch, scores[0][watch]) - tasks.upward(watch, scores[1][watch])
    if not drop <= settings.max_drop:
        raise ValueError(
            f"{where}: the graph scores {watch} {graph[watch]:.4f} on the held-out clips, the run's OOF "
            f"{oof[watch]:.4f}: a drop of {drop:.4f}, more than the {settings.max_drop:g} allowed (--max-drop); "
            "nothing was written"
        )
    return {"watch": watch, "oof": oof[watch], "graph": graph[watch], "drop": drop, "clips": sum(map(len, ours)),
            "scores": {name: [oof[name], graph[name]] for name in oof if name in graph},
            "decisions": decisions(predictions.join(theirs), predictions.join(ours))}  # fmt: skip


def decisions(before: predictions.Predictions, after: predictions.Predictions) -> dict:
    """How often two answers to the same clips decide otherwise.

    {"clips", "other_first_class": clips, "other_classes": clips of which another set of classes reaches 0.5,
    "largest_difference": of a probability}.
    """
    one, two = before.clipwise_output, after.clipwise_output
    return {
        "clips": len(one),
        "other_first_class": int((one.argmax(axis=1) != two.argmax(axis=1)).sum()),
        "other_classes": int(((one >= 0.5) != (two >= 0.5)).any(axis=1).sum()),
        "largest_difference": float(np.abs(one - two).max(initial=0.0)),
    }


def _files(path: Path) -> list[Path]:
    """The files that make up a graph, the graph itself first."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _summary(path: Path, report: dict) -> str:
    worst = max(v for row in report["parity"] for k, v in row["max_difference"].items() if k.endswith("_output"))
    stored = " + ".join(f"{n / 1000:,.1f} kB {kind}" for kind, n in report["stored_bytes"].items() if n >= 100)
    oof = report["oof"]
    scores = f"{oof['watch']} {oof['oof']:.4f} -> {oof['graph']:.4f} on {oof['clips']} held-out clips" if oof else (
        "held-out clips not checked")  # fmt: skip
    size = f"{report['bytes'] / 1e6:.2f} MB ({stored})"
    if oof and report["precision"] != FLOAT32:
        other = oof["decisions"]
        scores += f" ({other['other_first_class']} with another first class)"
    far = f"max difference {worst:.2g}" + " on noise, not held to PyTorch" * (report["precision"] == "int8")
    return f"{path}: {report['precision']}, {size}, {far}, {scores}, {report['seconds']:.0f} s"

"""Networks of a run -> one float32 ONNX graph, by either of torch's exporters.

`legacy` is that of TorchScript, which follows one example; `dynamo` is torch.export's, which reasons about shapes.
benchmarks/bench_exporters.py tries both on every network: RESULTS.md says which passes, and how fast the graphs are.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import warnings
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn

from earshot.export.settings import CHOICES, EXPORTERS
from earshot.messages import check_choice, first_line, need
from earshot.prediction.backends import METADATA_KEY, TorchBackend

SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node of torch.export's graph comes from


class _Traced(nn.Module):
    """Networks of one run -> tuple of the named outputs; of several, stacked on axis 1."""

    def __init__(self, models, inputs, outputs, stacked: bool):
        super().__init__()
        self.models, self.names, self.outputs, self.stacked = nn.ModuleList(models), inputs, outputs, stacked

    def forward(self, *tensors):
        found = [model(**dict(zip(self.names, tensors))) for model in self.models]
        if not self.stacked:
            return tuple(found[0][name] for name in self.outputs)
        return tuple(torch.stack([out[name] for out in found], dim=1) for name in self.outputs)


def trace(models: list[nn.Module], config, about: dict, path: Path, exporter: str = "auto") -> int:
    """Write the float32 ONNX graph with the metadata `about`; returns the batch norms that no convolution took in.

    `about["exporter"]` becomes the exporter that wrote it.

    Errors (ValueError): the exporter cannot take the network, or froze an axis that was to be free.
    """
    check_choice("exporter", exporter, CHOICES)
    given, outputs = example(models[0], config), about["outputs"]
    tensors = {name: torch.from_numpy(given[name]) for name in about["inputs"]}
    network = _Traced(models, about["inputs"], outputs, about["stacked"]).eval()
    heard = config.inputs(models[0].inputs)
    axes = {name: {0: "batch"} | _time_axis(name, heard[name], t.ndim) for name, t in tensors.items()}
    axes |= {n: {0: "batch"} | ({1 + about["stacked"]: "segments"} if "segmentwise" in n else {}) for n in outputs}
    refused = []
    for one in EXPORTERS if exporter == "auto" else (exporter,):
        try:
            graph = written(network, tensors, axes, path, one)
        except Exception as error:  # of any kind: what torch's exporters raise
            refused.append(f"{reason(error)} (by {one})")
        else:
            break
    else:
        advice = "predict with --backend torch" if exporter == "auto" else "leave --exporter out"
        raise ValueError(f"model '{config.model.name}' cannot be exported: {'; '.join(refused)}; {advice}")
    about["exporter"] = one
    _write_onnx(graph, about, path)
    return sum(node.op_type == "BatchNormalization" for node in graph.graph.node)


def written(
    network: nn.Module, tensors: dict[str, torch.Tensor], axes: dict[str, dict[int, str]], path: Path, exporter
):
    """The graph of a network (tensors by position -> tuple), written to `path` in one file: an onnx.ModelProto.

    tensors: an example of each input; axes: of inputs, then outputs, those that are free, by name.
    """
    import onnx

    inputs, outputs = list(tensors), [name for name in axes if name not in tensors]
    before = set(path.parent.iterdir())
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # the tracer warns of every Python number that it keeps
        if exporter == "legacy":
            torch.onnx.export(
                network, tuple(tensors.values()), str(path), dynamo=False, opset_version=17, input_names=inputs,
                output_names=outputs, dynamic_axes=axes,
            )  # fmt: skip
        else:
            _export_by_dynamo(network, tensors, axes, path)
    graph = onnx.load(path)
    if exporter == "dynamo":
        _name_axes(graph, axes)
        _name_by_modules(graph)
    check_axes(graph, axes)
    _pool_maps(graph)
    if beside := set(path.parent.iterdir()) - before - {path}:
        raise ValueError(f"the exporter wrote weights beside the graph (over 2 GB?): {sorted(map(str, beside))}")
    onnx.save(graph, path)
    return graph


def _export_by_dynamo(network, tensors: dict[str, torch.Tensor], axes: dict[str, dict[int, str]], path: Path):
    """Write the graph by torch.export, batch norms folded into convolutions and matrix products."""
    rewriter = need("onnxscript.rewriter", "export", "torch's newer exporter")
    common = need("onnxscript.rewriter.rules.common", "export", "torch's newer exporter")
    ir = need("onnx_ir", "export", "torch's newer exporter")
    shapes = tuple(dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC) for name in tensors)
    program = torch.onnx.export(
        network, tuple(tensors.values()), dynamo=True, opset_version=18, input_names=list(tensors),
        output_names=[name for name in axes if name not in tensors], dynamic_shapes=(shapes,), verbose=False,
    )  # fmt: skip
    rules = [common.fuse_batchnorm_into_conv_rule, common.fuse_batchnorm_into_gemm_rule]
    ir.save(rewriter.rewrite(program.model, rules), path)


def reason(error: Exception) -> str:
    """What was wrong at the bottom of an exporter's error, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


@contextmanager
def _quiet():
    """Keep torch's own log of an export, and the steps that it prints, away from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _name_axes(graph, axes: dict[str, dict[int, str]]):
    """Give axes that torch.export left free (s77) their names, wherever they come; those that it fixed stay numbers."""
    names = {}
    for tensor in (*graph.graph.input, *graph.graph.output):
        for axis, name in axes[tensor.name].items():
            dim = tensor.type.tensor_type.shape.dim[axis]
            if dim.dim_param:
                names[dim.dim_param] = name
    for tensor in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        for dim in tensor.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _name_by_modules(graph):
    """Name nodes by the modules that they come from, as the legacy exporter does, for int8 keeps some in float32.

    What torch.export notes of each node (scopes, and files and lines of this machine) is left out.
    """
    for number, node in enumerate(graph.graph.node):
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get(SCOPES, "[]"))
        parts = next((scope.split(".") for scope in reversed(scopes[:-1]) if scope), [])
        if parts[:1] == ["models"] and len(parts) > 1:
            parts = [f"models.{parts[1]}", *parts[2:]]
        node.name = "/" + "/".join([*parts, f"{node.op_type}_{number}"])
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (graph, graph.graph, *graph.graph.initializer, *graph.graph.value_info, *graph.graph.input,
                 *graph.graph.output):  # fmt: skip
        del part.metadata_props[:]


def _pool_maps(graph):
    """Means over both axes of a map (squeeze and excitation) -> GlobalAveragePool, which keeps the memory layout."""
    import onnx

    axes = {t.name: onnx.numpy_helper.to_array(t).tolist() for t in graph.graph.initializer if t.data_type == 7}
    for node in graph.graph.node:
        if node.op_type != "ReduceMean":
            continue
        options = {a.name: list(a.ints) or a.i for a in node.attribute}
        over = options.get("axes") or (axes.get(node.input[1]) if len(node.input) > 1 else None)
        if over in ([2, 3], [-2, -1], [-1, -2], [3, 2]) and options.get("keepdims", 1) == 1:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]


def example(model, config) -> dict[str, np.ndarray]:
    """Two windows as the network takes them."""
    backend = TorchBackend(model, config.inputs(model.inputs))
    return random_inputs(backend, 2, config.predict.window_samples)


def _time_axis(name: str, record, ndim: int) -> dict[int, str]:
    """The axis of the tensor, batch included, that any length may have, and its name in the graph."""
    if record.time_axis is None:
        return {}
    axis = record.time_axis % (ndim - 1) + 1
    return {axis: f"{name}_frames" if record.picture else "samples" if name == "waveform" else f"{name}_steps"}


def check_axes(graph, axes: dict[str, dict[int, str]]):
    """Raise where an axis of the graph's inputs (an onnx.ModelProto) is a number although it was to be free."""
    for tensor in graph.graph.input:
        for axis, name in axes[tensor.name].items():
            dim = tensor.type.tensor_type.shape.dim[axis]
            if dim.dim_param != name:
                raise ValueError(f"the exporter froze axis '{name}' of input {tensor.name} to {dim.dim_value}")


def _write_onnx(graph, about: dict, path: Path):
    import onnx

    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(about)})
    onnx.save(graph, path)


def random_inputs(backend, batch: int, n_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise and a rising tone at several levels, as the network takes them; (B, ...) by name."""
    rng, heard = np.random.default_rng(seed), backend.frontends
    t = np.arange(n_samples) / max(1, n_samples)
    level = 10 ** rng.uniform(-4, -0.5, (batch, 1))
    tone = np.sin(2 * np.pi * rng.uniform(0.01, 0.2, (batch, 1)) * n_samples * t * (0.5 + t))
    waveform = (level * (tone + 0.3 * rng.standard_normal((batch, n_samples)))).astype(np.float32)
    if heard.n_channels == 2:
        waveform = np.stack([waveform, 0.5 * np.roll(waveform, 1, axis=0)], axis=1)
    given = {n: rng.random((batch, *heard[n].shape(n_samples)), np.float32) for n in heard.of(sounds=False)}
    windows = [heard.hear(w, {n: v[i] for n, v in given.items()}) for i, w in enumerate(waveform)]
    return {name: np.stack([w[name] for w in windows]) for name in backend.inputs}

"""A float32 ONNX graph -> int8: post-training, static, ranges measured on a fold's clips; and what graphs store.

Weights become int8 with a scale a channel and lie so in the file, biases and scales stay float32.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.data.prepared import PreparedData
from earshot.data.sampling import evenly
from earshot.export.settings import FLOAT_PARTS
from earshot.inputs.waveforms import decode
from earshot.messages import install_line, progress_bar
from earshot.sound import audio

logger = logging.getLogger("earshot")


def calibration_inputs(backend, run: runs.Run, clips: PreparedData, wanted: int) -> list[dict[str, np.ndarray]]:
    """A window of each of at most `wanted` clips, evenly chosen, as the network takes it: for the ranges of int8."""
    if wanted < 1:
        raise ValueError(f"int8 needs clips to measure ranges on: --calibration-clips must be at least 1, got {wanted}")
    windowing, recordings = run.config.predict, clips.recordings()
    rate, channels, inputs = windowing.sample_rate, windowing.n_channels, []
    for i in progress_bar(evenly(len(clips.clips), wanted), "calibration clips", unit="clip"):
        try:
            waveform = decode(recordings[i].path, rate, channels, 0, windowing.window_seconds, windowing.level)
        except audio.UnreadableAudio:
            continue  # training and prediction list it; here any other clip does
        waveform = audio.crop_or_pad(waveform, windowing.window_samples)
        given = {} if recordings[i].metadata is None else {"metadata": recordings[i].metadata}
        inputs.append({name: values[None] for name, values in backend.frontends.hear(waveform, given).items()})
    if not inputs:
        raise ValueError(f"none of {wanted} clips could be read: int8 needs some")
    return inputs


def quantise(path: Path, inputs: list[dict[str, np.ndarray]], float_parts: tuple[str, ...] = FLOAT_PARTS) -> Path:
    """Write the int8 graph beside the float32 one; the modules named `float_parts` stay float32, and where there are
    any, so does each network's first convolution: it does little work, on decibels, whose range 8 bits cut coarsely.
    Spectra that a network makes itself stay so in any case.

    Two of NNCF's defaults are not ours (benchmarks/RESULTS.md has what they cost). It takes for a range the mean over
    inputs of each one's largest value, which cuts off what is loud in few of them, the very events: ours hold all
    values. And it corrects biases by what layers answer to mean inputs, which errs more than no correction: we let it
    correct layer by layer on the inputs themselves, in twice the time, or not at all where it cannot cut the graph.
    """
    import onnx

    if find_spec("nncf") is None:
        raise ValueError(f"int8 needs nncf: {install_line('export')}")
    whole = idle_casts_to_identities(onnx.load(path))
    try:
        graph = quantised(whole, inputs, float_parts)
    except Exception as error:  # its runtime's own: it cuts some branches in a way that the runtime refuses
        logger.warning("int8 without corrected biases: NNCF could not correct this graph's: %s", error)
        try:
            graph = quantised(whole, inputs, float_parts, disable_bias_correction=True)
        except Exception as again:  # some graphs it cannot read at all: those of transformers' AST
            raise ValueError(f"NNCF cannot bring this graph to int8 ({again}): export it without --int8") from again
    onnx.helper.set_model_props(graph, {entry.key: entry.value for entry in whole.metadata_props})
    out = path.with_name("int8.onnx")
    onnx.save(graph, out)
    return out


def quantised(whole, inputs: list[dict], float_parts: tuple[str, ...], fast: bool = False, **advanced):
    """onnx.ModelProto -> onnx.ModelProto. fast: NNCF's own bias correction; advanced: of its advanced parameters."""
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    ours = {"activations_range_estimator_params": RangeEstimatorParametersSet.MINMAX}
    names = spectra(whole) + (first_convolutions(whole) if float_parts else [])
    patterns = [f".*/{name}/.*" for name in float_parts]
    with redirect_stdout(io.StringIO()):  # it draws bars
        return nncf.quantize(
            whole, nncf.Dataset(inputs), subset_size=len(inputs), preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=fast, advanced_parameters=nncf.AdvancedQuantizationParameters(**ours | advanced),
            ignored_scope=nncf.IgnoredScope(names=names, patterns=patterns, validate=False),
        )  # fmt: skip


def first_convolutions(graph) -> list[str]:
    """Names of the nodes of an onnx.ModelProto that convolve first, one a network (/models.<k>/...) of the graph."""
    names = {}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            names.setdefault(node.name.split("/")[1] if "/" in node.name else "", node.name)
    return list(names.values())


def spectra(graph) -> list[str]:
    """Names of the nodes of an onnx.ModelProto that make spectra and have no weights to store.

    They are products with cosines or sines, and all that leads to a logarithm from the last layer with weights on:
    powers span many times what 8 bits hold, and their logarithm makes the lost ones loud.
    """
    made = {name: node for node in graph.graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) > 1}
    todo, found = [node for node in graph.graph.node if node.op_type == "Log"], {}
    while todo:
        node = todo.pop()
        if node.name not in found and weights.isdisjoint(node.input):
            found[node.name] = node
            todo += [made[name] for name in node.input if name in made]
    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    found |= {node.name: node for node in products if any(_is_wave(name, made) for name in node.input)}
    return list(found)


def _is_wave(name: str, made: dict, steps: int = 3) -> bool:
    """Whether a tensor is cosines or sines, or was scaled, turned or cast since, in a few steps."""
    node = made.get(name)
    if node is None or node.op_type in ("Cos", "Sin"):
        return node is not None
    passes = steps and node.op_type in ("Mul", "Cast", "Transpose", "Unsqueeze", "Identity")
    return bool(passes) and any(_is_wave(each, made, steps - 1) for each in node.input)


def idle_casts_to_identities(graph):
    """An onnx.ModelProto whose casts to the type that is there already are identities.

    `x.float()` of float32 leaves such a cast; where it makes an output of the graph, NNCF's own removal of them fails.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    tensors = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in tensors}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for node in graph.graph.node:
        if node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i:
            node.op_type = "Identity"
            del node.attribute[:]
    return graph


def stored_bytes(path: Path) -> dict[str, int]:
    """Count the bytes of each type of number in a graph's file, {type: bytes}: weights, biases, scales; names and
    structure not."""
    found = Counter()
    if path.suffix == ".onnx":
        import onnx

        for tensor in onnx.load(path).graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            found[str(values.dtype)] += values.nbytes
    else:
        import openvino

        for node in openvino.Core().read_model(str(path)).get_ops():
            if node.get_type_name() == "Constant":
                found[str(np.dtype(node.get_element_type().to_dtype()))] += node.get_byte_size()
    return dict(found)


def check_stored(stored: dict[str, int], limit_kb: float, where: str):
    """Raise where a graph stores more than a config's `budget.parameters_kb` (0: no limit), with what it stores."""
    kilobytes = sum(stored.values()) / 1000
    if limit_kb and kilobytes > limit_kb:
        parts = ", ".join(f"{n / 1000:.1f} of {kind}" for kind, n in stored.items())
        raise ValueError(
            f"{where}: the int8 graph stores {kilobytes:.1f} kB ({parts}), more than budget.parameters_kb="
            f"{limit_kb:g}; --int8-head makes the last layers int8 too"
        )

"""Foreign extractors: what runs a file of ONNX (ONNX Runtime) or TensorFlow Lite (ai-edge-litert) on windows of sound.

Nothing is taken by position: the input is the only one, its shape says the window, and the embedding is the output that
the record names; what does not fit is an error that says what the file holds.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from earshot.files import file_digest
from earshot.inputs.extractor import NO_EMBEDDING, OPENERS, Extractor, check_logits, chosen_output, named
from earshot.messages import install_line


@dataclass
class ForeignNetwork:
    """A file that maps (B, window_samples), or one window a call, to (B, width): embedding, then a teacher's logits."""

    call: Any  # (B, S) float32 -> list of arrays, (B, D) each
    window_samples: int
    digest: str
    widths: tuple[int, ...]
    one_by_one: bool
    classes: tuple[str, ...] = ()  # foreign files do not say theirs

    @property
    def width(self) -> int:
        return sum(self.widths)

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """Compute the embeddings of a batch of windows.

        (B, S) -> (B, D).
        """
        calls = [self.call(w[None]) for w in windows] if self.one_by_one else [self.call(windows)]
        return np.concatenate(
            [np.concatenate([np.asarray(f, np.float32).reshape(len(f), -1) for f in found], axis=1) for found in calls]
        )


def open_onnx(record: Extractor):
    """An ONNX file; one that src/export.py wrote is heard as it says itself."""
    runtime = _library("onnxruntime", install_line("extractors"))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # recordings are read by several threads, each of which calls it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = runtime.InferenceSession(record.file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{record.file} is not a graph that ONNX Runtime can run: {error}") from error
    if "earshot" in session.get_modelmeta().custom_metadata_map:
        return named(OPENERS["graph"])(record)
    tensors = session.get_inputs()
    if len(tensors) != 1 or len(tensors[0].shape) != 2:
        told = ", ".join(f"{t.name} {t.shape}" for t in tensors)
        raise ValueError(f"{record.kind} {record.file} must take one waveform (batch, samples); it takes {told}")
    known = [o.name for o in session.get_outputs()]
    names = [] if record.output == NO_EMBEDDING else [chosen_output(record, known, record.file)]
    names += [check_logits(record, known, record.file)] if record.logits else []
    batch, length = tensors[0].shape
    size = _window(record, length if isinstance(length, int) else 0)

    def call(windows: np.ndarray) -> list[np.ndarray]:
        return session.run(names, {tensors[0].name: windows})

    return _checked(ForeignNetwork(call, size, file_digest(record.file)[:16], (), isinstance(batch, int)), record)


def open_tflite(record: Extractor):
    """A TensorFlow Lite file; `output` may be an inner tensor, by its name or as tensor:INDEX (BirdNET's embedding)."""
    module = _library("ai_edge_litert.interpreter", install_line("extractors"))

    def opened():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that inner tensors take memory is known
            one = module.Interpreter(
                record.file, experimental_preserve_all_tensors=bool(record.output), num_threads=1
            )  # fmt: skip
        one.allocate_tensors()
        return one

    try:
        interpreter = opened()
    except Exception as error:
        raise ValueError(f"{record.file} is not a model that LiteRT can run: {error}") from error
    inputs = interpreter.get_input_details()
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 2:
        told = ", ".join(f"{t['name']} {list(t['shape'])}" for t in inputs)
        raise ValueError(f"{record.kind} {record.file} must take one waveform (1, samples); it takes {told}")
    indices = [] if record.output == NO_EMBEDDING else [_tensor_index(interpreter, record)]
    indices += (
        [_tensors(interpreter)[check_logits(record, _tensors(interpreter), record.file)]] if record.logits else []
    )
    size = _window(record, int(inputs[0]["shape"][1]))

    idle = [interpreter]  # one a thread that calls at a time: an interpreter keeps what it computes

    def call(windows: np.ndarray) -> list[np.ndarray]:
        try:
            one = idle.pop()
        except IndexError:
            one = opened()
        one.set_tensor(inputs[0]["index"], windows)
        one.invoke()
        found = [one.get_tensor(index).copy() for index in indices]
        idle.append(one)
        return found

    return _checked(ForeignNetwork(call, size, file_digest(record.file)[:16], (), True), record)


def _tensors(interpreter) -> dict[str, int]:
    """Name of every tensor -> its index; an output's name means the output."""
    outputs = {t["name"]: t["index"] for t in interpreter.get_output_details()}
    return {t["name"]: t["index"] for t in interpreter.get_tensor_details()} | outputs


def _tensor_index(interpreter, record: Extractor) -> int:
    if record.output.startswith("tensor:"):
        known = {str(t["index"]): t["index"] for t in interpreter.get_tensor_details()}
        wanted = record.output.removeprefix("tensor:")
        if wanted not in known:
            raise ValueError(f"{record.kind} {record.file} has no tensor {wanted}; it has 0 to {len(known) - 1}")
        return known[wanted]
    outputs = {t["name"]: t["index"] for t in interpreter.get_output_details()}
    everything = _tensors(interpreter)
    if record.output and record.output in everything:
        return everything[record.output]
    return outputs[chosen_output(record, list(outputs), record.file)]


def _window(record: Extractor, fixed: int) -> int:
    """Samples of a window: the file's own, which the record may not contradict, or the record's."""
    said = round(record.window_seconds * record.sample_rate)
    if fixed and said and fixed != said:
        raise ValueError(
            f"{record.kind} {record.file} takes {fixed} samples, which are {fixed / record.sample_rate:g} s at "
            f"{record.sample_rate} Hz, not window_seconds={record.window_seconds:g}: is its sample_rate right?"
        )
    if not fixed and not said:
        raise ValueError(f"{record.kind} {record.file} takes windows of any length: set its window_seconds")
    return fixed or said


def _checked(network: ForeignNetwork, record: Extractor) -> ForeignNetwork:
    """The network with the widths of its outputs, found by one window of silence."""
    names = [record.output or "found"] * (record.output != NO_EMBEDDING) + [record.logits] * bool(record.logits)
    if not names:
        raise ValueError(f"teacher {record.file}: output is {NO_EMBEDDING} and logits is empty: nothing is taken of it")
    found = [np.asarray(f) for f in network.call(np.zeros((1, network.window_samples), np.float32))]
    for name, array in zip(names, found, strict=True):
        if array.ndim != 2 or array.shape[0] != 1:
            raise ValueError(f"{record.kind} {record.file}: output {name} is {array.shape}, not (1, width)")
    network.widths = tuple(array.shape[1] for array in found)
    return network


def _library(name: str, install: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"this extractor needs {name.split('.')[0].replace('_', '-')}: {install}") from error

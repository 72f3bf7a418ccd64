"""What runs a network during inference: each backend declares its inputs and turns arrays into arrays.

    inputs      names the network takes
    frontends   what each of them is (inputs.network.Inputs)
    timebase    the grid of `segmentwise_output`
    pooling     how segments become the clip output (prediction/pooling.py), '' where they do not
    reach       segments either side that a segment is told of besides what convolutions of its stages see
    run         dict of (B, ...) arrays -> dict of (B, ...) float32 arrays

Exported graphs (export/graph.py) carry all of this, and what a run folder knows besides, as JSON in their metadata:
`about`. They may be called from several threads at once. They take any number of frames until `fix` compiles them for
their own window, which is a fifth faster: what a network pads is then known before. In one pass, where no length is
known before, the first length that comes twice in a row is compiled for beside. No torch but in TorchBackend.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from earshot.inputs.network import Inputs
from earshot.inputs.record import Input
from earshot.messages import install_line, suggest
from earshot.prediction.library_fixes import freed_at_once, same_signal_stack
from earshot.prediction.precision import BF16, FLOAT32, precision_here
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing
from earshot.stored import parse_json, want

METADATA_KEY, REMEDY = "earshot", "export it again with src/export.py"
TWIN_BYTES = 64_000_000  # of a graph's file: what is larger is not held in memory twice
ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}  # format -> file ending (OpenVINO: weights lie beside in .bin)


class TorchBackend:
    """An eager PyTorch model on its device."""

    def __init__(self, model, frontends: Mapping[str, Input], device="cpu", precision: str = "no"):
        """frontends: the model's inputs (config.inputs(model.inputs)), or front ends by name."""
        self.model, self.device, self.precision = model, device, precision
        self.inputs, self.frontends = tuple(model.inputs), Inputs.made(frontends, model.inputs)
        self.timebase = self.frontends.timebase(model.pool)
        self.pooling, self.reach = getattr(model, "pooling", ""), getattr(model, "reach", 0)
        self.least = {"min_frames": getattr(model, "min_frames", 1), "min_samples": getattr(model, "min_samples", 1)}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch of windows, (B, ...) arrays; short ones are padded as they are for a graph."""
        import torch

        frames = max((inputs[k].shape[2] for k in self.frontends.of(picture=True)), default=0)
        inputs = {k: _long_enough(self.frontends[k], v, **self.least) for k, v in inputs.items()}
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        kind = torch.device(self.device).type
        training = self.model.training
        self.model.eval()
        with torch.inference_mode(), torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for k, v in inputs.items()}
            outputs = self.model(**tensors)
        self.model.train(training)
        outputs = {k: v.float().cpu().numpy() for k, v in outputs.items()}
        return {k: v[:, :frames] if k.startswith("framewise_") and frames else v for k, v in outputs.items()}


class _Graph:
    """What exported graphs share: all they say about themselves, their shape, the frames that a short input lacks."""

    def __init__(self, path: str | Path, threads: int = 1, precision: str = ""):
        self.path, self.threads, self.compiling = Path(path), threads, threading.Lock()
        metadata = self._read()
        if not metadata:
            raise ValueError(f"{path} does not say what it is: export it with src/export.py")
        self.about = check_graph_about(parse_json(metadata, f"the description in {path}", REMEDY), path)
        self.precision = precision_here(precision or self.about.get("precision", FLOAT32))
        self.inputs = tuple(self.about["inputs"])
        self.frontends = Inputs.from_json(self.about)
        self.timebase = TimeBase(*self.about["timebase"])
        self.pooling, self.reach = self.about["pooling"], int(self.about.get("reach", 0))  # older graphs name none
        self.windows: int | None = None  # of a call; 0: any number, of any length; None: not compiled yet
        self.twins, self.twin, self.twin_shapes, self.last_shapes = False, None, None, None

    def fix(self, windows: int, twins: bool = False):
        """Compile it for calls of so many of its own windows (fewer are filled up); 0: any number of any length.

        twins: of any length, but shapes that come twice in a row are likely to come again: the first such has a twin.
        """
        with self.compiling:
            self.twins = twins
            if windows != self.windows:
                shapes = {name: (windows, *values.shape[1:]) for name, values in silent_window(self).items()}
                self._compile(shapes if windows else {})
                self.windows, self.twin, self.twin_shapes = windows, None, None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch of windows.

        (B, ...) arrays -> (B, ...) arrays; of a fixed graph B is at most its `windows`.
        """
        if self.windows is None:
            self.fix(0)
        ready = {name: _padded(self, name, inputs[name]) for name in self.inputs}
        given = len(ready[self.inputs[0]])
        if given < self.windows:
            ready = {name: _filled_up(values, self.windows) for name, values in ready.items()}
            return {name: values[:given] for name, values in self._call(ready).items()}
        return (self._twin_of(ready) if self.twins else self)._call(ready)

    def _twin_of(self, ready: Mapping[str, np.ndarray]) -> _Graph:
        """The graph compiled for these very shapes, where they came at the last call too; else this one."""
        shapes = {name: values.shape for name, values in ready.items()}
        with self.compiling:
            again, self.last_shapes = shapes == self.last_shapes, shapes
            if again and self.twin is None and self.path.stat().st_size <= TWIN_BYTES:
                self.twin, self.twin_shapes = type(self)(self.path, self.threads, self.precision), shapes
                self.twin._compile(shapes)
            return self.twin if shapes == self.twin_shapes else self


def check_graph_about(about: dict, path: str | Path) -> dict:
    """The same, once it says all that is read of a graph."""
    kinds = {
        "inputs": list, "frontends": dict, "timebase": list, "pooling": str, "classes": list, "priors": list,
        "folds": list, "windowing": dict, "min_frames": int, "run": str, "tta": list, "weights": list,
    }  # fmt: skip
    want(about, kinds, f"the description in {path}", REMEDY)
    return about


def _padded(graph, name: str, values: np.ndarray) -> np.ndarray:
    """An input with at least a segment: OpenVINO answers with nothing where a pooling has less than one step."""
    least = (graph.about["min_frames"], graph.about.get("min_samples", 1))
    return np.ascontiguousarray(_long_enough(graph.frontends[name], values, *least), dtype=np.float32)


def _long_enough(record: Input, values: np.ndarray, min_frames: int, min_samples: int) -> np.ndarray:
    """A picture (B, C, T, F) with at least `min_frames`, the last one repeated.

    A waveform (B, S) has at least `min_samples`, zeros behind it. Most networks do so themselves in PyTorch.
    """
    if record.kind == "waveform":
        lacking = max(0, min_samples - values.shape[-1])
        values = np.pad(values, ((0, 0),) * (values.ndim - 1) + ((0, lacking),)) if lacking else values
    missing = min_frames - values.shape[2] if record.picture else 0
    return np.pad(values, ((0, 0), (0, 0), (0, missing), (0, 0)), mode="edge") if missing > 0 else values


def _filled_up(values: np.ndarray, windows: int) -> np.ndarray:
    """(B, ...) -> (windows, ...), the last row repeated."""
    return np.concatenate([values, np.repeat(values[-1:], windows - len(values), axis=0)])


class OnnxBackend(_Graph):
    """A graph in ONNX Runtime, on the CPU."""

    def _read(self) -> str | None:
        """Look at the graph without optimising it: that takes three times its memory, and needs its shapes."""
        session = self._session({}, optimise=False)
        self.outputs = [output.name for output in session.get_outputs()]
        self.axes = {tensor.name: tensor.shape for tensor in session.get_inputs()}  # names of free ones, else sizes
        return session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def _compile(self, shapes: Mapping[str, tuple[int, ...]]):
        self.session = None  # two would need twice the memory
        self.session = self._session(shapes)

    def _session(self, shapes: Mapping[str, tuple[int, ...]], optimise: bool = True):
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        # threads that spin while they wait halve the speed of a shared machine
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, shape in shapes.items():
            for axis, size in zip(self.axes[name], shape, strict=True):
                if isinstance(axis, str):
                    options.add_free_dimension_override_by_name(axis, size)
        try:
            with freed_at_once():
                return runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{self.path} is not a graph that ONNX Runtime can run: {error}") from error

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(self.outputs, inputs), strict=True))


class OpenVinoBackend(_Graph):
    """A graph in OpenVINO, on the CPU: in float32 where it is not int8, unless bfloat16 is what its gates accepted.

    Said in either case: by default OpenVINO would compute any graph in bfloat16 where the processor has it.
    """

    ready = False  # one call has come back in this process
    first_call = threading.Lock()

    def _read(self) -> str | None:
        try:
            self.model = _library("openvino").Core().read_model(str(self.path))
        except Exception as error:
            raise ValueError(f"{self.path} is not a graph that OpenVINO can run: {error}") from error
        return self.model.get_rt_info(METADATA_KEY).value if METADATA_KEY in self.model.rt_info else None

    def _compile(self, shapes: Mapping[str, tuple[int, ...]]):
        options = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        options["INFERENCE_PRECISION_HINT"] = "bf16" if self.precision == BF16 else "f32"
        model = self.model.clone()
        try:
            if shapes:
                model.reshape({name: list(shape) for name, shape in shapes.items()})
            with same_signal_stack():
                self.compiled = _library("openvino").Core().compile_model(model, "CPU", options)
        except Exception as error:
            raise ValueError(f"{self.path} is not a graph that OpenVINO can run: {error}") from error
        self.of_thread = threading.local()
        known = self.about["outputs"]  # an output also has the name of the node that computes it
        self.outputs = [next(name for name in known if name in output.names) for output in self.compiled.outputs]

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if OpenVinoBackend.ready:
            return self._infer(inputs)
        # what OpenVINO's Python side sets up at its first call: two threads in there wait for each other for ever
        with OpenVinoBackend.first_call:
            answer = self._infer(inputs)
            OpenVinoBackend.ready = True
            return answer

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not hasattr(self.of_thread, "request"):
            self.of_thread.request = self.compiled.create_infer_request()
        results = self.of_thread.request.infer(inputs)
        return {name: np.array(results[i]) for i, name in enumerate(self.outputs)}  # the next call reuses its buffers


def silent_window(graph: _Graph) -> dict[str, np.ndarray]:
    """One window of silence as an exported graph takes it."""
    silence = graph.frontends.silence(Windowing(**graph.about["windowing"]).window_samples)
    return {name: _padded(graph, name, values[None]) for name, values in silence.items()}


def open_graph(path: str | Path, threads: int = 1, precision: str = "") -> OnnxBackend | OpenVinoBackend:
    """An exported graph, by its file's ending. `threads`: of one call; `precision`: '' for what its gates accepted."""
    path = Path(path)
    kinds = {ENDINGS["onnx"]: OnnxBackend, ENDINGS["openvino"]: OpenVinoBackend}
    if path.suffix not in kinds:
        raise ValueError(f"{path}: a graph ends in {' or '.join(kinds)}")
    if not path.is_file():
        raise ValueError(f"graph {path} does not exist; make it with src/export.py")
    return kinds[path.suffix](path, threads, precision)


def check_format(name: str) -> str:
    """A format's name, or an error that lists the known ones."""
    if name not in ENDINGS:
        raise ValueError(f"unknown graph format '{name}'{suggest(name, ENDINGS, 'known')}")
    return name


def _library(name: str):
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a library that it loads is not there
        raise ValueError(
            f"this backend needs {name}, which cannot be imported here ({error}): {install_line('export')}; a "
            "kernel gets its wheels with the bundle, see src/bundle.py --fetch-wheels"
        ) from error

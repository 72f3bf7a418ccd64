"""Networks without training: ONNX graphs that hear a class in its band of the log-mel, and bundles made of them."""

import json
from pathlib import Path

import numpy as np

CLASSES = ("low", "mid", "high")
RATE, HOP, MELS, POOL = 8000, 80, 12, 10
FRONTEND = {"sample_rate": RATE, "n_fft": 256, "hop_length": HOP, "n_mels": MELS, "fmin": 50.0, "fmax": 4000.0}


def about(classes=CLASSES, run="sed/tiny", fold=0, **changes) -> dict:
    """What an exported graph says about itself; `changes` overwrite."""
    return {
        "run": run, "folds": [fold], "stacked": False, "classes": list(classes),
        "priors": [[round(0.1 + 0.01 * (i % 80), 3) for i in range(len(classes))]],
        "inputs": ["logmel"], "frontends": {"logmel": FRONTEND}, "metadata": [],
        "timebase": [RATE, HOP, POOL], "pool": POOL, "min_frames": POOL, "pooling": "mean",
        "windowing": {"sample_rate": RATE, "window_seconds": 1.0, "stride_seconds": 1.0, "keep_frames": True},
        "tta": [], "weights": ["0" * 64], "commit": "", "libraries": {},
    } | changes  # fmt: skip


def write_graph(path: Path, classes=CLASSES, gain: float = 0.2, layers: int = 0, **changes) -> Path:
    """log-mel (B, 1, T, F) -> probabilities of bands by segment and their mean; `layers` only take time."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    k = len(classes)
    bands = np.zeros((MELS, k), np.float32)
    for i in range(k):
        rows = slice(i * MELS // k, max(i * MELS // k + 1, (i + 1) * MELS // k))
        bands[rows, i] = gain / len(range(*rows.indices(MELS)))
    wide = [helper.make_node("MatMul", [f"h{i}", "wide"], [f"h{i + 1}"]) for i in range(layers)]
    nodes = [
        helper.make_node("AveragePool", ["logmel"], ["p"], kernel_shape=[POOL, 1], strides=[POOL, 1]),
        helper.make_node("Squeeze", ["p", "axis"], ["h0"]),
        *wide,
        helper.make_node("MatMul", [f"h{layers}", "bands"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["segmentwise_output"]),
        helper.make_node("ReduceMean", ["segmentwise_output"], ["clipwise_output"], axes=[1], keepdims=0),
    ]
    constants = {"bands": bands, "bias": np.full(k, 2.0, np.float32), "axis": np.array([1]),
                 "wide": np.eye(MELS, dtype=np.float32)}  # fmt: skip
    if not layers:
        del constants["wide"]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "tiny", [tensor("logmel", TensorProto.FLOAT, ["batch", 1, "frames", MELS])],
        [tensor("clipwise_output", TensorProto.FLOAT, ["batch", k]),
         tensor("segmentwise_output", TensorProto.FLOAT, ["batch", "segments", k])],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"earshot": json.dumps(about(classes, **changes))})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def write_bundle(folder: Path, competition="birdclef2026", classes=CLASSES, folds=2, tta=(), **changes) -> Path:
    """A bundle of tiny graphs: files, manifest and all, but without sources."""
    from earshot.kernel.manifest import write_manifest

    networks = []
    for fold in range(folds):
        path = write_graph(folder / f"tiny_fold{fold}.onnx", classes, 0.2 + 0.02 * fold, fold=fold, **changes)
        networks.append({"file": path.name, "run": "sed/tiny", "folds": folds})
    (folder / "bundle.json").write_text(json.dumps({
        "competition": competition, "tta": list(tta), "networks": networks,
    }))  # fmt: skip
    (folder / "classes.csv").write_text("label\n" + "".join(f"{c}\n" for c in classes))
    write_manifest(folder)
    return folder

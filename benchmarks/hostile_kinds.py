"""The kinds of damaged files that hostile_inputs.py tries: a command, and what is done to its input."""

from __future__ import annotations

import hostile_names
import numpy as np
from hostile_changes import (
    BAD_JSON,
    BAD_TABLE,
    BAD_YAML,
    BLEND,
    KERNEL,
    PREDICT,
    RUN,
    SUBMIT,
    SUBMIT_TEST,
    TRAIN,
    Kind,
    a_folder,
    arrays,
    changed,
    cut,
    flipped,
    header_bomb,
    nan_weights,
    pickled,
    relisted,
    to,
    unlisted,
    with_unfinished,
    zeros_bomb,
)

NOT_NUMBERS = (
    np.array(["x"] * 3),
    np.zeros((3, 3), complex),
    np.zeros(3),
    np.zeros((2, 3)),
    np.full((3, 3), np.nan),
    np.full((3, 3), np.inf),
    np.zeros((3, 3, 3)),
    np.float32(1),
    None,
)


def files() -> dict[str, Kind]:
    """Stored files that are cut, flipped, of another kind or hostile."""
    npz, weights, about = f"{RUN}/test.npz", f"{RUN}/fold0/best.safetensors", f"{RUN}/fold0/run.json"
    config, graph = f"{RUN}/fold0/config.yaml", "bundle/tiny_fold0.onnx"
    found = {
        "predictions: cut": Kind("submit", SUBMIT_TEST, cut(npz), r"test\.npz"),
        "predictions: flipped": Kind("submit", SUBMIT_TEST, flipped(npz, 25), r"test\.npz", True),
        "predictions: another kind of file": Kind(
            "submit",
            SUBMIT_TEST,
            to(npz, b"", b"x", b"<html>", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x80\x04."),
            r"test\.npz",
        ),
        "predictions: a folder": Kind("submit", SUBMIT_TEST, a_folder(npz), r"test\.npz is a folder"),
        "predictions: pickled objects": Kind("submit", SUBMIT_TEST, [pickled], "pickled objects, which are not loaded"),
        "predictions: a huge shape": Kind(
            "submit", SUBMIT_TEST, [header_bomb], r"test\.npz .*should have 8,000,000,000,000,000 bytes"
        ),
        "predictions: a bomb of zeros": Kind("submit", SUBMIT_TEST, [zeros_bomb], r"test\.npz .*GB in memory"),
        "predictions: outputs that are none": Kind(
            "submit", SUBMIT_TEST, arrays(npz, clipwise_output=NOT_NUMBERS), r"test\.npz .*clipwise_output"
        ),
        "predictions: ids that are none": Kind(
            "submit",
            SUBMIT_TEST,
            arrays(npz, clip_ids=(np.arange(3), np.array(["a", "a", "b"]), np.array(["a"]), None)),
            r"test\.npz",
        ),
        "predictions: frames that do not fit": Kind(
            "submit",
            SUBMIT_TEST,
            arrays(
                npz,
                frame_counts=(np.array([-1, 9, 16]), np.array([9, 9, 9]), np.array([24]), None, np.zeros(3)),
                framewise_output=(np.zeros((24, 2), np.float32), np.zeros(3, np.float32)),
                timebase=(np.array([1]), np.array([0, 0, 0]), np.array([8000, -80, 4]), None, np.array(["a"] * 3)),
            ),
            r"test\.npz",
        ),
        "predictions: folds and marks that are none": Kind(
            "submit",
            SUBMIT_TEST,
            arrays(
                npz,
                fold=(np.array(["x"] * 3), np.zeros(2, int)),
                unreadable=(np.zeros(3), None),
                score=(np.zeros((3, 2)), np.array(["x"] * 3)),
            ),
            r"test\.npz",
        ),
        "predictions: hidden from another folder": Kind(
            "submit", [*SUBMIT, "--predictions", "gone.npz"], [lambda root: None], r"gone\.npz .*the folder you are in"
        ),
        "OOF: cut": Kind("ensemble", ["--runs", RUN, "--out", "e.npz"], cut(f"{RUN}/fold0/oof.npz"), r"oof\.npz|folds"),
        "weights: cut": Kind("predict", PREDICT, cut(weights), r"best\.safetensors"),
        "weights: flipped": Kind("predict", PREDICT, flipped(weights), r"best\.safetensors", True),
        "weights: a header of 10^18 bytes": Kind(
            "predict",
            PREDICT,
            to(weights, (10**18).to_bytes(8, "little") + b"{}", bytes(8), b"\x02" + bytes(7) + b"{}"),
            r"best\.safetensors",
        ),
        "weights: another kind of file": Kind(
            "predict", PREDICT, to(weights, "", "<html>", b"\x80\x04.", b"PK\x03\x04"), r"best\.safetensors"
        ),
        "weights: NaN": Kind("predict", PREDICT, [nan_weights], r"best\.safetensors holds weights that are NaN"),
        "weights to start from: damaged": Kind(
            "train",
            [*TRAIN, "model.weights=w.bin"],
            to(
                "w.bin",
                "",
                "<html>",
                b"\x80\x04.",
                b"PK\x03\x04",
                "version https://git-lfs",
                bytes(100),
                b"\x80\x02}q\x00.",
                (10**18).to_bytes(8, "little") + b"{}",
            ),
            r"w\.bin",
        ),
        "run.json: damaged": Kind("predict", PREDICT, to(about, *BAD_JSON), r"run\.json"),
        "run.json: values of another kind": Kind(
            "predict",
            PREDICT,
            changed(
                about,
                classes=(None, 3, [], ["a"], ["low", "low", "mid"], [1, 2, 3], [["a"]], {"a": 1}),
                prior=(None, 3, [], [0.1], ["a", "b", "c"], [2, 3, 4], [True, 1, 0]),
            ),
            r"run\.json",
        ),
        "run.json: cut": Kind("predict", PREDICT, cut(about), r"run\.json"),
        "config of a run: damaged": Kind("predict", PREDICT, to(config, *BAD_YAML), r"config\.yaml", True),
        "config of a run: cut": Kind(
            "predict", PREDICT, cut(config), r"config\.yaml|best\.safetensors|run\.json", True
        ),
        "config: damaged": Kind(
            "describe",
            ["--config", "tiny.yaml", "--classes", "3"],
            to("tiny.yaml", *BAD_YAML),
            r"tiny\.yaml|base\.yaml|passwd|config",
            True,
        ),
        "config: a folder": Kind("train", TRAIN, a_folder("tiny.yaml"), r"tiny\.yaml is a folder"),
        "checkpoint: damaged": Kind(
            "train",
            ["--config", "tiny.yaml", "--fold", "0", "--name", "tiny", "--resume"],
            [with_unfinished(c) for c in to(f"{RUN}/fold0/last.ckpt", "", "x", b"PK\x03\x04", b"\x80\x04.", "<html>")],
            r"last\.ckpt",
        ),
        "post-processing, YAML: damaged": Kind(
            "submit", [*SUBMIT_TEST, "--post", "p.yaml"], to("p.yaml", *BAD_YAML), r"p\.yaml"
        ),
        "post-processing, JSON: damaged": Kind(
            "submit", [*SUBMIT_TEST, "--post", "p.json"], to("p.json", *BAD_JSON), r"p\.json"
        ),
        "post-processing: values that cannot be": Kind(
            "submit",
            [*SUBMIT_TEST, "--post", "p.yaml"],
            to(
                "p.yaml",
                "threshold: x",
                "threshold: -1",
                "threshold: .nan",
                "class_thresholds: 3",
                "class_thresholds: {low: x}",
                "class_thresholds: {no: 0.3}",
                "min_seconds: 1e400",
                "row_pool: [a]",
                "threshold: [[[]]]",
            ),
            r"p\.yaml",
        ),
        "post-processing: a folder": Kind(
            "submit", [*SUBMIT_TEST, "--post", "data"], [lambda root: None], "data is a folder"
        ),
        "truth: a folder": Kind("submit", [*SUBMIT_TEST, "--truth", "data"], [lambda root: None], "data is a folder"),
        "ensemble: damaged": Kind("bundle", BLEND, to("e.json", *BAD_JSON), r"e\.json"),
        "ensemble: values of another kind": Kind(
            "bundle",
            BLEND,
            changed(
                "e.json",
                runs=(None, 3, [3], {"a": 1}, [RUN, "gone"]),
                thresholds=(3,),
                post_processing=(3, [1]),
                blend=(None, 3, [], {"mean": 3}, {"weights": "x"}, {"weights": [-1]}, {"power": "x"}),
            ),
            r"e\.json|weights|mean",
        ),
        "bundle.json: damaged": Kind("run_kernel", KERNEL, unlisted("bundle/bundle.json", *BAD_JSON), r"bundle\.json"),
        "bundle.json: values of another kind": Kind(
            "run_kernel",
            KERNEL,
            [
                relisted(c)
                for c in changed(
                    "bundle/bundle.json",
                    competition=(None, 3),
                    networks=(
                        None,
                        3,
                        [3],
                        [{}],
                        [{"file": "../tiny.yaml", "run": "a", "folds": 1}],
                        [{"file": "tiny_fold0.onnx", "run": "a", "folds": 0}],
                    ),
                    tta=(None, 3),
                    prior=([1], [2, 2, 2]),
                    blend=(3, {"mean": "x"}),
                )
            ],
            r"bundle",
        ),
        "manifest: damaged": Kind(
            "run_kernel", KERNEL, to("bundle/manifest.json", *BAD_JSON[:-4], "{'a': 1}"), r"manifest\.json"
        ),
        "manifest: names that lead elsewhere": Kind(
            "run_kernel",
            KERNEL,
            changed(
                "bundle/manifest.json",
                **{
                    "../tiny.yaml": ({"bytes": 1, "sha256": ""},),
                    "/etc/passwd": ({"bytes": 1, "sha256": ""},),
                    "classes.csv": (3, {}, {"bytes": "x", "sha256": 3}),
                },
            ),
            r"manifest\.json",
        ),
        "graph: cut": Kind("run_kernel", KERNEL, [relisted(c) for c in cut(graph)[::3]], r"tiny_fold0\.onnx"),
        "dataset.json: damaged": Kind("train", TRAIN, to("data/dataset.json", *BAD_JSON), r"dataset\.json"),
        "dataset.json: values of another kind": Kind(
            "train",
            TRAIN,
            changed("data/dataset.json", source=(None, 3, [], {}), competition=(None, 3)),
            r"dataset\.json",
        ),
        "thresholds of anomalies: damaged": Kind(
            "submit", [*SUBMIT_TEST], to(f"{RUN}/test.json", *[b for b in BAD_JSON if b != "{}"]), r"test\.json"
        ),
        "plan of a comparison: damaged": Kind("compare", ["plan.yaml"], to("plan.yaml", *BAD_YAML), r"plan\.yaml"),
        "plan of a comparison: values of another kind": Kind(
            "compare",
            ["plan.yaml"],
            to(
                "plan.yaml",
                *(
                    f"tasks: {t}\nsystems: {s}\nseeds: {n}\n{more}"
                    for t, s, n, more in (
                        ("[scenes]", "[cnn9]", "[1]", ""),
                        ("{scenes: map}", "[cnn9]", "[1]", ""),
                        ("{scenes: [map]}", "cnn9", "[1]", ""),
                        ("{scenes: [map]}", "[cnn9]", "[a]", ""),
                        ("{scenes: [map]}", "[cnn9]", "3", ""),
                        ("{scenes: [map]}", "[cnn9]", "[1]", "fold: x"),
                        ("{scenes: [map]}", "[cnn9]", "[1]", "overrides: [a=b]"),
                    )
                ),
            ),
            r"plan\.yaml",
        ),
    }
    for table in ("clips", "classes", "events", "test_clips"):
        script, arguments = ("predict", PREDICT) if table == "test_clips" else ("train", TRAIN)
        found[f"{table}.csv: damaged"] = Kind(
            script,
            arguments,
            to(f"data/{table}.csv", *BAD_TABLE),
            rf"{table}\.csv|events|c0|clip|recordings could be read",
            table == "test_clips",
        )
    found["fold table: damaged"] = Kind("train", TRAIN, to("folds.csv", *BAD_TABLE), r"folds\.csv")
    found["fold table: folds that are none"] = Kind(
        "train",
        ["--config", "tiny.yaml", "--fold", "all", "--name", "new", "optim.epochs=1"],
        to(
            "folds.csv",
            *(
                "clip_id,group,fold\n" + "".join(f"c{i},c{i},{f}\n" for i in range(6))
                for f in ("x", "1e400", "0.5", "-2", "", "99999999999999999999")
            ),
        ),
        r"folds\.csv|fold",
    )
    found["test table: damaged"] = Kind("submit", SUBMIT_TEST, to("data/test.csv", *BAD_TABLE), r"test\.csv|test table")
    found["a table's place: a recording"] = Kind(
        "make_folds",
        ["--clips", "source/t0.wav", "--out", "f.csv"],
        [lambda root: None],
        r"t0\.wav is not a CSV table, it is a recording: give a table",
    )
    found["a table's place: predictions"] = Kind(
        "submit",
        [*SUBMIT, "--predictions", f"{RUN}/test.npz", "--truth", f"{RUN}/test.npz"],
        [lambda root: None],
        r"test\.npz is not a CSV table, it is a zip archive \(or predictions",
    )
    found["log of submissions: damaged"] = Kind(
        "submit", SUBMIT_TEST, to("log.csv", b"\x80", b"a\x00", "a,b\n1,2\n"), r"log\.csv"
    )
    return found


KINDS: dict[str, Kind] = files() | hostile_names.stores() | hostile_names.names()

"""Hostile names, command lines, samples and stores that hostile_inputs.py tries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile_changes import BAD_JSON, BLEND, KERNEL, ODD_CLASSES, PREDICT, RUN, SUBMIT_TEST, TRAIN, Change, Kind, to

# ---- what is heard


def huge_sample(value: float, where: str = "c0") -> Change:
    """One float sample of that value in a recording."""

    def write(root: Path):
        import soundfile

        sound, rate = soundfile.read(root / f"source/{where}.wav", dtype="float64")
        sound[len(sound) // 2] = value
        soundfile.write(root / f"source/{where}.wav", sound, rate, subtype="DOUBLE")

    return write


def stores() -> dict[str, Kind]:
    """Packed stores, caches and HDF5 files that are damaged after they were made."""

    def packed(change: Callable[[Path], None]) -> Change:
        return lambda root: (_cache(root, "packed"), change(next(root.glob("data/cache/*/waveform.npy")).parent))[0]

    def logmel(change: Callable[[Path], None]) -> Change:
        return lambda root: (_cache(root, "logmel"), change(next(root.glob("data/cache/*/logmel.npy")).parent))[0]

    def h5(make: Callable) -> Change:
        def write(root: Path):
            import h5py

            with h5py.File(root / "source/x.h5", "w") as file:
                make(file)
            _point_to(root, "x.h5#0")

        return write

    def put(name: str, *contents: bytes) -> list[Callable[[Path], None]]:
        return [lambda store, c=c: (store / name).write_bytes(c) for c in contents]

    halved = lambda name: [lambda store: (store / name).write_bytes((store / name).read_bytes()[:-40])]  # noqa: E731
    all_json, rubbish = [b if isinstance(b, bytes) else b.encode() for b in BAD_JSON], (b"", b"x", b"\x93NUMPY\x01\x00")
    use = {"packed": [*TRAIN, "data.cache=packed", "data.pack_seconds=1"], "logmel": [*TRAIN, "data.cache=logmel"]}
    return {
        "packed store: waveforms": Kind(
            "train",
            use["packed"],
            [packed(c) for c in (*put("waveform.npy", *rubbish), *halved("waveform.npy"))],
            r"waveform\.npy|c\d|recording",
        ),
        "packed store: lengths": Kind(
            "train",
            use["packed"],
            [packed(c) for c in (*put("lengths.npy", *rubbish), *halved("lengths.npy"))],
            r"lengths\.npy|c\d|recording",
        ),
        "packed store: description": Kind(
            "train", use["packed"], [packed(c) for c in put("params.json", *all_json)], r"params\.json|cache"
        ),
        "packed store: index": Kind(
            "train",
            use["packed"],
            [
                packed(c)
                for c in put(
                    "index.csv", b"", b"a,b\n1,2\n", b"\x80", b"clip_id,path,size,modified_ns,row\nc0,c0.wav,1,1,x\n"
                )
            ],
            r"index\.csv|cache",
        ),
        "log-mel cache: content": Kind(
            "train",
            use["logmel"],
            [logmel(c) for c in (*put("logmel.npy", *rubbish), *halved("logmel.npy"))],
            r"logmel\.npy|cache",
        ),
        "log-mel cache: description": Kind(
            "train", use["logmel"], [logmel(c) for c in put("params.json", *all_json)], r"params\.json|cache"
        ),
        "log-mel cache: index": Kind(
            "train",
            use["logmel"],
            [logmel(c) for c in put("index.csv", b"", b"a,b\n1,2\n", b"\x80")],
            r"index\.csv|cache",
        ),
        "HDF5: of another kind": Kind(
            "prepare",
            ["audioset", "--source", "source"],
            to("source/x.h5", "", "x", "<html>"),
            r"source|audioset|download",
            False,
        ),
        "HDF5: samples that are none": Kind(
            "predict",
            PREDICT,
            [
                h5(lambda f: f.create_dataset("waveform", data=[[b"a", b"b"]])),
                h5(lambda f: f.create_group("waveform")),
                h5(lambda f: f.create_dataset("waveform", data=np.zeros(5))),
                h5(
                    lambda f: f.create_dataset("waveform", data=np.zeros((1, 80))).parent.attrs.create(
                        "sample_rate", "fast"
                    )
                ),
            ],
            r"x\.h5",
        ),
        "a sample of 1e20": Kind(
            "train", TRAIN, [huge_sample(v) for v in (1e20, -1e20, 3e38, 1e300, np.inf, np.nan)], "c0", "must", _trained
        ),
        "a sample of 1e20 in a test": Kind(
            "predict", PREDICT, [huge_sample(v, "t0") for v in (1e20, np.inf)], "t0", "must", _odd_is_listed
        ),
        "a column of 1e20": Kind(
            "train",
            [*TRAIN, "data.metadata=[depth]"],
            [_column("1e20"), _column("1e300"), _column("inf"), _column("nan"), _column("x")],
            r"clips\.csv: column 'depth'",
        ),
    }


def _cache(root: Path, kind: str):
    from earshot.config import load_config
    from earshot.data.caches import LogmelCache
    from earshot.data.prepared import load_data

    config = load_config(root / "tiny.yaml", ["data.pack_seconds=1", f"data.cache={kind}"])
    data = load_data(config.data)
    if kind == "logmel":
        record = next(iter(config.frontends.values()))
        LogmelCache.build("data/cache", data.whole, data.source, record, config.data.sample_rate)


def _point_to(root: Path, path: str):
    (root / "data/test_clips.csv").write_text(f"clip_id,path\nt0,{path}\n")


def _column(value: str) -> Change:
    def write(root: Path):
        lines = (root / "data/clips.csv").read_text().splitlines()
        rows = [f"{line},1" for line in lines[2:]]
        (root / "data/clips.csv").write_text("\n".join([f"{lines[0]},depth", f"{lines[1]},{value}", *rows]) + "\n")

    return write


def _trained(root: Path):
    import pandas as pd

    log = pd.read_csv(root / "runs/sed/new/fold0/log.csv")
    assert np.isfinite(log.loss).all(), "the loss is not finite"


def _odd_is_listed(root: Path):
    assert "t0.wav" in (root / "found_odd_files.csv").read_text(), "the odd recording is not listed"


# ---- names and command lines


def names() -> dict[str, Kind]:
    """Names that lead elsewhere, command lines that contradict themselves, class names of every kind."""
    same = [lambda root: None]
    train = ["--config", "tiny.yaml", "--fold", "0"]
    found = {}
    for name in (
        "..",
        "../up",
        "/abs/olute",
        "a/b",
        "a\\b",
        ".hidden",
        "NUL",
        "con.txt",
        "x" * 300,
        "a\nb",
        "a:b",
        " a",
        "a.",
    ):
        found[f"--name {name[:12]!r}"] = Kind("train", [*train, f"--name={name}"], same, "--name")
    for task in ("../x", "..", "/tmp/x", "nul", ""):
        found[f"task={task!r}"] = Kind("train", [*train, f"task={task}"], same, "task")
    for bad, pattern in (
        ("a.b", "a.b"),
        ("=3", "no key"),
        ("a==b", "unknown key 'a'"),
        ("optim.lr", "optim.lr"),
        ("lr=3", "optim.lr"),
        ("optim.lr==3", "two '='"),
        ("optim..lr=3", "optim.lr"),
        (".lr=3", "optim.lr"),
        ("optim.lr=[", "is not valid YAML"),
        ("optim.lr=1e400", "optim.lr must be a number"),
        ("optim.lr=&a [*a]", "refers to itself"),
        ("seed=x", "seed must be"),
    ):
        found[f"override {bad}"] = Kind("train", [*train, bad], same, pattern)
    for script, arguments in {
        "train": [*train, "--name", "a", "--name", "b"],
        "predict": [*PREDICT, "--out", "other.npz"],
        "submit": [*SUBMIT_TEST, "--out", "other.csv"],
        "ensemble": ["--runs", RUN, "--out", "a.npz", "--out", "b.npz"],
        "export": ["--run", RUN, "--format", "onnx", "--format", "openvino"],
        "bundle": [*BLEND, "--minutes", "3", "--minutes", "4"],
        "make_folds": ["--clips", "data/clips.csv", "--out", "f.csv", "--k", "2", "--k", "3"],
        "prepare": ["synth", "--seed", "1", "--seed", "2"],
        "report": ["--runs", RUN, "--out", "a", "--out", "b"],
        "run_kernel": [*KERNEL, "--minutes", "2"],
        "describe": ["--config", "tiny.yaml", "--clips", "1", "--clips", "2"],
        "compare": ["plan.yaml", "--out", "a", "--out", "b"],
        "fewshot": ["--config", "tiny.yaml", "--seeds", "1", "--seeds", "2"],
        "score_anomalies": ["--run", RUN, "--out", "a.npz", "--out", "b.npz"],
    }.items():
        found[f"{script}: an option twice"] = Kind(script, arguments, same, "given twice")
    found["a setting twice"] = Kind("train", [*train, "optim.lr=1", "optim.lr=2"], same, "optim.lr is set twice")
    found["--fold twice, a setting between"] = Kind(
        "train",
        ["--config", "tiny.yaml", "--name", "new", "--fold", "0", "optim.epochs=1", "--fold", "1"],
        same,
        "",
        "must",
        _both_folds,
    )
    for out in ("data", "x.txt", "noending", "x.npz/y.npz/../..", "y" * 300 + ".npz"):
        found[f"--out {out[:12]}"] = Kind("predict", [*PREDICT[:-1], out], same, r"\.npz|folder|cannot be written")
    found["--out x.csv"] = Kind("predict", [*PREDICT[:-1], "x.csv"], same, "", "must", _is_table)
    found["class names: trained, predicted, drawn"] = Kind(
        "train", TRAIN, [_odd_classes], "", "must", _odd_classes_are_kept
    )
    found["class names: a bundle"] = Kind("run_kernel", KERNEL, [_odd_bundle], "", "must", _odd_rows)
    found["class names that cannot be"] = Kind(
        "train",
        TRAIN,
        to(
            "data/classes.csv",
            'label\nlow\nmid\n"hi\ngh"\n',
            "label\nlow\nmid high\n",
            "label\nlow\nlow\n",
            "label\n",
            "label\nlow\n\x01\nhigh\n",
        ),
        r"classes\.csv",
    )
    found["a label with spaces around"] = Kind("train", TRAIN, [_spaced_labels], "", "must")
    found["file names of 255 bytes"] = Kind(
        "train", [*TRAIN, "data.cache=waveform"], [_long_names], "", "must", _trained
    )
    return found


def _both_folds(root: Path):
    assert all((root / f"runs/sed/new/fold{k}/oof.npz").is_file() for k in (0, 1)), "one of both folds is not trained"


def _is_table(root: Path):
    import pandas as pd

    table = pd.read_csv(root / "x.csv")
    assert table.columns.tolist() == ["clip_id", "unreadable", "low", "mid", "high"], table.columns
    assert len(table) == 3, table


def _odd_classes(root: Path):
    import pandas as pd

    change = dict(zip(("low", "mid", "high"), ODD_CLASSES, strict=False))
    for name, column in (("clips", "labels"), ("events", "event_label")):
        table = pd.read_csv(root / f"data/{name}.csv")
        table.assign(**{column: table[column].map(change)}).to_csv(root / f"data/{name}.csv", index=False)
    pd.DataFrame({"label": ODD_CLASSES}).to_csv(root / "data/classes.csv", index=False)


def _odd_classes_are_kept(root: Path):
    import importlib
    import sys

    from earshot.prediction.predictions import Predictions
    from earshot.tables import read_table

    kept, sys.argv = sys.argv, ["predict", "--run", "runs/sed/new", "--clips", "data/test_clips.csv", "--out", "x.csv"]
    importlib.import_module("predict").main()
    sys.argv = kept
    fold = root / "runs/sed/new/fold0"
    assert Predictions.load(fold / "oof.npz").classes == ODD_CLASSES
    assert tuple(read_table(fold / "classes.csv").label) == ODD_CLASSES
    assert tuple(read_table("x.csv").columns[2:]) == ODD_CLASSES
    assert (fold / "classes.png").is_file()


def _odd_bundle(root: Path):
    import shutil

    import tiny_graphs
    from earshot import files
    from earshot.kernel.manifest import write_manifest

    shutil.rmtree(root / "bundle")
    tiny_graphs.write_bundle(root / "bundle", classes=ODD_CLASSES)
    files.write_rows(root / "bundle/classes.csv", [{"label": c} for c in ODD_CLASSES])
    write_manifest(root / "bundle")


def _odd_rows(root: Path):
    from earshot.tables import read_table

    assert tuple(read_table("submission.csv").columns[1:]) == ODD_CLASSES


def _spaced_labels(root: Path):
    path = root / "data/events.csv"
    path.write_text(path.read_text().replace("low", " low "))


def _long_names(root: Path):
    clips = root / "data/clips.csv"
    for i in range(6):
        name = f"{'ü' * 125}{i}.wav"
        (root / f"source/c{i}.wav").rename(root / "source" / name)
        clips.write_text(clips.read_text().replace(f"c{i}.wav", name))

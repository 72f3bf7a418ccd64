"""The kinds of damaged and hostile inputs that hostile_inputs.py tries: a command, and what is done to its input."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Change = Callable[[Path], None]
ODD_CLASSES = (
    "a,b",
    "$x^$",
    "=cmd|'/C'!A0",
    '"quoted"',
    "ümlaut",
    "_under",
    "%s{}",
    "-1",
    "None",
    "007",
    "1e3",
    "true",
)
RUN = "runs/sed/tiny"
SUBMIT = ["--competition", "birdcall", "--test", "data/test.csv", "--out", "s.csv", "--log", "log.csv"]
SUBMIT_TEST = [*SUBMIT, "--predictions", f"{RUN}/test.npz"]
PREDICT = ["--run", RUN, "--clips", "data/test_clips.csv", "--out", "found.npz"]
TRAIN = ["--config", "tiny.yaml", "--fold", "0", "--name", "new", "optim.epochs=1"]
KERNEL = [
    "--bundle",
    "bundle",
    "--competition",
    "birdclef2026",
    "--test-folder",
    "source",
    "--minutes",
    "1",
    "--strict",
]
BLEND = ["--blend", "e.json", "--competition", "birdcall", "--slug", "me/my-kernel"]


@dataclass(frozen=True)
class Kind:
    """`script` with `arguments`, once after each of `changes`; an error must hold `names` (a pattern).

    may_work: whether the input may be used all the same ("must": it has to be); after: what must then be so.
    """

    script: str
    arguments: list[str]
    changes: Sequence[Change]
    names: str
    may_work: bool | str = False
    after: Change | None = None


def also(script: str) -> tuple[type[Exception], ...]:
    """Errors that a script says besides, as its last line has it."""
    return {"train": (RuntimeError,), "run_kernel": (RuntimeError, MemoryError)}.get(script, ())


def make(root: Path) -> Path:
    """A tiny competition, a run of an untrained network with its predictions, a bundle, a choice and an ensemble."""
    import tiny_graphs
    from conftest import write_tiny
    from earshot import files, runs
    from earshot.config import load_config
    from earshot.prediction.predictions import Predictions

    root.mkdir(parents=True)
    write_tiny(root, n_clips=6, folds=2)
    for path in (root / "tiny.yaml", root / "data/dataset.json"):  # the folder is copied: its paths are relative
        path.write_text(path.read_text().replace(f"{root}/", ""))
    config = load_config(root / "tiny.yaml")
    classes = ["low", "mid", "high"]
    model = runs.make_model(config, len(classes))
    timebase = config.inputs(model.inputs).timebase(model.pool)
    fold = runs.create_fold(root / RUN / "fold0", config, resume=False)
    about = runs.describe_run(config, 0, classes, np.full(3, 0.3), timebase)
    runs.save_weights(fold.folder / "best.safetensors", model, about)
    files.write_text(fold.folder / "run.json", json.dumps(about | {"finished": True, "scores": {"map": 0.5}}))
    for name, ids, of in (("test", ["t0", "t1", "t2"], -1), ("oof", ["c0", "c1", "c2"], 0)):
        frames = tuple(np.full((8, 3), 0.4, np.float32) for _ in ids)
        found = Predictions(np.array(ids), tuple(classes), np.full((3, 3), 0.5, np.float32), np.full(3, of),
                            np.zeros(3, bool), frames, timebase)  # fmt: skip
        found.save(root / RUN / f"{name}.npz")
        found.save(fold.folder / f"{name}.npz")
    tiny_graphs.write_bundle(root / "bundle")
    post = {"post": {"threshold": 0.4}, "competition": "birdcall", "score": "row_micro_f1"}
    (root / "p.json").write_text(json.dumps(post))
    (root / "p.yaml").write_text("threshold: 0.4\n")
    (root / "e.json").write_text(json.dumps({"runs": [RUN], "blend": {"mean": "mean", "weights": [1.0]}}))
    return root


# ---- what is done to a file


def to(name: str, *contents: bytes | str) -> list[Change]:
    """The file holds each of these in turn."""

    def put(root: Path, content):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return [lambda root, c=c: put(root, c) for c in contents]


def cut(name: str) -> list[Change]:
    """The file ends at every tenth of it."""

    def shorten(root: Path, tenths: int):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) * tenths // 10])

    return [lambda root, t=t: shorten(root, t) for t in range(10)]


def flipped(name: str, times: int = 12) -> list[Change]:
    """Some bytes of the file, at places that a seed chooses, are others."""

    def flip(root: Path, seed: int):
        data, rng = bytearray((root / name).read_bytes()), np.random.default_rng(seed)
        for at in rng.integers(0, len(data), 1 + len(data) // 2000):
            data[at] ^= 1 << int(rng.integers(0, 8))
        (root / name).write_bytes(bytes(data))

    return [lambda root, s=s: flip(root, s) for s in range(times)]


def changed(name: str, **values) -> list[Change]:
    """The JSON file with each of these values in turn (None: without it)."""

    def change(root: Path, key: str, value):
        about = json.loads((root / name).read_text())
        about = {k: v for k, v in about.items() if k != key} | ({} if value is None else {key: value})
        (root / name).write_text(json.dumps(about))

    return [lambda root, k=k, v=v: change(root, k, v) for k, some in values.items() for v in some]


def arrays(name: str, **values) -> list[Change]:
    """The npz file with each of these arrays in turn (None: without it)."""

    def change(root: Path, key: str, value):
        with np.load(root / name) as file:
            data = dict(file)
        data.pop(key, None)
        np.savez(root / name, **data, **({} if value is None else {key: value}))

    return [lambda root, k=k, v=v: change(root, k, v) for k, some in values.items() for v in some]


def header_bomb(root: Path):
    """An npz of some hundred bytes whose header claims 10^15 numbers."""
    _one_array(root / RUN / "test.npz", b"", (10**15,), "<f8")


def zeros_bomb(root: Path):
    """An npz of 5 MB that is more than 1 GB of zeros."""
    with zipfile.ZipFile(root / RUN / "test.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("clipwise_output.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (68 * 2**22, 1)}
            )
            for _ in range(68):
                file.write(bytes(2**24))


def _one_array(path: Path, data: bytes, shape: tuple[int, ...], kind: str):
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clipwise_output.npy", text.getvalue() + data)


def pickled(root: Path):
    np.savez(root / RUN / "test.npz", clip_ids=np.array([{"a": 1}], dtype=object))


def a_folder(name: str) -> list[Change]:
    """A folder stands where the file should."""

    def replace(root: Path):
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir(parents=True)

    return [replace]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(9 * ['*' + chr(97 + i)])}]\n" for i in range(9)
)
BAD_YAML = ("a: [", LAUGHS, "a: &a [*a]", "[" * 5000, "- 1", "x", "%", "a: b: c", "? [a]\n: b", "{[1]: 2}", "\t", "a: *b",
            "!!python/object/apply:os.system [ls]", "optim: !!bool foo", "optim: !!int ''", "optim: 2001-99-99", "=",
            "optim: !!binary .", b"\xff\xfe\x00", b"\x80abc", b"a: \x00", "seed: " + "9" * 6000, "optim: [1]",
            "seed: 1\nseed: 2", "optim: {lr: 1, lr: 2}", "<<: 3", "optim: {lr: .nan}", "optim: {lr: .inf}",
            "on: 1", "1: 2", "optim: !!set {lr}", "base: base.yaml", "base: [1]", "base: /etc/passwd")  # fmt: skip
BAD_JSON = ("", "{", "[]", "null", "3", '"x"', "[" * 100000, '{"a": ' * 5000, b"\xff\xfe{}", b"\x80", "{}", "NaN",
            '{"a": ' + "9" * 6000 + "}", "{'a': 1}")  # fmt: skip
BAD_TABLE = ("", "\n", b"\xff\xfea\x00,\x00b\x00", b"\x80\x81,b\n", b"clip_id,path\nc\x00,d\n", b"PAR1" + bytes(40) + b"PAR1",
             b"PK\x03\x04" + bytes(40), b"RIFF" + bytes(60), "<html>404</html>", "clip_id;path;x,y\na,b\n", "a,b\n1,2\n",
             "clip_id,clip_id,path,labels\na,b,c,low\n", 'clip_id,path,labels\n"a,b,low\n', "{}",
             "clip_id,path,labels\na,b,low,more,more\n", "clip_id,path,labels\n,c0.wav,low\n",
             "clip_id,path,labels\nc0,c0.wav,low\nc0,c1.wav,low\n")  # fmt: skip
NOT_NUMBERS = (np.array(["x"] * 3), np.zeros((3, 3), complex), np.zeros(3), np.zeros((2, 3)), np.full((3, 3), np.nan),
               np.full((3, 3), np.inf), np.zeros((3, 3, 3)), np.float32(1), None)  # fmt: skip


def files() -> dict[str, Kind]:
    """Stored files that are cut, flipped, of another kind or hostile."""
    npz, weights, about = f"{RUN}/test.npz", f"{RUN}/fold0/best.safetensors", f"{RUN}/fold0/run.json"
    config, graph = f"{RUN}/fold0/config.yaml", "bundle/tiny_fold0.onnx"
    found = {
        "predictions: cut": Kind("submit", SUBMIT_TEST, cut(npz), r"test\.npz"),
        "predictions: flipped": Kind("submit", SUBMIT_TEST, flipped(npz, 25), r"test\.npz", True),
        "predictions: another kind of file": Kind(
            "submit", SUBMIT_TEST, to(npz, b"", b"x", b"<html>", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x80\x04."), r"test\.npz"
        ),
        "predictions: a folder": Kind("submit", SUBMIT_TEST, a_folder(npz), r"test\.npz is a folder"),
        "predictions: pickled objects": Kind("submit", SUBMIT_TEST, [pickled], "pickled objects, which are not loaded"),
        "predictions: a huge shape": Kind("submit", SUBMIT_TEST, [header_bomb], r"test\.npz .*should have 8,000,000,000,000,000 bytes"),
        "predictions: a bomb of zeros": Kind("submit", SUBMIT_TEST, [zeros_bomb], r"test\.npz .*GB in memory"),
        "predictions: outputs that are none": Kind(
            "submit", SUBMIT_TEST, arrays(npz, clipwise_output=NOT_NUMBERS), r"test\.npz .*clipwise_output"
        ),
        "predictions: ids that are none": Kind(
            "submit", SUBMIT_TEST, arrays(npz, clip_ids=(np.arange(3), np.array(["a", "a", "b"]), np.array(["a"]), None)),
            r"test\.npz",
        ),
        "predictions: frames that do not fit": Kind(
            "submit", SUBMIT_TEST,
            arrays(npz, frame_counts=(np.array([-1, 9, 16]), np.array([9, 9, 9]), np.array([24]), None, np.zeros(3)),
                   framewise_output=(np.zeros((24, 2), np.float32), np.zeros(3, np.float32)),
                   timebase=(np.array([1]), np.array([0, 0, 0]), np.array([8000, -80, 4]), None, np.array(["a"] * 3))),
            r"test\.npz",
        ),
        "predictions: folds and marks that are none": Kind(
            "submit", SUBMIT_TEST, arrays(npz, fold=(np.array(["x"] * 3), np.zeros(2, int)), unreadable=(np.zeros(3), None),
                                          score=(np.zeros((3, 2)), np.array(["x"] * 3))), r"test\.npz",
        ),
        "predictions: hidden from another folder": Kind(
            "submit", [*SUBMIT, "--predictions", "gone.npz"], [lambda root: None], r"gone\.npz .*the folder you are in"
        ),
        "OOF: cut": Kind("ensemble", ["--runs", RUN, "--out", "e.npz"], cut(f"{RUN}/fold0/oof.npz"), r"oof\.npz|folds"),
        "weights: cut": Kind("predict", PREDICT, cut(weights), r"best\.safetensors"),
        "weights: flipped": Kind("predict", PREDICT, flipped(weights), r"best\.safetensors", True),
        "weights: a header of 10^18 bytes": Kind(
            "predict", PREDICT, to(weights, (10**18).to_bytes(8, "little") + b"{}", bytes(8), b"\x02" + bytes(7) + b"{}"),
            r"best\.safetensors",
        ),
        "weights: another kind of file": Kind(
            "predict", PREDICT, to(weights, "", "<html>", b"\x80\x04.", b"PK\x03\x04"), r"best\.safetensors"
        ),
        "weights: NaN": Kind("predict", PREDICT, [nan_weights], r"best\.safetensors holds weights that are NaN"),
        "weights to start from: damaged": Kind(
            "train", [*TRAIN, "model.weights=w.bin"],
            to("w.bin", "", "<html>", b"\x80\x04.", b"PK\x03\x04", "version https://git-lfs", bytes(100), b"\x80\x02}q\x00.",
               (10**18).to_bytes(8, "little") + b"{}"), r"w\.bin",
        ),
        "run.json: damaged": Kind("predict", PREDICT, to(about, *BAD_JSON), r"run\.json"),
        "run.json: values of another kind": Kind(
            "predict", PREDICT,
            changed(about, classes=(None, 3, [], ["a"], ["low", "low", "mid"], [1, 2, 3], [["a"]], {"a": 1}),
                    prior=(None, 3, [], [0.1], ["a", "b", "c"], [2, 3, 4], [True, 1, 0])),
            r"run\.json",
        ),
        "run.json: cut": Kind("predict", PREDICT, cut(about), r"run\.json"),
        "config of a run: damaged": Kind("predict", PREDICT, to(config, *BAD_YAML), r"config\.yaml", True),
        "config of a run: cut": Kind("predict", PREDICT, cut(config), r"config\.yaml|best\.safetensors|run\.json", True),
        "config: damaged": Kind("describe", ["--config", "tiny.yaml", "--classes", "3"], to("tiny.yaml", *BAD_YAML),
                                r"tiny\.yaml|base\.yaml|passwd|config", True),
        "config: a folder": Kind("train", TRAIN, a_folder("tiny.yaml"), r"tiny\.yaml is a folder"),
        "checkpoint: damaged": Kind(
            "train", ["--config", "tiny.yaml", "--fold", "0", "--name", "tiny", "--resume"],
            [with_unfinished(c) for c in to(f"{RUN}/fold0/last.ckpt", "", "x", b"PK\x03\x04", b"\x80\x04.", "<html>")],
            r"last\.ckpt",
        ),
        "post-processing, YAML: damaged": Kind("submit", [*SUBMIT_TEST, "--post", "p.yaml"], to("p.yaml", *BAD_YAML),
                                               r"p\.yaml"),
        "post-processing, JSON: damaged": Kind("submit", [*SUBMIT_TEST, "--post", "p.json"], to("p.json", *BAD_JSON),
                                               r"p\.json"),
        "post-processing: values that cannot be": Kind(
            "submit", [*SUBMIT_TEST, "--post", "p.yaml"],
            to("p.yaml", "threshold: x", "threshold: -1", "threshold: .nan", "class_thresholds: 3", "class_thresholds: {low: x}",
               "class_thresholds: {no: 0.3}", "min_seconds: 1e400", "row_pool: [a]", "threshold: [[[]]]"), r"p\.yaml",
        ),
        "post-processing: a folder": Kind("submit", [*SUBMIT_TEST, "--post", "data"], [lambda root: None],
                                          "data is a folder"),
        "truth: a folder": Kind("submit", [*SUBMIT_TEST, "--truth", "data"], [lambda root: None], "data is a folder"),
        "ensemble: damaged": Kind("bundle", BLEND, to("e.json", *BAD_JSON), r"e\.json"),
        "ensemble: values of another kind": Kind(
            "bundle", BLEND, changed("e.json", runs=(None, 3, [3], {"a": 1}, [RUN, "gone"]), thresholds=(3,),
                                     post_processing=(3, [1]),
                                     blend=(None, 3, [], {"mean": 3}, {"weights": "x"}, {"weights": [-1]}, {"power": "x"})),
            r"e\.json|weights|mean",
        ),
        "bundle.json: damaged": Kind("run_kernel", KERNEL, unlisted("bundle/bundle.json", *BAD_JSON), r"bundle\.json"),
        "bundle.json: values of another kind": Kind(
            "run_kernel", KERNEL, [relisted(c) for c in changed(
                "bundle/bundle.json", competition=(None, 3), networks=(None, 3, [3], [{}], [{"file": "../tiny.yaml", "run": "a",
                "folds": 1}], [{"file": "tiny_fold0.onnx", "run": "a", "folds": 0}]), tta=(None, 3), prior=([1], [2, 2, 2]),
                blend=(3, {"mean": "x"}))], r"bundle",
        ),
        "manifest: damaged": Kind("run_kernel", KERNEL, to("bundle/manifest.json", *BAD_JSON[:-4], "{'a': 1}"), r"manifest\.json"),
        "manifest: names that lead elsewhere": Kind(
            "run_kernel", KERNEL, changed("bundle/manifest.json", **{"../tiny.yaml": ({"bytes": 1, "sha256": ""},),
                                                                      "/etc/passwd": ({"bytes": 1, "sha256": ""},),
                                                                      "classes.csv": (3, {}, {"bytes": "x", "sha256": 3})}),
            r"manifest\.json",
        ),
        "graph: cut": Kind("run_kernel", KERNEL, [relisted(c) for c in cut(graph)[::3]], r"tiny_fold0\.onnx"),
        "dataset.json: damaged": Kind("train", TRAIN, to("data/dataset.json", *BAD_JSON), r"dataset\.json"),
        "dataset.json: values of another kind": Kind(
            "train", TRAIN, changed("data/dataset.json", source=(None, 3, [], {}), competition=(None, 3)), r"dataset\.json"
        ),
        "thresholds of anomalies: damaged": Kind(
            "submit", [*SUBMIT_TEST], to(f"{RUN}/test.json", *[b for b in BAD_JSON if b != "{}"]), r"test\.json"
        ),
        "plan of a comparison: damaged": Kind("compare", ["plan.yaml"], to("plan.yaml", *BAD_YAML), r"plan\.yaml"),
        "plan of a comparison: values of another kind": Kind(
            "compare", ["plan.yaml"],
            to("plan.yaml", *(f"tasks: {t}\nsystems: {s}\nseeds: {n}\n{more}" for t, s, n, more in (
                ("[scenes]", "[cnn9]", "[1]", ""), ("{scenes: map}", "[cnn9]", "[1]", ""), ("{scenes: [map]}", "cnn9", "[1]", ""),
                ("{scenes: [map]}", "[cnn9]", "[a]", ""), ("{scenes: [map]}", "[cnn9]", "3", ""),
                ("{scenes: [map]}", "[cnn9]", "[1]", "fold: x"), ("{scenes: [map]}", "[cnn9]", "[1]", "overrides: [a=b]")))),
            r"plan\.yaml",
        ),
    }  # fmt: skip
    for table in ("clips", "classes", "events", "test_clips"):
        script, arguments = ("predict", PREDICT) if table == "test_clips" else ("train", TRAIN)
        found[f"{table}.csv: damaged"] = Kind(
            script,
            arguments,
            to(f"data/{table}.csv", *BAD_TABLE),
            rf"{table}\.csv|events|c0|clip",
            table == "test_clips",
        )
    found["fold table: damaged"] = Kind("train", TRAIN, to("folds.csv", *BAD_TABLE), r"folds\.csv")
    found["fold table: folds that are none"] = Kind(
        "train", ["--config", "tiny.yaml", "--fold", "all", "--name", "new", "optim.epochs=1"],
        to("folds.csv", *("clip_id,group,fold\n" + "".join(f"c{i},c{i},{f}\n" for i in range(6))
                          for f in ("x", "1e400", "0.5", "-2", "", "99999999999999999999"))), r"folds\.csv|fold",
    )  # fmt: skip
    found["test table: damaged"] = Kind("submit", SUBMIT_TEST, to("data/test.csv", *BAD_TABLE), r"test\.csv|test table")
    found["a table's place: a recording"] = Kind(
        "predict", ["--run", RUN, "--clips", "source/t0.wav", "--out", "f.npz"], [lambda root: None],
        r"t0\.wav is a recording: give a table",
    )  # fmt: skip
    found["a table's place: predictions"] = Kind(
        "submit", [*SUBMIT, "--predictions", f"{RUN}/test.npz", "--truth", f"{RUN}/test.npz"], [lambda root: None],
        r"test\.npz is a zip archive \(or predictions",
    )  # fmt: skip
    found["log of submissions: damaged"] = Kind(
        "submit", SUBMIT_TEST, to("log.csv", b"\x80", b"a\x00", "a,b\n1,2\n"), r"log\.csv"
    )
    return found


def nan_weights(root: Path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = root / RUN / "fold0/best.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    state = load_file(path)
    name = next(k for k, v in state.items() if v.is_floating_point())
    state[name][...] = float("nan")
    save_file(state, path, metadata=about)


def with_unfinished(change: Change) -> Change:
    """The change, in a fold whose training was stopped."""

    def both(root: Path):
        (root / RUN / "fold0/run.json").unlink()
        change(root)

    return both


def relisted(change: Change) -> Change:
    """The change to a file of the bundle, whose manifest then has it as it is."""

    def both(root: Path):
        from earshot.kernel.manifest import write_manifest

        change(root)
        write_manifest(root / "bundle")

    return both


def unlisted(name: str, *contents) -> list[Change]:
    return [relisted(change) for change in to(name, *contents)]


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
        "packed store: waveforms": Kind("train", use["packed"], [
            packed(c) for c in (*put("waveform.npy", *rubbish), *halved("waveform.npy"))], r"waveform\.npy|c\d|recording"),
        "packed store: lengths": Kind("train", use["packed"], [
            packed(c) for c in (*put("lengths.npy", *rubbish), *halved("lengths.npy"))], r"lengths\.npy|c\d|recording"),
        "packed store: description": Kind("train", use["packed"], [packed(c) for c in put("params.json", *all_json)],
                                          r"params\.json|cache"),
        "packed store: index": Kind("train", use["packed"], [
            packed(c) for c in put("index.csv", b"", b"a,b\n1,2\n", b"\x80", b"clip_id,path,size,modified_ns,row\nc0,c0.wav,1,1,x\n")],
            r"index\.csv|cache"),
        "log-mel cache: content": Kind("train", use["logmel"], [
            logmel(c) for c in (*put("logmel.npy", *rubbish), *halved("logmel.npy"))], r"logmel\.npy|cache"),
        "log-mel cache: description": Kind("train", use["logmel"], [logmel(c) for c in put("params.json", *all_json)],
                                           r"params\.json|cache"),
        "log-mel cache: index": Kind("train", use["logmel"], [
            logmel(c) for c in put("index.csv", b"", b"a,b\n1,2\n", b"\x80")], r"index\.csv|cache"),
        "HDF5: of another kind": Kind("prepare", ["audioset", "--source", "source"], to("source/x.h5", "", "x", "<html>"),
                                      r"source|audioset|download", False),
        "HDF5: samples that are none": Kind("predict", PREDICT, [
            h5(lambda f: f.create_dataset("waveform", data=[[b"a", b"b"]])),
            h5(lambda f: f.create_group("waveform")),
            h5(lambda f: f.create_dataset("waveform", data=np.zeros(5))),
            h5(lambda f: f.create_dataset("waveform", data=np.zeros((1, 80))).parent.attrs.create("sample_rate", "fast"))],
            r"x\.h5|recording", "must", _unreadable_is_said),
        "a sample of 1e20": Kind("train", TRAIN, [huge_sample(v) for v in (1e20, -1e20, 3e38, 1e300, np.inf, np.nan)],
                                 "c0", "must", _trained),
        "a sample of 1e20 in a test": Kind("predict", PREDICT, [huge_sample(v, "t0") for v in (1e20, np.inf)], "t0", "must",
                                           _odd_is_listed),
        "a column of 1e20": Kind("train", [*TRAIN, "data.metadata=[depth]"], [_column("1e20"), _column("1e300"),
                                 _column("inf"), _column("nan"), _column("x")], r"clips\.csv: column 'depth'"),
    }  # fmt: skip


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


def _unreadable_is_said(root: Path):
    assert "t0" in (root / "found_unreadable.csv").read_text(), "the unreadable recording is not listed"


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
        ("a.b", "a.b"), ("=3", "no key"), ("a==b", "unknown key 'a'"), ("optim.lr", "gives no value"), ("lr=3", "optim.lr"),
        ("optim.lr==3", "two '='"), ("optim..lr=3", "optim.lr"), (".lr=3", "optim.lr"), ("optim.lr=[", "is not valid YAML"),
        ("optim.lr=1e400", "optim.lr must be a number"), ("optim.lr=&a [*a]", "refers to itself"), ("seed=x", "seed must be"),
    ):  # fmt: skip
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
        "train", ["--config", "tiny.yaml", "--name", "new", "--fold", "0", "optim.epochs=1", "--fold", "1"], same, "", "must",
        _both_folds,
    )  # fmt: skip
    for out in ("data", "x.txt", "noending", "x.npz/y.npz/../..", "y" * 300 + ".npz"):
        found[f"--out {out[:12]}"] = Kind("predict", [*PREDICT[:-1], out], same, r"\.npz|folder|cannot be written")
    found["--out x.csv"] = Kind("predict", [*PREDICT[:-1], "x.csv"], same, "", "must", _is_table)
    found["class names: trained, predicted, drawn"] = Kind(
        "train", TRAIN, [_odd_classes], "", "must", _odd_classes_are_kept
    )
    found["class names: a bundle"] = Kind("run_kernel", KERNEL, [_odd_bundle], "", "must", _odd_rows)
    found["class names that cannot be"] = Kind(
        "train", TRAIN, to("data/classes.csv", "label\nlow\nmid\n\"hi\ngh\"\n", "label\nlow\nmid high\n", "label\nlow\nlow\n",
                           "label\n", "label\nlow\n\x01\nhigh\n"), r"classes\.csv",
    )  # fmt: skip
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

    shutil.rmtree(root / "bundle")
    tiny_graphs.write_bundle(root / "bundle", classes=ODD_CLASSES)


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


KINDS: dict[str, Kind] = files() | stores() | names()

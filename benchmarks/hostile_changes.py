"""What hostile_inputs.py tries kinds of inputs on: a small competition with a run, and what is done to its files."""

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
        found = Predictions(
            np.array(ids),
            tuple(classes),
            np.full((3, 3), 0.5, np.float32),
            np.full(3, of),
            np.zeros(3, bool),
            frames,
            timebase,
        )
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
        file = archive.open("clipwise_output.npy", "w", force_zip64=True)
        with file:
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
BAD_YAML = (
    "a: [",
    LAUGHS,
    "a: &a [*a]",
    "[" * 5000,
    "- 1",
    "x",
    "%",
    "a: b: c",
    "? [a]\n: b",
    "{[1]: 2}",
    "\t",
    "a: *b",
    "!!python/object/apply:os.system [ls]",
    "optim: !!bool foo",
    "optim: !!int ''",
    "optim: 2001-99-99",
    "=",
    "optim: !!binary .",
    b"\xff\xfe\x00",
    b"\x80abc",
    b"a: \x00",
    "seed: " + "9" * 6000,
    "optim: [1]",
    "seed: 1\nseed: 2",
    "optim: {lr: 1, lr: 2}",
    "<<: 3",
    "optim: {lr: .nan}",
    "optim: {lr: .inf}",
    "on: 1",
    "1: 2",
    "optim: !!set {lr}",
    "base: base.yaml",
    "base: [1]",
    "base: /etc/passwd",
)
BAD_JSON = (
    "",
    "{",
    "[]",
    "null",
    "3",
    '"x"',
    "[" * 100000,
    '{"a": ' * 5000,
    b"\xff\xfe{}",
    b"\x80",
    "{}",
    "NaN",
    '{"a": ' + "9" * 6000 + "}",
    "{'a': 1}",
)
BAD_TABLE = (
    "",
    "\n",
    b"\xff\xfea\x00,\x00b\x00",
    b"\x80\x81,b\n",
    b"clip_id,path\nc\x00,d\n",
    b"PAR1" + bytes(40) + b"PAR1",
    b"PK\x03\x04" + bytes(40),
    b"RIFF" + bytes(60),
    "<html>404</html>",
    "clip_id;path;x,y\na,b\n",
    "a,b\n1,2\n",
    "clip_id,clip_id,path,labels\na,b,c,low\n",
    'clip_id,path,labels\n"a,b,low\n',
    "{}",
    "clip_id,path,labels\na,b,low,more,more\n",
    "clip_id,path,labels\n,c0.wav,low\n",
    "clip_id,path,labels\nc0,c0.wav,low\nc0,c1.wav,low\n",
)


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

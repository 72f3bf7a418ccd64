"""The exported graphs of a run: where they lie, whether they belong to it, what they predict. No torch.

fold<k>/model.onnx   fold<k>/model_int8.onnx      one graph a fold
together.onnx        together_int8.onnx           all folds in one, on axis 1 of every output
... .xml and .bin for OpenVINO, and beside each graph its report (.json)
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from earshot.files import file_digest, fold_folders, run_meant
from earshot.messages import command_line
from earshot.prediction.backends import ENDINGS, check_format, open_graph
from earshot.prediction.inference import Member
from earshot.prediction.origin import Origin, check_same, parse_origin, read_origin
from earshot.prediction.precision import BF16
from earshot.prediction.predictions import TEST_FOLD
from earshot.sound.windows import Windowing

CALL_SECONDS, CALL_WINDOWS = 10, 4  # of sound and windows in a call: more is no faster on a CPU and needs the memory


def graph_name(graph_format: str, int8: bool = False, together: bool = False) -> str:
    """File name of a graph."""
    return ("together" if together else "model") + "_int8" * int8 + ENDINGS[check_format(graph_format)]


def graph_files(folder: str | Path, graph_format: str, int8: bool = False, together: bool = False) -> list[Path]:
    """Files of a run folder's graphs, by fold; that there is none is an error that names the graphs of other kinds."""
    folder, name = Path(folder), graph_name(graph_format, int8, together)
    if not folder.is_dir():
        raise ValueError(f"run {folder} does not exist")
    places = [folder] if together else fold_folders(folder)
    if found := [place / name for place in places if (place / name).is_file()]:
        return found
    if meant := run_meant(folder):
        raise ValueError(f"{folder}{meant}")
    made = [
        f"{graph_name(f, eight, one)} (--format {f}{' --int8' * eight}{' --together' * one})"
        for f, eight, one in itertools.product(ENDINGS, (False, True), (False, True))
        if any((place / graph_name(f, eight, one)).is_file() for place in ([folder] if one else fold_folders(folder)))
    ]
    instead = f", or take what is there: {', '.join(made)}" if made else ""
    command = _command(folder, graph_format, int8, together)
    raise ValueError(f"{folder} has no {name}: make it with {command}{instead}")


def _command(folder: Path, graph_format: str, int8: bool, together: bool) -> str:
    flags = ["--int8"] * int8 + ["--together"] * together
    return command_line("export", "--run", folder, "--format", graph_format, *flags)


def find_graphs(
    folder: str | Path, graph_format: str, int8: bool = False, together: bool = False, threads: int = 1
) -> list:
    """Opened graphs of a run folder, by fold, each checked against the folder it lies in."""
    folder, paths = Path(folder), graph_files(folder, graph_format, int8, together)
    weights = [fold / "best.safetensors" for fold in fold_folders(folder)]
    trained = {_fold(p) for p in weights if p.is_file()}
    found = [open_graph(p, threads) for p in paths]
    for graph in found:
        _check_graph(graph, found[0], folder, together)
    missing = sorted(trained - {fold for graph in found for fold in graph.about["folds"]})
    if missing:
        raise ValueError(f"{folder}: folds {missing} are trained but have no {paths[0].name}: make it with "
                         f"{_command(folder, graph_format, int8, together)}")  # fmt: skip
    return found


def members_of(graph, one_pass: bool = False) -> list[Member]:
    """An opened graph -> its folds as `predict_members` takes them, by the graph's own metadata alone.

    Where windows are heard one by one the graph is compiled for them: from then on it takes no other length.
    """
    about, windowing = graph.about, Windowing(**graph.about["windowing"])
    windows = windows_a_call(windowing, graph.precision)
    windowing = replace(windowing, one_pass=windowing.one_pass or one_pass, batch_size=windows)
    graph.fix(0 if windowing.one_pass else windowing.batch_size, twins=windowing.one_pass)
    origins = origins_of(graph) or [None] * len(about["priors"])
    return [
        Member(
            backend=graph,
            windowing=windowing,
            classes=tuple(about["classes"]),
            prior=prior,
            fold=TEST_FOLD,
            place=place if about["stacked"] else None,
            origin=origin,
        )
        for place, (prior, origin) in enumerate(zip(about["priors"], origins, strict=True))
    ]


def origins_of(graph) -> list[Origin] | None:
    """The trained folds that an opened graph was made of; None: an older version made it."""
    texts = graph.about.get("origins")
    return None if texts is None else [parse_origin(text, graph.path) for text in texts]


def own_graph(path: str | Path):
    """The graph in a file that src/export.py wrote, opened; None of any other file (opening it says why)."""
    try:
        return open_graph(path)
    except ValueError:
        return None


def windows_a_call(windowing: Windowing, precision: str = "") -> int:
    """As many as CALL_SECONDS hold: two of 5 s share the reading of the weights, one of 30 s fills the cache.

    Of numbers half as long the cache holds twice as many; one alone stays so, as two would not be faster.
    """
    windows = int(np.clip(CALL_SECONDS / windowing.window_seconds, 1, CALL_WINDOWS))
    return min(2 * windows, CALL_WINDOWS) if precision == BF16 and windows > 1 else windows


def _fold(path: Path) -> int:
    return int(path.parent.name.removeprefix("fold"))


def _check_graph(graph, first, folder: Path, together: bool):
    """Folds in the right place, of one run, made of the weights that lie beside them, which their digest
    tells (a kernel has none)."""
    about, path = graph.about, graph.path
    if not together and about["folds"] != [_fold(path)]:
        raise ValueError(
            f"{path} is the graph of fold {about['folds'][0]} of run {about['run']}: export this run again"
        )
    for key in ("run", "classes", "frontends", "windowing"):
        if about[key] != first.about[key]:
            raise ValueError(f"{path} and {first.path} are of different runs: their {key} differ; export them again")
    for fold, weights in zip(about["folds"], about["weights"], strict=True):
        beside = folder / f"fold{fold}" / "best.safetensors"
        if beside.is_file() and file_digest(beside) != weights:
            raise ValueError(f"{path} was made of other weights than {beside} (run {about['run']}): export it again")
    for origin in origins_of(graph) or ():
        beside = folder / f"fold{origin.fold}"
        check_same(path, origin, beside, read_origin(beside), "export it again")

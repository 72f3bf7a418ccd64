"""What a fold is before its first step, and whether what lies in its folder is of it: run, fold and tables."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from earshot.config import Config
from earshot.data.digests import digest_of_folds
from earshot.ensemble import lineage
from earshot.ensemble.origins import check_tables
from earshot.files import fold_folders
from earshot.inputs.extractor import Extractor, found_file
from earshot.messages import few
from earshot.prediction.backends import ENDINGS
from earshot.prediction.graphs import origins_of, own_graph
from earshot.prediction.origin import (
    FILE,
    WITHIN_A_RUN,
    Origin,
    TableDigests,
    check_same,
    parse_origin,
    read_origin,
    say_unchecked,
    tables_differ,
    weights_origin,
    write_origin,
)
from earshot.runs import FoldRun
from earshot.tables import read_table

logger = logging.getLogger("earshot")


def origin_of(folder: Path, tables: TableDigests | None, config: Config) -> Origin | None:
    """What a fold that is trained in `folder` is: named as its run is, under which name the run's folder ever lies.

    A fold beside it that was trained on other tables is an error: tables were replaced between two folds.
    """
    if tables is None:
        return None
    others = [FoldRun(path) for path in fold_folders(folder.parent) if path.name != folder.name]
    others = [other for other in others if other.origin is not None]
    own = read_origin(folder) or (others[0].origin if others else None)
    name = own.run if own else f"{config.task}/{folder.parent.name}"
    origin = Origin(run=name, fold=FoldRun(folder).fold, tables=tables)
    if read_origin(folder) is None:
        check_tables(others, tables, WITHIN_A_RUN)
    return origin


def begin(run: FoldRun, origin: Origin | None):
    """Write origin.json into a fold's folder before the first step; one that an older version began stays without."""
    unknown = is_begun(run) and run.origin is None
    if origin is not None and not unknown and read_origin(run.folder) is None:
        write_origin(run.folder, origin)
        if is_begun(run):
            print(f"fold {run.fold}: {run.folder / FILE} was missing: written again, as the weights say")


def is_begun(run: FoldRun) -> bool:
    return any((run.folder / name).exists() for name in ("last.ckpt", "best.safetensors"))


def check_resumed(run: FoldRun, origin: Origin | None):
    """Raise where a fold's folder, or weights or OOF in it, are of another run, fold or tables than `origin`; a folder
    in which nothing was trained yet is of none."""
    if not is_begun(run):
        return
    begun = run.origin
    if begun is None or origin is None:
        say_unchecked(str(run.folder))
        return
    expected = replace(origin, tables=begun.tables, weights=begun.weights)
    check_same(run.folder, begun, f"--resume of {origin}", expected, "put each fold's folder back in its place")
    check_tables([run], origin.tables, WITHIN_A_RUN)  # else it would learn from clips that it holds out
    run.check(settled=run.finished)


def check_start(path: Path, origin: Origin | None, key: str = "model.weights", folds: str | Path = ""):
    """Refuse weights to start from, or to be taught by, that learned from the clips that this fold holds out.

    They did where they are of the same clips: of another fold, or by another fold table. Where the clip tables differ,
    the clips that this fold holds out of the fold table `folds` are sought among those that trained the weights.
    """
    check_learned(path, weights_origin(path), origin, key, folds)


def check_learned(path: Path, start: Origin | None, origin: Origin | None, key: str, folds: str | Path = ""):
    """The same of any file of a network whose origin is `start`; None: published."""
    if start is None or origin is None:
        return
    if start.tables.clips != origin.tables.clips:
        check_clips(path, start, held_out_of(folds, origin.fold), key, f"this is {origin}, which holds")
        return
    other = tables_differ(start.tables, origin.tables, ("folds",))
    if other or start.fold != origin.fold:
        raise ValueError(
            f"{key} {path} is of {start}, and this is {origin}, of the same clips{'; ' * bool(other)}{other}: "
            f"the clips held out here were learned from there, and the CV would be wrong. {_instead(key, origin)}"
        )


def _instead(key: str, origin: Origin) -> str:
    """What to do where a network learned from what is held out."""
    if key.startswith("frontends."):
        return (
            f"Take a network of other data, or train this fold alone with that of the same fold: --fold {origin.fold} "
            f"{key}=.../fold{origin.fold}..."
        )
    return "Start from the same fold of the same table (fold{fold} in the path), or from weights of other data"


def learned_by_start(path: Path, origin: Origin | None) -> list[dict]:
    """What weights to start from, or to be taught by, learned from besides labels; and the weights themselves, where
    nobody knows whether they learned from the clips that this fold holds out."""
    start = weights_origin(path)
    found = lineage.of_weights(path)
    other = start is not None and origin is not None and start.tables.clips != origin.tables.clips
    if other and trained_on(path, start)[1]:
        found.append({"trained_on": "weights", "mode": "unknown", "by": str(path)})
    return found


def made_of(record: Extractor) -> tuple[Path, str, list[Origin]]:
    """The file of an extractor or teacher, the key that names it, and the folds of own runs that are in it; [] where it
    is of other authors, or too old to say."""
    if record.run:
        path = Path(record.run) / "best.safetensors"
        return path, "run", [o for o in [weights_origin(path)] if o is not None]
    if record.config and record.weights:
        from earshot.models.weights import resolve  # PyTorch, which no other record needs here

        path = resolve(record.weights)
        return path, "weights", [o for o in [weights_origin(path)] if o is not None]
    path = found_file(record.file)
    graph = own_graph(path) if path.suffix == ENDINGS["onnx"] and path.is_file() else None
    return path, "file", (origins_of(graph) or []) if graph is not None else []


def check_extractor(record: Extractor, origin: Origin | None, key: str, folds: str | Path = "") -> list[dict]:
    """Refuse an extractor or teacher made of own runs that learned from the clips that this fold holds out -> what it
    learned from besides labels (`learned_by_start`).

    key: where the config names it: frontends.<name>, distill.teacher.
    """
    path, part, starts = made_of(record)
    for start in starts:
        check_learned(path, start, origin, f"{key}.{part}", folds)
    if not starts:
        return []
    weights = path if part != "file" else path.with_name("best.safetensors")
    if not weights.is_file():
        return [{"trained_on": "weights", "mode": "unknown", "by": str(path)}]
    return learned_by_start(weights, origin)


def check_frontends(config: Config, origin: Origin | None) -> list[dict]:
    """`check_extractor` of every extractor among the front ends."""
    found = []
    for name, record in config.frontends.items():
        if record.kind == "extractor":
            found += check_extractor(record, origin, f"frontends.{name}", config.data.folds)
    return found


def held_out_of(folds: str | Path, fold: int) -> set[str]:
    """Ids of the clips that a fold table holds out of a fold; empty where there is no table."""
    if not folds:
        return set()
    table = read_table(folds, ("clip_id", "fold"))
    return set(table.clip_id.astype(str)[table.fold == fold])


def check_clips(path: Path, start: Origin, apart: set[str], key: str, holder: str):
    """Raise where clips `apart` trained weights of another clip table, as that run's fold table says.

    Whatever that table is not known to say is said once. holder: who keeps the clips apart, for the message.
    """
    trained, why = trained_on(path, start)
    if shared := sorted(apart & trained):
        raise ValueError(
            f"{key} {path} is of {start}, and {holder} {len(shared)} of the clips out that trained it: {few(shared)}; "
            "its CV would be wrong. Start from the same fold ({fold} in the path), or from weights of other data"
        )
    if why:
        say_unknown(str(path), str(start), why)


def trained_on(path: Path, start: Origin) -> tuple[set[str], str]:
    """Ids of the clips that weights learned from, by the fold table that the config of their run names, and why that
    is not certain ('': it is)."""
    configs = (path.with_name("config.yaml"), path.parent.parent / path.stem / "config.yaml")  # of a fold, of a soup
    found = next((config for config in configs if config.is_file()), None)
    if found is None:
        return set(), f"no {configs[0].name} lies beside them"
    try:
        name = FoldRun(found.parent).config.data.folds
        table = read_table(name, ("clip_id", "fold"))
    except (ValueError, OSError) as error:
        return set(), str(error)
    ids = set(table.clip_id.astype(str)[table.fold != start.fold])
    return ids, "" if digest_of_folds(table) == start.tables.folds else f"{name} was changed since"


@lru_cache(maxsize=1024)
def say_unknown(path: str, start: str, why: str):
    """Say once that nobody knows which clips trained weights."""
    logger.warning(
        "%s are weights of %s, of another clip table, and %s: whether they learned from clips that are held out here "
        "cannot be checked", path, start, why,
    )  # fmt: skip


def check_checkpoint(path: Path, state: dict, origin: Origin | None):
    """Refuse a last.ckpt that is of another run, fold or tables; both are named."""
    told = state.get("origin")
    if told is None:
        say_unchecked(str(path))
        return
    check_same(
        path, parse_origin(json.dumps(told), path), path.parent, origin,
        "put the fold's own last.ckpt back, or remove the folder and train the fold again",
    )  # fmt: skip

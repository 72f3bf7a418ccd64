"""The metadata of DESED: every table that is there -> recordings, each once, with what the best table says of it.

Tables overlap. validation.tsv repeats test_dcase2018.tsv and eval_dcase2018.tsv; strong real recordings are among the
weak ones; an older table stays beside a newer one. Real recordings are told by their names (a video and its seconds),
synthetic ones, mere numbers, by their set too. What is known of a recording comes from one table: strong before weak
before none, then the table with more recordings, then one that is not called old.

A list with durations, such as public_meta.tsv beside public.tsv, says which recordings a strong table is about: those
that have no event in it are silent. So are, in the evaluation set, recordings beside the ones that a table names.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from earshot.competitions.downloads import choose_rate, plain, recordings_by_stem
from earshot.competitions.label_texts import one_spelling
from earshot.competitions.tables import class_name
from earshot.messages import few, plural
from earshot.tables import read_table, require_columns, with_numbers

SPLITS = ("train", "validation", "eval")
KINDS = ("strong", "weak", "unlabelled")  # the better ones first
EVENT_COLUMNS = ("filename", "onset", "offset", "event_label")
LISTS = ("_durations", "_duration", "_meta")  # what a list of durations has behind the name of its table

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Recordings:
    """clips: key, path, filename, labels, kind, split, subset, annotated; events: key and EVENT_COLUMNS; seconds: of
    recordings in a list of durations, by file name."""

    clips: pd.DataFrame
    events: pd.DataFrame
    classes: list[str]
    seconds: dict[str, float]


@dataclass(eq=False)
class Table:
    """One .tsv. name: its path below metadata/ without ending; labels: of each of its recordings, by file name."""

    name: PurePosixPath
    kind: str
    events: pd.DataFrame
    labels: dict[str, str]
    annotated: set[str] = field(default_factory=set)  # recordings whose events are all known

    @property
    def split(self) -> str:
        return self.name.parts[0]

    @property
    def set(self) -> str:
        """The synthetic set that the table is about, '' where recordings are real."""
        inner = self.name.parts[1:]
        return next((p for p in inner if "synth" in p.lower() or "soundscape" in p.lower()), "")

    def key(self, filename: str) -> tuple[str, str, str]:
        return (self.split, self.set, filename)


def read_metadata(source: Path, kinds) -> Recordings:
    """Source folder, the kinds that train -> its recordings; tables that are in no split are named in a warning."""
    tables, seconds = _read_tables(source)
    tables = _held_out(tables)
    classes = sorted({n for t in tables for text in t.labels.values() for n in text.split()})
    tables = [t for t in tables if (t.kind in kinds if t.split == "train" else t.kind == "strong")]
    tables = sorted(tables, key=lambda t: (KINDS.index(t.kind), -len(t.labels), "old" in t.name.name, str(t.name)))
    owner: dict[tuple, Table] = {}
    for table in tables:
        for filename in table.labels:
            owner.setdefault(table.key(filename), table)
    _say_differences(tables, owner)
    by_stem = recordings_by_stem(source)
    paths = _paths(owner, by_stem)
    evaluation = _unlisted(owner, paths, by_stem)
    rows = [(k, paths.get(k, _published(t, k[2])), k[2], t.labels[k[2]], t.kind, t.split, str(t.name),
             int(k[2] in t.annotated)) for k, t in owner.items()]  # fmt: skip
    columns = ["key", "path", "filename", "labels", "kind", "split", "subset", "annotated"]
    clips = pd.DataFrame(rows + evaluation, columns=columns)
    if not len(clips):
        raise ValueError(f"{source / 'metadata'} has no table of recordings that train with kinds={','.join(kinds)}")
    order = {split: i for i, split in enumerate(SPLITS)}
    clips = clips.sort_values(
        ["split", "subset"], key=lambda c: c.map(order) if c.name == "split" else c, kind="stable"
    )
    events = [t.events.assign(key=[t.key(f) for f in t.events.filename]) for t in tables]
    events = [e[[owner[k] is t for k in e.key]] for e, t in zip(events, tables, strict=True) if len(e)]
    empty = pd.DataFrame(columns=[*EVENT_COLUMNS, "key"])
    events = pd.concat(events, ignore_index=True) if events else empty
    return Recordings(clips.reset_index(drop=True), events, classes, seconds)


def _read_tables(source: Path) -> tuple[list[Table], dict[str, float]]:
    folders = sorted(p for pattern in ("metadata", "*/metadata", "*/*/metadata") for p in source.glob(pattern))
    paths = [
        (folder, path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() == ".tsv" and not path.name.startswith(".")  # ._x.tsv: of an archive made on a Mac
    ]
    if not paths:
        raise ValueError(f"{source / 'metadata'} holds no .tsv; is --source the folder of DESED?")
    tables, seconds, lists, outside = [], {}, {}, []
    for folder, path in paths:
        name = PurePosixPath(path.relative_to(folder).with_suffix("").as_posix())
        table = read_table(path, ("filename",)).drop_duplicates(ignore_index=True)
        if name.parts[0].lower() not in SPLITS:
            outside.append(f"{name} ({plural(table.filename.nunique(), 'recordings')})")
        elif "duration" in table:
            lengths = with_numbers(table, ("duration",), path.name).duration.astype(float)
            seconds |= dict(zip(table.filename, lengths, strict=True))
            lists[name] = table.filename.tolist()
        else:
            tables.append(_read_table(table, name, path))
    if outside:
        logger.warning("%d tables are in no split (%s) and are left out: %s", len(outside), ", ".join(SPLITS),
                       few(outside))  # fmt: skip
    for name, filenames in lists.items():
        _take_list(tables, name, filenames)
    if not tables:
        raise ValueError(f"{source / 'metadata'} holds durations only, no table of labels")
    tables = [t for t in tables if t.labels]
    return _one_spelling(tables), seconds


def _read_table(table: pd.DataFrame, name: PurePosixPath, path: Path) -> Table:
    """What the columns of a table say."""
    name = PurePosixPath(name.parts[0].lower(), *name.parts[1:])
    filenames = table.filename.unique()
    none = pd.DataFrame(columns=list(EVENT_COLUMNS))
    if "onset" in table:
        require_columns(table, EVENT_COLUMNS, path)
        timed, named = table.onset.astype(str).replace("nan", "") != "", table.event_label != ""
        if (half := timed != named).any():
            raise ValueError(
                f"{path.name} has {half.sum()} rows with a label and no times, or times and no label: "
                f"{few(table.filename[half])}; an event has both, a recording without events neither"
            )
        real = with_numbers(table[timed], ("onset", "offset"), path.name)
        if (wrong := ~(real.offset > real.onset)).any():
            names = few(real.filename[wrong])
            raise ValueError(f"{path.name} has {wrong.sum()} events that do not end after they begin: {names}")
        real = real.assign(event_label=real.event_label.map(class_name))[list(EVENT_COLUMNS)]
        return Table(name, "strong", real, _event_labels(real, filenames), set(filenames))
    if "event_labels" in table:
        by_file = table.event_labels.astype(str).groupby(table.filename, sort=False).agg(",".join)
        texts = {f: " ".join(sorted({class_name(n) for n in t.split(",") if n.strip()})) for f, t in by_file.items()}
        return Table(name, "weak", none, texts)
    return Table(name, "unlabelled", none, dict.fromkeys(filenames, ""))


def _event_labels(events: pd.DataFrame, filenames) -> dict[str, str]:
    labels = events.groupby("filename").event_label.agg(lambda names: " ".join(sorted(set(names))))
    return dict.fromkeys(filenames, "") | labels.to_dict()


def _take_list(tables: list[Table], name: PurePosixPath, filenames: list[str]):
    """Recordings of a list of durations that its table has no row of have no event."""
    stem = next((name.name.removesuffix(end) for end in LISTS if name.name.endswith(end)), name.name)
    own = [t for t in tables if t.kind == "strong" and t.name.parent == name.parent]
    table = next((t for t in own if t.name.name == stem), own[0] if len(own) == 1 else None)
    if table is not None:
        silent = [f for f in filenames if f not in table.labels]
        table.labels |= dict.fromkeys(silent, "")
        table.annotated |= set(silent)
    elif name.parts[0].lower() == "eval":  # an evaluation set whose events are not published
        none = pd.DataFrame(columns=list(EVENT_COLUMNS))
        tables.append(Table(name.with_name(stem), "strong", none, dict.fromkeys(filenames, "")))


def _one_spelling(tables: list[Table]) -> list[Table]:
    """Every class in its most frequent spelling, where tables differ in upper and lower case."""
    names = pd.Series([n for t in tables for text in t.labels.values() for n in text.split()], dtype=object)
    spelling = dict(zip(names, one_spelling(names, "metadata/"), strict=True))
    for table in tables:
        table.events = table.events.assign(event_label=table.events.event_label.map(spelling))
        table.labels = {f: " ".join(sorted({spelling[n] for n in text.split()})) for f, text in table.labels.items()}
    return tables


def _held_out(tables: list[Table]) -> list[Table]:
    """Without synthetic validation sets, where there is a real one: they select, but are not the test."""
    real = any(t.split == "validation" and not t.set for t in tables)
    aside = [t for t in tables if t.split == "validation" and t.set and real]
    if aside:
        logger.warning("synthetic validation sets neither train nor are they the test: %s",
                       few([f"{t.name} ({plural(len(t.labels), 'recordings')})" for t in aside]))  # fmt: skip
    return [t for t in tables if t not in aside]


def _say_differences(tables: list[Table], owner: dict[tuple, Table]):
    """Warn of recordings of which two strong tables say different things."""
    said = {}
    for table in (t for t in tables if t.kind == "strong"):
        for filename, rows in table.events.groupby("filename"):
            events = frozenset(zip(rows.onset, rows.offset, rows.event_label, strict=True))
            said.setdefault(table.key(filename), {})[str(table.name)] = events
    odd = [key for key, by_table in said.items() if len(set(by_table.values())) > 1]
    if odd:
        shown = few([f"{key[2]} ({owner[key].name} counts)" for key in odd])
        logger.warning("%d recordings have other events in another table: %s", len(odd), shown)


def _published(table: Table, filename: str) -> str:
    return f"audio/{table.name}/{filename}"


def _paths(owner: dict[tuple, Table], by_stem: dict[str, list[PurePosixPath]]) -> dict[tuple, str]:
    """Where each recording lies: in a folder of its split (and its synthetic set), one sample rate for all."""
    candidates = {}
    for key, table in owner.items():
        found = by_stem.get(PurePosixPath(key[2]).stem.casefold(), ())
        files = [p for p in found if _is_place(p, table)] or [p for p in found if _is_place(_from_split(p), table)]
        named = [p for p in files if plain(table.name.name) in map(plain, p.parts[:-1])]
        if files:
            candidates[key] = named or files
    return choose_rate(candidates)


def _from_split(file: PurePosixPath) -> PurePosixPath:
    """A recording's path from its split's folder on: what lies above may be called anything, such as dcase_synth."""
    at = next((i for i, part in enumerate(file.parts[:-1]) if part.lower() in SPLITS), 0)
    return PurePosixPath(*file.parts[at:])


def _is_place(file: PurePosixPath, table: Table) -> bool:
    folders = [plain(part) for part in file.parts[:-1]]
    if table.split not in folders:
        return False
    if table.set:
        return plain(table.set) in folders or not any("synth" in f for f in folders[1:])
    return not any("synth" in f or "soundscape" in f for f in folders)


def _unlisted(owner: dict[tuple, Table], paths: dict[tuple, str], by_stem) -> list[tuple]:
    """Recordings of the evaluation set that no table names, as rows of clips: without events where its table is."""
    tables = {str(t.name): t for t in owner.values() if t.split == "eval"}
    evaluated = {key for key in owner if key[0] == "eval"}
    known = {key[2] for key in evaluated} | {PurePosixPath(paths[key]).name for key in evaluated if key in paths}
    places = {PurePosixPath(paths[key]).parent for key in evaluated if key in paths}
    extra: dict[str, list[PurePosixPath]] = {}
    for file in (p for some in by_stem.values() for p in some if "eval" in map(plain, p.parts[:-1])):
        if file.name not in known and (file.parent in places or not tables):
            extra.setdefault(file.name, []).append(file)
    if not extra:
        return []
    annotated = int(any(t.annotated for t in tables.values()))
    chosen = choose_rate(dict(sorted(extra.items())))
    logger.warning("%d recordings of the evaluation set are in no table and belong to the test%s: %s", len(chosen),
                   ", without events" * annotated, few(list(chosen.values())))  # fmt: skip
    subset = next(iter(tables), "eval")
    return [(("eval", "", name), path, name, "", "strong", "eval", subset, annotated) for name, path in chosen.items()]

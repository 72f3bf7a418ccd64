"""What stands in an archive's shards, added up a shard at a time, so that its size does not matter for memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from earshot import files
from earshot.listening.archive import EVENTS, RECORDINGS, named_shards, part
from earshot.listening.detections import summary_of

KEYS = ["event_label", "folder", "day", "hour"]
HOW = {"events": "sum", "seconds": "sum", "recordings": "sum", "highest_confidence": "max"}
UNREADABLE, ODD = ["filename", "path", "unreadable"], ["filename", "path", "note"]
AT_A_TIME = 200  # shards whose summaries are held before they are added up


@dataclass(kw_only=True)
class Totals:
    """Counts of an archive; hours of sound and of events by class. odd: recordings that are not as their files say."""

    recordings: int = 0
    unreadable: int = 0
    odd: int = 0
    hours: float = 0.0
    events: int = 0
    bytes: int = 0
    by_class: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict:
        return asdict(self)


def add_up(out: Path) -> Totals:
    """Write OUT/summary.csv (see `summary_of`), OUT/unreadable.csv and OUT/odd_files.csv from the shards -> totals."""
    totals, summary, kept = Totals(), None, []
    with _table(out / "unreadable.csv", UNREADABLE) as unreadable, _table(out / "odd_files.csv", ODD) as odd:
        for recordings, events, size in _shards(out):
            failed = recordings[recordings.unreadable != ""]
            unreadable.writerows(failed[UNREADABLE].itertuples(index=False))
            noted = recordings[recordings.note != ""] if "note" in recordings else recordings.iloc[:0].assign(note="")
            odd.writerows(noted[ODD].itertuples(index=False))
            totals.recordings += len(recordings)
            totals.unreadable += len(failed)
            totals.odd += len(noted)
            totals.hours += float(recordings.seconds.sum()) / 3600
            totals.events += len(events)
            totals.bytes += size
            kept.append(summary_of(events))
            if len(kept) >= AT_A_TIME:
                summary, kept = _added(summary, kept), []
    summary = _added(summary, kept)
    with files.whole_file(out / "summary.csv") as partial:
        summary.round({"seconds": 3}).to_csv(partial, index=False, lineterminator="\n")
    counts = summary.groupby("event_label").events.sum().sort_values(ascending=False, kind="stable")
    totals.by_class = {label: int(count) for label, count in counts.items()}
    return totals


@contextmanager
def _table(path: Path, columns: list[str]):
    """A writer of rows below these columns; the file is whole or not there."""
    with files.whole_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer


def _shards(out: Path) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, int]]:
    for number in sorted(named_shards(out)):
        paths = [out / folder / part(number) for folder in (RECORDINGS, EVENTS)]
        yield *map(_read, paths), sum(path.stat().st_size for path in paths)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow raises kinds of its own
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read ({reason}): remove it, and the same command hears its shard again"
        ) from error


def _added(summary: pd.DataFrame | None, more: list[pd.DataFrame]) -> pd.DataFrame:
    """A recording is in one shard alone, so that its counts add up."""
    tables = [table for table in ([] if summary is None else [summary]) + more if len(table)]
    if not tables:
        return pd.DataFrame(columns=[*KEYS, *HOW])
    return pd.concat(tables).groupby(KEYS, sort=True, as_index=False).agg(HOW)


def table_of(totals: Totals, classes: int = 10) -> str:
    """The totals as lines for people."""
    lines = [
        f"{'recordings':<24}{totals.recordings:>12,}",
        f"{'could not be read':<24}{totals.unreadable:>12,}",
        f"{'not as their files say':<24}{totals.odd:>12,}",
        f"{'hours of sound':<24}{totals.hours:>12,.2f}",
        f"{'events':<24}{totals.events:>12,}",
    ]
    some = list(totals.by_class.items())
    lines += [f"  {label[:21]:<22}{count:>12,}" for label, count in some[:classes]]
    if len(some) > classes:
        lines.append(f"  and {len(some) - classes} more classes: summary.csv")
    return "\n".join(lines)

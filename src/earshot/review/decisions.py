"""What people said of detections: a CSV that only grows, a row a decision, with who and when.

An undo is a row too, so that the file tells everything that happened. A row is written by one call and is on the disk
before the page goes on; a row that a crash cut off is taken away when the file is opened next, and said.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from earshot.messages import few, suggest
from earshot.processes.lock import in_turn

ACCEPT, REJECT, CORRECT, SKIP, UNDO = KINDS = ("accept", "reject", "correct", "skip", "undo")
SAME = 0.5  # of two stretches of sound, joint share from which on a question about one answers the other


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer. Times are seconds from the start of the recording.

    start, end: the stretch that was heard, of which the answer speaks as a whole. accept: `event_label` is heard there
    (others perhaps too); reject: it is not; correct: exactly `labels` (names joined by spaces, perhaps none) are heard,
    and where both were given, onset and offset are the person's; skip: no answer; undo: takes back what `item` was
    last answered.
    """

    when: str
    who: str
    decision: str
    item: str
    path: str
    start: float
    end: float
    onset: float
    offset: float
    event_label: str
    labels: str = ""
    output: float = 0.0
    confidence: float = 0.0
    run: str = ""


COLUMNS = tuple(f.name for f in fields(Decision))
NUMBERS = ("start", "end", "onset", "offset", "output", "confidence")


class DecisionLog:
    """The decisions in a file, and those that come. Several pages may append to one file."""

    def __init__(self, path: Path):
        """Open or begin a file; `torn` is what a crash left of a row, '' where nothing. No file is made yet."""
        self.path = Path(path)
        self.torn = self._take_torn_row_away()
        self.rows: list[Decision] = read_rows(self.path) if self.path.is_file() else []

    def append(self, decision: Decision):
        """Write a decision; when this returns it is on the disk."""
        if decision.decision not in KINDS:
            raise ValueError(f"unknown decision '{decision.decision}'{suggest(decision.decision, KINDS)}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(self.path.with_name(f".{self.path.name}.lock")):
            new = not self.path.is_file() or not self.path.stat().st_size
            text = (line_of(COLUMNS) if new else "") + line_of(_cells(decision))
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)  # the last: Windows
            handle = os.open(self.path, how, 0o644)
            try:
                content = text.encode("utf-8", "surrogateescape")
                while content:
                    content = content[os.write(handle, content) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        self.rows.append(decision)

    def undo(self, who: str) -> Decision | None:
        """Take this person's last standing answer back; the answer, or None where there is none."""
        mine = [row for row in standing(self.rows) if row.who == who]
        if not mine:
            return None
        self.append(Decision(**{**asdict(mine[-1]), "when": now(), "decision": UNDO}))
        return mine[-1]

    def _take_torn_row_away(self) -> str:
        """Cut what stands behind the last line end of the file; a whole row always ends with one."""
        if not self.path.is_file() or not self.path.stat().st_size:
            return ""
        with in_turn(self.path.with_name(f".{self.path.name}.lock")), open(self.path, "r+b") as file:
            content = file.read()
            whole, end, torn = content.rpartition(b"\n")
            check_header((whole or torn).partition(b"\n")[0].decode("utf-8", "replace"), self.path)
            if torn:
                file.truncate(len(whole) + len(end))
            return torn.decode("utf-8", "replace")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_header(line: str, path: Path):
    """Raise unless a file begins as a table of decisions does: nothing is appended to another table."""
    if line.lstrip("\ufeff").strip() != line_of(COLUMNS).strip():
        raise ValueError(
            f"{path} is no table of decisions: it begins with '{line[:60]}', not with {few(COLUMNS, 3)}; give another "
            "--decisions FILE"
        )


def read_rows(path: Path) -> list[Decision]:
    """A table of decisions -> its rows as they were written; anything else in it is an error that names the line."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        check_header(",".join(next(lines, [])), path)
        return [_decision(cells, f"{path} line {lines.line_num}") for cells in lines if cells]


def standing(rows: Iterable[Decision]) -> list[Decision]:
    """The answers that nobody took back, in the order they were given; skipped questions are among them."""
    kept: list[Decision] = []
    for row in rows:
        if row.decision != UNDO:
            kept.append(row)
            continue
        last = next(
            (i for i in reversed(range(len(kept))) if kept[i].item == row.item and kept[i].who == row.who), None
        )
        if last is not None:
            del kept[last]
    return kept


def answers(row: Decision, path: str, label: str, onset: float, offset: float) -> bool:
    """Whether a standing row answers if a class is heard from onset to offset of a recording.

    A row speaks of its stretch as a whole: of its own class, a correction of every class. What is longer than the
    stretch is answered where both detections are about the same.
    """
    if row.path != path or (row.event_label != label and row.decision != CORRECT):
        return False
    joint = min(row.offset, offset) - max(row.onset, onset)
    whole = max(row.offset, offset) - min(row.onset, onset)
    inside = row.start - 0.001 <= onset and offset <= row.end + 0.001
    return inside or (row.event_label == label and joint >= SAME * whole)


def line_of(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cells(decision: Decision) -> list[str]:
    values = asdict(decision)
    return [f"{values[c]:.6g}" if c in NUMBERS else " ".join(str(values[c]).splitlines()) for c in COLUMNS]


def _decision(cells: list[str], where: str) -> Decision:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{where}: {len(cells)} cells, a decision has {len(COLUMNS)}: mend or remove the line")
    values: dict = dict(zip(COLUMNS, cells, strict=True))
    if values["decision"] not in KINDS:
        raise ValueError(f"{where}: decision '{values['decision']}'{suggest(values['decision'], KINDS)}")
    for name in NUMBERS:
        try:
            values[name] = float(values[name])
        except ValueError:
            raise ValueError(f"{where}: {name} is '{values[name]}', expected a number") from None
        if not 0 <= values[name] < float("inf"):
            raise ValueError(f"{where}: {name} is {values[name]}, expected a number of 0 or more")
    return Decision(**values)

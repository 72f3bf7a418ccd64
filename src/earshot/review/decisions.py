"""What people said of detections: a CSV that only grows, a row a decision, with who and when.

An undo is a row too, so that the file tells everything that happened. A row is written by one call and is on the disk
before the page goes on; a row that a crash cut off is taken away when the file is opened next, and said.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from earshot.messages import few, plural, suggest
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
SECONDS = ("start", "end", "onset", "offset")
NUMBERS = (*SECONDS, "output", "confidence")
SLACK = 0.1  # seconds by which times may miss an end: tables of before have them in six digits
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


class DecisionLog:
    """The decisions in a file, and those that come. Several pages may append to one file."""

    def __init__(self, path: Path, length_of: Callable[[str], float] | None = None):
        """Open or begin a file; `torn` is what a crash left of a row, '' where nothing. No file is made yet.

        length_of: path -> seconds of a recording, behind which no row may reach.
        """
        self.path = Path(path)
        self.torn = self._take_torn_row_away()
        self.rows: list[Decision] = read_rows(self.path, length_of) if self.path.is_file() else []

    def append(self, decision: Decision):
        """Write a decision; when this returns it is on the disk."""
        if decision.decision not in KINDS:
            raise ValueError(f"unknown decision '{decision.decision}'{suggest(decision.decision, KINDS)}")
        check(decision, "this answer")
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


def read_rows(path: Path, length_of: Callable[[str], float] | None = None) -> list[Decision]:
    """A table of decisions -> its rows as they were written; anything else in it is an error that names the line.

    length_of: path -> seconds of a recording, asked once each; rows about what lies behind its end are errors then.
    """
    rows, lengths = [], {}
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        try:
            check_header(",".join(next(lines, [])), path)
            for cells in lines:
                if not cells:
                    continue
                where = f"{path} line {lines.line_num}"
                rows.append(row := _decision(cells, where))
                if length_of and row.path not in lengths:
                    lengths[row.path] = length_of(row.path)
                if row.end > (length := lengths.get(row.path, math.inf)) + SLACK:
                    raise ValueError(f"{where}: end is {row.end:.3f} s, and {row.path} is {length:.3f} s long")
        except csv.Error as error:
            raise ValueError(f"{path} line {lines.line_num}: {error}: mend or remove the line") from error
    return rows


def check(row: Decision, where: str):
    """Raise unless times are seconds in order, inside the stretch, and labels are names that a table can hold."""
    for name in NUMBERS:
        if not 0 <= (value := getattr(row, name)) < math.inf:
            raise ValueError(f"{where}: {name} is {value}, expected a number of 0 or more")
    if row.end <= row.start:
        raise ValueError(f"{where}: end {row.end:.3f} is not after start {row.start:.3f}")
    if row.offset < row.onset:
        raise ValueError(f"{where}: offset {row.offset:.3f} is before onset {row.onset:.3f}")
    if row.onset < row.start - SLACK or row.offset > row.end + SLACK:
        raise ValueError(
            f"{where}: the event from {row.onset:.3f} to {row.offset:.3f} s does not lie in the stretch from "
            f"{row.start:.3f} to {row.end:.3f} s"
        )
    for name in (row.event_label, *row.labels.split(" ")):
        if (
            name.startswith(FORMULA)
            or not "".join(name.split()) == name
            or not (name.isprintable() and row.event_label)
        ):
            raise ValueError(
                f"{where}: '{name[:60]}' cannot be a class name; it must be there, without spaces, and not begin with "
                f"{' '.join(FORMULA)}, which spreadsheets compute"
            )


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
    texts = {c: f"{values[c]:.3f}" if c in SECONDS else f"{values[c]:.6g}" for c in NUMBERS}
    return [texts.get(c) or " ".join(str(values[c]).splitlines()) for c in COLUMNS]


def _decision(cells: list[str], where: str) -> Decision:
    if len(cells) != len(COLUMNS):
        raise ValueError(
            f"{where}: {plural(len(cells), 'cells')}, a decision has {len(COLUMNS)}: mend or remove the line"
        )
    values: dict = dict(zip(COLUMNS, cells, strict=True))
    if values["decision"] not in KINDS:
        raise ValueError(f"{where}: decision '{values['decision']}'{suggest(values['decision'], KINDS)}")
    for name in NUMBERS:
        try:
            values[name] = float(values[name])
        except ValueError:
            raise ValueError(f"{where}: {name} is '{values[name][:60]}', expected a number") from None
    row = Decision(**values)
    check(row, where)
    return row

"""What every submission is checked for. Functions return the problems they find, as text; `refuse` raises them all at
once, because a submission costs hours and the second problem would cost them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.messages import few, plural, suggest
from earshot.tables import SEPARATOR_LINE, find_encoding, find_separator


def refuse(problems: list[str], what: str = "submission"):
    """Raise one ValueError with every problem, if there is any."""
    if problems:
        raise ValueError(f"{what} is not valid: " + "; ".join(problems))


def form_problems(path: Path, tabs: bool = False) -> list[str]:
    """What a scorer would stumble over though we read it: another encoding than UTF-8, other signs between columns.

    tabs: they may separate columns; in a .tsv they may anyhow.
    """
    encoding = find_encoding(path)
    problems = [] if encoding == "utf-8-sig" else ["it is not UTF-8"]
    separator = find_separator(path, encoding)
    with open(path, encoding=encoding) as file:
        header = file.readline().rstrip("\r\n")
        empty = sum(bool(row.strip("\r\n")) and not row.strip(f'{separator}" \r\n') for row in file)
    if separator != "," and not (separator == "\t" and (tabs or path.suffix.lower() == ".tsv")):
        problems.append(f"{separator!r} separates its columns, a scorer wants commas")
    if SEPARATOR_LINE.match(f"{header}\n"):
        problems.append(f"its first line is {header}, not the names of columns")
    elif odd := [name for name in header.split(separator) if name != name.strip()]:
        problems.append(f"names of columns have spaces around them: {few(odd)}")
    return problems + [f"{empty} of its rows are empty"] * (empty > 0)


def name_problems(wanted: set[str], given: set[str], missing: str, unknown: str) -> list[str]:
    """The files must be those that are wanted; missing, unknown: what to say of the others, '3 files are ...'."""
    kinds = ((wanted - given, missing), (given - wanted, unknown))
    return [f"{plural(len(names), f'files {what}')}: {few(sorted(names))}" for names, what in kinds if names]


def column_problems(submission: pd.DataFrame, columns) -> list[str]:
    """The columns must be `columns`, in this order."""
    have, want = [str(c) for c in submission.columns], [str(c) for c in columns]
    if have == want:
        return []
    lost, extra = [c for c in want if c not in have], [c for c in have if c not in want]
    if not lost and not extra:
        return [f"columns are not {few(want)}: in another order"]
    near = suggest(extra[0], want) if len(lost) == len(extra) == 1 else ""
    return [f"columns are not {few(want)}: missing {few(lost) or 'none'}, unknown {few(extra) or 'none'}{near}"]


def id_problems(have: pd.Series, want, key: str) -> list[str]:
    """The rows must be those of the test table, each once, in its order."""
    have, want = [str(i) for i in have], [str(i) for i in want]
    known, found, seen, twice = set(want), set(have), set(), {}
    for name in have:
        if name in seen:
            twice[name] = True
        seen.add(name)
    problems = [
        f"{len(names)} {key} {text}: {few(names)}"
        for text, names in (
            ("twice", list(twice)),
            ("not there", sorted(known - found)),
            ("not asked for", sorted(found - known)),
        )
        if names
    ]
    if not problems and have != want:
        problems.append(f"{key} is in another order than the test table")
    return problems


def number_problems(
    submission: pd.DataFrame, columns, low: float | None = None, high: float | None = None
) -> list[str]:
    """The columns must hold finite numbers, from `low` to `high` where these are given."""
    not_finite, outside = {}, {}
    for column in (c for c in columns if c in submission):
        values = pd.to_numeric(submission[column], errors="coerce").to_numpy(float)
        finite = np.isfinite(values)
        wrong = finite & ((values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high)))
        if not finite.all():
            not_finite[column] = int((~finite).sum())
        if wrong.any():
            outside[column] = (int(wrong.sum()), float(values[wrong][0]))
    problems = [f"column {c} holds {n} values that are no finite number" for c, n in list(not_finite.items())[:3]]
    if len(not_finite) > 3:
        problems.append(f"so do {len(not_finite) - 3} more columns")
    if outside:
        column, (n, value) = next(iter(outside.items()))
        more = f" (and {len(outside) - 1} more columns)" if len(outside) > 1 else ""
        problems.append(
            f"column {column}{more} holds {plural(n, 'values')} outside {low:g} to {high:g}, such as {value:g}"
        )
    return problems


def label_problems(labels, classes, what: str) -> list[str]:
    """Every label must be one of `classes`."""
    classes = [str(c) for c in classes]
    unknown = sorted({str(name) for name in labels} - set(classes))
    if not unknown:
        return []
    return [f"{what} names {len(unknown)} that are no classes: {few(unknown)}{suggest(unknown[0], classes)}"]

"""Labels as people write them into tables: lists as text, other spellings of a name, words that say "nothing".

`nocall` and `nan` (and an empty cell) say that no class was heard, so that none of them can be a class: a submission
would mix "no bird" with birds, a table would lose the name when it is read again.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterable, Sequence

import pandas as pd

from earshot.messages import few, plural

RESERVED = ("", "nocall", "nan")
# 'a' or "a" with a separator behind, where one name may hold the other kind of quote
QUOTED = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(?:,|(?=['"])|$)""")

logger = logging.getLogger("earshot")


def is_reserved(name) -> bool:
    """Whether a label says that nothing was heard ('nocall' in any case, 'nan', an empty cell)."""
    return not isinstance(name, str) or name.strip().casefold() in RESERVED


def check_reserved(classes: Iterable[str], what: str):
    """Raise where a class list holds a name that cannot be a class."""
    if wrong := [name for name in classes if is_reserved(name)]:
        raise ValueError(
            f"{what} has the class '{wrong[0]}', which cannot be one: it says that nothing is heard. Leave the label "
            "of such clips empty"
        )


def check_labelled(names: Iterable[str], labels: Iterable, what: str):
    """Raise where a recording has no label, or one that says nothing, of a task whose recordings all have one."""
    if silent := [name for name, label in zip(names, labels, strict=True) if is_reserved(label)]:
        raise ValueError(f"{what} has no label for {plural(len(silent), 'clips')}: {few(silent)}")


def unlabelled(labels: pd.Series, what: str) -> pd.Series:
    """One label a clip -> the same with '' where the label is reserved, counted in a warning."""
    silent = labels.map(is_reserved).to_numpy(bool)
    if silent.any():
        words = sorted({str(name).strip() or "(empty)" for name in labels[silent]})
        logger.warning(
            "%d recordings of %s are labelled %s: clips without a label, not a class", silent.sum(), what, few(words)
        )
    return labels.mask(silent, "")


def listed(text, where: str) -> list[str]:
    """A list written as text -> its names; `where` is for the error.

    "['a', 'b']", also quoted once more, as a tuple, without quotes or without commas (as NumPy prints it); "[]",
    "['']" and an empty cell hold none. What is reserved is no name.
    """
    if is_reserved(text):
        return []
    inner = text.strip()
    while len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\"":
        inner = inner[1:-1].strip()
    if len(inner) < 2 or (inner[0], inner[-1]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        raise ValueError(f"the list in {where} is {text!r}, expected a list such as ['a', 'b']")
    inner = inner[1:-1].strip()
    if "'" not in inner and '"' not in inner:
        names = [name.strip() for name in inner.split(",")]
    elif QUOTED.sub("", inner).strip(", "):
        raise ValueError(f"the list in {where} is {text!r}, expected a list such as ['a', 'b']")
    else:
        names = [str(ast.literal_eval(match)) for match in QUOTED.findall(inner)]
    return [name for name in names if not is_reserved(name)]


def respelled(names: Sequence[str], classes: Iterable[str], what: str) -> list[str]:
    """Labels -> the same, spelled as in `classes` where they differ by upper and lower case alone; a warning says so.

    Hi-Hat of one table is Hi-hat of another. A name that fits several classes, or none, stays as it is.
    """
    known, by_fold = set(classes), {}
    for name in known:
        by_fold.setdefault(name.casefold(), []).append(name)
    changed, result = {}, []
    for name in names:
        near = by_fold.get(str(name).casefold(), ())
        if name not in known and len(near) == 1:
            changed[name] = near[0]
        result.append(changed.get(name, name))
    if changed:
        logger.warning("%s writes %s", what, few([f"{a} for {b}" for a, b in changed.items()]))
    return result


def one_spelling(names: pd.Series, what: str) -> pd.Series:
    """Labels of a training table -> each class in its most frequent spelling, where cases differ within the table."""
    counts = names.value_counts()  # the most frequent first
    first = {}
    for name in sorted(counts.index, key=lambda n: (-counts[n], n)):
        first.setdefault(str(name).casefold(), name)
    odd = {name: first[str(name).casefold()] for name in counts.index if first[str(name).casefold()] != name}
    if odd:
        logger.warning("%s writes %s", what, few([f"{a} for {b}" for a, b in odd.items()]))
    return names.replace(odd) if odd else names

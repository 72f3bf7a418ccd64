"""Labels that somebody was not sure of, by a question mark behind them or a word beside them: unknown, not absent."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from earshot.annotations.certainty import CERTAINTIES, is_doubted, without_mark
from earshot.messages import few, suggest

logger = logging.getLogger("earshot")


def take_doubted(labels: pd.Series, unsure: pd.Series | None) -> tuple[pd.Series, pd.Series]:
    """Rows of label lists -> the labels of each row that count, and those that nobody is sure of.

    unsure: which whole rows are said to be; None: none.
    """
    rows = unsure if unsure is not None else pd.Series(False, index=labels.index)
    doubted = [
        [without_mark(n) for n in names if row or is_doubted(n)] for names, row in zip(labels, rows, strict=True)
    ]
    kept = [[n for n in names if not (row or is_doubted(n))] for names, row in zip(labels, rows, strict=True)]
    marked = sorted({n for names in labels for n in names if is_doubted(n)})
    if marked:
        logger.warning("labels with a question mark count as unsure: their classes are unknown in these recordings, "
                       "neither there nor absent: %s", few(marked))  # fmt: skip
    return pd.Series(kept, index=labels.index), pd.Series(doubted, index=labels.index)


def unsure_rows(certainty: pd.Series | None, words: Sequence[str], where: str) -> pd.Series | None:
    """Which rows one of the words of --unsure stands beside; None where no column says how sure they are.

    Without words all rows count, and what the column says is named.
    """
    if certainty is None:
        if words:
            raise ValueError(f"--unsure {','.join(words)}: {where} has no column such as {', '.join(CERTAINTIES[:3])} "
                             "whose words say how sure a row is")  # fmt: skip
        return None
    said = certainty.fillna("").astype(str).str.strip()
    counts = said[said != ""].value_counts()
    known = {word.casefold() for word in counts.index}
    for word in words:
        if word.casefold() not in known:
            raise ValueError(f"--unsure: no row of {where} is '{word}'{suggest(word, list(counts.index), 'there are')}")
    if not words:
        if len(counts) > 1:
            logger.warning(
                "%s: rows say how sure they are (%s), and all count as heard: --unsure WORD,WORD makes the classes of "
                "rows with these words unknown in their recordings", where,
                ", ".join(f"'{word}' {n}" for word, n in counts.items()),
            )  # fmt: skip
        return None
    rows = said.str.casefold().isin({word.casefold() for word in words})
    logger.warning("%s: %d of %d rows are unsure (%s): their classes are unknown in these recordings, neither there "
                   "nor absent", where, rows.sum(), len(rows), ", ".join(words))  # fmt: skip
    return rows


def with_unknown(clips: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """`doubted` (class names) as `unknown_labels`, beside those that a table had; names that are no class are said."""
    names = clips.doubted.str.split()
    clips = clips.drop(columns="doubted")
    if lost := sorted({n for some in names for n in some} - set(classes)):
        logger.warning("nobody was sure of any %s: no class", few(lost))
    if not names.map(bool).any():
        return clips
    before = clips.unknown_labels.fillna("").str.split() if "unknown_labels" in clips else [[]] * len(clips)
    both = [{*own, *more} & set(classes) for own, more in zip(names, before, strict=True)]
    return clips.assign(unknown_labels=[" ".join(sorted(some)) for some in both])

"""Soft labels of one's own recordings: events with a value from 0 to 1, such as the share of people who heard each.

They become a column `share` of the event table, which trains; what is scored are the events of half or more, so that
those of less have `is_negative` 1.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from earshot.messages import check_choice, few

CHOICES = ("heard", "shares")  # values of --confidences
HALF = 0.5  # from here on an event counts as heard

logger = logging.getLogger("earshot")


def take_shares(choice: str) -> bool:
    """Whether --confidences asks for shares."""
    check_choice("--confidences", choice or CHOICES[0], CHOICES)
    return choice == CHOICES[1]


def with_shares(events: pd.DataFrame, where: str) -> pd.DataFrame:
    """Events with a `confidence` -> with `share` and `is_negative`; those of 0, which say no more than no row, go."""
    if "confidence" not in events:
        raise ValueError(f"--confidences shares: {where} has no column such as confidence with numbers from 0 to 1, or "
                         "percents such as 80%")  # fmt: skip
    share = events.confidence.fillna(1.0)
    events = events.assign(share=share, is_negative=(share < HALF).astype(int))
    logger.warning("%s: %d of %d rows train on a share between 0 and 1; %d of %g or more count as heard in scores",
                   where, share.between(0, 1, "neither").sum(), len(events), (share >= HALF).sum(), HALF)  # fmt: skip
    return events[share > 0].reset_index(drop=True)


def counts_as_heard(events: pd.DataFrame) -> pd.Series:
    """Which events count as heard where it is yes or no: all without shares."""
    return events.share >= HALF if "share" in events else pd.Series(True, index=events.index)


def heard_alone(events: pd.DataFrame) -> pd.DataFrame:
    """The events that count as heard, as a truth has them."""
    return events[counts_as_heard(events)].drop(columns=["share", "is_negative"], errors="ignore")


def of_classes(events: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The events of these classes; with shares some may have no event of half or more, which makes no class."""
    known = events.event_label.isin(classes)
    if "share" in events and not known.all():
        logger.warning("no event of %s has a share of %g or more: no class",
                       few(sorted(set(events.event_label[~known]))), HALF)  # fmt: skip
    return events[known] if "share" in events else events

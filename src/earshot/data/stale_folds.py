"""Whether a fold table still keeps together what its clip table says belongs together.

Data are prepared again with other groups, and the fold table stays. What a table was asked to keep, it says in its
column GROUPED_BY; without one it keeps `group` as that was, or nothing where there was none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from earshot.data.folds import DEFAULT_K, GROUPED_BY, NO_GROUP, SOME, group_names, shared_values
from earshot.data.names import clean_names
from earshot.messages import command_line, pasted

Torn = tuple[str, str, str, int]  # group, the folds that it is in, its clips, how many groups there are


@dataclass(frozen=True)
class StaleFolds:
    """Groups that a fold table parts without knowing them."""

    torn: Sequence[Torn]
    column: str  # of the clip table: whose values they are
    keeps: str = ""  # another column, whose values the fold table keeps and does not say that it was asked to

    def say(self, clips_path: str | Path, folds_path: str | Path) -> str:
        """What was found, in words, with the command that makes the folds again; '' of nothing."""
        if not self.torn:
            return ""
        group, where, _, of = self.torn[0]
        words = ["--clips", clips_path, "--out", folds_path]
        words += ["--group", self.column] * (self.column != "group") + ["--k", of] * (2 <= of < DEFAULT_K)
        named = "" if self.column == "group" else f"by {self.column} "
        meant = f" (it keeps those of {self.keeps}; if that is meant, {pasted('--group', self.keeps)} has it say so)"
        return (
            f"{len(self.torn)} of {of} groups {named}of {clips_path} lie in several folds of {folds_path}, which was "
            f"made without them, such as {group} (folds {where.replace(' ', ', ')}): training knows the groups that it "
            f"is scored on{meant * bool(self.keeps)}. Make the folds again, and train runs of their own on them: "
            f"{command_line('make_folds', *words, '--force')}"
        )


def stale_folds(clips: pd.DataFrame, folds: pd.DataFrame) -> StaleFolds:
    """Groups of the clip table that lie in several folds of a table that was made without knowing them.

    Both tables in one order (`read_folds`). There are none where the folds are official, or asked to keep none
    (--group none), or where the groups are those that the fold table lists.
    """
    asked = clean_names(folds[GROUPED_BY].iloc[:1]).iloc[0] if GROUPED_BY in folds and len(folds) else ""
    column = asked if asked in clips else "group"
    if asked == NO_GROUP or column not in clips or "official_fold" in folds:
        return StaleFolds((), column)
    now, known = (group_names(clips, asked) if column == asked else clips.group), folds.group.to_numpy()
    torn = () if (known == now.to_numpy()).all() else shared_values(folds, now)
    return StaleFolds(torn, column, "" if asked or not torn else _kept(clips, known))


def _kept(clips: pd.DataFrame, known) -> str:
    """The column whose values a fold table keeps together, other than `group`; '' where it is none of the table's."""
    if (known == clips.clip_id.to_numpy()).all():
        return ""
    for column in clips.columns.drop(["clip_id", "group"]):
        if all((group_names(part, column).to_numpy() == known[: len(part)]).all() for part in (clips[:SOME], clips)):
            return column
    return ""

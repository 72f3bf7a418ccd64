"""The embedded competition: made by `earshot.synth` where it is missing, then read and scored as birdcall is.

Unlike birdcall, clips are grouped by recordist (whose backgrounds the test does not share), and the test's true events
are known.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from earshot.competitions import birdcall
from earshot.competitions.birdcall import LIMITS, rows, score, truth_rows, validate
from earshot.competitions.tables import Tables, class_name
from earshot.synth import birds
from earshot.tables import read_table

__all__ = ["LIMITS", "prepare", "rows", "score", "truth_rows", "validate"]

EMBEDDED = True  # makes its own download


def prepare(source: Path, seed: int | None = None) -> Tables:
    """Tables of the generated competition in `source`, made first where the folder is missing or empty.

    `seed` of what is generated (default 0); an existing folder of another seed or generator version is an error.
    """
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        birds.make_birds(source, seed or 0)
    about = source / "synth.json"
    made = json.loads(about.read_text()) if about.is_file() else {}
    wanted = {"version": birds.VERSION, "seed": made.get("seed") if seed is None else seed}
    if any(made.get(key) != value for key, value in wanted.items()):
        raise ValueError(
            f"{source} was not made with {wanted} (its synth.json: {made or 'missing'}); remove the folder, or choose "
            "another, to have the competition made anew"
        )
    tables = birdcall.prepare(source)
    clips = tables.clips.assign(group=tables.clips.recordist.map(class_name))
    events = read_table(source / "test_events.csv", ("filename", "onset", "offset", "event_label"))
    truth = read_table(source / "truth.csv", ("row_id", "birds"))
    return dataclasses.replace(tables, clips=clips, test_events=events, truth=truth)

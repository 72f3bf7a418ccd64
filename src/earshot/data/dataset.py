"""What a prepared folder says of itself: `dataset.json`, and whether its recordings are those still."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from earshot.messages import command_line, few
from earshot.sound.rows import file_of
from earshot.stored import read_json, want

NOTES = "recordings.json"  # beside dataset.json: size and time of change of recordings
LOOKED_AT = 10_000  # recordings of which the time of change is asked: a second on a disk of one's own
SLACK_NS = 2 * 10**9  # clocks of file systems

logger = logging.getLogger("earshot")


def read_dataset(folder: str | Path) -> dict:
    """Read dataset.json of a prepared folder: {"competition", "source", "task"}.

    It has "copied_channels" too, mono or stereo, where the clips' paths are copies that prepare.py --resample made, and
    "command", the words that prepare.py was called with.
    """
    path, prepare = Path(folder) / "dataset.json", command_line("prepare", "COMPETITION", "--out", folder)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; make it with {prepare}")
    remedy = f"make it again with {prepare}"
    about = read_json(path, "file", remedy)
    want(about, {"competition": str, "source": str}, str(path), remedy)
    return about


def noted(source: str | Path, paths: Iterable[str]) -> dict[str, list[int]]:
    """Size and time of change (ns) of recordings (paths below `source`), by path: LOOKED_AT of many, evenly spread."""
    return {path: found for path in _some(paths) if (found := _state(os.path.join(source, path)))}


def say_changed(folder: str | Path, source: str | Path, paths: Iterable[str]):
    """Warn where recordings (paths below `source`) are others than prepare.py listed in `folder`: its tables are of
    the sound before.

    Of many recordings LOOKED_AT are asked, evenly spread: what was written later, and what has another size or time
    than prepare.py noted, be it older. Where all times are others the recordings were copied: then the time alone says
    nothing. A folder of an older version has no notes.
    """
    listed, notes = Path(folder) / "dataset.json", Path(folder) / NOTES
    if not listed.is_file():
        return
    made = listed.stat().st_mtime_ns + SLACK_NS
    if notes.is_file():
        before = read_json(notes, "list of recordings", "remove it, or prepare the data again")
        known = _some(path for path in paths if file_of(str(path)) in before)
        now = {path: _state(os.path.join(source, path)) for path in known}
        pairs = {path: (before[path], found) for path, found in now.items() if found}  # of a lost one reading says why
        in_place = any(old[1] == new[1] for old, new in pairs.values())
        changed = [
            path for path, (old, new) in pairs.items()
            if new[1] > made or old[0] != new[0] or (in_place and old != new)
        ]  # fmt: skip
    else:
        known = _some(paths)
        changed = [path for path in known if (found := _state(os.path.join(source, path))) and found[1] > made]
    if changed:
        logger.warning(
            "%d of %d recordings that were looked at were changed after %s listed them, such as %s: what it says of "
            "them may be of other sound. Prepare the data again", len(changed), len(known), listed, few(changed, 3),
        )  # fmt: skip


def _some(paths: Iterable[str]) -> list[str]:
    """The files of these paths, each once; of many LOOKED_AT, evenly spread."""
    files = list(dict.fromkeys(file_of(str(path)) for path in paths))
    return files[:: max(1, -(-len(files) // LOOKED_AT))]


def _state(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:  # reading it says why
        return None
    return [found.st_size, found.st_mtime_ns]

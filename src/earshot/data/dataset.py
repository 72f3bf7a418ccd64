"""What a prepared folder says of itself: `dataset.json`, and whether its recordings are those still."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from earshot.messages import few
from earshot.sound.rows import file_of
from earshot.stored import read_json, want

LOOKED_AT = 10_000  # recordings of which the time of change is asked: a second on a disk of one's own
SLACK_NS = 2 * 10**9  # clocks of file systems

logger = logging.getLogger("earshot")


def read_dataset(folder: str | Path) -> dict:
    """Read dataset.json of a prepared folder: {"competition", "source", "task"}.

    It has "copied_channels" too, mono or stereo, where the clips' paths are copies that prepare.py --resample made.
    """
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; make it with src/prepare.py <competition> --out {folder}")
    remedy = f"make it again with src/prepare.py <competition> --out {folder}"
    about = read_json(path, "file", remedy)
    want(about, {"competition": str, "source": str}, str(path), remedy)
    return about


def say_changed(folder: str | Path, source: str | Path, paths: Iterable[str]):
    """Warn where recordings (paths below `source`) were written after prepare.py listed them in `folder`: its
    tables are of the sound before.

    Of many recordings LOOKED_AT are asked, evenly spread. What keeps an older time (`cp -p`, `mv`) is not noticed.
    """
    listed = Path(folder) / "dataset.json"
    if not listed.is_file():
        return
    made = listed.stat().st_mtime_ns + SLACK_NS
    known = list(dict.fromkeys(file_of(str(path)) for path in paths))
    known = known[:: max(1, -(-len(known) // LOOKED_AT))]
    changed = [path for path in known if _changed_at(Path(source) / path) > made]
    if changed:
        logger.warning(
            "%d of %d recordings that were looked at were written after %s listed them, such as %s: what it says of "
            "them may be of other sound. Prepare the data again", len(changed), len(known), listed, few(changed, 3),
        )  # fmt: skip


def _changed_at(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # reading it says why
        return 0

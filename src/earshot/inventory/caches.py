"""The caches that data sets keep (data/caches.py): all can be made again, so that cleaning may take any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from earshot import files
from earshot.inventory.trained import Found
from earshot.stored import read_json

KEY = re.compile(r"[0-9a-f]{16}")


def caches_of(found: Sequence[Found], everything: Sequence[Found]) -> Iterator[tuple[Path, int, str, str]]:
    """Find the caches of these runs' data, with their sizes, and say which may not go.

    (folder, bytes, what it is, why it may not go or '') of each. Where all runs are meant, the data sets
    below data/ that no run names count too. A data set that a running run reads keeps its caches.
    """
    roots = {Path(run.config.data.root) for run in found if run.config}
    if len(found) == len(everything):
        roots |= {path for path in Path("data").glob("*") if path.is_dir()}
    reading = {
        place.resolve(): f"{run.name} is running" for run in everything if run.state == "running" and run.config
        for place in places(Path(run.config.data.root))
    }  # fmt: skip
    for folder, place in {place.resolve(): place for root in sorted(roots) for place in places(root)}.items():
        for cache in (path.parent for path in sorted(place.glob("*/params.json"))):
            if KEY.fullmatch(cache.name) and not cache.is_symlink():
                yield cache, _size(cache), _kind(cache / "params.json"), reading.get(folder, "")


def places(root: Path) -> tuple[Path, Path]:
    """Where the caches of a data set are: in it, and where it cannot be written in cache/<its name> of this folder."""
    return root / "cache", Path("cache", root.absolute().name)


def _size(folder: Path) -> int:
    return sum((parent / name).lstat().st_size for parent, names in files.walk(folder) for name in names)


def _kind(params: Path) -> str:
    """What a cache holds, in a word; a damaged one says so."""
    try:
        about = read_json(params, "description")
    except ValueError:
        return "a damaged cache"
    rate = f" at {about['sample_rate']} Hz" if isinstance(about.get("sample_rate"), int) else ""
    return f"{about.get('kind', '')} cache{rate}"

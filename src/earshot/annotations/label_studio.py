"""Label Studio's exports of audio regions: JSON, JSON-MIN, and CSV with a cell of JSON.

A task without an annotation says nothing; one whose annotation has no region is silent. Regions of all annotations that
were not cancelled count.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.stored import parse_json, read_json
from earshot.tables import read_table

MARKS = ('"annotations"', '"start"')  # in the beginning of an export
CSV_MARK = '""start"":'  # of a cell of JSON


def is_export(path: Path, start: str) -> bool:
    """Whether a file whose text begins with `start` is such an export."""
    if path.suffix.lower() == ".json":
        may_be = start.lstrip().startswith("[") and any(mark in start for mark in MARKS)
        return may_be and not any(map(_is_plain, read_json(path, "export of Label Studio", kind=list)))
    return path.suffix.lower() == ".csv" and CSV_MARK in start.replace(" ", "")


def _is_plain(held) -> bool:
    """Whether an object is an event of a table, or holds a list of such: a region of an export has a list of labels."""
    if not isinstance(held, dict) or isinstance(held.get("data"), dict):
        return False
    inner = [one for value in held.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    return "start" in held or any(
        "start" in one and not any(isinstance(value, list) for value in one.values()) for one in inner
    )


def read_export(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read an export: (`filename, onset, offset, event_label`, names of recordings that are annotated and silent)."""
    tasks = _of_table(path) if path.suffix.lower() == ".csv" else read_json(path, "export of Label Studio", kind=list)
    rows, silent = [], []
    for number, task in enumerate(tasks, start=1):
        where = f"{path}: task {number}"
        if not isinstance(task, dict):
            raise ValueError(f"{where} is no object, as Label Studio's are")
        name, regions = _regions(task, where)
        if name and regions == []:
            silent.append(name)
        rows += [(name, *region) for region in regions or ()]
    if not rows and silent and _has_choices(tasks):
        raise ValueError(f"{path} has choices of whole recordings and no regions: export it as CSV, a table of labels")
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    return events.astype({"onset": float, "offset": float}), tuple(silent)


def _regions(task: dict, where: str) -> tuple[str, list[tuple[float, float, str]] | None]:
    """The recording of a task and its regions; None: nobody annotated it."""
    if isinstance(task.get("data"), dict):
        done = [a for a in task.get("annotations") or () if isinstance(a, dict) and not a.get("was_cancelled")]
        values = [r.get("value") for a in done for r in a.get("result") or () if isinstance(r, dict)]
        name = _recording(task["data"])
        if not done:
            return name, None
    else:
        lists = [v for v in task.values() if isinstance(v, list)]
        name, values = _recording(task), [region for several in lists for region in several]
        if not lists:
            return name, None
    found = []
    for value in values:
        if isinstance(value, dict) and "start" in value and "end" in value:
            try:
                start, end = float(value["start"]), float(value["end"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{where} has a region whose start or end is no number") from error
            labels = next((v for v in value.values() if isinstance(v, list)), [])
            found += [(start, end, str(label)) for label in labels]
    if found and not name:
        raise ValueError(f"{where} has regions and names no recording, as by 'audio'")
    return name, found


def _has_choices(tasks: list[dict]) -> bool:
    """Whether annotations say something that is no region, such as what a whole recording is."""
    done = [a for task in tasks for a in task.get("annotations") or () if isinstance(a, dict)]
    results = [r for a in done for r in a.get("result") or () if isinstance(r, dict)]
    return any(isinstance(r.get("value"), dict) and "start" not in r["value"] for r in results)


def _recording(data: dict) -> str:
    """What a task calls its recording: `audio`, else the first text that looks like a file's name."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    return texts.get("audio") or next((text for text in texts.values() if "." in Path(text).name), "")


def _of_table(path: Path) -> list[dict]:
    """The rows of a CSV export, cells of JSON parsed."""
    table = read_table(path, all_text=True)
    rows = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        cells = {}
        for key, cell in row.items():
            is_list = cell.lstrip().startswith("[")
            cells[key] = parse_json(cell, f"{path} row {number}, {key}", kind=list) if is_list else cell
        rows.append(cells)
    return rows

"""Several outputs of one DCASE system, such as one a training split (task 1 of 2024), beside one meta file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from earshot.competitions.checks import refuse
from earshot.competitions.competition import Challenge
from earshot.competitions.dcase_meta import ENDING, as_text
from earshot.stored import read_text, read_yaml


def part_of(challenge: Challenge | None, given: str | None) -> dict[str, str]:
    """Which of a system's outputs this one is, checked, as a keyword: {"part": "split_5"}; {} of a system of one."""
    parts = challenge.parts if challenge else ()
    problems = []
    if parts and given not in parts:
        said = f"'{given}' is none of them" if given else "say which one this is"
        problems = [f"a system hands in {len(parts)} outputs, {', '.join(parts)}: {said}"]
    elif given and not parts:
        problems = ["a system of this competition has one output: leave it out"]
    refuse(problems, "--part")
    return {"part": given} if given else {}


def check_parts(challenge: Challenge | None, given: Iterable[Path]) -> list[str]:
    """A line for each of these folders that lacks outputs of its system."""
    problems = []
    for folder in (p for p in given if challenge and challenge.parts and p.is_dir()):
        names = [path.name for path in folder.iterdir()]
        if lost := [part for part in challenge.parts if not any(f".{part}." in name for name in names)]:
            problems.append(f"{folder}: {len(lost)} of {len(challenge.parts)} outputs are missing: {', '.join(lost)}")
    return problems


def with_other_parts(
    texts: Mapping[str, str], folder: Path, challenge: Challenge, label: str, part: str
) -> dict[str, str]:
    """Files of one output, and those of the others that lie in the system's folder.

    What an author filled in in the meta file there stays; the results of this output are put in.
    """
    inside = [p for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []
    there, meta = {p.name: read_text(p, "file") for p in inside}, f"{label}{ENDING}"
    new = yaml.safe_load(texts[meta])
    values = read_yaml(folder / meta, "meta file") if meta in there else new
    result = new["results"]["development_dataset"]
    return there | texts | {meta: as_text(_with_results(values, result, part, challenge))}


def _with_results(values: dict, result, part: str, challenge: Challenge) -> dict:
    """Results of the last part that has any, and of each part below its name."""
    results = values.get("results")
    before = results.get("development_dataset") if isinstance(results, Mapping) else None
    known = {p: before[p] for p in challenge.parts if isinstance(before, Mapping) and p in before}
    known |= {part: result} if isinstance(result, Mapping) else {}
    ordered = {p: known[p] for p in challenge.parts if p in known}
    shown = dict(ordered[list(ordered)[-1]]) | ordered if ordered else result
    return values | {"results": {"development_dataset": shown}}

"""<label>.meta.yaml, which DCASE wants beside a system's output: who hands in, what the system is, how it scored.

What is measured is filled in; what nobody here can know says FILL IN, and a file that still says so is not valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path

import yaml

from earshot.competitions.checks import refuse
from earshot.competitions.competition import Challenge, Competition
from earshot.messages import few
from earshot.stored import read_yaml

FILL_IN = "FILL IN"
ENDING = ".meta.yaml"
NO_LABEL = "LASTNAME_INSTITUTE"  # of a label that was not given
ASKED = {
    "external_datasets": "a list of {name, url, total_audio_length}, or []",
    "external_data_usage": "such as pre-trained model, or null",
    "energy_consumption": {"training": "kWh", "inference": "kWh", "baseline_inference": "kWh"},
    "source_code": "a URL, or null",
    "complexity_management": "such as pruning, knowledge distillation, weight quantization, or null",
    "pipeline": "such as training, distillation",
    "memory_use": "bytes that inference needs",
    "aggregation_method": "how windows become one score, or null",
    "decision_making": "how scores become decisions, or null",
}
HEADER = """# Made by Earshot from the trained networks and their out-of-fold predictions; every FILL IN is yours.
# Accuracies, F-scores and AUCs are per cent, parameters are counted one by one, macs are of one hearing of one
# input by all networks.
# Hold the names of fields against the example package of your year before you hand in.
"""


def label_of(challenge: Challenge | None, given: str | None) -> str:
    """The label of a system: the given one, checked, else one that says that it is none; '' where none is wanted."""
    if challenge is None:
        refuse(["this competition has no labels: leave it out"] * bool(given), "--label")
        return ""
    refuse(_label_problems(given, challenge) if given else [], "--label")
    return given or f"{NO_LABEL}_{challenge.task}_1"


def make_meta(challenge: Challenge, label: str, known: Mapping, results: Mapping) -> str:
    """The file's text. known: {field of description or complexity: value} of what is known of the system; results: on
    the development set, {} where there are none."""

    def block(fields) -> dict:
        return {name: known[name] if name in known else _ask(name) for name in fields}

    author = {name: _ask(name) for name in ("lastname", "firstname", "email")}
    institute = {name: _ask(name) for name in ("abbreviation", "institute", "location")}
    values = {
        "submission": {
            "label": label, "name": _ask("of the system"), "abbreviation": _ask("of the system, at most 10 characters"),
            "authors": [author | {"corresponding": True, "affiliation": institute}],
        },
        "system": {
            "description": block(challenge.description), "complexity": block(challenge.complexity),
        } | block(challenge.more),
        "results": {"development_dataset": dict(results) or _ask("no OOF here has these scores")},
    }  # fmt: skip
    return as_text(values)


def as_text(values: Mapping) -> str:
    return HEADER + yaml.dump(values, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """Writes a block that stands there twice in full, in place of a reference to the first."""

    def ignore_aliases(self, data) -> bool:
        return True


def meta_problems(path: Path, competition: Competition) -> list[str]:
    """What is wrong with a meta file: its fields, its label, what nobody filled in, sizes that are not allowed."""
    challenge, values = competition.challenge, read_yaml(path, "meta file")
    label = path.name.removesuffix(ENDING)
    problems = _label_problems(label, challenge)
    wanted = {
        "submission": ("label", "name", "abbreviation", "authors"),
        "system": ("description", "complexity", *challenge.more),
        "system.description": challenge.description,
        "system.complexity": challenge.complexity,
        "results": ("development_dataset",),
    }
    for place, fields in wanted.items():
        block = _at(values, place)
        if not isinstance(block, Mapping):
            problems.append(f"it has no block {place}")
        elif lost := [name for name in fields if name not in block]:
            problems.append(f"{place} lacks {few(lost)}")
    if (own := _at(values, "submission.label")) not in (None, label):
        problems.append(f"submission.label is {own}, the file's name says {label}")
    if len(short := str(_at(values, "submission.abbreviation") or "")) > 10 and FILL_IN not in short:
        problems.append(f"submission.abbreviation '{short}' has more than 10 characters")
    problems += _author_problems(_at(values, "submission.authors"))
    for place in ("system.complexity.total_parameters", "system.description.ensemble_method_subsystem_count"):
        value = _at(values, place)
        if value is not None and not _asked(value) and type(value) is not int:
            problems.append(f"{place} is {value!r}, expected a whole number")
    for place, value in _leaves(_at(values, "results.development_dataset"), "results.development_dataset"):
        if not _asked(value) and (not isinstance(value, Real) or isinstance(value, bool)):
            problems.append(f"{place} is {value!r}, expected a number")
    problems += _limit_problems(values, competition)
    if empty := [place for place, value in _leaves(values) if _asked(value)]:
        problems.append(f"{len(empty)} values say {FILL_IN}: {few(empty)}")
    return problems


def _ask(name: str):
    asked = ASKED.get(name, name.replace("_", " "))
    return {k: f"{FILL_IN}: {v}" for k, v in asked.items()} if isinstance(asked, Mapping) else f"{FILL_IN}: {asked}"


def _asked(value) -> bool:
    return isinstance(value, str) and FILL_IN in value


def _at(values, place: str):
    for key in place.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _leaves(values, place: str = "") -> Iterator[tuple[str, object]]:
    """(dotted place, value) of everything that is no block and no list."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from _leaves(value, f"{place}[{i}]")
    elif values is not None or place:
        yield place, values


def _label_problems(label: str, challenge: Challenge) -> list[str]:
    wanted = f"<last name>_<institute>_{challenge.task}_<1 to 4>, such as Muster_TUX_{challenge.task}_1"
    if not re.fullmatch(rf"[^_\W]+(?:-[^_\W]+)*_[^_\W]+(?:-[^_\W]+)*_{challenge.task}_[1-4]", label):
        return [f"the label '{label}' is not {wanted}"]
    return [f"the label '{label}' names no author: it should be {wanted}"] * label.startswith(f"{NO_LABEL}_")


def _author_problems(authors) -> list[str]:
    if not isinstance(authors, list) or not authors or not all(isinstance(author, Mapping) for author in authors):
        return ["submission.authors is no list of authors"]
    problems = []
    for i, author in enumerate(authors):
        if lost := [name for name in ("lastname", "firstname", "email", "affiliation") if author.get(name) is None]:
            problems.append(f"submission.authors[{i}] lacks {few(lost)}")
    count = sum(bool(author.get("corresponding")) for author in authors)
    return problems + [f"{count} authors are corresponding, expected one"] * (count != 1)


def _limit_problems(values, competition: Competition) -> list[str]:
    complexity, limits = _at(values, "system.complexity"), competition.limits
    complexity = complexity if isinstance(complexity, Mapping) else {}
    kilobytes = limits.parameters_kb
    asked = (("total_model_size", kilobytes), ("model_size", kilobytes), ("macs", limits.mmacs * 1e6))
    return [
        f"system.complexity.{name} is {complexity[name]:,}, {competition.name} allows {limit:,.0f}"
        for name, limit in asked
        if isinstance(complexity.get(name), Real) and 0 < limit < complexity[name]
    ]

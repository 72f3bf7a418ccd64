"""What the records and the family files say of each competition, for people."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from earshot.competitions import COMPETITIONS, family_module, get_competition
from earshot.competitions.competition import Competition, PostRanges
from earshot.config import load_config, read_values
from earshot.data.dataset import read_dataset
from earshot.messages import command_line, of_repository, plural
from earshot.records import to_dict
from earshot.tables import read_table
from earshot.tasks import TASKS, get_task

SHOWN_CONFIGS = 8


def summary_rows(data: Path) -> list[dict[str, str]]:
    """A row a competition: name, task, its score, kernel minutes, and whether its tables are prepared below `data`."""
    rows = []
    for name in COMPETITIONS:
        record = get_competition(name)
        minutes = f"{record.limits.minutes:g} min" if record.limits.minutes else "yes"
        rows.append({
            "competition": name, "task": record.task, "score": record.oof_score.name,
            "kernel": minutes if record.hidden else "-", "prepared": prepared(data / name) or "-",
            "about": summary_of(name),
        })  # fmt: skip
    return rows


def summary_of(name: str) -> str:
    """The first sentence of the family's file."""
    return " ".join(doc_of(name).split("\n\n")[0].split()).split("; ")[0].split(". ")[0].rstrip(".")


def doc_of(name: str) -> str:
    return inspect.getdoc(importlib.import_module(family_module(name))) or ""


def prepared(folder: Path) -> str:
    """What the tables of a competition hold, where they are prepared there: clips, classes; else ''."""
    if not (folder / "dataset.json").is_file():
        return ""
    clips, classes = (read_table(folder / f"{n}.csv", (c,)) for n, c in (("clips", "clip_id"), ("classes", "label")))
    return f"{plural(len(clips), 'clips')}, {plural(len(classes), 'classes')}"


def told(name: str, data: Path, configs: Path) -> list[str]:
    """All that is known of a competition, as lines: facts, what the download holds, the road to a submission."""
    record, rows = get_competition(name), []
    others = [other for other, family in COMPETITIONS.items() if family == COMPETITIONS[name] and other != name]
    direction = "less is better" if record.oof_score.lower_is_better else "more is better"
    rows.append(("task", f"{record.task}; the checkpoint is chosen by {get_task(record.task, name).watch}"))
    rows.append(("score", f"{record.oof_score.name}, {direction}"))
    rows.append(("rows", first_sentence(record.rows)))
    rows.append(("checked that", first_sentence(record.validate).removeprefix("Raise unless ")))
    if record.post:
        rows.append(("chosen on the OOF", ", ".join(searched(record.post)) or "nothing: rows are scores"))
    rows.append(("limits", limits_of(record)))
    rows.append(("hidden test", hidden_of(record)))
    if record.fold_methods:
        rows.append(("fold methods", ", ".join(record.fold_methods)))
    if options := options_of(record):
        rows.append(("prepare takes", "; ".join(options)))
    if others:
        rows.append(("same family", ", ".join(others)))
    where = read_dataset(data / name)["source"] if prepared(data / name) else ""
    rows.append(("prepared", f"{prepared(data / name)} in {data / name}, of {where}" if where else "not here yet"))
    trained = configs_of(name, configs)
    if trained:
        more = f" and {len(trained) - SHOWN_CONFIGS} more" if len(trained) > SHOWN_CONFIGS else ""
        rows.append(("configs", ", ".join(trained[:SHOWN_CONFIGS]) + more))
    width = max(len(key) for key, _ in rows)
    lines = [f"{name}: {summary_of(name)}", *(f"  {key.ljust(width)}  {text}" for key, text in rows)]
    lines += ["", "What the download holds, and how it is answered:", ""]
    lines += [f"  {line}".rstrip() for line in doc_of(name).splitlines()]
    without = "predict and submit are left out" if record.hidden else "the run's oof.npz is submitted"
    lines += ["", f"The road (without test recordings {without}):", ""]
    return [*lines, *(f"  {command}" for command in road(record, name, trained))]


def first_sentence(function: Callable) -> str:
    """The first sentence of a function's docstring, that of the inner one where it was given some arguments already."""
    while isinstance(function, partial):
        function = function.func
    return " ".join((inspect.getdoc(function) or "-").split("\n\n")[0].split()).split(". ")[0]


def searched(post: PostRanges) -> list[str]:
    """Names of the steps of post-processing that are searched on an OOF."""
    return [key for key, value in to_dict(post).items() if key != "start" and value]


def limits_of(record: Competition) -> str:
    """What the rules allow, in words."""
    limits = record.limits
    parts = [
        (limits.minutes, "kernel of {:g} minutes"),
        (limits.parameters_kb, "{:g} kB of parameters at a byte each"),
        (limits.mmacs, "{:g} million multiply-accumulates"),
    ]
    return ", ".join(text.format(value) for value, text in parts if value) or "none known"


def hidden_of(record: Competition) -> str:
    """Where Kaggle keeps the hidden test, in words."""
    rules = record.hidden
    if rules is None:
        return "none: no kernel answers"
    table = f"{rules.table} (a sample submission)" if rules.sample else rules.table
    return f"/kaggle/input/{rules.slug}: {rules.folder}/, {table}; recordings of {rules.seconds:g} s where unreadable"


def options_of(record: Competition) -> list[str]:
    """What prepare.py can be told of this competition: --set KEY=VALUE with its default, and flags of its own."""
    taken = inspect.signature(record.prepare).parameters.values()
    flags = record.flags + (record.remake.flags if record.remake else ())
    own = {flag.key for flag in flags}
    known = [p for p in taken if p.name not in ("source", "seed", *own) and p.default is not inspect.Parameter.empty]
    return [f"--set {p.name}={p.default}" for p in known] + [f"{flag.name} ({flag.help})" for flag in flags]


@cache
def _competition_of_configs(configs: Path) -> tuple[tuple[str, str], ...]:
    found = []
    for path in sorted(configs.glob("*/**/*.yaml")):
        relative = path.relative_to(configs)
        if path.stem.startswith("_") or relative.parts[0] not in TASKS:
            continue
        data = read_values(path).get("data") or {}
        found.append((data.get("competition", "synth"), str(relative.with_suffix(""))))
    return tuple(found)


def configs_of(name: str, configs: Path) -> list[str]:
    """The configs that train on a competition, those of its own task first: 'sed/birdcall_b0'."""
    found = [config for competition, config in _competition_of_configs(configs) if competition == name]
    return sorted(found, key=lambda config: config.split("/")[0] != get_competition(name).task)


def road(record: Competition, name: str, configs: list[str]) -> list[str]:
    """The commands from a download to a checked submission.

    Where the tables are prepared and have no test recordings, the held-out clips are the test, and the OOF its answers.
    """
    source = [] if record.embedded else ["--source", "DIR"]
    config = f"configs/{configs[0] if configs else f'{record.task}/{name}'}.yaml"
    run, data = f"runs/{record.task}/{Path(config).stem}", f"data/{name}"
    commands = [command_line("prepare", name, *source)]
    if configs:
        config = of_repository(config)
        commands += [command_line("make_folds", "--clips", f"{data}/clips.csv", "--out", f"folds/{name}.csv")]
    else:
        commands += [command_line("new", name, "--like", LIKE[record.task])]
    whole = ["data.where={}"] if configs and load_config(of_repository(config)).data.where else []
    trains = ["--config", config, "--fold", "all", "--jobs", 2, *whole]
    uploads = ["--runs", run, "--competition", name, "--slug", "USER/NAME", "--dry-run"]
    held_out = Path(data, "clips.csv").is_file() and not Path(data, "test_clips.csv").is_file()
    answers = [
        "--predictions",
        f"{run}/{'oof' if held_out else 'test'}.npz",
        "--test",
        f"{data}/test.csv",
        "--out",
        f"submissions/{name}.csv",
    ]
    commands += [command_line("train", *trains)]
    if record.task == "asd":
        commands += [command_line("score_anomalies", "--run", run)]
    if not held_out:
        commands += [command_line("predict", "--run", run, "--clips", f"{data}/test_clips.csv")]
    commands += [command_line("submit", "--competition", name, *answers)]
    if record.hidden:
        commands += [command_line("export", "--run", run, "--format", "onnx"), command_line("bundle", *uploads)]
    return commands


LIKE = {  # a config of each task to begin from
    "sed": "sed/synth_cnn", "tagging": "tagging/esc10_cnn", "scenes": "scenes/baseline", "ust": "ust/baseline",
    "asd": "asd/baseline",
}  # fmt: skip

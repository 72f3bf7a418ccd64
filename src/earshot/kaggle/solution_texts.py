"""What a solution says of itself: README.md, entry_points.md with every command, SETTINGS.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from earshot import runs
from earshot.competitions import get_competition
from earshot.data.dataset import read_dataset
from earshot.kaggle.model_card import scores_of
from earshot.kaggle.solution import Solution, data_of, place_of, post_of_submission
from earshot.messages import few, pasted
from earshot.records import to_dict
from earshot.stored import read_json
from earshot.tables import read_table
from earshot.tasks import task_of

FILL_IN = "FILL IN"
FROM_OUTSIDE = ("weights", "run", "file", "folder", "pseudo", "unlabelled", "soft_targets", "source",
                "predictions", "config", "table", "labels")  # fmt: skip
NOTHING = ("", "auto", "none", "left_out")  # values of these keys that name no file


def settings(solution: Solution) -> dict:
    data = data_of(solution.members[0])
    prepared = {"TRAIN_DATA_CLEAN_PATH": data, "TEST_DATA_CLEAN_PATH": data}
    return {"RAW_DATA_DIR": "download"} | prepared | {"MODEL_DIR": "runs", "SUBMISSION_DIR": "submissions"}


def commands(solution: Solution) -> Iterator[str]:
    """entry_points.md, line by line: from the download, everything trained anew, and with the weights that are here."""
    first, name = solution.members[0], solution.competition
    data, source = data_of(first), settings(solution)["RAW_DATA_DIR"]
    yield "# Entry points\n"
    yield "Run in this folder, with a Python of requirements.txt. `SETTINGS.json` says which folder is which.\n"
    yield f"Prepare the data; `{source}` is the unpacked download:\n"
    yield from dict.fromkeys(f"    {_prepare_command(run, source)}" for run in solution.members)
    yield "\nTrain every network anew, in a folder beside the one that is here (the fold tables are in `folds/`):\n"
    for run in solution.members:
        config = (place_of(run) / run.folds[0].folder.name / "config.yaml").as_posix()
        folds = " ".join(str(fold.fold) for fold in run.folds)
        words = ["--config", config, "--fold", *folds.split(), "--name", f"{run.folder.resolve().name}_again"]
        yield f"    {_command('train', *words)}"
    yield "\nPredict the test with the weights that are here:\n"
    root = Path(first.config.data.root)
    test = f"{data}/test_clips.csv" if _has(root, "test_clips.csv") else "FOLDER_OF_RECORDINGS"
    for run in solution.members:
        told = run.folder / "predicted.json"
        more = read_json(told, "command", "predict the test anew", kind=list) if told.is_file() else []
        more = _without(more, "--run", "--clips", "--out", "--audio-root")
        yield f"    {_command('predict', '--run', place_of(run).as_posix(), '--clips', test, *more)}"
    predictions = (place_of(first) / "test.npz").as_posix()
    if solution.blend:
        predictions = f"submissions/{solution.blend.stem}.npz"
        members = [place_of(run).as_posix() for run in solution.members]
        yield "\nBlend, by the OOF that lie in the runs:\n"
        told = read_json(solution.blend, "ensemble", "src/ensemble.py writes it").get("command", [])
        more = _without(told, "--runs", "--out")
        yield f"    {_command('ensemble', '--runs', *members, *more, '--out', predictions)}"
        if not told:
            yield f"\n{FILL_IN}: the flags that the blend was made with (--mean, --weights, --auto, --tune)"
    if not _has(root, "test.csv"):
        return
    yield "\nWrite the submission:\n"
    words = ["--competition", name, "--predictions", predictions, "--test", f"{data}/test.csv"]
    words += ["--post", post_of_submission(solution)] if post_of_submission(solution) else []
    yield f"    {_command('submit', *words, '--out', f'submissions/{name}_again.csv')}"


def _has(root: Path, name: str) -> bool:
    """Whether the prepared data have this table; of data that are gone it is taken for granted."""
    return not root.is_dir() or (root / name).is_file()


def _prepare_command(run: runs.Run, source: str) -> str:
    """The command that made a run's data, from the download."""
    name, root = run.config.data.competition, Path(run.config.data.root)
    words = read_dataset(root).get("command") if (root / "dataset.json").is_file() else None
    words = words or [name, "--source"]
    more = _without(words[1:], "--source", "--out", "--force")
    from_where = ["--source", source] if any(word.startswith("--source") for word in words) else []
    return _command("prepare", words[0], *from_where, "--out", data_of(run), *more)


def _command(script: str, *words) -> str:
    return f"python {pasted(f'src/{script}.py', *words)}"


def _without(words: Sequence[str], *flags: str) -> list[str]:
    """Words of a command line without these flags and their values."""
    kept, inside = [], False
    for word in words:
        if word.startswith("--"):
            inside = word.partition("=")[0] in flags
        if not inside:
            kept.append(word)
    return kept


def readme(solution: Solution, license_id: str) -> Iterator[str]:
    record, about = get_competition(solution.competition), solution.members[0].folds[0].about
    count = sum(len(run.folds) for run in solution.members)
    yield f"# A solution of {record.name}\n"
    yield f"{count} network{'s' * (count > 1)} of {len(solution.members)} run{'s' * (len(solution.members) > 1)}."
    yield "Commands, in turn: [entry_points.md](entry_points.md). Files and their digests: `sha256sum -c SHA256SUMS`.\n"
    yield "## What answers\n"
    yield "| run | network | parameters of one | folds | epochs | minutes of training | weight | held out |"
    yield "|---|---|---|---|---|---|---|---|"
    weights = solution.ensemble.blend.weights if solution.ensemble else ()
    for i, run in enumerate(solution.members):
        watch = run.config.watch or task_of(run.config).watch
        mean, deviation, _ = scores_of(run).get(watch, (float("nan"),) * 3)
        parameters = run.folds[0].about.get("parameters", 0)
        yield (
            f"| {run.name} | {run.config.model.name} | {parameters:,} | {len(run.folds)} | "
            f"{max(fold.about.get('epochs_trained', 0) for fold in run.folds)} | {_minutes(run):.0f} | "
            f"{_weight(weights, i)} | {watch} {mean:.4f} ± {deviation:.4f} |"
        )
    if solution.blend:
        listed, blend = read_json(solution.blend, "ensemble"), solution.ensemble.blend
        score = f"{listed.get('watch', '')} {listed.get('cv', float('nan')):.4f}"
        mean = "arithmetic" if blend.mean == "mean" else blend.mean
        yield f"\nTogether ({mean} mean of the runs): {score} of clips held out."
    if solution.submission is not None:
        row = solution.logged
        scored = f", {row['score_of']} {row['score']}" if row.get("score") else ""
        yield f"\nHanded in: `submissions/{solution.submission.name}`, made {row.get('time', '')}{scored}."
    yield "\n## Made with\n"
    libraries = ", ".join(f"{k} {v}" for k, v in about.get("libraries", {}).items() if v)
    commits = sorted({str(fold.about.get("commit", "")) for run in solution.members for fold in run.folds})
    yield f"- Trained by Python {about.get('python', '')}, {libraries}; `requirements.txt` names all packages."
    yield f"- Code of commit {few(commits)} (+: with changes); `src/` is that of {runs.git_commit() or 'no commit'}."
    yield "- Earshot, MIT licence (`LICENSE`)."
    yield f"- {FILL_IN}: operating system, CPU, memory, GPU."
    yield "\n## From outside\n"
    named = list(dict.fromkeys(line for run in solution.members for line in _outside(to_dict(run.config))))
    yield (
        "\n".join(named) if named else "Nothing: every network learned from its own random weights and the data above."
    )
    yield "\n## Data\n"
    tables = about.get("origin", {}).get("tables", {})
    yield "The prepared tables that these networks learned from have these digests, as in every fold's origin.json:"
    yield ", ".join(f"{key} `{value}`" for key, value in tables.items() if value) + "."
    yield "\n## Licence\n"
    yield f"{license_id or FILL_IN + ': the licence that the rules ask for'} (code and weights of this solution)."


def _weight(weights: Sequence, i: int) -> str:
    if not weights:
        return "equal"
    return f"{weights[i]:.3f}" if isinstance(weights[i], float) else "one a class"


def _minutes(run: runs.Run) -> float:
    """What the epochs of all folds took, by their logs."""
    logs = [read_table(fold.folder / "log.csv") for fold in run.folds if (fold.folder / "log.csv").is_file()]
    return sum(float(log[key].sum()) for log in logs for key in ("seconds", "validation_seconds") if key in log) / 60


def _outside(config: dict, key: str = "") -> Iterator[str]:
    """Settings that name a file or a network which was not made from the competition's data by this config."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _outside(value, f"{key}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from _outside(one, f"{key}{name}.")
        elif name in FROM_OUTSIDE or name.endswith(("_path", "_paths")):  # audiomentations says sounds_path, ir_path
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and one not in NOTHING:
                    yield f"- `{key}{name}`: `{one}`; {FILL_IN}: where it is from, its licence, how it was made"

"""Trained runs -> the folder that organisers ask winners for: code, networks, and all that makes them again.

    README.md                what answers, what it scores, what it was made with, what came from outside
    entry_points.md          every command, from the download to the submission
    SETTINGS.json            where data, runs and submissions are
    directory_structure.txt, requirements.txt, src/, configs/, folds/, LICENSE
    runs/<task>/<name>/fold<k>/    configs, weights, figures, OOF; beside them the blend, where there is one
    SHA256SUMS               of every file, as sha256sum writes them

Commands in it are run in that folder. Recordings and tables of the competition are not in it: rules seldom allow that.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from earshot import runs
from earshot.competitions import get_competition
from earshot.data.dataset import read_dataset
from earshot.ensemble.blends import Ensemble, read_ensemble
from earshot.files import as_json, file_digest, walk, whole_folder, write_text
from earshot.kaggle.checks import check_folder
from earshot.kaggle.model_card import scores_of
from earshot.messages import REPOSITORY, few, pasted
from earshot.records import to_dict
from earshot.stored import read_json, read_text
from earshot.tables import read_table
from earshot.tasks import task_of

SUMS = "SHA256SUMS"
FILL_IN = "FILL IN"
CODE = ("src", "requirements", "requirements.txt", "pyproject.toml", "Makefile", "LICENSE")
OF_FOLD = ("best.safetensors", "config.yaml", "run.json", "origin.json", "classes.csv", "log.csv", "oof.npz",
           "unreadable.csv")  # fmt: skip
FROM_OUTSIDE = ("weights", "run", "file", "folder", "pseudo", "unlabelled", "soft_targets", "source")
NOTHING = ("", "auto", "none", "left_out")  # values of these keys that name no file


@dataclass(frozen=True)
class Solution:
    """The runs that answer together; blend: the JSON of ensemble.py that joins them, where there is one."""

    members: tuple[runs.Run, ...]
    blend: Path | None = None
    ensemble: Ensemble | None = None

    @property
    def competition(self) -> str:
        return self.members[0].config.data.competition


def find_solution(folders: Sequence[Path], blend: Path | None) -> Solution:
    """The runs of these folders, or those of a blend, which must all be of one competition."""
    ensemble = read_ensemble(blend) if blend else None
    members = tuple(runs.load_run(folder) for folder in (ensemble.runs if ensemble else folders))
    if len(members) > 1 and not ensemble:
        raise ValueError("several runs answer together by a blend: make one with src/ensemble.py, and give its --blend")
    names = sorted({run.config.data.competition for run in members})
    if len(names) > 1:
        raise ValueError(f"a solution is of one competition, and these runs are of {few(names)}")
    return Solution(members, blend, ensemble)


def build_solution(solution: Solution, out: Path, license_id: str = "") -> list[str]:
    """Write the folder; returns what is left to fill in or to look at. A secret or a path of this machine in any file
    is an error, and leaves nothing."""
    if out.exists():
        raise ValueError(f"{out} exists: name another --out, or remove it")
    with whole_folder(out) as partial:
        _copy_code(partial, ["configs"])
        for run in solution.members:
            _copy_run(partial, run)
        _copy_blend(partial, solution)
        commands = list(_commands(solution))
        write_text(partial / "SETTINGS.json", as_json(_settings(solution), indent=1) + "\n")
        write_text(partial / "entry_points.md", "\n".join(commands) + "\n")
        readme = "\n".join(_readme(solution, license_id)) + "\n"
        write_text(partial / "README.md", readme)
        check_folder(partial, out.name)
        _copy_code(partial, CODE)  # whose examples name folders that are nobody's
        names = [*_files(partial), "directory_structure.txt", SUMS]
        write_text(partial / "directory_structure.txt", "\n".join(sorted(names)) + "\n")
        _write_sums(partial)
    return [line for text in (readme, *commands) for line in text.splitlines() if FILL_IN in line]


def changed_files(folder: Path) -> list[str]:
    """Which of a solution's files are lost or changed, a line each; more may lie there, as commands make some."""
    listed = {}
    for line in read_text(folder / SUMS, "list of files", "src/solution.py writes it").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    lost = [name for name in sorted(listed) if not (folder / name).is_file()]
    kept = [name for name in sorted(listed) if name not in lost]
    changed = [f"{name} is changed" for name in kept if file_digest(folder / name) != listed[name]]
    return [f"{name} is lost" for name in lost] + changed


# ---- what is copied


def _files(folder: Path) -> Iterator[str]:
    """Every file below a folder, by its path in it; what Python compiled aside."""
    for where, names in walk(folder):
        if where.name != "__pycache__":
            yield from ((where / name).relative_to(folder).as_posix() for name in names)


def _copy(source: Path, target: Path):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_code(folder: Path, names: Iterable[str]):
    for name in names:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
        elif source.is_file():
            _copy(source, folder / name)


def _copy_run(folder: Path, run: runs.Run):
    """A run's folds, without checkpoints to go on from; paths of its config as they are in the solution."""
    target = folder / _place(run)
    if (run.folder / "oof.npz").is_file():
        _copy(run.folder / "oof.npz", target / "oof.npz")
    for fold in run.folds:
        for name in OF_FOLD:
            if (fold.folder / name).is_file():
                _copy(fold.folder / name, target / fold.folder.name / name)
        config = to_dict(fold.config)
        config["data"] |= {"root": _data(run), "folds": _folds(run), "cache_folder": ""}
        classes = Path(config["data"]["classes"]).name
        config["data"]["classes"] = f"{_data(run)}/{classes}" if classes else ""
        config["track"] = ""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text(target / fold.folder.name / "config.yaml", text)
    _copy(Path(run.config.data.folds), folder / _folds(run))


def _copy_blend(folder: Path, solution: Solution):
    """The blend's JSON, of which runs are named as they lie in the solution, and the post-processing that it chose."""
    if solution.blend is None:
        return
    about = read_json(solution.blend, "ensemble", "src/ensemble.py writes it")
    places = {str(run.folder): _place(run).as_posix() for run in solution.members}
    about["runs"] = [places.get(name, name) for name in about["runs"]]
    about.get("best_member", {}).pop("run", None)
    about.pop("command", None)
    target = folder / "runs" / "ensembles" / solution.blend.name
    write_text(target, as_json(about, indent=1))
    post = solution.blend.with_name(f"{solution.blend.stem}_post.json")
    if post.is_file():
        _copy(post, target.with_name(post.name))


def _write_sums(folder: Path):
    names = sorted(_files(folder))
    write_text(folder / SUMS, "".join(f"{file_digest(folder / name)}  {name}\n" for name in names))


def _place(run: runs.Run) -> Path:
    return Path("runs", run.folder.resolve().parent.name, run.folder.resolve().name)


def _data(run: runs.Run) -> str:
    """Where the prepared data lie in the solution."""
    return f"data/{Path(run.config.data.root).resolve().name}"


def _folds(run: runs.Run) -> str:
    return f"folds/{Path(run.config.data.folds).name}"


# ---- what is said


def _settings(solution: Solution) -> dict:
    data = _data(solution.members[0])
    prepared = {"TRAIN_DATA_CLEAN_PATH": data, "TEST_DATA_CLEAN_PATH": data}
    return {"RAW_DATA_DIR": "download"} | prepared | {"MODEL_DIR": "runs", "SUBMISSION_DIR": "submissions"}


def _commands(solution: Solution) -> Iterator[str]:
    """entry_points.md, line by line: from the download, everything trained anew, and with the weights that are here."""
    first, name = solution.members[0], solution.competition
    data, source = _data(first), _settings(solution)["RAW_DATA_DIR"]
    yield "# Entry points\n"
    yield "Run in this folder, with a Python of requirements.txt. `SETTINGS.json` says which folder is which.\n"
    yield f"Prepare the data; `{source}` is the unpacked download:\n"
    yield f"    {_prepare_command(first, source)}\n"
    yield "Train every network anew, in a folder beside the one that is here (the fold tables are in `folds/`):\n"
    for run in solution.members:
        config = (_place(run) / run.folds[0].folder.name / "config.yaml").as_posix()
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
        yield f"    {_command('predict', '--run', _place(run).as_posix(), '--clips', test, *more)}"
    predictions = (_place(first) / "test.npz").as_posix()
    if solution.blend:
        predictions = f"submissions/{solution.blend.stem}.npz"
        members = [_place(run).as_posix() for run in solution.members]
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
    if solution.blend and solution.ensemble.post_processing:
        words += ["--post", f"runs/ensembles/{solution.blend.name}"]
    yield f"    {_command('submit', *words, '--out', f'submissions/{name}.csv')}"


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
    return _command("prepare", words[0], *from_where, "--out", _data(run), *more)


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


def _readme(solution: Solution, license_id: str) -> Iterator[str]:
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
        elif name in FROM_OUTSIDE and isinstance(value, str) and value not in NOTHING:
            yield f"- `{key}{name}`: `{value}`; {FILL_IN}: where it is from, its licence, how it was made"

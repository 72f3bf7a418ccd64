"""Trained runs -> the folder that organisers ask winners for: code, networks, and all that makes them again.

    README.md                what answers, what it scores, what it was made with, what came from outside
    entry_points.md          every command, from the download to the submission
    SETTINGS.json            where data, runs and submissions are
    directory_structure.txt, requirements.txt, src/, configs/, folds/, LICENSE
    runs/<task>/<name>/fold<k>/    configs, weights, figures, OOF; beside them the blend, where there is one
    submissions/             the file that was handed in, with its post-processing, where it is named
    SHA256SUMS               of every file, as sha256sum writes them

Commands in it are run in that folder. Recordings and tables of the competition are not in it: rules seldom allow that.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from earshot import runs
from earshot.files import as_json, file_digest, walk, whole_folder, write_text
from earshot.kaggle.checks import check_folder
from earshot.kaggle.solution import Solution, data_of, folds_of, place_of, post_of_submission
from earshot.kaggle.solution_texts import FILL_IN, commands, readme, settings
from earshot.messages import REPOSITORY
from earshot.records import to_dict
from earshot.stored import read_json, read_text

SUMS = "SHA256SUMS"
CODE = ("src", "requirements", "requirements.txt", "pyproject.toml", "Makefile", "LICENSE")
OF_FOLD = ("best.safetensors", "config.yaml", "run.json", "origin.json", "classes.csv", "log.csv", "oof.npz",
           "unreadable.csv")  # fmt: skip


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
        _copy_submission(partial, solution)
        entries = list(commands(solution))
        write_text(partial / "SETTINGS.json", as_json(settings(solution), indent=1) + "\n")
        write_text(partial / "entry_points.md", "\n".join(entries) + "\n")
        about = "\n".join(readme(solution, license_id)) + "\n"
        write_text(partial / "README.md", about)
        check_folder(partial, out.name)
        _copy_code(partial, CODE)
        check_folder(partial, out.name, paths=False)  # examples in the code name folders that are nobody's
        names = [*_files(partial), "directory_structure.txt", SUMS]
        write_text(partial / "directory_structure.txt", "\n".join(sorted(names)) + "\n")
        _write_sums(partial)
    return [line for text in (about, *entries) for line in text.splitlines() if FILL_IN in line]


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
    target = folder / place_of(run)
    if (run.folder / "oof.npz").is_file():
        _copy(run.folder / "oof.npz", target / "oof.npz")
    for fold in run.folds:
        for name in OF_FOLD:
            if (fold.folder / name).is_file():
                _copy(fold.folder / name, target / fold.folder.name / name)
        config = to_dict(fold.config)
        config["data"] |= {"root": data_of(run), "folds": folds_of(run), "cache_folder": ""}
        classes = Path(config["data"]["classes"]).name
        config["data"]["classes"] = f"{data_of(run)}/{classes}" if classes else ""
        config["track"] = ""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text(target / fold.folder.name / "config.yaml", text)
    _copy(Path(run.config.data.folds), folder / folds_of(run))


def _copy_blend(folder: Path, solution: Solution):
    """The blend's JSON, of which runs are named as they lie in the solution, and the post-processing that it chose."""
    if solution.blend is None:
        return
    about = read_json(solution.blend, "ensemble", "src/ensemble.py writes it")
    places = {str(run.folder): place_of(run).as_posix() for run in solution.members}
    about["runs"] = [places.get(name, name) for name in about["runs"]]
    about.get("best_member", {}).pop("run", None)
    about.pop("command", None)
    target = folder / "runs" / "ensembles" / solution.blend.name
    write_text(target, as_json(about, indent=1))
    post = solution.blend.with_name(f"{solution.blend.stem}_post.json")
    if post.is_file():
        _copy(post, target.with_name(post.name))


def _copy_submission(folder: Path, solution: Solution):
    """The file that was handed in and the post-processing that made it."""
    if solution.submission is not None:
        _copy(solution.submission, folder / "submissions" / solution.submission.name)
        text = yaml.safe_dump(json.loads(solution.logged["post"]), sort_keys=False, allow_unicode=True)
        write_text(folder / post_of_submission(solution), text)


def _write_sums(folder: Path):
    names = sorted(_files(folder))
    write_text(folder / SUMS, "".join(f"{file_digest(folder / name)}  {name}\n" for name in names))

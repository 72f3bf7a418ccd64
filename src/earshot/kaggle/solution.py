"""The runs that answer a competition together, what was handed in of them, and where each thing lies in a solution."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from earshot import runs
from earshot.ensemble.blends import Ensemble, read_ensemble
from earshot.files import file_digest
from earshot.messages import few
from earshot.tables import read_table


@dataclass(frozen=True)
class Solution:
    """The runs that answer together; blend: the JSON of ensemble.py that joins them, where there is one; submission:
    the file that was handed in, and its line in the log of submissions."""

    members: tuple[runs.Run, ...]
    blend: Path | None = None
    ensemble: Ensemble | None = None
    submission: Path | None = None
    logged: Mapping[str, str] = field(default_factory=dict)

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
    places = [place_of(run) for run in members]
    if len({*places}) < len(places):
        twice = few(run.folder for run in members if places.count(place_of(run)) > 1)
        raise ValueError(f"{twice} would be one folder of the solution: rename one, and blend again")
    return Solution(members, blend, ensemble)


def with_submission(solution: Solution, submission: Path, log: Path) -> Solution:
    """The same with the file that was handed in, which the log must know by its digest, and as of these runs."""
    digest, told = file_digest(submission), "src/submit.py writes a line for each file that it makes"
    table = read_table(log, ("sha256", "predictions", "runs", "post"), all_text=True)
    rows = table[table.sha256 == digest].to_dict("records")
    if not rows:
        raise ValueError(f"{log} knows no file with the content of {submission}: {told}; --log names another log")
    made_of = {Path(name).resolve() for name in shlex.split(rows[-1]["runs"])}
    if made_of != {run.folder.resolve() for run in solution.members}:
        raise ValueError(
            f"{submission} was made of {rows[-1]['runs']}, not of {few(r.folder for r in solution.members)}"
        )
    made_by = Path(rows[-1]["predictions"]).resolve()
    if solution.blend and made_by != solution.blend.with_suffix(".npz").resolve():
        raise ValueError(f"{submission} was made of {rows[-1]['predictions']}, not of the blend {solution.blend}")
    if not solution.blend and made_by.parent != solution.members[0].folder.resolve():
        blend = Path(rows[-1]["predictions"]).with_suffix(".json")
        raise ValueError(f"{submission} was made of {rows[-1]['predictions']}: give --blend {blend} in place of --run")
    return replace(solution, submission=submission, logged=rows[-1])


def place_of(run: runs.Run) -> Path:
    """Where a run lies in the solution."""
    return Path("runs", run.folder.resolve().parent.name, run.folder.resolve().name)


def data_of(run: runs.Run) -> str:
    """Where the prepared data lie in the solution."""
    return f"data/{Path(run.config.data.root).resolve().name}"


def folds_of(run: runs.Run) -> str:
    """Where a run's fold table lies in the solution."""
    return f"folds/{Path(run.config.data.folds).name}"


def post_of_submission(solution: Solution) -> str:
    """Where the post-processing of the submission lies in the solution; '' where nobody says which it was."""
    if solution.submission is not None:
        return f"submissions/{solution.submission.stem}_post.yaml"
    return f"runs/ensembles/{solution.blend.name}" if solution.blend and solution.ensemble.post_processing else ""

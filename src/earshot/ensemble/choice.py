"""The JSON in which chosen post-processing travels: from ensemble.py and submit.py to submit.py, bundle.py, a kernel.

post          fields of events.PostProcess: what to use
start         the same before the search
competition   whose score and ranges it was chosen by
score         name of that score
oof           the file or runs it was chosen on, its clips, folds, and how they were parted for the nested search
nested        score of the held-out folds: before, after (lists by fold), and their means
fitted        score of all clips at `post`; they chose it, so that this figure flatters
steps         what was tried, in order: name, tried, value, gains by fold, mean, deviation, kept
untried       steps that the competition has and this OOF cannot judge, and why
commit        of the sources
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earshot import files
from earshot.events import PostProcess, build_post, load_post
from earshot.messages import few
from earshot.stored import read_json

if TYPE_CHECKING:
    from earshot.competitions.competition import Competition
    from earshot.ensemble.post_processing import PostChoice, Step

NEEDED = ("post", "competition", "score")
KEPT_IN = ("submissions", "runs/ensembles")  # where our commands write choices


def as_dict(choice: PostChoice, competition: str, of: Sequence[str | Path], commit: str) -> dict:
    """What the JSON holds. of: the files or run folders whose OOF chose; commit: of the sources."""
    nested = {"before": _numbers(choice.before), "after": _numbers(choice.after)}
    means = {f"mean_{name}": float(np.mean(values)) if values else None for name, values in list(nested.items())}
    return {
        "post": fields_of(choice.post), "start": fields_of(choice.start), "competition": competition,
        "score": choice.score_name,
        "oof": {"of": [str(o) for o in of], "clips": choice.n_clips, "folds": choice.folds, "parts": choice.parts},
        "nested": nested | means, "fitted": float(choice.fitted), "steps": [_step(step) for step in choice.steps],
        "untried": dict(choice.untried), "commit": commit,
    }  # fmt: skip


def fields_of(post: PostProcess) -> dict:
    """Fields of PostProcess as JSON has them."""
    odds = {name: {k: dict(v) for k, v in getattr(post, name).items()} for name in ("site_odds", "hour_odds")}
    return asdict(replace(post, class_thresholds=dict(post.class_thresholds), **odds))


def _step(step: Step) -> dict:
    gains = _numbers(step.gains)
    return {
        "name": step.name, "tried": step.tried, "value": step.value, "gains": gains, "kept": step.kept,
        "mean": float(np.mean(gains)) if gains else None, "deviation": float(np.std(gains)) if gains else None,
    }  # fmt: skip


def _numbers(values: np.ndarray) -> list[float]:
    return [float(v) for v in values]


def write_choice(path: str | Path, about: Mapping):
    """Write what `as_dict` gave."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, files.as_json(about, indent=1) + "\n")


def read_post(path: str | Path, competition: str = "") -> PostProcess:
    """Post-processing from a file: YAML of its fields, or the JSON of a choice (or of an ensemble that holds one).

    A choice made for another competition than `competition` is an error.
    """
    path = Path(path)
    if path.suffix != ".json":
        return load_post(path)
    about = read_json(path, "post-processing", "submit.py --tune-on and ensemble.py --tune write it")
    if isinstance(about.get("post_processing"), dict):
        about = about["post_processing"]  # of an ensemble
    return post_of(about, path, competition)


def post_of(about, where: str | Path, competition: str = "") -> PostProcess:
    """What `as_dict` gave -> its post-processing; anything else is an error that says what is missing."""
    missing = [key for key in NEEDED if not isinstance(about, Mapping) or key not in about]
    if missing or not isinstance(about["post"], Mapping):
        raise ValueError(
            f"{where} holds no choice of post-processing (no {', '.join(missing) or 'fields in post'}): "
            "submit.py --tune-on and ensemble.py --tune write such files; plain fields belong in a .yaml"
        )
    if competition and about["competition"] != competition:
        raise ValueError(f"{where} was chosen for {about['competition']}, not for {competition}")
    return build_post(about["post"], where)


def post_for(path: str | Path | None, competition: Competition) -> PostProcess | None:
    """`read_post` for the rows of a competition; None without a path.

    Steps that make no difference to its rows would be lost silently: they are an error.
    """
    if path is None:
        return None
    post, ranges = read_post(path, competition.name), competition.post
    changed = [f.name for f in fields(PostProcess) if getattr(post, f.name) != getattr(PostProcess(), f.name)]
    of_rows = {name for name in changed if name.startswith("row_") or name in ("site_odds", "hour_odds")}
    if ranges is None or ranges.coarse_from:
        kind, lost = "scores as they are", [name for name in changed if name != "coarse_from"]
    elif ranges.row_pool:
        kind = "probabilities"
        lost = [name for name in changed if name not in of_rows and name != "median_filter_seconds"]
    else:
        kind, lost = "made of events", [name for name in changed if name in of_rows or name == "coarse_from"]
    if lost:
        rows = f"the rows of {competition.name} are {kind}"
        raise ValueError(f"{path} sets {', '.join(lost)}, and {rows}: leave that out")
    return post


def say_used(competition: str, has_steps: bool, used: str | Path | None, root: str | Path = "") -> str:
    """Which post-processing is used, in a line, and where it is the default the choices for it that lie unused.

    has_steps: the competition has any; used: the file that it is from, None for the default; root: where the folders
    of KEPT_IN are looked for.
    """
    if used:
        return f"post-processing of {used}"
    if not has_steps:
        return "no post-processing: the rows are scores"
    lying = [path for name in KEPT_IN for path in sorted((Path(root) / name).glob("*_post.json"))]
    unused = [str(path) for path in lying if _chosen_for(path) == competition]
    said = "post-processing: the competition's default"
    return said + (f"; chosen before and not used: {few(unused)} (--post FILE)" if unused else "")


def _chosen_for(path: Path) -> str:
    """The competition that a choice is for; '' of a file that is none, which nobody asked for."""
    try:
        return str(read_json(path, "post-processing").get("competition", ""))
    except ValueError:
        return ""

"""A schedule of rounds: who teaches first, which recordings have no labels, how they are chosen, when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earshot import runs
from earshot.config import load_config
from earshot.data.pseudo import FILE, read_manifest
from earshot.files import check_name
from earshot.messages import check_choice
from earshot.records import build, build_from, to_dict
from earshot.rounds.choosing import Choice
from earshot.stored import read_yaml

MOST_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What trains in a round: a config and settings on top of it; of the teacher also runs that are there."""

    config: str = ""
    set: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Honest:
    """What decides: a score of clips that did not train, and the least gain."""

    split: str = "oof"  # oof: the held-out clips, each by its fold | validation: validation.csv, by the folds' mean
    score: str = ""  # default: the task's; on validation the competition's
    where: dict[str, str] = field(
        default_factory=dict
    )  # of the OOF only clips with these values of columns: {kind: soundscape}
    min_gain: float = 0.0  # a round that gains no more than so much over the best one before it is the last
    patience: int = 1  # so many rounds without a gain end the schedule

    def __post_init__(self):
        check_choice("split", self.split, ("oof", "validation"))
        if self.split == "validation" and self.where:
            raise ValueError("where chooses among the held-out clips: leave it out, or set split to oof")
        if not 0 <= self.min_gain <= 1 or self.patience < 1:
            raise ValueError(f"min_gain must lie in 0 to 1 and patience be at least 1, got {self.min_gain:g}, "
                             f"{self.patience}")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A file of configs/rounds."""

    teacher: Trained
    student: Trained
    unlabelled: str  # a table (clip_id, path) or a folder
    rounds: int = 2
    out: str = ""  # folder of the pseudo-labels; default <data.root>/rounds/<name>
    audio_root: str = ""
    site_column: str = ""
    skip_labelled: bool = False
    folds: tuple[int, ...] = ()  # default: all
    teachers: str = "last"  # who labels a round: the last one's student | all: every run so far
    labels: dict[str, Any] = field(default_factory=dict)  # as rounds.choosing.Choice has them
    each: tuple[dict[str, Any], ...] = ()  # of the first, second, ... round: other `labels`; the last one goes on
    honest: Honest = field(default_factory=Honest)

    def __post_init__(self):
        check_choice("teachers", self.teachers, ("last", "all"))
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise ValueError(f"rounds must be 1 to {MOST_ROUNDS}, got {self.rounds}")
        if bool(self.teacher.config) == bool(self.teacher.runs):
            raise ValueError("teacher needs a config to train, or runs that are there: one of the two")
        if not self.student.config or self.student.runs:
            raise ValueError("student needs a config, and no runs: it is trained anew in every round")
        if any(self.choice(number).frame_events for number in range(1, self.rounds + 1)):
            raise ValueError(
                "labels.frame_events says what frames are, and a schedule labels whole windows: leave it out"
            )
        for text in (*self.teacher.set, *self.student.set):
            if text.startswith("data.pseudo="):
                raise ValueError(f"'{text}': the schedule itself says which pseudo-labels train")

    def choice(self, number: int) -> Choice:
        """What is asked of the windows of round `number`, from 1 on."""
        own = self.each[min(number, len(self.each)) - 1] if self.each else {}
        return build(Choice, self.labels | own, "labels")


def read_plan(path: Path) -> Plan:
    """YAML file -> checked plan; wrong keys and values name the file."""
    return build_from(Plan, read_yaml(path, "schedule"), path)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training of a schedule: round 0 is the teacher."""

    number: int
    run: Path
    config: str
    settings: tuple[str, ...]
    labels: Path | None = None  # pseudo-labels that it trains on
    teachers: tuple[Path, ...] = ()  # who makes them


def steps_of(plan: Plan, name: str, settings: tuple[str, ...] = ()) -> list[Step]:
    """The trainings of a plan, in order. settings: of every run, after the plan's own."""
    check_name(name, "the schedule's name")
    found, so_far = [], tuple(Path(run) for run in plan.teacher.runs)
    if plan.teacher.config:
        own = (*plan.teacher.set, *settings)
        first = runs.run_folder(load_config(plan.teacher.config, own), None, f"{name}-round0")
        found.append(Step(number=0, run=first, config=plan.teacher.config, settings=own))
        so_far = (first,)
    own = (*plan.student.set, *settings)
    config = load_config(plan.student.config, own)
    out = Path(plan.out or Path(config.data.root) / "rounds" / name)
    last = so_far
    for number in range(1, plan.rounds + 1):
        run, labels = runs.run_folder(config, None, f"{name}-round{number}"), out / f"round{number}"
        teachers = so_far if plan.teachers == "all" else last
        found.append(
            Step(number=number, run=run, config=plan.student.config, settings=own, labels=labels, teachers=teachers)
        )
        so_far, last = (*so_far, run), (run,)
    check_folds(plan, found)
    for step in (step for step in found if step.labels):
        load_config(step.config, (*step.settings, f"data.pseudo={step.labels}"))  # an error before the teacher trains
    return found


def check_folds(plan: Plan, steps: list[Step]):
    """Raise where teacher and student name different fold tables: known before hours of training."""
    student = load_config(steps[-1].config, steps[-1].settings).data.folds
    named = [(str(run), runs.load_run(run).config.data.folds) for run in plan.teacher.runs]
    if plan.teacher.config:
        named.append((plan.teacher.config, load_config(steps[0].config, steps[0].settings).data.folds))
    for teacher, folds in named:
        if Path(folds).resolve() != Path(student).resolve():
            raise ValueError(
                f"the folds of teacher {teacher} are those of {folds} and those of the student those of {student}: a "
                "fold's teachers must hold out what it holds out. Give both the same data.folds"
            )


def are_made(step: Step, choice: Choice) -> bool:
    """Whether a round's pseudo-labels are there, made by these teachers as they are now and chosen so; made by others
    is an error."""
    if not (step.labels / FILE).is_file():
        return False
    manifest = read_manifest(step.labels)
    now = {
        str(fold.fold): [] for run in step.teachers for fold in runs.load_run(run).folds
        if str(fold.fold) in manifest.teachers
    }  # fmt: skip
    for run in step.teachers:
        for origin in runs.load_run(run).origins or ():
            now.get(str(origin.fold), []).append(origin)
    settings = to_dict(Choice()) | manifest.settings  # made before there was one of the settings: by its default
    if now != manifest.teachers or settings != to_dict(choice):
        what = "chosen by other settings" if now == manifest.teachers else "made by other teachers, or other weights"
        raise ValueError(
            f"{step.labels} was {what} than this schedule's round {step.number}: remove the folder (and the runs that "
            "were trained on it), or give the schedule another --name"
        )
    return True

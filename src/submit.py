"""Predictions of the test clips -> a checked submission file, and one line in submissions/log.csv.

python src/submit.py --competition synth --predictions runs/sed/synth_cnn/test.npz --test data/synth/test.csv \\
    --out submissions/synth.csv --post configs/post/synth.yaml
python src/submit.py --check submissions/synth.csv --competition synth --test data/synth/test.csv \\
    --truth data/synth/truth.csv

The class names are those of classes.csv beside the test table (or of --classes). Nothing gets its name before it was
written, read back and found valid. Where a challenge wants its own files (DCASE), the folder <out>_files holds them,
named by --label, and a meta.yaml whose figures are those of the trained runs. --check takes any number of files and
folders.

--post takes a YAML of post-processing options or the JSON of a choice; without it the competition's own start is used.
--tune-on OOF.npz --clips data/synth/clips.csv chooses post-processing on the OOF by the competition's score, as
src/ensemble.py --tune does, and writes the choice to <out>_post.json. True events are read from events.csv beside
--clips. --truth FILE (data/<name>/truth.csv, where the truth is known) prints the official scores.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from earshot.script import run_script

import pandas as pd

from earshot import runs
from earshot.competitions import get_competition
from earshot.competitions.birdcall import NOCALL
from earshot.competitions.checks import form_problems, refuse
from earshot.competitions.competition import Competition
from earshot.competitions.dcase_meta import ENDING, FILL_IN, label_of, meta_problems
from earshot.competitions.dcase_parts import check_parts, part_of, with_other_parts
from earshot.competitions.tables import write_checked
from earshot.competitions.truths import checked_truth
from earshot.data.answers import read_truth
from earshot.data.dataset import read_dataset
from earshot.data.labels import read_classes, read_clips
from earshot.ensemble.choice import as_dict, post_for, say_used, write_choice
from earshot.ensemble.oof import score_table
from earshot.ensemble.origins import check_tuned_on, check_where_it_lies
from earshot.ensemble.post_processing import choose_post
from earshot.ensemble.system import meta_of
from earshot.events import PostProcess
from earshot.files import check_ending, check_writable, file_digest, scratch_folder, whole_folder, write_rows
from earshot.messages import Parser, command_line, few, pasted, plural
from earshot.prediction.predictions import Predictions
from earshot.processes.lock import in_turn
from earshot.stored import read_json, read_text
from earshot.tables import read_table

NAMES = ("cv_of", "score_of")  # which scores these are; logs of earlier versions do not say so
LOG_COLUMNS = (
    "time", "file", "sha256", "competition", "rows", "predictions", "runs", "cv", "cv_of", "post", "score", "score_of",
)  # fmt: skip


def main():
    options = parse_args()
    if not options.check:
        check_ending(options.out, ".csv", ".tsv")
        check_writable(options.out)
        check_writable(options.log, "name another file by --log")
        read_log(options.log)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    competition = get_competition(options.competition)
    test = read_table(options.test)
    check_competition(options)
    classes = find_classes(options)
    found = Predictions.load(options.predictions) if options.predictions else None
    if options.check:
        check_files(competition, options, test, found, classes)
        return
    challenge = competition.challenge
    label = label_of(challenge, options.label)
    part = part_of(challenge, options.part)
    folder = options.out.with_name(label if part else f"{options.out.stem}_files") if challenge else None
    check_free(options, None if part else folder)
    check_where_it_lies(found, options.predictions)
    check_heard(found, competition, test, options)
    check_classes(found, classes, options)
    post, choice = find_post(competition, options, found, test)
    submission = competition.rows(found, test, post)
    write_submission(submission, options, lambda table: competition.validate(table, test, classes))
    print(f"-> {options.out}: {plural(len(submission), 'rows')}, valid for {options.competition}")
    if competition.post and not choice:
        print(say_used(competition.name, True, options.post))
    if choice:
        path = options.out.with_name(f"{options.out.stem}_post.json")
        write_choice(path, choice)
        print(f"-> {path}: the post-processing that was chosen")
    if folder is not None:
        text, said = meta_of(challenge, label, options.predictions)
        texts = challenge.files(submission, label, **part) | {f"{label}{ENDING}": text}
        texts |= challenge.score_files(found, test, label) if challenge.score_files else {}
        texts = with_other_parts(texts, folder, challenge, label, **part) if part else texts
        write_files(competition, texts, test, classes, folder, options.force)
        print(f"{said}-> {folder}/: the challenge's own files; {label}{ENDING} says {FILL_IN} where only you know")
    scores = print_scores(competition, read_table(options.out), test, found, classes, options.truth)
    log_submission(options, submission, post, scores)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--competition", required=True, help="a name of competitions.COMPETITIONS")
    parser.add_argument("--predictions", type=Path, help="npz of the test clips (predict.py, ensemble.py)")
    parser.add_argument("--test", type=Path, required=True, help="the competition's test table")
    parser.add_argument("--out", type=Path, help="the submission, such as submissions/mine.csv")
    parser.add_argument("--post", type=Path, help="post-processing: YAML, or JSON of a choice (default: its start)")
    parser.add_argument("--tune-on", type=Path, help="OOF npz on which post-processing is chosen, from --post on")
    parser.add_argument("--clips", type=Path, help="clips.csv with the labels for --tune-on")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="with --tune-on: only these, such as threshold")
    parser.add_argument("--always", action="store_true", help="with --tune-on: keep what was chosen, gain or not")
    parser.add_argument("--truth", type=Path, help="print the official scores against this truth")
    parser.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="only validate these files or folders")
    parser.add_argument("--label", help="of a DCASE system: <last name>_<institute>_<task>_<1 to 4>")
    parser.add_argument("--part", help="which output of a system with several this is, such as split_25")
    parser.add_argument("--classes", type=Path, help="class names (default: classes.csv beside --test)")
    parser.add_argument("--log", type=Path, default=Path("submissions/log.csv"))
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    options = parser.parse_args()
    if not options.check and not (options.predictions and options.out):
        parser.error("a submission needs --predictions and --out")
    if options.label and options.check:
        parser.error("--label names the files of a submission; of files that are there it is in their names")
    if (options.steps or options.always) and not options.tune_on:
        parser.error("--steps and --always say how --tune-on searches: add --tune-on")
    if options.tune_on and not options.clips:
        parser.error("--tune-on needs --clips, the table with the labels of the OOF clips")
    return options


def check_competition(options: argparse.Namespace):
    """Refuse a test table that was prepared for another competition, where the folder says for which."""
    if (options.test.parent / "dataset.json").is_file():
        prepared = read_dataset(options.test.parent).get("competition")
        if prepared and prepared != options.competition:
            raise ValueError(
                f"{options.test} was prepared for the competition {prepared}, not for {options.competition}: say "
                f"--competition {prepared}, or give the test table of {options.competition}"
            )


def check_heard(found: Predictions, competition: Competition, test: pd.DataFrame, options: argparse.Namespace):
    """Refuse predictions that lack recordings of the test (an OOF, another data set, a part of it)."""
    rows_of = options.test.stem.removesuffix("_rows")  # validation_rows.csv are rows of validation.csv
    table = options.test.parent / (f"{rows_of}.csv" if rows_of != options.test.stem else "test_clips.csv")
    wanted = ""
    if table.is_file():
        asked = read_clips(table).clip_id
        wanted = f"; its clips are predicted by {command_line('predict', '--run', 'RUN', '--clips', table)}"
    elif competition.hidden and not competition.hidden.sample:
        table, asked = options.test, competition.hidden.read(test)
    else:
        return
    asked = asked.astype(str).drop_duplicates()
    lost = asked[~asked.isin(found.clip_ids.tolist())]
    if len(lost) == len(asked) and len(asked):
        raise ValueError(
            f"{options.predictions} predicts none of the {len(asked)} recordings of {table}: it has "
            f"{few(found.clip_ids)}; is it an OOF, of another data set, or of a folder, whose files have other names?"
            f"{wanted}"
        )
    if len(lost):
        raise ValueError(
            f"{options.predictions} lacks {len(lost)} of the {len(asked)} recordings of {table}: "
            f"{few(lost)}; predict all of them (src/predict.py lists those that it cannot read as well)"
        )


def check_classes(found: Predictions, classes: list[str], options: argparse.Namespace):
    """Refuse predictions of classes that the competition does not have: they are of another data set."""
    unknown = [c for c in found.classes if c not in {*classes, NOCALL}]
    if unknown:
        raise ValueError(
            f"{options.predictions} is of {len(unknown)} classes that are not {options.competition}'s "
            f"({few(unknown)}; "
            f"it has {few(classes)}): predict with a run of this competition, or name its classes by --classes"
        )


def find_classes(options: argparse.Namespace) -> list[str]:
    """The competition's class names: --classes, classes.csv beside the test table, or those of the predictions."""
    beside = options.test.parent / "classes.csv"
    if options.classes or beside.is_file():
        return read_classes(options.classes or beside)
    if not options.predictions:
        raise ValueError(
            f"{beside} does not exist: give the class names by --classes classes.csv or --predictions FILE"
        )
    return list(Predictions.load(options.predictions).classes)


def check_files(competition: Competition, options: argparse.Namespace, test, found, classes: list[str]):
    """Validate every file and folder of --check; problems of all of them are one error."""
    problems = check_parts(competition.challenge, options.check)
    for name, paths in submissions_of(competition, options.check).items():
        try:
            submission = read_submission(competition, paths, test)
            if submission is None:
                print(f"{name}: valid for {options.competition}")
                continue
            competition.validate(submission, test, classes)
        except ValueError as error:
            problems.append(f"{name}: {error}" if len(options.check) > 1 or options.check[0].is_dir() else str(error))
            continue
        print(f"{name}: {plural(len(submission), 'rows')}, valid for {options.competition}")
        print_scores(competition, submission, test, found, classes, options.truth)
    if problems:
        raise ValueError("\n".join(problems))


def submissions_of(competition: Competition, given: list[Path]) -> dict[str, list[Path]]:
    """Sort the given files and folders: {what to call it: its files} of each submission, and of each meta file.

    Files of a challenge's own that are given one by one are of one system.
    """
    challenge, found = competition.challenge, {}
    own = [p for p in given if challenge and not p.is_dir() and re.fullmatch(challenge.own, p.name)]
    for path in given:
        if path.is_dir():
            if challenge is None:
                raise ValueError(f"{path} is a folder; a submission of this competition is one CSV file")
            inside = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
            whole = [p for p in inside if re.fullmatch(challenge.own, p.name)]
            rest = [p for p in inside if p not in whole]
            found |= {str(p): [p] for p in whole} if challenge.parts else {str(path): whole}
            if odd := [p.name for p in rest if not p.name.endswith(ENDING)]:
                raise ValueError(f"{path} holds {few(odd)}, which is named as no file of {challenge.task}")
            found |= {str(p): [p] for p in rest}
        elif path in own[1:] and challenge.joined:
            found[str(own[0])].append(path)
        else:
            found[str(path)] = [path]
    return found


def read_submission(competition: Competition, paths: list[Path], test: pd.DataFrame) -> pd.DataFrame | None:
    """A submission: one table, or the files of a challenge's own; None of a meta file, whose problems are an error."""
    challenge, path = competition.challenge, paths[0] if paths else None
    if challenge and path and path.name.endswith(ENDING):
        refuse(meta_problems(path, competition), "meta file")
        return None
    if challenge and (path is None or re.fullmatch(challenge.own, path.name)):
        return challenge.read_files(paths, test)
    table = read_table(path)
    refuse(form_problems(path, tabs=competition.name.startswith("dcase")))  # DCASE's own .csv have tabs
    return table


def check_free(options: argparse.Namespace, folder: Path | None):
    """Refuse an --out, or a folder of files, that is there and is not to be replaced.

    A submission that has no line in the log yet is let through: a kill may have come between the two. Unless it turns
    out to be the same it is refused then, by `write_submission`.
    """
    if options.force:
        return
    if options.out.exists() and (options.out.name, file_digest(options.out)) in logged(options.log):
        raise exists(options.out)
    if folder is not None and folder.exists() and not options.out.exists():
        raise exists(folder)


def logged(log: Path) -> set[tuple[str, str]]:
    """Name and SHA-256 of the submissions that the log lists."""
    return {(row.get("file"), row.get("sha256")) for row in read_log(log)}


def exists(path: Path) -> ValueError:
    return ValueError(f"{path} exists already; choose another --out, or --force to replace it")


def write_submission(submission: pd.DataFrame, options: argparse.Namespace, validate):
    """Write --out, checked; where it is there and not to be replaced it must be the same, byte by byte."""
    if options.force or not options.out.exists():
        write_checked(submission, options.out, validate)
        return
    with scratch_folder() as scratch:
        write_checked(submission, scratch / options.out.name, validate)
        if file_digest(scratch / options.out.name) != file_digest(options.out):
            raise exists(options.out)


def write_files(competition: Competition, texts: dict[str, str], test, classes: list[str], folder: Path, force: bool):
    """Write the challenge's own files to `folder`; they too are read back and validated before it gets its name."""
    if folder.exists() and not force:
        there = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}
        several = competition.challenge.parts and {n: t for n, t in there.items() if not n.endswith(ENDING)}
        if there != texts if not several else not several.items() <= texts.items():
            raise exists(folder)
    with whole_folder(folder, replace=True) as partial:
        for name, text in texts.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text)
        for name, own in submissions_of(competition, [partial]).items():
            if not name.endswith(ENDING):
                competition.validate(competition.challenge.read_files(own, test), test, classes)


def find_post(
    competition: Competition, options: argparse.Namespace, found: Predictions, test: pd.DataFrame
) -> tuple[PostProcess, dict | None]:
    """The post-processing to use and, where it was chosen on an OOF now, the choice as JSON has it.

    Before the search rows are made of the test once: a table that does not fit is said at once.
    """
    start = post_for(options.post, competition) or (competition.post.start if competition.post else PostProcess())
    if not options.tune_on:
        return start, None
    if competition.post is None:
        raise ValueError(f"{competition.name} has no post-processing to choose, its rows are scores: no --tune-on")
    competition.rows(found, test, start)
    oof = Predictions.load(options.tune_on)
    check_tuned_on(oof, options.tune_on, found, options.predictions)
    truth = read_truth(oof, options.clips)
    choice = choose_post(
        oof, truth, competition.oof_score, competition.post, start, options.steps, always=options.always
    )
    print(choice)
    return choice.post, as_dict(choice, competition.name, [options.tune_on], runs.git_commit())


def print_scores(
    competition: Competition, submission: pd.DataFrame, test, found: Predictions | None, classes: list[str], path
) -> dict:
    """The official scores where the truth is at hand, and those of the frames where predictions have such."""
    if path is None:
        return {}
    truth = checked_truth(read_table(path), classes, path)
    scores = competition.score(submission, truth)
    if competition.frame_score and found is not None and found.framewise_output is not None:
        try:
            scores |= competition.frame_score(found, test, truth)
        except ImportError as error:
            print(f"no scores of frames: {error}")
    print(f"official scores against {path}:\n{score_table(scores)}")
    return scores


def read_log(path: Path) -> list[dict]:
    """The lines of an earlier log; none where there is no file."""
    if not path.is_file() or not path.stat().st_size:
        return []
    remedy = "name another file by --log"
    lines = csv.DictReader(io.StringIO(read_text(path, "log", remedy), newline=""))
    if tuple(lines.fieldnames or ()) not in (LOG_COLUMNS, tuple(c for c in LOG_COLUMNS if c not in NAMES)):
        raise ValueError(f"log {path} has other columns than {', '.join(LOG_COLUMNS)}; {remedy}")
    return [dict.fromkeys(NAMES, "") | line for line in lines]


def log_submission(options, submission: pd.DataFrame, post: PostProcess, scores: dict[str, float]):
    """One line more in the log: what was submitted, from which runs, with which CV."""
    about_path = options.predictions.with_suffix(".json")
    about = read_json(about_path, "ensemble") if about_path.is_file() else {}
    watch = about.get("watch", "")
    scored = watch if watch in scores else next(iter(scores), "")  # what the CV can be held against, if there is such
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "file": options.out.name,
        "sha256": file_digest(options.out),
        "competition": options.competition,
        "rows": len(submission),
        "predictions": str(options.predictions),
        "runs": pasted(*about.get("runs", [options.predictions.parent])),
        "cv": about.get("cv", ""),
        "cv_of": watch,
        "post": json.dumps(dataclasses.asdict(post), default=str),
        "score": scores.get(scored, ""),
        "score_of": scored,
    }
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(options.log.with_name(f".{options.log.name}.lock")):  # two at once would lose a line
        write_rows(options.log, [*read_log(options.log), row], LOG_COLUMNS)


if __name__ == "__main__":
    run_script(main)

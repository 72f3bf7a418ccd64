"""Hear what a run detected, and accept, correct or reject it on a page of this machine; train on the answers.

python src/review.py --run runs/sed/synth_cnn --clips ~/recordings                    # opens http://127.0.0.1:7860
python src/review.py --run runs/sed/synth_cnn --events found/events.csv --order score # what src/detect.py found
python src/review.py --run runs/sed/synth_cnn --train-table data/synth2               # answers -> a table that trains

Answers go to RUN/decisions.csv (or --decisions FILE), a row each, on the disk before the next question comes. The
training table is the run's own data with the stretches that were heard; the last line is the command that trains.
"""

from __future__ import annotations

import argparse
import getpass
import logging
from pathlib import Path

from earshot.script import run_script

import pandas as pd

from earshot import files, runs
from earshot.ensemble.choice import read_post
from earshot.listening.confidence import from_oof
from earshot.listening.detections import COLUMNS, Asked, hear
from earshot.listening.members import BACKENDS, ears_of, with_frames
from earshot.listening.recordings import find_clips, length_of, lengths_of
from earshot.messages import Parser, check_choice, check_numbers, command_line, plural, progress_bar
from earshot.pages import review
from earshot.prediction.free_cores import allowed_cores, use_free_cores
from earshot.review.decisions import DecisionLog
from earshot.review.questions import ORDERS, checked_detections, lowered, questions_of
from earshot.review.session import Session
from earshot.review.training_table import read_base, write_training_table
from earshot.tables import read_table

SHORTEST = 3.0  # seconds of sound around a detection, at least


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_options(options)
    decisions = options.decisions or options.run / "decisions.csv"
    if not options.train_table:
        files.check_writable(decisions, "give --decisions FILE")
    run = runs.load_run(options.run)
    if options.train_table:
        write_table(run, decisions, options)
        return
    review.gradio()  # before an hour of listening: an error where it is missing
    log = DecisionLog(decisions)
    if log.torn:
        print(f"the last row of {decisions} was cut off by a crash, and is taken away: {log.torn[:80]}")
    classes, events, seconds = found_events(options, run)
    shortest = max(SHORTEST, run.config.predict.window_seconds)
    questions = questions_of(events, seconds, shortest)
    if not questions:
        raise ValueError("nothing was detected, so there is nothing to review: a lower --share finds less sure events")
    session = Session(questions, log, options.who, classes, str(options.run), options.order)
    answered = f", {session.answered_before} of them answered before" if session.answered_before else ""
    print(
        f"{len(questions)} detection{'s' * (len(questions) != 1)}{answered}; answers of {options.who} go to {decisions}"
    )
    review.serve(session, options.port, lambda url: print(f"-> {url}   (Ctrl-C ends; answers are kept)", flush=True))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run: runs/<task>/<name>")
    add("--clips", type=Path, help="a folder of recordings, or one recording, to hear now")
    add("--events", type=Path, help="events.csv that src/detect.py wrote, in place of hearing --clips")
    add("--decisions", type=Path, help="the CSV that answers are appended to (default: RUN/decisions.csv)")
    add("--who", default=_user(), help="who answers (default: the name of this account)")
    add("--order", default="uncertainty", help=f"what is asked first: {', '.join(ORDERS)} (default uncertainty)")
    add("--share", type=float, default=0.5,
        help="also ask about outputs down to this share of the run's thresholds (default 0.5)")  # fmt: skip
    add("--level", choices=("frames", "windows"), default="frames", help="windows: detections are whole windows")
    add("--post", type=Path, help="post-processing (YAML or JSON) in place of what the OOF chooses")
    add("--backend", default="torch", help=f"{', '.join(BACKENDS)}; graphs are made by src/export.py")
    add("--port", type=int, default=7860, help="of the page on 127.0.0.1 (default 7860; 0: any that is free)")
    add("--train-table", type=Path, metavar="OUT", help="write the run's data and the answers as prepared data to OUT")
    add("--train-folds", type=Path, metavar="FILE", help="its fold table (default: folds/<name of OUT>.csv)")
    add("--one-label", action="store_true", help="a stretch holds exactly one class, as the loss of the run assumes")
    return parser.parse_args()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return "somebody"


def check_options(options: argparse.Namespace):
    """Options that cannot be meant are errors before a network is loaded."""
    check_choice("--order", options.order, ORDERS)
    check_choice("--backend", options.backend, BACKENDS)
    if not 0 < options.share <= 1:
        raise ValueError(f"--share must be above 0 and at most 1, got {options.share}")
    check_numbers(options, "port", high=65535)
    given = [name for name in ("clips", "events", "train_table") if getattr(options, name)]
    if len(given) != 1:
        raise ValueError(
            "give --clips FOLDER (recordings to hear), --events FILE (what src/detect.py found), or --train-table OUT "
            f"(answers to a training table): one of them, got {len(given)}"
        )


def found_events(options: argparse.Namespace, run: runs.Run) -> tuple[list[str], pd.DataFrame, dict[str, float]]:
    """Classes, detections, and the length in seconds of each recording by its path."""
    classes = list(run.folds[0].about["classes"])
    if options.events:
        table = checked_detections(read_table(options.events, COLUMNS), options.events)
        if gone := [p for p in table.path.unique() if not Path(p).is_file()]:
            raise ValueError(f"{options.events} names recordings that are not there, such as {gone[0]}")
        return classes, table, lengths_of(table.path.unique())
    recordings, said = find_clips(options.clips)
    if said:
        print(said)
    if options.backend == "torch":
        use_free_cores()
    ears = with_frames(ears_of(options.run, options.backend), options.level == "windows")
    found = from_oof(options.run, read_post(options.post) if options.post else None)
    print("\n".join(found.said))
    asked = Asked(lowered(found.post, options.share), found.calibration)
    streams = 1 if options.backend == "torch" else allowed_cores()
    with progress_bar(None, "listen", len(recordings), "file") as bar:
        heard = hear(ears, recordings, asked, streams, bar.update)
    if heard.unreadable:
        print(
            f"{plural(len(heard.unreadable), 'recordings')} could not be read, such as {next(iter(heard.unreadable))}"
        )
    return classes, heard.events, heard.seconds


def write_table(run: runs.Run, decisions: Path, options: argparse.Namespace):
    """Answers and the run's own data -> a prepared folder and folds."""
    out = options.train_table
    folds = options.train_folds or Path("folds") / f"{out.name}.csv"
    files.check_name(out.name, "--train-table")
    for target in (out, folds):
        if target.exists():
            raise ValueError(f"{target} exists, and may have trained a run: choose another name")
        files.check_writable(target / "clips.csv" if target == out else target)
    if not decisions.is_file():
        raise ValueError(f"{decisions} does not exist: answer questions first, or give --decisions FILE")
    data = run.config.data
    log = DecisionLog(decisions, length_of)
    base = read_base(Path(data.root), Path(data.folds))
    one = options.one_label or run.config.task == "scenes"
    counts = write_training_table(
        log.rows,
        out,
        folds,
        base,
        one_label=one,
        where=data.where,
        progress=lambda some: progress_bar(some, "cut", unit="clip"),
    )
    clips = f"{plural(counts['clips'], 'clips')}, {counts['silent']} of them without any label"
    print(
        f"{plural(counts['answers'], 'answers are')} {clips}, beside {len(base.clips)} of {data.root} -> {out}, {folds}"
    )
    words = ("--config", options.run / "fold0" / "config.yaml", "--name", out.name, "--fold", "all")
    print(command_line("train", *words, f"data.root={out}", f"data.folds={folds}"))


if __name__ == "__main__":
    run_script(main)

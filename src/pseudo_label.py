"""Trained runs label windows of recordings that have no labels, for each fold by networks that never heard its clips.

python src/pseudo_label.py --runs runs/sed/a --clips data/x/unlabelled_clips.csv --out data/x/round1
python src/pseudo_label.py --runs runs/sed/a runs/sed/b --clips ~/soundscapes --out data/x/round1 --per-class 200
python src/train.py --config configs/sed/shift_cnn.yaml --fold all --name a_round1 data.pseudo=data/x/round1

Fold k's student trains on what the runs' fold k says, and on no recording that fold k holds out: its score stays
honest. A call that was stopped goes on where it was: the same command again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

from earshot.script import run_script

from earshot.data import pseudo
from earshot.data.labels import read_clips
from earshot.data.unlabelled import find_recordings, with_groups
from earshot.files import check_writable, remove_folder
from earshot.messages import Parser, few, pasted, plural, progress_bar
from earshot.rounds import frames, hearing, labels
from earshot.rounds.choosing import Choice
from earshot.rounds.recordings import sites_of, without_labelled
from earshot.rounds.teachers import find_teachers

ANSWERS = "answers"  # below --out, until the labels are written


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    asked = choice_of(options)
    if asked.frame_events and not options.frames:
        raise ValueError("--frame-events says what frames are: give --frames too")
    check_writable(options.out / pseudo.FILE, "give --out FOLDER")
    if (options.out / pseudo.FILE).is_file() and not options.force:
        raise ValueError(f"{options.out} holds pseudo-labels already: give another --out, or replace them with --force")
    table, root = find_recordings(options.clips, options.audio_root)
    sites, column = sites_of(table, options.site_column)
    if asked.per_site and not column:
        raise ValueError("--per-site needs to know the sites: give --clips a table with a column `site`, or name one")
    teachers = find_teachers(options.runs, options.folds)
    if options.frames:
        frames.check_framewise(teachers)
    data_root = Path(teachers.runs[0].config.data.root)
    validation = data_root / "validation.csv"
    beside = read_clips(validation) if validation.is_file() else None
    table = without_labelled(table, root, teachers.data, options.skip_labelled, options.clips, beside)
    own_groups = "group" in table
    table = with_groups(table, root, read_clips(data_root / "clips.csv"), teachers.data.source)
    if not own_groups and "group" in table and (none := int((table.group == "").sum())):
        print(f"{none} of the {len(table)} recordings of {options.clips} have no group, as clips.csv has: a fold may "
              "train on a group that it holds out. Give a table with the column group")  # fmt: skip
    sites = sites_of(table, column)[0]
    answers = options.out / ANSWERS
    count = hearing.hear_all(
        teachers, table, root, answers,
        lambda total: progress_bar(None, "hear", total, "recording"),
    )  # fmt: skip
    lost = hearing.unreadable(answers, count)
    if len(lost) == len(table):
        row, reason = next(iter(lost.items()))
        raise ValueError(f"none of the {len(table)} recordings could be read; {table.path[row]}: {reason}")
    manifest, chosen, figures = labels.make_labels(
        teachers, table, root, sites=sites, asked=asked, answers=answers, count=count
    )
    if options.frames:
        chosen, every = frames.with_frames(
            teachers, chosen, root, asked, lambda some: progress_bar(some, "when", unit="recording")
        )
        manifest = dataclasses.replace(manifest, frame_seconds=every)
    rows = [{"clip_id": table.clip_id[row], "reason": reason} for row, reason in lost.items()]
    labels.write(options.out, manifest, chosen, rows)
    if not options.keep_answers:
        remove_folder(answers)
    say(options, figures, len(table), len(lost))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, default = parser.add_argument, Choice()
    add("--runs", type=Path, nargs="+", required=True, help="folders of the runs that answer: runs/<task>/<name>")
    add("--clips", type=Path, required=True, help="recordings without labels: a table (clip_id, path) or a folder")
    add("--out", type=Path, required=True, help="folder to write, such as data/<name>/round1")
    add("--audio-root", type=Path, help="folder the table's paths are relative to (default: dataset.json)")
    add("--folds", type=int, nargs="+", help="label for these folds alone (default: all of the fold table)")
    add("--skip-labelled", action="store_true", help="leave recordings out that have labels (else an error)")
    add("--min-confidence", type=float, metavar="P", help=f"highest probability of a window ({default.min_confidence})")
    add("--per-class", type=int, metavar="N", help="at most so many windows of a class (default: no limit)")
    add("--per-site", type=int, metavar="N", help="at most so many windows of a site")
    add("--per-recording", type=int, metavar="N", help="at most so many windows of a recording")
    add("--site-column", default="", help="column of --clips that names the site (default: site, location, city, ...)")
    add("--power", type=float, help="targets are probabilities to this power (default 1)")
    add("--hard", type=float, metavar="P", help="targets of 1 from this probability on, else 0 (default: soft ones)")
    add("--floor", type=float, metavar="P", help="lower probabilities become targets of 0 (default 0)")
    add("--mass", type=float, help="at most so many times the labels' mass (default 1; 0: no cap)")
    add("--order", help="classes: they take turns (default) | surest: the surest windows first, of whatever class")
    add("--frames", action="store_true", help="say when what is heard too: frame targets, for networks of events")
    by_events = "with --frames: 1 in the events that the runs find by thresholds of the other folds, else 0"
    add("--frame-events", action="store_true", default=None, help=f"{by_events} (default: probabilities)")
    no_say = "with --frame-events: frames that are in an event or not by so few log odds have no say (default 0)"
    add("--frame-unsure", type=float, metavar="X", help=no_say)
    add("--keep-answers", action="store_true", help="keep OUT/answers, to choose again with --force without hearing")
    add("--force", action="store_true", help="replace pseudo-labels that are there")
    return parser.parse_args()


def choice_of(options: argparse.Namespace) -> Choice:
    """What the options ask of windows; a wrong value is an error that names the option."""
    names = [f.name for f in dataclasses.fields(Choice)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        return Choice(**given)
    except ValueError as error:
        key = next((name for name in names if str(error).startswith(name)), "")
        raise ValueError(f"--{key.replace('_', '-')}{str(error)[len(key) :]}" if key else str(error)) from error


def say(options: argparse.Namespace, figures: dict[int, dict], recordings: int, lost: int):
    """What was chosen for each fold."""
    print(f"{plural(recordings, 'recordings')} without labels heard" + f", {lost} of them unreadable" * bool(lost))
    for fold, f in figures.items():
        share = f["mass"] / f["labels"] if f["labels"] else float("inf")
        print(
            f"  fold {fold}: {f['windows']} of {f['sure']} sure windows, {plural(f['recordings'], 'recordings')}, "
            f"{f['classes']} classes; mass {f['mass']:.1f}, {share:.2f} of its labels'"
            + f"; {plural(f['held_out_recordings'], 'recordings are')} held out here"
            * bool(f["held_out_recordings"])
        )
    without = [fold for fold, f in figures.items() if not f["windows"]]
    if 0 < len(without) < len(figures):
        print(f"fold {few(without, 20)} would train without any: lower --min-confidence, or train better teachers")
    if len(without) == len(figures):
        print(f"-> {options.out}\nno window is sure enough: lower --min-confidence, or train better teachers")
        return
    print(f"-> {options.out}; train on them with {pasted(f'data.pseudo={options.out}')}")


if __name__ == "__main__":
    run_script(main)

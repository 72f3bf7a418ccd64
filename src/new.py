"""A config for data of your own, from one that works: rate, lengths, targets and batch size follow the recordings.

python src/prepare.py mine --source ~/recordings                # -> data/mine
python src/new.py mine --like tagging/esc10_cnn                 # -> configs/tagging/mine.yaml and folds/mine.csv
python src/train.py --config configs/tagging/mine.yaml --fold all
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import re
from pathlib import Path

from earshot.script import run_script

import pandas as pd
import yaml

from earshot.competitions.tables import write_csv
from earshot.config import Config, from_dict, read_values
from earshot.data.dataset import read_dataset
from earshot.data.folds import DEFAULT_K, choose_method, held_out_folds, make_folds, read_folds
from earshot.data.labels import read_classes, read_clips
from earshot.data.prepared import read_events, says_nothing
from earshot.data.stale_folds import stale_folds
from earshot.files import check_name, check_writable, plain_name, whole_file
from earshot.messages import Parser, command_line, plural, suggest

CONFIGS = Path("configs")
SHIPPED = Path(__file__).resolve().parents[1] / CONFIGS  # those of this repository, whatever folder one works in


def main():
    options = parse_args()
    check_name(options.name, "name")
    data_folder = options.data or Path("data") / options.name
    like = find_config(options.like)
    out = options.out or place_of(like, options.name)
    check(options, out, data_folder)
    check_writable(out, "give --out FILE")
    dataset, clips = read_dataset(data_folder), read_clips(data_folder / "clips.csv")
    classes = read_classes(data_folder / "classes.csv")
    folds_path, folds, told = find_folds(options, data_folder, clips)
    events = read_events(data_folder / "events.csv", clips, classes)

    from earshot.training.fitting import Data, fit_batch, fitted, step_note  # torch: after what can be wrong

    data = Data(
        name=options.name, competition=dataset["competition"], task=dataset.get("task", "tagging"),
        root=data_folder.as_posix(), folds=folds_path.as_posix(), clips=clips, events=events,
    )  # fmt: skip
    values, notes = fitted(read_values(like), data)
    values, measured = fit_batch(values, len(classes), count_training(values, clips, folds, events))
    measured += step_note(values, len(classes), events)
    if not folds_path.is_file():
        write_csv(folds, folds_path)
    write(values, out, like, data_folder, len(clips), len(classes))
    print("\n".join([f"{like} -> {out}", *(f"  {note}" for note in notes + measured), told]))
    print(f"next: {train_command(out)}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("name", help="of the config, and by default of data/<name> and folds/<name>.csv")
    add("--like", required=True, help="a config that works: a path, or sed/synth_cnn for configs/sed/synth_cnn.yaml")
    add("--data", type=Path, help="folder that prepare.py wrote (default data/<name>)")
    add("--folds", type=Path, help="fold table; made where it is not there (default folds/<name>.csv, else that of the "
        "data, folds/<data name>.csv, where it is there)")  # fmt: skip
    add("--k", type=int, help=f"number of folds of a table that is made (default {DEFAULT_K})")
    add("--out", type=Path, help="config to write (default: beside the other, or below configs/, <name>.yaml)")
    add("--force", action="store_true", help="replace a config of that name")
    return parser.parse_args()


def find_config(name: str) -> Path:
    """A path, or a name below configs/, here or in the repository, without its ending; an unknown one is an error."""
    below = [folder / text for folder in (CONFIGS, SHIPPED) for text in (f"{name}.yaml", name)]
    for path in (Path(name), *below):
        if path.is_file():
            return path
    known = {p.relative_to(f).with_suffix("").as_posix() for f in (CONFIGS, SHIPPED) for p in f.rglob("*.yaml")}
    raise ValueError(f"--like {name} is no config{suggest(name, sorted(k for k in known if '/_' not in k))}")


def place_of(like: Path, name: str) -> Path:
    """Where the new config is written: beside the other; one of the repository's has its like below the folder here."""
    folder = CONFIGS / like.parent.relative_to(SHIPPED) if like.is_relative_to(SHIPPED) else like.parent
    return folder / f"{name}.yaml"


def check(options: argparse.Namespace, out: Path, data_folder: Path):
    """Names that are no file names, and what is there already, are errors before anything is measured."""
    if not re.fullmatch(r"[\w][\w.-]*", options.name):
        raise ValueError(f"'{options.name}' cannot name a config: letters, digits, '_', '-' and '.' can")
    if out.exists() and not options.force:
        raise ValueError(f"{out} is there already: choose another name, or replace it with --force")
    if not (data_folder / "clips.csv").is_file():
        raise ValueError(
            f"{data_folder}/clips.csv does not exist (paths follow the folder you are in): make it with "
            f"{command_line('prepare', 'mine', '--source', 'FOLDER')}, or name another folder with --data"
        )


def find_folds(options: argparse.Namespace, data_folder: Path, clips: pd.DataFrame) -> tuple[Path, pd.DataFrame, str]:
    """Take a fold table that is there, or make one by what the clips are, not written yet.

    Its path, the table, what is said of it.

    Runs are only blended on one fold table: a second config takes that of the first, folds/<data name>.csv. A number of
    folds (--k) asks for a table of its own.
    """
    path, said = options.folds or Path("folds") / f"{options.name}.csv", ""
    of_data = Path("folds") / f"{plain_name(data_folder)}.csv"
    if options.folds is None and options.k is None and not path.is_file() and of_data.is_file():
        try:
            read_folds(of_data, clips)
            path, said = of_data, ", so that this run can be blended with others on it (--folds FILE: another one)"
        except ValueError as error:
            said = f"; not those of the data: {error}"
    if path.is_file():
        folds = read_folds(path, clips)
        there, wanted = len(held_out_folds(folds.fold)), options.k
        if wanted not in (None, there):
            raise ValueError(
                f"--k {wanted}: {path} is there and has {plural(there, 'folds')}; leave --k out, or give --folds FILE"
            )
        torn = stale_folds(clips, folds).say(data_folder / "clips.csv", path)
        return path, folds, f"folds: {path}, as it is{said}" + f"\nwarning: {torn}" * bool(torn)
    check_writable(path)
    groups = clips.group.nunique() if "group" in clips else len(clips)
    wanted = DEFAULT_K if options.k is None else options.k
    folds, method = make_folds(clips, min(wanted, max(groups, 2))), choose_method(clips)
    held_out = len(held_out_folds(folds.fold))
    if options.k not in (None, held_out):
        why = "the table has its own" if method == "official" else f"there are {plural(groups, 'groups')}"
        said = f", not --k {wanted}: {why}{said}"
    return path, folds, f"folds: {held_out} ({method}) -> {path}{said}"


def count_training(values: dict, clips: pd.DataFrame, folds: pd.DataFrame, events: pd.DataFrame | None) -> int:
    """How many clips train a fold; those that say nothing are in no training."""
    mute = clips.clip_id[says_nothing(clips, from_dict(copy.deepcopy(values)).data, events)]
    return int(((folds.fold != folds.fold.max()) & ~folds.clip_id.isin(mute)).sum())


def train_command(config: Path) -> str:
    return command_line("train", "--config", config, "--fold", "all")


def write(values: dict, out: Path, like: Path, data_folder: Path, n_clips: int, n_classes: int):
    """The config as a file of its own, with where it came from on top."""
    known = [f.name for f in dataclasses.fields(Config)]
    values = {key: values[key] for key in sorted(values, key=known.index)}
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    head = f"# {train_command(out)}\n"
    head += f"# {like} fitted to {data_folder}: {n_clips} clips, {n_classes} classes. Yours to change.\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        partial.write_text(head + text)


if __name__ == "__main__":
    run_script(main)

"""A config for data of your own, from one that works: rate, lengths, targets and batch size follow the recordings.

python src/prepare.py mine --source ~/recordings                # -> data/mine
python src/new.py mine --like tagging/esc10_cnn                 # -> configs/tagging/mine.yaml and folds/mine.csv
python src/train.py --config configs/tagging/mine.yaml --fold all
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import yaml

from earshot.competitions.tables import write_csv
from earshot.config import Config, read_values
from earshot.data.dataset import read_dataset
from earshot.data.folds import TRAIN_ONLY, choose_method, make_folds, read_folds
from earshot.data.labels import read_classes, read_clips
from earshot.data.prepared import read_events
from earshot.files import check_name, check_writable, whole_file
from earshot.messages import Parser, run_script, suggest

CONFIGS = Path("configs")


def main():
    options = parse_args()
    check_name(options.name, "name")
    data_folder = options.data or Path("data") / options.name
    like = find_config(options.like)
    out = options.out or like.parent / f"{options.name}.yaml"
    folds_path = options.folds or Path("folds") / f"{options.name}.csv"
    check(options, out, data_folder)
    check_writable(out, "give --out FILE")
    dataset, clips = read_dataset(data_folder), read_clips(data_folder / "clips.csv")
    classes = read_classes(data_folder / "classes.csv")
    folds, told = find_folds(folds_path, clips, options.k)
    events = read_events(data_folder / "events.csv", clips, classes)

    from earshot.training.fitting import Data, fit_batch, fitted, step_note  # torch: after what can be wrong

    data = Data(
        name=options.name, competition=dataset["competition"], task=dataset.get("task", "tagging"),
        root=data_folder.as_posix(), folds=folds_path.as_posix(), clips=clips, events=events,
    )  # fmt: skip
    values, notes = fitted(read_values(like), data)
    n_training = int((folds.fold != folds.fold.max()).sum())
    values, measured = fit_batch(values, len(classes), n_training)
    measured += step_note(values, len(classes), events)
    write(values, out, like, data_folder, len(clips), len(classes))
    print("\n".join([f"{like} -> {out}", *(f"  {note}" for note in notes + measured), told]))
    print(f"next: python src/train.py --config {out} --fold all")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("name", help="of the config, and by default of data/<name> and folds/<name>.csv")
    add("--like", required=True, help="a config that works: a path, or sed/synth_cnn for configs/sed/synth_cnn.yaml")
    add("--data", type=Path, help="folder that prepare.py wrote (default data/<name>)")
    add("--folds", type=Path, help="fold table; made where it is not there (default folds/<name>.csv)")
    add("--k", type=int, default=5, help="number of folds that are made (default 5)")
    add("--out", type=Path, help="config to write (default: beside the other, <name>.yaml)")
    add("--force", action="store_true", help="replace a config of that name")
    return parser.parse_args()


def find_config(name: str) -> Path:
    """A path, or a name below configs/ without its ending; an unknown one is an error with a suggestion."""
    for path in (Path(name), CONFIGS / f"{name}.yaml", CONFIGS / name):
        if path.is_file():
            return path
    known = [p.relative_to(CONFIGS).with_suffix("").as_posix() for p in sorted(CONFIGS.rglob("*.yaml"))]
    raise ValueError(f"--like {name} is no config{suggest(name, [k for k in known if '/_' not in k])}")


def check(options: argparse.Namespace, out: Path, data_folder: Path):
    """Names that are no file names, and what is there already, are errors before anything is measured."""
    if not re.fullmatch(r"[\w][\w.-]*", options.name):
        raise ValueError(f"'{options.name}' cannot name a config: letters, digits, '_', '-' and '.' can")
    if out.exists() and not options.force:
        raise ValueError(f"{out} is there already: choose another name, or replace it with --force")
    if not (data_folder / "clips.csv").is_file():
        raise ValueError(
            f"{data_folder}/clips.csv does not exist (paths follow the folder you are in): make it with "
            "python src/prepare.py mine --source FOLDER, or name another folder with --data"
        )


def find_folds(path: Path, clips, k: int):
    """Take the fold table that is there, or make one.

    (fold table, what is said of it): the one that is there, else one is made by what the clips are.
    """
    if path.is_file():
        return read_folds(path, clips), f"folds: {path}, as it is"
    check_writable(path)
    groups = clips.group.nunique() if "group" in clips else len(clips)
    folds = make_folds(clips, min(k, max(groups, 2)))
    write_csv(folds, path)
    held_out = folds.fold[folds.fold != TRAIN_ONLY].nunique()
    return folds, f"folds: {held_out} ({choose_method(clips)}) -> {path}"


def write(values: dict, out: Path, like: Path, data_folder: Path, n_clips: int, n_classes: int):
    """The config as a file of its own, with where it came from on top."""
    known = [f.name for f in dataclasses.fields(Config)]
    values = {key: values[key] for key in sorted(values, key=known.index)}
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    head = f"# python src/train.py --config {out} --fold all\n"
    head += f"# {like} fitted to {data_folder}: {n_clips} clips, {n_classes} classes. Yours to change.\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        partial.write_text(head + text)


if __name__ == "__main__":
    run_script(main)

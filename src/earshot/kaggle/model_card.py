"""A run's graphs as the files of a Hugging Face model: the graphs, what they hear, and a card that says what they are.

The card says what was measured and how, and no more: scores are those of held-out clips of the training data.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined

from earshot import files, runs
from earshot.prediction.backends import METADATA_KEY, open_graph
from earshot.records import to_dict
from earshot.tasks import task_of

CARD = "README.md"
BOOKKEEPING = ("epoch", "steps", "loss", "val_loss", "lr", "seconds", "clips_per_second", "unreadable",
               "validation_seconds")  # fmt: skip
TASKS = {
    "sed": "sound event detection", "tagging": "audio tagging", "scenes": "acoustic scene classification",
    "ust": "urban sound tagging", "asd": "anomalous sound detection",
}  # fmt: skip
MOST_CLASSES = 60  # that the card names; classes.csv has all


def build_model_folder(run: runs.Run, graphs: Sequence[Path], folder: Path, license_id: str = ""):
    """Fill an empty folder with what is uploaded: graphs by fold, config.yaml, classes.csv, README.md (the card).

    graphs: what export_run wrote. Paths of the config are left out: they say where data lay on this machine.
    """
    about = open_graph(graphs[0]).about
    listed = []
    for graph in graphs:
        target = folder / (graph.parent.name if graph.parent.name.startswith("fold") else "") / graph.name
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in [graph, *[graph.with_suffix(".bin")] * (graph.suffix == ".xml")]:
            shutil.copyfile(part, target.with_suffix(part.suffix))
            listed.append(target.with_suffix(part.suffix))
    reports = [json.loads(graph.with_name(f"{graph.name}.json").read_text()) for graph in graphs]
    config = without_paths(to_dict(run.config))
    files.write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    files.write_rows(folder / "classes.csv", [{"label": label} for label in about["classes"]])
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in listed}
    files.write_text(folder / CARD, card_of(run, about, reports, sizes, license_id))


def without_paths(values):
    """A config as nested dicts, each absolute path in it as its last part, and without `track`: where figures went."""
    if isinstance(values, dict):
        return {key: without_paths(value) for key, value in values.items() if key != "track"}
    if isinstance(values, list | tuple):
        return [without_paths(value) for value in values]
    if isinstance(values, str) and (Path(values).is_absolute() or values.startswith("~") or "\\" in values):
        return values.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return values


def scores_of(run: runs.Run) -> dict[str, tuple[float, float, int]]:
    """Scores of held-out clips, the watched one first: {score: (mean over folds, standard deviation, folds)}."""
    config = run.config
    watched = task_of(config).watch
    each = [fold.about.get("scores", {}) for fold in run.folds]
    names = [n for n in dict.fromkeys(k for scores in each for k in scores)
             if n not in BOOKKEEPING and not n.endswith("_threshold")]  # fmt: skip
    found = {}
    for name in sorted(names, key=lambda n: n != watched):
        values = [scores[name] for scores in each if isinstance(scores.get(name), int | float)]
        if values and all(math.isfinite(v) for v in values):
            found[name] = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, len(values)
    return found


def card_of(run: runs.Run, about: dict, reports: Sequence[dict], sizes: dict[str, int], license_id: str = "") -> str:
    """The card: YAML that the hub reads, then what people read (model_card.md)."""
    scores, folds, windows = scores_of(run), [fold.fold for fold in run.folds], about["windowing"]
    runtime = "openvino" if any(name.endswith(".xml") for name in sizes) else "onnx"
    task, data = TASKS.get(about["task"], about["task"]), about["competition"]
    results = {
        "task": {"type": "audio-classification", "name": task}, "dataset": {"type": data, "name": f"{data}, held out"},
        "metrics": [{"type": name, "name": name, "value": round(mean, 6)} for name, (mean, _, _) in scores.items()],
    }  # fmt: skip
    tags = ["audio", "earshot", about["task"], task.replace(" ", "-")]
    head = {"library_name": runtime, "pipeline_tag": "audio-classification", "tags": tags}
    head |= {"license": license_id} if license_id else {}
    head |= {"model-index": [{"name": run.name, "results": [results]}]} if scores else {}
    graphs = [name for name in sizes if not name.endswith(".bin")]
    versions = [f"{name} {version}" for name, version in about["libraries"].items() if version]
    environment = Environment(keep_trailing_newline=True, undefined=StrictUndefined)
    return environment.from_string((Path(__file__).parent / "model_card.md").read_text()).render(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), run=run.name, task=task, data=data,
        model=run.config.model.name, folds=f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}", about=about,
        classes=about["classes"], most=MOST_CLASSES, scores=scores, sizes=sizes, runtime=runtime, key=METADATA_KEY,
        checked=dict(zip(graphs, map(_checked, reports), strict=True)), window=f"{windows['window_seconds']:g}",
        stride=f"{windows['stride_seconds']:g}", frontends=json.dumps(about["frontends"], indent=1),
        inputs=", ".join(f"`{name}`" for name in about["inputs"]),
        outputs=", ".join(f"`{name}`" for name in about["outputs"]),
        made_with=", ".join(versions + [f"commit {about['commit']}"] * bool(about.get("commit"))),
    )  # fmt: skip


def _checked(report: dict) -> str:
    """What an export measured of a graph: the largest difference of an output, the watched score before and after."""
    worst = max(v for row in report["parity"] for k, v in row["max_difference"].items() if k.endswith("_output"))
    oof = report["oof"]
    scored = f"{oof['watch']} {oof['oof']:.4f}, of the graph {oof['graph']:.4f} ({oof['clips']} clips)" if oof else ""
    return f"{worst:.1e} | {scored}"

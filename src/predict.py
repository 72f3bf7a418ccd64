"""Predict recordings with trained runs: every fold, then their mean.

python src/predict.py --run runs/sed/synth_cnn --clips data/synth/test_clips.csv     # -> the run's own test.npz
python src/predict.py --run runs/sed/synth_cnn --clips ~/recordings --out mine.npz --tta time_shift
python src/predict.py --run runs/sed/a runs/sed/b --clips ... --backend onnx         # exported graphs; no PyTorch

Runs that hear the same windows are predicted in one pass: a recording is decoded once, and so is each log-mel.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files, runs
from earshot.competitions import is_test_hidden
from earshot.competitions.tables import write_csv
from earshot.data.dataset import read_dataset, say_changed
from earshot.data.labels import clip_metadata, read_clips
from earshot.inputs.given import Metadata
from earshot.listening.members import BACKENDS, fold_members
from earshot.messages import Parser, check_choice, check_numbers, fewer_alike, plural, progress_bar
from earshot.metrics.anomalies import scores_by_section, unseen_sections
from earshot.prediction import predictions
from earshot.prediction.backends import open_graph
from earshot.prediction.free_cores import allowed_cores, choose_threads, use_free_cores
from earshot.prediction.graphs import find_graphs, members_of
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.predictions import Clip, Predictions
from earshot.prediction.threads import tune
from earshot.prediction.tta import tta_variants
from earshot.sound import audio
from earshot.sound.folder import by_reason, list_recordings, printable, some_recordings
from earshot.sound.rows import file_of
from earshot.stored import read_json, want

PREDICTED = "predicted.json"  # of a run: the options that its test.npz was predicted with
COMPARED = 3  # recordings on which --one-pass is measured against single windows
logger = logging.getLogger("earshot")


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_options(options)
    check_targets(options)
    clips = find_clips(options.clips, options.audio_root)
    threads, streams = how_many(options)
    of_run = {folder: members_of_run(folder, options, threads) for folder in options.run}
    check_columns(options.out, next(iter(of_run.values()))[0][0].classes)
    started, unreadable = time.monotonic(), {}
    for folders, tta, metadata in sharing_a_pass(of_run, options):
        members = [m for folder in folders for m, _ in of_run[folder]]
        clips = with_metadata(clips, options.clips, metadata)
        bar = "predict " + " ".join(folder.name for folder in folders)
        with fewer_alike():
            found, failed = predict_members(
                members, clips, tta, lambda some, bar=bar: progress_bar(some, bar, unit="file"), streams
            )
        unreadable |= dict(failed)
        check_heard(clips, unreadable, options.clips.parent)
        for folder in folders:
            of_folds, found = found[: len(of_run[folder])], found[len(of_run[folder]) :]
            of_folds = with_anomaly_scores(folder, of_folds, of_run[folder], options)
            save(folder, of_folds, [fold for _, fold in of_run[folder]], options)
            if not options.out:
                files.write_text(folder / PREDICTED, files.as_json(same_options(folder, options)) + "\n")
        if options.one_pass:
            print(difference_of_one_pass(members, clips[:COMPARED], tta))
    seconds, targets = time.monotonic() - started, [str(options.out or folder / "test.npz") for folder in options.run]
    names = ", ".join(f"{plural(len(m), 'folds')} of {f.parent.name}/{f.name}" for f, m in of_run.items())
    print(f"{plural(len(clips), 'recordings')}, {names}, {seconds:.1f} s -> {', '.join(targets)}")
    if unreadable:
        listing = Path(targets[0])
        listing = listing.with_name(f"{listing.stem}_unreadable.csv")
        files.write_rows(listing, [{"clip_id": c, "reason": r} for c, r in unreadable.items()])
        print(f"{plural(len(unreadable), 'recordings')} could not be read and got the training prior; see {listing}")
    print_oddities(options.clips, clips, Path(targets[0]))


def check_heard(clips: list[Clip], unreadable: dict[str, str], prepared: Path):
    """Error where none of the recordings could be read: priors alone are no answer, a wrong folder is likely."""
    if clips and len(unreadable) == len(clips):
        first, hidden = clips[0], ""
        if (prepared / "dataset.json").is_file():
            name = read_dataset(prepared)["competition"]
            if is_test_hidden(name, (file_of(str(clip.path)) for clip in clips)):
                hidden = f" The hidden test of {name} is heard by a kernel alone: docs/kernels.md"
        raise ValueError(
            f"none of the {len(clips)} recordings could be read, so nothing is predicted; the first, "
            f"{first.path}: "
            f"{unreadable[first.clip_id]}. Is --audio-root the folder that the table's paths are relative to?" + hidden
        )


def print_oddities(source: Path, clips: list[Clip], target: Path):
    """Count, and list beside `target`, the files of a folder that are left out and what was odd about those heard."""
    left_out = list_recordings(source).left_out if source.is_dir() else {}
    known = audio.odd_files()
    odd = {path: known[path] for path in (str(clip.path) for clip in clips) if path in known}
    if not left_out and not odd:
        return
    rows = [(path, reason) for path, reason in left_out.items()]
    rows += [(path, text) for path, texts in odd.items() for text in texts]
    listing = target.with_name(f"{target.stem}_odd_files.csv")
    files.write_rows(listing, [{"path": printable(str(path)), "note": text} for path, text in rows])
    said = [f"{plural(len(left_out), 'files are')} left out ({by_reason(left_out)})"] if left_out else []
    said += [f"{plural(len(odd), 'recordings are')} not as their files say"] if odd else []
    print(f"{', '.join(said)}; see {listing}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, nargs="+", required=True, help="folders of runs: runs/<task>/<name>")
    add("--clips", type=Path, required=True, help="a table (clip_id, path), a folder of recordings, or one recording")
    add("--audio-root", type=Path, help="folder the table's paths are relative to (default: dataset.json)")
    add("--out", type=Path, help="FILE.npz, or a FILE.csv for people (default: test.npz of the run and of each fold)")
    add("--tta", nargs="*", help="test-time augmentations (default: the config's)")
    add("--backend", default="torch", help=f"{', '.join(BACKENDS)}; graphs are made by src/export.py")
    add("--int8", action="store_true", help="the int8 graphs")
    add("--together", action="store_true", help="the graph that holds all folds")
    add("--one-pass", action="store_true", help="hear a minute at once, pool windows from it: faster, not the same")
    add("--extra-window", action="store_true", help="keep the padding of windows, as the birdcall source's rows do")
    add("--threads", type=int, help="of PyTorch (default: the free cores), or of one call of a graph (default: 1)")
    add("--streams", type=int, help="calls of a graph at a time (default: as many as free cores)")
    add("--tune", action="store_true", help="measure for some seconds which threads x streams are fastest")
    return parser.parse_args()


def check_options(options: argparse.Namespace):
    """Options that contradict each other are errors before anything is loaded."""
    check_choice("--backend", options.backend, BACKENDS)
    if options.backend == "torch" and (options.int8 or options.together or options.tune):
        raise ValueError("--int8, --together and --tune are of exported graphs: add --backend onnx or openvino")
    if twice := [run for run in set(options.run) if options.run.count(run) > 1]:
        raise ValueError(f"--run names {twice[0]} twice")
    if options.out and len(options.run) > 1:
        raise ValueError("--out takes the mean of ONE run; of several, each gets its test.npz (then src/ensemble.py)")
    check_numbers(options, "threads", "streams", low=1)
    tta_variants(options.tta or ())


def check_targets(options: argparse.Namespace):
    """Runs that are no runs, and places that cannot be written, are errors before the first recording is heard."""
    for folder in options.run:
        runs.check_is_there(folder)
        for target in (
            [options.out]
            if options.out
            else [folder / "test.npz", *(f / "test.npz" for f in files.fold_folders(folder))]
        ):
            files.check_ending(target, ".npz", ".csv")
            files.check_writable(target, "" if options.out else "give --out FILE, one run at a time")


def how_many(options: argparse.Namespace) -> tuple[int, int]:
    """Choose the threads of a call and how many calls run at a time. PyTorch keeps to one call, on the threads that are
    free."""
    if options.backend == "torch":
        use_free_cores(options.threads or 0, "--threads N")
        return 1, 1
    threads = options.threads or 1
    if options.streams and not options.tune:
        return threads, options.streams
    if not options.tune:
        free, text = choose_threads(key="--streams N")
        print(f"calls of a graph, each on {threads} of {text}", flush=True)
        return threads, max(1, free // threads)
    path = find_graphs(options.run[0], options.backend, options.int8, options.together)[0].path

    def ready(threads: int):
        graph = open_graph(path, threads)
        members_of(graph, options.one_pass)  # compiles it for its window
        return graph

    threads, streams, speeds = tune(ready, allowed_cores())
    listed = ", ".join(f"{t} x {s}: {speed:.1f}/s" for (t, s), speed in speeds.items())
    print(f"threads x streams, windows a second: {listed}; taking {threads} x {streams}")
    return threads, streams


def members_of_run(folder: Path, options: argparse.Namespace, threads: int) -> list[tuple[Member, Path]]:
    """The folds of a run, each with its folder, heard as the options say."""
    found = fold_members(
        folder, options.backend, threads=threads, int8=options.int8, together=options.together,
        one_pass=options.one_pass,
    )  # fmt: skip
    if options.extra_window:
        found = [(replace(m, windowing=replace(m.windowing, extra_window=True)), fold) for m, fold in found]
    return found


def sharing_a_pass(of_run: dict[Path, list], options: argparse.Namespace) -> list[tuple[list[Path], tuple, Metadata]]:
    """Group the runs that can share a pass, by windows, variants and columns: (run folders, their TTA, their
    metadata)."""
    groups: dict[tuple, list[Path]] = {}
    for folder, members in of_run.items():
        tta = tuple(run_tta(folder, members, options) if options.tta is None else options.tta)
        groups.setdefault((members[0][0].window_key, tta, metadata_of(members)), []).append(folder)
    return [(folders, tta, metadata) for (_, tta, metadata), folders in groups.items()]


def metadata_of(members: list) -> Metadata:
    """The columns of the clip table that a run's networks take besides the sound."""
    records = members[0][0].backend.frontends.values()
    return next((record for record in records if isinstance(record, Metadata)), Metadata())


def with_metadata(clips: list[Clip], source: Path, metadata: Metadata) -> list[Clip]:
    """The clips with the values of these columns of the table `source`; a folder has none: an error."""
    columns = metadata.columns
    if not columns:
        return clips
    if source.is_dir() or is_one_recording(source):
        raise ValueError(
            f"the network takes {', '.join(columns)} of each recording, which a folder does not say: give --clips a "
            f"table with clip_id, path, {', '.join(columns)}"
        )
    values = clip_metadata(read_clips(source), columns, source, metadata.missing)
    return [replace(clip, metadata=row) for clip, row in zip(clips, values, strict=True)]


def with_anomaly_scores(folder: Path, of_folds: list[Predictions], members: list, options) -> list[Predictions]:
    """Of the task asd: each fold's predictions with the log odds of every clip's own section as anomaly score.

    Thresholds are those of the fold's thresholds.json (src/score_anomalies.py), for the sections that it has. Where the
    clips say no machine and section there is no score.
    """
    torch_run = options.backend == "torch"
    task = runs.load_run(folder).config.task if torch_run else members[0][0].backend.about["task"]
    table = None if options.clips.is_dir() or is_one_recording(options.clips) else read_clips(options.clips)
    if task != "asd" or table is None or not {"machine", "section"} <= set(table.columns):
        return of_folds
    table = table.set_index("clip_id", drop=False)
    scored = []
    for found, (_, fold) in zip(of_folds, members, strict=True):
        clips = table.loc[found.clip_ids]
        own = (clips.machine.astype(str) + "_" + clips.section.astype(str)).to_numpy()
        scores, unseen = scores_by_section(found.clipwise_output, found.classes, own, clips.machine.astype(str))
        if (said := unseen_sections(own, unseen)) and not scored:
            logger.warning("%s; src/score_anomalies.py --run A B joins runs of several machines", said)
        found = replace(found, score=scores.astype(np.float32))
        if (fold / "thresholds.json").is_file():
            limits = read_limits(fold / "thresholds.json")
            found = replace(found, threshold=np.array([limits.get(name, np.nan) for name in own], np.float32))
        scored.append(found)
    return scored


def read_limits(path: Path) -> dict[str, float]:
    """Thresholds of the log odds by section, as src/score_anomalies.py wrote them."""
    remedy = "write it again with src/score_anomalies.py"
    about = read_json(path, "file", remedy)
    want(about, {"log_odds": dict}, str(path), remedy)
    if not all(isinstance(value, int | float) for value in about["log_odds"].values()):
        raise ValueError(f"{path} has thresholds that are no numbers; {remedy}")
    return about["log_odds"]


def run_tta(folder: Path, members: list, options: argparse.Namespace):
    if options.backend == "torch":
        return runs.load_run(folder).config.predict.tta
    return members[0][0].backend.about["tta"]


def save(folder: Path, of_folds: list[Predictions], folds: list[Path], options: argparse.Namespace):
    """Each fold's test.npz (not with --out) and their mean."""
    if not options.out:
        for fold, found in zip(folds, of_folds, strict=True):
            found.save(fold / "test.npz")
    mean = predictions.weighted_mean(of_folds)
    if options.out and options.out.suffix.lower() == ".csv":
        write_table(mean, options.out)
    else:
        mean.save(options.out or folder / "test.npz")


def check_columns(out: Path | None, classes):
    """Raise where --out is a table and a class is called as one of its own columns is."""
    if out and out.suffix.lower() == ".csv" and (taken := {"clip_id", "unreadable", "anomaly_score"} & set(classes)):
        raise ValueError(f"{out}: a class is called {taken.pop()}, as a column of the table is: write an .npz")


def write_table(found: Predictions, path: Path):
    """A row a recording, for people and spreadsheets: its id, a column a class, and what was not heard or scored."""
    columns = {"clip_id": found.clip_ids, "unreadable": found.unreadable.astype(int), "anomaly_score": found.score}
    columns = {name: values for name, values in columns.items() if values is not None}
    columns |= {c: found.clipwise_output[:, k] for k, c in enumerate(found.classes)}
    write_csv(pd.DataFrame(columns), path)
    print(f"{path} has no outputs of frames; score.py reads it, ensemble.py, submit.py and report.py need an .npz")


def same_options(folder: Path, options: argparse.Namespace) -> list[str]:
    """The options that predict this run's test.npz once more, as train.py --resume does where one is missing."""
    words = ["--run", str(folder), "--clips", str(options.clips), "--backend", options.backend]
    words += ["--audio-root", str(options.audio_root)] * bool(options.audio_root)
    words += [f"--{name.replace('_', '-')}" for name in ("int8", "together", "one_pass") if getattr(options, name)]
    return words + (["--tta", *options.tta] if options.tta is not None else [])


def difference_of_one_pass(members: list[Member], clips: list[Clip], tta) -> str:
    """What --one-pass changed on the first recordings, by predicting them again window by window."""
    exact = [replace(m, windowing=replace(m.windowing, one_pass=False)) for m in members]
    pairs = zip(predict_members(members, clips, tta)[0], predict_members(exact, clips, tta)[0], strict=True)
    difference = np.concatenate([np.abs(a.clipwise_output - b.clipwise_output).ravel() for a, b in pairs])
    largest = difference.max() if len(difference) else 0.0
    return (
        f"one pass against single windows, {plural(len(clips), 'recordings')}: clip outputs differ by "
        f"{difference.mean():.4f} on average, {largest:.4f} at most"
    )


def is_one_recording(source: Path) -> bool:
    return source.is_file() and source.suffix.lower() in audio.EXTENSIONS


def find_clips(source: Path, audio_root: Path | None) -> list[Clip]:
    """A clip table or a folder -> recordings; a folder's ids are the file names without endings, where they differ."""
    if is_one_recording(source):
        return [Clip(source.stem, source)]
    if source.is_dir():
        found = some_recordings(source)
        return [Clip(i, p) for i, p in zip(found.ids(), found.files, strict=True)]
    table = read_clips(source)
    if not len(table):
        raise ValueError(f"{source} lists no clips")
    root = audio_root
    if root is None:
        beside = source.parent / "dataset.json"
        root = Path(read_dataset(source.parent)["source"]) if beside.is_file() else source.parent
        say_changed(source.parent, root, table.path)
    return [Clip(i, root / p) for i, p in zip(table.clip_id, table.path, strict=True)]


if __name__ == "__main__":
    run_script(main)

"""What a run says of itself once all of its folds have their out-of-fold predictions: scores, remarks, pictures."""

from __future__ import annotations

from pathlib import Path

from earshot import tasks
from earshot.competitions import get_competition, is_test_hidden
from earshot.config import Config
from earshot.data.labels import read_clips
from earshot.data.prepared import load_data
from earshot.ensemble.oof import frame_scores, oof_when_complete, score_table
from earshot.messages import command_line
from earshot.pictures import folds as fold_pictures
from earshot.sound.rows import file_of
from earshot.training.event_pictures import draw_event_maps


def report_oof(config: Config, folder: Path):
    """When every fold has its OOF: join, check, score and save the run's OOF."""
    task = tasks.task_of(config)
    data = load_data(config.data)
    result = oof_when_complete(folder, data, task)
    print(result.text)
    for remark in tasks.remarks(task, result.oof, result.truth) if result.oof is not None else ():
        print(f"  {remark}")
    if result.oof is not None:
        print_frame_scores(get_competition(config.data.competition), result)
        counted = data.counted(config.data.secondary_weight)
        fold_pictures.class_scores(result.oof, result.truth.target, folder / "classes.png", counted)
        tasks.draw_pictures(task, result.oof, result.truth, folder)
        draw_event_maps(result.oof, result.truth, data, folder / "events.png")
        print(next_step(config, folder, Path(data.source)))


def next_step(config: Config, folder: Path, source: Path) -> str:
    """What hears new recordings with the run: those of the competition's test where there are any, else a folder.

    A test that is hidden is heard by a kernel, for which the run is exported. Anomalies are scored first.
    """
    if config.task == "asd":
        return f"next: {command_line('score_anomalies', '--run', folder)}"
    test = Path(config.data.root) / "test_clips.csv"
    if not test.is_file():
        return f"next: {command_line('predict', '--run', folder, '--clips', 'FOLDER_OF_RECORDINGS')}"
    if is_test_hidden(config.data.competition, (source / file_of(path) for path in read_clips(test).path)):
        export = command_line("export", "--run", folder, "--format", "onnx")
        return f"the test is hidden, and a kernel hears it: docs/kernels.md\nnext: {export}"
    return f"next: {command_line('predict', '--run', folder, '--clips', test)}"


def print_frame_scores(competition, result):
    """PSDS of the OOF's frames, where the competition has it; a library that is missing is said, no reason to fail."""
    try:
        scores = frame_scores(competition, result.oof, result.truth)
    except ImportError as error:
        print(f"  no PSDS: {error}")
        return
    if scores:
        print(score_table(scores))

"""Train folds of one config; every fold writes its weights, log and out-of-fold predictions.

python src/train.py --fold 0                                              # the embedded competition
python src/train.py --config configs/tagging/esc10_cnn.yaml --fold all --jobs 2
python src/train.py --config configs/sed/synth_b0.yaml --fold 0 1 --name lr3 optim.lr=3e-4
torchrun --nproc_per_node 2 src/train.py --config configs/sed/synth_b0.yaml --fold 0
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from earshot.script import check_first, run_script

from earshot.config import Config, check_config, flag_meant, load_config
from earshot.messages import Parser, check_numbers, fewer_alike, plural

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sed" / "synth_cnn.yaml"


def parse_args() -> argparse.Namespace:
    parser = Parser(flag_meant, description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="YAML of the run (default: the demo's)")
    parser.add_argument("--fold", nargs="+", default=["0"], help="folds to train, or 'all'")
    parser.add_argument("--name", default="", help="name of the run folder (default: the config's stem)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of runs (default runs)")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run was; finished folds are kept")
    parser.add_argument("--max-minutes", type=float, default=0, help="stop cleanly, with a valid OOF, within this time")
    parser.add_argument("--jobs", type=int, default=1, help="train so many folds at a time, sharing the cores")
    parser.add_argument("--take-lock", action="store_true", help="the process that has a fold, elsewhere, has ended")
    parser.add_argument("--dry-run", action="store_true", help="check everything, time one batch, write nothing")
    # for the processes of --jobs: the one that started them joins the OOF, shares the time and counts the cores, once
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)  # of time.time
    parser.add_argument("--rounds-after", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optim.lr=3e-4")
    options = parser.parse_intermixed_args()
    # `--fold 0 optim.lr=3e-4` reads naturally: what holds a '=' is an override wherever it stands
    options.overrides += [f for f in options.fold if "=" in f]
    options.fold = [f for f in options.fold if "=" not in f]
    check_numbers(options, "jobs", low=1)
    check_numbers(options, "max_minutes")
    return options


def check_command():
    """What needs no data and no network: the options, and the config with its overrides."""
    options = parse_args()
    check_config(options.config, options.overrides)


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from earshot import files, losses, runs
from earshot.augment.hidden import mixed_maps
from earshot.augment.pipeline import augment_batch
from earshot.data.folds import folds_in
from earshot.data.prepared import PreparedData, load_data
from earshot.data.soft_targets import find_targets
from earshot.prediction.free_cores import choose_threads, use_threads
from earshot.processes import children
from earshot.processes.kill_points import reached
from earshot.processes.lock import locked
from earshot.training import clock
from earshot.training.averaging import collect, judge_average
from earshot.training.beforehand import make_embedded_data
from earshot.training.checkpoint import restore_checkpoint, write_checkpoint
from earshot.training.checks import check_names, check_run, say_of_data
from earshot.training.loading import epoch_loader, on_device, shortage_explained
from earshot.training.oof_report import report_oof
from earshot.training.origins import begin, check_frontends, check_resumed, origin_of
from earshot.training.rehearsal import rehearse
from earshot.training.repair import lost_files, make_again, predict_again
from earshot.training.reporting import announce, epoch_line, finish_fold
from earshot.training.schedule import (
    guidance,
    raise_not_finite,
    seed_step,
    set_learning_rate,
    start_epoch,
    stop_early,
    time_is_up,
)
from earshot.training.setup import Training, main_bar, set_up
from earshot.training.tracking import start_tracker
from earshot.training.validation import validate_and_keep
from earshot.training.watch import defines_watch


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    config = load_config(options.config, options.overrides)
    check_names(config)
    make_embedded_data(config)
    targets = find_targets(config.data.soft_targets, Path(config.data.root))
    if targets:  # the run says by name what trained it
        config = load_config(options.config, [*options.overrides, f"data.soft_targets='{targets}'"])
    folder = runs.run_folder(config, options.config, options.name, options.root)
    folds = folds_in(config.data.folds) if options.fold == ["all"] else [parse_fold(f) for f in options.fold]
    if options.dry_run:
        config = replace(config, data=replace(config.data, cache=config.data.cache.replace("packed", "none")))
    else:
        check_folders(config, folder, folds, options.resume)
    data = load_data(config.data)
    check_run(config, data, folds)
    if not options.child:
        say_of_data(config, data)
    for fold in () if options.dry_run else folds:
        origin = origin_of(folder / f"fold{fold}", data.digests, config)
        check_resumed(runs.FoldRun(folder / f"fold{fold}"), origin)
        check_frontends(config, origin)
    if options.jobs > 1 and len(folds) > 1 and not options.dry_run:
        train_in_parallel(config, folds, options)
    else:
        accelerator = Accelerator(
            mixed_precision=config.optim.precision, gradient_accumulation_steps=config.optim.accumulate,
            cpu=not torch.cuda.is_available(), kwargs_handlers=[parallel_options(config)],
        )  # fmt: skip
        threads = choose_and_say_threads(config, accelerator, options.threads)
        if options.dry_run:
            return rehearse(config, folds, data, accelerator, train_one_epoch, options.jobs)
        train_in_turn(config, folds, folder, data, accelerator, threads=threads, options=options)
        if not accelerator.is_main_process:
            return
    if not options.child:
        report_oof(config, folder)
        if options.resume:
            predict_again(folder, Path(__file__).with_name("predict.py"))


def parse_fold(text: str) -> int:
    if "." in text:
        raise ValueError(f"'{text}' is no fold; a setting is written as {text}=VALUE")
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise ValueError(f"--fold takes numbers from 0, or 'all', got '{text}'")
    return int(text)


def parallel_options(config: Config) -> DistributedDataParallelKwargs:
    """Of several processes: while blocks are frozen, none waits for the gradients of their parameters."""
    return DistributedDataParallelKwargs(find_unused_parameters=config.optim.unfreeze_epochs > 0)


def check_folders(config: Config, folder: Path, folds: list[int], resume: bool):
    """Errors for folders that cannot be written, or that hold what would be overwritten."""
    for target in (folder, *(folder / f"fold{fold}" for fold in folds)):
        files.check_writable(target / "oof.npz", "train where the folder of runs can be written")
    for fold in folds:
        runs.check_fold(folder / f"fold{fold}", config, resume)


def choose_and_say_threads(config: Config, accelerator, given: int) -> int:
    """Threads that compute: those of the process that started this one, else what the config or the cores say."""
    workers = config.data.workers if accelerator.device.type == "cpu" else 0
    threads, text = (given, "") if given else choose_threads(config.threads, workers)
    accelerator.print(text, end="\n" * bool(text), flush=True)
    use_threads(threads)
    return threads


def train_in_parallel(config: Config, folds: list[int], options: argparse.Namespace):
    """One process a fold, `--jobs` at a time, each with its share of the free cores and of the time."""
    threads, text = choose_threads(config.threads, config.data.workers * options.jobs)
    shared = config.threads or max(1, threads // options.jobs)
    print(f"{plural(options.jobs, 'folds')} at a time, each on {shared} of {text}", flush=True)
    end, environment = clock.end_of_run(options.max_minutes), os.environ | {"TQDM_DISABLE": "1"}  # bars would collide
    waiting, running, failed = list(folds), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                until, fold = clock.end_of_fold(end, len(waiting), options.jobs), waiting.pop(0)
                command = [sys.executable, __file__, "--config", str(options.config), "--fold", str(fold), "--child"]
                command += ["--name", options.name] * bool(options.name) + ["--resume"] * options.resume
                command += ["--until", f"{until:.3f}"] * (until < math.inf) + ["--threads", str(shared)]
                command += ["--rounds-after", str(math.ceil(len(waiting) / options.jobs))]
                command += ["--take-lock"] * options.take_lock + ["--root", str(options.root), *options.overrides]
                running[fold] = children.start(command, environment)
            time.sleep(0.1)
            for fold in [f for f, process in running.items() if process.poll() is not None]:
                if running.pop(fold).returncode:
                    failed.append(fold)
    finally:
        children.end(running.values())
    if failed:
        raise ValueError(f"folds {failed} failed; their errors stand above")


def train_in_turn(
    config: Config, folds: list[int], folder: Path, data: PreparedData, accelerator, threads: int,
    options: argparse.Namespace,
):  # fmt: skip
    """One fold after the other in this process, each with its share of the time that is left."""
    end = options.until or clock.end_of_run(options.max_minutes)
    for n, fold in enumerate(folds):
        after = len(folds) - n - 1
        deadline = clock.monotonic(clock.end_of_fold(end, after + 1))
        lock = locked(folder / f"fold{fold}", options.take_lock) if accelerator.is_main_process else nullcontext()
        with lock, fewer_alike():
            train_fold(
                config, fold, folder, data, accelerator, resume=options.resume, deadline=deadline, threads=threads,
                rounds_after=after + options.rounds_after,
            )  # fmt: skip
    accelerator.end_training()


def train_fold(
    config: Config, fold: int, folder: Path, data: PreparedData, accelerator, resume: bool, deadline: float,
    threads: int, rounds_after: int = 0,
):  # fmt: skip
    """Train one fold to its end (or the deadline) and leave a complete fold folder."""
    fold_folder = folder / f"fold{fold}"
    train_data, held_out = clips_of_fold(config, fold, data, accelerator)
    run, origin = runs.FoldRun(fold_folder), origin_of(fold_folder, data.digests, config)
    finished = resume and run.finished
    if finished and accelerator.is_main_process:
        begin(run, origin)
    if finished and not lost_files(run):
        accelerator.print(f"fold {fold}: finished before; kept")
        return
    t = set_up(
        config,
        fold,
        fold_folder,
        train_data=train_data,
        held_out=held_out,
        classes=data.classes,
        accelerator=accelerator,
        deadline=deadline,
        rounds_after=rounds_after,
        origin=origin,
    )
    if accelerator.is_main_process:
        begin(runs.create_fold(fold_folder, config, resume), origin)
    accelerator.wait_for_everyone()
    t.progress.threads = threads
    if resume and (fold_folder / "last.ckpt").is_file():
        restore_checkpoint(t)
        keep_threads(t, threads)
    if resume:
        make_again(t, run)
    if finished:
        return
    announce(t)
    if not defines_watch(config, held_out):
        accelerator.print(
            f"fold {fold}: its held-out clips do not define {t.task.watch}: the last epoch's weights are kept"
        )
    tracker = start_tracker(config, fold_folder) if accelerator.is_main_process else None
    if not config.optim.epochs:  # the given weights, untouched
        log_epoch(t, {"epoch": 0, "steps": 0, "seconds": 0.0} | validate_and_keep(t), tracker)
    while t.progress.epoch < config.optim.epochs and not t.progress.out_of_time and not stop_early(t):
        started, first_step = time.monotonic(), t.progress.step
        with shortage_explained(config):
            train_one_epoch(t, tracker)
            finish_epoch(t, time.monotonic() - started, first_step, tracker)
    if row := judge_average(t):
        log_epoch(t, row, tracker)
        write_checkpoint(t)
    finish_fold(t)
    if tracker:
        tracker.finish()


def clips_of_fold(config: Config, fold: int, data: PreparedData, accelerator) -> tuple[PreparedData, PreparedData]:
    """The clips that train a fold, fewer where the config says so, and those that it holds out."""
    everything, held_out = data.split(fold, config.data.folds)
    train_data = everything.thinned(config.data, config.seed)
    if len(train_data.clips) < len(everything.clips):
        asked = {"train_share": config.data.train_share < 1, "clips_per_class": config.data.clips_per_class > 0}
        told = ", ".join(f"data.{key} {getattr(config.data, key):g}" for key, acts in asked.items() if acts)
        accelerator.print(f"fold {fold}: {len(train_data.clips)} of {len(everything.clips)} training clips ({told})")
    return train_data, held_out


def keep_threads(t: Training, threads: int):
    """Go on with the threads of the stopped run, for the same bits, unless the user says another number."""
    if t.config.threads or os.environ.get("OMP_NUM_THREADS") or not t.progress.threads:
        t.progress.threads = threads
    elif t.progress.threads != threads:
        t.accelerator.print(f"fold {t.fold}: going on with the {t.progress.threads} threads of before")
    use_threads(t.progress.threads)


def train_one_epoch(t: Training, tracker=None):
    """One pass over the training clips, from batch `progress.step` on: crop -> front end -> augment -> model."""
    config, p, accelerator = t.config, t.progress, t.accelerator
    loader = epoch_loader(t, p.epoch, p.step)
    loss_of = losses.build_loss(**vars(config.loss), classes=t.held_out.classes)
    start_epoch(t)
    for batch in main_bar(loader, f"fold {t.fold} epoch {p.epoch + 1}/{config.optim.epochs}", accelerator):
        generator = seed_step(config.seed, p.epoch, p.step, accelerator.process_index)
        p.unreadable |= dict(batch.pop("unreadable"))
        batch = on_device(batch, accelerator.device)
        set_learning_rate(t)
        with accelerator.accumulate(t.model):
            batch = augment_batch(batch, t.front_ends, config.augment.batch, generator)
            with mixed_maps(t.network, batch.pop("mixing", None)):
                out = t.model(**{name: batch[name] for name in t.inputs})
            loss = loss_of(out, batch) + guidance(t, out, batch)
            if not torch.isfinite(loss):
                raise_not_finite(loss, batch, p)
            accelerator.backward(loss)
            if config.optim.clip_norm and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(t.model.parameters(), config.optim.clip_norm)
            t.optimizer.step()
            t.optimizer.zero_grad()
        if t.ema and accelerator.sync_gradients:
            t.ema.update(t.network)
        p.step += 1
        p.loss_sum += loss.item()
        reached("step trained")
        if accelerator.sync_gradients:
            keep_on_the_way(t, tracker)
        if time_is_up(t):
            return


def keep_on_the_way(t: Training, tracker):
    """After a step within an epoch: a validation, a checkpoint, where the steps of the whole run ask for them."""
    p, o = t.progress, t.config.optim
    if p.step >= t.batches_an_epoch:
        return  # the epoch's end does both
    due = [every and t.steps % every == 0 for every in (o.validate_steps, o.checkpoint_steps)]
    if due[0]:
        log_epoch(t, {"epoch": p.epoch} | training_row(t) | validate_and_keep(t), tracker)
        start_epoch(t)
    if any(due):
        write_checkpoint(t)


def training_row(t: Training) -> dict:
    """What a line of log.csv says of the training so far."""
    p, first = t.progress, t.optimizer.param_groups[0]
    lr = first["lr"] / first.get("lr_scale", 1.0)
    return {"steps": t.steps, "loss": p.loss_sum / max(p.step, 1), "lr": lr}


def finish_epoch(t: Training, seconds: float, first_step: int, tracker):
    """Validate, keep the best weights with their OOF, write the log line and the checkpoint."""
    p, o = t.progress, t.config.optim
    reached("epoch trained")
    cut_short = p.out_of_time and p.step < t.batches_an_epoch
    if cut_short:
        write_checkpoint(t)  # --resume goes on in the middle of this epoch
        if p.best_epoch >= 0 and o.select == "best":
            return  # the best weights so far stand, with their OOF
    clips = (p.step - first_step) * o.batch_size * t.accelerator.num_processes
    speed = {"seconds": round(seconds, 2), "clips_per_second": round(clips / max(seconds, 1e-9), 2)}
    row = {"epoch": p.epoch} | training_row(t) | speed
    if p.out_of_time or p.epoch + 1 >= o.epochs or (p.epoch + 1) % o.validate_every == 0:
        row |= validate_and_keep(t)
        reached("epoch validated")
    log_epoch(t, row, tracker)
    if not cut_short:
        collect(t)
        p.epoch, p.step, p.loss_sum = p.epoch + 1, 0, 0.0
        write_checkpoint(t)


def log_epoch(t: Training, row: dict, tracker):
    """One more row of log.csv, printed and tracked as well."""
    t.progress.log.append(row)
    t.accelerator.print(epoch_line(t.fold, row, t.task.watch, t.config.optim.epochs, clock.left_text(t)))
    if tracker:
        tracker.log(row)
    if t.accelerator.is_main_process:
        files.write_rows(t.folder / "log.csv", t.progress.log)


if __name__ == "__main__":
    run_script(main, RuntimeError, resume=True)

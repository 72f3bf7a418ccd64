"""The moving parts around the training loop of train.py: set-up, seeding, validation, checkpoints, the fold's files."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, utils
from tqdm import tqdm

from earshot import files, optim, runs, tasks
from earshot.augment.hidden import attach_spec_augment_pp
from earshot.augment.pipeline import BatchAugment
from earshot.augment.spectrogram import build_spec_augment
from earshot.augment.waveform import build_waveform_augment
from earshot.config import AugmentConfig, Config, to_dict
from earshot.data import sampling
from earshot.data.prepared import PreparedData
from earshot.ensemble.search import truth_of
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.messages import few
from earshot.metrics import clips as clip_metrics
from earshot.models import blocks as network_blocks
from earshot.models import counting
from earshot.models.weights import LoadReport, load_weights, resolve
from earshot.pictures import folds as fold_pictures
from earshot.prediction import predictions
from earshot.prediction.backends import TorchBackend
from earshot.prediction.inference import clip_answer, predict_clips
from earshot.training.examples import TrainingClips, collate
from earshot.training.frozen import check_frozen, extractor_cache


@dataclass
class Progress:
    """Where training stands; with the tensors in last.ckpt it is all that --resume needs."""

    epoch: int = 0
    step: int = 0  # batches done in this epoch
    loss_sum: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    log: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    out_of_time: bool = False


@dataclass
class Training:
    """The moving parts of one fold."""

    config: Config
    fold: int
    folder: Path
    model: torch.nn.Module  # prepared: the network in whatever wraps it
    optimizer: torch.optim.Optimizer
    ema: optim.EMA | None
    inputs: tuple[str, ...]  # what the network takes in training: its own, or cached embeddings
    blocks: list[network_blocks.Block]
    front_ends: FrontEnds
    augment: BatchAugment
    clips: TrainingClips
    held_out: PreparedData
    about: dict
    accelerator: Accelerator
    deadline: float
    progress: Progress

    @property
    def network(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @property
    def watch(self) -> str:
        """Name of the score that selects the checkpoint."""
        return self.config.watch or tasks.get_task(self.config.task).watch

    @property
    def batches_an_epoch(self) -> int:
        o = self.config.optim
        return sampling.n_batches(
            len(self.clips), o.batch_size, o.drop_last, self.accelerator.num_processes, o.accumulate
        )


def set_up(config, fold, folder, train_data, held_out, classes, accelerator, deadline) -> Training:
    """Build everything; the initial weights depend on (seed, fold) alone."""
    torch.manual_seed(np.random.SeedSequence([config.seed, fold]).generate_state(1)[0].item())
    network = runs.make_model(config, len(classes))
    check_classes(fold, train_data.target, classes, config.loss.name)
    check_inputs(network, config)
    check_budget(network, config)
    if config.model.weights:
        accelerator.print(load_start(network, config))
    network.spec_augment = build_spec_augment(config.augment.spec_augment)
    attach_spec_augment_pp(network, config.augment.spec_augment_pp)
    check_frozen(network, config)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
    for name, parameter in network.named_parameters():  # published but unused: several processes would wait for them
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(network.dead_parameters))
    blocks, o = network_blocks.depth_blocks(network), config.optim
    optimizer = optim.build_optimizer(o.name, network, o.lr, o.weight_decay, o.lookahead, o.layer_decay)
    prior = (train_data.target * train_data.mask).sum(0) / np.maximum(train_data.mask.sum(0), 1)
    heard = config.inputs(network.inputs)
    grid = heard.timebase(network.pool)
    about = runs.describe_run(config, fold, classes, prior, grid)
    about["parameters"] = sum(p.numel() for p in network.parameters())
    model, optimizer = accelerator.prepare(network, optimizer)
    cache, embeddings, inputs = Path(config.data.root) / "cache", None, network.inputs
    if config.data.cache == "embedding":
        inputs = ("embedding",)
        with accelerator.main_process_first():
            embeddings = extractor_cache(
                network, config, train_data, cache, accelerator.device,
                lambda files: progress_bar(files, "embed", accelerator),
            )  # fmt: skip
    clips = TrainingClips(
        train_data, config.data, heard, config.seed, build_waveform_augment(config.augment.waveform), cache,
        embeddings,
    )  # fmt: skip
    ema = optim.EMA(accelerator.unwrap_model(model), o.ema_decay) if o.ema_decay else None
    front_ends = FrontEnds(config.inputs(inputs)).to(accelerator.device)
    augment = batch_augment(config.augment)
    return Training(config, fold, folder, model, optimizer, ema, inputs, blocks, front_ends, augment, clips, held_out,
                    about, accelerator, deadline, Progress())  # fmt: skip


def check_classes(fold: int, target: np.ndarray, classes, loss: str):
    """Error where a loss that tells classes apart gets training clips, (N, K), of one class alone."""
    found = [str(c) for c, there in zip(classes, (target > 0.5).any(axis=0), strict=True) if there]
    if loss == "cross_entropy" and len(found) < 2:
        raise ValueError(
            f"fold {fold} trains on clips of {len(found)} classes ({few(found)}): loss cross_entropy tells classes "
            "apart and needs two; look at the fold table that src/make_folds.py printed"
        )


def check_inputs(network: torch.nn.Module, config: Config):
    """Error for augmentation, channels or a cache that this network's inputs do not allow, with what to set instead."""
    a, heard = config.augment, config.inputs(network.inputs)
    reads = f"{config.model.name} reads {' and '.join(network.inputs)}"
    check_channels(network, heard, config.model.name)
    if config.data.cache == "logmel" and not heard.cacheable:
        raise ValueError(f"data.cache=logmel leaves no waveform, and {reads}: set data.cache=waveform")
    on_logmel = {
        "logmel": a.logmel, "image": a.image, "spec_augment": build_spec_augment(a.spec_augment),
        "spec_augment_pp": a.spec_augment_pp,
    }  # fmt: skip
    for key, value in on_logmel.items():
        if value and not heard.of(picture=True):
            raise ValueError(f"augment.{key} acts on a log-mel: {reads}. Leave it out (SpecAugment: 0 stripes)")
    for key, value in (("mixup_on=logmel", a.mixup_on == "logmel"), ("fmix_p", a.fmix_p)):
        if value and heard.of(kind="waveform"):
            raise ValueError(f"augment.{key} would mix the labels of what is not mixed: {reads}; set "
                             "augment.mixup_on=waveform")  # fmt: skip


def check_channels(network: torch.nn.Module, heard: Inputs, name: str):
    """Error where an input has two channels and the network takes one."""
    taken = getattr(network, "in_chans", getattr(getattr(network, "base", None), "in_chans", 1))
    for key, record in heard.items():
        if record.sounds and record.n_channels > 1 and not (record.picture and taken == record.n_channels):
            raise ValueError(
                f"input '{key}' has two channels ({record.channels}), {name} takes {taken if record.picture else 1} of "
                f"it: set model.params.in_chans=2 if it has that, or frontends.{key}.channels=mono"
            )


def check_budget(network: torch.nn.Module, config: Config):
    """Refuse a network over the config's budget, with both figures and both limits."""
    b, samples = config.budget, round(config.window_seconds * config.data.sample_rate)
    if b.parameters_kb or b.mmacs:
        costs = counting.count(network, config.inputs(network.inputs), samples)
        counting.check_budget(config.model.name, network, costs, b.parameters_kb, b.mmacs)


def batch_augment(a: AugmentConfig) -> BatchAugment:
    """What the config does to a batch before the model sees it."""
    return BatchAugment(
        a.logmel, a.image, a.mixup_on, a.mixup_alpha, a.mixup_p, a.mixup_per_clip, a.mixup_domain,
        a.fmix_p, a.fmix_alpha, a.fmix_decay,
    )  # fmt: skip


def load_start(network: torch.nn.Module, config: Config) -> LoadReport:
    """Load the weights that training starts from; missing ones are an error that says how to go without."""
    try:
        path = resolve(config.model.weights, config.model.download)
    except ValueError as error:
        raise ValueError(f"{error}; to train from random weights: model.weights=") from error
    front_end = next((r for r in config.inputs(network.inputs).values() if r.kind == "logmel"), None)
    return load_weights(network, path, config.model.drop, front_end, getattr(network, "weights_prefix", ""))


def seed_step(seed: int, epoch: int, step: int, process: int) -> torch.Generator:
    """Seed torch (dropout, SpecAugment) and return the generator for mixing: a step's stream needs no history."""
    state = np.random.SeedSequence([seed, epoch, step, process]).generate_state(2)
    torch.manual_seed(int(state[0]))
    return torch.Generator().manual_seed(int(state[1]))


def start_epoch(t: Training):
    """Training mode; with optim.unfreeze_epochs only the blocks whose time has come learn. The epoch alone decides."""
    t.model.train()
    if every := t.config.optim.unfreeze_epochs:
        network_blocks.unfreeze(t.blocks, 1 + t.progress.epoch // every)


def set_learning_rate(t: Training):
    """The schedule of optim.learning_rate at this step, times a parameter group's own `lr_scale`."""
    o, steps = t.config.optim, t.batches_an_epoch // t.config.optim.accumulate
    step = t.progress.epoch * steps + t.progress.step // o.accumulate
    lr = optim.learning_rate(step, steps, o.epochs, o.warmup_epochs, o.lr, o.min_lr, o.schedule)
    for group in t.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def raise_not_finite(loss, batch: dict, p: Progress):
    raise RuntimeError(
        f"loss is {loss.item()} at epoch {p.epoch}, step {p.step}; clips {', '.join(map(str, batch['clip_id']))}. "
        "Lower optim.lr, set optim.clip_norm, or look at these clips"
    )


def time_is_up(t: Training) -> bool:
    """All processes agree: the slowest of them decides. A validation as long as the last one still has to fit."""
    if t.deadline == math.inf:
        return False
    needed = max((row.get("validation_seconds", 0) for row in t.progress.log), default=0)
    late = torch.tensor(float(time.monotonic() + 1.2 * needed > t.deadline), device=t.accelerator.device)
    t.progress.out_of_time = bool(t.accelerator.reduce(late, "sum").item() > 0)
    return t.progress.out_of_time


def validate(t: Training, some: PreparedData | None = None) -> tuple[predictions.Predictions, dict[str, str]]:
    """Predict the held-out (or `some`) clips by the inference code, each process its share, every clip exactly once."""
    accelerator, clips = t.accelerator, (some or t.held_out).recordings()
    mine = clips[accelerator.process_index :: accelerator.num_processes]
    windowing = runs.windowing(t.config)
    windowing = replace(windowing, keep_frames=windowing.keep_frames and t.config.predict.oof_frames)
    found, unreadable = predict_clips(
        [predicting_backend(t)], mine, windowing, t.about["classes"], t.about["prior"], t.fold,
        progress=lambda some: progress_bar(some, "validate", accelerator),
    )  # fmt: skip
    parts = utils.gather_object([(found[0], dict(unreadable))])
    whole = predictions.join([p for p, _ in parts if len(p)])
    predictions.check_complete(whole, [c.clip_id for c in clips], f"fold {t.fold}")
    return whole.aligned([c.clip_id for c in clips]), {k: v for _, u in parts for k, v in u.items()}


def score_training_clips(t: Training) -> dict[str, float]:
    """`train_<watch>`: the watched score on optim.score_training of the training clips, the same ones every epoch."""
    if not t.config.optim.score_training:
        return {}
    everything = t.clips.prepared
    order = np.random.default_rng([t.config.seed, 0x7A]).permutation(len(everything.clips))
    chosen = np.sort(order[: t.config.optim.score_training])
    some = everything.take(chosen)
    found, _ = validate(t, some)
    truth = tasks.Truth(t.clips.target[chosen] > 0.5, some.clip_events(found.clip_ids))
    scores = tasks.score_readable(tasks.get_task(t.config.task), found, truth)
    return {f"train_{t.watch}": scores[t.watch]} if t.watch in scores else {}


def score_box_crops(t: Training, readable: np.ndarray) -> dict[str, float]:
    """`crop_lwlrap` where data.crop is box, else nothing: one box crop a held-out clip against that crop's labels.

    The score that the rainforest system's source prints and selects on. A crop depends on (seed, clip) alone, so that
    epochs compare. `readable` (N,) of the held-out clips; those without a label are left out too.
    """
    accelerator, clips = t.accelerator, t.held_out.take(readable & t.held_out.target.any(axis=1))
    if t.config.data.crop != "box":
        return {}
    data = replace(t.config.data, cache="none", shuffle_labels=False, false_positives=False, frame_targets=False)
    crops = TrainingClips(clips, data, t.clips.inputs, t.config.seed)
    mine = range(accelerator.process_index, len(crops), accelerator.num_processes)
    size, pairs = runs.windowing(t.config).batch_size, []
    for some in (mine[i : i + size] for i in range(0, len(mine), size)):
        pairs.append(_predict_crops(t, collate([crops[(0, i)] for i in some])))
    pairs = utils.gather_object(pairs)
    if not any(target.any() for target, _ in pairs):
        return {}
    return {"crop_lwlrap": clip_metrics.lwlrap(*map(np.concatenate, zip(*pairs, strict=True)))}


def _predict_crops(t: Training, batch: dict) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) targets and answers of a batch of crops."""
    on_device = {k: v.to(t.accelerator.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    inputs = {name: value.cpu().numpy() for name, value in t.front_ends(on_device).items()}
    answers = clip_answer(predicting_backend(t).run(inputs), t.config.predict.clip_from)
    return batch["target"].numpy() > 0.5, answers


def predicting_backend(t: Training) -> TorchBackend:
    network = predicting_network(t)
    return TorchBackend(network, t.config.inputs(network.inputs), t.accelerator.device, t.config.optim.precision)


def predicting_network(t: Training) -> torch.nn.Module:
    """The weights that are validated and saved: the moving average where there is one."""
    return t.ema.module if t.ema else t.network


def stop_early(t: Training) -> bool:
    patience = t.config.optim.early_stop_epochs
    waited = t.progress.epoch - 1 - t.progress.best_epoch
    if patience and waited >= patience:
        t.accelerator.print(f"fold {t.fold}: no better score for {waited} epochs; stopping")
        return True
    return False


def finish_fold(t: Training):
    """run.json, the list of unreadable clips and the pictures: after this the fold is complete."""
    p = t.progress
    cut_short = p.out_of_time and p.epoch < t.config.optim.epochs
    if not t.accelerator.is_main_process:
        return
    scored = next((row for row in reversed(p.log) if row["epoch"] == p.best_epoch), {})
    about = t.about | {
        "finished": not cut_short, "epochs_trained": p.epoch, "best_epoch": p.best_epoch,
        "scores": {k: v for k, v in scored.items() if isinstance(v, (int, float))},
    }  # fmt: skip
    files.write_text(t.folder / "run.json", json.dumps(about, indent=1))
    files.write_rows(
        t.folder / "unreadable.csv", [{"clip_id": k, "reason": v} for k, v in sorted(p.unreadable.items())]
    )
    if p.unreadable:
        print(f"fold {t.fold}: {len(p.unreadable)} clips could not be read; see {t.folder / 'unreadable.csv'}")
    fold_pictures.learning_curves(p.log, t.watch, t.folder / "curves.png")
    oof = predictions.Predictions.load(t.folder / "oof.npz")
    truth = truth_of(oof, t.held_out)
    fold_pictures.class_scores(oof, truth.target, t.folder / "classes.png")
    tasks.draw_pictures(tasks.get_task(t.config.task), oof, truth, t.folder)
    trained_on = (t.clips.prepared.target > 0.5).sum(axis=0)
    files.write_rows(t.folder / "classes.csv", tasks.class_table(oof, t.held_out.target, trained_on))
    if cut_short:
        print(f"fold {t.fold}: out of time after {p.epoch} whole epochs; the OOF is valid, --resume goes on")


def checkpoint(t: Training):
    if not t.accelerator.is_main_process:
        return
    scaler = t.accelerator.scaler
    state = {
        "model": t.network.state_dict(), "optimizer": t.optimizer.state_dict(),
        "ema": t.ema.state_dict() if t.ema else None, "scaler": scaler.state_dict() if scaler else None,
        "progress": {**vars(t.progress), "out_of_time": False},
    }  # fmt: skip
    runs.save_checkpoint(t.folder / "last.ckpt", state)


def restore(t: Training):
    """The opposite of `checkpoint`, on every process."""
    state = runs.load_checkpoint(t.folder / "last.ckpt")
    t.network.load_state_dict(state["model"])
    t.optimizer.load_state_dict(state["optimizer"])
    if t.ema:
        t.ema.load_state_dict(state["ema"])
    if state["scaler"] and t.accelerator.scaler:
        t.accelerator.scaler.load_state_dict(state["scaler"])
    t.progress = Progress(**state["progress"])
    t.accelerator.print(f"fold {t.fold}: resuming at epoch {t.progress.epoch}, batch {t.progress.step}")


def announce(t: Training):
    """The derived numbers, once, where mistakes show."""
    o, n = t.config.optim, t.accelerator.num_processes
    parameters = sum(p.numel() for p in t.network.parameters()) / 1e6
    grid = predictions.TimeBase(*t.about["timebase"])
    t.accelerator.print(
        f"fold {t.fold}: {t.config.model.name} {parameters:.2f} M parameters | {len(t.clips)} clips train, "
        f"{len(t.held_out.clips)} held out | {n * o.accumulate} x {o.batch_size} = {n * o.accumulate * o.batch_size} "
        f"clips a step, {t.batches_an_epoch // o.accumulate} steps an epoch | "
        f"frame {1000 * grid.frame_seconds:.0f} ms | lr {o.lr:g} {o.schedule} | "
        f"{t.accelerator.device} {o.precision} | {t.folder}"
    )
    announce_skipped(t)


def announce_skipped(t: Training):
    """The classes that the balanced sampler cannot give a turn."""
    if t.clips.turns and len(t.clips.turns.empty):
        names = [t.about["classes"][k] for k in t.clips.turns.empty]
        t.accelerator.print(f"fold {t.fold}: no training clip, so no turn, for {len(names)} classes: {few(names)}")


def line(fold: int, row: dict, watch: str) -> str:
    """One line an epoch."""
    shown = [
        k
        for k in (watch, "map", "macro_f1_argmax", "accuracy", "pauc", "micro_auprc", "event_f1", "crop_lwlrap")
        if k in row
    ]
    scores = " ".join(f"{k} {row[k]:.4f}" for k in dict.fromkeys(shown))
    return f"fold {fold} epoch {row['epoch']:3d} | loss {row['loss']:.4f} | {scores} | {row['seconds']:.1f} s"


def progress_bar(items, description: str, accelerator):
    quiet = not accelerator.is_main_process or not sys.stderr.isatty()
    return tqdm(items, desc=description, leave=False, disable=quiet)


def start_wandb(t: Training):
    """A wandb run when the config names a project (WANDB_MODE=offline needs no account), else None."""
    if not t.config.wandb or not t.accelerator.is_main_process:
        return None
    import wandb

    name = f"{t.folder.parent.name}/{t.folder.name}"
    return wandb.init(project=t.config.wandb, name=name, dir=str(t.folder), config=to_dict(t.config))

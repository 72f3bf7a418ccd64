"""Names by which other trainers know settings -> the keys here, for errors that say what was probably meant."""

from __future__ import annotations

import dataclasses

from earshot.inputs.logmel import Logmel

USUAL = {
    name: key
    for key, names in {
        "seed": "random_seed random_state",
        "watch": "metric monitor",
        "track": "logger wandb_project",
        "data.root": "data data_dir data_path dataset",
        "data.folds": "folds_csv fold_table",
        "data.sample_rate": "sr fs samplerate sampling_rate target_sr",
        "data.crop_seconds": "duration clip_seconds clip_duration segment_seconds chunk_seconds crop_length",
        "data.workers": "num_workers n_workers dataloader_workers",
        "model.name": "model model_name backbone arch architecture encoder network",
        "model.weights": "pretrained checkpoint ckpt ckpt_path init_checkpoint",
        "model.params.dropout": "dropout drop_rate",
        "augment.batch.mixup_p": "mixup mixup_prob",
        "augment.batch.cutmix_p": "cutmix cutmix_prob",
        "augment.spec_augment": "specaug specaugment",
        "loss.name": "loss loss_fn loss_function loss_type criterion",
        "loss.params.label_smoothing": "label_smoothing smoothing",
        "loss.class_weights": "pos_weight class_weight",
        "optim.name": "optim optimizer optimiser opt",
        "optim.lr": "learning_rate base_lr max_lr initial_lr",
        "optim.weight_decay": "wd decay",
        "optim.schedule": "scheduler lr_scheduler lr_schedule",
        "optim.warmup_epochs": "warmup num_warmup_epochs",
        "optim.epochs": "epoch num_epochs n_epochs nepochs max_epochs num_train_epochs",
        "optim.batch_size": "bs batch batchsize train_batch_size",
        "optim.accumulate": "accumulation accumulation_steps grad_accum gradient_accumulation_steps",
        "optim.clip_norm": "grad_clip clip_grad gradient_clip gradient_clip_val max_grad_norm clip_grad_norm",
        "optim.precision": "amp fp16 bf16 mixed_precision use_amp",
        "optim.ema_decay": "ema use_ema",
        "optim.early_stop_epochs": "patience early_stopping early_stop",
        "frontends.logmel.n_fft": "nfft fft_size window_size win_size",
        "frontends.logmel.hop_length": "hop hop_size",
        "frontends.logmel.n_mels": "num_mels mel_bins nmels num_mel_bins",
        "frontends.logmel.fmin": "f_min",
        "frontends.logmel.fmax": "f_max",
    }.items()
    for name in names.split()
} | {
    field.name: f"frontends.logmel.{field.name}"
    for field in dataclasses.fields(Logmel)
    if field.name not in ("sample_rate", "channels")  # which data has too
}


def usual_key(name: str) -> str:
    """The key that is meant by a usual name, upper or lower case, with hyphens or underscores; '' of any other."""
    return USUAL.get(name.lower().replace("-", "_"), "")

"""What bench_gpu.py measures with: a watch around any loader, the published loop, a process of the equality."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch


class Watched:
    """Counts clips and seconds of a loop by its loader, after `warm` batches, until `seconds` are over.

    The clock starts and stops when the device has done all that was asked of it.
    """

    def __init__(self, device: str, seconds: float, batch: int, warm: int):
        self.device, self.limit, self.batch, self.warm = device, seconds, batch, warm
        self.seen = self.clips = 0
        self.began = self.waited = self.seconds = 0.0
        self.done = False

    def watch(self, loader: Iterable) -> Iterator:
        """The loader's batches; ends early when the time is over."""
        batches = iter(loader)
        while not self.done:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._note(time.monotonic() - asked)
            if not self.done:
                yield batch

    def _note(self, waited: float):
        """A batch came after so many seconds of waiting: the step before it is over."""
        self.seen += 1
        if self.seen <= self.warm:
            return
        if self.seen == self.warm + 1:
            self._synchronise()
            self.began = time.monotonic()
            return
        self.clips, self.waited = self.clips + self.batch, self.waited + waited
        if time.monotonic() - self.began > self.limit:
            self._synchronise()
            self.seconds, self.done = time.monotonic() - self.began, True

    def _synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    @property
    def clips_per_second(self) -> float:
        return self.clips / max(self.seconds, 1e-9)

    @property
    def wait_share(self) -> float:
        return self.waited / max(self.seconds, 1e-9)


# the published loop


class Hdf5Clips(torch.utils.data.Dataset):
    """(waveform float32, target) of rows that share the clips of one HDF5 file of 16-bit waveforms."""

    def __init__(self, path: Path, classes: int, rows: int):
        import h5py

        self.path, self.classes, self.rows, self.file = path, classes, rows, None
        with h5py.File(path, "r") as file:
            self.clips = len(file["waveform"])

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict:
        import h5py

        self.file = self.file or h5py.File(self.path, "r")  # in each worker its own
        index = row % self.clips
        target = np.zeros(self.classes, np.float32)
        target[index % self.classes] = 1
        return {"waveform": (self.file["waveform"][index] / 32767.0).astype(np.float32), "target": target}


def plain_loader(path: Path, classes: int, rows: int, batch: int, workers: int, device: str):
    """Shuffled batches by workers, pinned for a GPU."""
    return torch.utils.data.DataLoader(
        Hdf5Clips(path, classes, rows), batch_size=batch, shuffle=True, drop_last=True, num_workers=workers,
        pin_memory=device == "cuda",
    )  # fmt: skip


class PlainFrontEnd(torch.nn.Module):
    """Waveforms (B, S) -> log-mels (B, 1, T, F) by torchlibrosa on the device."""

    def __init__(self, params):
        super().__init__()
        from torchlibrosa.stft import LogmelFilterBank, Spectrogram

        self.spectrogram = Spectrogram(params.n_fft, params.hop_length, params.n_fft, freeze_parameters=True)
        self.mel = LogmelFilterBank(
            params.sample_rate, params.n_fft, params.n_mels, params.fmin, params.fmax, top_db=None,
            freeze_parameters=True,
        )  # fmt: skip

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.mel(self.spectrogram(waveform))


def plain_steps(model: torch.nn.Module, loader, watched: Watched, front_end, device: str):
    """Float32 steps of Adam with mixup of the batch's clips and SpecAugment, until the watch is done."""
    from torchlibrosa.augmentation import SpecAugmentation

    hear = PlainFrontEnd(front_end).to(device)
    model.spec_augment = SpecAugmentation(
        time_drop_width=64, time_stripes_num=2, freq_drop_width=8, freq_stripes_num=2
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)
    rng = np.random.default_rng(0)
    while not watched.done:
        for batch in watched.watch(loader):
            waveform, target = batch["waveform"].to(device), batch["target"].to(device)
            share = torch.from_numpy(rng.beta(1.0, 1.0, len(waveform)).astype(np.float32)).to(device)
            logmel = hear(waveform)
            mixed = share[:, None, None, None] * logmel + (1 - share[:, None, None, None]) * logmel.flip(0)
            target = share[:, None] * target + (1 - share[:, None]) * target.flip(0)
            answer = model(logmel=mixed)["clipwise_output"]
            loss = torch.nn.functional.binary_cross_entropy(answer.clamp(0, 1), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # as the published loop prints it


# two processes


def steps_of_share(folder: Path, device: str, steps: int = 3, together: int = 8):
    """Three steps on this process's share of `together` made clips a step; the main process writes `answer.npz`.

    Batch norms rest and nothing is dropped: else each process would have statistics and chance of its own.
    """
    from accelerate import Accelerator

    from earshot import losses, optim
    from earshot.data import sampling
    from earshot.models import build_model

    accelerator = Accelerator(cpu=device == "cpu")
    torch.manual_seed(0)
    model = build_model("cnn_small", 5, 64, {"dropout": 0.0}).eval()
    optimizer = optim.build_optimizer("sgd", model, 0.05, 1e-4)
    model, optimizer = accelerator.prepare(model, optimizer)
    rng, n = np.random.default_rng(0), steps * together
    sounds = rng.standard_normal((n, 1, 64, 64)).astype(np.float32)
    targets = (rng.random((n, 5)) < 0.3).astype(np.float32)
    share = together // accelerator.num_processes
    batches = sampling.epoch_batches(
        n, share, 0, 0, process=accelerator.process_index, processes=accelerator.num_processes
    )
    loss_of, heard = losses.build_loss("bce"), []
    for batch in batches:
        index = [key[1] for key in batch]
        target = torch.from_numpy(targets[index]).to(accelerator.device)
        out = model(logmel=torch.from_numpy(sounds[index]).to(accelerator.device))
        loss = loss_of(out, {"target": target, "mask": torch.ones_like(target)})
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        heard.append(accelerator.reduce(loss.detach(), "mean").item())
    if accelerator.is_main_process:
        weights = {k: v.float().cpu().numpy() for k, v in accelerator.unwrap_model(model).state_dict().items()}
        np.savez(folder / "answer.npz", __loss__=np.array(heard), **weights)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def largest_difference(one, two) -> tuple[float, float]:
    """Answers of the same steps -> the largest difference of a loss, and of a weight."""
    loss = float(np.abs(one["__loss__"] - two["__loss__"]).max())
    names = [name for name in one if name != "__loss__"]
    return loss, max(float(np.abs(one[name] - two[name]).max()) for name in names)

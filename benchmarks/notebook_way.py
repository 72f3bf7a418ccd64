"""How notebooks predict a recording: librosa.load, a waveform a window, torchlibrosa, eager PyTorch, Python loops."""

from __future__ import annotations

import numpy as np

ROW_SECONDS = 5


class Notebook:
    """librosa.load, windows one by one (overlapping ones in one batch), torchlibrosa, eager PyTorch, Python loops."""

    def __init__(self, model, run, batched: bool):
        from torchlibrosa.stft import LogmelFilterBank, Spectrogram

        self.config, self.classes, self.model, self.batched = run.config, run.folds[0].about["classes"], model, batched
        p = run.config.frontends["logmel"]
        self.spectrogram = Spectrogram(p.n_fft, p.hop_length, p.n_fft)
        self.mel = LogmelFilterBank(p.sample_rate, p.n_fft, p.n_mels, p.fmin, p.fmax, top_db=None)

    def windows(self, clip):
        """(start in frames, (T, K) framewise output) of every window."""
        import librosa
        import torch

        rate, hop = self.config.data.sample_rate, self.config.frontends["logmel"].hop_length
        waveform, _ = librosa.load(str(clip.path), sr=rate)
        window, stride = self.config.predict.window_samples, self.config.predict.stride_samples
        starts = list(range(0, max(1, len(waveform) - window + 1), stride))
        pieces = torch.from_numpy(np.stack([waveform[s : s + window] for s in starts]))
        with torch.no_grad():
            batches = [pieces] if self.batched else pieces.split(1)
            outputs = [self.model(logmel=self.mel(self.spectrogram(b)))["framewise_output"] for b in batches]
        return [(s // hop, frames[: window // hop]) for s, frames in zip(starts, torch.cat(outputs).numpy())]

    def frames(self, clip) -> np.ndarray:
        """(T, K) of the recording, the mean where windows overlap."""
        windows = self.windows(clip)
        total = windows[-1][0] + len(windows[-1][1])
        sums, counts = np.zeros((total, len(self.classes)), np.float32), np.zeros((total, 1))
        for start, frames in windows:
            sums[start : start + len(frames)] += frames
            counts[start : start + len(frames)] += 1
        return (sums / counts).astype(np.float32)

    def rows(self, clip, threshold: float) -> dict[str, str]:
        """Row id -> labels: frames to a list of events to rows, by loops."""
        frames = self.frames(clip)
        hop = self.config.frontends["logmel"].hop_length / self.config.data.sample_rate
        events = []
        for k, label in enumerate(self.classes):
            above = np.argwhere(frames[:, k] > threshold).reshape(-1).tolist()
            while above:
                onset = offset = above.pop(0)
                while above and above[0] == offset + 1:
                    offset = above.pop(0)
                some = frames[onset : offset + 1, k]
                events.append((label, onset * hop, (offset + 1) * hop, some.max(), some.mean()))
        rows = {}
        for row in range(round(len(frames) * hop / ROW_SECONDS)):
            labels = set()
            for label, onset, offset, _, _ in events:
                if onset < (row + 1) * ROW_SECONDS - 1e-9 and offset > row * ROW_SECONDS + 1e-9:
                    labels.add(label)
            rows[f"site_1_{clip.clip_id}_{(row + 1) * ROW_SECONDS}"] = " ".join(sorted(labels)) or "nocall"
        return rows

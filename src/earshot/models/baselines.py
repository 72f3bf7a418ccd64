"""What SE-Trans was compared with: plain CNNs, a recurrent one, and the official baselines of the three challenges.

CNN5, CNN9 and CNN13 are Kong et al. 2019's (cross-task baselines): blocks, then the mean over frequency and the maximum
over time. A 2x2 pooling follows every block but the last of CNN13, which would halve 40 mels to nothing.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models import panns
from earshot.models.layers import ACTIVATIONS, ConvBlock, SEDHead, init_layer, normalised_input, single_answer
from earshot.models.timm_sed import create_backbone

CNN9_WIDTHS = (64, 128, 256, 512)


class CrossTaskCnn(nn.Module):
    """logmel (B, in_chans, T, n_mels) -> dict; blocks of `convs` convolutions, all but the last pooled if `pool_last`
    is False."""

    inputs = ("logmel",)
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...] = CNN9_WIDTHS,
        kernel_size: int = 3,
        convs: int = 2,
        pool_last: bool = True,
        activation: str = "sigmoid",
        in_chans: int = 1,
    ):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        poolings = len(widths) - (not pool_last)
        _check_mels(n_mels, 2**poolings)
        self.pool = self.min_frames = 2**poolings
        self.in_chans, self.activation = in_chans, activation
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        for i, width in enumerate(widths, start=1):
            pool = (2, 2) if i <= poolings else (1, 1)
            self.add_module(f"conv_block{i}", ConvBlock(in_chans, width, kernel_size, convs, pool))
            in_chans = width
        self.fc = init_layer(nn.Linear(in_chans, classes))

    def features(self, logmel: Tensor) -> Tensor:
        """Compute the features that the head reads.

        (B, C, T, F) -> (B, widths[-1], T // pool), averaged over frequency.
        """
        x = normalised_input(self, logmel)
        for name, block in self.named_children():
            if name.startswith("conv_block"):
                x = block(x)
        return x.mean(dim=3)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        return single_answer(self.fc, self.features(logmel).amax(dim=2), self.activation)


cnn5 = partial(CrossTaskCnn, widths=(128, 128, 256, 512), kernel_size=5, convs=1)
cnn9 = partial(CrossTaskCnn, widths=CNN9_WIDTHS)
cnn13 = partial(CrossTaskCnn, widths=(*CNN9_WIDTHS, 1024, 2048), pool_last=False)


class CnnBiGruAvg(CrossTaskCnn):
    """CNN-biGRU-Avg: CNN9's features over time, a bidirectional GRU, one linear layer a segment, the mean over time.

    sigmoid averages probabilities, softmax logits. 256 units a direction give the paper's 5.8 M parameters.
    """

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...] = CNN9_WIDTHS,
        units: int = 256,
        activation: str = "sigmoid",
        in_chans: int = 1,
    ):
        super().__init__(classes, n_mels, widths, activation=activation, in_chans=in_chans)
        self.gru = nn.GRU(widths[-1], units, bidirectional=True, batch_first=True)
        self.fc = SEDHead(2 * units, classes, "mean", activation)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x, _ = self.gru(self.features(logmel).transpose(1, 2))
        return {**self.fc(x, logmel.shape[2], self.pool), "embedding": x.float().mean(dim=1)}


class ScenesBaseline(nn.Module):
    """DCASE 2021 task 1A: three 7x7 convolutions (16, 16, 32), max pooling, one hidden layer of 100.

    The official pooling (5 x 5, then 4 bands x 100 frames) leaves one time step of 500 frames; ours takes the maximum
    over all of them, the same there and defined for any length.
    """

    inputs = ("logmel",)
    pool = min_frames = 5
    dead_parameters = ()

    def __init__(self, classes: int, n_mels: int, dropout: float = 0.3, activation: str = "sigmoid", in_chans: int = 1):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        _check_mels(n_mels, 20)
        self.in_chans, self.activation, self.dropout = in_chans, activation, dropout
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        for i, width in enumerate((16, 16, 32), start=1):
            self.add_module(f"conv{i}", init_layer(nn.Conv2d(in_chans, width, 7, padding=3)))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            in_chans = width
        self.fc1 = init_layer(nn.Linear(32 * (n_mels // 5 // 4), 100))
        self.fc = init_layer(nn.Linear(100, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = normalised_input(self, logmel)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.dropout(F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 5), self.dropout, self.training)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), (1, 4)).amax(dim=2)
        x = F.relu(self.fc1(F.dropout(x.flatten(1), self.dropout, self.training)))
        return single_answer(self.fc, F.dropout(x, self.dropout, self.training), self.activation)


class UrbanBaseline(nn.Module):
    """DCASE 2020 task 5: one hidden layer of 128 on each second's embedding, auto-pool over the seconds.

    The official embedding is OpenL3's. `extractor` is what takes its place: "statistics" (mean, deviation, minimum and
    maximum of each mel bin), or a PANNs network, frozen, whose weights are `pretrained` (a file). `piece_frames` are
    the frames of a second.
    """

    inputs = ("logmel",)
    EXTRACTORS = ("statistics", "cnn6", "cnn10", "cnn14")

    def __init__(
        self,
        classes: int,
        n_mels: int,
        piece_frames: int = 40,
        extractor: str = "statistics",
        pretrained: str | bool = "",
        hidden: int = 128,
        activation: str = "sigmoid",
        in_chans: int = 1,
    ):
        super().__init__()
        check_choice("extractor", extractor, self.EXTRACTORS)
        self.pool = self.min_frames = piece_frames
        self.in_chans, self.dead_parameters = in_chans, ()
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.extractor, width = None, 4 * n_mels * in_chans
        if extractor != "statistics":
            self.extractor, width = _frozen(extractor, n_mels, pretrained)
            self.dead_parameters = ("extractor.",)
        self.fc1 = init_layer(nn.Linear(width, hidden))
        self.head = SEDHead(hidden, classes, "mean" if activation == "softmax" else "auto_pool", activation)

    def train(self, mode: bool = True) -> UrbanBaseline:
        """The extractor stays in eval mode: its batch norms are frozen too."""
        super().train(mode)
        if self.extractor is not None:
            self.extractor.eval()
        return self

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = normalised_input(self, logmel)  # checks, pads and, for the statistics, normalises
        x = x if self.extractor is None else F.pad(logmel, (0, 0, 0, x.shape[2] - logmel.shape[2]), mode="replicate")
        pieces = x.unfold(2, self.pool, self.pool).permute(0, 2, 1, 4, 3)  # (B, P, C, frames, F)
        x = F.relu(self.fc1(self.embed(pieces)))
        return {**self.head(x, logmel.shape[2], self.pool), "embedding": x.float().mean(dim=1)}

    def embed(self, pieces: Tensor) -> Tensor:
        """Compute the embedding of each second: (B, P, C, frames, F) -> (B, P, D)."""
        if self.extractor is None:
            parts = [pieces.mean(dim=3), pieces.std(dim=3, correction=0), pieces.amin(dim=3), pieces.amax(dim=3)]
            return torch.stack(parts, dim=3).flatten(2)
        with torch.no_grad():
            embedding = self.extractor(logmel=pieces.flatten(0, 1))["embedding"]
        return embedding.unflatten(0, pieces.shape[:2])


class MachinesBaseline(nn.Module):
    """DCASE 2021 task 2: MobileNetV2 of half width (timm's mobilenetv2_050) that tells a machine's sections apart."""

    inputs = ("logmel",)
    pool = min_frames = 32
    dead_parameters = ()

    def __init__(
        self, classes: int, n_mels: int, backbone: str = "mobilenetv2_050", activation: str = "sigmoid",
        in_chans: int = 1,
    ):  # fmt: skip
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        self.in_chans, self.activation = in_chans, activation
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.backbone = create_backbone(backbone, pretrained=False, in_chans=in_chans, num_classes=0)
        self.fc = init_layer(nn.Linear(self.backbone.head_hidden_size, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        return single_answer(self.fc, self.backbone(normalised_input(self, logmel)), self.activation)


def _frozen(name: str, n_mels: int, pretrained: str | bool) -> tuple[nn.Module, int]:
    """A PANNs network with its published weights, in eval mode without gradients, and the width of its embedding."""
    from earshot.models.weights import load_weights, resolve

    network = getattr(panns, name)(classes=527, n_mels=n_mels)
    if pretrained:
        load_weights(network, resolve(str(pretrained)), (), None)
    elif pretrained is not False:  # False: trained weights follow
        raise ValueError(f"extractor {name} is frozen and needs weights: model.params.pretrained=FILE")
    return network.eval().requires_grad_(False), network.fc1.out_features


def _check_mels(n_mels: int, least: int) -> None:
    if n_mels < least:
        raise ValueError(f"this network's poolings need at least {least} mel bins, got {n_mels}: raise n_mels")

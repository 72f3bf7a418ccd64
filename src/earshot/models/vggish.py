"""VGGish (Hershey et al. 2017): a small VGG on 0.96-s log-mel pictures that gives 128 numbers for each of them.

State-dict names are those of the published PyTorch weights: `features.*`, `embeddings.*`, `pproc.*` (72,141,184 weights
and, with the post-processor, 16,512 numbers of its PCA). As there, features are flattened as (time, band, channel).
`inputs.vggish` makes the pictures. Published are an embedding and no classes: the head is ours.
From scratch the weights are drawn as He et al. (2015) do, since nothing here normalises; the published code leaves the
choice to its library.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from earshot.inputs.vggish import FRAMES, N_MELS
from earshot.models.layers import SEDHead, outside_autocast
from earshot.stored import read_arrays

QUANTISED = (-2.0, 2.0)  # what becomes 0 and 255
PCA_KEYS = {"pca_eigen_vectors", "pca_means"}
SEGMENTS = ("clipwise_output", "logit", "segmentwise_output", "segmentwise_logit", "segmentwise_attention")


class Postprocessor(nn.Module):
    """Whiten and round embeddings, (..., D), as AudioSet publishes them: PCA with whitening, cut to +-2, in steps 0 to
    255.

    Both tensors come from a file of their own; before that the PCA changes nothing. Steps pass no gradient.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        self.register_buffer("pca_eigen_vectors", torch.eye(width))
        self.register_buffer("pca_means", torch.zeros(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        low, high = QUANTISED
        with outside_autocast(x):
            x = (x.float() - self.pca_means[:, 0]) @ self.pca_eigen_vectors.T
            return torch.round((x.clamp(low, high) - low) * (255 / (high - low)))


class VggishExtractor(nn.Module):
    """Examples (B, N, 96, 64) -> embeddings (B, N, 128), not negative; with `postprocess` whole numbers 0 to 255.

    widths, hidden and embedding: those of the published network; others make a smaller one that has no weights.
    pretrained: a file of the post-processor's two tensors, `pca_eigen_vectors` and `pca_means` (False: they come with
    the network's weights); the network's own weights are loaded as every network's are.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        hidden: int = 4096,
        embedding: int = 128,
        postprocess: bool = False,
        pretrained: str | bool = False,
    ):
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"vggish has four stages, got widths {widths}")
        if pretrained and not postprocess:
            raise ValueError(
                f"pretrained={pretrained} is the post-processor's file: set postprocess: true, or leave it out"
            )
        self.width = embedding
        self.features = _features(widths)
        flat = widths[-1] * (FRAMES // 16) * (N_MELS // 16)
        sizes = (flat, hidden, hidden, embedding)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self.embeddings = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self.pproc = Postprocessor(embedding) if postprocess else None
        if pretrained:
            _load_pca(self.pproc, str(pretrained))

    def embed(self, vggish: Tensor) -> Tensor:
        """Compute the embedding of each example.

        (B, N, 96, 64) -> (B, N, D) float32.
        """
        check_examples(vggish)
        x = self.features(vggish.flatten(0, 1)[:, None])
        x = self.embeddings(x.permute(0, 2, 3, 1).flatten(1)).float()
        x = x if self.pproc is None else self.pproc(x)
        return x.unflatten(0, vggish.shape[:2])

    def forward(self, vggish: Tensor) -> Tensor:
        return self.embed(vggish)


class Vggish(VggishExtractor):
    """vggish (B, N, 96, 64) -> dict: an answer of every example by one linear layer, and the clip's by `pooling`.

    `embedding` (B, D) is the mean of the examples'. There is no framewise output: an example's frames are of 10 ms at
    16 kHz, whatever the other inputs of a run are.
    """

    inputs = ("vggish",)
    input_shapes = {"vggish": (1, FRAMES, N_MELS)}  # noqa: RUF012 (read only)
    pool = min_frames = FRAMES
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int = N_MELS,
        pooling: str = "mean",
        activation: str = "sigmoid",
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        hidden: int = 4096,
        embedding: int = 128,
        postprocess: bool = False,
        pretrained: str | bool = False,
    ):
        super().__init__(widths, hidden, embedding, postprocess, pretrained)
        if postprocess:  # its whole numbers pass no gradient: only the head learns
            self.requires_grad_(False)
            self.dead_parameters = ("features.", "embeddings.")
        self.head = SEDHead(embedding, classes, pooling, activation)
        self.activation, self.pooling = activation, self.head.window_pooling

    def forward(self, vggish: Tensor) -> dict[str, Tensor]:
        x = self.embed(vggish)
        out = self.head(x / 255 if self.pproc is not None else x, FRAMES, FRAMES)
        return {k: v for k, v in out.items() if k in SEGMENTS} | {"embedding": x.mean(dim=1)}


def check_examples(vggish: Tensor) -> None:
    """Error unless these are VGGish's examples; a traced graph keeps no Python checks."""
    if not torch.jit.is_tracing() and (vggish.ndim != 4 or vggish.shape[2:] != (FRAMES, N_MELS)):
        raise ValueError(
            f"vggish must be (batch, examples, {FRAMES}, {N_MELS}), got {tuple(vggish.shape)}: "
            "earshot.inputs.vggish makes them from a waveform at 16 kHz"
        )


def _features(widths: tuple[int, ...]) -> nn.Sequential:
    """Stages of one, one, two and two 3x3 convolutions with ReLU, a 2x2 maximum behind each."""
    layers, channels = [], 1
    for width, convs in zip(widths, (1, 1, 2, 2), strict=True):
        for _ in range(convs):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _load_pca(module: Postprocessor, path: str) -> None:
    """The post-processor's two tensors from a file; an array of means may be (D,) or (D, 1)."""
    from earshot.models.weights import read_state, resolve

    file = resolve(path)
    if file.suffix == ".npz":  # as the TensorFlow release has it
        arrays = read_arrays(file, "the PCA of VGGish", "get it again")
        state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    else:
        state = {key.removeprefix("pproc."): value for key, value in read_state(file).items()}
    if not set(state) >= PCA_KEYS:
        raise ValueError(f"{path} is no PCA of VGGish: it holds {', '.join(sorted(state))}, not {', '.join(PCA_KEYS)}")
    for key in PCA_KEYS:
        own, value = getattr(module, key), state[key].float()
        if value.numel() != own.numel():
            raise ValueError(f"{path}: {key} is {tuple(value.shape)}, the network needs {tuple(own.shape)}")
        own.copy_(value.reshape(own.shape))

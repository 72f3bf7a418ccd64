"""Networks by name. A model declares what it reads and returns a dict (contract 4 of ARCHITECTURE.md).

Attributes: `inputs` (names of the tensors it takes as keywords: front ends, `waveform`, `metadata`); with a default
where they are left out (contract.py) `pool` (input frames a segment; 1), `min_frames` (prediction pads fewer with the
last frame; a segment's) and `dead_parameters` (prefixes of published weights that no output depends on; none);
optionally `pooling` (how segments become the clip output, a name of pooling.POOLINGS; '' where they do not), of a
waveform `min_samples` (prediction pads fewer with zeros), where it reads a log-mel `spec_augment` (None, or a module
that is applied after bn0 in training), `in_chans` (channels of a picture that it takes; 1),
`architecture` (what builds it anew without the folder that it came from: a run keeps it), `opened` (children whose own
children are blocks of their own, see optim_blocks), `weights_prefix` (the part that a checkpoint is of), `input_shapes`
(of inputs that are no log-mel: an example's shape without the batch) and, of a class, `options` (a dataclass of
parameters that it shares with others and takes as keywords).
Returns `clipwise_output` (B, K) and, where the network has them, `logit` (B, K), `segmentwise_output`,
`segmentwise_logit` and `segmentwise_attention` (before its softmax) (B, S, K), `framewise_output` and
`framewise_logit` (B, T, K), `embedding` (B, D).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from earshot.inputs.network import Inputs
from earshot.messages import check_params, first_line, suggest
from earshot.models import (
    baselines,
    cnn,
    cross_task,
    extractor_head,
    modulation,
    panns,
    panns_mobilenet,
    panns_resnet,
    panns_waveform,
    panns_wavegram,
    se_trans,
    separable,
    spectrogram_transformer,
    talnet,
    timm_sed,
    urban,
    vggish,
    waveform_transformer,
)
from earshot.models.contract import declared
from earshot.models.transfer import Transfer
from earshot.records import typed_params


def transfer(
    classes: int,
    n_mels: int,
    base: str = "cnn14",
    base_classes: int = 527,
    base_params: dict[str, Any] | None = None,
    hidden: tuple[int, ...] = (),
    dropout: float = 0.0,
    activation: str = "softmax",
    freeze: bool = True,
    pretrained: bool = True,
    heard: Inputs | None = None,
    kept: Mapping[str, Any] | None = None,
) -> Transfer:
    """Any network here that returns `embedding`, with a new head: see transfer.Transfer.

    `base_classes` are those of the checkpoint (AudioSet: 527); `pretrained` false overrules `base_params.pretrained`.
    """
    given = {"weights_follow": not pretrained, "heard": heard, "kept": kept}
    network = build_model(base, base_classes, n_mels, base_params, **given)
    options = {"hidden": hidden, "dropout": dropout, "activation": activation, "freeze": freeze, "heard": heard}
    return Transfer(network, classes, n_mels, **options)


MODELS = {
    "cnn_small": cnn.cnn_small,
    "cnn_modulation": modulation.cnn_modulation,
    "cnn14_att": panns.cnn14_att,
    "cnn14_max": panns.cnn14_max,
    "cnn14_avg": panns.cnn14_avg,
    "cnn14": panns.cnn14,
    "cnn10": panns.cnn10,
    "cnn6": panns.cnn6,
    "resnet22": panns_resnet.resnet22,
    "resnet38": panns_resnet.resnet38,
    "resnet54": panns_resnet.resnet54,
    "mobilenet_v1": panns_mobilenet.mobilenet_v1,
    "mobilenet_v2": panns_mobilenet.mobilenet_v2,
    "dainet19": panns_waveform.dainet19,
    "leenet11": panns_waveform.leenet11,
    "leenet24": panns_waveform.leenet24,
    "res1dnet31": panns_resnet.res1dnet31,
    "res1dnet51": panns_resnet.res1dnet51,
    "wavegram_cnn14": panns_wavegram.wavegram_cnn14,
    "wavegram_logmel_cnn14": panns_wavegram.wavegram_logmel_cnn14,
    "timm_sed": timm_sed.timm_sed,
    "transfer": transfer,
    "se_trans": se_trans.SETrans,
    "cnn4_trans": se_trans.cnn4_trans,
    "cnn5": baselines.cnn5,
    "cnn9": baselines.cnn9,
    "cnn13": baselines.cnn13,
    "cnn_bigru_avg": baselines.CnnBiGruAvg,
    "scenes_baseline": baselines.ScenesBaseline,
    "urban_baseline": baselines.UrbanBaseline,
    "machines_baseline": baselines.MachinesBaseline,
    "separable_cnn": separable.SeparableCnn,
    "vggish": vggish.Vggish,
    "cross_task_fa": cross_task.FundamentalArchitecture,
    "cross_task_vem": cross_task.EmbeddingModel,
    "cross_task_jrm": cross_task.JointModel,
    "cross_task_cmam": cross_task.AttentionModel,
    "talnet": talnet.Talnet,
    "urban_tagger": urban.UrbanTagger,
    "ast": spectrogram_transformer.SpectrogramTransformer,
    "waveform_transformer": waveform_transformer.WaveformTransformer,
    "extractor_head": extractor_head.ExtractorHead,
}
TOLD = ("heard", "weights_follow", "kept")  # parameters that a network is told, and no config sets


def check_model(name: str):
    """Error for a name that is no network, with the nearest one; a name of timm is said to be a backbone."""
    if name not in MODELS:
        raise ValueError(f"unknown model '{name}'{timm_sed.as_backbone(name, MODELS) or suggest(name, MODELS)}")


def build_model(
    name: str, classes: int, n_mels: int, params: dict[str, Any] | None = None, weights_follow: bool = False,
    heard: Inputs | None = None, kept: Mapping[str, Any] | None = None,
) -> nn.Module:  # fmt: skip
    """Name of MODELS, number of classes, mel bins, the function's own params -> network in training mode.

    heard: all that the run can hear; a network with such a parameter is told `in_chans` (channels of two-channel
    pictures), `n_metadata` (columns) and `heard` itself, unless its params say otherwise. weights_follow: trained
    weights are loaded right after, so `pretrained` is not looked for (a kernel has no ImageNet file), nor the weights
    of a transformers folder. kept: the `architecture` that a trained run keeps of such a folder. Errors: an
    unknown model or parameter, with the nearest known one; a value that is not of the parameter's type.
    """
    check_model(name)
    known = parameters_of(MODELS[name])
    check_params(params or {}, [key for key in known if key not in TOLD], f"model {name}")
    params = typed_params(MODELS[name], params or {}, f"model {name}", least=1)
    for key, share in params.items():
        if "drop" in key and not 0 <= share < 1:
            raise ValueError(f"parameter '{key}' of model {name} is a share, from 0 to below 1, got {share:g}")
    if weights_follow and "pretrained" in known:
        params["pretrained"] = False
    told = (_told(heard, known) if heard else {}) | {"weights_follow": weights_follow, "kept": kept}
    params = {k: v for k, v in told.items() if k in known} | params
    try:
        return declared(name, MODELS[name](classes=classes, n_mels=n_mels, **params))
    except (TypeError, ArithmeticError, LookupError, RuntimeError) as error:  # layers without or with too much width
        given = ", ".join(f"{k}={v!r}" for k, v in params.items() if k not in TOLD) or "none given"
        raise ValueError(f"model {name} cannot be made of its parameters ({given}): {first_line(error)}") from error


def parameters_of(factory) -> list[str]:
    """What a network's function takes besides classes and n_mels; a class with `options` takes its fields too."""
    own = inspect.signature(factory).parameters.values()
    names = [p.name for p in own if p.kind is not p.VAR_KEYWORD and p.name not in ("classes", "n_mels")]
    return names + [f.name for f in dataclasses.fields(factory.options)] if hasattr(factory, "options") else names


def _told(heard: Inputs, known: list[str]) -> dict[str, Any]:
    """What a network is told of its inputs' widths."""
    told: dict[str, Any] = {"heard": heard, "n_metadata": len(heard.columns)}
    channels = max((heard[name].n_channels for name in heard.of(picture=True)), default=1)
    if "extractor_width" in known and (names := heard.of(of_clip=True)):
        told["extractor_width"] = heard[names[0]].network.width
    return told | ({"in_chans": channels} if channels > 1 else {})

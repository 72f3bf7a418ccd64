"""Any timm CNN as a sound event detector: bn0 over mels, backbone, mean over frequency, smoothing, fc1, SEDHead.

The rainforest system's network is `tf_efficientnet_b0.ns_jft_in1k` with in_chans 3, drop_path 0.2 and 1,024 units.
Segments cover `pool` frames (the backbone's reduction, 32): 938 frames give 30 segments, segment s starts at frame
32 * s whatever the clip's length. `pretrained` weights are found by weights.resolve, or it is an error: nothing is
initialised at random in silence; say `pretrained: false` for that.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import first_line, suggest
from earshot.models import weights
from earshot.models.layers import SEDHead, init_layer, normalised_input, smooth_over_time
from earshot.models.planes import Planes


class TimmSED(nn.Module):
    """logmel (B, 1 or in_chans, T, n_mels) -> dict; `backbone` maps (B, in_chans, T, F) to (B, features, S, F')."""

    inputs = ("logmel",)

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        pool: int,
        classes: int,
        n_mels: int,
        units: int,
        pooling: str,
        activation: str,
        head_dropout: float,
        in_chans: int,
        stage: int | None = None,
        planes: Planes | None = None,
    ):
        """stage: the index of the backbone's last stage where others were cut off; None: its own last map. planes: what
        the backbone sees of a log-mel of one channel; None: it is repeated."""
        super().__init__()
        self.pool = self.min_frames = pool
        self.stage = stage
        self.in_chans, self.head_dropout = 1 if planes else in_chans, head_dropout
        self.planes = planes or nn.Identity()
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.backbone = backbone
        self.dead_parameters = tuple(f"backbone.{name}." for name in _unheard(backbone, in_chans, stage))
        self.fc1 = init_layer(nn.Linear(features, units))
        self.head = SEDHead(units, classes, pooling, activation)
        self.pooling = self.head.window_pooling

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = _map(self.backbone, self.planes(normalised_input(self, logmel)), self.stage)
        x = F.dropout(smooth_over_time(x.mean(dim=3)), self.head_dropout, self.training)
        x = F.relu(self.fc1(x.transpose(1, 2)))
        out = self.head(F.dropout(x, self.head_dropout, self.training), logmel.shape[2], self.pool)
        return {**out, "embedding": x.mean(dim=1)}


def timm_sed(
    classes: int,
    n_mels: int,
    backbone: str = "tf_efficientnet_b0.ns_jft_in1k",
    pretrained: bool | str = True,
    download: bool = False,
    in_chans: int = 1,
    drop_path: float = 0.0,
    units: int = 1024,
    pooling: str = "attention",
    activation: str = "sigmoid",
    head_dropout: float = 0.5,
    reduction: int = 0,
    planes: tuple[str, ...] = (),
) -> TimmSED:
    """SED network on a timm backbone that gives a (B, C, T', F') map.

    reduction: frames a segment at which the backbone ends, such as 16: later stages are cut off; 0: it is whole (32).
    pretrained: True = the backbone's own weights, from the local caches (or from the hub when `download`); a path or
    name for weights.resolve; False = random weights. in_chans 1 sums the first layer's colour weights; 3 repeats.
    planes: of planes.PLANES, such as logmel, delta, delta2, in place of that: as many as they are is in_chans.
    """
    made = Planes(planes, n_mels) if planes else None
    in_chans = len(made.names) if made else in_chans
    options = {"drop_path_rate": drop_path} if drop_path else {}
    net = create_backbone(backbone, num_classes=0, in_chans=in_chans, **options)
    if pretrained:
        source = pretrained if isinstance(pretrained, str) else _hub_name(net, backbone)
        overlay = {"state_dict": weights.read_state(weights.resolve(source, download=download))}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        net = create_backbone(backbone, num_classes=0, in_chans=in_chans, **options)
        net.pretrained_cfg = {k: v for k, v in net.pretrained_cfg.items() if k != "state_dict"}  # else kept twice
    pool, features, stage = _reduction(net, backbone), net.num_features, None
    if reduction and reduction != pool:
        pool, stage = reduction, _stage(net, backbone, reduction)
        features = net.feature_info[stage]["num_chs"]
        net.prune_intermediate_layers([stage], prune_norm=True, prune_head=True)
    return TimmSED(
        net,
        features,
        pool,
        classes,
        n_mels,
        units=units,
        pooling=pooling,
        activation=activation,
        head_dropout=head_dropout,
        in_chans=in_chans,
        stage=stage,
        planes=made,
    )


def as_backbone(name: str, networks: Iterable[str] = ()) -> str:
    """Say how to use a name of timm, or the nearest one that it has, as a network: the end of an error message.

    Empty where none is near, or one of `networks` is as near.
    """
    import timm

    architecture, _, tag = name.lower().partition(".")
    known = timm.list_models()
    near = difflib.get_close_matches(architecture, [*networks, *known], n=1, cutoff=0.8)
    if not near or near[0] in networks:
        return ""
    exact = near[0] == architecture
    told = "timm has it as a backbone" if exact else f"timm has the backbone '{near[0]}'"
    backbone = near[0] + f".{tag}" * bool(exact and tag)
    return f"; {told}: set model.name=timm_sed and model.params.backbone={backbone}"


def create_backbone(backbone: str, **options) -> nn.Module:
    """A network of timm by its name; an unknown one, or unknown weights, are an error with the nearest."""
    import timm  # here: the import takes seconds, and only these networks need it

    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(f"timm has no model '{backbone}'{suggest(architecture, timm.list_models(), most=5)}")
    if tag and backbone not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise ValueError(f"timm has no weights '{backbone}'{suggest(backbone, known)}")
    return timm.create_model(backbone, **options)


def _map(net: nn.Module, x: Tensor, stage: int | None) -> Tensor:
    """The feature map (B, C, T', F') of a backbone, or that of the stage at which it was cut."""
    if stage is None:
        return net.forward_features(x)
    return net.forward_intermediates(x, indices=[stage], intermediates_only=True, stop_early=True)[0]


def _stage(net: nn.Module, backbone: str, reduction: int) -> int:
    """The index of a backbone's last stage that has divided by `reduction`."""
    steps = [info["reduction"] for info in net.feature_info]
    if reduction not in steps:
        raise ValueError(f"timm's '{backbone}' divides by {', '.join(map(str, steps))}, not by reduction {reduction}")
    if not hasattr(net, "prune_intermediate_layers"):
        raise ValueError(f"timm's '{backbone}' cannot be cut at reduction {reduction}: leave it whole (reduction 0)")
    return len(steps) - 1 - steps[::-1].index(reduction)


def _unheard(net: nn.Module, in_chans: int, stage: int | None = None) -> list[str]:
    """Parts of a backbone that its feature map does not come through: what some have between the map and classes."""
    heard, hooks, training = set(), [], net.training
    for name, part in net.named_children():
        hooks += [m.register_forward_pre_hook(lambda *_, name=name: heard.add(name)) for m in part.modules()]
    weight = next(net.parameters())
    try:
        with torch.no_grad():
            _map(net.eval(), weight.new_zeros(1, in_chans, 64, 64), stage)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"timm's {type(net).__name__} takes pictures of one size only ({first_line(error)}), and log-mels are of "
            "any length: choose a convolutional backbone"
        ) from error
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return [name for name, part in net.named_children() if name not in heard and any(True for _ in part.parameters())]


def _hub_name(net: nn.Module, backbone: str) -> str:
    """'hf:<owner>/<repository>' of the weights that timm names for this backbone."""
    hub_id = (net.pretrained_cfg or {}).get("hf_hub_id")
    if not hub_id:
        raise ValueError(f"timm names no pretrained weights for '{backbone}': give a path, or set pretrained: false")
    return f"hf:{hub_id}"


def _reduction(net: nn.Module, backbone: str) -> int:
    """Input frames a step of the last feature map, as timm declares them."""
    steps = [stage["reduction"] for stage in getattr(net, "feature_info", None) or []]
    # transformers keep one grid of patches and a fixed input size: no map (B, C, T, F) of any length comes out
    if len(set(steps)) < 2 or str(getattr(net, "output_fmt", "NCHW")).split(".")[-1] != "NCHW":
        raise ValueError(f"timm's '{backbone}' gives no feature map (B, C, T, F): choose a convolutional backbone")
    return int(steps[-1])

"""A run's folds as members of a prediction, eager or by their exported graphs, on whatever device there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from earshot import runs
from earshot.prediction.backends import ENDINGS, TorchBackend
from earshot.prediction.graphs import find_graphs, members_of
from earshot.prediction.inference import Member
from earshot.prediction.origin import weights_origin
from earshot.prediction.tta import in_place
from earshot.sound.timebase import TimeBase

BACKENDS = ("torch", *ENDINGS)


@dataclass(frozen=True)
class Ears:
    """What hears recordings for a run: its folds as members, and what the run's config says of hearing."""

    run: Path
    members: list[Member]
    tta: tuple[str, ...]
    task: str
    competition: str

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.members[0].classes)


def ears_of(folder: Path, backend: str = "torch", int8: bool = False) -> Ears:
    """The folds of a run and how it hears. Networks that take metadata are refused: folders have none."""
    members = [member for member, _ in fold_members(folder, backend, int8=int8)]
    if any("metadata" in m.backend.inputs for m in members):
        raise ValueError(
            f"{folder} takes metadata of each recording, which a folder does not say: predict a table that has its "
            "columns with src/predict.py"
        )
    if backend != "torch":
        about = members[0].backend.about
        return Ears(folder, members, tuple(about["tta"]), about["task"], about.get("competition", ""))
    config = runs.load_run(folder).config
    return Ears(folder, members, tuple(config.predict.tta), config.task, config.data.competition)


def fold_members(
    folder: Path, backend: str = "torch", *, threads: int = 1, int8: bool = False, together: bool = False,
    one_pass: bool = False,
) -> list[tuple[Member, Path]]:  # fmt: skip
    """The folds of a run as its config has them heard, each with its folder.

    backend: torch, or a format of exported graphs; threads: of one call of a graph; together: the graph of all folds.
    """
    if backend != "torch":
        graphs = find_graphs(folder, backend, int8, together, threads)
        folds = [folder / f"fold{fold}" for graph in graphs for fold in graph.about["folds"]]
        return list(zip([m for graph in graphs for m in members_of(graph, one_pass)], folds, strict=True))
    import torch

    run = runs.load_run(folder)
    config, device = run.config, "cuda" if torch.cuda.is_available() else "cpu"
    windowing = replace(config.predict, one_pass=config.predict.one_pass or one_pass)
    found = []
    for fold in run.folds:
        model = runs.load_model(fold).to(device)
        network = TorchBackend(model, config.inputs(model.inputs), device, config.optim.precision)
        about, origin = fold.about, weights_origin(fold.weights)
        member = Member(
            backend=network, windowing=windowing, classes=about["classes"], prior=about["prior"], origin=origin
        )
        found.append((member, fold.folder))
    return found


def with_frames(ears: Ears, windows: bool = False) -> Ears:
    """The same with framewise outputs kept: the networks' own, or each window's clip output (`windows`).

    A network without framewise outputs always answers by windows: an event is then as long as the windows it was heard
    in, and where windows overlap, their mean.
    """
    members = []
    for member in ears.members:
        windowing = replace(member.windowing, keep_frames=True, oof_frames=True)
        backend = member.backend
        if windows or not _has_frames(member):
            backend, windowing = Windowwise(backend, member.windowing), replace(windowing, one_pass=False)
        members.append(replace(member, backend=backend, windowing=windowing))
    return replace(ears, members=members, tta=in_place(ears.tta))


def _has_frames(member: Member) -> bool:
    """Whether a network answers by segments: it is asked about a window of silence."""
    backend = member.backend
    if hasattr(backend, "about"):  # an exported graph says it
        return "segmentwise_output" in backend.about["outputs"]
    silence = backend.frontends.silence(member.windowing.window_samples)
    return "segmentwise_output" in backend.run({name: values[None] for name, values in silence.items()})


class Windowwise:
    """A backend whose framewise outputs are the clip outputs of whole windows."""

    def __init__(self, backend, windowing):
        """windowing: where windows lie; one frame is their step."""
        self.backend, self.inputs, self.frontends = backend, backend.inputs, backend.frontends
        self.pooling = ""
        self.timebase = TimeBase(windowing.sample_rate, windowing.stride_samples, 1)
        self.frames = max(1, round(windowing.window_samples / windowing.stride_samples))

    def run(self, inputs) -> dict:
        outputs = dict(self.backend.run(inputs))
        stacked = outputs["clipwise_output"][..., None, :]  # (B, 1, K), of stacked folds (B, F, 1, K)
        outputs["segmentwise_output"] = stacked.repeat(self.frames, axis=-2)
        return outputs

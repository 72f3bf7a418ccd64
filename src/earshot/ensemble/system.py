"""What answers together, the networks of one or several runs, as one system: what it is made of and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earshot import runs
from earshot.competitions.competition import Challenge
from earshot.competitions.dcase_meta import make_meta
from earshot.config.sections import AugmentConfig
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.ensemble.blends import read_ensemble
from earshot.prediction.predictions import Predictions
from earshot.prediction.tta import tta_variants
from earshot.stored import read_json

FEATURES = {"logmel": "log-mel energies", "kaldi": "log-mel energies", "waveform": "raw waveform"}  # by their kind
BYTES = 4  # a parameter in float32
FOREIGN = ("extractor", "given", "teacher")  # kinds of inputs that are answers of other networks


@dataclass(frozen=True, kw_only=True)
class System:
    """The networks of some runs together; macs: multiply-accumulates of all of them for one window, front ends left
    out.

    kilobytes: of their parameters as they predicted, 1,000 bytes each: 4 bytes a parameter, or in int8 as
    models/counting.py counts them. foreign: networks of others that they hear with, which are in none of the figures.
    """

    networks: int
    parameters: int
    nonzero: int
    macs: int
    kilobytes: float
    foreign: tuple[str, ...] = ()


def network_macs(run: runs.Run) -> int:
    """Multiply-accumulates of one network of a run for one window."""
    from earshot.models.counting import count

    return count(*_described(run)).macs


def system_of(members: Sequence[runs.Run], int8: bool = False) -> System:
    """The system that all networks of these runs are; their weights are read, to count those that are not 0.

    int8: they predicted as int8 graphs.
    """
    import torch

    from earshot.models.counting import count, folded_bytes

    networks = parameters = nonzero = macs = size = 0
    foreign: list[str] = []
    for run in members:
        model, heard, n_samples = _described(run)
        given = {name: torch.empty((1, *heard.shapes(n_samples)[name]), device="meta") for name in model.inputs}
        one = sum(p.numel() for p in model.parameters())
        networks, parameters = networks + len(run.folds), parameters + len(run.folds) * one
        macs += len(run.folds) * count(model, heard, n_samples).macs
        size += len(run.folds) * (folded_bytes(model, given) if int8 else BYTES * one)
        nonzero += sum(int(p.count_nonzero()) for fold in run.folds for p in runs.load_model(fold).parameters())
        foreign += [record.kind for record in heard.values() if record.kind in FOREIGN]
    return System(
        networks=networks, parameters=parameters, nonzero=nonzero, macs=macs, kilobytes=size / 1000,
        foreign=tuple(dict.fromkeys(foreign)),
    )  # fmt: skip


def about_system(members: Sequence[runs.Run], int8: bool, mean: str, hearings: int = 1) -> dict:
    """What the meta file of a challenge asks of a system, as far as configs and weights say it; mean: of the blend;
    hearings: of a clip by a network, with test-time augmentation.

    Figures of networks that hear with those of others are left out: they would be too small.
    """
    import torch

    system, first = system_of(members, int8), members[0].config
    records = [record for run in members for record in run.config.frontends.values()]
    augmented = [name for run in members for name in augmentation_of(run.config.augment)]
    channels = first.data.channels
    known = {
        "input_channels": channels, "input_sampling_rate": first.data.sample_rate / 1000,
        "acoustic_features": _listed(FEATURES.get(r.kind, r.kind) for r in records) or "raw waveform",
        "embeddings": None, "data_augmentation": _listed(augmented) or None,
        "machine_learning_method": _listed(run.config.model.name for run in members), "front_end": None,
        "ensemble_method_subsystem_count": system.networks, "framework": f"PyTorch {torch.__version__.split('+')[0]}",
    }  # fmt: skip
    if system.networks > 1 or hearings > 1:
        more = f", {hearings} hearings of a clip each, macs are of one" if hearings > 1 else ""
        known["decision_making"] = f"{mean} of {system.networks} network{'s' * (system.networks > 1)}{more}"
    if system.foreign:
        del known["embeddings"]
        return known
    return known | {
        "total_model_size": round(system.kilobytes, 3), "model_size": round(system.kilobytes / 1.024, 3),
        "total_parameters": system.parameters,
        "total_parameters_non_zero": system.nonzero, "macs": system.macs,
    }  # fmt: skip


def meta_of(challenge: Challenge, label: str, path: Path) -> tuple[str, str]:
    """The meta file of the system that predicted a test (a run's test.npz, or a blend with its JSON and OOF beside it),
    and a line on what could not be had of its runs ('' if nothing): that is left to fill in."""
    listing, known, results = path.with_suffix(".json"), {}, {}
    try:
        blend = read_ensemble(listing) if listing.is_file() else None
        folders = blend.runs if blend else (path.parent,)
        members = [runs.load_run(folder) for folder in folders]
        hearings = max(_hearings(run) for run in members)
        known = about_system(members, _heard_by_int8(folders), blend.blend.mean if blend else "mean", hearings)
        oof = Predictions.load(path.with_name(f"{path.stem}_oof.npz") if blend else path.with_name("oof.npz"))
        truth, readable = truth_of(oof, load_data(members[0].config.data)), ~oof.unreadable
        results = challenge.results(oof.take(readable), truth.take(readable))
        said = ""
    except ValueError as error:
        lost = "results of the OOF" if known else "figures of the system"
        where = "a run's test.npz in its folder, and a blend's with its JSON and OOF beside it, have them"
        said = f"{label}: no {lost}: {error}. {where}\n"
    return make_meta(challenge, label, known, results), said


def augmentation_of(augment: AugmentConfig) -> list[str]:
    """What changes the sound in training, by the names that configs have for it."""
    names = []
    for key, acts in augment.acting.items():
        owner = augment.batch if key.startswith("batch.") else augment
        value = getattr(owner, key.removeprefix("batch."))
        if acts and isinstance(value, tuple):  # transforms, each {name, p, ...}
            names += [str(one["name"]) for one in value]
        elif acts:
            names.append(key.removeprefix("batch.").removesuffix("_on").removesuffix("_p"))
    return names


def _hearings(run: runs.Run) -> int:
    """How often each network heard a clip of the test, by the options that predict.py noted or the run's config."""
    told = run.folder / "predicted.json"
    words = read_json(told, "command", "predict the test anew", kind=list) if told.is_file() else []
    names = words[words.index("--tta") + 1 :] if "--tta" in words else run.config.predict.tta  # stands last there
    return len(tta_variants(names))


def _heard_by_int8(folders: Iterable[Path]) -> bool:
    """Whether predict.py heard the test with int8 graphs of all of these runs."""
    told = [folder / "predicted.json" for folder in folders]
    return all(p.is_file() and "--int8" in read_json(p, "command", "predict the test anew", kind=list) for p in told)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _described(run: runs.Run):
    """(network without its weights, what it hears, samples of a window)."""
    config, about = run.config, run.folds[0].about
    model = runs.make_model(config, len(about["classes"]), weights_follow=True, kept=about.get("architecture"))
    return model.eval(), config.inputs(model.inputs), round(config.predict.window_seconds * config.data.sample_rate)

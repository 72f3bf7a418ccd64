"""What a kernel reads from its data set: bundle.json, graphs, classes, post-processing. No torch.

A bundle is one flat folder, because Kaggle's client leaves folders out unless told otherwise:

    bundle.json            what is in here: competition, networks and their runs, blend, further hearings (tta)
    extractor_<sha>.tflite foreign networks that runs hear with (ONNX: .onnx); bundle.json says who calls them what
    earshot.pyz            the sources a kernel needs; `python earshot.pyz` is src/run_kernel.py
    <run>_fold<k>.onnx     graphs (OpenVINO: .xml and .bin); they carry front ends, windows, classes, priors
    classes.csv            class names in model order
    post.json post.yaml    post-processing: as it was chosen on an OOF, or plain options (at most one of them)
    packages.txt *.whl     what Python needs, with versions; wheels of what Kaggle's image lacks
    manifest.json          SHA-256 of all that
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from earshot.data.labels import read_classes
from earshot.ensemble.blends import Blend, build_blend
from earshot.ensemble.choice import read_post
from earshot.events import PostProcess
from earshot.kernel.answers import run_weights
from earshot.kernel.manifest import check_manifest
from earshot.kernel.speed import Network
from earshot.prediction.backends import open_graph
from earshot.prediction.graphs import members_of
from earshot.stored import read_json, want

ABOUT, SOURCES, CLASSES, PACKAGES = "bundle.json", "earshot.pyz", "classes.csv", "packages.txt"
CHOSEN_POST, POST = "post.json", "post.yaml"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle; `broken`: (file, reason) of graphs that could not be opened.

    prior: (K,) mean of all networks'; without any network (their runtime is missing) it is all that can be answered.
    """

    folder: Path
    about: dict
    classes: tuple[str, ...]
    post: PostProcess
    networks: tuple[Network, ...]
    blend: Blend
    runs: tuple[str, ...]  # in the order of the blend's weights
    broken: tuple[tuple[str, str], ...] = ()
    prior: tuple[float, ...] = ()

    def need_networks(self) -> Bundle:
        """Itself, or an error where no graph could be opened."""
        if not self.networks:
            raise ValueError(f"no graph of bundle {self.folder.name} can be opened: {self.broken[0][1]}")
        return self


def open_bundle(folder: str | Path, competition: str | None = None) -> Bundle:
    """Folder -> Bundle, its files checked against the manifest first; made for another competition: an error.

    A graph that cannot be opened is named in `broken`; where none can, `prior` is what is left to answer with.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"bundle {folder} does not exist; make one with src/bundle.py")
    check_manifest(folder)
    about = _read_about(folder)
    if competition not in (None, about["competition"]):
        raise ValueError(f"bundle {folder.name} was made for {about['competition']}, not for {competition}")
    classes = tuple(read_classes(folder / CLASSES))
    post = next(
        (read_post(folder / name, about["competition"]) for name in (CHOSEN_POST, POST) if (folder / name).is_file()),
        PostProcess(),
    )
    networks, broken = [], []
    for entry in about["networks"]:
        try:
            networks.append(_network(folder, entry, about, classes))
        except ValueError as error:
            broken.append((entry["file"], str(error)))
    runs = tuple(dict.fromkeys(entry["run"] for entry in about["networks"]))
    blend = build_blend(about.get("blend", {}), f"{ABOUT} of bundle {folder.name}")
    run_weights(blend, len(runs), len(classes))
    prior = tuple(about.get("prior", ())) or (1 / len(classes),) * len(classes)
    if len(prior) != len(classes) or not all(type(p) in (int, float) and 0 <= p <= 1 for p in prior):
        raise ValueError(
            f"{ABOUT} of bundle {folder.name} has {len(prior)} priors, not one (0 to 1) a class of {len(classes)}"
        )
    return Bundle(
        folder=folder,
        about=about,
        classes=classes,
        post=post,
        networks=tuple(networks),
        blend=blend,
        runs=runs,
        broken=tuple(broken),
        prior=prior,
    )


def _read_about(folder: Path) -> dict:
    """bundle.json, with all that is read of it; graphs lie in the bundle itself."""
    remedy = "make the bundle again with src/bundle.py"
    about = read_json(folder / ABOUT, "file", remedy)
    want(about, {"competition": str, "networks": list, "tta": list}, str(folder / ABOUT), remedy)
    for theirs, ours in about.get("extractors", {}).items():
        if not isinstance(ours, str) or ours != Path(ours).name:
            raise ValueError(f"{folder / ABOUT} names '{ours}' for the extractor {theirs}; {remedy}")
    for entry in about["networks"]:
        want(entry, {"file": str, "run": str, "folds": int}, f"a network of {folder / ABOUT}", remedy)
        if entry["file"] != Path(entry["file"]).name or entry["folds"] < 1:
            raise ValueError(f"{folder / ABOUT} names '{entry['file']}' of {entry['folds']} folds; {remedy}")
    return about


def _network(folder: Path, entry: dict, about: dict, classes: tuple[str, ...]) -> Network:
    graph = open_graph(folder / entry["file"])
    places = {theirs: str(folder / ours) for theirs, ours in about.get("extractors", {}).items()}
    graph.frontends = graph.frontends.with_files(places)
    members = members_of(graph)
    own = tuple(members[0].classes)
    if not set(own) <= set(classes) or (len(own) == len(classes) and own != classes):
        raise ValueError(f"{entry['file']} has {len(own)} classes other than those of {CLASSES}")
    share = len(members) / entry["folds"]
    tta = tuple(entry.get("tta", about["tta"]))  # of its run; an older bundle has the same for all
    return Network(Path(entry["file"]).stem, tuple(members), entry["run"], share, tta)

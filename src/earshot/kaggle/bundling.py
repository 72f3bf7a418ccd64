"""Exported runs -> what Kaggle gets: a data set (kernel/bundle.py says what is in it) and a kernel that uses it.

    kernels/<name>/build/dataset/    the flat bundle and dataset-metadata.json
    kernels/<name>/build/kernel/     kernel.py, the same as kernel.ipynb, kernel-metadata.json: CPU, internet off

Everything is made in a folder beside and checked before it gets its place. No torch: graphs come from src/export.py.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from earshot.competitions import get_competition
from earshot.ensemble.blends import Blend, Ensemble, read_ensemble
from earshot.ensemble.choice import post_for, post_of, write_choice
from earshot.ensemble.specialists import full_classes
from earshot.events import PostProcess, load_post
from earshot.files import as_json, whole_folder
from earshot.inputs.network import Inputs
from earshot.kaggle.checks import SLUG, check_folder, check_slug
from earshot.kaggle.extractors import add_extractors
from earshot.kaggle.image import Image, read_image
from earshot.kaggle.sources import versions, write_sources
from earshot.kaggle.wheels import EXTRACTOR_RUNTIMES, RUNTIMES, Wheel, check_wheels, copy_wheels, read_wheels
from earshot.kernel.bundle import ABOUT, CHOSEN_POST, CLASSES, PACKAGES, POST, SOURCES, Bundle, open_bundle
from earshot.kernel.hidden_test import get_rules
from earshot.kernel.manifest import NOT_UPLOADED, write_manifest
from earshot.kernel.runner import answer_to_one
from earshot.messages import command_line, few
from earshot.prediction.graphs import find_graphs, origins_of
from earshot.prediction.origin import check_same
from earshot.prediction.tta import check_tta, tta_variants
from earshot.processes.kill_points import reached
from earshot.sound.windows import Windowing
from earshot.stored import read_json

logger = logging.getLogger("earshot")

SHARE_OF_LIMIT = 0.9  # of the competition's minutes a kernel plans with
SCRIPT = '''"""Answers __COMPETITION__ with the data set __DATASET__. Made by Earshot; runs offline, on CPUs."""
import os
import runpy
import sys
import tempfile
import zipfile
from pathlib import Path

INPUT = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("KAGGLE_WORKING", "/kaggle/working"))
MINUTES = os.environ.get("KERNEL_MINUTES", "__MINUTES__")


def find(name, text=b""):
    """The first file or folder of this name that holds `text`, at most five folders below INPUT, or None."""
    found = (path for depth in range(5) for path in sorted(INPUT.glob("*/" * depth + name)))
    return next((path for path in found if not text or text in path.read_bytes()), None)


about = find("__FILES__/bundle.json") or find("bundle.json", b'"slug": "__KERNEL__"')
competition = find("__SLUG__")
if not about or not competition:
    lacks = "competition __SLUG__" if about else "data set __DATASET__"
    raise FileNotFoundError(f"{INPUT} does not hold the {lacks}: add it to this notebook by Add Input")
bundle, tests = about.parent, find("__SLUG__/__FOLDER__") or competition / "__FOLDER__"
libraries = tempfile.mkdtemp()
for wheel in sorted(bundle.glob("*.whl")):
    zipfile.ZipFile(wheel).extractall(libraries)
sys.path.insert(0, libraries)

sys.argv = ["run_kernel.py", "--bundle", str(bundle), "--competition", "__COMPETITION__", "--test-folder", str(tests)]
sys.argv += ["--minutes", MINUTES, "--out", str(WORKING / "submission.csv")]
runpy.run_path(str(bundle / "earshot.pyz"), run_name="__main__")
'''


@dataclass(frozen=True, kw_only=True)
class BundleSettings:
    """What to bundle. weights: one a run; blend: the JSON of ensemble.py, in place of runs and weights; minutes 0:
    SHARE_OF_LIMIT of the competition's; tta None: the runs' own."""

    runs: tuple[Path, ...]
    competition: str
    slug: str
    _: KW_ONLY
    graph_format: str = "onnx"
    int8: bool = False
    together: bool = False
    weights: tuple[float, ...] = ()
    blend: Path | None = None
    tta: tuple[str, ...] | None = None
    post: Path | None = None
    minutes: float = 0.0
    wheels: Path | None = None
    image_packages: Path | None = None  # the list of Kaggle's image; None: the one that is kept (kaggle/image.py)
    kind: str = "notebook"  # what Kaggle runs: notebook | script
    data_slug: str = ""  # of the competition on Kaggle whose test is answered; "": that of `competition`


def build(settings: BundleSettings, root: str | Path = "kernels") -> Path:
    """Make both folders; returns kernels/<name>/build. An older build is replaced, anything else there is an error."""
    user, name = check_slug(settings.slug)
    if settings.kind not in ("notebook", "script"):
        raise ValueError(f"a kernel is a notebook or a script, not '{settings.kind}'")
    target = Path(root) / name / "build"
    if target.exists() and not (target / "dataset" / ABOUT).is_file():
        raise ValueError(f"{target} exists and is no build of this command: remove or rename it")
    with whole_folder(target, replace=True) as partial:
        (partial / "dataset").mkdir()
        (partial / "kernel").mkdir()
        _fill_dataset(partial / "dataset", settings, user, name)
        reached("filled dataset/")
        for file, text in kernel_files(settings).items():
            (partial / "kernel" / file).write_text(text)
        reached("filled kernel/")
        check_folder(partial)
        _check_answers(open_bundle(partial / "dataset", settings.competition).need_networks(), partial)
    return target


def _check_answers(bundle: Bundle, folder: Path):
    """Raise unless the competition's rows can be made of what the networks know, as a kernel does first of all."""
    competition = bundle.about["competition"]
    try:
        answer_to_one(get_competition(competition), bundle.classes, bundle.post, folder)
    except ValueError as error:
        raise ValueError(
            f"{competition} cannot be answered by these networks, which know {few(bundle.classes)}: {error}"
        ) from error


def dataset_slug(name: str) -> str:
    """Name of the data set of a kernel."""
    return f"{name}-files"


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of a built data set, largest first."""
    found = {p.name: p.stat().st_size for p in folder.iterdir() if p.name not in NOT_UPLOADED}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


# ---- the data set


def _fill_dataset(folder: Path, settings: BundleSettings, user: str, name: str):
    get_rules(settings.competition)
    chosen = _blended(settings)
    entries, abouts = [], []
    for run in chosen.runs:
        added, of_run = _add_run(folder, run, settings, chosen)
        entries += added
        abouts += of_run
    classes = full_classes([f"run {a['run']}" for a in abouts], [a["classes"] for a in abouts])
    for about in abouts:
        if "metadata" in about["inputs"]:
            raise ValueError(
                f"run {about['run']} takes {', '.join(about['metadata'])} of each recording, which the hidden test of "
                f"{settings.competition} does not give: train with a model that takes sound alone, or answer where the "
                "columns are at hand, with src/predict.py --clips TABLE --backend onnx"
            )
    extractors = add_extractors(folder, abouts)
    for about, entry in zip(abouts, entries, strict=True):
        entry["tta"] = list(about["tta"] if settings.tta is None else settings.tta)
        tta_variants(entry["tta"])
        check_tta(entry["tta"], Windowing(**about["windowing"]), Inputs.from_json(about).values())
    tta = list(dict.fromkeys(name for entry in entries for name in entry["tta"]))
    (folder / CLASSES).write_text("label\n" + "".join(f"{c}\n" for c in classes))
    _add_post(folder, settings, chosen)
    packages = write_sources(folder / SOURCES, settings.competition)
    runtimes = [RUNTIMES[settings.graph_format], *(EXTRACTOR_RUNTIMES[Path(n).suffix] for n in extractors.values())]
    packages |= versions([r.replace("-", "_") for r in runtimes])
    (folder / PACKAGES).write_text("".join(f"{k}=={v}\n" for k, v in sorted(packages.items())))
    image = read_image(settings.image_packages)
    _add_wheels(folder, settings, image, [*packages, *runtimes])
    about = {
        "competition": settings.competition, "slug": settings.slug, "format": settings.graph_format, "tta": tta,
        "networks": entries, "blend": asdict(chosen.blend), "commits": sorted({a["commit"] for a in abouts}),
        "prior": [round(float(p), 6) for p in _prior(abouts, classes)],
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "image": {"python": image.version, "source": image.source}, "extractors": extractors,
    }  # fmt: skip
    (folder / ABOUT).write_text(as_json(about, indent=1) + "\n")
    write_manifest(folder)
    info = {
        "title": _title(dataset_slug(name)), "id": f"{user}/{dataset_slug(name)}", "licenses": [{"name": "other"}],
        "subtitle": f"Networks and sources for {settings.competition}"[:80],
    }  # fmt: skip
    (folder / "dataset-metadata.json").write_text(as_json(info, indent=1) + "\n")


def _prior(abouts: Sequence[Mapping], classes: Sequence[str]) -> list[float]:
    """What is answered where nothing was heard: of each class the mean of the folds that know it."""
    own = [dict(zip(a["classes"], prior, strict=True)) for a in abouts for prior in a["priors"]]
    return [float(np.mean([o[c] for o in own if c in o])) for c in classes]


def _blended(settings: BundleSettings) -> Ensemble:
    """The runs to bundle and their blend: those of --blend, else --runs with --weights."""
    if settings.blend:
        if settings.runs or settings.weights:
            raise ValueError("--blend says which runs and with which weights: leave --runs and --weights out")
        return read_ensemble(settings.blend)
    weights = settings.weights or (1.0,) * len(settings.runs)
    if len(weights) != len(settings.runs) or min(weights, default=1) <= 0:
        raise ValueError(f"{len(settings.runs)} runs need as many positive --weights, not {list(weights)}")
    return Ensemble(settings.runs, Blend(weights=weights), {})


def _add_post(folder: Path, settings: BundleSettings, chosen: Ensemble):
    """The post-processing: --post (YAML, or the JSON of a choice), or what the ensemble chose on its own OOF."""
    given = settings.post
    post = post_for(given, get_competition(settings.competition))
    if chosen.post_processing:
        if given:
            raise ValueError(f"{settings.blend} holds post-processing chosen on its OOF: leave --post out")
        post_of(chosen.post_processing, settings.blend, settings.competition)
        write_choice(folder / CHOSEN_POST, chosen.post_processing)
    elif given and given.suffix == ".json":
        about = read_json(given, "post-processing")
        write_choice(folder / CHOSEN_POST, about.get("post_processing") or about)
    elif chosen.thresholds:  # an ensemble by an older version, whose thresholds take the place of those in the file
        post = replace(post or PostProcess(), **chosen.thresholds)
        values = {k: dict(v) if isinstance(v, Mapping) else v for k, v in asdict(post).items()}
        (folder / POST).write_text(yaml.safe_dump(values))
        load_post(folder / POST)
    elif given:
        shutil.copyfile(given, folder / POST)


def _add_run(folder: Path, run: Path, settings: BundleSettings, chosen: Ensemble) -> tuple[list[dict], list[dict]]:
    """Copy a run's graphs under names of their own; their entries in bundle.json, and what they say of themselves."""
    graphs = find_graphs(run, settings.graph_format, settings.int8, settings.together)
    for graph in graphs:
        _check_blended(graph, settings.blend, chosen)
    folds = sum(len(graph.about["folds"]) for graph in graphs)
    entries = []
    for graph in graphs:
        which = "together" if graph.about["stacked"] else f"fold{graph.about['folds'][0]}"
        name = f"{graph.about['run'].replace('/', '-')}{'_int8' * settings.int8}_{which}"
        target = folder / (name + graph.path.suffix)
        if target.exists():
            raise ValueError(f"run {graph.about['run']} is named twice in --runs")
        shutil.copyfile(graph.path, target)
        reached(f"copied {target.name}")
        if graph.path.suffix == ".xml":
            shutil.copyfile(graph.path.with_suffix(".bin"), target.with_suffix(".bin"))
        entries.append({"file": target.name, "run": graph.about["run"], "folds": folds})
    return entries, [graph.about for graph in graphs]


def _check_blended(graph, blend: Path | None, chosen: Ensemble):
    """Raise where the ensemble was made of other networks than this graph: the run was trained on since, or swapped."""
    for origin in (origins_of(graph) or ()) if chosen.origins else ():
        same = [known for known in chosen.origins if (known.run, known.fold) == (origin.run, origin.fold)]
        check_same(
            graph.path, origin, blend, same[0] if same else chosen.origins[0],
            "blend again with src/ensemble.py, on the run as it is now",
        )  # fmt: skip


def _add_wheels(folder: Path, settings: BundleSettings, image: Image, needed: Sequence[str]):
    """Copy the wheels; what neither they nor the image have, or does not fit the image, is an error.

    Anything else that lies there and looks like a secret is an error too, the rest is left.
    """
    wheels = _given_wheels(settings.wheels) if settings.wheels else []
    if problems := check_wheels(wheels, image, dict.fromkeys(needed)):
        also = tuple(dict.fromkeys(n for n in needed if n in EXTRACTOR_RUNTIMES.values()))
        raise ValueError(
            f"on Kaggle's image ({image.source}) the kernel would not run: {'; '.join(problems)}. Get what it lacks "
            f"with {fetch_command(settings.graph_format, also)} and add --wheels wheels/{settings.graph_format}; "
            "a newer list of the image is given by --image-packages FILE"
        )
    copy_wheels(wheels, folder)


def fetch_command(graph_format: str, also: Sequence[str] = ()) -> str:
    """What anyone runs to have the wheels of a format's runtime, and of `also`, those of extractors' files."""
    more = [name for name in also if name != RUNTIMES[graph_format]]
    words = ["--fetch-wheels", f"wheels/{graph_format}", "--format", graph_format]
    return command_line("bundle", *words, *(["--also", *more] if more else []))


def _given_wheels(folder: Path) -> list[Wheel]:
    if not folder.is_dir():
        raise ValueError(f"--wheels {folder} is no folder")
    check_folder(folder)
    if not any(folder.glob("*.whl")):
        raise ValueError(f"{folder} holds no .whl file; get them with {fetch_command('onnx')}")
    return read_wheels(folder)


# ---- the kernel


def kernel_files(settings: BundleSettings) -> dict[str, str]:
    """Write what Kaggle runs: kernel.py, the same as kernel.ipynb, and kernel-metadata.json, each as a text."""
    user, name = check_slug(settings.slug)
    script = kernel_script(settings, files := f"{user}/{dataset_slug(name)}")
    info = {
        "id": f"{user}/{name}", "title": _title(name), "language": "python", "kernel_type": settings.kind,
        "code_file": "kernel.ipynb" if settings.kind == "notebook" else "kernel.py",
        "is_private": True, "enable_gpu": False, "enable_tpu": False, "enable_internet": False,
        "dataset_sources": [files], "competition_sources": [_data_slug(settings)],
        "kernel_sources": [], "model_sources": [],
    }  # fmt: skip
    texts = {"kernel.ipynb": notebook(script), "kernel-metadata.json": info}
    return {"kernel.py": script} | {name: json.dumps(value, indent=1) + "\n" for name, value in texts.items()}


def kernel_script(settings: BundleSettings, dataset: str) -> str:
    """Text of kernel.py."""
    limit = get_competition(settings.competition).limits.minutes
    minutes = settings.minutes or SHARE_OF_LIMIT * limit
    if not minutes > 0:
        raise ValueError(f"{settings.competition} states no time limit: say --minutes")
    if 0 < limit < minutes:
        logger.warning(
            "%s stops kernels after %g minutes, and this one plans with %g", settings.competition, limit, minutes
        )
    rules = get_rules(settings.competition)
    values = {"COMPETITION": settings.competition, "DATASET": dataset, "MINUTES": f"{minutes:g}",
              "SLUG": _data_slug(settings), "FOLDER": rules.folder,
              "FILES": dataset.split("/")[-1], "KERNEL": settings.slug}  # fmt: skip
    script = SCRIPT
    for key, value in values.items():
        script = script.replace(f"__{key}__", value)
    return script


def _data_slug(settings: BundleSettings) -> str:
    """What Kaggle calls the competition whose test lies in the kernel's input."""
    if settings.data_slug and not SLUG.fullmatch(settings.data_slug):
        raise ValueError(
            f"--data-slug '{settings.data_slug}' must be the end of the competition's address, "
            "kaggle.com/competitions/..."
        )
    return settings.data_slug or get_rules(settings.competition).slug


def notebook(script: str) -> dict:
    """A script -> nbformat 4: one cell of text, one of code."""
    title, code = script.splitlines()[0].strip('"'), script.splitlines(keepends=True)
    cells = [
        {"cell_type": "markdown", "id": "about", "metadata": {}, "source": [title]},
        {"cell_type": "code", "id": "kernel", "metadata": {}, "execution_count": None, "outputs": [], "source": code},
    ]
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}


def _title(slug: str) -> str:
    """A title that Kaggle turns into this slug again."""
    return slug.replace("-", " ").capitalize()

"""The wheels that a kernel needs beside Kaggle's image: what they say of themselves, whether they fit, how to get them.

Three things make a wheel fail there: it is built for another Python or system (its tags), it needs what neither the
image nor the other wheels have (the closure), or it is too large to unpack within a kernel's minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from earshot.files import scratch_folder, whole_file
from earshot.kaggle.image import Image
from earshot.messages import few

MOST_UNPACKED = 1 << 30  # bytes of all wheels together; onnxruntime takes 60 MB, openvino 150
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # of each graph format
EXTRACTOR_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}  # of an extractor's file, by its ending


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel file: pip's name of it, version, tags, what it needs, what it can be imported as, its unpacked bytes."""

    path: Path
    name: str
    version: str
    tags: frozenset[Tag]
    needs: tuple[Requirement, ...]
    needs_python: str
    imports: frozenset[str]
    unpacked: int


def read_wheel(path: Path) -> Wheel:
    """What a wheel says of itself; a file that is none is an error."""
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            (place,) = [m.filename for m in members if m.filename.endswith(".dist-info/METADATA")]
            about = Parser().parsestr(archive.read(place).decode("utf-8"))
        needs = tuple(Requirement(text) for text in about.get_all("Requires-Dist", []))
        SpecifierSet(about.get("Requires-Python") or "")
    except InvalidWheelFilename as error:
        raise ValueError(f"{path.name} is no wheel: its name is not name-version-python-abi-platform.whl") from error
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is no wheel: it is no zip archive") from error
    except (ValueError, InvalidRequirement, InvalidSpecifier, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"{path.name} is no wheel: it holds no sound METADATA ({error})") from error
    return Wheel(
        path=path,
        name=name,
        version=str(version),
        tags=frozenset(tags),
        needs=needs,
        needs_python=about.get("Requires-Python") or "",
        imports=frozenset(_imports(m.filename for m in members)),
        unpacked=sum(m.file_size for m in members),
    )


def _imports(names: Iterable[str]) -> set[str]:
    """Files of a wheel -> names that can be imported from it."""
    tops = set()
    for name in names:
        top, slash, _ = name.partition("/")
        if slash and not top.endswith((".dist-info", ".data")):
            tops.add(top)
        elif not slash and top.endswith((".py", ".so", ".pyd")):
            tops.add(top.split(".")[0])
    return tops


def read_wheels(folder: Path) -> list[Wheel]:
    """Every *.whl of a folder, by name; the same package twice is an error."""
    wheels = [read_wheel(path) for path in sorted(folder.glob("*.whl"))]
    names = [w.name for w in wheels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder} holds several wheels of {few(twice)}: keep the one for Kaggle's Python")
    return wheels


def check_wheels(wheels: Sequence[Wheel], image: Image, needed: Iterable[str]) -> list[str]:
    """What is wrong with the wheels of a bundle that needs the packages `needed`, as text; nothing: they fit."""
    problems, tags = [], image.tags()
    for wheel in wheels:
        if not wheel.tags & tags:
            problems.append(
                f"{wheel.path.name} is not for the image, which is Python {image.version} on {image.platform}"
            )
        elif wheel.needs_python and f"{image.version}.0" not in SpecifierSet(wheel.needs_python):
            problems.append(f"{wheel.path.name} is for Python {wheel.needs_python}, the image has {image.version}")
    if (total := sum(w.unpacked for w in wheels)) > MOST_UNPACKED:
        largest = max(wheels, key=lambda w: w.unpacked)
        problems.append(
            f"the wheels take {total / 1e6:.0f} MB unpacked, more than {MOST_UNPACKED / 1e6:.0f}; the largest is "
            f"{largest.path.name}"
        )
    lost = missing(wheels, image, needed)
    return problems + [f"{name} is missing: {why}" for name, why in lost.items()]


def missing(wheels: Sequence[Wheel], image: Image, needed: Iterable[str]) -> dict[str, str]:
    """List what `needed` and the wheels ask for and neither the image nor the wheels have: {requirement: why}."""
    have = {w.name: w.version for w in wheels}
    asked = [(Requirement(name), "the kernel") for name in needed]
    asked += [(need, wheel.path.name) for wheel in wheels for need in wheel.needs]
    lost: dict[str, str] = {}
    for need, by in asked:
        if need.marker and not need.marker.evaluate(image.markers()):
            continue
        name = canonicalize_name(need.name)
        version = have.get(name, image.packages.get(name))
        wanted = f"{name}{need.specifier}"
        if version is None:
            lost.setdefault(wanted, f"{by} needs it, neither the image nor a wheel has it")
        elif version and not need.specifier.contains(version, prereleases=True):
            where = "a wheel" if name in have else "the image"
            lost.setdefault(wanted, f"{by} needs it, {where} has {version}")
    return lost


def fetch_wheels(folder: Path, image: Image, needed: Sequence[str], say=print, run=subprocess.run) -> list[Wheel]:
    """Download into `folder`, through pip, what `needed` and its own needs lack in the image; what is there stays.

    A package that is installed here is fetched in the same version: what was measured is what runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tried: set[str] = set()
    wheels = read_wheels(folder)
    while lost := set(missing(wheels, image, needed)) - tried:
        for text in sorted(lost):
            tried.add(text)
            for older in (w for w in wheels if w.name == Requirement(text).name):
                older.path.unlink()  # of a version that does not do
            _download(folder, image, _pinned(text), say, run)
        wheels = read_wheels(folder)
    if problems := check_wheels(wheels, image, needed):
        raise ValueError(f"the wheels in {folder} do not do: {'; '.join(problems)}")
    return wheels


def _pinned(text: str) -> str:
    """'onnxruntime' -> 'onnxruntime==1.32.0' where that is installed here and allowed."""
    need = Requirement(text)
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return text
    return f"{need.name}=={version}" if need.specifier.contains(version, prereleases=True) else text


def _download(folder: Path, image: Image, what: str, say, run):
    """One wheel for the image's Python and platform."""
    major, minor = image.python
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--python-version", image.version, "--implementation", "cp", "--abi", f"cp{major}{minor}"]
    command += ["--abi", "abi3", "--abi", "none"]
    for platform in [*image.platforms(), "any"]:
        command += ["--platform", platform]
    say(f"fetching {what} for Python {image.version} on {image.platform}")
    with scratch_folder() as fetched:
        ran = run([*command, "--dest", str(fetched), what], capture_output=True, text=True)
        if ran.returncode:
            lines = (ran.stderr or ran.stdout or "pip said nothing").strip().splitlines()
            raise ValueError(f"pip could not fetch {what}: {' '.join(lines[-2:])}")
        for path in fetched.iterdir():
            with whole_file(folder / path.name) as partial:
                shutil.copyfile(path, partial)


def copy_wheels(wheels: Sequence[Wheel], folder: Path):
    """Into the bundle."""
    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / wheel.path.name)

"""Wheels that hold hardly anything, and wheels packed anew from what is installed here."""

import sys
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.tags import sys_tags

from earshot.kaggle.image import KEPT

IMAGE_TAG = "cp312-cp312-manylinux_2_28_x86_64"
RUNTIMES = ("onnxruntime", "openvino")


def write_wheel(folder: Path, name: str, version="1.0", tag="py3-none-any", needs=(), python="", files=None) -> Path:
    """A wheel of a package of one line (or of `files` {name in it: text}) that needs `needs`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    about += "".join(f"Requires-Dist: {need}\n" for need in needs)
    about += f"Requires-Python: {python}\n" if python else ""
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in (files or {f"{name}/__init__.py": "ANSWER = 42\n"}).items():
            wheel.writestr(inside, text)
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", about)
    return path


def repack(folder: Path, name: str) -> Path:
    """The installed package `name` as a wheel for this very Python."""
    folder.mkdir(parents=True, exist_ok=True)
    package = metadata.distribution(name)
    tag = next(iter(sys_tags()))
    path = folder / f"{name.replace('-', '_')}-{package.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in package.files:
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))
    return path


def write_image(path: Path, more=(), less=(), python: str | None = None) -> Path:
    """The kept list with packages added or left out, for this Python or the one named."""
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [line for line in KEPT.read_text().splitlines() if not line.startswith(("# python:", *less))]
    path.write_text("\n".join([f"# python: {python}", *lines, *(f"{name}==1.0" for name in more)]) + "\n")
    return path

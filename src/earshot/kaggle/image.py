"""Kaggle's CPU image as a list: its Python, its platform, its packages. What is not in it comes with a bundle's wheels.

The list is a text file as pip writes one (`name==version` a line), before it `# python: 3.12` and `# platform: ...`,
and where it comes from (`# source:`, `# date:`). The one that is kept here is image_packages.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

KEPT = Path(__file__).with_name("image_packages.txt")
LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}  # older names of some platforms
ABOUT = re.compile(r"#\s*(python|platform|source|date)\s*:?\s+(.+)")
PLATFORM = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")


@dataclass(frozen=True)
class Image:
    """python: (major, minor); platform: the newest wheel platform that runs there; packages: {name: version}, names as
    pip normalises them, a version that is not told ''."""

    python: tuple[int, int]
    platform: str
    packages: dict[str, str]
    source: str = ""

    @property
    def version(self) -> str:
        """Give the version of Python as text.

        '3.12'.
        """
        return f"{self.python[0]}.{self.python[1]}"

    def platforms(self) -> list[str]:
        """Names of every platform that runs there, the newest first."""
        major, minor, machine = PLATFORM.fullmatch(self.platform).groups()
        names = []
        for older in range(int(minor), 4, -1):
            names.append(f"manylinux_{major}_{older}_{machine}")
            if legacy := LEGACY.get((int(major), older)):
                names.append(f"{legacy}_{machine}")
        return [*names, f"linux_{machine}"]

    def tags(self) -> set[Tag]:
        """Every wheel tag that its Python takes."""
        platforms = self.platforms()
        interpreter = f"cp{self.python[0]}{self.python[1]}"
        return {
            *cpython_tags(self.python, platforms=platforms),
            *compatible_tags(self.python, interpreter=interpreter, platforms=platforms),
        }

    def markers(self) -> dict[str, str]:
        """What a requirement's condition ("; python_version < '3.11'") is asked with."""
        return {
            "python_version": self.version, "python_full_version": f"{self.version}.0",
            "implementation_name": "cpython", "implementation_version": f"{self.version}.0",
            "platform_python_implementation": "CPython", "os_name": "posix", "sys_platform": "linux",
            "platform_system": "Linux", "platform_machine": PLATFORM.fullmatch(self.platform)[3],
            "platform_release": "", "platform_version": "", "extra": "",
        }  # fmt: skip


def read_image(path: Path | None = None) -> Image:
    """The list at `path`, by default the one that is kept here; what is no such list is an error."""
    path = path or KEPT
    if not path.is_file():
        raise ValueError(f"--image-packages {path} does not exist: make it in a kernel by pip list --format=freeze")
    about, packages = {}, {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text.startswith("#"):
            if found := ABOUT.match(text):
                about.setdefault(found[1], found[2].strip())
        elif text:
            name, _, version = re.split(r"\s+@\s+", text)[0].partition("==")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name.strip()):
                raise ValueError(f"{path.name}, line {number}: '{text[:60]}' is not name==version")
            packages[canonicalize_name(name.strip())] = version.strip()
    python = re.match(r"(\d+)\.(\d+)", about.get("python", ""))
    platform = PLATFORM.match(about.get("platform", "manylinux_2_28_x86_64"))
    if not python or not platform or not packages:
        raise ValueError(
            f"{path.name} needs the line '# python: 3.12' of its image (and, where it is another, '# platform: "
            "manylinux_2_28_x86_64'), then its packages, one name==version a line"
        )
    source = ", ".join(about[key] for key in ("source", "date") if key in about) or path.name
    return Image((int(python[1]), int(python[2])), platform[0], packages, source)

"""What belongs to a bundle, byte for byte: manifest.json holds size and SHA-256 of every other file."""

from __future__ import annotations

from pathlib import Path

from earshot.files import as_json, file_digest
from earshot.stored import read_json, want

MANIFEST = "manifest.json"
NOT_UPLOADED = ("dataset-metadata.json",)  # Kaggle's client keeps it to itself


def write_manifest(folder: Path):
    """Write manifest.json of the files that lie in `folder`."""
    files = [p for p in sorted(folder.iterdir()) if p.name not in (MANIFEST, *NOT_UPLOADED)]
    found = {p.name: {"bytes": p.stat().st_size, "sha256": file_digest(p)} for p in files}
    (folder / MANIFEST).write_text(as_json(found, indent=1) + "\n")


def check_manifest(folder: str | Path) -> int:
    """Raise unless every listed file is there, as it was; returns how many they are.

    What lies there besides is left alone: a platform may add files of its own.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: it is no bundle (make one with src/bundle.py), or not all of it")
    remedy = "make the bundle again with src/bundle.py"
    listed = read_json(path, "list of files", remedy)
    for name, entry in listed.items():
        want(entry, {"bytes": int, "sha256": str}, f"{path}: '{name}'", remedy)
        if name != Path(name).name:
            raise ValueError(f"{path} lists '{name}', which is no file of the bundle; {remedy}")
    problems = [text for name, entry in listed.items() if (text := _problem(folder / name, entry))]
    if problems:
        raise ValueError(f"bundle {folder.name} is not as it was made: {'; '.join(problems)}; upload it again")
    return len(listed)


def identity_of(folder: str | Path) -> str:
    """A short text that tells this bundle from any other, by what its files hold; '' without a manifest."""
    path = Path(folder) / MANIFEST
    return file_digest(path)[:12] if path.is_file() else ""


def _problem(path: Path, entry: dict) -> str:
    if path.is_dir():
        return ""  # the platform unpacked an archive: its import will show whether it is whole
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path.name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    return "" if file_digest(path) == entry["sha256"] else f"{path.name} was changed"

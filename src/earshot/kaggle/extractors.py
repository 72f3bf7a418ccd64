"""The files of foreign networks that a bundle's runs hear with: copied under names of their own, checked against the
graphs that were made with them. What they may be used for is their owners' licence: BirdNET's forbids commerce."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from earshot.files import file_digest
from earshot.inputs.extractor import found_file
from earshot.kaggle.wheels import EXTRACTOR_RUNTIMES
from earshot.processes.kill_points import reached


def add_extractors(folder: Path, abouts: Sequence[Mapping]) -> dict[str, str]:
    """Copy the extractors that exported graphs name into a bundle.

    abouts: what the graphs say of themselves -> {the file as they name it: its name in the bundle}. An extractor that
    PyTorch would have to open, a file that is not there, or is another than the graph was made with: an error.
    """
    found: dict[str, str] = {}
    for about in abouts:
        for name, record in about["frontends"].items():
            if record.get("kind") != "extractor":
                continue
            if not record.get("file"):
                raise ValueError(
                    f"run {about['run']} hears with the extractor {name}, {record.get('run') or record.get('config')}, "
                    "which PyTorch opens and no kernel has: export it (src/export.py), name its model.onnx as the "
                    "extractor's file, and train again; or answer with src/predict.py --backend onnx"
                )
            path = found_file(record["file"])
            if not path.is_file():
                raise ValueError(f"run {about['run']} hears with the extractor {name}, {path}, which is not there")
            if path.suffix not in EXTRACTOR_RUNTIMES:
                raise ValueError(f"extractor file {path} ends in none of {', '.join(EXTRACTOR_RUNTIMES)}")
            digest = file_digest(path)[:16]
            made_with = about.get("extractors", {}).get(name, digest)
            if made_with != digest:
                raise ValueError(
                    f"the extractor {path} is another file ({digest}) than run {about['run']} was exported with "
                    f"({made_with}): put that one back, or train and export the run again"
                )
            if record["file"] not in found:
                found[record["file"]] = f"extractor_{digest}{path.suffix}"
                shutil.copyfile(path, folder / found[record["file"]])
                reached(f"copied {found[record['file']]}")
    return found

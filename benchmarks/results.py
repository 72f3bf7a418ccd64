"""benchmarks/results.json: a list of {name, value, unit, command, commit, machine}, newest last."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")  # what networks run on, by the system's names
FILE = Path(__file__).parent / "results.json"


def record(name: str, value: float, unit: str, command: str, path: Path = FILE):
    """Append one measured figure; `command` is what anyone runs to measure it again."""
    entries = json.loads(path.read_text()) if path.is_file() else []
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=FILE.parent, capture_output=True, text=True
    ).stdout.strip()
    entry = {"name": name, "value": value, "unit": unit, "command": command, "commit": commit, "machine": machine()}
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps([*entries, entry], indent=1) + "\n")
    os.replace(partial, path)


def machine() -> str:
    """Processor with its family, model and vector units (names alone do not tell generations apart), cores, memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        name = processor(info.read_text()) or name
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def processor(info: str) -> str:
    """The first processor of /proc/cpuinfo, '' where it is not named."""
    said = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in info.splitlines() if ":" in line]))
    if "model name" not in said:
        return ""
    units = [unit for unit in UNITS if unit in said.get("flags", "").split()]
    family = f" family {said['cpu family']} model {said['model']}" if "cpu family" in said and "model" in said else ""
    return said["model name"] + family + (f" ({' '.join(units)})" if units else "")

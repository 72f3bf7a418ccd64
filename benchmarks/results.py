"""benchmarks/results.json: a list of {name, value, unit, command, commit, machine}, newest last."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

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
    """Processor, cores, memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"

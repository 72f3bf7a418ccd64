"""The demo's figures: score, seconds, memory.

python benchmarks/bench_demo.py      # runs src/demo.py and records what its summary says
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from results import record

ROOT = Path(__file__).resolve().parents[1]


def main():
    subprocess.run([sys.executable, "src/demo.py"], cwd=ROOT, check=True)
    summary = json.loads((ROOT / "runs/demo/summary.json").read_text())
    command = "python benchmarks/bench_demo.py"
    record("demo_row_micro_f1", summary["test_row_micro_f1"], "row-wise micro F1", command)
    record("demo_seconds", summary["seconds"], "s", command)
    record("demo_peak_rss_mb", summary["peak_rss_mb"], "MB, all processes", command)


if __name__ == "__main__":
    main()

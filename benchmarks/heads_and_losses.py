"""Every registered network, head, loss, task and kind of target: it learns a made set, or is refused before training.

OMP_NUM_THREADS=1 python benchmarks/heads_and_losses.py --record      # minutes; --networks cnn_small for one
OMP_NUM_THREADS=1 python benchmarks/heads_and_losses.py --processes 2 --out heads.csv --record

Networks are those of tests/tiny_networks.py, the made set and what "learned" means those of tests/toy_heads.py. All
networks with all their activations and poolings train on single labels with every loss that is not refused; the other
kinds of targets are trained once for each head that answers differently. Prints what failed, and a table of heads.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from results import record

import toy_heads
from earshot.files import write_rows
from earshot.models import MODELS


def outcomes(names: list[str]) -> list[dict]:
    """The walk over these networks, a row a combination."""
    found = []
    for outcome in toy_heads.walk(toy_heads.variants(tuple(names))):
        if not outcome.fine:
            print(f"FAILED {outcome}", flush=True)
        found.append({
            "network": str(outcome.variant), "loss": outcome.loss, "targets": outcome.kind, "task": outcome.task,
            "score": f"{outcome.score:.3f}", "refused": outcome.refusal, "fine": int(outcome.fine),
        })  # fmt: skip
    print(f"{', '.join(names)}: {sum(row['fine'] for row in found)} of {len(found)}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV of all combinations")
    parser.add_argument("--record", action="store_true", help="into benchmarks/results.json")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        rows = [row for part in pool.map(outcomes, shares(options.networks, options.processes)) for row in part]
    refused = sum(bool(row["refused"]) for row in rows)
    share = sum(row["fine"] for row in rows) / len(rows)
    networks = len({row["network"] for row in rows})
    print(
        f"{len(rows)} combinations of {networks} networks and heads: {refused} refused, {len(rows) - refused} trained"
    )
    for reason, count in Counter(row["refused"].split(":")[0] for row in rows if row["refused"]).most_common(12):
        print(f"  {count:5d}  {reason}")
    print(f"learned or refused: {share:.4f}")
    if options.out:
        write_rows(options.out, rows)
    if options.record:
        command = "OMP_NUM_THREADS=1 python benchmarks/heads_and_losses.py --record"
        record("heads_and_losses", round(share, 4), f"of {len(rows)} combinations learn or are refused", command)


def shares(names: list[str], processes: int) -> list[list[str]]:
    """One network a process and turn, or all in one: heads that were learned with are remembered in a process."""
    return [names] if processes == 1 else [names[i::processes] for i in range(processes)]


if __name__ == "__main__":
    main()

"""How many kinds of planted leaks the audit finds, and what it names that was not planted.

python benchmarks/planted_leaks_found.py --record
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import results

import planted_leaks
from earshot.audits import leaks
from earshot.audits.fingerprints import fingerprints

SEEDS = range(5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    options = parser.parse_args()
    missed, extra = [], 0
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            clips, folds, test, expected = planted_leaks.plant(Path(folder), seed=seed)
            prints, test_prints = (fingerprints([Path(folder) / p for p in t.path]) for t in (clips, test))
        found = leaks.leaks_of(clips, folds, prints, test, test_prints)
        found += leaks.of_targets({"mode": "source", "by": "a run"}, clips, "")
        expected["told by its own teacher"] = set(clips.clip_id)
        named = {(leak.kind, frozenset(leak.clips)) for leak in found}
        missed += [(seed, w) for w, kind in planted_leaks.KINDS.items() if (kind, frozenset(expected[w])) not in named]
        extra += sum(ids not in {frozenset(e) for e in expected.values()} for _, ids in named)
    kinds = len(planted_leaks.KINDS) - len({what for _, what in missed})
    print(f"{kinds} of {len(planted_leaks.KINDS)} kinds found with every seed of {len(SEEDS)}; missed {missed}; "
          f"{extra} named that were not planted")  # fmt: skip
    if options.record:
        unit = f"of {len(planted_leaks.KINDS)} kinds, each found with {len(SEEDS)} seeds ({extra} named without cause)"
        results.record("planted_leaks_found", kinds, unit, "python benchmarks/planted_leaks_found.py --record")


if __name__ == "__main__":
    main()

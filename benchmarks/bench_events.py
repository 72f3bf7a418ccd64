"""How long a recording with 1,000 events takes from framewise outputs to rows: Earshot against the source's loops.

python benchmarks/bench_events.py            # 5 rounds, some minutes: the loops are slow
python benchmarks/bench_events.py --record   # and append the figures to benchmarks/results.json

Both ways run in turn in one process, on the same outputs and by the same (strict) rules, and must give the same rows.
Times are process CPU time, the median over the rounds; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from earshot.competitions import birdcall
from earshot.events import overlap_losers, strict_events

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/bench_events.py --record"
N_CHUNKS, N_FRAMES, N_CLASSES = 4, 3001, 264  # two minutes, 10-ms frames, the birdcall species
THRESHOLD, IOU = 0.5, 0.4


def sample_outputs(n_events: int, seed: int = 0) -> np.ndarray:
    """(N_CHUNKS, N_FRAMES, N_CLASSES) float32: `n_events` bumps of 0.3 to 3 s on a quiet floor, apart."""
    rng = np.random.default_rng(seed)
    chunks = rng.uniform(0, 0.3, (N_CHUNKS, N_FRAMES, N_CLASSES)).astype(np.float32)
    taken = np.zeros(chunks.shape, bool)
    while n_events:
        length = int(rng.integers(30, 300))
        chunk, k = rng.integers(N_CHUNKS), rng.integers(N_CLASSES)
        start = rng.integers(1, N_FRAMES - length - 1)
        around = (chunk, slice(start - 1, start + length + 1), k)
        if not taken[around].any():
            chunks[chunk, start : start + length, k] = rng.uniform(0.5, 1) * np.float32(0.999) + np.float32(0.0005)
            taken[around] = True
            n_events -= 1
    return chunks


def loop_events(chunks: np.ndarray, classes) -> list[tuple]:
    """The source's way to events: every chunk, every class, every active frame."""
    found = []
    for number, prob in enumerate(chunks):
        hit = prob >= np.float32(THRESHOLD)
        for k in range(hit.shape[1]):
            frames = np.flatnonzero(hit[:, k])
            head = 0
            for tail in range(len(frames)):
                if tail + 1 < len(frames) and frames[tail + 1] - frames[tail] == 1:
                    continue
                first, last = frames[head], frames[tail]
                heard = prob[first : max(last, first + 1), k]
                onset, offset = 0.01 * first + 30.0 * number, 0.01 * last + 30.0 * number
                found.append((classes[k], onset, offset, heard.max(), heard.mean()))
                head = tail + 1
    return found


def loop_losers(events: list[tuple]) -> list[int]:
    """The source's way to suppress: all pairs, the removed ones looked up in a list."""
    removed = []
    for i in range(len(events)):
        for j in range(len(events)):
            if i == j or i in removed or j in removed:
                continue
            _, onset_i, offset_i, confidence_i, _ = events[i]
            _, onset_j, offset_j, confidence_j, _ = events[j]
            if onset_i - offset_j >= 0 or onset_j - offset_i >= 0:
                continue
            shared = min(offset_i, offset_j) - max(onset_i, onset_j)
            if shared / (max(offset_i, offset_j) - min(onset_i, onset_j)) > IOU:
                removed.append(j if confidence_i > confidence_j else i)
    return removed


def clock(function, *args) -> tuple[float, object]:
    """CPU milliseconds, and what came out."""
    start = time.process_time()
    result = function(*args)
    return (time.process_time() - start) * 1e3, result


def measure(rounds: int = 5, n_events: int = 1000) -> dict[str, float]:
    """Median CPU milliseconds of each step, both ways, and the speed-ups; raises unless the rows are equal."""
    classes = [f"species{k:03d}" for k in range(N_CLASSES)]
    chunks = sample_outputs(n_events)
    times = {name: [] for name in ("extract_loops", "extract", "suppress_loops", "suppress")}
    for _ in range(rounds):
        spent, slow = clock(loop_events, chunks, classes)
        times["extract_loops"].append(spent)
        spent, events = clock(strict_events, chunks, "a", classes, THRESHOLD)
        times["extract"].append(spent)
        spent, removed = clock(loop_losers, slow)
        times["suppress_loops"].append(spent)
        spent, loses = clock(overlap_losers, events.onset, events.offset, events.max_confidence, IOU)
        times["suppress"].append(spent)
        _check_equal(slow, removed, events, loses)
    result = {f"{name}_ms": median(values) for name, values in times.items()}
    result["n_events"], result["n_removed"] = len(slow), len(removed)
    result["suppression_speedup"] = result["suppress_loops_ms"] / result["suppress_ms"]
    slow_ms, fast_ms = (result[f"extract{way}_ms"] + result[f"suppress{way}_ms"] for way in ("_loops", ""))
    return result | {"total_speedup": slow_ms / fast_ms}


def _check_equal(slow: list[tuple], removed: list[int], events: pd.DataFrame, loses: np.ndarray):
    """The same events, the same survivors, the same rows."""
    by_loops = pd.DataFrame(slow, columns=["event_label", "onset", "offset", "max_confidence", "mean_confidence"])
    for column in ("event_label", "onset", "offset"):
        assert by_loops[column].tolist() == events[column].tolist(), f"{column} differs"
    assert np.flatnonzero(loses).tolist() == sorted(removed), "other events were removed"
    ends = np.arange(5, 30 * N_CHUNKS + 1, 5)
    test = pd.DataFrame({"site": "site_1", "row_id": [f"site_1_a_{e}" for e in ends], "seconds": ends, "audio_id": "a"})
    both = [
        birdcall.answers(birdcall.touched_rows(table, test, strict=True), test)
        for table in (by_loops.assign(filename="a").drop(index=removed), events[~loses])
    ]
    assert both[0].equals(both[1]), "rows differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    options = parser.parse_args()
    result = measure(options.rounds, options.events)
    print(f"{result['n_events']} events, {result['n_removed']} removed, {options.rounds} rounds, CPU ms (median)")
    for step in ("extract", "suppress"):
        slow, fast = result[f"{step}_loops_ms"], result[f"{step}_ms"]
        print(f"{step:10s} loops {slow:10.1f}   earshot {fast:8.2f}   x{slow / fast:,.0f}")
    print(f"{'both':10s} x{result['total_speedup']:,.0f}")
    if options.record:
        from results import record

        label = f"{options.events}_events"
        record(f"suppression_speedup_{label}", round(result["suppression_speedup"], 1), "x", COMMAND)
        record(f"suppression_{label}", round(result["suppress_ms"], 3), "ms CPU", COMMAND)
        record(f"event_extraction_{label}", round(result["extract_ms"], 2), "ms CPU", COMMAND)
        record(f"events_to_survivors_speedup_{label}", round(result["total_speedup"], 1), "x", COMMAND)


if __name__ == "__main__":
    main()

"""How many small faults the fast tests notice: mutmut's mutants of five rooms, a seeded sample of each or all of them.

python benchmarks/mutants.py                          # 100 mutants a room, about an hour on two idle cores
python benchmarks/mutants.py --rooms folds events     # some rooms; the survivors are printed as diffs
python benchmarks/mutants.py --all --record           # every mutant; append mutants_killed_share to results.json

A mutant is the source with one operator, number, argument or text changed. It is killed when a test of its room
(`ROOMS`) fails, or runs out of time (counted apart too), and survives otherwise, also where no test runs it. Left out:
mutants that change nothing but a `raise` statement, a warning or a log line, where only the wording of a message
differs.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name

sys.path.insert(0, str(Path(__file__).parent))

from results import record

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "configs", "folds", "benchmarks", "pyproject.toml")
KILLED, TIME = ("killed", "timeout"), ("timeout",)
RUNNER_FAILED, NO_TESTS = 255, 33  # exit codes of mutmut, which calls the first one a timeout


@dataclass(frozen=True)
class Room:
    """Files that are mutated, and the fast test files that have to notice."""

    files: tuple[str, ...]  # globs below src/earshot
    tests: tuple[str, ...]  # names below tests/, of whole files or of tests in them


ROOMS = {
    "metrics": Room(
        ("metrics/*.py",),
        (
            "test_metrics.py",
            "test_metrics_input.py",
            "test_psds.py",
            "test_event_metrics.py",
            "test_metrics_ust.py",
            "test_metrics_by_hand.py",
            "test_anomaly_metrics.py",
        ),
    ),
    "prediction": Room(
        ("prediction/*.py",),
        (
            "test_inference.py",
            "test_predictions.py",
            "test_pooling.py",
            "test_graphs.py",
            "test_hearings.py",
            "test_detection.py",
            "test_free_cores.py",
            "test_windows_tta.py",
            "test_extractors.py",
            "test_origins.py",
            "test_clip_answers.py",
            "test_graph_descriptions.py",
            "test_prediction_files.py",
            "test_voice.py::test_blocks_of_any_size_give_the_same_probabilities",
            "test_voice.py::test_the_samples_before_a_frame_are_given_with_it",
            "test_voice.py::test_stretches_bridge_short_pauses_and_drop_what_is_short",
            "test_voice.py::test_a_file_that_is_no_detector_is_an_error_that_says_what_it_takes",
            "test_truth.py",
            "test_origin_records.py",
            "test_own_network.py",
        ),
    ),
    "ensemble": Room(
        ("ensemble/*.py",),
        (
            "test_blends.py",
            "test_blending.py",
            "test_postprocessing.py",
            "test_post_processing_choice.py",
            "test_post_processing_steps.py",
            "test_oof_scores.py",
            "test_relabel.py",
            "test_origins.py",
            "test_row_steps.py",
            "test_choice_json.py",
            "test_lineage.py",
            "test_member_origins.py",
            "test_oof_reports.py",
            "test_post_search.py",
            "test_relabelling.py",
            "test_specialist_blends.py",
            "test_robustness.py::test_no_fold_chooses_for_itself",
            "test_robustness.py::test_one_fold_alone_has_no_others",
            "test_robustness.py::test_a_fold_without_events_has_no_score",
        ),
    ),
    "folds": Room(("data/folds.py", "data/group_folds.py"), ("test_folds.py", "test_fold_tables.py")),
    "events": Room(("events.py",), ("test_events.py", "test_post_options.py")),
}
# a pytest plugin: the quickest tests first, by the times that mutmut took, so that most mutants die at once
QUICK_FIRST = """
import json, pathlib

def pytest_collection_modifyitems(items):
    times = pathlib.Path("mutmut-stats.json")
    seconds = json.loads(times.read_text())["duration_by_test"] if times.is_file() else {}
    items.sort(key=lambda item: seconds.get(item.nodeid, 0))
"""
# mends faults of native libraries, which only a slow test in a process of its own can see
NOT_MUTATED = ("library_fixes.py", "__init__.py")


@dataclass(frozen=True)
class Mutant:
    """One changed function: mutmut's name for it and what differs from the source."""

    name: str
    difference: str


def main():
    options = parse_args()
    work = options.work.resolve() if options.work else Path(tempfile.mkdtemp(prefix="mutants"))
    counts, survivors = {}, []
    for name in options.rooms:
        room = ROOMS[name]
        found = [m for path in sources(room) for m in mutants_of(path)]
        chosen = found if options.all else sample(found, options.sample, f"{options.seed} {name}")
        if options.only:
            chosen = [m for m in chosen if options.only in m.name]
        verdicts = run(room, chosen, work / name, options.processes)
        killed, by_time = (sum(v in of for v in verdicts.values()) for of in (KILLED, TIME))
        counts[name] = (len(found), len(chosen), killed, by_time)
        survivors += [(verdicts[m.name], m) for m in chosen if verdicts[m.name] not in KILLED]
    for verdict, mutant in survivors:
        print(f"\n{mutant.name}: {verdict}\n{mutant.difference}")
    print("\n" + table(counts))
    tried, killed, by_time = (sum(c[i] for c in counts.values()) for i in (1, 2, 3))
    if options.record:
        drawn = "all" if options.all else f"at most {options.sample} a room, seed {options.seed}"
        unit = f"share of {tried} mutants ({drawn}) of {', '.join(counts)}; {killed} killed, of them {by_time} by time"
        drawn = "--all" if options.all else f"--sample {options.sample}"
        record("mutants_killed_share", round(killed / tried, 4), unit, f"python benchmarks/mutants.py {drawn} --record")
    if not options.work:
        shutil.rmtree(work)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    add("--sample", type=int, default=100, help="mutants a room")
    add("--seed", type=int, default=10, help="of the sample")
    add("--all", action="store_true", help="every mutant instead of a sample")
    add("--only", help="of these, the mutants whose name holds this text")
    add("--processes", type=int, default=2)
    add("--work", type=Path, help="folder to work in and to keep (default: a temporary one)")
    add("--record", action="store_true", help="append to benchmarks/results.json")
    return parser.parse_args()


def sources(room: Room) -> list[Path]:
    """The files of a room, relative to the repository."""
    package = ROOT / "src" / "earshot"
    found = sorted(p for pattern in room.files for p in package.glob(pattern) if p.name not in NOT_MUTATED)
    return [p.relative_to(ROOT) for p in found]


def mutants_of(path: Path) -> list[Mutant]:
    """The mutants of a file that change more than a message."""
    mutated = mutate_file_contents(str(path), (ROOT / path).read_text())
    lines = mutated.code.splitlines()

    def source(function: str) -> str:
        span = mutated.line_span_by_function_name[function]
        return textwrap.dedent("\n".join(lines[span.start - 1 : span.end]))

    found = []
    for function in mutated.mutant_names:
        stem = function.rsplit("__mutmut_", 1)[0]
        before, after = source(f"{stem}__mutmut_orig"), source(function).replace(function, f"{stem}__mutmut_orig")
        if without_messages(before) != without_messages(after):
            found.append(Mutant(get_mutant_name(path, function), difference(before, after)))
    return found


class WithoutMessages(ast.NodeTransformer):
    """Empties what only tells people something: `raise`, warnings.warn, calls of a logger."""

    def visit_Raise(self, node: ast.Raise):
        return ast.Raise()

    def visit_Call(self, node: ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("warn", "warning", "info", "debug"):
            return ast.Constant(None)
        return self.generic_visit(node)


def without_messages(source: str) -> str:
    return ast.dump(WithoutMessages().visit(ast.parse(source)))


def difference(before: str, after: str) -> str:
    """The changed lines, with their signs."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
    return "\n".join(line for line in lines if not line.startswith("@@"))


def sample(mutants: list[Mutant], size: int, seed: str) -> list[Mutant]:
    """At most `size` of them, drawn by `seed`, in their order."""
    picked = random.Random(seed).sample(range(len(mutants)), min(size, len(mutants)))
    return [mutants[i] for i in sorted(picked)]


def run(room: Room, chosen: list[Mutant], folder: Path, processes: int) -> dict[str, str]:
    """What became of each mutant: mutmut runs the tests of the room in a copy of the repository."""
    if not chosen:
        return {}
    for part in COPIED:
        copy(ROOT / part, folder / part)
    shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)  # tests that are gone
    (folder / "setup.cfg").write_text(settings(room))
    plugins = folder / "plugins"  # a folder of its own: mutmut takes the one it runs in off the path
    plugins.mkdir(exist_ok=True)
    (plugins / "quick_first.py").write_text(QUICK_FIRST)
    shared = {"EARSHOT_SHARED": ROOT.parent / "shared" / "data", "EARSHOT_REFERENCE": ROOT.parent / "shared/reference"}
    environment = {k: str(v) for k, v in shared.items()} | {"OMP_NUM_THREADS": "1"} | os.environ
    environment["PYTHONPATH"] = str(plugins)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes), *(m.name for m in chosen)]
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        raise SystemExit(f"error: mutmut failed in {folder}; see its output above")
    codes = {}
    for path in sources(room):
        codes |= json.loads((folder / "mutants" / f"{path}.meta").read_text())["exit_code_by_key"]
    for name in (m.name for m in chosen if codes[m.name] == RUNNER_FAILED):
        codes[name] = alone(folder, name, environment)
    return {m.name: status_by_exit_code[codes[m.name]] for m in chosen}


def alone(folder: Path, name: str, environment: dict[str, str]) -> int:
    """pytest's exit code for one mutant, in a process of its own: mutmut's failed in between, which says nothing."""
    stats = json.loads((folder / "mutants" / "mutmut-stats.json").read_text())["tests_by_mangled_function_name"]
    tests = sorted(stats.get(name.rsplit("__mutmut_", 1)[0], ()))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "quick_first", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder / "mutants", env=environment | {"MUTANT_UNDER_TEST": name},
                          capture_output=True)  # fmt: skip
    print(f"{name}: again, alone: exit code {done.returncode}", flush=True)
    return done.returncode if tests else NO_TESTS


def copy(source: Path, target: Path):
    """A file or folder, times included: mutmut makes the mutants of unchanged files only once."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        return
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def settings(room: Room) -> str:
    """setup.cfg for mutmut. A fork server: a process that ran native libraries' threads must not be forked.

    Time runs out at 15 x (8 s + what the tests took), so that a busy machine's imports are not taken for a kill.
    """

    def lines(values):
        return "".join(f"\n    {value}" for value in values)

    return (
        "[mutmut]\nprocess_isolation = forkserver\ntimeout_constant = 8\nsource_paths =\n    src/\n"
        f"only_mutate ={lines(map(str, sources(room)))}\n"
        f"also_copy ={lines(COPIED)}\n"
        f"pytest_add_cli_args ={lines(('-p', 'quick_first', '-p', 'no:cacheprovider'))}\n"
        f"pytest_add_cli_args_test_selection ={lines(f'tests/{name}' for name in room.tests)}\n"
    )


def table(counts: dict[str, tuple[int, int, int, int]]) -> str:
    """Room, its mutants, how many were tried, how many killed, how many of these by time, the share."""
    rows = [*counts.items(), ("all", tuple(map(sum, zip(*counts.values()))))]
    lines = [f"{'room':12s} {'mutants':>8s} {'tried':>6s} {'killed':>7s} {'by time':>8s}  share"]
    lines += [f"{n:12s} {f:8d} {t:6d} {k:7d} {s:8d}  {k / max(t, 1):.3f}" for n, (f, t, k, s) in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

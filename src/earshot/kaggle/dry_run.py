"""Run a built kernel as Kaggle would: read-only input, one folder to write to, no network, its packages, a clock.

What may be imported is Python's own, what Kaggle's image has (kaggle/image.py) and what the bundle's wheels bring. A
wheel for another Python than this one cannot be imported here: the same package of this machine stands in for it.

Scenes: the empty folder of a commit, beside a table that names a recording, and without any table; hidden recordings in
its place; the same with odd files among them; the same with hardly any time. After each the competition's own check
takes the submission, and what the kernel must not touch is as it was, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name

from earshot.competitions import get_competition
from earshot.files import as_json, file_digest, scratch_folder
from earshot.kaggle.checks import identity
from earshot.kaggle.image import Image, read_image
from earshot.kaggle.wheels import Wheel, read_wheels
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test, get_rules
from earshot.kernel.manifest import NOT_UPLOADED
from earshot.sound import audio
from earshot.stored import read_json, want
from earshot.tables import read_table

GUARD = Path(__file__).with_name("guard.py")
NO_NETWORK = Path(__file__).with_name("no_network.py")
NO_WRITES = Path(__file__).with_name("no_writes.py")
PROBE = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
WRITE_PROBE = """import sys
open(sys.argv[1] + "/a", "w").close()
try:
    open(sys.argv[2] + "/b", "w").close()
except PermissionError:
    pass
"""
GRACE_SECONDS = 60.0  # beyond its minutes: starting Python, loading graphs on a busy machine
SHORT_MINUTES = 0.02


@dataclass(frozen=True)
class Scene:
    """One run: what it is called, its minutes, and what fills the folder of recordings."""

    name: str
    minutes: float
    fill: Callable[[Path], None]


@dataclass(frozen=True)
class SceneResult:
    """How it went; `problems` is empty where all was well."""

    name: str
    seconds: float
    rows: int
    problems: tuple[str, ...]


def dry_run(
    build: Path, minutes: float, recordings: Path | None = None, say=print, image: Image | None = None,
    accept_open_network: bool = False,
) -> list[SceneResult]:  # fmt: skip
    """Run all scenes on kernels/<name>/build. `recordings`: a folder whose content takes the place of the hidden test
    (default: a few made ones). Says each scene's outcome; the caller looks at `problems`.

    Where the network cannot be taken away from all that the kernel may start, that is an error unless
    `accept_open_network`.
    """
    bundle = open_bundle(build / "dataset")
    competition = bundle.about["competition"]
    hidden = (lambda folder: _copy(recordings, folder)) if recordings else _made
    scenes = [
        Scene("commit: a table, no recordings", minutes, lambda folder: _table(folder, competition, bundle.classes)),
        Scene("empty test folder, no table", minutes, lambda folder: None),
        Scene("hidden test", minutes, hidden),
        Scene("odd files among the tests", minutes, lambda folder: (hidden(folder), _odd(folder))),
        Scene("hardly any time", SHORT_MINUTES, hidden),
    ]
    blocked, how = network_blocker()
    if not blocked and not accept_open_network:
        raise ValueError(
            f"the network cannot be taken away here ({how}): connections would be refused inside Python alone, "
            "and what else the kernel starts could connect. Say --accept-open-network to try it all the same"
        )
    say(f"network: {how}" if blocked else f"network: OPEN to what the kernel starts ({how})")
    walled, how = write_wall()
    say(f"writing outside the working folder: {how}")
    guard, notes = package_guard(build / "dataset", image or read_image())
    for note in notes:
        say(f"packages: {note}")
    results = []
    for scene in scenes:
        with scratch_folder() as root:
            result = _play(
                scene, build, root, bundle.classes, competition=competition, blocked=blocked, walled=walled, about=guard
            )
        results.append(result)
        outcome = "; ".join(result.problems) or f"valid, {result.rows} rows"
        say(f"{scene.name}: {outcome} ({result.seconds:.1f} s)")
    return results


def _play(
    scene: Scene, build: Path, root: Path, classes, *, competition: str, blocked: list[str], walled: bool, about: dict
) -> SceneResult:
    rules = get_rules(competition)
    working, guard = root / "working", root / "guard"
    dataset = identity(build / "dataset" / "dataset-metadata.json")
    inputs, tests = root / "input" / dataset.split("/")[1], root / "input" / _data_slug(build) / rules.folder
    for folder in (working / "tmp", guard, inputs, tests):
        folder.mkdir(parents=True)
    log = root.with_name(f"{root.name}.writes")
    shutil.copyfile(GUARD, guard / "sitecustomize.py")
    (guard / "guard.json").write_text(as_json(about | {"working": str(working), "log": str(log)}))
    for path in (build / "dataset").iterdir():
        if path.name not in NOT_UPLOADED:
            shutil.copyfile(path, inputs / path.name)
    scene.fill(tests)
    _read_only(root / "input")
    before = _snapshot(root, working)
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")}
    environment |= {
        "KAGGLE_INPUT": str(root / "input"), "KAGGLE_WORKING": str(working), "KERNEL_MINUTES": str(scene.minutes),
        "HOME": str(working / "tmp"), "TMPDIR": str(working / "tmp"), "PYTHONPATH": str(guard),
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log.touch()
    wall = [sys.executable, str(NO_WRITES), str(working), str(log), "--"] if walled else []
    command = [*blocked, *wall, sys.executable, str(build.resolve() / "kernel" / "kernel.py")]
    began, limit = time.monotonic(), scene.minutes * 60 + GRACE_SECONDS
    problems = []
    try:
        ran = subprocess.run(command, cwd=working, env=environment, capture_output=True, text=True, timeout=limit)
        if ran.returncode:
            problems.append(f"ended with {ran.returncode}: {ran.stderr.strip()[-800:]}")
        if walled and (refused := [line for line in ran.stderr.splitlines() if "Permission denied" in line]):
            problems.append(f"was refused to write outside the working folder: {'; '.join(refused[:3])[:400]}")
        if "FAILED" in ran.stdout:
            problems.append(ran.stdout[ran.stdout.index("FAILED") :].strip()[:800])
    except subprocess.TimeoutExpired:
        problems.append(f"was not done {GRACE_SECONDS:g} s after its {scene.minutes:g} minutes")
    seconds = time.monotonic() - began
    changed = {p for p, d in (before.items() ^ _snapshot(root, working).items()) if d is not None}
    if changed := sorted(changed | _logged(log, root)):
        problems.append(f"wrote outside the working folder: {', '.join(dict.fromkeys(changed))}")
    rows, problem = _check(competition, tests, classes, working / "submission.csv")
    return SceneResult(scene.name, seconds, rows, tuple(problems + ([problem] if problem else [])))


def _data_slug(build: Path) -> str:
    """The competition that the kernel asks for."""
    path, remedy = build / "kernel" / "kernel-metadata.json", "build the bundle again with src/bundle.py"
    about = read_json(path, "file", remedy)
    want(about, {"competition_sources": list}, str(path), remedy)
    return str(about["competition_sources"][0])


def _check(competition: str, tests: Path, classes, submission: Path) -> tuple[int, str]:
    """(rows, what is wrong with them) by the competition's own check; an empty test asks for a header alone."""
    if not submission.is_file():
        return 0, "there is no submission.csv"
    test, table = find_test(competition, tests, classes), read_table(submission)
    if test.empty:
        return len(table), f"{len(table)} rows for an empty test" if len(table) else ""
    try:
        get_competition(competition).validate(table, test.table, list(test.columns[1:] or classes))
    except ValueError as error:
        return len(table), str(error)
    return len(table), ""


# ---- what lies in the test folder


def _copy(source: Path, folder: Path):
    """Recordings, and the tables that lie beside them."""
    if not source.is_dir():
        raise ValueError(f"--test-folder {source} is no folder")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for table in source.parent.glob("*.csv"):
        if table.name in ("test.csv", "sample_submission.csv"):
            shutil.copyfile(table, folder.parent / table.name)


def _table(folder: Path, competition: str, classes):
    """The competition's table of one recording of 10 s, beside the folder."""
    rules = get_rules(competition)
    table = rules.make([(rules.clip_id("soundscape_0"), 10.0)], classes, folder.parent)
    table.to_csv(folder.parent / rules.table, index=False)


def _made(folder: Path):
    """Three recordings of noise and tones, the last one ends within a row."""
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((10.0, 15.0, 7.3)):
        t = np.arange(round(seconds * 32000)) / 32000
        sound = 0.2 * np.sin(2 * np.pi * 1000 * (i + 1) * t) + 0.02 * rng.standard_normal(len(t))
        audio.write(folder / f"soundscape_{i}.ogg", sound.astype(np.float32), 32000)


def _odd(folder: Path):
    """What lies in real test folders at times, and what should not."""
    (folder / "soundscape_bad.ogg").write_bytes(b"OggS" + bytes(range(256)))
    (folder / "soundscape_empty.ogg").write_bytes(b"")
    (folder / "readme.txt").write_text("no recording")
    (folder / "._soundscape_0.ogg").write_bytes(b"\x00")
    (folder / "folder.ogg").mkdir()
    audio.write(folder / "soundscape_short.ogg", np.zeros(100, np.float32), 32000)
    audio.write(folder / "Aufnahme_überall.wav", np.zeros(8000, np.float32), 8000)


# ---- the walls


def network_blocker() -> tuple[list[str], str]:
    """Find a way to start a command without network, and try it out: (what stands before the command, how).

    ([], why not) where the system has no way.
    """
    ways = {
        "a namespace without any (unshare)": ["unshare", "--map-root-user", "--net"],
        "sockets refused by a filter of system calls (seccomp)": [sys.executable, str(NO_NETWORK)],
    }
    for how, command in ways.items():
        if shutil.which(command[0]) and _blocks(command):
            return command, how
    return [], "neither namespaces nor filters of system calls"


def write_wall() -> tuple[bool, str]:
    """Whether the system refuses every program that the kernel starts to write elsewhere, tried out, and how."""
    with tempfile.TemporaryDirectory() as inside, tempfile.TemporaryDirectory() as outside:
        command = [sys.executable, str(NO_WRITES), inside, "--", sys.executable, "-c", WRITE_PROBE, inside, outside]
        tried = subprocess.run(command, capture_output=True)
        if tried.returncode == 0 and os.listdir(inside) and not os.listdir(outside):
            return True, "refused to all programs (Landlock)"
    return False, "seen inside Python and in the folders of input alone: this system has no Landlock"


def _blocks(command: list[str]) -> bool:
    """Whether a process started by `command` runs, but does not reach a port of this machine that is open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        runs = subprocess.run([*command, sys.executable, "-c", "pass"], capture_output=True)
        probe = [sys.executable, "-c", PROBE, str(server.getsockname()[1])]
        reached = subprocess.run([*command, *probe], capture_output=True)
    return runs.returncode == 0 and reached.returncode != 0


def package_guard(dataset: Path, image: Image) -> tuple[dict, list[str]]:
    """Say which packages a dry run may not import, and which stand in for others.

    ({"blocked": {import name: why}, "stand_ins": import names}, what to know about them).
    """
    wheels, here = read_wheels(dataset), metadata.packages_distributions()
    blocked = {
        top: f"Kaggle's image has no {names[0]}, and the bundle no wheel of it"
        for top, names in here.items()
        if top != "earshot" and not any(canonicalize_name(name) in image.packages for name in names)
    }
    fitting = set(sys_tags())
    foreign = [wheel for wheel in wheels if not wheel.tags & fitting]
    stand_ins = {top for wheel in foreign for top in wheel.imports}
    notes = [f"those of {image.source}, and {len(wheels)} wheels" + "".join(f", {w.path.name}" for w in wheels)]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if foreign:
        stand_for = ", ".join(_stand_in(wheel) for wheel in foreign)
        notes.append(f"this Python {python} cannot import wheels for {image.version}; from here instead: {stand_for}")
    if python != image.version:
        notes.append(f"not tried: Python {image.version} itself, which the image has; this is {python}")
    known = {k: v for k, v in blocked.items() if k not in stand_ins}
    return {"blocked": known, "stand_ins": sorted(stand_ins)}, notes


def _stand_in(wheel: Wheel) -> str:
    """'onnxruntime 1.32.0 for 1.32.0', or that there is none."""
    try:
        return f"{wheel.name} {metadata.version(wheel.name)} for {wheel.version}"
    except metadata.PackageNotFoundError:
        return f"nothing for {wheel.name} {wheel.version}: pip install {wheel.name}=={wheel.version}"


def _logged(log: Path, root: Path) -> set[str]:
    """What the guard saw written outside the working folder; paths under `root` relative to it."""
    if not log.is_file():
        return set()
    paths = {Path(line) for line in log.read_text(encoding="utf-8").splitlines() if line}
    log.unlink()
    real = root.resolve()
    return {str(p.relative_to(real)) if real in p.parents else str(p) for p in paths}


def _read_only(folder: Path):
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _snapshot(root: Path, working: Path) -> dict[str, str | None]:
    """Every path under `root` but not under `working`, with the SHA-256 of files."""
    paths = (p for p in root.rglob("*") if p != working and working not in p.parents)
    return {str(p.relative_to(root)): file_digest(p) if p.is_file() else "folder" for p in paths}

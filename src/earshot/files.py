"""Files: written so that no half-written one ever has its final name, and found below a folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from earshot.processes.kill_points import reached
from earshot.processes.running import is_running, machine

TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-[0-9]+\.(part|old)\.(.+)", re.DOTALL)
LONGEST_NAME = 255  # bytes, of every usual file system
OLD_SECONDS = 86400  # without a change, after which what another machine began to write is given up
FULL_BYTES = 1 << 16  # of a disk that has less free, whatever could not be written could not for that
LOGGER = logging.getLogger(__name__)
_swept: set[tuple[int, str]] = set()  # process and folder
LONGEST_PLAIN = 200  # bytes of a name that others are made of
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *(f"{k}{n}" for k in ("COM", "LPT") for n in range(1, 10))}
UNNAMEABLE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]|[\ud800-\udfff]')


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Have what a full disk or a limit of files ended, in whatever words a library says it, be an OSError that names
    `path`."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if getattr(error, "errno", None) == errno.EFBIG:
            told = "the file would be larger than this process may write (ulimit -f)"
            raise OSError(errno.EFBIG, told, str(path)) from error
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "StorageFull" in text
        if not full and isinstance(error, OSError | RuntimeError):  # torch speaks of positions in the file
            full = shutil.disk_usage(path.parent).free < FULL_BYTES
        if not full:
            raise
        raise OSError(errno.ENOSPC, "the disk is full (no space left on device)", str(path)) from error


@contextmanager
def whole_file(path: str | Path, on_disk: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to, which becomes `path` at the end; an error leaves `path` as it was.

    The name keeps the file's ending and holds the process and thread, so that two writers never share one. on_disk: the
    content is on the disk before the name changes, where losing it to a power cut would lose a run.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    partial = temporary_name(path)
    try:
        with _full_disk_named(path):
            reached(f"writing {path.name}")
            yield partial
            reached(f"half-written {path.name}", partial)
            reached(f"written {path.name}")
            if on_disk:
                flush(partial)
            os.replace(partial, path)
            if on_disk:
                flush(path.parent)
            reached(f"renamed {path.name}")
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill, renamed to it at the end; an error leaves `folder` as it was.

    replace: a folder of that name is moved away once the new one is whole, and removed. A kill between the two moves
    leaves neither under the name; the next writer there puts the old one back (see `sweep`).
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    partial, old = temporary_name(folder), temporary_name(folder, "old")
    try:
        reached(f"writing {folder.name}/")
        with _full_disk_named(folder):
            partial.mkdir()
            yield partial
        reached(f"written {folder.name}/")
        if replace and folder.exists():
            os.replace(folder, old)
            reached(f"moved away {folder.name}/")
        os.replace(partial, folder)
        reached(f"renamed {folder.name}/")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_set(folder: str | Path, last: str, without: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder to fill with files that hold only together; at the end each gets its place in `folder`.

    last: the file that says that all are there. Once the new ones are whole an older one is taken away first, and the
    new one comes last, so that a kill between never leaves it beside a mixture. without: files of an older set that
    this one may not have, removed where it has not. An error before the moves leaves `folder` as it was, or away.
    """
    folder = Path(folder)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    partial = temporary_name(folder / last)
    try:
        reached(f"writing the set of {last}")
        with _full_disk_named(folder / last):
            partial.mkdir()
            yield partial
        reached(f"written the set of {last}")
        names = sorted(path.name for path in partial.iterdir() if path.name != last)
        (folder / last).unlink(missing_ok=True)
        reached(f"removed {last}")
        for name in set(without) - {*names, last}:
            (folder / name).unlink(missing_ok=True)
        for name in (*names, last):
            os.replace(partial / name, folder / name)
            reached(f"renamed {name}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for each in made:
            if not any(each.iterdir()):
                each.rmdir()


def remove_folder(folder: str | Path):
    """Remove a folder under a temporary name: a kill never leaves half of it under its own, and `sweep` ends it."""
    gone = temporary_name(Path(folder))
    shutil.rmtree(gone, ignore_errors=True)  # of an earlier call that was stopped
    os.replace(folder, gone)
    reached(f"moved away {Path(folder).name}/")
    shutil.rmtree(gone)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder among the system's temporary files, gone afterwards; those of killed processes go as well."""
    place = Path(tempfile.gettempdir())
    sweep(place)
    with tempfile.TemporaryDirectory(prefix=temporary_name(place / "earshot-").name) as folder:
        yield Path(folder)


def temporary_name(path: Path, what: str = "part") -> Path:
    """`path` under a hidden name of this machine, process and thread, with its own ending; too long: its last part."""
    head = f".{machine()}-{os.getpid()}-{threading.get_ident()}.{what}."
    return path.with_name(head + os.fsdecode(os.fsencode(path.name)[-(LONGEST_NAME - len(head)) :]))


def sweep(folder: Path):
    """Clean up, once a process and folder, what writers that have ended without their clean-up left in `folder`.

    Only what has a name of `temporary_name` is touched. A folder that was moved away, and whose successor never came,
    gets its name back.
    """
    key = (os.getpid(), os.path.abspath(folder))
    if key in _swept:
        return
    _swept.add(key)
    try:
        names = os.listdir(folder)
    except PermissionError:  # it can be written to, but not looked into
        return
    for name in names:
        path, found = Path(folder, name), TEMPORARY.fullmatch(name)
        try:
            if not found or not _given_up(path, found[1], int(found[2])):
                continue
            if found[3] == "old" and not os.path.lexists(path.with_name(found[4])):
                os.replace(path, path.with_name(found[4]))
                LOGGER.warning(f"{path.with_name(found[4])}: replacing it was cut short; the old one is back")
            elif path.is_dir() and not path.is_symlink():
                for inner, _, _ in os.walk(path):
                    os.chmod(inner, 0o700)  # a dry run's inputs are read-only
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:  # another process was first, or it is another user's
            LOGGER.info(f"{path}: left by a process that has ended, and cannot be removed: {error}")


def _given_up(path: Path, where: str, pid: int) -> bool:
    """Whether the writer of a temporary file has ended."""
    changed = path.lstat().st_mtime
    if where != machine():
        return time.time() - changed > OLD_SECONDS
    return pid != os.getpid() and not is_running(pid, changed)


def flush(path: Path):
    """Have the system put a file's content, or a folder's names, on the disk; where a folder cannot be: nothing."""
    if path.is_dir() and os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: str | Path, text: str, on_disk: bool = False):
    """Write a text, whole or not at all."""
    with whole_file(path, on_disk) as partial:
        partial.write_text(text, encoding="utf-8")


def as_json(value, indent: int | None = None) -> str:
    """JSON text of dicts, lists, texts and numbers, those of NumPy among them; what is not finite becomes null, since
    JSON has no NaN and other readers refuse the file."""

    def finite(part):
        if isinstance(part, dict):
            return {key: finite(inner) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [finite(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    def number(part):
        if isinstance(part, str | bytes) or not hasattr(part, "__float__"):
            raise TypeError(f"{type(part).__name__} {part!r} is no number, text, list or dict: JSON cannot hold it")
        exact = part.item() if hasattr(part, "item") else float(part)
        return finite(exact if isinstance(exact, bool | int | float) else float(part))

    return json.dumps(finite(value), indent=indent, default=number, allow_nan=False)


def check_name(name: str, what: str):
    """Raise unless `name` may name a file or folder on any system, inside the folder it is meant for: `what` has it."""
    stem = name.split(".")[0].strip().upper()
    wrong = {
        "is empty": not name,
        "leads to another folder": name in (".", "..") or "/" in name or "\\" in name,
        "begins with a dot": name.startswith("."),
        "begins with a hyphen, as an option does": name.startswith("-"),
        "begins or ends with a space, or ends with a dot": name != name.strip() or name.endswith("."),
        "holds a character that file names cannot have": bool(UNNAMEABLE.search(name)),
        "is a name that Windows keeps for a device": stem in DEVICES,
        f"has more than {LONGEST_PLAIN} bytes": len(name.encode(errors="surrogatepass")) > LONGEST_PLAIN,
    }
    if problems := [problem for problem, found in wrong.items() if found]:
        shown = name if len(name) <= 60 else f"{name[:59]}…"
        raise ValueError(f"{what} {shown!r} {problems[0]}: choose a plain name, such as my_run")


def plain_name(folder: Path) -> str:
    """The folder's name as configs can have it: what is neither letter, digit, `-` nor `.` becomes `_`."""
    return re.sub(r"[^\w.-]+", "_", folder.resolve().name).strip("._-") or "mine"


def short_name(name: str, longest: int = 100) -> str:
    """A name of at most so many bytes: what goes into the name of a file beside other things."""
    return os.fsencode(name)[:longest].decode(errors="ignore")


def check_ending(path: str | Path, *endings: str):
    """Raise unless the path ends in one of `endings`: a file's name says what is in it."""
    if Path(path).suffix.lower() not in endings:
        raise ValueError(f"{path} would hold what its name does not say: end it in {' or '.join(endings)}")


def check_writable(path: str | Path, instead: str = "", size: float = 0):
    """Raise ValueError unless a file could be written at `path` now: asked before the work whose result goes there.

    The folder that is to hold it (or the nearest one above that is there) takes a file, `path` is no folder, and the
    disk has `size` bytes, where they are known. instead: what else to do, for the error. Nothing is left behind.
    """
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} cannot be written: no name may hold a zero byte")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise ValueError(f"{path} cannot be written: its name has more than {LONGEST_NAME} bytes; choose a shorter one")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file{'; or ' * bool(instead)}{instead}")
    try:
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        with tempfile.TemporaryFile(dir=above):
            free = shutil.disk_usage(above).free
    except OSError as error:
        why = "is no folder" if isinstance(error, NotADirectoryError) else (error.strerror or str(error)).lower()
        hint = f"; {instead}" if instead else "; choose another place"
        raise ValueError(f"{path} cannot be written: {above}: {why}{hint}") from error
    if free < size:
        raise ValueError(f"{path} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {above}")


def write_or_rescue(path: str | Path, write: Callable[[Path], object]):
    """Call `write(path)`; where the disk refuses it then, write to a new temporary folder, and say where that is."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(prefix="earshot-")) / path.name
        write(kept)
        raise OSError(f"{path} could not be written ({error.strerror or error}); its content is in {kept}") from error


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at and below `folder`, once, with the names of its files; links are followed, but never in a loop."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # nothing below it either
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))  # a link comes last
        yield Path(parent), names


def write_rows(path: str | Path, rows: list[dict], columns: Iterable[str] | None = None):
    """List of dicts -> CSV, whole or not at all; `columns`: the union of their keys where none are given."""
    columns = list(columns or dict.fromkeys(k for row in rows for k in row))
    if not columns:
        raise ValueError(f"{path}: no rows and no columns; a table of nothing still has a header")
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def fold_folders(run: str | Path) -> list[Path]:
    """The folders fold0, fold1, ... of a run, by number; any other name (a copy, fold0_old) is none of its folds."""
    found = [path for path in Path(run).glob("fold*") if re.fullmatch(r"fold(0|[1-9][0-9]*)", path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.removeprefix("fold")))


def run_meant(path: str | Path) -> str:
    """Which run is probably meant by a path that is none but leads into one, or to several, as the end of an error
    message; '' where it does neither."""
    path = Path(path)
    fold = path if path.is_dir() else path.parent
    above = fold.parent if fold.name else fold.absolute().parent
    if path.exists() and fold.absolute() in [each.absolute() for each in fold_folders(above)]:
        return f" is {'a fold' if fold == path else 'a file of a fold'} of a run: give the run's folder, {above}"
    inside = [*path.glob("*"), *path.glob("*/*")] if path.is_dir() else []
    below = [each for each in sorted(inside) if fold_folders(each)]
    shown = ", ".join(map(str, below[:3])) + ", ..." * (len(below) > 3)
    return f" holds runs and is none: give the folder of one, such as {shown}" if below else ""

"""Pieces of error messages: what was probably meant, and short lists of names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import math
import os
import re
import shlex
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

LINE = 150  # characters of a line of the log
REPOSITORY = Path(__file__).resolve().parents[2]  # where this file is one of a checkout

COMMAND = re.compile(r"python (?:'[^']*/|\S*/)?src/")  # how commands begin that are printed to go on with
FILES_SHOWN = 8  # of a folder's, where none is named as what is not there


def suggest(name: str, known, listed: str = "", most: int | None = None) -> str:
    """Suggest the nearest known name, as the end of an error message.

    '; did you mean ...?' or the whole list when nothing is near. Ends every unknown-name error of Earshot.

    With `listed`, such as "its columns", the whole list stands under these words once, whether a name is near or not.
    most: names of the list that are shown, where it may be of any length, as that of a folder's files is.
    """
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=1) or [
        k for k in known if len(str(name)) > 2 and str(name) in k
    ]
    everything = f"{listed or 'known'}: {few(known, most or len(known)) or '(none)'}"
    if not near:
        return f"; {everything}"
    return f"; did you mean '{near[0]}'?" + (f" ({everything})" if listed else "")


def from_here(path: str | Path) -> str:
    """Where a relative path was looked for: it follows the folder that a command is given in; '' of an absolute one."""
    return "" if Path(path).is_absolute() else f"; paths follow the folder you are in, {Path.cwd()}"


def of_repository(path: str) -> str:
    """A path of this repository as the working folder finds it: as it is in the checkout's own folder, else whole."""
    own = REPOSITORY / path
    return path if not own.exists() or (os.path.exists(path) and os.path.samefile(own, path)) else str(own)


def command_line(script: str, *words) -> str:
    """A command to go on with, `python src/<script>.py` and its words, quoted where a shell would part them.

    Where the working folder is not the repository's, the script's whole path stands in place of src/.
    """
    return f"python {pasted(of_repository(f'src/{script}.py'), *words)}"


def pasted(*words) -> str:
    """Words of a command line as text, quoted where a shell would part them: for options that people are to add."""
    return shlex.join(map(str, words))


def few(items, n: int = 5) -> str:
    """The first names joined by commas, and how many more there are: for error messages.

    A name that nobody would see, nothing or with spaces around it, stands in quotes.
    """
    items = [text if text and text == text.strip() else repr(text) for text in map(str, items)]
    return ", ".join(items[:n]) + (f", ... ({len(items) - n} more)" if len(items) > n else "")


ONE_OF = {"are": "is", "were": "was", "have": "has", "do": "does", "classes": "class", "batches": "batch"}


def plural(count: int, words: str) -> str:
    """A count and what is counted, given in the plural: (3, "clips are") -> 3 clips are, (1, "clips are") -> 1 clip is.

    words: a noun, a verb if the count is its subject, and what follows it.
    """
    if count != 1:
        return f"{count} {words}"
    noun, *more = words.split(" ")
    noun = ONE_OF.get(noun, noun.removesuffix("s"))
    verb = [ONE_OF.get(v, f"{v}es" if v.endswith(("ch", "x")) else f"{v}s") for v in more[:1]]
    return " ".join(["1", noun, *verb, *more[1:]])


def install_line(extra: str) -> str:
    """The command that installs what requirements/<extra>.txt pins."""
    return f"pip install -r {pasted(of_repository(f'requirements/{extra}.txt'))}"


def need(module: str, extra: str, what: str):
    """Import an optional library; ValueError says what wants it and the line that installs it.

    extra: the name of requirements/<extra>.txt, which pins it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {module.partition('.')[0]} ({error}): {install_line(extra)}") from error


def check_choice(name: str, value: str, allowed):
    """Raise unless `value` is one of `allowed`; the error begins with the name of what has it."""
    if value not in allowed:
        raise ValueError(f"{name} is '{value}'; choose one of {', '.join(allowed)}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says; one that says nothing has the name of its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_params(params, known, of: str):
    """Raise where a name among `params` is none that `of`, such as "loss bce", takes."""
    for key in params:
        if key not in known:
            raise ValueError(f"unknown parameter '{key}' of {of}{suggest(key, known)}")


def check_transforms(name: str, spec):
    """Raise where an augmentation that holds others, such as OneOf, does not list them as mappings."""
    given = spec.get("transforms")
    if not isinstance(given, list) or not all(isinstance(inner, dict) for inner in given):
        raise ValueError(f"transforms of {name} must be a list of augmentations, {{name, p, ...}} each, got {given!r}")


def check_numbers(options: argparse.Namespace, *names: str, low: float = 0, high: float = math.inf):
    """Raise where one of these options of a command was given and is not from `low` to `high`."""
    for name in names:
        given = getattr(options, name)
        for value in (v for v in (given if isinstance(given, list) else [given]) if v is not None):
            if low <= value <= high and value < math.inf:
                continue
            wanted = f"lie in {low} ... {high}" if high < math.inf else f"be {low} or more"
            raise ValueError(f"--{name.replace('_', '-')} must {wanted}, got {value}")


class Parser(argparse.ArgumentParser):
    """A script's command line, on which no option is lost in silence as argparse loses the first of two.

    A repeated option that takes a list goes on with it (`--fold 0 --fold 1`); one that takes a value is an error, but
    where it says the same again. The description is laid out as it is written.

    setting_of: of a script that takes settings, key=value: the key that an unknown option's name means, or ''.
    """

    def __init__(self, setting_of: Callable[[str], str] | None = None, **settings):
        self.setting_of = setting_of
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | settings)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)
        self.given: set[str] = set()

    def parse_known_args(self, args=None, namespace=None):
        self.given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        """Exit as argparse does; an option that is a setting is given back as one."""
        unknown = message.partition("unrecognized arguments: ")[2].split() if self.setting_of else []
        meant = []
        for word in (w for w in unknown if w.startswith("--") and w in sys.argv):
            name, _, value = word.removeprefix("--").partition("=")
            after = [w for w in sys.argv[sys.argv.index(word) + 1 :][:1] if not w.startswith("-")]
            if key := self.setting_of(name):
                meant.append(pasted(f"{key}={value or ' '.join(after) or 'VALUE'}"))
        super().error(message + f"; settings are written without hyphens: {' '.join(meant)}" * bool(meant))


class _Once(argparse.Action):
    """Store, as argparse does, but join repeated lists and refuse a second value."""

    def __call__(self, parser: Parser, namespace, values, option_string=None):
        if option_string and self.dest in parser.given:
            before = getattr(namespace, self.dest)
            if isinstance(values, list):
                values = before + values
            elif values != before:
                parser.error(f"{option_string} is given twice, as {before} and as {values}: keep one")
        if option_string:
            parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


class WrappedLines(logging.Formatter):
    """Log messages in lines that fit a screen; the following lines of a message are indented.

    A command that a message ends in stays whole, to be pasted.
    """

    def format(self, record: logging.LogRecord) -> str:
        lines = []
        for line in super().format(record).splitlines():
            found = COMMAND.search(line) if len(line) > LINE else None
            said, command = (line[: found.start()], line[found.start() :]) if found else (line, "")
            if len(said) > LINE:
                said = textwrap.fill(said, LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            lines += [said.rstrip(), f"  {command}"] if command and said else [said + command]
        return "\n".join(lines)


def progress_bar(items: Iterable | None, what: str, total: int | None = None, unit: str = "it", quiet: bool = False):
    """Show on a line of the terminal how far long work is, at which rate, and how much time is left.

    items: passed on one by one (None: call `update` of what is returned); total: how many, where they do not say it.
    Without a terminal, with TQDM_DISABLE set, or `quiet`, the items are passed on and nothing is written.
    """
    from tqdm import tqdm

    watched = sys.stderr.isatty() and os.environ.get("TQDM_DISABLE", "0") in ("", "0")
    return tqdm(items, desc=what, total=total, unit=unit, leave=False, dynamic_ncols=True, disable=quiet or not watched)


def wrap_log():
    """Have warnings and errors of this process written to stderr in wrapped lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(WrappedLines("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


@contextmanager
def logged_from(level: int, name: str = ""):
    """Log from this level on for a while, whatever the name's log said before; afterwards it is as it was.

    name: of a logger; "" is the root, which stands for all that say nothing of their own.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def fewer_alike(folder: Path | None = None, most: int = 5):
    """Log the first `most` messages of each kind for a while, and at the end how many more there were.

    Of one kind are messages that differ in numbers and in which file they speak of: below `folder`, or at their start.
    """
    counts, logger = Counter(), logging.getLogger("earshot")
    file = re.compile(("^" if folder is None else re.escape(str(folder)) + "/") + r".*?\.\w{2,5}(?=[:, ]|$)")

    def is_early(record: logging.LogRecord) -> bool:
        kind = re.sub(r"\d+", "...", file.sub("a file", record.getMessage()))
        counts[kind] += 1
        return counts[kind] <= most

    logger.addFilter(is_early)
    try:
        yield
    finally:
        logger.removeFilter(is_early)
        for kind, n in counts.items():
            if n > most:
                logger.warning("%d more: %s", n - most, kind)

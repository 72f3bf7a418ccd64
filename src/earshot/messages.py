"""Pieces of error messages: what was probably meant, and short lists of names."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable


def suggest(name: str, known, listed: str = "") -> str:
    """Suggest the nearest known name, as the end of an error message.

    '; did you mean ...?' or the whole list when nothing is near. Ends every unknown-name error of Earshot.

    With `listed`, such as "its columns", the whole list stands under these words once, whether a name is near or not.
    """
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=1) or [
        k for k in known if len(str(name)) > 2 and str(name) in k
    ]
    everything = f"{listed or 'known'}: {', '.join(known) or '(none)'}"
    if not near:
        return f"; {everything}"
    return f"; did you mean '{near[0]}'?" + (f" ({everything})" if listed else "")


def few(items, n: int = 5) -> str:
    """The first names joined by commas, and how many more there are: for error messages."""
    items = [str(i) for i in items]
    return ", ".join(items[:n]) + (f", ... ({len(items) - n} more)" if len(items) > n else "")


def check_choice(name: str, value: str, allowed):
    """Raise unless `value` is one of `allowed`; the error begins with the name of what has it."""
    if value not in allowed:
        raise ValueError(f"{name} is '{value}'; choose one of {', '.join(allowed)}")


def run_script(main: Callable[[], object], *also: type[Exception]):
    """Run a script's main(); wrong input and files that cannot be read or written end it with `error: ...` and exit 2.

    also: kinds of errors that this script says as well; any other is a fault of ours and keeps its traceback.
    """
    try:
        main()
    except (ValueError, OSError, *also) as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
            text = f"{names}: {error.strerror}" if names else error.strerror
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)

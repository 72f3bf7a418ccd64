"""Pieces of error messages: what was probably meant, and short lists of names."""

from __future__ import annotations

import difflib


def suggest(name: str, known) -> str:
    """'; did you mean ...?' or the whole list when nothing is near. Ends every unknown-name error of Earshot."""
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=1) or [
        k for k in known if len(str(name)) > 2 and str(name) in k
    ]
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known) or '(none)'}"


def few(items, n: int = 5) -> str:
    """The first names joined by commas, and how many more there are: for error messages."""
    items = [str(i) for i in items]
    return ", ".join(items[:n]) + (f", ... ({len(items) - n} more)" if len(items) > n else "")


def check_choice(name: str, value: str, allowed):
    """Raise unless `value` is one of `allowed`; the error begins with the name of what has it."""
    if value not in allowed:
        raise ValueError(f"{name} is '{value}'; choose one of {', '.join(allowed)}")

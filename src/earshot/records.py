"""YAML and JSON values <-> checked records: the one way in for runs, post-processing and blends.

A record is a dataclass. Every key is checked: an unknown one is an error with a suggestion, a value of the wrong type
is an error that names the key; what values are sensible a record says itself, in its `__post_init__`. PyYAML reads
`1e-3` as text, so numbers are converted by the declared type.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

from earshot import stored
from earshot.messages import FILES_SHOWN, few, suggest


def build(kind, values, section: str = ""):
    """Mapping -> record of class `kind`; `section` is the dotted key of the mapping, which errors name."""
    hints = _hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(values, collections.abc.Mapping):
        keys = few((f"{section}.{name}" if section else name for name in known), FILES_SHOWN)
        raise ValueError(f"section '{section}' must be a mapping, got {values!r}; its keys are {keys}")
    for key in values:
        if key not in known:
            place = f" in '{section}'" if section else ""
            raise ValueError(f"unknown key '{key}'{place}{suggest(key, known)}")
    absent = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in values]
    if absent:
        raise ValueError(f"missing {', '.join(absent)}{f' in {section!r}' if section else ''}")
    built = {k: _convert(hints[k], v, f"{section}.{k}" if section else k) for k, v in values.items()}
    try:
        return kind(**built)
    except ValueError as error:
        raise ValueError(_placed(str(error), known, section)) from error


def typed_params(function, params: collections.abc.Mapping[str, Any], of: str, least: int = 0) -> dict[str, Any]:
    """Parameters of a function, as YAML gives them -> each as the type that the function declares, or an error.

    Whole numbers are counts: from `least` on, or from 0 where that is the default. of: what errors say has the
    parameters, such as "model cnn_small". A class with `options` takes the fields of that record too. Parameters
    without a type, or of one that YAML does not have, are as they came.
    """
    kinds = (function, function.options) if hasattr(function, "options") else (function,)
    known = {k: p for kind in kinds for k, p in inspect.signature(kind, eval_str=True).parameters.items()}
    declared = {k: known[k].annotation for k in params}
    typed = {
        k: _convert(declared[k], v, f"parameter '{k}' of {of}") if _is_plain(declared[k]) else v
        for k, v in params.items()
    }
    for key, value in typed.items():
        default = known[key].default
        if value == () and default:
            raise ValueError(f"parameter '{key}' of {of} must not be empty; its default is {list(default)}")
        lowest = 0 if default == 0 else least
        if any(type(n) is int and n < lowest for n in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"parameter '{key}' of {of} must be {lowest} or more, got {params[key]!r}")
    return typed


def _is_plain(hint) -> bool:
    """Whether a parameter's type is one that `_convert` knows: of several at most one that is no bool and not None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [a for a in typing.get_args(hint) if a not in (bool, type(None))]
        return len(others) == 1 and _is_plain(others[0])
    return hint in (bool, int, float, str, dict) or typing.get_origin(hint) in (tuple, dict, collections.abc.Mapping)


@functools.cache
def _hints(kind) -> dict[str, typing.Any]:
    """Types of a record's values; found once, as their texts are compiled each time."""
    return typing.get_type_hints(kind)


def _is_required(field: dataclasses.Field) -> bool:
    nothing = dataclasses.MISSING
    return field.init and field.default is nothing and field.default_factory is nothing


def build_from(kind, values, source: str | Path):
    """`build`, with the file (or whatever the values came from) in front of every error."""
    try:
        return build(kind, values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


@functools.cache
def dotted_keys(kind, section: str = "") -> dict[str, type | None]:
    """Every key of a record and of those in it, with dots: {'optim.lr': float, ...}; None: any key may follow it."""
    hints, found = _hints(kind), {}
    for name in (f.name for f in dataclasses.fields(kind)):
        hint, key = hints[name], f"{section}{name}"
        if dataclasses.is_dataclass(hint):
            found |= {key: hint} | dotted_keys(hint, f"{key}.")
        else:
            found[key] = None if typing.get_origin(hint) is dict else hint
    return found


def parse_override(
    kind,
    override: str,
    moved: collections.abc.Mapping[str, str],
    usual: collections.abc.Callable[[str], str] = lambda _: "",
) -> tuple[str, Any]:
    """A setting such as 'optim.lr=3e-4' -> its key and value, as YAML reads it; an error where it is none.

    kind: the record that it changes; moved: {key of an earlier version: the new one}; usual: a name that others give a
    setting -> its key, or ''.
    """
    key, separator, value = override.partition("=")
    form = "; settings are written key=value, such as optim.lr=3e-4"
    if not key.strip():
        raise ValueError(f"override '{override}' has no key before the '='{form}")
    if key in moved:
        raise ValueError(f"{key} is now {moved[key]}")
    known, path = dotted_keys(kind), key.split(".")
    # what a section without fixed keys holds (model.params.x) is checked by what takes it
    free = any(key.startswith(f"{section}.") for section, kind in known.items() if kind is None)
    if not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key) or not (key in known or free):
        near = [k for k in known if k.split(".")[-1] == path[-1]]
        near = difflib.get_close_matches(key, near, 1, 0.7) or near or [k for k in [usual(path[-1])] if k]
        beside = [k for k in known if k.startswith(f"{path[0]}.")] or [k for k in known if "." not in k]
        meant = f"; did you mean {' or '.join(near)}?" if near else suggest(key, beside)
        raise ValueError(f"unknown key '{key}' in override '{override}'{meant}{'' if separator else form}")
    if not separator:
        raise ValueError(f"override '{override}' gives no value{form}")
    if value.startswith("="):
        raise ValueError(f"override '{override}' has two '='{form}")
    return key, _value(value, override)


def _value(text: str, override: str):
    """The value of an override, as YAML reads it."""
    try:
        return stored.parse_yaml(text, f"override '{override}': the value") if text else ""
    except ValueError as error:
        raise ValueError(f"{error}; is a bracket open?" if "YAML" in str(error) else str(error)) from error


def to_dict(record) -> Any:
    """Record -> plain nested dict of what YAML can hold (tuples become lists); one with `to_json` says it itself."""
    if hasattr(record, "to_json"):
        return to_dict(record.to_json())
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {k: to_dict(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_dict(v) for v in record]
    return record


def _placed(message: str, known: list[str], section: str) -> str:
    """A record's own error with its section in front: 'lr must be positive' -> 'optim.lr must be positive'."""
    if not section:
        return message
    first = re.match(r"\w*", message).group()
    return f"{section}.{message}" if first in known else f"{section}: {message}"


def _convert(hint, value, where: str):
    """One YAML value -> its declared type, or an error that names the key."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if (value is None and type(None) in args) or (isinstance(value, bool) and bool in args):
            return value
        return _convert(next(a for a in args if a not in (bool, type(None))), value, where)
    if hasattr(hint, "from_values"):  # of several kinds: its own values say which
        return hint.from_values({} if value is None else value, where, build)
    if dataclasses.is_dataclass(hint):
        return build(hint, {} if value is None else value, where)
    if dict in (hint, origin) or origin is collections.abc.Mapping:
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, got {value!r}")
        for key in value:
            if key is None or isinstance(key, bool | float):  # YAML takes a bare no, on, null or 1e3 for another thing
                raise ValueError(f"{where}: YAML reads a name there as {key!r}: write it in quotes")
        return {str(k): _convert(args[1] if args else Any, v, f"{where}.{k}") for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        if ... not in args and len(value) != len(args):
            raise ValueError(f"{where} must be a list of {len(args)}, got {value!r}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is Any:
        return value
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint, value, where: str):
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{where} must be true or false, got {value!r}")
        return value
    if hint is str:
        if isinstance(value, (list, tuple, dict)):
            raise ValueError(f"{where} must be one text, got {value!r}")
        return "" if value is None else str(value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = value if hint is int and isinstance(value, int) else float(value)
        if not math.isfinite(number) or (hint is int and number != int(number)):  # NaN is no value of anything
            raise ValueError
        return hint(number)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where} must be {'a whole number' if hint is int else 'a number'}, got {value!r}") from None

"""Reading what was stored, whoever stored it: text, YAML, JSON, npz and npy, damaged or hostile as they may be.

Every function gives what the file holds, or raises ValueError with the file's name, what came and what to do; no error
of a parser comes through. Nothing is unpickled, no key is taken twice, and what a small file can make of itself in
memory (aliases within aliases, a compressed array of zeros, nesting without end) is bounded.
"""

from __future__ import annotations

import copy
import json
import re
import struct
import zipfile
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml

from earshot.messages import FILES_SHOWN, from_here, suggest

LONGEST_TEXT = 64 * 2**20  # bytes of a text that is parsed as a whole: the largest known, a choice, has 1 MB
LONGEST_YAML = 2 * 2**20  # it takes ten seconds a megabyte
MOST_NODES = 200_000  # values of a YAML document with its aliases written out
DEEPEST = 100  # collections within collections
LARGEST_EXPANSION, SMALL_ARRAYS = 100, 2**30  # beyond so many bytes, arrays may be so many times the size of their file


def read_text(path: str | Path, what: str = "file", remedy: str = "", longest: int = LONGEST_TEXT) -> str:
    """UTF-8 text of a file of at most `longest` bytes, a byte order mark taken off."""
    path, end = Path(path), f"; {remedy}" if remedy else ""
    if path.is_dir():
        raise ValueError(f"{what} {path} is a folder: name a file{end}")
    if not path.exists():
        raise ValueError(f"{what} {path} does not exist{end}{from_here(path)}")
    if path.stat().st_size > longest:
        raise ValueError(f"{what} {path} has {path.stat().st_size / 1e6:.0f} MB, which is no such text{end}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is no text in UTF-8 (byte {error.start}: {error.reason}){end}") from error
    if "\0" in text:
        raise ValueError(f"{what} {path} is no text: it holds zero bytes{end}")
    return text


def read_json(path: str | Path, what: str = "file", remedy: str = "", kind: type = dict) -> Any:
    """JSON file that holds an object (or, with kind=list, a list) -> dict or list."""
    return parse_json(read_text(path, what, remedy), f"{what} {path}", remedy, kind)


def parse_json(text: str, where: str, remedy: str = "", kind: type = dict) -> Any:
    """A JSON text -> dict (or, with kind=list, list); `where` stands in front of every error, `remedy` behind it."""
    end = f"; {remedy}" if remedy else ""
    if not text.strip():
        raise ValueError(f"{where} is empty, not valid JSON{end}")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of thousands of digits
        raise ValueError(f"{where} is not valid JSON: {_reason(error)}{end}") from error
    if not isinstance(values, kind):
        names = {dict: "names and values ({...})", list: "a list ([...])"}
        raise ValueError(f"{where} must hold {names[kind]}, got a {type(values).__name__}{end}")
    return values


def read_yaml(path: str | Path, what: str = "config") -> dict:
    """YAML file of `key: value` lines -> dict; a missing or broken one is an error that says what file it should be."""
    path = Path(path)
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*.yaml"))
        known = suggest(path.name, near, most=FILES_SHOWN) if near else from_here(path)
        raise ValueError(f"{what} {path} does not exist{known}")
    values = parse_yaml(read_text(path, what, longest=LONGEST_YAML), f"{what} {path}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{what} {path} must hold 'key: value' lines, got a {type(values).__name__}")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """A YAML text -> plain values, the caller's own; `where` stands in front of every error."""
    return copy.deepcopy(_parsed(text, where))


@lru_cache(maxsize=256)
def _parsed(text: str, where: str) -> Any:
    """What `parse_yaml` gives, kept: bases of configs are read again and again, and the reader is slow."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _check_size(node, where)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not valid YAML: {_yaml_reason(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is not valid YAML: nested too deeply") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # what its readers of tagged values raise
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where} is not valid YAML: a value cannot be read ({_reason(error)})") from error


# Numbers as everybody means them: to YAML 1.1 012 is 10, 1:30 is 90 and 1_0 is 10. Here they stay as they are written.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice: it would silently take the last."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in known]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True) if key_node.value != "<<" else None
                if not isinstance(key, Hashable):
                    raise yaml.constructor.ConstructorError(None, None, "a list as a key", key_node.start_mark)
                if key is not None and key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key}' stands twice in one section: keep one", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _check_size(root, where: str):
    """Refuse a document that is deep, refers to itself, or would be huge with its aliases written out."""
    sizes: dict[int, int] = {}

    def size(node, depth: int) -> int:
        if depth > DEEPEST:
            raise ValueError(f"{where} is nested deeper than {DEEPEST} levels, or refers to itself")
        if id(node) not in sizes:
            inner = [] if isinstance(node, yaml.ScalarNode) or node is None else node.value
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(node)]

    if size(root, 0) > MOST_NODES:
        raise ValueError(
            f"{where} holds {sizes[id(root)]:,} values with its aliases (*name) written out, more than {MOST_NODES:,}: "
            "write out what it should say"
        )


def read_arrays(path: str | Path, what: str, remedy: str) -> dict[str, np.ndarray]:
    """npz file -> its arrays by name; the sizes that it claims are held against the file before anything is read."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not {what}; {remedy}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist; {remedy}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty, not {what}; {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # whatever zipfile, zlib and NumPy raise at bytes that are none of theirs
        raise ValueError(f"{path} is not {what} (npz without pickles): {_reason(error)}; {remedy}") from error


def _check_members(archive: zipfile.ZipFile, file_size: int):
    """Raise unless every array is as large as its header says, and all together no bomb."""
    total = sum(member.file_size for member in archive.infolist())
    if total > max(SMALL_ARRAYS, LARGEST_EXPANSION * file_size):
        raise ValueError(f"its {file_size / 1e6:.1f} MB would become {total / 1e9:.1f} GB in memory")
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            raise ValueError(f"it holds '{member.filename[:80]}', which is no array")
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            claimed, held = dtype.itemsize * int(np.prod(shape, dtype=object)), member.file_size - file.tell()
        if dtype.hasobject:
            raise ValueError(f"'{member.filename}' holds pickled objects, which are not loaded")
        if claimed != held:
            raise ValueError(
                f"'{member.filename}' should have {claimed:,} bytes for its shape {shape}, it has {held:,}"
            )


def open_array(path: str | Path, mode: str = "r", like: tuple[str, int | tuple[int, ...]] | None = None) -> np.ndarray:
    """Memory-mapped npy file; `like`: its kind of numbers ("i", "f", "if") and its dimensions, or its whole shape."""
    path = Path(path)
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # as above
        raise ValueError(f"{path} is not a whole npy file: {_reason(error)}") from error
    kinds, shape = like or (array.dtype.kind, array.ndim)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds or shape not in (array.ndim, array.shape):
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}, which does not belong there")
    return array


def want(values: Mapping, kinds: Mapping[str, type | tuple[type, ...]], where: str, remedy: str):
    """Raise unless `values` has these keys with values of these types; names what is missing, what came."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {str(values)[:60]!r}, which says nothing; {remedy}")
    for key, kind in kinds.items():
        if key not in values:
            raise ValueError(f"{where} says no '{key}'; {remedy}")
        if not isinstance(values[key], kind) or (isinstance(values[key], bool) and kind is not bool):
            raise ValueError(f"{where} has {str(values[key])[:60]!r} as '{key}', which is none; {remedy}")


def _reason(error: Exception) -> str:
    """An error of a parser as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        text = "it does not fit into memory"
    elif isinstance(error, (EOFError, struct.error)):
        text = f"it ends early ({text})"
    return text if len(text) < 200 else f"{text[:199]}…"


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong, and where: 'line 3, column 5: expected ...'."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or _reason(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)

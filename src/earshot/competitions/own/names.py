"""What the names of one's own recordings say, by a template such as `{speaker}_{sentence}_{label}_{level}`.

`{name}` is a field; between two fields stands a text that neither of them holds, or the first says how long it is:
`{speaker:2}{text:3}{label:1}{version}` of EmoDB's `03a01Fa`. `{name...}` may hold anything, as the scenes of TAU do:
`{label...}-{city}-{place}-{piece}-{device}`. `{}` is passed over. Endings (.wav) are none of it; with slashes the
folders above count too: `{site}/{label}_{take}`. A name that can be read in two ways says nothing.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

import pandas as pd

from earshot.competitions.own.labels import OWN_COLUMNS, Labels
from earshot.competitions.own.recordings import OwnRecordings
from earshot.messages import few

LABEL = "label"  # the field that says what is heard, unless --label-column names another
FIELD = re.compile(r"\{(\w*)(\.\.\.|:[1-9]\d*)?\}")
TAKEN = (*OWN_COLUMNS, "doubted", "unknown_labels", "secondary_labels", "official_fold")
FEW = 12

logger = logging.getLogger("earshot")


def pattern_of(template: str, lazy: bool = False) -> re.Pattern:
    """A template -> what a name has to be, a named group a field; errors name what is wrong with it.

    lazy: fields take as few characters as they can, else as many: where both read a name alike, it has one reading.
    """
    texts, fields = FIELD.split(template)[::3], list(FIELD.finditer(template))
    asked = Counter(field[1] for field in fields)
    example = "expected fields in braces with text between them, such as {speaker}_{label}_{take}"
    if not set(asked) - {""}:
        raise ValueError(f"--names '{template}' names no field: {example}")
    if odd := [name for name in asked if name and not name.isidentifier()]:
        raise ValueError(f"--names '{template}': {few(odd)} is no name of a column, which begins with a letter")
    if any(set(text) & set("{}") for text in texts):
        raise ValueError(f"--names '{template}' has a brace that is no field's: {example}")
    if twice := [name for name, n in asked.items() if name and n > 1]:
        raise ValueError(f"--names '{template}' has {few(twice)} twice: call one of them otherwise")
    if taken := [name for name in asked if name in TAKEN]:
        raise ValueError(f"--names '{template}': {few(taken)} is a column of our own, call the field otherwise")
    found = re.escape(texts[0])
    for i, field in enumerate(fields):
        name, how = field[1], field[2] or ""
        before, after = texts[i], texts[i + 1]
        if not how.startswith(":") and not after and i + 1 < len(fields):
            raise ValueError(
                f"--names '{template}' has nothing between {field[0]} and {fields[i + 1][0]}: write a text between "
                f"them, or how many characters the first has, as in {{{name}:2}}"
            )
        beside = "".join(f"(?!{re.escape(text)})" for text in dict.fromkeys((before, after)) if text)
        more = "+?" if lazy else "+"
        held = f".{more}" if how == "..." else f"[^/]{{{how[1:]}}}" if how else f"(?:{beside}[^/]){more}"
        found += (f"(?P<{name}>{held})" if name else f"(?:{held})") + re.escape(after)
    return re.compile(found)


def fields_of_names(recordings: OwnRecordings, template: str) -> pd.DataFrame:
    """`clip_id` and a column of texts a field of the template, '' where a name is not of its form; those are named.

    No template: no other column. No name of its form is an error.
    """
    clips = recordings.table(recordings.paths)
    if not template:
        return clips[["clip_id"]]
    pattern, shortest, depth = pattern_of(template), pattern_of(template, lazy=True), template.count("/") + 1
    names = ["/".join(PurePosixPath(path).with_suffix("").parts[-depth:]) for path in clips.path]
    matches = [
        match if (match := pattern.fullmatch(name)) and match.groups() == shortest.fullmatch(name).groups() else None
        for name in names
    ]
    others = [path for path, match in zip(clips.path, matches, strict=True) if not match]
    if len(others) == len(clips):
        raise ValueError(
            f"--names '{template}': no recording is called so, or so in one way alone; without their endings they "
            f"are {few(names, 3)}. A "
            "field holds none of the text beside it: write {label...} for one that may, {} for one that says nothing"
        )
    if others:
        logger.warning("names of another form than %s, or of it in two ways, say nothing (%d of %d): %s",
                       template, len(others), len(clips), few(others))  # fmt: skip
    fields = pd.DataFrame({
        field: [match[field].strip() if match else "" for match in matches] for field in pattern.groupindex
    }, dtype=object)  # fmt: skip
    for field in fields:
        values = Counter(fields[field]) - Counter({"": len(fields)})
        said = [f"{value} ({n})" for value, n in sorted(values.items())]
        logger.warning("names say %s: %s", field, few(said, FEW))
    return pd.concat([clips[["clip_id"]], fields], axis=1)


def from_names(recordings: OwnRecordings, fields: pd.DataFrame, told: Mapping) -> Labels:
    """What `fields_of_names` found -> labels; told: what else was said of labels, which has to be nothing.

    told: by option, without `--` and with underscores; `label_column` names the field, `label_separator` parts it.
    """
    label = told["label_column"] or LABEL
    separator = told["label_separator"]
    if asked := [name for name, value in told.items() if value and name not in ("label_column", "label_separator")]:
        flags = few([f"--{name.replace('_', '-')}" for name in asked])
        raise ValueError(
            f"--names says the labels by its field {label}, so that {flags} would say nothing: leave one of them out, "
            "or call the field otherwise, to have it as a column beside those labels"
        )
    logger.warning("labels are what the names say, whatever folders or tables say")
    parts = fields[label].str.split(separator) if separator not in ("", "none") else fields[label].map(lambda t: [t])
    labels = [[text for part in some if (text := part.strip())] for some in parts]
    return Labels(recordings.table(recordings.paths).assign(labels=labels))

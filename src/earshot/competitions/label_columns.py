"""Which columns of a table hold the labels, and what their cells say: names, lists of names, or a 0 or 1 a class.

file,species                 one column, a name or several in a cell: 'wren', 'wren;robin', "['wren', 'robin']"
file,label1,label2           numbered columns, or several that --label-column names
file,wren,robin              a column a class, 1 where it is heard
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from earshot.annotations.class_columns import doubted, heard, is_yes_no, named_in, say_unknown, says_yes_or_no
from earshot.annotations.column_names import CODES, FILES, LABELS, unaccented
from earshot.competitions.label_texts import listed
from earshot.messages import few, suggest

SEPARATORS = (";", "|", ",")
TARGETS = ("target", "y", "truth", "value", "positive", "annotated")  # names that say no more than label does
MANY_CLASSES = 5  # columns of 0 and 1 of a table
UNNAMED = re.compile(r"column_\d+")  # of tables without a header
NAMELESS = re.compile(r"Unnamed: \d+")  # what pandas calls a column without a name
MISSING_WORDS = ("NA", "N/A", "None", "null", "NULL", "none", "unknown", "Unknown", "NoID", "-", "?", "??", "???",
                 "????")  # fmt: skip
# columns that say where a recording comes from: who made it, where, of whom
SOURCE_COLUMN = re.compile(
    r"(^|[_ ])(recordist|author|observer|speaker|subject|patient|individual|animal|site|location|station|plot|recorder|"
    r"sensor|device|session|recording|video|fsid|freesound|src_file|source_file)"
    r"(s|[_ ]?(id|name|code|no))?$", re.I,
)  # fmt: skip
TRAIN_SPLITS = ("", "train", "training", "trn", "dev_train")
TEST_SPLITS = ("test", "eval", "evaluation", "testing")
HELD_OUT_SPLITS = ("val", "valid", "validate", "validation", "dev", "development", "dev_test")
SPLITS = (*TRAIN_SPLITS, *TEST_SPLITS, *HELD_OUT_SPLITS)
# of a file: train.txt, val_list.csv, fold1_evaluate.txt
SPLIT_FILE = re.compile(
    r"(?:.*[_ -])?(train|val|dev|test|eval)(?:ing|id|idate|idation|elopment|uation|uate)?(?:[_ -].*)?", re.I
)
BOTH_SPLITS = re.compile(
    r"(?=(?:.*[_ -])?train(?:ing)?(?:[_ -]|$)).*[_ -](test|val|eval)"
    r"(?:ing|id|idate|idation|uation|uate)?(?:[_ -]|$)",
    re.I,
)  # train_test.txt
CLOCK = re.compile(r"(\d+:)?\d+:\d\d([.,]\d+)?")  # a number too
DATA_SET = re.compile(r"(data_?set|corpus)(_?(id|name))?$", re.I)

logger = logging.getLogger("earshot")


def label_columns(table: pd.DataFrame, given: str, path_column: str, path: Path, taken: Sequence[str]) -> list[str]:
    """The columns of the labels: those given (one, or several by commas), else by name or content.

    Guessed are a column by its name, numbered ones (label1, label2), columns of 0 and 1 that are classes, the only
    column whose values repeat; none of `taken`. Otherwise an error.
    """
    known = list(map(str, table.columns))
    if given:
        names = [given] if given in known else [name.strip() for name in given.split(",")]
        if wrong := [name for name in names if name not in known]:
            raise ValueError(f"--label-column: {path} has no column '{wrong[0]}'{suggest(wrong[0], known, 'columns')}")
        return names
    left = [c for c in known if c not in (path_column, *taken) and (table[c].str.strip() != "").any()]
    plain = {_plain(c): c for c in left if not (_plain(c) in CODES and is_yes_no(table[c]))}
    if named := next((plain[name] for name in LABELS if name in plain and name != "id"), None):
        if f"{named}.1" in known:
            raise ValueError(
                f"{path} has two columns '{named}': keep one, or give them two names and both to --label-column A,B"
            )
        return [named]
    if all(UNNAMED.fullmatch(c) for c in known):
        texts = [c for c in left if not _are_numbers(table[c]) and table[c].nunique() > 1] or left
        if len(texts) == 1:
            return texts
        cells = ", ".join(f"{c} ({table[c].iloc[0]})" for c in texts)
        raise ValueError(f"{path}: which column holds the labels? Say it with --label-column: {cells}")
    for name in LABELS:
        if name != "id" and len(numbered := [c for p, c in plain.items() if re.fullmatch(rf"{name}_?\d+", p)]) > 1:
            return numbered
    repeated = [c for c in left if not _are_numbers(table[c]) and 2 <= table[c].nunique() <= len(table) / 2]
    repeated = [c for c in repeated if not says_splits(table[c]) and not DATA_SET.match(c) and _plain(c) not in FILES]
    lone = [c for c in left if is_yes_no(table[c]) and not re.match("(is|use)_|folds?$|unnamed: ", c.casefold())]
    yes_no = [c for c in lone if not re.match("has_", c.casefold())]
    not_sources = [c for c in repeated if not SOURCE_COLUMN.search(c)]
    repeated = not_sources if not_sources or lone else repeated
    if len(lone) == 1 and not [c for c in repeated if c not in lone]:
        return lone
    others = [c for c in repeated if c not in yes_no]  # texts: beside dozens of classes they say something else
    if (len(yes_no) > 1 and not others) or len(yes_no) >= max(MANY_CLASSES, 2 * len(others)):
        return yes_no
    if len(repeated) == 1 and NAMELESS.fullmatch(repeated[0]):
        raise ValueError(
            f"{path}: its first row ({', '.join(c for c in known if not NAMELESS.fullmatch(c))}) gives no name to a "
            "column that has values: is the header further down? Remove what stands above it, or name the column"
        )
    if len(repeated) == 1:
        return repeated
    raise ValueError(
        f"{path}: which column holds the labels? Say it with --label-column NAME, or NAME,NAME where several do, also "
        f"where they are classes of 0 and 1 (columns: {', '.join(left or known)})"
    )


def split_words(cells: pd.Series) -> pd.Series:
    """What a column says of the split, as it stands in TRAIN_SPLITS and the others: 'Train-Set' is train."""
    words = cells.str.strip().str.casefold().str.replace(r"[-_ ]+", "_", regex=True)
    return words.str.replace("_?(set|split)$", "", regex=True)


def says_splits(cells: pd.Series) -> bool:
    """Whether all cells say train, val or test."""
    return bool(split_words(cells).isin(SPLITS).all())


def split_of(path: Path) -> str:
    """The split that a file's name says, train | val | dev | test | eval; '' where it says none."""
    named = SPLIT_FILE.fullmatch(path.stem)
    return named[1].lower() if named and not BOTH_SPLITS.match(path.stem) else ""


def has_columns(known: Sequence[str], given: str) -> bool:
    """Whether a table's columns are those that --label-column names, one or several by commas; none named: no."""
    return bool(given) and (given in known or all(name.strip() in known for name in given.split(",")))


def labels_in(table: pd.DataFrame, columns: Sequence[str], separator: str, path: Path) -> list[list[str]]:
    """The labels of each row: names from cells, or the names of the columns whose cells say yes."""
    if are_classes(table, columns):
        logger.warning("%s: %d columns of 0 and 1 are classes: %s", path, len(columns), few(columns))
        say_unknown(table[columns], path)
        return named_in(table[columns])
    if len(columns) == 1 and is_yes_no(table[columns[0]]) and (named := _of_one(table[columns[0]], path)) is not None:
        return named
    together: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns:
        for names, more in zip(together, split_cells(table[column], separator, path), strict=True):
            names.extend(name for name in more if name not in names)
    say_missing_words([name for names in together for name in names], str(path))
    return together


def are_classes(table: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Whether these columns say 0 or 1 of a class each; one that is heard nowhere, or everywhere, may be among them."""
    sure = [is_yes_no(table[c]) for c in columns]
    return len(columns) > 1 and any(sure) and all(says_yes_or_no(table[c]) for c in columns)


def say_missing_words(names: Iterable[str], where: str):
    """Warn of labels that mostly say that nobody knows, and are classes as any other."""
    words = Counter(name for name in names if name in MISSING_WORDS)
    if words:
        logger.warning("%s: taken as classes are %s; leave the cells empty where nothing is known", where,
                       few([f"'{word}' ({n})" for word, n in words.items()]))  # fmt: skip


def _of_one(cells: pd.Series, path: Path) -> list[list[str]] | None:
    """The labels of a lone column of 0 and 1 whose name says what is heard, `wren` and `no_wren`; None of another one.

    An empty cell says no where none else does.
    """
    column, texts = str(cells.name), cells.str.strip()
    if _plain(column) in {*LABELS, *TARGETS} - {*CODES} or UNNAMED.fullmatch(column):
        values = " and ".join(sorted(set(texts) - {""}))
        logger.warning("%s: '%s' holds %s alone, which become the names of the classes; words in their place, such as "
                       "bird and no_bird, say what they are", path, column, values)  # fmt: skip
        return None
    name = re.sub("^(is|has)_", "", column, flags=re.I)
    logger.warning("%s: '%s' is a column of 0 and 1: recordings are %s or no_%s", path, column, name, name)
    say_unknown(texts.to_frame(), path)
    yes = heard(texts)
    unknown = (texts == "") & bool((~yes & (texts != "")).any()) | doubted(texts.to_frame())[column]
    return [[] if free else [name if true else f"no_{name}"] for free, true in zip(unknown, yes, strict=True)]


def _plain(column: str) -> str:
    return re.sub("[^a-z0-9]+", "_", unaccented(column)).strip("_")


def split_cells(cells: pd.Series, separator: str, path: Path) -> list[list[str]]:
    """Cells -> lists of names: as Python lists, or separated as given, or as it is guessed (said)."""
    texts = _whole_numbers(cells.fillna("").astype(str).str.strip(), path)
    filled = texts[texts != ""]
    if separator == "none":
        return [[t] if t else [] for t in texts]
    if not separator and len(filled) and filled.str.match(r"[\[({].*[\])}]$").all():
        return [listed(t, str(path)) if t else [] for t in texts]
    if not separator:
        separator = next((s for s in SEPARATORS if _separates(filled, s)), "")
        if not separator and _are_spaced(filled):
            separator = " "
        if separator:
            logger.warning("%s: several labels in a cell are separated by '%s' (--label-separator none: they are one)",
                           path, separator)  # fmt: skip
    if not separator:
        return [[t] if t else [] for t in texts]
    return [[part.strip() for part in t.split(separator) if part.strip()] for t in texts]


def _whole_numbers(texts: pd.Series, path: Path) -> pd.Series:
    """'1.0' as '1' where all cells are whole numbers and some are written so: a spreadsheet took classes for floats."""
    filled = texts[texts != ""]
    floats = filled.str.fullmatch(r"\d+\.0+")
    if not len(filled) or not floats.any() or not (floats | filled.str.fullmatch(r"\d+")).all():
        return texts
    logger.warning("%s: labels such as %s are whole numbers, written without .0", path, filled[floats].iloc[0])
    return texts.str.replace(r"\.0+$", "", regex=True)


def _are_numbers(cells: pd.Series) -> bool:
    filled = cells[cells.str.strip() != ""].str.strip()
    return bool(pd.to_numeric(filled.mask(filled.map(lambda c: bool(CLOCK.fullmatch(c))), "0"), errors="coerce")
                .notna().all())  # fmt: skip


def _separates(cells: pd.Series, separator: str) -> bool:
    """Whether cells are lists.

    Names hold commas with a space behind ('Sparrow, House'): there most parts must come in other cells too.
    'Bark,Cricket' is a list.
    """
    whole = set(cells[cells.str.contains(separator, regex=False)])
    if not whole or separator != "," or not any(", " in cell for cell in whole):
        return bool(whole)
    cells_of = Counter(part for cell in set(cells) for part in {p.strip() for p in cell.split(separator)})
    parts = {p.strip() for cell in whole for p in cell.split(separator)}
    return sum(cells_of[p] > 1 for p in parts) >= len(parts) / 2


def _are_spaced(cells: pd.Series) -> bool:
    """Whether cells are names joined by spaces, as Kaggle writes them: each part is also a cell of its own."""
    several = {cell for cell in set(cells) if len(cell.split()) > 1}
    return bool(several) and {part for cell in several for part in cell.split()} <= set(cells)

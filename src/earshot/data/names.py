"""Names in a column of a table, such as groups, people and places: texts without stray spaces, some of nobody."""

from __future__ import annotations

import numpy as np
import pandas as pd

NOBODY = ("unknown", "anonymous", "n/a", "none", "not specified")


def distinct_names(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Values -> (N,) which name each row has, and the names: texts without stray spaces, '' where there is none."""
    code, texts = pd.factorize(values)
    if all(type(text) is str for text in texts) and "" not in texts:
        whole = "".join(texts)
        if whole.split() == [whole]:  # not a space: nothing to clean, and no two become one
            return np.where(code < 0, len(texts), code), [*texts, ""]
    clean = [" ".join(str(text).split()) for text in texts] + [""]  # the last is what -1, no value, stands for
    of, names = pd.factorize(np.array(clean, object))
    return of[code], names.tolist()


def clean_names(values: pd.Series) -> pd.Series:
    """Values as text without stray spaces, as `distinct_names` writes them."""
    code, names = distinct_names(values)
    return pd.Series(np.array(names, object)[code], index=values.index, name=values.name, dtype=object)

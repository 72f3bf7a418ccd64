"""JSON that we write holds no NaN, which JSON does not have."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from earshot.files import as_json

SRC = Path(__file__).resolve().parents[1] / "src"


def test_what_is_not_finite_is_null():
    value = {"a": math.nan, "b": [1.5, math.inf, {"c": (np.float32("nan"), np.float64("-inf"))}], "d": "NaN", 3: True}
    text = as_json(value | {"n": np.int64(4), "x": np.float32(0.5)}, 1)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None, "b": [1.5, None, {"c": [None, None]}], "d": "NaN", "3": True, "n": 4, "x": 0.5,
    }  # fmt: skip
    assert as_json([1, 2]) == "[1, 2]"
    with pytest.raises(TypeError, match="Path.* is no number, text, list or dict"):
        as_json({"a": Path("x")})


def test_every_json_file_is_written_that_way():
    odd = [
        str(path.relative_to(SRC)) for path in sorted(SRC.rglob("*.py"))
        if re.search(r"write_text\([^\n]*json\.dumps\(|\bjson\.dump\(", path.read_text())
    ]  # fmt: skip
    assert not odd


def test_numbers_of_numpy_stay_what_they_are():
    assert (
        as_json([np.int64(2**60 + 1), np.int32(5), np.bool_(True), np.float64("nan")])
        == f"[{2**60 + 1}, 5, true, null]"
    )

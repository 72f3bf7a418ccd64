"""YAML and JSON -> records; and the house's rule for calls."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from earshot.records import build, build_from, to_dict, typed_params

SRC = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    names: tuple[str, ...] = ()
    by_class: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in 0 ... 1, got {self.share}")
        if len(self.names) > 2:
            raise ValueError("too many names")


@dataclass(frozen=True)
class Outer:
    count: int = 1
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Named:
    run: str
    fold: int
    tables: dict[str, str]


def test_values_are_converted_by_declared_type_and_come_back():
    values = {"count": "3", "limit": None, "inner": {"share": "5e-1", "names": ["a"], "by_class": {7: "0.25"}}}
    record = build(Outer, values)
    assert record == Outer(3, None, Inner(0.5, ("a",), {"7": 0.25}))
    assert build(Outer, to_dict(record)) == record
    assert build(Outer, {"inner": None}) == Outer(), "an empty section"


@pytest.mark.parametrize(("values", "message"), [
    ({"cuont": 1}, "^unknown key 'cuont'; did you mean 'count'"),
    ({"inner": {"shore": 1}}, "^unknown key 'shore' in 'inner'; did you mean 'share'"),
    ({"inner": {"share": 2}}, r"^inner\.share must lie in 0 ... 1, got 2.0"),
    ({"inner": {"names": list("abc")}}, "^inner: too many names"),
    ({"inner": {"names": "abc"}}, "^inner.names must be a list, got 'abc'"),
    ({"inner": {"by_class": {"a": True}}}, "^inner.by_class.a must be a number, got True"),
    ({"inner": 0}, "^section 'inner' must be a mapping, got 0"),
    ({"count": float("inf")}, "^count must be a whole number, got inf"),
    ([1], "must be a mapping"),
])  # fmt: skip
def test_errors_name_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        build(Outer, values)
    with pytest.raises(ValueError, match=r"^post\.yaml: .*" + message.removeprefix("^")):
        build_from(Outer, values, "post.yaml")


def test_what_a_record_cannot_do_without_is_named():
    with pytest.raises(ValueError, match=r"^origin\.json: missing fold, tables$"):
        build_from(Named, {"run": "a"}, "origin.json")


def calls_by_position(path: Path) -> list[str]:
    """Calls that pass seven or more values by position."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [f"{path.name}:{c.lineno} {ast.unparse(c.func)}" for c in calls if len(c.args) >= 7]


def test_no_call_passes_seven_values_by_position():
    assert [call for path in sorted(SRC.rglob("*.py")) for call in calls_by_position(path)] == []


def test_parameters_of_somebodys_own_function_come_as_they_are_where_it_declares_nothing():
    def mine(classes, scale=1.0, sizes: list = (), how: "str | int" = "a", width: int = 3):
        pass

    given = {"scale": 20, "sizes": [1, "b"], "how": "c", "width": 4.0}
    typed = typed_params(mine, given, "model mine")
    assert typed == given | {"width": 4}
    with pytest.raises(ValueError, match="parameter 'width' of model mine must be a whole number, got 'wide'"):
        typed_params(mine, {"width": "wide"}, "model mine")

"""How the sources are written: records of many fields take them by name."""

import ast
import functools
import re
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
MANY = 6  # a record of more fields takes all of them by name
BY_PLACE = ["Predictions"]  # scripts that people keep give its first seven fields by place


@functools.cache
def records() -> list[ast.ClassDef]:
    """Every dataclass."""
    nodes = (node for path in SRC.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    found = [node for node in classes if any("dataclass" in ast.unparse(d) for d in node.decorator_list)]
    assert len(found) > 80
    return found


def fields(record: ast.ClassDef) -> set[str]:
    """Names of the fields that its constructor takes, with those of the records it is made from."""
    named = {node.name: node for node in records()}
    inherited = [fields(named[base]) for base in map(ast.unparse, record.bases) if base in named]
    own = [node for node in record.body if isinstance(node, ast.AnnAssign)]
    left_out = ("ClassVar", "KW_ONLY", "init=False")
    return {n.target.id for n in own if not any(word in ast.unparse(n) for word in left_out)}.union(*inherited)


def test_records_of_many_fields_take_them_by_name():
    many = [node for node in records() if len(fields(node)) > MANY]
    assert {"Tables", "Pcen", "Windowing"} <= {node.name for node in many}, "inherited fields count"
    by_place = [n.name for n in many if not any("kw_only=True" in ast.unparse(d) for d in n.decorator_list)]
    assert by_place == BY_PLACE, "these want @dataclass(kw_only=True)"


def test_docstrings_begin_with_a_sentence():
    """Of all that is public: shapes and examples come after a sentence in words."""
    bare = []
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                text = ast.get_docstring(node)
                bare += [f"{path.name}: {node.name}"] * bool(text and text[0] in "([{'\"<")
    assert not bare


PRINTED = re.compile(r"python src/\w+\.py|-r requirements|src/\w+\.py [^;:(]*--[\w-]+ \{\}")


def test_printed_commands_are_put_together_by_command_line():
    """Paths with spaces are quoted, and the script's own is found from any folder; `--help` shows the usual form."""
    found = set()
    for path in sorted(SRC.rglob("*.py")):
        tree = ast.parse(path.read_text())
        told = {ast.get_docstring(tree, clean=False)}
        for node in ast.walk(tree):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            if text not in told and PRINTED.search(text):
                found.add(f"{path.relative_to(SRC)}:{node.lineno}")
    assert not found

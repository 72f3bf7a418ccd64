"""The house stands: imports point down, no cycles, no script imports a script, kernels need no torch."""

import ast
import functools
import shlex
import subprocess
import sys
from pathlib import Path

from earshot import script

SRC = Path(__file__).parents[1] / "src"
PACKAGE = SRC / "earshot"

# From the ground up: a room (a package, or a file beside them) may import rooms of earlier lines, and its own files.
LAYERS = [
    ["processes", "former"],
    ["messages", "files"],
    ["stored", "script"],
    ["tables", "records"],
    ["sound"],
    ["annotations", "events", "metrics", "inputs", "augment", "losses", "synth"],
    ["prediction"],
    ["models", "config"],
    ["optim", "data"],
    ["competitions", "anomaly", "pictures"],
    ["tasks", "runs"],
    ["ensemble"],
    ["training", "kernel", "listening", "audits", "review"],
    ["pages", "rounds"],
    ["export", "inventory", "searching"],
    ["kaggle"],
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Rooms that import no torch (nor anything else that a scoring kernel lacks), each proved in a fresh process.
NO_TORCH = [
    *("processes", "messages", "files", "script", "stored", "tables", "records", "sound", "events", "metrics"),
    *("config", "prediction", "data", "competitions", "pictures", "tasks", "runs", "ensemble", "kernel", "kaggle"),
    "synth",
]
HEAVY = ("torch", "timm", "matplotlib", "wandb", "transformers")


@functools.cache
def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p
            for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"}  # fmt: skip


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Modules of earshot that a file imports, anywhere in it."""
    known, found = modules(), set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("earshot"):
            base = node.module.removeprefix("earshot").strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("earshot.") for a in node.names if a.name.startswith("earshot.")}
    return found - {""}


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_its_place():
    rooms = {p.stem for p in PACKAGE.iterdir() if p.name not in ("__init__.py", "__pycache__")}
    assert rooms == set(LEVEL)


def test_imports_point_down():
    for module, path in modules().items():
        for imported in imports_of(path):
            below = LEVEL[room_of(imported)] < LEVEL[room_of(module)]
            assert below or room_of(imported) == room_of(module), f"{module} imports {imported}, which is not below it"


def test_no_cycles():
    graph = {m: imports_of(p) - {m} for m, p in modules().items()}
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, f"cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_no_script_imports_a_script():
    scripts = {p.stem for p in SRC.glob("*.py")}
    assert {"train", "predict", "ensemble", "submit", "prepare", "make_folds", "describe"} <= scripts
    for path in SRC.rglob("*.py"):
        for node in ast.walk(tree(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not scripts & {n.split(".")[0] for n in names}, f"{path} imports a script"


def test_rooms_without_torch():
    """All files of these rooms, imported one after the other in a fresh process, bring none of what kernels lack.

    benchmarks/house.py gives each room a process of its own.
    """
    names = [m for room in NO_TORCH for m in modules() if room_of(m) == room]
    assert {room_of(m) for m in names} == set(NO_TORCH)
    code = f"""
import sys, importlib
for m in {names}:
    importlib.import_module('earshot.' + m)
    if found := [h for h in {HEAVY} if h in sys.modules]:
        sys.exit(f'earshot.{{m}} brings {{found}}')
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_network_hears_needs_no_torch():
    """All of `inputs` but the twins, whose files have torch in their names; NumPy computes every kind without it."""
    names = [m for m in modules() if room_of(m) == "inputs" and "torch" not in m]
    code = f"import sys, importlib\nfor m in {names}: importlib.import_module('earshot.' + m)\n"
    code += "import numpy as np\nfrom earshot.inputs.kinds import KINDS\n"
    code += "for kind in KINDS.values():\n"
    code += "    record = kind().resolved(32000, 'mono', 'x')\n"
    code += "    record.compute(np.ones(32000, np.float32)) if record.sounds and not record.of_clip else None\n"
    code += f"print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


def test_a_prediction_holds_no_more_than_it_needs():
    """Of memory: pandas (75 MB with pyarrow) and scipy.signal (50 MB) are loaded where they are used."""
    code = """
import sys
from earshot.prediction import backends, graphs, inference
import numpy as np
from earshot.prediction.predictions import Predictions
found = Predictions(np.array(["a", "b"]), ("x",), np.zeros((2, 1)), np.zeros(2, int), np.zeros(2, bool))
found.aligned(["b", "a"])
print([m for m in ("pandas", "scipy.signal", "torch") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


def test_scripts_say_what_is_missing_before_they_import_it():
    """A Python without our packages: `earshot.script` comes before any package of others, and says where they are."""
    for path in SRC.glob("*.py"):
        names = [
            n
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for n in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        ]
        others = [n for n in names if n.split(".")[0] not in sys.stdlib_module_names]
        assert others[0] == "earshot.script", path
    ran = subprocess.run([sys.executable, "-S", SRC / "train.py", "--fold", "0"], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: this Python has no package 'numpy': {sys.executable} (version 3.")
    assert "Traceback" not in ran.stderr
    assert (
        shlex.split(ran.stderr.splitlines()[-1])[-3:] == [str(SRC / "train.py"), "--fold", "0"]
        or "make -C" in ran.stderr
    )


def test_what_is_missing_is_said_of_every_python(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    assert script.help_for_missing("pandas") == "", "no checkout"
    (tmp_path / "requirements").mkdir()
    assert script.help_for_missing("earshot.sounds") == "", "a fault of ours"
    assert f"make -C {tmp_path} setup\n" in script.help_for_missing("pandas")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert f"source {tmp_path}/.venv/bin/activate\n" in script.help_for_missing("pandas")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "pip install -r" in script.help_for_missing("pandas").splitlines()[-1]


def test_importing_does_nothing():
    """At module level: imports, definitions, constants; no call that opens, prints, seeds or chooses a device."""
    doing = ("open", "print", "seed", "manual_seed", "read_text", "read_csv", "device")
    for path in sorted(PACKAGE.rglob("*.py")):
        found = [node for node in tree(path).body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
        names = [ast.unparse(n.func) for node in found for n in ast.walk(node) if isinstance(n, ast.Call)]
        assert not [name for name in names if name.endswith(doing)], path

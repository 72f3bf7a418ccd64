"""The house stands: imports point down, no cycles, no script imports a script, kernels need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGE = SRC / "earshot"

# From the ground up: a module may import what stands in an earlier line (and, inside a package, its siblings).
LAYERS = [
    ["spelling", "timebase", "budget", "manifest", "bundle_checks", "native"],
    ["pooling"],
    ["metrics", "event_metrics", "losses", "optim", "audio", "logmel", "augment"],
    ["config"],
    ["windows", "events", "predictions", "sampling", "features", "models"],
    ["labels", "anomaly"],
    ["folds"],
    ["hearing"],
    ["blends", "postprocessing", "pictures", "cache", "synth", "backends", "counting"],
    ["competitions"],
    ["dataset", "runs", "tasks"],
    ["inference", "blending"],
    ["training"],
    ["graphs", "tuning"],
    ["exporting", "kernel"],
    ["bundling", "dry_run", "kaggle_push"],
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NO_TORCH = [
    "hearing", "pooling", "runs", "graphs", "tuning",
    "budget", "kernel_speed", "kernel_blend", "kernel_calls", "kernel_runner", "kernel_bundle", "bundling", "dry_run",
    "kaggle_push",
    "audio", "logmel", "timebase", "windows", "events", "predictions", "labels", "folds", "metrics", "event_metrics",
    "blends", "postprocessing", "synth", "config", "inference", "backends", "native", "metrics_ust",
    *(f"competitions.{path.stem}" for path in sorted((PACKAGE / "competitions").glob("[a-z]*.py"))),
]  # fmt: skip


def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p
            for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """Modules of earshot that a file imports, anywhere in it."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("earshot"):
            base = node.module.removeprefix("earshot").strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("earshot.") for a in node.names if a.name.startswith("earshot.")}
    return found - {""}


def level_of(module: str) -> int:
    """synth_sounds and the like stand where their first word stands."""
    top = module.split(".")[0]
    return LEVEL[top] if top in LEVEL else LEVEL[top.split("_")[0]]


@pytest.mark.parametrize("module", list(modules()))
def test_imports_point_down(module):
    for imported in imports_of(modules()[module]):
        same_family = imported.split(".")[0].split("_")[0] == module.split(".")[0].split("_")[0]
        below = level_of(imported) < level_of(module)
        assert below or same_family, f"{module} imports {imported}, which does not stand below it"


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
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not scripts & {n.split(".")[0] for n in names}, f"{path} imports a script"


def test_kernels_need_no_torch():
    code = f"import sys, importlib\nfor m in {NO_TORCH}: importlib.import_module('earshot.' + m)\n"
    code += "print([m for m in ('torch', 'timm', 'matplotlib', 'wandb') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_importing_does_nothing(path):
    """At module level: imports, definitions, constants; no call that opens, prints, seeds or chooses a device."""
    for node in ast.parse(path.read_text()).body:
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            name = ast.unparse(call.func)
            assert not name.endswith(("open", "print", "seed", "manual_seed", "read_text", "read_csv", "device")), name

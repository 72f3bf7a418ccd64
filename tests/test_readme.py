"""What our pages and config headers say is so: the scripts take their commands, and what they name exists."""

import dataclasses
import functools
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import demo
from earshot.competitions import COMPETITIONS
from earshot.config import Config, load_config
from earshot.kernel.hidden_test import all_rules
from pages import (
    FENCE,
    PAGES,
    ROOT,
    anchors,
    blocks,
    docstring_lines,
    header_lines,
    name,
    our_commands,
    page_lines,
    shell_lines,
    spans,
)

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SCRIPTS = sorted((ROOT / "src").glob("*.py"))
TOLD = [*PAGES, ROOT / "benchmarks/RESULTS.md", ROOT / "kernels/earshot-demo/README.md"]  # pages that show commands
LINKING = [*PAGES, *(ROOT / p for p in ("ARCHITECTURE.md", "kernels/README.md", "submissions/README.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=name)
PLACEHOLDER = re.compile(r"[A-Z]+")  # NAME, FILE, DIR: whatever a reader puts there
OTHER_COMMANDS = re.compile(r"(make [a-z-]+$|source \.venv/bin/activate$|\.venv/bin/python -m pytest )")


@functools.cache
def commands() -> list[tuple[str, str]]:
    """(page, command) of all pages, config headers and docstrings of scripts, each pair once."""
    found = [(name(p), c) for p in TOLD for c in our_commands(page_lines(p.read_text()) + spans(p.read_text()))]
    found += [(name(p), c) for p in CONFIGS for c in our_commands(header_lines(p))]
    found += [(name(p), c) for p in SCRIPTS for c in our_commands(docstring_lines(p))]
    return list(dict.fromkeys(found))


def test_there_are_commands():
    found = [p for p, _ in commands()]
    assert found.count("README.md") >= 8
    assert sum(p.startswith("docs/") for p in found) >= 40
    assert sum(p.startswith("configs/") for p in found) >= 40
    assert sum(p.startswith("src/") for p in found) >= 20


@page
def test_every_line_of_a_shell_block_is_a_command_that_is_checked(page):
    for block in blocks(page.read_text()):
        for line in shell_lines(block):
            assert our_commands([line]) or OTHER_COMMANDS.match(line), f"{page.name}: what is '{line}'?"


@functools.cache
def made_by_commands() -> set[str]:
    """Names of the configs that `src/new.py NAME` of a page writes."""
    return {words[1] for _, command in commands() if (words := shlex.split(command))[0] == "src/new.py"}


@pytest.mark.parametrize(("where", "command"), commands(), ids=lambda value: value[:70])
def test_the_scripts_understand_it(where, command, monkeypatch):
    script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file(), f"{where}: {script} does not exist"
    for argument in arguments:
        if argument.startswith("configs/") and Path(argument).stem not in made_by_commands():
            assert (ROOT / argument).is_file(), f"{where}: {argument} does not exist"
    if script.startswith("benchmarks/"):
        source = (ROOT / script).read_text()
        assert all(f'"{flag}"' in source for flag in arguments if flag.startswith("--")), f"{where}: {command}"
        return
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    module = importlib.import_module(Path(script).stem)
    options = module.parse_args()
    check_names(module, options)


def check_names(module, options):
    """The competition, the settings and what else the script looks at before it starts."""
    competition = getattr(options, "competition", None)
    assert not competition or competition in COMPETITIONS or PLACEHOLDER.fullmatch(competition)
    if hasattr(module, "check_options"):
        module.check_options(options)
    if like := getattr(options, "like", None):
        assert (ROOT / "configs" / f"{like}.yaml").is_file(), f"no config {like}"
    if getattr(options, "systems", None):
        module.read_plan(options)
    overrides = getattr(options, "overrides", [])
    configs = getattr(options, "config", None) or []
    for config in configs if isinstance(configs, list) else [configs]:
        if not PLACEHOLDER.fullmatch(str(config)) and Path(config).stem not in made_by_commands():
            load_config(config, overrides)


ENDINGS = ("py", "csv", "json", "yaml", "npz", "txt", "html", "png", "parquet")


@page
def test_the_settings_that_a_page_names_exist(page):
    sections = "|".join(field.name for field in dataclasses.fields(Config))
    for span in spans(page.read_text()):
        found = re.fullmatch(rf"((?:{sections})(?:\.[a-z_]+)*)(=.*)?", span)
        is_setting = found and ("." in found[1] or found[2])
        if is_setting and not re.search(r"\.(onnx|json|npz|csv|xml|bin|yaml|py)$", span):
            assert is_known(found[1]), f"{page.name}: {span}"


def is_known(key: str) -> bool:
    """A dotted key of the config; below a plain dict every key is taken."""
    kind = Config
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return True
        hints = typing.get_type_hints(kind)
        if part not in hints:
            return False
        kind = hints[part]
    return True


def test_the_configs_that_pages_show_can_be_loaded(tmp_path):
    """A block of YAML whose first line is `# configs/<task>/<name>.yaml`, with the base that lies there."""
    shown = [block for page in PAGES for block in blocks(page.read_text(), "yaml")]
    assert shown
    for block in shown:
        path = Path(block.splitlines()[0].removeprefix("# "))
        for base in (ROOT / path).parent.glob("_*.yaml"):
            shutil.copy(base, tmp_path)
        (tmp_path / path.name).write_text(block)
        load_config(tmp_path / path.name)


@page
def test_the_files_and_configs_that_a_page_names_exist(page):
    for span in spans(page.read_text()):
        path = span.split()[0]
        if re.fullmatch(r"(src|configs|benchmarks|tests)/[\w/]+(\.\w+|/)", path):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        elif re.fullmatch(r"(sed|tagging|scenes|ust|asd)/[\w*/]+", path):
            assert list((ROOT / "configs").glob(f"{path}.yaml")), f"{page.name}: {path}"


def names_of_modules() -> dict[str, str]:
    """The text of our modules by what pages call them: their file's name, or their folder's of an __init__.py."""
    text = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        name = path.parent.name if path.stem == "__init__" else path.stem
        text[name] = text.get(name, "") + path.read_text()
    return text


@page
def test_the_modules_and_what_they_hold_that_a_page_names_exist(page):
    files = [str(path) for path in ROOT.glob("[a-z]*/**/*.py")]
    modules = names_of_modules()
    for span in spans(page.read_text()):
        if re.fullmatch(r"[\w/]+\.py", span):
            assert any(path.endswith(f"/{span}") for path in files), f"{page.name}: {span}"
        found = re.fullmatch(r"(?:\w+\.)*(\w+)\.(\w+)(?:\(.*\))?", span)
        if found and found[1] in modules and found[2] not in ENDINGS and not is_known(span):
            assert re.search(rf"\b{found[2]}\b", modules[found[1]]), f"{page.name}: {span}"


@page
def test_the_make_targets_that_a_page_names_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text()
    named = [line.split() for line in [*page_lines(text), *spans(text)] if line.startswith("make ")]
    assert {words[1] for words in named} <= targets


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: no heading for {target}"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1300
    assert len(text.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES[1:], ids=name)
def test_lines_of_prose_are_wrapped(page):
    """Tables and blocks have lines as long as they need."""
    prose = FENCE.sub("", page.read_text()).splitlines()
    assert [line for line in prose if len(line) > 130 and not line.startswith(("|", "    "))] == []


def test_the_readme_leads_to_every_page():
    linked = re.findall(r"\]\((docs/\w+\.md)", (ROOT / "README.md").read_text())
    assert {name(p) for p in PAGES[1:]} <= set(linked)


def test_every_script_is_in_the_table_of_commands():
    table = (ROOT / "docs" / "commands.md").read_text()
    missing = [s.name for s in sorted((ROOT / "src").glob("*.py")) if f"| `src/{s.name}" not in table]
    assert not missing


ROWS = [row for row in (ROOT / "docs" / "commands.md").read_text().splitlines() if row.startswith("| `src/")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3:40])
def test_the_options_that_the_table_of_commands_names_exist(row, monkeypatch, capsys):
    script = re.match(r"\| `src/(\w+)\.py", row)[1]
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(script).parse_args()
    known = re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", row)) <= set(known)


def test_every_competition_is_in_its_table_and_nothing_else():
    first_cells = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "data.md").read_text(), re.M)
    named = set(re.findall(r"`(\w+)`", " ".join(first_cells)))
    ranges = re.findall(r"`(\D+)(\d{4})(\w*)` \.\.\. `\1(\d{4})\3`", " ".join(first_cells))
    for stem, first, ending, last in ranges:
        named |= {f"{stem}{year}{ending}" for year in range(int(first), int(last) + 1)}
    assert named == set(COMPETITIONS)


@page
def test_our_commands_stand_in_blocks_that_are_checked(page):
    text = page.read_text()
    for block in blocks(text, ""):
        assert not our_commands(shell_lines(block)), f"{page.name}: say ```sh"


def test_the_competitions_that_kernels_answer_are_named():
    said = re.search(r"^Kernels answer (.*?)\. All others", (ROOT / "docs" / "kernels.md").read_text(), re.M | re.S)[1]
    assert set(re.findall(r"`(\w+)`", said)) == set(all_rules())


def test_the_kernel_is_as_long_as_its_page_says():
    lines = (ROOT / "kernels/earshot-demo/kernel.py").read_text().count("\n")
    assert f"kernel of {lines} lines" in " ".join((ROOT / "docs" / "kernels.md").read_text().split())


def git(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", str(ROOT), *map(str, arguments)], capture_output=True, text=True)


def test_git_ignores_what_the_demo_writes():
    if git("rev-parse", "--show-toplevel").returncode:
        pytest.skip("no git checkout: nothing to ask")
    written = (demo.DATA / "clips.csv", demo.OUT / "summary.json", demo.SUBMISSION, "submissions/log.csv")
    for path in written:
        assert git("check-ignore", "--no-index", path).returncode == 0, path
    assert git("ls-files", "submissions").stdout.split() == ["submissions/README.md"]

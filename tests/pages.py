"""Reads our pages: the commands, code spans and links of README.md, docs/*.md and the headers of configs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python|torchrun .*?) ?(?=(?:src|benchmarks)/\w+\.py)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(text: str) -> list[str]:
    """Shell text -> its commands, continued lines joined, comments cut."""
    joined = re.sub(r"\\\n\s*(# *)?", "", text)
    return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s+)#.*", "", raw.strip()))]


def blocks(text: str, language: str = "sh") -> list[str]:
    """The fenced blocks of a page in one language."""
    return [body for found, body in FENCE.findall(text) if found == language]


def indented(text: str) -> str:
    """The blocks of a page that are set in by four spaces, as Markdown's older code blocks are."""
    outside = FENCE.sub("", text)
    return "\n".join(line for line in outside.splitlines() if line.startswith("    "))


def spans(text: str) -> list[str]:
    """The `code spans` of a page, outside of its blocks, `\\|` of tables read as it is shown."""
    found = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return [" ".join(span.split()).replace("\\|", "|") for span in found]


def page_lines(text: str) -> list[str]:
    """Every shell line that a page shows, in its blocks."""
    return [line for block in [*blocks(text), indented(text)] for line in shell_lines(block)]


def section(text: str, title: str) -> str:
    """What stands below the heading `## title` of a page, up to the next one."""
    _, found, rest = text.partition(f"\n## {title}\n")
    if not found:
        raise ValueError(f"no section '{title}'; the page has {re.findall(r'^## (.*)', text, re.M)}")
    return re.split(r"^## ", rest, maxsplit=1, flags=re.M)[0]


def our_commands(lines: list[str]) -> list[str]:
    """The lines that start one of our scripts, from the script's path on: `src/train.py --fold 0`."""
    return [line[found.end() :] for line in lines if (found := COMMAND.match(line))]


def docstring_lines(script: Path) -> list[str]:
    """The shell lines of what a script says of itself."""
    return shell_lines(ast.get_docstring(ast.parse(script.read_text())) or "")


def header_lines(config: Path) -> list[str]:
    """The commands in the comments of a config, without the remarks behind them."""
    comments = [line.lstrip("# ") for line in config.read_text().splitlines() if line.startswith("#")]
    return shell_lines("\n".join(comments))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}

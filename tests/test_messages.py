"""Messages of scripts: lines that fit a screen."""

import logging

from earshot.messages import LINE, WrappedLines


def said(text: str) -> list[str]:
    record = logging.LogRecord("earshot", logging.WARNING, "x.py", 1, text, (), None)
    return WrappedLines("%(message)s").format(record).split("\n")


def test_long_log_lines_are_wrapped_at_words():
    names = ", ".join(f"clip_{i:04d}.wav" for i in range(60))
    lines = said(f"60 clips are left out: {names}")
    assert len(lines) > 3
    assert max(map(len, lines)) <= LINE < 160
    assert all(line.startswith("  clip_") for line in lines[1:])
    assert " ".join(line.strip() for line in lines).endswith(names)


def test_short_lines_and_long_words_stay_as_they_are():
    assert said("one\ntwo") == ["one", "two"]
    path = "/".join(["folder"] * 60)
    assert path in said(f"no such file: {path}")[-1]

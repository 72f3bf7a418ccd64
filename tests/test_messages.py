"""Messages of scripts: lines that fit a screen, bars where there is one."""

import errno
import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from earshot import messages, script
from earshot.messages import LINE, WrappedLines, command_line, fewer_alike, first_line, plural, progress_bar

SRC = Path(__file__).resolve().parents[1] / "src"


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


def test_commands_of_long_lines_stay_whole():
    command = command_line("make_folds", "--clips", "data/my set/clips.csv", "--out", f"folds/{'long' * 30}.csv")
    *lines, last = said(f"{'groups lie in several folds ' * 8}Make them again: {command}")
    assert len(lines) == 2
    assert last == f"  {command}"


def test_short_lines_and_long_words_stay_as_they_are():
    assert said("one\ntwo") == ["one", "two"]
    path = "/".join(["folder"] * 60)
    assert path in said(f"no such file: {path}")[-1]


def test_commands_can_be_pasted():
    words = command_line("train", "--config", Path("configs/my set.yaml"), "--fold", 0, "data.part={label: a b}")
    assert words == "python src/train.py --config 'configs/my set.yaml' --fold 0 'data.part={label: a b}'"


def test_commands_run_from_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(SRC.parent)
    assert command_line("train") == "python src/train.py"
    monkeypatch.chdir(tmp_path)
    assert command_line("train", "--fold", 0) == f"python {shlex.quote(str(SRC / 'train.py'))} --fold 0"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").touch()
    assert str(SRC) in command_line("train"), "somebody else's train.py"
    copy = tmp_path / "my checkout"
    (copy / "src").mkdir(parents=True)
    (copy / "src" / "train.py").touch()
    monkeypatch.setattr(messages, "REPOSITORY", copy)
    command = command_line("train", "--config", f"{'long' * 40}.yaml")
    assert shlex.split(command)[1] == str(copy / "src" / "train.py")
    assert said(f"{'it stopped ' * 14}go on: {command}")[-1] == f"  {command}", "and stay whole in the log"


class Screen(io.StringIO):
    """A standard error that may be a terminal."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown(monkeypatch, terminal: bool, quiet: bool = False) -> str:
    """What five steps of long work write to stderr."""
    screen = Screen(terminal)
    monkeypatch.setattr("sys.stderr", screen)
    assert list(progress_bar(iter(range(5)), "hearing", 5, "file", quiet=quiet)) == [0, 1, 2, 3, 4]
    counted = progress_bar(None, "counting", 3)
    counted.update(2)
    counted.close()
    return screen.getvalue()


def test_long_work_shows_what_is_left_on_a_terminal_and_nothing_elsewhere(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    on_screen = shown(monkeypatch, terminal=True)
    assert "hearing" in on_screen
    assert "counting" in on_screen
    assert "file/s" in on_screen
    assert "<" in on_screen, "time passed < time left"
    assert "hearing" not in shown(monkeypatch, terminal=True, quiet=True)
    assert shown(monkeypatch, terminal=False) == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert shown(monkeypatch, terminal=True) == ""


def test_nobody_draws_bars_of_their_own():
    sources = Path(messages.__file__).parents[1]
    drawing = [path.name for path in sources.rglob("*.py") if "import tqdm" in path.read_text()]
    assert drawing == ["messages.py"]


@pytest.mark.parametrize("what", ["print('x' * 100_000)", "print('x')", "parser.parse_args(['--help'])"])
def test_a_script_whose_reader_has_gone_ends_quietly(what):
    reading, writing = os.pipe()
    os.close(reading)
    code = f"""import sys; sys.path.insert(0, {str(SRC)!r})
from earshot.messages import Parser
from earshot.script import run_script
parser = Parser(description='words\\n\\nx.py')
run_script(lambda: {what})"""
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == (0 if "help" in what else 128 + signal.SIGPIPE)  # argparse looks at no error of its own


def test_another_pipe_that_breaks_is_still_an_error(capsys):
    def main():
        raise BrokenPipeError(32, "Broken pipe", "a process of ours")

    with pytest.raises(SystemExit) as ended:
        script.run_script(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a process of ours: Broken pipe\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "error: memory ran out: close what else uses it"),
        (RuntimeError("CUDA out of memory. Tried\n to"), "error: memory ran out: .*\\(CUDA out of memory. Tried to"),
        (OSError(errno.EMFILE, "Too many open files"), "error: Too many open files: .*ulimit -n"),
    ],
)
def test_what_ran_out_is_one_line(capsys, error, said):
    def main():
        raise error

    with pytest.raises(SystemExit, match="2"):
        script.run_script(main)
    assert re.match(said, capsys.readouterr().err)


def test_other_errors_keep_their_traceback():
    def main():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        script.run_script(main)


def test_messages_of_one_kind_are_counted_after_the_first(tmp_path, caplog):
    logger = logging.getLogger("earshot")
    with fewer_alike(tmp_path, most=2):
        for i in range(5):
            logger.warning("%s: it holds %d streams", tmp_path / f"a b/{i}.ogg", i)
        logger.warning("%s is empty", tmp_path / "x.wav")
    logger.warning("%s: it holds 9 streams", tmp_path / "a b/9.ogg")
    assert [line.replace(str(tmp_path), "") for line in caplog.messages] == [
        "/a b/0.ogg: it holds 0 streams", "/a b/1.ogg: it holds 1 streams", "/x.wav is empty",
        "3 more: a file: it holds ... streams", "/a b/9.ogg: it holds 9 streams",
    ]  # fmt: skip


def test_the_first_line_of_an_error_is_there_even_where_it_says_nothing():
    assert first_line(ValueError("\n  a 5\nb")) == "a 5"
    assert first_line(AssertionError()) == first_line(AssertionError("\n")) == "AssertionError"


def test_one_of_a_kind_is_counted_in_the_singular():
    said = ("clips are not there", "classes", "batches have", "rows mix kinds", "groups hold more")
    assert [plural(2, words) for words in said] == [f"2 {words}" for words in said]
    assert [plural(1, words) for words in said] == [
        "1 clip is not there", "1 class", "1 batch has", "1 row mixes kinds", "1 group holds more",
    ]  # fmt: skip

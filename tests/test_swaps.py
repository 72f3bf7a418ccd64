"""Every swap of benchmarks/swaps.py through the real scripts, a row each, and what was lost is made again."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import swaps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return swaps.make_base(tmp_path_factory.mktemp("swaps") / "base")


@pytest.mark.parametrize("swap", swaps.SWAPS, ids=str)
def test_a_swap_is_refused_with_both_named(base, tmp_path, swap):
    assert swaps.try_swap(swap, base, tmp_path / "copy") == ""


@pytest.mark.parametrize("path", swaps.LOST)
def test_what_is_lost_is_made_again_as_it_was(base, tmp_path, path):
    assert swaps.try_loss(path, base, tmp_path / "copy") == ""


def test_no_swap_means_no_refusal(base, tmp_path):
    """The same readers take the runs as they are: it is the swap that is refused."""
    with swaps.copied(base, tmp_path / "copy"):
        for command in (
            swaps.RESUME_A, f"{swaps.REPORT} {swaps.A} {swaps.B}", f"{swaps.PREDICT} {swaps.A}",
            f"{swaps.PREDICT} {swaps.A} --backend onnx", f"{swaps.ENSEMBLE} {swaps.A} {swaps.B}",
            f"{swaps.EXPORT} {swaps.A} --max-drop 1",  # a class says 0.99999 of all clips: rounding ranks them
            f"{swaps.SUBMIT} {swaps.A}/{swaps.TEST}", f"{swaps.GO_ON}",
        ):  # fmt: skip
            code, said = swaps.start(command)
            assert code == 0, said

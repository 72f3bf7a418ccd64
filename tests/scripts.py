"""How tests start our scripts: as their user does, in this process."""

import contextlib
import sys
from pathlib import Path
from unittest import mock

from accelerate.state import AcceleratorState, GradientState

# a PNG of one pixel
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def run(script, *arguments, draw=False):
    """Call the main() of an imported script with a command line, as a process of its own would: state of an earlier
    run in this process (Accelerate keeps precision and device globally) is forgotten first.

    Figures are made, but laid out and drawn with `draw` only, which takes longer than training a tiny network: else
    their files are a pixel.
    """
    forget_runs()
    old, sys.argv = sys.argv, [script.__name__, *map(str, arguments)]
    try:
        if draw:
            script.main()
        else:
            with (
                mock.patch("matplotlib.figure.Figure.savefig", write_pixel),
                mock.patch("earshot.pictures.folds.no_formulas", contextlib.nullcontext),
            ):
                script.main()
    finally:
        sys.argv = old


def forget_runs():
    """Put away what an earlier run in this process left: Accelerate keeps precision and device globally."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def write_pixel(figure, path, **_):
    Path(path).write_bytes(PIXEL)

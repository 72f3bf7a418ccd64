"""How tests start our scripts: as their user does, in this process."""

import sys

from accelerate.state import AcceleratorState, GradientState


def run(script, *arguments):
    """Call the main() of an imported script with a command line, as a process of its own would: state of an earlier
    run in this process (Accelerate keeps precision and device globally) is forgotten first."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    old, sys.argv = sys.argv, [script.__name__, *map(str, arguments)]
    try:
        script.main()
    finally:
        sys.argv = old

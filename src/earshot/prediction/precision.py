"""Numbers that networks compute with, and whether this processor multiplies in bfloat16 by itself. No torch.

A graph in OpenVINO that passed its gates in bfloat16 (src/export.py --precision bf16) says so in its description. Where
the processor at hand lacks it the same file is computed in float32: as right, only slower. It is never emulated.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

FLOAT32, BF16 = "float32", "bf16"
PRECISIONS = (FLOAT32, BF16)
UNITS = {"avx512_bf16", "amx_bf16", "bf16"}  # that multiply in bfloat16, as Linux names them on x86 and on ARM
CPUINFO = Path("/proc/cpuinfo")

logger = logging.getLogger("earshot")


@cache
def multiplies_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 here, and the processor has the units for it where the system says so."""
    import openvino

    named = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in named and has_units(CPUINFO.read_text() if CPUINFO.is_file() else "")


def has_units(cpuinfo: str) -> bool:
    """Whether the first processor of /proc/cpuinfo multiplies in bfloat16; True where its units are not named."""
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool(UNITS & set(words.split()))
    return True


def precision_here(wanted: str) -> str:
    """The precision that a graph is computed in here: what it was accepted in, or float32, which a warning says."""
    if wanted != BF16:
        return FLOAT32
    if multiplies_bf16():
        return BF16
    _say_lacking()
    return FLOAT32


@cache
def _say_lacking():
    """Once a process, however many folds there are."""
    logger.warning(
        "graphs that were exported for bf16 are computed in float32: this processor does not multiply in bf16; the "
        "answers are as right, and take longer"
    )

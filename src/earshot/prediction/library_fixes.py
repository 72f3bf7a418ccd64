"""What compiled libraries do to the process around them, put right (Linux; elsewhere nothing is done)."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
SMALL, LARGE = 128 * 1024, 32 * 1024 * 1024  # bytes: from where to where glibc moves that threshold by itself


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack():
    """Puts this thread's stack for signals back to what it was.

    OpenVINO leaves one of the least size there is, on which Python's handlers run over the edge where AVX-512 makes
    frames large: Ctrl-C, or a loader's worker that ends, then ends the process with a segmentation fault.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, before = ctypes.CDLL(None), SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


@contextmanager
def freed_at_once():
    """What is freed inside goes back to the system, and what the next step needs comes on top of less.

    glibc raises the size from which a block has pages of its own whenever one is freed; ONNX Runtime, which copies a
    network's weights several times while it opens a graph, then peaks a quarter of their size higher. Afterwards blocks
    of up to 32 MB are kept for the next, as in a process that has run for a while.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, SMALL)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGE)

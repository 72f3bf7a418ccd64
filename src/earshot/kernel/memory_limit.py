"""Whether this process may use the memory that a kernel needs; asked before what would crash without it is imported."""

from __future__ import annotations

import sys

NEEDED = 768 << 20  # bytes of addresses: what importing and a small network take, measured, and a quarter more


def check_memory_limit(needed: int = NEEDED):
    """End with a message where `ulimit -v` (RLIMIT_AS) is below `needed` bytes: numerical libraries abort there."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < needed:
        sys.exit(
            f"error: this process may use {limit >> 20} MiB of addresses (ulimit -v), a kernel needs "
            f"{needed >> 20} MiB or more: raise the limit"
        )

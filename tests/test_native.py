"""What compiled libraries do to the process is put right."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

KEPT = """
import sys; sys.path.insert(0, sys.argv[1])
from contextlib import nullcontext
import numpy as np
from earshot.prediction.library_fixes import freed_at_once

def resident():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmRSS"].split()[0]) / 1024

np.ones(2**21)  # 16 MB freed: from now on glibc keeps what is smaller
before = resident()
with freed_at_once() if sys.argv[2] == "put right" else nullcontext():
    blocks = [np.ones(2**17) for _ in range(100)]  # 1 MB each
    last = blocks[-1]
    del blocks
    print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep no threshold")
def test_freed_memory_goes_back_to_the_system():
    def kept(how: str) -> float:
        done = subprocess.run([sys.executable, "-c", KEPT, str(SRC), how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert kept("as it is") > 90
    assert kept("put right") < 10

"""How much memory this process takes at most while something runs, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _bytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Gives what tells the most bytes since the beginning, beyond those that there were; a skip where nobody counts."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory that is still counted hides what comes
        RESET.write_text("5")  # the peak is what there is now
    except OSError:
        pytest.skip("this system does not count a process's largest memory")
    before = _bytes("VmRSS")
    yield lambda: _bytes("VmHWM") - before

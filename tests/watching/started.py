"""Which processes a process has started, and whether they are gone, from /proc."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

ENDED = {"Z", "X", "x"}  # states of proc_pid_stat(5)


def parties(launcher: int) -> list[int]:
    """Process ids of the parties that this process has let its nursery fork."""
    return [party for nursery in children(launcher) for party in children(nursery)]


def children(pid: int) -> list[int]:
    """Process ids of the children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not, nor one that is just being waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ENDED
    except OSError:
        return False


def gone(pids: Iterable[int], seconds: float = 30.0) -> bool:
    """Whether all of them end within the time."""
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True

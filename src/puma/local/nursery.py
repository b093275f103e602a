"""Starts party processes on this machine: forked from a process that has loaded their program once.

That process (party/launched/nursery.py) is started when it is first needed, serves all clusters of this process and
ends by itself. Parties are out of reach of the terminal's Ctrl-C, and quiet: what went wrong comes as a message. It
must not know what a party is told.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from puma.errors import PumaError

# As many threads as a party is told, which sleep while they wait, and freed memory kept for the next message: returning
# it to the system after each costs up to a third of the time in page faults. What the user sets counts more.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# What a program and its libraries read as they are loaded; anything else a party gets when it is forked.
READ_AT_START = ("OMP_", "MKL_", "KMP_", "NUMBA_", "MALLOC_", "GLIBC_", "LD_", "OPENSSL_", "PYTHON", "PUMA_", "XDG_")
FLAG = "--nursery"
LAST_SECONDS = 2.0  # for a nursery to end, before this process does


class PartyProcess:
    """A party's process; it is no child of this one, a descriptor of the system's stands for it."""

    def __init__(self, pid: int, handle: int, stdin: TextIO, stdout: TextIO) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._handle = handle

    def gone(self, seconds: float | None = 0.0) -> bool:
        """Whether it has ended, at the latest after so many seconds; None waits for it."""
        if self._handle >= 0 and _readable(self._handle, seconds):
            os.close(self._handle)
            self._handle = -1
        return self._handle < 0

    def kill(self) -> None:
        """End it; harmless where it has ended."""
        if not self.gone():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def pipes(self) -> tuple[TextIO, TextIO]:
        """What it is told by, and what it says."""
        return self.stdin, self.stdout


def _readable(handle: int, seconds: float | None) -> bool:
    """Whether a descriptor has something to say by then. It may have any number: `select.select` takes up to 1,023, and
    a program may have more files than that."""
    asked = select.poll()
    asked.register(handle, select.POLLIN)
    return bool(asked.poll(None if seconds is None else 1000 * seconds))


def load(program: Sequence[str]) -> None:
    """Let loading begin, so that it is done when a party is wanted."""
    with _lock:
        _nursery(program)


def party(program: Sequence[str]) -> PartyProcess:
    """Start one party. `program` is what Python runs. Raises PumaError if none comes."""
    with _lock:
        for _ in range(2):  # one that had been idle for long may just have ended
            link = _nursery(program)
            with contextlib.suppress(OSError):
                if found := _asked(link):
                    return found
            _forget()
    raise PumaError("a party process died while starting", "run `puma doctor`; PUMA_DEBUG=1 shows the parties' errors")


def _asked(link: socket.socket) -> PartyProcess | None:
    """One more party of this nursery, or None where the nursery is gone."""
    words = json.dumps({"environment": ENVIRONMENT | os.environ, "folder": os.getcwd()}).encode() + b"\n"
    theirs_in, stdin = os.pipe()
    stdout, theirs_out = os.pipe()
    errors = os.dup(2) if os.environ.get("PUMA_DEBUG") else os.open(os.devnull, os.O_WRONLY)
    handles = list[int]()
    try:
        sent = socket.send_fds(link, [words], [theirs_in, theirs_out, errors])
        link.sendall(words[sent:])
        said, handles, _, _ = socket.recv_fds(link, 64, 1)
    finally:
        for each in (theirs_in, theirs_out, errors, *(() if handles else (stdin, stdout))):
            os.close(each)
    if not handles:
        return None
    return PartyProcess(int(said), handles[0], os.fdopen(stdin, "w"), os.fdopen(stdout))


def _nursery(program: Sequence[str]) -> socket.socket:
    """The socket to one that has loaded this program under these settings."""
    settings = [(name, value) for name, value in sorted(os.environ.items()) if name.startswith(READ_AT_START)]
    wanted = (sys.executable, *program), settings
    if _running and _running[0][0] == wanted:
        return _running[0][1]
    _forget()
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *program, FLAG],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("PUMA_DEBUG") else subprocess.DEVNULL,
            start_new_session=True,
            env=ENVIRONMENT | os.environ,
        )
    _running.append((wanted, ours, process))
    return ours


def _forget() -> None:
    """Let go of the nursery: it ends, and what it has forked stays."""
    while _running:
        _, link, process = _running.pop()
        link.close()
        _left.append(process)
    _left[:] = [process for process in _left if process.poll() is None]


def _end() -> None:
    """Before this process ends: the nursery does, too."""
    _forget()
    for process in _left:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_SECONDS)


def _start_again() -> None:
    """In a forked process: the nursery is the parent's."""
    global _lock
    _lock = threading.Lock()
    while _running:
        _running.pop()[1].close()
    for process in _left:
        process.returncode = 0  # nor are these children of ours
    _left.clear()


_lock = threading.Lock()
_running: list[tuple[object, socket.socket, subprocess.Popen[bytes]]] = []
_left: list[subprocess.Popen[bytes]] = []
os.register_at_fork(after_in_child=_start_again)
atexit.register(_end)

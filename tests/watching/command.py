"""Whole commands in processes of their own that need not load Puma first: they are forked from one that has.

To load is most of what a daemon's start takes. The first line that a child reads says what it is to be: a command, or a
party, which its launcher tells the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puma.cli import app, ui
from puma.cli.commands.operate import party  # noqa: F401  (loaded before a daemon begins)
from puma.local import nursery
from puma.party import daemon, health  # noqa: F401
from puma.party.launched import process
from tests.watching import loaded

COMMAND = '{"command":'


class Command:
    """`puma WORDS`: its output is added to a file, its errors to the same or another; what tests ask of a Popen."""

    def __init__(self, words: Sequence[str], out: Path, errors: Path | None = None) -> None:
        self._process, self._sent = nursery.party(loaded.PROGRAM), 0
        self.pid = self._process.pid
        self.returncode: int | None = None
        for file in {out, errors or out}:
            file.touch()  # whoever looks into it need not wait for the child
        stdin, _ = self._process.pipes()
        said = {"command": [*words], "out": [str(out), str(errors or out)]}
        stdin.write(json.dumps(said, separators=(",", ":")) + "\n")
        stdin.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            self._sent = number
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self._ended() if self._process.gone() else None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the number of the signal that ended it, negated."""
        if not self._process.gone(timeout):
            raise subprocess.TimeoutExpired(f"puma, process {self.pid}", timeout or 0)
        return self._ended()

    def _ended(self) -> int:
        if self.returncode is None:
            _, told = self._process.pipes()
            line = told.readline()
            told.close()
            self.returncode = int(line) if line else -(self._sent or signal.SIGABRT)  # who falls says nothing
        return self.returncode


class Again:
    """Standard input of which a line was read that somebody else waits for."""

    def __init__(self, line: str, rest: Any) -> None:
        self._line, self._rest = line, rest

    def readline(self) -> str:
        line, self._line = self._line or self._rest.readline(), ""
        return line


def main() -> int:
    """In the child."""
    line = sys.stdin.readline()
    if not line.startswith(COMMAND):
        sys.stdin = Again(line, sys.stdin)  # type: ignore[assignment]
        return process.main()
    asked = json.loads(line)
    told = os.dup(1)
    for number, file in enumerate(asked["out"], start=1):
        out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, number)
        os.close(out)
    warnings.showwarning = ui.warned
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the nursery does not listen to it
    code = app.run(asked["command"])
    sys.stdout.flush()
    os.write(told, f"{code}\n".encode())
    return code

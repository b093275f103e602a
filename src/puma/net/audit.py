"""Who came, who was let in and who was not: one JSON object a line, for people who have to answer for a cluster.

An event holds names, addresses, fingerprints and reasons, never a secret and nothing of what is said over a link. A
log that cannot be written stops nobody; what was left out is counted in the next line."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Literal, Protocol

from puma.errors import ConfigError
from puma.net.endpoint import printable

REFUSALS_A_SECOND = 20  # a stranger who knocks without end must not fill the disk
MAX_REASON = 300


@dataclass
class Visit:
    """What is known of one attempt to make a link; filled in while it goes on."""

    direction: Literal["in", "out"]
    address: str
    role: str = ""
    rank: int | None = None
    name: str = ""
    fingerprint: str = ""


class Log(Protocol):
    """Where events go."""

    def link(self, visit: Visit, refused: str = "") -> None:
        """A link came to be, or was refused for this reason."""
        ...


class Nowhere:
    """Keeps nothing: for processes of one machine."""

    def link(self, visit: Visit, refused: str = "") -> None:
        """Nothing is written."""


NOWHERE = Nowhere()


class Audit:
    """A file that is only ever appended to; several processes and threads may share it."""

    def __init__(self, path: str | Path) -> None:
        """ConfigError if the file cannot be opened; it is made readable by its owner alone."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            hint = "name a file in a folder that this user may write"
            raise ConfigError(f"cannot write the audit log {path}: {error.strerror}", hint) from None
        self._lock = threading.Lock()
        self._second = 0
        self._refusals = 0
        self._left_out = 0

    def link(self, visit: Visit, refused: str = "") -> None:
        """A line for a link that came to be or was refused; a flood of refusals is counted instead of written."""
        event: dict[str, object] = {"event": "link", "outcome": "refused" if refused else "accepted", **vars(visit)}
        with self._lock:
            if refused and self._too_many():
                self._left_out += 1
                return
            self._write(event | {"reason": printable(refused.encode(errors="replace"))[:MAX_REASON]})

    def close(self) -> None:
        """Nothing more will be written."""
        with self._lock:
            file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _too_many(self) -> bool:
        second = int(monotonic())
        if second != self._second:
            self._second, self._refusals = second, 0
        self._refusals += 1
        return self._refusals > REFUSALS_A_SECOND

    def _write(self, event: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        left_out = {"left_out": self._left_out} if self._left_out else {}
        line = json.dumps({"time": now} | event | left_out, ensure_ascii=False) + "\n"
        try:
            os.write(self._file, line.encode())  # one call: lines of several processes do not mix
            self._left_out = 0
        except OSError:
            self._left_out += 1

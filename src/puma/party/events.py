"""What a party says about itself while it runs: one JSON object a line, for people and for log collectors.

An event holds names from the cluster file, numbers and the messages of errors: never a word of a share, a seed, or
anything made from a key. This file must not know what the events mean.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO


class Events:
    """Lines on a stream, standard error unless another is given; a stream that is gone stops nobody."""

    def __init__(self, party: str, stream: TextIO | None = None) -> None:
        self._party, self._stream, self._lock = party, stream or sys.stderr, threading.Lock()

    def say(self, event: str, **facts: Any) -> None:
        """One event, now."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(
            {"time": now, "party": self._party, "event": event} | facts, ensure_ascii=True
        )  # names and messages of others: no terminal obeys them
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass

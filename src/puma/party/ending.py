"""How a session ends at a party: a goodbye to everybody, or why it is over. This file must not know what was asked."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from puma.errors import PumaError
from puma.wire import messages as msg

MOST_TEXT = 2000  # letters of an error that a client is told


def failed(rank: int, error: Exception) -> msg.Failed:
    """What the client is told about an error at this party."""
    told(f"P{rank}", error)
    if isinstance(error, PumaError):
        return msg.Failed(type(error).__name__, error.message[:MOST_TEXT], error.hint[:MOST_TEXT])
    return msg.Failed("ProtocolError", f"P{rank} failed: {type(error).__name__}: {error}"[:MOST_TEXT], "")


def told(whose: str, error: Exception) -> None:
    """Where errors are to be shown, what ended something of this party's, on standard error."""
    if not os.environ.get("PUMA_DEBUG"):
        return
    if isinstance(error, PumaError):
        print(f"{whose}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)


def part(failure: msg.Failed | None, client: Any, peers: Iterable[Any]) -> None:
    """End a session at this party: a goodbye to everybody, or why it is over."""
    for link in peers:
        link.close() if failure is None else link.fail(failure.message)
    if failure is not None:
        with contextlib.suppress(PumaError):
            client.send_control(msg.encode(failure))
    client.close()

"""Networks between the parties of one machine: a relay that delays and limits what they send each other.

with Emulated(network) as net, Trio(route=net.route) as trio: ...
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from puma.measure.forecast import Network

ONE_MACHINE = "one machine"  # where there is no network: sockets of the system
RELAY = Path(__file__).with_name("relay.py")


class Emulated:
    """The relay's process, for as long as the context lasts."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._relay = subprocess.Popen(
            [sys.executable, str(RELAY), repr(network.rate), repr(network.rtt / 2)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def route(self, dialer: str, listener: str, port: int) -> int:
        """The port that leads to `port` over this network."""
        return self._ask({"dialer": dialer, "listener": listener, "port": port})

    def stats(self) -> dict[str, Any]:
        """Bytes by wire, processor seconds so far, lateness since the last call."""
        return self._ask({"stats": True})

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._relay.stdin is not None and self._relay.stdout is not None
        self._relay.stdin.write(json.dumps(question) + "\n")
        self._relay.stdin.flush()
        return json.loads(self._relay.stdout.readline())

    def __enter__(self) -> Emulated:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._relay.stdin, self._relay.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._relay.wait(timeout=2.0)
        self._relay.kill()
        self._relay.wait()

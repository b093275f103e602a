"""The same networks made by the kernel, where it can: a namespace whose loopback delays and limits each wire.

Needs the right to make a network namespace, and the kernel's netem. Latency then includes the kernel's own TCP: slow
start, acknowledgements, windows. It must not know who sends what.
"""

from __future__ import annotations

import ctypes
import subprocess
from typing import Any

from puma.measure.forecast import Network

CLONE_NEWNET = 0x40000000
PACKETS = 1_000_000  # that a wire may hold


def available() -> bool:
    """Whether a new namespace can have a delay."""
    trial = ["unshare", "-n", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    try:
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def enter() -> None:
    """Leave this process's network for a new one with nothing but a loopback; processes started later follow."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise PermissionError(ctypes.get_errno(), "no right to make a network namespace")
    _run("ip", "link", "set", "lo", "up")


class Shaped:
    """Classes of the loopback, one for each direction between two machines; the surface of network.Emulated."""

    def __init__(self, network: Network, delays: bool = True) -> None:
        self.network, self._delays = network, delays
        self._classes: dict[tuple[str, str], str] = {}
        _run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb")

    def route(self, dialer: str, listener: str, port: int) -> int:
        """The same port: packets to it and from it are put into their wire's class."""
        for a, b, side in ((dialer, listener, "dport"), (listener, dialer, "sport")):
            match = ["match", "ip", side, str(port), "0xffff"]
            _run("tc", "filter", "add", "dev", "lo", "parent", "1:", "u32", *match, "flowid", self._wire(a, b))
        return port

    def _wire(self, a: str, b: str) -> str:
        if (a, b) not in self._classes:
            name = f"1:{len(self._classes) + 1}"
            rate = ["rate", f"{self.network.rate:.0f}bit", "burst", "128kb", "cburst", "128kb", "quantum", "65536"]
            _run("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", name, "htb", *rate)
            delay = ["netem", "delay", f"{self.network.rtt / 2 * 1e6:.0f}us"] if self._delays else ["pfifo"]
            _run("tc", "qdisc", "add", "dev", "lo", "parent", name, *delay, "limit", str(PACKETS))
            self._classes[a, b] = name
        return self._classes[a, b]

    def stats(self) -> dict[str, Any]:
        """The kernel does it in nobody's time."""
        return {"cpu_seconds": 0.0, "late": []}

    def __enter__(self) -> Shaped:
        return self

    def __exit__(self, *_: object) -> None:
        _run("tc", "qdisc", "del", "dev", "lo", "root")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)

"""Five machines that are none: network namespaces on a bridge in a sixth, and puma run inside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

NAMES = ("p0", "p1", "p2", "cl", "ow")  # the parties, a client, an owner
ADDRESSES = {name: f"10.231.77.{i + 1}" for i, name in enumerate(NAMES)}
BRIDGE = "pumabr"


def ip(*words: str) -> None:
    """OSError if the system refuses."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def made() -> Iterator[None]:
    """The namespaces, for as long as this lasts; a skip where that is not permitted."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", "puma-net")
        ip("-n", "puma-net", "link", "add", BRIDGE, "type", "bridge")
        ip("-n", "puma-net", "link", "set", BRIDGE, "up")
        for name in NAMES:
            _join(name, f"puma-{name}")
    except OSError as error:
        _clean()
        pytest.skip(f"no network namespaces here: {error}")
    yield
    _clean()


def _join(name: str, space: str) -> None:
    ip("netns", "add", space)
    ip("-n", "puma-net", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
    ip("-n", "puma-net", "link", "set", f"v{name}", "master", BRIDGE, "up")
    ip("-n", space, "addr", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
    for link in ("eth0", "lo"):
        ip("-n", space, "link", "set", link, "up")


def _clean() -> None:
    for name in (*NAMES, "net"):
        subprocess.run(["ip", "netns", "del", f"puma-{name}"], capture_output=True, check=False)


def inside(name: str, *words: str) -> list[str]:
    """A command line of puma on one of the machines."""
    return within(name, sys.executable, "-m", "puma.cli.app", *words)


def within(name: str, *words: str) -> list[str]:
    """Any command line on one of the machines."""
    return ["ip", "netns", "exec", f"puma-{name}", *words]

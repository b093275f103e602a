"""What a launcher writes to the standard input of a party that it starts on this machine, one JSON line each.

It must not know processes or sockets."""

from __future__ import annotations

import msgspec


class Start(msgspec.Struct, frozen=True):
    """First line on standard input."""

    rank: int
    session: bytes
    config: bytes
    cookie: bytes
    store: str = ""  # a folder of this party's own, or none
    approximation: str = "spline"  # covered by the digest `config`, which peers and client must name alike
    threads: int = 1  # that this party computes with: nobody else's affair


class Ports(msgspec.Struct, frozen=True):
    """Second line: where the parties of lower rank listen."""

    ports: list[int]

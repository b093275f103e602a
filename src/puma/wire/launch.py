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
    dealers: int = 1  # 2: the party of rank 3 computes what P0 does, and the evaluators compare
    host: str = "127.0.0.1"  # where to listen, and where the others do


class Ports(msgspec.Struct, frozen=True):
    """Second line: where the parties of lower rank listen, from P0 on."""

    ports: list[int]

"""A party's process: meet the two peers and the client, then serve the client's requests until it quits.

Started by a launcher that writes one JSON line to standard input (who we are, the session, the cookie) and later the
peers' ports. When standard input closes the launcher is gone, and so are we. This file must not know what is asked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, TypeVar

import msgspec
import torch

from puma.crypto.prg import PairKey
from puma.kernels import warmup
from puma.mpc.party import Party
from puma.net import Link
from puma.net.handshake import Identity
from puma.net.tcp import dial, listen
from puma.party.server import Server, failed, part
from puma.wire.launch import Ports, Start
from puma.wire.limits import SILENCE

T = TypeVar("T")


_starts = msgspec.json.Decoder(Start)
_ports = msgspec.json.Decoder(Ports)


def meet(start: Start) -> tuple[Party, Any]:
    """Listen, tell the launcher the port, dial the parties of lower rank, wait for the others and the client."""
    me = Identity("party", start.rank, start.session, start.config, start.cookie)
    listener = listen()
    higher = range(start.rank + 1, 3)
    listener.welcome(me, [("client", 0), *(("party", r) for r in higher)], timeout=SILENCE)
    print(listener.address[1], flush=True)
    ports = _told(_ports).ports
    threading.Thread(target=_leave_with_launcher, daemon=True).start()
    met = [dial("127.0.0.1", ports[r], me, ("party", r), timeout=SILENCE) for r in range(start.rank)]
    met += [listener.accept(60.0) for _ in range(len(higher) + 1)]
    listener.close()
    links: dict[int, Link] = {m.rank: m.link for m in met if m.role == "party"}
    keys = {m.rank: PairKey(m.secret) for m in met if m.role == "party"}
    client = next(m.link for m in met if m.role == "client")
    client.set_timeout(7 * 24 * 3600.0)  # a client may think as long as it likes
    party = Party(start.rank, links, keys)
    party.approximation = start.approximation
    return party, client


def run(start: Start) -> int:
    """Serve; on an error tell everybody why, by name."""
    party, client = meet(start)
    warmup.compile_kernels()  # the launcher has seen to it that they only need loading
    failure = None
    try:
        Server(party, client, start.store, owner=True).serve()  # who started us owns what it shares
    except Exception as error:
        failure = failed(start.rank, error)
    part(failure, client, party.links.values())
    return 1 if failure else 0


def _told(decoder: msgspec.json.Decoder[T]) -> T:
    """The launcher's next line; without a launcher there is nothing to do."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return decoder.decode(line)


def _leave_with_launcher() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


def main() -> int:
    """One party of a local trio, told what it needs by its standard input; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends us
    torch.set_num_threads(1)
    return run(_told(_starts))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to tidy up, and unloading the libraries takes seconds

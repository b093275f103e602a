"""A party that is stopped but not dead: everybody hears of it within ten seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from puma.client.client import Client
from puma.errors import HandshakeError, PeerLost, ProtocolError
from puma.local.cluster import LocalCluster
from tests.live import Live, patiently

pytestmark = pytest.mark.processes
LONGEST = 10.0


def waiting_at_each_step(cluster: Client) -> Iterator[int]:
    """A generation that has begun; it ends at a token that never comes, so that every step waits for the client."""
    cluster.model.eos = (99,)
    tokens = cluster.stream("the cat", 28, stop="eos")
    next(tokens)
    return tokens


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_local_party_that_stops(rank: int, checkpoints: dict[str, Path]) -> None:
    with LocalCluster(checkpoints["llama"]) as cluster:
        tokens = waiting_at_each_step(cluster)
        os.kill(cluster.pids[rank], signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(ProtocolError, match=f"P{rank} has given no sign of life"):
            list(tokens)
        assert time.monotonic() - began < LONGEST


@pytest.mark.slow
@pytest.mark.parametrize("rank", range(3))
def test_a_daemon_that_stops_and_comes_back(rank: int, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with Live(tmp_path) as live:
        live.share(checkpoints["llama"], "tiny")
        with live.connect("tiny") as cluster:
            wanted = cluster.generate("the cat", 2).token_ids
            frozen = live.processes[rank]
            assert frozen is not None
            tokens = waiting_at_each_step(cluster)
            frozen.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(PeerLost, match="no sign of life"):
                list(tokens)
            assert time.monotonic() - began < LONGEST
        others = [r for r in range(3) if r != rank]
        while any(live.health(r)[1].get("sessions") for r in others):
            assert time.monotonic() - began < LONGEST + 2
            time.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(HandshakeError, match=f"P{rank} did not finish the handshake"):
            live.connect("tiny")
        assert time.monotonic() - began < LONGEST
        frozen.send_signal(signal.SIGCONT)
        with patiently(live, "tiny") as cluster:
            assert cluster.generate("the cat", 2).token_ids == wanted
        live.settled()

"""No mask serves twice: of two requests of one session, nothing that a party hears is alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puma.local.cluster import LocalCluster
from tests.threads import Threads
from tests.watch import Recorder


def heard(trio: Threads) -> list[np.ndarray]:
    """All that P1 and P2 have received from the parties since the last call."""
    found = []
    for server in trio.servers[1:]:
        links: Any = server.party.links.values()
        found.append(np.concatenate([frame for link in links for frame in link.received]))
        for link in links:
            link.received.clear()
    return found


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_the_same_request_again_looks_like_another(name: str, checkpoints: dict[str, Path]) -> None:
    with Threads() as trio:
        cluster = LocalCluster(checkpoints[name], trio=trio)  # type: ignore[arg-type]
        for server in trio.servers:
            server.party.links = {peer: Recorder(link) for peer, link in server.party.links.items()}  # type: ignore[misc]

        def ask() -> list[np.ndarray]:
            cluster.generate("the cat", 3) if name == "llama" else cluster.encode("the cat")
            return heard(trio)

        for first, again in zip(ask(), ask(), strict=True):
            assert first.size == again.size > 1000
            assert (first == again).mean() < 0.05  # a few pieces are filled up with zero bits

"""No stream of masks starts twice: within a session, whatever is asked, each key and purpose begins once."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma import LocalCluster
from puma.mpc.party import DEALER, Party
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.threads import Threads


def test_requests_of_a_session_draw_from_streams_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, bytes, str]] = []
    real = Party._stream

    def spied(party: Party, evaluator: int, purpose: str) -> object:
        if not party.is_dealer and (evaluator, purpose) not in party._streams:
            begun.append((party.rank, party._keys[DEALER].secret, purpose))
        return real(party, evaluator, purpose)

    monkeypatch.setattr(Party, "_stream", spied)
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1))
    with Threads() as threads:
        cluster = LocalCluster(clear, trio=threads)  # type: ignore[arg-type]
        wanted = clear.greedy(clear.prompt_ids("the cat", 3), 3)
        for _ in range(2):
            assert cluster.generate("the cat", 3).token_ids == wanted
        clear.eos = (wanted[1],)
        assert cluster.generate("the cat", 3, stop="eos").token_ids == wanted[: wanted.index(wanted[1]) + 1]
        assert cluster.generate("the cat", 3).token_ids == wanted
    assert len(begun) > 20 and len(set(begun)) == len(begun)

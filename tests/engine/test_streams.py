"""No stream of masks starts twice: within a session, whatever is asked, each key and purpose begins once."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.threads import Threads
from tests.watch import streams_begun


def test_requests_of_a_session_draw_from_streams_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = streams_begun(monkeypatch)
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

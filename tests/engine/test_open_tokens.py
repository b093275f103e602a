"""Tokens that parties generate with public weights: nobody opens them, though a public table makes that tempting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.engine.engine import Engine
from puma.mpc import arithmetic
from puma.mpc.arithmetic import reshare
from puma.nn import functional as F
from tests.mpc.test_rank import PARTIES, Experiment, held, suspicions
from tests.trio import given_public
from tests.view import Viewer


def _fed(party: Viewer, secret: Tensor) -> None:
    """A step's token becomes a row of the table, which a norm would open next."""
    config = SimpleNamespace(vocab_size=4, formats=SimpleNamespace(open=True))
    engine: Any = SimpleNamespace(party=party, config=config)
    rows = Engine.fed(engine, held(party, secret, 1, 2, 2))
    table = given_public(party, torch.tensor([[7], [-3], [2], [5]]), 34)
    party.run(reshare(F.embedding(rows, table)))


def test_a_generated_token_is_never_opened() -> None:
    assert suspicions(Experiment("fed", _fed, 700, 34)) == {rank: [] for rank in PARTIES}


def test_one_that_is_opened_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(party: Viewer, secret: Tensor) -> None:
        party.run(arithmetic.reveal(held(party, secret, 1, 2, 2)))

    found = suspicions(Experiment("opened", opened, 300, 8))
    assert found[0] == [] and found[1] and found[2]

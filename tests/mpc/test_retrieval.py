"""Rows by an outsider's choice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma import kernels
from puma.mpc.arithmetic import reshare
from puma.mpc.party import Party
from puma.mpc.retrieval import choice_bytes, retrieve
from tests.mpc.words import uniform
from tests.trio import added, given, given_choice, joined, parties


@pytest.mark.parametrize("size", [1, 2, 8, 9, 100])
@pytest.mark.parametrize("bits", [34, 64])
def test_every_row_is_found(size: int, bits: int) -> None:
    table = uniform(size, 5, seed=size)
    rows = [*range(size - 1, -1, -1), 0, size // 2]

    def compute(party: Party) -> Any:
        choice = given_choice(party, rows, size, bits)
        assert tuple(choice.shape) == (len(rows), size) and str(size) in repr(choice)
        found = party.run(retrieve(choice, given(party, table, 64)))
        return found, party.run(reshare(found))[0]

    found, shares = zip(*parties(compute), strict=True)
    assert torch.equal(added(found), kernels.signed(table[rows], bits))
    assert torch.equal(joined(shares), kernels.signed(table[rows], bits))
    assert choice_bytes(size) == -(-size // 8)

"""On shares, a model gives what it gives on tensors, up to fixed point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.models import Cache, architecture
from puma.mpc.fixed import ACTIVATION, RESIDUAL_RING, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn.modules import split_heads
from tests.models import tiny
from tests.models.plain import one_hot, open_model
from tests.trio import given, parties, value

IDS = [1, 5, 7, 9, 27, 6]


def steps(family: str, model: Any, cache: Cache, feed: Callable[[slice], Any]) -> list[Any]:
    """All that a model answers: a prompt and two tokens one by one, or a text and its class."""
    if family == "causal":
        return [model(feed(rows), cache) for rows in (slice(0, 4), slice(4, 5), slice(5, 6))]
    hidden = model(feed(slice(0, 6)))
    return [hidden, model.classify(hidden)]


@pytest.mark.parametrize("write", [tiny.llama, tiny.gpt2, tiny.classifier])
def test_shares_are_near_tensors(write: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint, model = open_model(write(tmp_path))
    config, rows = checkpoint.config, one_hot(IDS, checkpoint.config.vocab_size)
    kind, params = architecture(config), checkpoint.fold()

    def secure(party: Party) -> list[Any]:
        shares = {name: given(party, tensor, RING, WEIGHT, name) for name, tensor in params.items()}
        answers = steps(
            kind.family,
            kind.model(config, shares),
            Cache(config.layers),
            lambda where: given(party, rows[where], RESIDUAL_RING, 0, f"rows {where.start}"),
        )
        return party.run(formatted(*((answer, ACTIVATION, RING) for answer in answers)))

    expected = steps(kind.family, model, Cache(config.layers), lambda where: rows[where])
    results = parties(secure)
    for i, tensor in enumerate(expected):
        assert_close(value([result[i] for result in results]).float(), tensor, atol=0.01, rtol=0)


def test_projections_are_opened_together() -> None:
    def rounds(party: Party) -> int:
        x = given(party, torch.ones(3, 8), RING, ACTIVATION)
        weights = [given(party, torch.eye(8), RING, WEIGHT, name) for name in "qkv"]
        heads = split_heads([F.linear(x, weight) for weight in weights], 4)
        assert tuple(heads.shape) == (6, 3, 4)
        return party.ledger.total().rounds

    assert parties(rounds) == [0, 2, 2]  # one opening and one lift, as for a single projection

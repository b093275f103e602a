"""On shares, a model gives what it gives on tensors, up to fixed point."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.models import Cache, architecture
from puma.mpc.fixed import ACTIVATION, RESIDUAL_RING, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn.modules import Rows
from tests.models import tiny
from tests.models.plain import one_hot, open_model
from tests.trio import given, parties, value

IDS = [1, 5, 7, 9, 27, 6]
BATCH = [IDS[:2], IDS, IDS[1:4]]
LENGTHS = [len(ids) for ids in BATCH]
ROWS = [*chain(*BATCH)]
NEXT = [[4, 8, 12], [20, 5, 5]]  # one token of each prompt in a step
Feed = Callable[[list[int]], Any]


def steps(model: Any, feed: Feed, batch: bool) -> list[Any]:
    """All that a causal model answers: to a prompt and two tokens one by one; in a batch, to several."""
    cache = Cache(model.config.layers, LENGTHS if batch else None)
    fed = [ROWS, *NEXT] if batch else [IDS[:4], IDS[4:5], IDS[5:6]]
    return [model(feed(ids), cache) for ids in fed]


def classes(model: Any, feed: Feed, batch: bool) -> list[Any]:
    """All that an encoder answers."""
    lengths = LENGTHS if batch else None
    hidden = model(feed(ROWS if batch else IDS), None, lengths)
    return [hidden, model.classify(hidden, lengths), Rows(lengths or [len(IDS)]).sum(hidden)]


@pytest.mark.parametrize("batch", [False, True], ids=["alone", "batch"])
@pytest.mark.parametrize(
    ("write", "run"),
    [(tiny.llama, steps), (tiny.gpt2, steps), (tiny.classifier, classes)],
    ids=["llama", "gpt2", "classifier"],
)
def test_shares_are_near_tensors(
    write: Callable[..., Path], run: Callable[..., list[Any]], batch: bool, tmp_path: Path
) -> None:
    checkpoint, model = open_model(write(tmp_path))
    config, params = checkpoint.config, checkpoint.fold()

    def secure(party: Party) -> list[Any]:
        shares = {name: given(party, tensor, RING, WEIGHT, name) for name, tensor in params.items()}
        answers = run(
            architecture(config).model(config, shares),
            lambda ids: given(party, one_hot(ids, config.vocab_size), RESIDUAL_RING, 0, f"rows {ids}"),
            batch,
        )
        return party.run(formatted(*((answer, ACTIVATION, RING) for answer in answers)))

    expected = run(model, lambda ids: one_hot(ids, config.vocab_size), batch)
    results = parties(secure)
    for i, tensor in enumerate(expected):
        assert_close(value([result[i] for result in results]).float(), tensor, atol=0.01, rtol=0)


def test_projections_are_opened_together() -> None:
    """Though of one, as of the queries of a last layer, only some rows are wanted."""

    def rounds(party: Party) -> int:
        x = given(party, torch.ones(3, 8), RING, ACTIVATION)
        weights = [given(party, torch.eye(8), RING, WEIGHT, name) for name in "qkv"]
        q, k, v = F.heads(*(F.linear(x[i:], weight) for i, weight in enumerate(weights)), 4)
        assert [tuple(part.shape) for part in (q, k, v)] == [(3, 2, 4), (2, 2, 4), (1, 2, 4)]
        return party.ledger.total().rounds

    assert parties(rounds) == [0, 2, 2]  # one opening and one lift, as for a single projection

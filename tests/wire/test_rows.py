"""Rows of a public table tell each party nothing: whoever saw one in the clear would read the prompt off it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from puma import kernels
from puma.errors import InputError, ProtocolError, UsageError
from puma.models import in_the_open, inputs
from puma.models.config import Bert, Llama
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.public import LookedUp
from puma.wire import rows
from puma.wire.input_share import Flagged, InputShare, Laid, Seeds
from puma.wire.inputs import laid_out, looked_up, payload_bytes, seeds_for, share_input
from puma.wire.messages import Input
from tests.cases import coins
from tests.view import Seen, findings
from tests.wire.test_input_shares import RANKS, words_of

TABLE = torch.tensor([[5, -7], [1 << 20, 3], [0, -(1 << 30)]])
LLAMA = Llama(vocab_size=3, hidden_size=2, intermediate_size=4, layers=1, heads=1)


def received(share: InputShare, of: int, count: int, flags: int = 0) -> LookedUp | Flagged:
    return rows.receive_input(Party(of, {}, {}), share, count, TABLE.shape[1], flags)


def words(found: LookedUp) -> torch.Tensor:
    return kernels.reduce(found.rows.part.contiguous(), rows.RING)


def test_rows_of_one_prompt_are_hidden_with_their_flags() -> None:
    """The view of a party: its part of each row, and its flags. All of it is uniform together."""
    secret = coins(800, seed=5)
    shares = rows.share_input(TABLE[secret], 2, flags=secret.tolist())
    for of in RANKS:
        made = received(shares[of], of, len(secret), len(secret))
        assert isinstance(made, Flagged) and isinstance(made.rows, LookedUp)
        view = [part._replace(name="flag") for part in words_of(made.flags)]
        if of != DEALER:
            part = words(made.rows)
            bits = (part.numpy()[..., None] >> np.arange(rows.RING)) & 1
            view.append(Seen("rows", bits.reshape(len(part), -1).astype(np.int8), part.numpy(), rows.RING))
        assert findings(view, secret.numpy().astype(np.int8), weights=(1, 2)) == [], f"P{of}"


def test_a_token_that_comes_twice_does_not_show() -> None:
    """The evaluators' parts of equal rows differ, and so do those of one prompt that is sent again."""
    again = [rows.share_input(TABLE[[1, 1, 1]], 2) for _ in range(2)]
    for of in (FIRST, SECOND):
        parts = torch.cat([words(received(shares[of], of, 3)) for shares in again])  # type: ignore[arg-type]
        assert len({tuple(row) for row in parts.tolist()}) == len(parts)


def test_what_the_evaluators_hold_adds_up_to_the_rows() -> None:
    ids = torch.tensor([2, 0, 2, 1])
    shares = rows.share_input(TABLE[ids], 2)
    parts = [received(shares[of], of, 4) for of in RANKS]
    assert all(isinstance(part, LookedUp) and not part.rows.dealt for part in parts)
    total = parts[1].rows.part + parts[2].rows.part  # type: ignore[union-attr]
    assert torch.equal(kernels.signed(total, rows.RING), TABLE[ids])


def test_nobody_is_sent_what_would_take_the_masks_off() -> None:
    """The masks are those of a seed that P1 lacks; whoever has the seed is sent no row."""
    zero, one, two = rows.share_input(TABLE, 2, flags=[1, 0, 1])
    assert zero.payload.numel() == 0 and two.payload.numel() == payload_of_flags(3)
    assert one.payload.numel() > two.payload.numel() and set(one.masks).isdisjoint(two.masks)
    assert zero.masks == [*one.masks, *two.masks] and not (zero.choices or one.choices or two.choices)
    for of in RANKS:
        assert rows.payload_bytes(of, 3, 2, 3) == (zero, one, two)[of].payload.numel()


def payload_of_flags(count: int) -> int:
    return (count * rows.FLAG_RING + 7) // 8


def test_a_seed_too_many_is_refused() -> None:
    share = rows.share_input(TABLE, 2)[FIRST]
    with pytest.raises(ProtocolError, match="seeds, not its own"):
        received(InputShare(share.masks * 2, [], share.payload), FIRST, 3)


def test_rows_of_another_width_or_kind_are_refused() -> None:
    for wrong in (TABLE[0], TABLE[:, :1], TABLE.double()):
        with pytest.raises(InputError, match="not rows of 2 numbers"):
            rows.share_input(wrong, 2)


class Table:
    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        return TABLE[ids]


def test_the_config_says_how_tokens_travel() -> None:
    """Choices of rows to parties that hold a secret table; rows, looked up, to those that hold a public one."""
    laid, config = laid_out(LLAMA, [[2, 1]]), in_the_open(LLAMA)
    assert inputs(config).row == 2 and inputs(LLAMA).row == 0 and in_the_open(config, False) == LLAMA
    assert looked_up(LLAMA, laid, None) is laid
    found = looked_up(config, laid_out(config, [[2, 1]]), Table())
    assert torch.equal(found.rows, TABLE[[2, 1]])
    with pytest.raises(UsageError, match="its table of embeddings is not here"):
        looked_up(config, laid, None)
    job = Input([2], [])
    for each, given in ((LLAMA, laid), (config, found)):
        sent = [share.payload.numel() for share in share_input(each, Laid(given.lengths, given.rows))]
        assert sent == [payload_bytes(each, rank, job) for rank in RANKS]
    seeds = Seeds.fresh()
    assert seeds_for(config, seeds, FIRST) == (seeds.masks[:1], []) and seeds_for(LLAMA, seeds, FIRST)[1]


def test_a_table_narrower_than_the_model_has_rows_of_its_own_width() -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2}
    narrow = Bert(**sizes, embedding_size=4, projected=True)
    assert inputs(in_the_open(narrow)).row == 4

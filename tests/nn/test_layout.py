"""How rows of several prompts lie: padded and back, who sees whom, and where a row stands in its prompt."""

from __future__ import annotations

import pytest
import torch

from puma.mpc.party import Party
from puma.nn.layout import Layout, Rows
from tests.cases import sample
from tests.trio import dry, given, given_additive, parties, value


@pytest.mark.parametrize("lengths", [[1], [4], [2, 2], [3, 1, 4], [1, 1, 1]])
def test_padding_is_zeros_on_the_left(lengths: list[int]) -> None:
    rows = Rows(lengths)
    x = sample(sum(lengths), 3, 2)
    padded = rows.pad(x)
    for prompt, part in zip(padded, x.split(lengths), strict=True):
        assert torch.equal(prompt[:, rows.longest - len(part) :], part.transpose(0, 1))
        assert not prompt[:, : rows.longest - len(part)].any()
    assert torch.equal(rows.unpad(padded), x.reshape(-1, 6))
    assert torch.equal(x[rows.ends], torch.stack([part[-1] for part in x.split(lengths)]))
    assert torch.equal(x[rows.starts], torch.stack([part[0] for part in x.split(lengths)]))


def test_secrets_are_padded_with_public_zeros() -> None:
    rows, x = Rows([3, 1]), sample(4, 2, 5)

    def compute(party: Party) -> list:
        share = given(party, x, 48, 20)
        product = given_additive(party, x, 48, 20).sum(1)
        back = rows.unpad(rows.pad(share)).reshape(4, 2, 5)
        assert tuple(rows.sum(product).shape) == (2, 5)
        return [rows.pad(share), back, rows.sum(share.sum(1))]

    padded, back, sums = zip(*parties(compute), strict=True)
    assert all(not component[1, :, :2].any() for share in padded for component in share.components)
    assert (value(list(back)) - x).abs().max() < 1e-5
    exact = torch.stack([part.sum((0, 1)) for part in x.split([3, 1])])
    assert (value(list(sums)) - exact).abs().max() < 1e-4
    assert all(share.party.dry for _, share, _ in map(compute, dry()))


def test_a_causal_prompt_alone() -> None:
    at = Layout([3])
    assert torch.equal(at.mask[0], torch.ones(3, 3).tril().bool())
    later = Layout([2], at.held)
    assert torch.equal(later.mask[0], torch.ones(2, 5).bool().tril(3))
    assert later.positions.tolist() == [3, 4]
    assert later.asking(later.positions) is later.positions


def test_who_sees_whom_in_a_batch() -> None:
    """Two prompts, of one and three tokens; then a new token of each."""
    at = Layout([1, 3])
    own = torch.eye(3).bool()
    assert torch.equal(at.mask[0], own)
    assert torch.equal(at.mask[1], torch.ones(3, 3).tril().bool())
    assert at.positions.tolist() == [0, 0, 1, 2]
    later = Layout([1, 1], at.held)
    assert later.mask.int().tolist() == [[[0, 0, 1, 1]], [[1, 1, 1, 1]]]
    assert later.positions.tolist() == [1, 3]
    both = Layout([1, 3], causal=False)
    assert torch.equal(both.mask[0], own) and both.mask[1].all()


def test_only_last_rows_ask_in_the_end() -> None:
    at = Layout([2, 3])
    end = at.ending()
    assert end.mask.int().tolist() == [[[0, 1, 1]], [[1, 1, 1]]]
    assert end.asking(torch.arange(5)).tolist() == [1, 4]
    assert end.queries.lengths == (1, 1) and end.rows is at.rows
    one = Layout([1, 1], at.held)
    assert one.ending() is one


@pytest.mark.parametrize("lengths", [[5], [7, 2, 4], [1, 1]])
@pytest.mark.parametrize("held", [0, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_what_a_mask_allows_is_known_without_it(lengths: list[int], held: int, causal: bool) -> None:
    earlier = torch.ones(len(lengths), held, dtype=torch.bool)
    if held:
        earlier[-1, 0] = False
    at = Layout(lengths, earlier, causal=causal)
    found = [at, at.ending(), at.within(2), at.within(3, both=True), at.across(Rows([4] * len(lengths)))]
    found += [at.within(2).ending(), at.ending().within(4)]
    for layout in found:
        counted = layout.allowed
        assert counted == int(layout.mask.sum()) and layout.allowed == counted
    assert "mask" not in vars(Layout(lengths, earlier, causal=causal).ending())

"""Rows of a shared table by an index that an outsider knows and no party does: retrieval from two copies.

Each component of the table lies at two parties. The outsider gives one of them random bits (a seed) and the other the
same bits with one flipped at the wanted row; the difference of their sums of chosen rows is that row, up to a sign. The
outsider knows the three signs and shares them, so a product puts them right. Per row the outsider sends three bits a
table row instead of two words, and the parties need no one-hot vector. This file must not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.mpc import clear_forms as clear
from puma.mpc.arithmetic import multiply, opening_cost, reshare
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import Cost, Size, declares
from puma.mpc.party import DEALER, FIRST, Party, Protocol
from puma.mpc.seeded import accumulate, in_blocks
from puma.mpc.share import Additive, Secret, Share, cat

COMPONENTS = 3  # m, l1 and l2, in this order


def choice_bytes(rows: int) -> int:
    """Bytes of one choice among so many rows."""
    return (rows + 7) // 8


class Choice(Secret):
    """Rows chosen by an outsider: this party's bits for its two components, and the signs (n, 3) as a Share.

    Bits are (n, choice_bytes(size)), lowest first: for (l1, l2) at the dealer, (m, l1) at P1 and (m, l2) at P2.
    """

    def __init__(self, party: Party, bits: tuple[Tensor, Tensor], signs: Share, size: int) -> None:
        self.party, self.bits, self.signs, self.size = party, bits, signs, size

    def __repr__(self) -> str:
        return f"Choice(shape={tuple(self.shape)})"

    @property
    def shape(self) -> torch.Size:
        """That of the one-hot rows it stands for: (n, size)."""
        return torch.Size((self.bits[0].shape[0], self.size))

    def __getitem__(self, rows: slice) -> Choice:
        """Some of the rows."""
        return Choice(self.party, (self.bits[0][rows], self.bits[1][rows]), self.signs[rows], self.size)

    def joined(self, others: Sequence[Choice]) -> Choice:
        """With the rows of others, chosen from the same table, below."""
        every = [self, *others]
        a, b = (torch.cat([choice.bits[i] for choice in every]) for i in (0, 1))
        return Choice(self.party, (a, b), cat([choice.signs for choice in every], 0), self.size)


class Mixed(Secret):
    """One-hot rows that are known in two ways: some by what an outsider chose, some as shares that nobody has opened.

    `order` (n,) says where each row stands among the chosen ones and those behind them.
    """

    def __init__(self, chosen: Secret, hot: Share | Additive, order: Tensor) -> None:
        self.party, self.chosen, self.hot, self.order = hot.party, chosen, hot, order

    def __repr__(self) -> str:
        return f"Mixed(shape={tuple(self.shape)})"

    @property
    def shape(self) -> torch.Size:
        """That of all rows: (n, size)."""
        return torch.Size((len(self.order), self.hot.shape[1]))

    def looked_up(self, chosen: Share | Additive, hot: Share | Additive) -> Share | Additive:
        """The rows of a table in their order, from those of both kinds; local."""
        if isinstance(chosen, Additive) and isinstance(hot, Additive):
            dealt, bits = chosen.dealt or hot.dealt, min(chosen.bits, hot.bits)  # who deals nothing has zeros
            first, *rest = (Additive(x.party, x.part, bits, x.frac, dealt) for x in (chosen, hot))
            return first.joined(rest)[self.order]
        return cat([chosen, hot], 0)[self.order]  # type: ignore[list-item]


def _sums(choice: Choice, table: Share) -> list[Tensor]:
    """Of each component the sums of the rows that its bits choose."""
    (n, size), d = choice.shape, table.shape[1]
    chosen = [kernels.unpack_bits(b.reshape(-1), (n, 8 * b.shape[1]))[:, :size] for b in choice.bits]
    if not in_blocks(table):
        return [kernels.matmul(c, t, choice.signs.bits) for c, t in zip(chosen, table.components, strict=True)]
    sums = [c.new_zeros((n, d)) for c in chosen]
    accumulate(table, kernels.chosen_packed, [(chosen[0], (1, 0), sums[0]), (chosen[1], (0, 1), sums[1])])
    return sums


def retrieve_cost(choice: Choice, table: Share | Size) -> Cost:
    """The cost of `retrieve`."""
    n, d = choice.shape[0], table.shape[1]
    parts = [Size((n, d), choice.signs.bits, 0, dealt) for dealt in (False, True, True)]
    return opening_cost(*parts)


@declares("online 6k, offline 2k; 1 round", "section 6", retrieve_cost)
@in_clear(clear.retrieve)
def retrieve(choice: Choice, table: Share) -> Protocol[Additive]:
    """The chosen rows (n, d) of a table (size, d) in the ring of the signs; one round.

    For each component c the two holders' sums differ by s_c c[row]; reshared and multiplied by the shared sign. Source:
    private retrieval from two copies (Chor et al. 1995); distributed point functions (Boyle et al. 2015) would shorten
    the bits.
    Safe: a holder's bits are uniform by themselves, and what the evaluators send is padded as in reshare.
    """
    party, ring = choice.party, choice.signs.bits
    a, b = _sums(choice, table)
    zero = party.nothing(a.shape)
    if party.rank == DEALER:
        parts = (zero, a, b)
    elif party.rank == FIRST:
        parts = (a, -b, torch.zeros_like(a))
    else:
        parts = (-a, torch.zeros_like(a), -b)
    dealt = (False, True, True)
    rows = yield from reshare(*(Additive(party, p, ring, table.frac, d) for p, d in zip(parts, dealt, strict=True)))
    m, l1, l2 = (multiply(row, choice.signs[:, i : i + 1]) for i, row in enumerate(rows))
    return m - l1 - l2

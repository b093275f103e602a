"""Lines that were looked up, one for each element, and what selects among them: products of three secret factors that
are local, of words that the dealer deals.

Section 5 of docs/protocol.md. This file must not know which function the lines are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from puma.mpc.arithmetic import deal
from puma.mpc.boolean import MaskedBit, coefficients, mask_products
from puma.mpc.lookup import Digit, column, line, line_masks
from puma.mpc.share import Additive, Share


@dataclass(frozen=True)
class Lines:
    """The line of each element, looked up: s E and s B open to the evaluators under masks, s the one-hot's sign.

    The offset is u = mu - lu, with E = A + B mu already: f = E - lu B is a product with words that the dealer knows.
    """

    bits: int
    frac: int
    index: Digit
    e: Share
    b: Share
    offset: Tensor

    def weighted(self, bits: MaskedBit, weights: Sequence[int]) -> Additive:
        """(E - lu B) times the sum of w b, over public weights w and the bits b of a first dimension; local.

        A bit open as v = b ^ rho is v + (1 - 2v) rho, so s lu and s (lu lB - lE) are dealt, and these and s times each
        rho; of s itself the evaluators have parts.
        """
        party, shape, ring = self.e.party, tuple(self.e.shape), self.bits
        dealt = (3 * len(weights) + 2, *shape)
        if party.is_dealer:
            sign = self.index.sign()
            words = line_masks(sign, self.offset, self.e.components, self.b.components, bits.word[0])
            if len(weights) > 1:
                more = bits.word[1:].unsqueeze(1) * torch.stack([sign, words[0], words[1]])
                words = torch.cat([words, more.reshape(-1, *shape)])
            deal(party, words, dealt, ring)
            return self._of(party.nothing(shape))
        if list(weights) == [1]:
            return self._of(line(deal(party, None, dealt, ring), self._sign, bits.word[0], self.e.m, self.b.m))
        dealt_words, v = self._completed(deal(party, None, dealt, ring), self._sign), bits.word
        factors = column(tuple(weights), v.ndim - 1, v.device)
        masked = ((1 - 2 * v) * factors).unsqueeze(1) * dealt_words[1:]
        s, s_lu, rest = dealt_words[0] * (v * factors).sum(0) + masked.sum(0)
        return self._of(s * self.e.m - s_lu * self.b.m + rest)

    def chosen(self, factors: Sequence[Sequence[MaskedBit]], weights: Sequence[int]) -> Additive:
        """The sum over a first dimension of w (E - lu B) where all bits of its place are set; local. All three words
        are dealt times each product of the masks of those bits, and all but s without."""
        party, shape = self.e.party, tuple(self.e.shape[1:])
        words, total = self._words() if party.is_dealer else None, party.nothing(shape)
        for i, (bits, weight) in enumerate(zip(factors, weights, strict=True)):
            three = self._where(bits, words[:, i] if words is not None else self._sign[i], shape)
            if three is not None:
                total = total + (three[0] * self.e.m[i] - three[1] * self.b.m[i] + three[2]) * weight
        return self._of(total)

    def within(self, bits: Sequence[MaskedBit]) -> Additive:
        """E - lu B where all of these bits are set, else 0; dealt as for `chosen`."""
        party, shape = self.e.party, tuple(self.e.shape)
        three = self._where(bits, self._words() if party.is_dealer else self._sign, shape)
        return self._of(party.nothing(shape) if three is None else three[0] * self.e.m - three[1] * self.b.m + three[2])

    def _where(self, bits: Sequence[MaskedBit], own: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """At an evaluator its part of the three words times all bits; the dealer deals. Its `own` are the three words,
        an evaluator's its part of s."""
        party, dealt = self.e.party, (3 * (1 << len(bits)) - 1, *shape)
        if party.is_dealer:
            _, *products = mask_products(bits)
            each = torch.stack([p.expand(shape) for p in products]).unsqueeze(1) * own
            deal(party, torch.cat([own[1:], each.reshape(-1, *shape)]), dealt, self.bits)
            return None
        each = zip(coefficients(bits), self._completed(deal(party, None, dealt, self.bits), own), strict=True)
        return sum((c * three for c, three in each), start=party.nothing((3, *shape)))

    def _words(self) -> Tensor:
        """What the dealer deals of each line."""
        s, lu = self.index.sign(), self.offset
        return torch.stack([s, s * lu, s * (lu * self.b.mask - self.e.mask)])

    @cached_property
    def _sign(self) -> Tensor:
        """An evaluator's part of s."""
        return self.index.signed()

    def _completed(self, dealt: Tensor, sign: Tensor) -> Tensor:
        """What was dealt, in threes, with the part of s before it."""
        return torch.cat([sign.unsqueeze(0), dealt]).reshape(-1, 3, *sign.shape)

    def _of(self, part: Tensor) -> Additive:
        return Additive(self.e.party, part, self.bits, self.frac, dealt=False)

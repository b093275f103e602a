"""Parameters that everybody knows, and what an outsider looks up in one by itself.

A product with a public matrix W is linear in what it multiplies: x W = (m - l1) W - l2 W. P1 computes the first part,
P2 the second, which depends on masks alone, and P0 nothing: there is no correction, and nothing is drawn for W. What
comes of it is a secret like any other product; that W is known makes it worth the more that none is ever opened but
under pads. This file must not know which model a parameter belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from puma import kernels
from puma.kernels import mapped as mapped
from puma.kernels.shapes import broadcast
from puma.kernels.stored import KINDS as KINDS  # which numbers there can be, for those who know no kernel
from puma.kernels.stored import Stored
from puma.kernels.stored import bytes_of as bytes_of
from puma.kernels.stored import fits as fits
from puma.mpc.party import FIRST, SECOND, Party
from puma.mpc.share import Additive, Secret, Share

SMALL = 1 << 18  # numbers of which the words are kept once they are made; a larger matrix is spread at each use

Kernel = Callable[[Tensor, Stored, int, int, Tensor], Tensor]


class Public(Share):
    """A parameter of this shape that the evaluators hold as it is, under no masks; the dealer holds nothing.

    Where its owner's kind does not matter it is a share like any other, whose masks are zero. `matrix` are its rows as
    they lie in a file, None at the dealer and in a dry run; or its `words` are given. `touch` is called each time
    before it is read.
    """

    def __init__(
        self, party: Party, shape: Sequence[int], bits: int, frac: int, matrix: Stored | None = None,
        words: Tensor | None = None, touch: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        empty = party.nothing(shape)
        super().__init__(party, empty, empty, bits, frac)
        self._matrix, self._words, self._touch = matrix, words, touch

    def __repr__(self) -> str:
        return f"Public(shape={tuple(self.shape)}, bits={self.bits}, frac={self.frac})"

    @property
    def known(self) -> bool:
        """Whether this party holds it: not the dealer, who needs none, nor a party of a dry run."""
        return self._matrix is not None or self._words is not None

    @property
    def words(self) -> Tensor:
        """All of it as words; those of small ones are kept."""
        if self._words is not None or self._matrix is None:
            return self._a if self._words is None else self._words
        if self._touch is not None:
            self._touch()
        words = kernels.spread(self._matrix, self.frac).reshape(self.shape)
        if words.numel() <= SMALL:
            self._words = words
        return words

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """m is the parameter itself, and masks are zeros."""
        return self.words, self._b

    def apply(self, function: Callable[[Tensor], Tensor]) -> Public:
        if self.known:
            return self._of(function(self.words))
        return Public(self.party, function(self._a).shape, self.bits, self.frac)

    def __getitem__(self, index: Any) -> Public:
        """Rows of a matrix are spread alone."""
        if self._words is None and self._matrix is not None and self.ndim == 2:
            if self._touch is not None:
                self._touch()
            if isinstance(index, slice) and cast("slice[Any, Any, Any]", index).step in (None, 1):
                first, stop, _ = cast("slice[Any, Any, Any]", index).indices(self.shape[0])
                return self._of(kernels.spread(self._matrix.part(first, max(first, stop)), self.frac))
            if isinstance(index, Tensor) and index.dtype == torch.int64:
                words = kernels.spread(self._matrix.chosen(index.reshape(-1)), self.frac)
                return self._of(words.reshape(*index.shape, -1))
        return self.apply(lambda t: t[index])

    def _of(self, words: Tensor) -> Public:
        return Public(self.party, words.shape, self.bits, self.frac, words=words)

    def truncated(self, shift: int) -> Public:
        """With so many fraction bits less, each number rounded to nearest: nothing is lost to masks."""
        words = (self.words + (1 << (shift - 1))) >> shift if self.known and shift else self._words
        return Public(self.party, self.shape, self.bits - shift, self.frac - shift, words=words)

    def reduced(self, bits: int) -> Public:
        """The same value in a smaller ring."""
        assert bits <= self.bits
        return Public(self.party, self.shape, bits, self.frac, self._matrix, self._words, self._touch)

    def product(self, left: Tensor, kernel: Kernel, columns: int, bits: int, more: Tensor | None = None) -> Tensor:
        """Rows (..., k) times it (..., columns), by `linear_stored` or `matmul_stored`, and to each row `more`
        (columns,)."""
        rows = left.reshape(-1, left.shape[-1])
        shape = (rows.shape[0], columns)
        out = rows.new_zeros(shape) if more is None else more.expand(shape).clone(memory_format=torch.contiguous_format)
        if self._words is not None or self._matrix is None:
            flat = self.words if kernel is kernels.matmul_stored else self.words.transpose(-1, -2)
            kernels.matmul(rows, flat, bits, out=out)
        else:
            if self._touch is not None:
                self._touch()
            kernel(rows, self._matrix, self.frac, bits, out)
        return out.reshape(*left.shape[:-1], columns)


class LookedUp(Secret):
    """Rows of a public table (n, d) that an outsider has looked up and shared: the parties retrieve nothing."""

    def __init__(self, rows: Additive) -> None:
        self.party, self.rows = rows.party, rows

    def __repr__(self) -> str:
        return f"LookedUp(shape={tuple(self.shape)})"

    @property
    def shape(self) -> torch.Size:
        return self.rows.shape

    def __getitem__(self, rows: slice) -> LookedUp:
        """Some of the rows."""
        return LookedUp(self.rows[rows])

    def joined(self, others: Sequence[LookedUp]) -> LookedUp:
        """With the rows of others below."""
        return LookedUp(self.rows.joined([other.rows for other in others]))


def own_part(x: Share | Additive, multiply: Callable[[Tensor], Tensor], shape: tuple[int, ...], bits: int) -> Tensor:
    """This party's part of a product that is linear in x: what `multiply` makes of its part of x.

    P1: of m - l1.  P2: of -l2, which depends on no input and can be made ahead.  P0: nothing. In a rehearsal the second
    evaluator makes and writes down its part, and the first, of whose part nothing is known yet, makes none; nor does
    either of an untruncated sum, of which both have a part that nobody knows yet.
    """
    party, ahead = x.party, x.party.precomputed
    rehearsing = ahead is not None and ahead.rehearsing
    if isinstance(x, Additive):
        assert not x.dealt, "the dealer's part of a product cannot be multiplied: it knows no parameter"
        return party.nothing(shape) if party.is_dealer or party.dry or rehearsing else multiply(x.part)
    if party.is_dealer or party.dry:
        return party.nothing(shape)
    if party.rank == FIRST:
        return x.m.new_zeros(shape) if rehearsing else multiply(x.m - x.mask)
    assert party.rank == SECOND
    if ahead is None:
        return multiply(-x.mask)
    return ahead.known(lambda: multiply(-x.mask), shape, bits)


def linear(x: Share | Additive, weight: Public, bias: Public | None = None) -> Additive:
    """x @ weight^T + bias for a matrix (out, in); local. P1's part begins with the bias, which costs nothing then."""
    shape, bits, frac = (*x.shape[:-1], weight.shape[0]), min(x.bits, weight.bits), x.frac + weight.frac
    if bias is not None and (bias.frac > frac or bias.shape != shape[-1:]):
        return linear(x, weight) + bias
    more = bias.words << (frac - bias.frac) if bias is not None and bias.known and x.party.rank == FIRST else None
    part = own_part(x, lambda t: weight.product(t, kernels.linear_stored, shape[-1], bits, more), shape, bits)
    bits = bits if bias is None else min(bits, bias.bits + frac - bias.frac)
    return Additive(x.party, part, bits, frac, dealt=False)


def matmul(x: Share | Additive, weight: Public) -> Additive:
    """x (..., n, k) @ weight (..., k, m), of which the weight may be a stack of matrices; local."""
    bits = min(x.bits, weight.bits)
    lead = broadcast(x.shape[:-2], weight.shape[:-2])
    shape = (*lead, x.shape[-2], weight.shape[-1])

    def multiply(t: Tensor) -> Tensor:
        if weight.ndim == 2:
            return weight.product(t, kernels.matmul_stored, shape[-1], bits)
        return kernels.matmul(t, weight.words, bits)

    return Additive(x.party, own_part(x, multiply, shape, bits), bits, x.frac + weight.frac, dealt=False)


def multiply(x: Share, factor: Public) -> Additive:
    """Elementwise, broadcasting; local."""
    part = x.additive().part  # a product so small is made when it is wanted
    shape = broadcast(x.shape, factor.shape)
    part = x.party.nothing(shape) if x.party.is_dealer or x.party.dry else part * factor.words
    return Additive(x.party, part, min(x.bits, factor.bits), x.frac + factor.frac, dealt=False)

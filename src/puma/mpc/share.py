"""The three ways a secret lies with the parties: Share, Additive and Bits.

A Share reads replicated sharing as a masked value, x = m - l1 - l2 (mod 2^bits): P0 holds l1 and l2, P1 holds m and l1,
P2 holds m and l2. An Additive is the untruncated result of a product, z = z0 + z1 + z2 with one part each; P0's part
is dealt when it is opened. Bits are xor-shared between P1 and P2. Linear operations are local on each of them.
No value here may steer control flow, so conversions to bool, int and float raise, and repr shows shapes only.
This file must not know protocols: nothing in it sends or draws.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast, overload

import torch
from torch import Tensor

from puma.kernels import pack_bits, unpack_bits, wordwise
from puma.kernels.shapes import broadcast
from puma.mpc.party import DEALER, FIRST, Party

Number = int | float


class Secret:
    """What all secrets have in common: a shape, and no way to look inside.

    No abc.ABC: whether something is of a kind is asked many times a round, and of these that takes ten times as long.
    """

    party: Party

    def __bool__(self) -> bool:
        raise TypeError("a secret cannot decide control flow")

    def __int__(self) -> int:
        raise TypeError("a secret has no public value; only reveal shows one")

    __float__ = __index__ = __int__  # type: ignore[assignment]

    def __iter__(self) -> Any:
        raise TypeError("a secret cannot be iterated; index it instead")

    __array__ = __iter__

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Public, as everything but the words."""
        ...

    @property
    def device(self) -> torch.device:
        """Where this party holds it."""
        return self.party.device

    @property
    def ndim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """How many elements."""
        return self.shape.numel()


class Tensorial(Secret):
    """A secret whose elements can be moved about like a tensor's."""

    @abstractmethod
    def apply(self, function: Callable[[Tensor], Tensor]) -> Any:
        """The same secret with `function`, which must be linear and move words only, on each component."""

    def reshape(self, *shape: int) -> Any:
        """As a tensor's; local."""
        return self.apply(lambda t: t.reshape(*shape))

    def transpose(self, a: int, b: int) -> Any:
        """As a tensor's; local."""
        return self.apply(lambda t: t.transpose(a, b))

    def expand(self, *shape: int) -> Any:
        """As a tensor's; local."""
        return self.apply(lambda t: t.expand(*shape))

    def unsqueeze(self, dim: int) -> Any:
        """As a tensor's; local."""
        return self.apply(lambda t: t.unsqueeze(dim))

    def __getitem__(self, index: Any) -> Any:
        return self.apply(lambda t: t[index])


class Share(Tensorial):
    """x = m - l1 - l2 mod 2^bits, value = signed(x) / 2^frac. Components: (l1, l2), (m, l1) or (m, l2) by rank."""

    def __init__(self, party: Party, a: Tensor, b: Tensor, bits: int, frac: int) -> None:
        self.party, self._a, self._b, self.bits, self.frac = party, a, b, bits, frac

    def __repr__(self) -> str:
        return f"Share(shape={tuple(self.shape)}, bits={self.bits}, frac={self.frac})"

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """(l1, l2) at P0, (m, l1) at P1, (m, l2) at P2; int64 words of which the low `bits` count."""
        return self._a, self._b

    @property
    def shape(self) -> torch.Size:
        return self._a.shape

    @property
    def m(self) -> Tensor:
        """The masked value (evaluators only)."""
        assert self.party.rank != DEALER
        return self.components[0]

    @property
    def mask(self) -> Tensor:
        """l1 + l2 at the dealer, the evaluator's own half elsewhere."""
        a, b = self.components
        return wordwise("add", a, b) if self.party.is_dealer else b

    def like(self, a: Tensor, b: Tensor, bits: int | None = None, frac: int | None = None) -> Share:
        """Other words of the same party, in the same ring and fraction unless others are given."""
        bits = self.bits if bits is None else bits
        return Share(self.party, a, b, bits, self.frac if frac is None else frac)

    def apply(self, function: Callable[[Tensor], Tensor]) -> Share:
        a, b = self.components
        return self.like(function(a), function(b))

    def shifted(self, constant: Tensor | Number) -> Share:
        """Add a public constant, in units of the last place: to m alone."""
        a, b = self.components
        if self.party.is_dealer:
            shape = broadcast(a.shape, constant.shape) if isinstance(constant, Tensor) else a.shape
            return self if shape == a.shape else self.like(a.expand(shape), b.expand(shape))
        return self.like(a + constant, b if not isinstance(constant, Tensor) else b.expand_as(a + constant))

    def scaled(self, shift: int) -> Share:
        """The same value with `shift` more fraction bits; the ring grows with it, at no cost."""
        a, b = self.components
        bits = min(64, self.bits + shift)
        return self.like(a << shift, b << shift, bits, self.frac + shift)

    def times(self, constant: Tensor | int, frac: int = 0) -> Share:
        """Multiply by public integer words that stand for constant / 2^frac."""
        a, b = self.components
        return self.like(a * constant, b * constant, frac=self.frac + frac)

    def reduced(self, bits: int) -> Share:
        """The same value in a smaller ring."""
        assert bits <= self.bits
        if bits == self.bits and type(self) is Share:
            return self
        return self.like(*self.components, bits=bits)

    def settled(self) -> Share:
        """What a computation goes on with once this has been looked at: for shares, themselves."""
        return self

    def sum(self, dim: int, keepdim: bool = False) -> Share:
        """The sum along a dimension; local. It must fit into the ring."""
        return self.apply(lambda t: t.sum(dim, keepdim=keepdim))

    def additive(self) -> Additive:
        """P1: m - l1, P2: -l2; nothing at the dealer."""
        a, b = self.components
        if self.party.is_dealer:
            return Additive(self.party, self.party.nothing(a.shape), self.bits, self.frac, dealt=False)
        part = wordwise("sub", a, b) if self.party.rank == FIRST else wordwise("neg", b)
        return Additive(self.party, part, self.bits, self.frac, dealt=False)

    def __neg__(self) -> Share:
        return self.apply(torch.neg)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Additive):
            return other + self
        if isinstance(other, Share):
            x, y = aligned(self, other)
            (a, b), (c, d) = x.components, y.components
            return x.like(wordwise("add", a, c), wordwise("add", b, d), bits=min(x.bits, y.bits))
        return self.shifted(encode(cast("Tensor | Number", other), self.frac, self.device))

    def __sub__(self, other: Any) -> Any:
        if type(self) is type(other) is Share:  # other kinds of shares have a sum and a negative of their own
            x, y = aligned(self, other)
            (a, b), (c, d) = x.components, y.components
            return x.like(wordwise("sub", a, c), wordwise("sub", b, d), bits=min(x.bits, y.bits))
        if isinstance(other, Secret):
            return self + (-other)  # type: ignore[operator]
        return self.shifted(-encode(cast("Tensor | Number", other), self.frac, self.device))

    __radd__ = __add__


class Additive(Tensorial):
    """z = z0 + z1 + z2 mod 2^bits, one part a party. `dealt` says, publicly, whether the dealer has a part.

    Shares made from it are remembered by fraction and ring bits, so that one value is never opened twice alike.
    `unproven`: nobody has proven that what is opened of it can be lifted, so that is watched.
    """

    unproven = False

    def __init__(self, party: Party, part: Tensor, bits: int, frac: int, dealt: bool) -> None:
        self.party, self.part, self.bits, self.frac, self.dealt = party, part, bits, frac, dealt
        self.opened: dict[tuple[int, int], Share] = {}

    def __repr__(self) -> str:
        return f"Additive(shape={tuple(self.shape)}, bits={self.bits}, frac={self.frac})"

    @property
    def shape(self) -> torch.Size:
        return self.part.shape

    @property
    def silent(self) -> bool:
        """Whether this party's part is an implied zero (a dealer without a part)."""
        return self.party.is_dealer and not self.dealt

    def like(self, part: Tensor, bits: int | None = None, frac: int | None = None) -> Additive:
        """Another part of the same party, in the same ring and fraction unless others are given."""
        bits = self.bits if bits is None else bits
        return Additive(self.party, part, bits, self.frac if frac is None else frac, self.dealt)

    def joined(self, others: Sequence[Additive]) -> Additive:
        """With the rows of others, of the same format, below."""
        every = [self, *others]
        if any((x.bits, x.frac, x.dealt) != (self.bits, self.frac, self.dealt) for x in others):
            raise ValueError("only products of one ring and fraction can be joined")
        return self.like(torch.cat([x.part for x in every]))

    def apply(self, function: Callable[[Tensor], Tensor]) -> Additive:
        return self.like(function(self.part))

    def scaled(self, shift: int) -> Additive:
        """The same value with `shift` more fraction bits; the ring grows with it, at no cost."""
        part = self.part if self.silent else self.part << shift
        return self.like(part, min(64, self.bits + shift), self.frac + shift)

    def times(self, constant: Tensor | int, frac: int = 0) -> Additive:
        """Multiply by public integer words that stand for constant / 2^frac."""
        if self.silent:
            shape = self.shape
            if isinstance(constant, Tensor):
                shape = broadcast(shape, constant.shape)
            return self.like(self.part.expand(shape), frac=self.frac + frac)
        return self.like(self.part * constant, frac=self.frac + frac)

    def sum(self, dim: int, keepdim: bool = False) -> Additive:
        """The sum along a dimension; local. It must fit into the ring."""
        if self.silent:
            shape = list(self.shape)
            shape[dim : dim + 1 or None] = [1] if keepdim else []
            return self.like(self.party.nothing(shape))
        return self.apply(lambda t: t.sum(dim, keepdim=keepdim))

    def shifted(self, constant: Tensor | int) -> Additive:
        """Add a public constant in units of the last place: at P1."""
        if self.party.rank == FIRST:
            return self.like(self.part + constant)
        if isinstance(constant, Tensor):
            return self.like(self.part.expand(broadcast(self.shape, constant.shape)))
        return self.like(self.part)

    def __neg__(self) -> Additive:
        return self.like(self.part if self.silent else -self.part)

    def __add__(self, other: Any) -> Additive:
        if isinstance(other, Share):
            other = other.additive()
        if not isinstance(other, Additive):
            return self.shifted(encode(cast("Tensor | Number", other), self.frac, self.device))
        x, y = aligned(self, other)
        bits, dealt = min(x.bits, y.bits), x.dealt or y.dealt
        if x.silent or y.silent:
            shape = broadcast(x.shape, y.shape)
            part = y.part if x.silent else x.part
            return Additive(self.party, part.expand(shape), bits, x.frac, dealt)
        return Additive(self.party, wordwise("add", x.part, y.part), bits, x.frac, dealt)

    def __sub__(self, other: Any) -> Additive:
        return self + (-other)

    __radd__ = __add__


class Bits(Tensorial):
    """Bits xor-shared by the evaluators; at the dealer only the shape.

    They lie as 0/1 words or as a row, eight to a byte and zeros behind the last, and are brought into the other form
    once somebody asks for it: what is only xored, multiplied and opened takes a 64th of the memory so.
    """

    def __init__(self, party: Party, part: Tensor | None, row: Tensor | None = None, shape: Sequence[int] = ()) -> None:
        self.party, self._part, self._row = party, part, row
        self._shape = torch.Size(shape) if part is None else part.shape

    def __repr__(self) -> str:
        return f"Bits(shape={tuple(self.shape)})"

    @property
    def part(self) -> Tensor:
        """Words of the shape."""
        self._part = unpack_bits(self.row, self._shape) if self._part is None else self._part
        return self._part

    @property
    def row(self) -> Tensor:
        """The same as bytes."""
        self._row = pack_bits(self.part) if self._row is None else self._row
        return self._row

    @property
    def shape(self) -> torch.Size:
        return self._shape

    def apply(self, function: Callable[[Tensor], Tensor]) -> Bits:
        return Bits(self.party, function(self.part))

    def __xor__(self, other: Bits | int) -> Bits:
        if self.party.is_dealer:
            shape = other.shape if isinstance(other, Bits) else self.shape
            return Bits(self.party, self.part.expand(broadcast(self.shape, shape)))
        if isinstance(other, Bits):
            if self._shape == other._shape and (self._part is None or other._part is None):
                return Bits(self.party, None, self.row ^ other.row, self._shape)
            return Bits(self.party, wordwise("xor", self.part, other.part))
        if self.party.rank != FIRST or not other:
            return self
        return Bits(self.party, None, self.row ^ _ones(self.numel(), self.device), self._shape)

    __rxor__ = __xor__

    def __invert__(self) -> Bits:
        return self ^ 1


@lru_cache(maxsize=1 << 6)
def _ones(count: int, device: torch.device) -> Tensor:
    """A row of so many bits that are set; only to be read."""
    return pack_bits(torch.ones(count, dtype=torch.int64, device=device))


class MaskedBit(NamedTuple):
    """v = b xor rho: `word` is the public v at the evaluators and the mask rho at the dealer."""

    party: Party
    word: Tensor


@overload
def encode(value: Tensor, frac: int, device: torch.device | str = "cpu") -> Tensor: ...
@overload
def encode(value: Number, frac: int, device: torch.device | str = "cpu") -> int: ...
@overload
def encode(value: Tensor | Number, frac: int, device: torch.device | str = "cpu") -> Tensor | int: ...
def encode(value: Tensor | Number, frac: int, device: torch.device | str = "cpu") -> Tensor | int:
    """Public number(s) as words with `frac` fraction bits, rounded to nearest."""
    if isinstance(value, Tensor):
        if torch.device(device).type == "meta":  # a dry run's
            return torch.empty(value.shape, dtype=torch.int64, device=device)
        return torch.round(value.to(torch.float64) * 2.0**frac).to(torch.int64).to(device)
    return round(value * 2**frac)


def aligned(x: Any, y: Any) -> tuple[Any, Any]:
    """Both with the larger of the two fractions."""
    if x.frac < y.frac:
        x = x.scaled(y.frac - x.frac)
    elif y.frac < x.frac:
        y = y.scaled(x.frac - y.frac)
    return x, y


def cat(shares: Sequence[Share], dim: int) -> Share:
    """Concatenate shares of one ring and fraction."""
    first = shares[0]
    if any((s.bits, s.frac) != (first.bits, first.frac) for s in shares):
        raise ValueError("cat needs shares of one ring and fraction")
    pairs = [s.components for s in shares]
    return first.like(torch.cat([p[0] for p in pairs], dim), torch.cat([p[1] for p in pairs], dim))


def stacked(secrets: Sequence[Any]) -> Any:
    """Shares of one ring and fraction, or Bits, along a new first dimension."""
    first = secrets[0]
    if isinstance(first, Share):
        pairs = [s.components for s in secrets]
        if len(pairs) == 1:  # nothing to copy
            return first.like(*(part.unsqueeze(0) for part in pairs[0]))
        return first.like(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]))
    if first.party.is_dealer:
        return Bits(first.party, first.party.nothing((len(secrets), *first.shape)))
    return Bits(first.party, torch.stack([s.part for s in secrets]))

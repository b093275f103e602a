"""Pads are counted, in elements and by purpose: what leaves a party has as many pads as it has elements, to the last.

Bytes would leave slack, because a pad of 64 bits covers a word of a few and streams end in whole blocks; so a pad that
serves two values would not show. Every piece of a message is matched with one draw of its own size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.mpc import arithmetic, boolean
from puma.mpc.arithmetic import deal
from puma.mpc.party import DEALER, FIRST, SECOND, Message, Party, Piece, Protocol
from puma.mpc.share import Additive, Bits
from tests.case import Case
from tests.cases import CASES, coins, sample
from tests.trio import given_additive, given_bits, parties, trio

DEALT = ("deal", "coarse", "one-hot", "bit-deal")  # what pads corrections; a party asks for it before it sends or waits
Sizes = Counter[tuple[str, int]]  # purpose, elements


class Padded(Piece):
    """A piece that knows the purpose of its pads."""

    purpose = ""


class Counting(Party):
    """A party that writes down the sizes of what it draws from each evaluator's streams, and of what it sends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drawn: dict[int, Sizes] = {FIRST: Counter(), SECOND: Counter()}
        self.sent: Sizes = Counter()
        self._asked = "nothing"

    def words(self, evaluator: int, purpose: str, shape: Sequence[int]) -> Tensor | None:
        self._note(evaluator, purpose, math.prod(shape))
        return super().words(evaluator, purpose, shape)

    def random_bytes(self, evaluator: int, purpose: str, count: int) -> Tensor | None:
        self._note(evaluator, purpose, count)
        return super().random_bytes(evaluator, purpose, count)

    def _note(self, evaluator: int, purpose: str, count: int) -> None:
        if count and self.rank in (DEALER, evaluator):
            self.drawn[evaluator][purpose, count] += 1
        if purpose in DEALT:
            self._asked = purpose

    def correction(self, payload: Tensor | None, count: int) -> Tensor | None:
        if self.is_dealer and count:
            self.sent[self._asked, getattr(payload, "elements", count)] += 1
            self._asked = "nothing"  # one draw pads one correction
        return super().correction(payload, count)

    def exchange(self, pieces: Message) -> list[Tensor | None]:
        for piece in pieces if not self.is_dealer else ():
            words = piece.words
            assert words is not None
            purpose = piece.purpose if isinstance(piece, Padded) else "nothing"
            bits = purpose == "bit" and words.dtype != torch.uint8
            if words.numel():
                self.sent[purpose, (words.numel() + 7) // 8 if bits else words.numel()] += 1
        return super().exchange(pieces)


@contextmanager
def purposes() -> Iterator[None]:
    """Meanwhile pieces say what pads them, fresh words or fresh bits, and packed words how many they are."""

    def piece(purpose: str) -> Any:
        kind = type("Padded", (Padded,), {"purpose": purpose})
        return lambda words, bits, row=0, joined=0: kind(words, bits, row, joined)

    def pack(words: Tensor, bits: int) -> Tensor:
        packed = packing(words, bits)
        packed.elements = words.numel()  # type: ignore[attr-defined]
        return packed

    def pack_less(words: Tensor, before: int, shift: int, bits: int, half: Tensor) -> Tensor:
        packed = packing_less(words, before, shift, bits, half)
        packed.elements = half.numel()  # type: ignore[attr-defined]
        return packed

    packing, packing_less = kernels.pack, kernels.packed_less
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "Piece", piece("mask"))
        patch.setattr(boolean, "Piece", piece("bit"))
        patch.setattr(kernels, "pack", pack)
        patch.setattr(kernels, "packed_less", pack_less)
        yield


def count(function: Any) -> None:
    """Run it, and compare what was sent with what was drawn for it: the same sizes, each as often."""
    members = trio(kind=Counting)
    with purposes():
        parties(function, members)
    dealer, first, second = members
    padding = {key: n for key, n in dealer.drawn[FIRST].items() if key[0] in DEALT}  # type: ignore[attr-defined]
    assert dealer.sent == padding, "corrections and the words that pad them"  # type: ignore[attr-defined]
    for member in (first, second):
        pads = {key: n for key, n in member.drawn[member.rank].items() if key[0] in ("mask", "bit")}  # type: ignore[attr-defined]
        assert member.sent == pads, f"what P{member.rank} sends and the pads that it draws"  # type: ignore[attr-defined]
        assert member.drawn[member.rank] == dealer.drawn[member.rank]  # type: ignore[attr-defined]


HIDDEN = [case for case in CASES if case.function is not arithmetic.reveal]


@pytest.mark.parametrize("case", HIDDEN, ids=lambda case: case.name)
def test_every_element_sent_has_a_pad_of_its_own(case: Case) -> None:
    count(case.run)


# -- the count must see where one pad serves two values ------------------------------------------------------------


def one_pad_for_two(zs: Sequence[Additive]) -> Protocol[Any]:
    """Two values opened in one message under one pad: their difference is open."""
    party, shape = zs[0].party, tuple(zs[0].shape)
    pads = party.own_words("mask", shape)
    if party.is_dealer:
        yield [arithmetic.Piece(None, z.bits) for z in zs]
        return
    yield [arithmetic.Piece(z.part + pads, z.bits) for z in zs]  # type: ignore[operator]


def half_the_pads(z: Additive) -> Protocol[Any]:
    """Each pad covers two neighbours; in bytes there are still enough, because the ring is small."""
    party, (rows, columns) = z.party, z.shape
    pads = party.own_words("mask", (rows, columns // 2))
    if party.is_dealer:
        yield [arithmetic.Piece(None, z.bits)]
        return
    yield [arithmetic.Piece(z.part + pads.repeat_interleave(2, 1), z.bits)]  # type: ignore[union-attr]


def one_rho(bs: Sequence[Bits]) -> Protocol[Any]:
    """Bits opened in one message under the same mask."""
    rho = boolean.own_bits(bs[0].party, tuple(bs[0].shape))
    if bs[0].party.is_dealer:
        yield [boolean.Piece(None, 8) for _ in bs]
        return
    yield [boolean.Piece((b.row ^ rho).unsqueeze(0), 8, b.numel()) for b in bs]


def one_half(party: Party) -> None:
    """Two corrections padded by one draw."""
    half: Any = party.words(FIRST, "deal", (8,))
    for _ in range(2):
        payload = kernels.pack(torch.arange(8) - half, 16) if party.is_dealer else None
        party.correction(payload, 16)


def stack_under_one_half(party: Party) -> None:
    """A stack dealt under the half of one of its parts, which is repeated."""
    half: Any = party.words(FIRST, "deal", (1, 8))
    payload = kernels.pack(torch.ones(2, 8).long() - half.expand(2, 8), 16) if party.is_dealer else None
    party.correction(payload, 32)


def bare(party: Party) -> None:
    """A correction that nothing pads, after one that is padded."""
    deal(party, coins(8).long() if party.is_dealer else None, (8,), 16)
    party.correction(torch.zeros(16, dtype=torch.uint8) if party.is_dealer else None, 16)


def _opened(broken: Any) -> Any:
    def run(party: Party) -> None:
        zs = [given_additive(party, sample(6, 4), 13, 4, name, dealt=False) for name in "xy"]
        party.run(broken(zs if broken is one_pad_for_two else zs[0]))

    return run


def _bits(party: Party) -> None:
    party.run(one_rho([given_bits(party, coins(9), name) for name in "bc"]))


@pytest.mark.parametrize("broken", [one_pad_for_two, half_the_pads])
def test_a_pad_for_two_words_is_noticed(broken: Any) -> None:
    with pytest.raises(AssertionError, match=r"what P. sends"):
        count(_opened(broken))


def test_a_pad_for_two_bits_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"what P. sends"):
        count(_bits)


@pytest.mark.parametrize("broken", [one_half, stack_under_one_half, bare])
def test_a_half_for_two_corrections_is_noticed(broken: Any) -> None:
    with pytest.raises(AssertionError, match="corrections"):
        count(broken)

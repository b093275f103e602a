"""Three parties in three threads of one process, over memory links: what most tests stand on.

Inputs are shared openly: every party computes the same masks from `SECRETS`, whatever the keys of its own streams are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.kernels import Stored
from puma.mpc.boolean import MaskedBit
from puma.mpc.cost import Cost, Entry
from puma.mpc.party import Party
from puma.mpc.public import Public
from puma.mpc.raising import Raised
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Additive, Bits, Share
from puma.mpc.wide.products import Widened
from puma.net.memory import pair

SECRETS = {(0, 1): b"\x01" * 32, (0, 2): b"\x02" * 32, (1, 2): b"\x03" * 32}


def trio(secrets: dict[tuple[int, int], bytes] | None = None, kind: type[Party] = Party) -> list[Party]:
    """Fresh parties with test keys, linked in memory."""
    secrets = SECRETS | (secrets or {})
    links: list[dict[int, Any]] = [{}, {}, {}]
    for a, b in secrets:
        links[a][b], links[b][a] = pair(f"P{a}", f"P{b}")
    keys = [{b if a == r else a: PairKey(s) for (a, b), s in secrets.items() if r in (a, b)} for r in range(3)]
    return [kind(r, links[r], keys[r]) for r in range(3)]


def dry() -> list[Party]:
    """Three parties that only count."""
    return [Party(rank) for rank in range(3)]


def parties(function: Callable[[Party], Any], trio_: list[Party] | None = None, timeout: float = 60) -> list[Any]:
    """function(party) in three threads; the three results, or the first error raised. Dry parties go in turn."""
    members = trio_ or trio()
    if all(party.dry for party in members):
        return [function(party) for party in members]
    results: list[Any] = [None] * 3
    errors: list[BaseException] = []

    def work(party: Party) -> None:
        try:
            results[party.rank] = function(party)
        except BaseException as error:
            errors.append(error)
            for link in party.links.values():
                link.fail(str(error))

    threads = [threading.Thread(target=work, args=(p,), daemon=True) for p in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert errors or not any(t.is_alive() for t in threads), "a party hangs"
    if trio_ is None:
        for party in members:
            for link in party.links.values():
                link.close()
    if errors:
        raise errors[0]
    return results


def spent(entries: Sequence[Entry]) -> Cost:
    """What three parties spent: rounds between the evaluators, bits of all."""
    assert entries[0].rounds == 0 and entries[1].rounds == entries[2].rounds
    return Cost(entries[1].rounds, 8 * sum(e.online for e in entries), 8 * sum(e.offline for e in entries))


def counted(function: Callable[[Party], Any]) -> Cost:
    """What three dry parties spend on it."""
    members = dry()
    parties(function, members)
    return spent([p.ledger.total() for p in members])


# -- inputs ---------------------------------------------------------------------------------------------------------


def drawn(party: Party, rank: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Words that every party can compute, as the dealer and `rank` would draw them."""
    if party.dry:
        return torch.empty(shape, dtype=torch.int64, device="meta")
    return PairKey(SECRETS[0, rank]).stream(f"test {name}").words(shape, party.device)


def given(party: Party, value: Tensor, bits: int = 64, frac: int = 0, name: str = "x") -> Share:
    """A share of `value` (integers if frac is 0): every party calls it alike; masks are drawn, m is computed openly."""
    words = torch.round(value.double() * 2.0**frac).long() if frac else value.long()
    shape = tuple(words.shape)
    return held(party, words, drawn(party, 1, name, shape), drawn(party, 2, name, shape), bits, frac)


def held(party: Party, words: Tensor, l1: Tensor, l2: Tensor, bits: int = 64, frac: int = 0) -> Share:
    """A share of these words under these masks."""
    own = {0: (l1, l2), 1: (words.to(l1.device) + l1 + l2, l1), 2: (words.to(l1.device) + l1 + l2, l2)}
    return Share(party, *own[party.rank], bits, frac)


def given_raised(party: Party, value: Tensor, low: int, bits: int, frac: int = 0, name: str = "r") -> Raised:
    """A share of `value` in a ring of `low` bits, raised; what the dealer would have dealt is computed openly."""
    m, mask, above, turn = _grown(party, value, low, frac, name)
    if party.is_dealer:
        return Raised(Share(party, m, mask, bits, frac), turn, low)
    return Raised(Share(party, m, mask - (above << low), bits, frac), turn, low)


def given_widened(party: Party, value: Tensor, low: int, bits: int, frac: int = 0, name: str = "r") -> Widened:
    """The same beyond 64 bits."""
    m, mask, above, turn = _grown(party, value, low, frac, name)
    if party.is_dealer:
        mask, above = m + mask, mask
    return Widened(party, m, mask, above, turn, low, bits, frac)


def _grown(party: Party, value: Tensor, low: int, frac: int, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m, the own half of the mask and what is taken off that above the small ring, and the turn; the dealer's two."""
    words = torch.round(value.double() * 2.0**frac).long()
    one, two = (drawn(party, rank, name, tuple(words.shape)) for rank in (1, 2))
    m = kernels.reduce(words.to(one.device) + one + two + (1 << (low - 2)), low)
    one, two = kernels.reduce(one, low), kernels.reduce(two, low)
    carry, turn, high = (one + two) >> low, ((one + two) >> (low - 1)) & 1, m >> (low - 1)
    half, m = drawn(party, 1, f"{name} half", tuple(words.shape)), m - (1 << (low - 2))
    if party.is_dealer:
        return one - ((carry + turn) << low), two, two, turn
    return (m, one, half, high) if party.rank == 1 else (m, two, carry + turn * (1 - high) - half, high)


def given_seeded(
    party: Party, value: Tensor, bits: int = 64, frac: int = 0, name: str = "w", keep: bool = False
) -> Seeded:
    """The same as a parameter: m packed, masks still in their streams."""
    words = torch.round(value.double() * 2.0**frac).long() if frac else value.long()
    shape = tuple(words.shape)
    if party.dry:
        return Seeded(party, None, [], shape, bits, frac)
    streams = {rank: PairKey(SECRETS[0, rank]).stream(f"test {name}") for rank in (1, 2)}
    for stream in streams.values():
        words = words + kernels.unpack_bytes(stream.at(0).bytes(rest_bytes(shape, bits)), bits, shape)
    own = [stream for rank, stream in streams.items() if party.rank in (0, rank)]
    packed = None if party.is_dealer else kernels.pack_bytes(words, bits).to(party.device)
    return Seeded(party, packed, own, shape, bits, frac, keep)


def given_public(party: Party, value: Tensor, bits: int = 64, frac: int = 0, kept: bool = True) -> Public:
    """The same numbers as a parameter that everybody knows: as words, or in a file's numbers."""
    words = torch.round(value.double() * 2.0**frac).long() if frac else value.long()
    if party.dry or party.is_dealer:
        return Public(party, words.shape, bits, frac)
    if kept:
        return Public(party, words.shape, bits, frac, words=words.to(party.device))
    raw = words.to(torch.int32).contiguous().reshape(-1).view(torch.uint8).to(party.device)
    return Public(party, words.shape, bits, frac, Stored(raw, "i32", words.shape[-1]))


def given_additive(
    party: Party, value: Tensor, bits: int = 64, frac: int = 0, name: str = "z", dealt: bool = True
) -> Additive:
    """A product of `value`: parts of the evaluators are drawn, and the dealer's is if it has one."""
    words = torch.round(value.double() * 2.0**frac).long() if frac else value.long()
    parts = [drawn(party, rank, name, tuple(words.shape)) for rank in (1, 2)]
    rest = words.to(parts[0].device) - sum(parts)
    if not dealt:
        parts[0] = parts[0] + rest
        rest = torch.empty_like(parts[0], device="meta")
    return Additive(party, [rest, *parts][party.rank], bits, frac, dealt)


def given_bits(party: Party, value: Tensor, name: str = "b") -> Bits:
    """Xor-shared bits of `value`, 0 or 1."""
    half = drawn(party, 1, name, tuple(value.shape)) & 1
    parts = [torch.empty(value.shape, dtype=torch.int64, device="meta"), half, half ^ value.to(half.device)]
    return Bits(party, parts[party.rank])


def given_masked(party: Party, value: Tensor, name: str = "v") -> MaskedBit:
    """Bits of `value`, open under a mask of the dealer's."""
    rho = drawn(party, 1, name, tuple(value.shape)) & 1
    return MaskedBit(party, rho if party.is_dealer else rho ^ value.to(rho.device))


def given_choice(party: Party, rows: list[int], size: int, bits: int, name: str = "choice") -> Choice:
    """An outsider's choice of rows of a table: for each component, two holders' bits that differ in one place."""
    width = (size + 7) // 8
    base = drawn(party, 1, name, (3, len(rows), width)).to(torch.uint8)
    flip = torch.zeros(len(rows), width, dtype=torch.uint8)
    for i, row in enumerate(rows):
        flip[i, row // 8] = 1 << (row % 8)
    flip = flip.to(base.device)
    signs = (2 * ((base & flip) != 0).any(-1).long() - 1).transpose(0, 1)
    bits_of_rank = {0: (base[1], base[2]), 1: (base[0], base[1] ^ flip), 2: (base[0] ^ flip, base[2] ^ flip)}
    one, two = (drawn(party, r, f"{name} signs", (len(rows), 3)) for r in (1, 2))
    shared = held(party, signs, one, two, bits, 0)
    return Choice(party, bits_of_rank[party.rank], shared, size)


# -- results --------------------------------------------------------------------------------------------------------


def joined(shares: Sequence[Share]) -> Tensor:
    """The signed words of a result, from the three parties' shares, checking that the copies agree."""
    (l1, l2), (m1, one), (m2, two) = (s.components for s in shares)
    bits = shares[0].bits
    assert all(s.bits == bits and s.frac == shares[0].frac for s in shares)
    for x, y in ((l1, one), (l2, two), (m1, m2)):
        assert torch.equal(kernels.signed(x, bits), kernels.signed(y, bits))
    return kernels.signed(m1 - l1 - l2, bits)


def value(shares: Sequence[Share]) -> Tensor:
    """The decoded result of three parties' shares."""
    return joined(shares).double() / 2.0 ** shares[0].frac


def added(products: list[Additive]) -> Tensor:
    """The signed words of a product, from the three parties' parts."""
    zero, one, two = products
    assert all((z.bits, z.dealt, z.frac) == (one.bits, one.dealt, one.frac) for z in products)
    return kernels.signed(one.part + two.part + (zero.part if one.dealt else 0), one.bits)


def bits_of(shares: Sequence[Bits]) -> Tensor:
    """The bits that two evaluators hold."""
    assert shares[0].shape == shares[1].shape == shares[2].shape
    return shares[1].part ^ shares[2].part


def unmasked(bits: list[MaskedBit]) -> Tensor:
    """The bits that evaluators see under the dealer's mask."""
    assert torch.equal(bits[1].word, bits[2].word)
    return bits[0].word ^ bits[1].word

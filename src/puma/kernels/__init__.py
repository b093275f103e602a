"""Local arithmetic on words: what one party computes by itself. Each kernel is picked by where its tensor
lives: `cpu` runs compiled code (loaded at the first use), `meta` only gives shapes, everything else runs the
plain torch text. `to_wire` and `from_wire` are the only way between a device and bytes of the host. This room must not
know what a share, a party or a link is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from puma.kernels import plain, shapes
from puma.kernels.host import from_wire, mapped, to_wire
from puma.kernels.shapes import Asked, Pair
from puma.kernels.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Stored",
    "above",
    "chosen_packed",
    "cut",
    "cut_both",
    "cut_digits",
    "flags",
    "from_wire",
    "hidden_hots",
    "hot_bit",
    "joined",
    "joined_both",
    "line",
    "line_masks",
    "linear_packed",
    "linear_stored",
    "lookup",
    "mapped",
    "matmul",
    "matmul_packed",
    "matmul_stored",
    "member",
    "onehot",
    "opened_products",
    "pack",
    "pack_bits",
    "pack_bytes",
    "pack_masked",
    "packed_less",
    "padded",
    "parity",
    "picked",
    "population",
    "raised",
    "raised_masks",
    "reduce",
    "selected",
    "selecting",
    "shift_right",
    "signed",
    "spread",
    "taken_off",
    "to_wire",
    "unpack",
    "unpack_bits",
    "unpack_bytes",
    "unpack_runs",
    "wordwise",
    "wraps",
    "xor_of_products",
    "zeros",
]


def matmul(a: Tensor, b: Tensor, bits: int = 64, out: Tensor | None = None) -> Tensor:
    """(..., n, k) @ (..., k, m), right modulo 2^bits; with `out`, added into it and `out` returned."""
    return _for(a).matmul(a, b, bits, out)


def linear_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out[:, first:first+rows] += a @ w^T, right modulo 2^bits; `out` returned.

    a (n, k); w (rows, k) is the sum of signs[i] (1, -1 or 0) times the words that `pack_bytes` wrote into packed[i],
    of which there are one or two; out (n, m) contiguous, rows <= m - first.
    """
    return _for(a).linear_packed(a, packed, signs, bits, out, first)


def matmul_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out += a[:, first:first+rows] @ w, right modulo 2^bits; `out` (n, k) contiguous, returned; w as above."""
    return _for(a).matmul_packed(a, packed, signs, bits, out, first)


def chosen_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """The same for a whose words are all 0 or 1: the sums of the rows that it chooses, at less than the products."""
    return _for(a).chosen_packed(a, packed, signs, bits, out, first)


def spread(matrix: Stored, frac: int) -> Tensor:
    """The words (rows, columns) with so many fraction bits that a stored matrix stands for."""
    return _for(matrix.raw).spread(matrix, frac)


def linear_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w^T, right modulo 2^bits; `out` (n, rows) contiguous, returned; w what `spread` gives, a (n, columns).

    Nothing of the matrix's size is made.
    """
    return _for(a).linear_stored(a, matrix, frac, bits, out)


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w, right modulo 2^bits; `out` (n, columns) contiguous, returned; a (n, rows); as above."""
    return _for(a).matmul_stored(a, matrix, frac, bits, out)


def reduce(x: Tensor, bits: int) -> Tensor:
    """The representative in 0 .. 2^bits - 1; at 64 bits the words as they are (the same tensor)."""
    return _for(x).reduce(x, bits)


def shift_right(x: Tensor, shift: int, bits: int) -> Tensor:
    """(x mod 2^bits) >> shift, an element of the ring of bits - shift bits."""
    return _for(x).shift_right(x, shift, bits)


def cut(x: Tensor, y: Tensor | None, before: int, shift: int, bits: int, after: int) -> Tensor:
    """((x + y + before) mod 2^bits >> shift) + after: a truncation, of a sum or of x alone."""
    return _for(x).cut(x, y, before, shift, bits, after)


def joined(x: Tensor, y: Tensor, shift: int, after: int) -> Tensor:
    """x + (y << shift) + after."""
    return _for(x).joined(x, y, shift, after)


def cut_digits(x: Tensor, y: Tensor | None, places: Sequence[tuple[int, int]]) -> Sequence[Tensor]:
    """For each place (low, width) the bits low .. low+width-1 of x + y, or of x alone."""
    return _for(x).cut_digits(x, y, places)


def cut_both(
    x: Tensor, y: Tensor | None, z: Tensor, before: int, shift: int, bits: int, after: int
) -> tuple[Tensor, Tensor]:
    """`cut` of x and y, and of z with no constants: of a masked value and a mask at once."""
    return _for(x).cut_both(x, y, z, before, shift, bits, after)


def joined_both(x: Tensor, y: Tensor, z: Tensor, w: Tensor, shift: int, after: int) -> tuple[Tensor, Tensor]:
    """`joined` of x and y, and of z and w with no constant."""
    return _for(x).joined_both(x, y, z, w, shift, after)


def wraps(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """a and b modulo 2^bits; and (2, ...) of their sum the carry with the top bit added to it, and the carry."""
    return _for(a).wraps(a, b, bits)


def picked(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a + before and b modulo 2^bits; and the second of the choices (2, ...) where the former's top bit is set."""
    return _for(a).picked(a, b, before, bits, choices)


def raised_masks(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `wraps` gives, with 2^bits times the former of its counts taken off a; and the top bit of the sum."""
    return _for(a).raised_masks(a, b, bits)


def raised(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `picked` gives, less `before` again, with 2^bits times what was picked taken off b; and the top bit that it
    was picked by."""
    return _for(a).raised(a, b, before, bits, choices)


def wordwise(operation: str, x: Tensor, *others: Tensor) -> Tensor:
    """x + y and the like: "add", "sub", "mul", "xor", and "neg" of x alone; they broadcast."""
    return _for(x).wordwise(operation, x, *others)


def selected(v: Tensor, own: Tensor, m: Tensor, dealt: Tensor, first: bool) -> Tensor:
    """v w + (1 - 2 v) (rho m - rho_l) with w = m - own if `first`, else -own; dealt (2, ...) are rho and rho_l,
    to whose shape v and m broadcast."""
    return _for(dealt).selected(v, own, m, dealt, first)


def selecting(rho: Tensor, x: Pair) -> Tensor:
    """(2, ...): rho, and rho times the sum of two, to whose shape it broadcasts."""
    return _for(rho).selecting(rho, x)


def line(dealt: Tensor, sign: Tensor, v: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """t0 e - t1 b + t2 with t = v times the sign and the first two dealt words, plus (1 - 2 v) times the others; dealt
    (5, ...)."""
    return _for(dealt).line(dealt, sign, v, e, b)


def line_masks(s: Tensor, lu: Tensor, e: Pair, b: Pair, rho: Tensor) -> Tensor:
    """(5, ...): s lu and s (lu b - e), and rho times s and these; e and b are sums of two."""
    return _for(s).line_masks(s, lu, e, b, rho)


def signed(x: Tensor, bits: int) -> Tensor:
    """The representative in -2^(bits-1) .. 2^(bits-1) - 1."""
    return _for(x).signed(x, bits)


def pack(x: Tensor, bits: int) -> Tensor:
    """Reduced words as one row of bits, lowest first, and no bit between two words: a fresh row of uint8."""
    return _for(x).pack(x, bits)


def packed_less(x: Tensor, before: int, shift: int, bits: int, less: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) - less, as `pack` writes it in a ring of bits - shift: what is dealt. With no
    shift x need not be reduced."""
    return _for(x).packed_less(x, before, shift, bits, less)


def padded(x: Tensor, before: int, shift: int, bits: int, dealt: Tensor | None, pads: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) + dealt + pads: what is opened. `dealt` are words, or bytes that `packed_less`
    wrote; with no shift x need not be reduced."""
    return _for(x).padded(x, before, shift, bits, dealt, pads)


def unpack(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack` wrote, reduced."""
    return _for(buffer).unpack(buffer, bits, shape)


def pack_bytes(x: Tensor, bits: int) -> Tensor:
    """Reduced words as bytes, ceil(bits / 8) little-endian ones each: a fresh row of uint8."""
    return _for(x).pack_bytes(x, bits)


def unpack_bytes(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack_bytes` wrote, reduced whatever the bytes say."""
    return _for(buffer).unpack_bytes(buffer, bits, shape)


def unpack_runs(buffer: Tensor, bits: Sequence[int], shape: tuple[int, ...]) -> Sequence[Tensor]:
    """For each of these numbers of bits what `unpack` gives, of bytes that lie one behind the other."""
    return _for(buffer).unpack_runs(buffer, bits, shape)


def pack_masked(x: Tensor, frac: int, pads: tuple[Tensor, Tensor], bits: int, out: Tensor) -> Tensor:
    """round(x 2^frac) plus the words of both pads, as bytes; float64 x, pads and out as `pack_bytes` writes them."""
    return _for(x).pack_masked(x, frac, pads, bits, out)


def taken_off(packed: Tensor, masks: Tensor, bits: int) -> Tensor:
    """masks, whose words become those of packed less theirs, with all bits of their bytes: both as `pack_bytes` writes
    them, whatever they say above the ring."""
    return _for(masks).taken_off(packed, masks, bits)


def pack_bits(b: Tensor) -> Tensor:
    """The lowest bit of every word, eight to a byte."""
    return _for(b).pack_bits(b)


def unpack_bits(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The 0/1 words that `pack_bits` wrote."""
    return _for(buffer).unpack_bits(buffer, shape)


def xor_of_products(rows: Tensor, terms: Tensor, ends: Tensor) -> Tensor:
    """Polynomials in rows of packed bits (n, bytes), as (results, bytes).

    terms (T, k) holds the rows that each term multiplies, -1 behind the last one; a term without rows is 1. Result r
    is the xor of the terms from ends[r - 1], or 0, up to ends[r].
    """
    return _for(rows).xor_of_products(rows, terms, ends)


def opened_products(
    mine: Tensor, theirs: Tensor, others: Sequence[Tensor], terms: Tensor, ends: Tensor, count: int
) -> Sequence[Tensor]:
    """The results of `xor_of_products`, each a row of so many bits with zeros behind the last: of rows of bits that
    are opened, mine ^ theirs, and of three kinds of others below them."""
    return _for(mine).opened_products(mine, theirs, others, terms, ends, count)


def parity(x: Tensor) -> Tensor:
    """The xor of the 64 bits of every word."""
    return _for(x).parity(x)


def population(e: Tensor, width: int) -> Tensor:
    """How many of the positions of each vector (..., words) are set."""
    return _for(e).population(e, width)


def onehot(digit: Tensor, width: int) -> Tensor:
    """One-hot words of every digit: (..., 1) up to width 6, (..., 2^(width-6)) above."""
    return _for(digit).onehot(digit, width)


def hidden_hots(half: Tensor, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """The bytes `half` xor the one-hot vectors of digits, in their place: for each place (low, width) of the words x
    vectors lie one behind the other, filled up to a whole byte by zeros. A digit of 0 bits stands for its lowest one.
    """
    return _for(half).hidden_hots(half, x, places)


def hot_bit(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """The bit of e at position digit."""
    return _for(e).hot_bit(e, digit, width)


def lookup(e: Tensor, digit: Tensor, width: int, table: Tensor) -> Tensor:
    """(T, ...): for each table t the sum over j of table[t, (digit - j) mod 2^width] e[j], modulo 2^64."""
    return _for(e).lookup(e, digit, width, table)


def member(e: Tensor, digit: Tensor, width: int, members: Tensor) -> Tensor:
    """The xor over j of members[(digit - j) mod 2^width] and e[j]."""
    return _for(e).member(e, digit, width, members)


def above(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """The xor of e[j] over j > digit."""
    return _for(e).above(e, digit, width)


def flags(asked: Sequence[Asked]) -> Sequence[Tensor]:
    """For each (e, x, low, width, members) what `member` says of the digit of so many bits that begins in x at `low`,
    and `above` where there are no members, as a row of bits as `pack_bits` writes it."""
    return _for(asked[0][0]).flags(asked)


def zeros(x: Tensor, low: int, width: int) -> Tensor:
    """Which of the digits of so many bits that begin at `low` are 0, as a row of bits."""
    return _for(x).zeros(x, low, width)


def _for(x: Tensor) -> ModuleType:
    return _cpu() if x.is_cpu else shapes if x.is_meta else plain


@cache
def _cpu() -> ModuleType:
    from puma.kernels import cpu  # noqa: PLC0415  # the compiler takes a second, and a dry run needs none

    return cpu

"""Every kernel in its most obvious torch form: the specification that the fast ones are tested against bit
for bit. It knows words and rings; it must not know shares, parties or links, and no value in it steers the
control flow.

Words are int64 and wrap modulo 2^64; in a ring of `bits` bits only the low `bits` mean anything. A one-hot of
width w has 2^w positions, stored 64 to a word (one word below width 6): bit j % 64 of word j // 64 is
position j, and whatever lies above position 2^w is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma.kernels.shapes import OPERATIONS, Asked, Pair
from puma.kernels.stored import KINDS, Stored, numbers


def matmul(a: Tensor, b: Tensor, bits: int = 64, out: Tensor | None = None) -> Tensor:
    """a @ b, right modulo 2^bits; with `out`, added into it."""
    product = torch.matmul(a, b)
    return product if out is None else out.add_(product)


def linear_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out[:, first:first+rows] += a @ w^T for the rows of w = sum of signs[i] * words of packed[i]."""
    w = _summed(packed, signs, bits, a.shape[1])
    out[:, first : first + w.shape[0]] += a @ w.T
    return out


def matmul_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out += a[:, first:first+rows] @ w for the rows of w = sum of signs[i] * words of packed[i]."""
    w = _summed(packed, signs, bits, out.shape[1])
    return out.add_(a[:, first : first + w.shape[0]] @ w)


chosen_packed = matmul_packed  # of a that is 0 or 1


def spread(matrix: Stored, frac: int) -> Tensor:
    """The words (rows, columns) that the numbers stand for: each times its column's factor, rounded to nearest."""
    found = numbers(matrix)
    if matrix.kind in KINDS and KINDS[matrix.kind][1]:
        return found.to(torch.int64)
    scaled = found.to(torch.float32) if matrix.factors is None else found.to(torch.float32) * matrix.factors
    return torch.round(scaled.to(torch.float64) * 2.0**frac).to(torch.int64)


def linear_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w^T for the words w of the matrix."""
    return out.add_(a @ spread(matrix, frac).T)


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w."""
    return out.add_(a @ spread(matrix, frac))


def reduce(x: Tensor, bits: int) -> Tensor:
    """The representative in 0 .. 2^bits - 1; at 64 bits the words as they are."""
    return x if bits == 64 else x & _mask(bits)


def shift_right(x: Tensor, shift: int, bits: int) -> Tensor:
    """The reduced word shifted right: an element of the ring of bits - shift bits."""
    if shift == bits:
        return torch.zeros_like(x)
    return reduce(x >> shift, bits - shift)


def signed(x: Tensor, bits: int) -> Tensor:
    """The representative in -2^(bits-1) .. 2^(bits-1) - 1."""
    return (x << (64 - bits)) >> (64 - bits)


def cut(x: Tensor, y: Tensor | None, before: int, shift: int, bits: int, after: int) -> Tensor:
    """((x + y + before) mod 2^bits >> shift) + after."""
    return shift_right((x if y is None else x + y) + before, shift, bits) + after


def joined(x: Tensor, y: Tensor, shift: int, after: int) -> Tensor:
    """x + (y << shift) + after."""
    return x + (y << shift) + after


def cut_digits(x: Tensor, y: Tensor | None, places: Sequence[tuple[int, int]]) -> list[Tensor]:
    """For each place (low, width) the bits low .. low+width-1 of x + y, or of x alone."""
    return [cut(x, y, 0, low, low + width, 0) for low, width in places]


def cut_both(
    x: Tensor, y: Tensor | None, z: Tensor, before: int, shift: int, bits: int, after: int
) -> tuple[Tensor, Tensor]:
    """`cut` of x and y, and of z with no constants."""
    return cut(x, y, before, shift, bits, after), cut(z, None, 0, shift, bits, 0)


def joined_both(x: Tensor, y: Tensor, z: Tensor, w: Tensor, shift: int, after: int) -> tuple[Tensor, Tensor]:
    """`joined` of x and y, and of z and w with no constant."""
    return joined(x, y, shift, after), joined(z, w, shift, 0)


def wraps(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """a and b modulo 2^bits, and of their sum (2, ...) the carry with the top bit added, and the carry."""
    a, b = reduce(a, bits), reduce(b, bits)
    total = a + b
    carry, top = (total >> bits) & 1, (total >> (bits - 1)) & 1  # of 63 bits the sum has a sign
    return a, b, torch.stack([carry + top, carry])


def picked(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a + before and b modulo 2^bits, and the second of the choices (2, ...) where the former's top bit is set."""
    a, b = reduce(a + before, bits), reduce(b, bits)
    low, high = choices
    return a, b, torch.where(((a >> (bits - 1)) & 1).bool(), high, low)


def raised_masks(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `wraps`, the former of the counts taken off a in its place; and the top bits."""
    a, b, counts = wraps(a, b, bits)
    return a - (counts[0] << bits), b, counts, counts[0] - counts[1]


def raised(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `picked`, less `before` again and what was picked taken off b in its place; and the top bits."""
    a, b, carries = picked(a, b, before, bits, choices)
    return a - before, b - (carries << bits), (a >> (bits - 1)) & 1


def wordwise(operation: str, x: Tensor, *others: Tensor) -> Tensor:
    """What the operation of this name says."""
    return OPERATIONS[operation](x, *others)


def selected(v: Tensor, own: Tensor, m: Tensor, dealt: Tensor, first: bool) -> Tensor:
    """v w + (1 - 2 v) (rho m - rho_l), w being m - own if `first` and else -own; shapes broadcast."""
    rho, rho_l = dealt
    return v * (m - own if first else -own) + (1 - 2 * v) * (rho * m - rho_l)


def line(dealt: Tensor, sign: Tensor, v: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """t0 e - t1 b + t2 with t = v times the sign and the first two dealt words, plus (1 - 2 v) times the others."""
    first, second, third = (v * base + (1 - 2 * v) * more for base, more in zip((sign, *dealt[:2]), dealt[2:]))
    return first * e - second * b + third


def selecting(rho: Tensor, x: Pair) -> Tensor:
    """(2, ...): rho, and rho times the sum of two."""
    return torch.stack(torch.broadcast_tensors(rho, rho * (x[0] + x[1])))


def line_masks(s: Tensor, lu: Tensor, e: Pair, b: Pair, rho: Tensor) -> Tensor:
    """(5, ...): s lu and s (lu b - e), and rho times s and these; e and b are sums of two."""
    words = torch.stack([s, s * lu, s * (lu * (b[0] + b[1]) - (e[0] + e[1]))])
    return torch.cat([words[1:], rho * words])


def pack(x: Tensor, bits: int) -> Tensor:
    """The reduced words as one row of bits, the lowest first, eight to a byte, zeros after the last."""
    return pack_bits(x.unsqueeze(-1) >> torch.arange(bits, device=x.device))


def packed_less(x: Tensor, before: int, shift: int, bits: int, less: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) - less, as `pack` writes it in a ring of bits - shift."""
    return pack((cut(x, None, before, shift, bits, 0) if shift else x + before) - less, bits - shift)


def padded(x: Tensor, before: int, shift: int, bits: int, dealt: Tensor | None, pads: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) + dealt + pads; `dealt` are words, or bytes as `pack` writes them."""
    if dealt is not None and dealt.dtype is torch.uint8:
        dealt = unpack(dealt, bits - shift, tuple(pads.shape))
    rounded = cut(x, None, before, shift, bits, 0) if shift else x + before
    return (rounded if dealt is None else rounded + dealt) + pads


def unpack(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack` wrote."""
    return (unpack_bits(buffer, (*shape, bits)) << torch.arange(bits, device=buffer.device)).sum(-1)


def pack_bytes(x: Tensor, bits: int) -> Tensor:
    """The reduced words, ceil(bits / 8) little-endian bytes each, as one row of uint8."""
    octets = _octets(bits)
    shifts = torch.arange(0, 8 * octets, 8, device=x.device)
    return ((reduce(x, bits).unsqueeze(-1) >> shifts) & 255).to(torch.uint8).reshape(-1)


def unpack_bytes(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack_bytes` wrote, reduced whatever the bytes say."""
    octets = _octets(bits)
    shifts = torch.arange(0, 8 * octets, 8, device=buffer.device)
    return reduce((buffer.reshape(*shape, octets).to(torch.int64) << shifts).sum(-1), bits)


def unpack_runs(buffer: Tensor, bits: Sequence[int], shape: tuple[int, ...]) -> list[Tensor]:
    """For each of these numbers of bits what `unpack` gives, of bytes that lie one behind the other."""
    found, at = list[Tensor](), 0
    for each in bits:
        size = (_count(shape) * each + 7) // 8
        found.append(unpack(buffer[at : at + size], each, shape))
        at += size
    return found


def pack_masked(x: Tensor, frac: int, pads: tuple[Tensor, Tensor], bits: int, out: Tensor) -> Tensor:
    """round(x 2^frac), ties to even, plus the words of both pads, as bytes."""
    words = torch.round(x * 2.0**frac).to(torch.int64)
    return out.copy_(pack_bytes(words + sum(unpack_bytes(pad, bits, tuple(x.shape)) for pad in pads), bits))


def taken_off(packed: Tensor, masks: Tensor, bits: int) -> Tensor:
    """masks, whose words become those of packed less theirs, with all bits of their bytes."""
    whole = 8 * _octets(bits)
    shape = (masks.numel() // _octets(bits),)
    words = unpack_bytes(packed, whole, shape) - unpack_bytes(masks, whole, shape)
    return masks.copy_(pack_bytes(words, whole))


def pack_bits(b: Tensor) -> Tensor:
    """The lowest bit of every word, eight to a byte, the first in the lowest place, zeros after the last."""
    flat = (b & 1).reshape(-1)
    count = -(-flat.numel() // 8)
    padded = torch.zeros(count * 8, dtype=torch.int64, device=b.device)
    padded[: flat.numel()] = flat
    return (padded.view(count, 8) << torch.arange(8, device=b.device)).sum(-1).to(torch.uint8)


def unpack_bits(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The 0/1 words that `pack_bits` wrote."""
    bits = (buffer.to(torch.int64).unsqueeze(-1) >> torch.arange(8, device=buffer.device)) & 1
    return bits.reshape(-1)[: _count(shape)].reshape(shape)


def xor_of_products(rows: Tensor, terms: Tensor, ends: Tensor) -> Tensor:
    """(results, bytes): result r is the xor of the terms ends[r - 1] .. ends[r], each the product of its rows."""
    results, first = torch.zeros((len(ends), rows.shape[1]), dtype=torch.uint8, device=rows.device), 0
    for result, end in zip(results, ends.tolist(), strict=True):
        for term in terms[first:end].tolist():
            product = torch.full_like(result, 255)
            for row in term:
                product &= rows[row] if row >= 0 else 255
            result ^= product
        first = end
    return results


def opened_products(
    mine: Tensor, theirs: Tensor, others: Sequence[Tensor], terms: Tensor, ends: Tensor, count: int
) -> list[Tensor]:
    """Polynomials in the rows mine ^ theirs and those of the others below, with zeros behind so many bits."""
    found = xor_of_products(torch.cat([mine ^ theirs, *others]), terms, ends)
    return [pack_bits(unpack_bits(row, (count,))) for row in found]


def parity(x: Tensor) -> Tensor:
    """The xor of the 64 bits of every word."""
    for shift in (32, 16, 8, 4, 2, 1):
        x = x ^ (x >> shift)
    return x & 1


def population(e: Tensor, width: int) -> Tensor:
    """How many of the positions of each vector are set."""
    return _positions(e, width).sum(-1)


def onehot(digit: Tensor, width: int) -> Tensor:
    """The one-hot words of every digit, along a new last dimension."""
    word = torch.arange(_words(width), device=digit.device)
    digit = _reduced(digit, width)
    return torch.where(word == digit >> 6, torch.ones_like(digit) << (digit & 63), 0)


def hidden_hots(half: Tensor, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """The bytes xor the one-hot vectors of the digits, in their place, a run of bits for each place (low, width) of the
    words; of 0 wide digits the bits."""
    sizes = [((x.numel() << width) + 7) // 8 for _, width in places]
    parts = list[Tensor]()
    for part, (low, width) in zip(half.split_with_sizes(sizes), places, strict=True):
        each, digit = min(1 << width, 64), x >> low
        hot = onehot(digit, width) if width else (digit & 1).unsqueeze(-1)
        parts.append(pack(unpack(part, each, tuple(hot.shape)) ^ hot, each))
    return half.copy_(torch.cat(parts)) if parts else half


def hot_bit(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """e[digit]."""
    digit = _reduced(digit, width)
    bits = _positions(e, width)
    bits, digit = _together(bits, digit)
    return bits.gather(-1, digit).squeeze(-1)


def lookup(e: Tensor, digit: Tensor, width: int, table: Tensor) -> Tensor:
    """For every table t the sum over j of table[t, digit - j] e[j], modulo 2^64; the tables come first."""
    bits, index = _differences(e, digit, width)
    return (table.to(e.device)[:, index] * bits).sum(-1)


def member(e: Tensor, digit: Tensor, width: int, members: Tensor) -> Tensor:
    """The xor over j of members[digit - j] and e[j]: is the hidden digit's difference in the set?"""
    bits, index = _differences(e, digit, width)
    return (members.to(e.device, torch.int64)[index] * bits).sum(-1) & 1


def above(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """The xor of e[j] over j > digit: the borrow of digit - hidden digit."""
    digit = _reduced(digit, width)
    position = torch.arange(1 << width, device=e.device)
    return ((position > digit) * _positions(e, width)).sum(-1) & 1


def flags(asked: Sequence[Asked]) -> list[Tensor]:
    """What `member` says of each (e, x, low, width, members), and `above` where there are no members, as rows."""
    each = [(e, x >> low, width, members) for e, x, low, width, members in asked]
    return [pack_bits(above(e, d, w) if members is None else member(e, d, w, members)) for e, d, w, members in each]


def zeros(x: Tensor, low: int, width: int) -> Tensor:
    """Which of the digits are 0, as a row."""
    return pack_bits(((x >> low) & _mask(width) == 0).to(torch.int64))


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def _octets(bits: int) -> int:
    return (bits + 7) // 8


def _summed(packed: Sequence[Tensor], signs: Sequence[int], bits: int, columns: int) -> Tensor:
    rows = packed[0].numel() // (columns * _octets(bits))
    parts = [s * unpack_bytes(p, bits, (rows, columns)) for p, s in zip(packed, signs, strict=True)]
    return torch.stack(parts).sum(0)


def _words(width: int) -> int:
    return 1 << max(width - 6, 0)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _reduced(digit: Tensor, width: int) -> Tensor:
    return (digit & _mask(width)).unsqueeze(-1)


def _positions(e: Tensor, width: int) -> Tensor:
    """The one-hot words as 0/1 words, one per position."""
    bits = (e.unsqueeze(-1) >> torch.arange(min(1 << width, 64), device=e.device)) & 1
    return bits.reshape(*e.shape[:-1], 1 << width)


def _together(bits: Tensor, digit: Tensor) -> tuple[Tensor, Tensor]:
    lead = torch.broadcast_shapes(bits.shape[:-1], digit.shape[:-1])
    return bits.expand(*lead, bits.shape[-1]), digit.expand(*lead, 1)


def _differences(e: Tensor, digit: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """e as 0/1 words by position j, and (digit - j) mod 2^width beside them."""
    index = (_reduced(digit, width) - torch.arange(1 << width, device=e.device)) & _mask(width)
    return torch.broadcast_tensors(_positions(e, width), index)

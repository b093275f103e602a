"""Every kernel on outlines: the shape of the result and nothing else, as a dry run of a whole model wants it. The plain
text would give the same shapes after dozens of steps each. It knows no words at all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from puma.kernels.outline import Outline
from puma.kernels.stored import Stored

Asked = tuple[Tensor, Tensor, int, int, Tensor | None]  # of a flag: vectors, words, a digit's place there, and a set

Pair = tuple[Tensor, Tensor]  # of parts of a sum

# Of words that lie side by side, by name.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "xor": operator.xor,
    "neg": operator.neg,
}


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape; torch's own takes longer than most of our arithmetic, and loads a computer algebra system."""
    if shapes.count(shapes[0]) == len(shapes):
        return tuple(shapes[0])
    return _broadcast(*(tuple(s) for s in shapes))


@lru_cache(maxsize=1 << 12)
def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return np.broadcast_shapes(*shapes)


def matmul(a: Tensor, b: Tensor, bits: int = 64, out: Tensor | None = None) -> Tensor:
    """(..., n, k) @ (..., k, m)."""
    return torch.matmul(a, b) if out is None else out


def linear_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out."""
    return out


def matmul_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out."""
    return out


chosen_packed = matmul_packed


def spread(matrix: Stored, frac: int) -> Tensor:
    """Words of its shape."""
    return _empty((matrix.rows, matrix.columns))


def linear_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out."""
    return out


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out."""
    return out


def reduce(x: Tensor, bits: int) -> Tensor:
    """The same tensor: it has no words to reduce."""
    return x


def shift_right(x: Tensor, shift: int, bits: int) -> Tensor:
    """As x."""
    return _empty(x.shape)


def signed(x: Tensor, bits: int) -> Tensor:
    """As x."""
    return _empty(x.shape)


def cut(x: Tensor, y: Tensor | None, before: int, shift: int, bits: int, after: int) -> Tensor:
    """As x and y together."""
    return _empty(x.shape if y is None else broadcast(x.shape, y.shape))


def joined(x: Tensor, y: Tensor, shift: int, after: int) -> Tensor:
    """As x and y together."""
    return _empty(broadcast(x.shape, y.shape))


def cut_digits(x: Tensor, y: Tensor | None, places: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Each as x and y together."""
    return [cut(x, y, 0, 0, 0, 0) for _ in places]


def cut_both(
    x: Tensor, y: Tensor | None, z: Tensor, before: int, shift: int, bits: int, after: int
) -> tuple[Tensor, Tensor]:
    """As x and y together, and as z."""
    return cut(x, y, before, shift, bits, after), _empty(z.shape)


def joined_both(x: Tensor, y: Tensor, z: Tensor, w: Tensor, shift: int, after: int) -> tuple[Tensor, Tensor]:
    """As x and y together, and as z and w."""
    return joined(x, y, shift, after), joined(z, w, shift, 0)


def wraps(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """a, b, and two words for each."""
    return a, b, _empty((2, *a.shape))


def picked(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a, b, and as a."""
    return a, b, _empty(a.shape)


def raised_masks(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `wraps`, and as a."""
    return a, b, _empty((2, *a.shape)), _empty(a.shape)


def raised(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a, b, and as a."""
    return a, b, _empty(a.shape)


def wordwise(operation: str, x: Tensor, *others: Tensor) -> Tensor:
    """What the operation of this name says."""
    return OPERATIONS[operation](x, *others)


def selected(v: Tensor, own: Tensor, m: Tensor, dealt: Tensor, first: bool) -> Tensor:
    """As what is dealt, which has the shape of all."""
    return _empty(dealt.shape[1:])


def line(dealt: Tensor, sign: Tensor, v: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """As e."""
    return _empty(e.shape)


def selecting(rho: Tensor, x: Pair) -> Tensor:
    """Two words for each of both together."""
    return _empty((2, *broadcast(rho.shape, x[0].shape)))


def line_masks(s: Tensor, lu: Tensor, e: Pair, b: Pair, rho: Tensor) -> Tensor:
    """Five words for each of s."""
    return _empty((5, *s.shape))


def pack(x: Tensor, bits: int) -> Tensor:
    """A row of bytes, `bits` bits for each word."""
    return _empty(((x.numel() * bits + 7) // 8,), torch.uint8)


def packed_less(x: Tensor, before: int, shift: int, bits: int, less: Tensor) -> Tensor:
    """A row of bytes, bits - shift bits for each word."""
    return _empty(((less.numel() * (bits - shift) + 7) // 8,), torch.uint8)


def padded(x: Tensor, before: int, shift: int, bits: int, dealt: Tensor | None, pads: Tensor) -> Tensor:
    """As pads."""
    return _empty(pads.shape)


def unpack(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Words of the shape."""
    return _empty(shape)


def pack_bytes(x: Tensor, bits: int) -> Tensor:
    """A row of bytes, ceil(bits / 8) for each word."""
    return _empty((x.numel() * ((bits + 7) // 8),), torch.uint8)


def unpack_bytes(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Words of the shape."""
    return _empty(shape)


def unpack_runs(buffer: Tensor, bits: Sequence[int], shape: tuple[int, ...]) -> list[Tensor]:
    """Words of the shape for each."""
    return [_empty(shape) for _ in bits]


def pack_masked(x: Tensor, frac: int, pads: tuple[Tensor, Tensor], bits: int, out: Tensor) -> Tensor:
    """out."""
    return out


def taken_off(packed: Tensor, masks: Tensor, bits: int) -> Tensor:
    """masks."""
    return masks


def pack_bits(b: Tensor) -> Tensor:
    """A row of bytes, one for eight words."""
    return _empty(((b.numel() + 7) // 8,), torch.uint8)


def unpack_bits(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Words of the shape."""
    return _empty(shape)


def opened_products(
    mine: Tensor, theirs: Tensor, others: Sequence[Tensor], terms: Tensor, ends: Tensor, count: int
) -> list[Tensor]:
    """A row of bytes for each result."""
    return [_empty(((count + 7) // 8,), torch.uint8) for _ in range(len(ends))]


def parity(x: Tensor) -> Tensor:
    """As x."""
    return _empty(x.shape)


def population(e: Tensor, width: int) -> Tensor:
    """One for each vector."""
    return _empty(e.shape[:-1])


def onehot(digit: Tensor, width: int) -> Tensor:
    """One word per digit up to width 6, 2^(width-6) above, along a new last dimension."""
    return _empty((*digit.shape, 1 << max(width - 6, 0)))


def hidden_hots(half: Tensor, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """As half."""
    return _empty(half.shape, torch.uint8)


def hot_bit(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """e without its words, beside the digits."""
    return _empty(_together(e, digit))


def lookup(e: Tensor, digit: Tensor, width: int, table: Tensor) -> Tensor:
    """The same, once per table."""
    return _empty((table.shape[0], *_together(e, digit)))


def xor_of_products(rows: Tensor, terms: Tensor, ends: Tensor) -> Tensor:
    """A row for each result."""
    return _empty((len(ends), rows.shape[1]), torch.uint8)


def member(e: Tensor, digit: Tensor, width: int, members: Tensor) -> Tensor:
    """e without its words, beside the digits."""
    return _empty(_together(e, digit))


def above(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """e without its words, beside the digits."""
    return _empty(_together(e, digit))


def flags(asked: Sequence[Asked]) -> list[Tensor]:
    """For each a row of bytes, one for eight of e without its words, beside its digits."""
    return [pack_bits(_empty(_together(e, x))) for e, x, *_ in asked]


def zeros(x: Tensor, low: int, width: int) -> Tensor:
    """A row of bytes, one for eight digits."""
    return pack_bits(x)


def _together(e: Tensor, digit: Tensor) -> tuple[int, ...]:
    if e.shape[:-1] == digit.shape:
        return tuple(digit.shape)
    return broadcast(e.shape[:-1], digit.shape)


def _empty(shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> Tensor:
    return cast(Tensor, Outline(shape, dtype))

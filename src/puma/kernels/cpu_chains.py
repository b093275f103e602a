"""Chains of operations on words, one element at a time, compiled: each reads its operands once and writes its results
once, where torch would do so for every operation. On a few words a call costs a third of the calls it stands for: it is
given addresses, since an array's description takes longer than the work.

Operands of different shapes go the plain way. Whoever calls holds the tensors. It must not know what the words mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from puma import pool
from puma.kernels import plain
from puma.kernels.shapes import OPERATIONS, Pair
from puma.kernels.views import compiled

_LEAST = 1 << 17  # elements that a thread takes at least: some 60 us
_WHICH = {name: i for i, name in enumerate(OPERATIONS)}
_U = np.uint64
_I64 = ir.IntType(64)


def cut(x: Tensor, y: Tensor | None, before: int, shift: int, bits: int, after: int) -> Tensor:
    """((x + y + before) mod 2^bits >> shift) + after."""
    if shift == bits or not (_alike(x) if y is None else _alike(x, y)):
        return plain.cut(x, y, before, shift, bits, after)
    out = torch.empty_like(x)
    _run(
        _cut, x.numel(), _at_all(x, x if y is None else y, out), y is not None, _signed(before), shift, 64 - bits, after
    )
    return out


def joined(x: Tensor, y: Tensor, shift: int, after: int) -> Tensor:
    """x + (y << shift) + after."""
    if not _alike(x, y):
        return plain.joined(x, y, shift, after)
    out = torch.empty_like(x)
    _run(_joined, x.numel(), _at_all(x, y, out), shift, after)
    return out


def cut_both(
    x: Tensor, y: Tensor | None, z: Tensor, before: int, shift: int, bits: int, after: int
) -> tuple[Tensor, Tensor]:
    """`cut` of x and y, and of z with no constants."""
    if shift == bits or not (_alike(x, z) if y is None else _alike(x, y, z)):
        return cut(x, y, before, shift, bits, after), cut(z, None, 0, shift, bits, 0)
    out, low = torch.empty_like(x), torch.empty_like(x)
    places = _at_all(x, x if y is None else y, z, out, low)
    _run(_cut_both, x.numel(), places, y is not None, _signed(before), shift, 64 - bits, after)
    return out, low


def cut_digits(x: Tensor, y: Tensor | None, places: Sequence[tuple[int, int]]) -> Sequence[Tensor]:
    """The bits low .. low+width-1 of x + y, or of x alone, for each place (low, width)."""
    if not (_alike(x) if y is None else _alike(x, y)):
        return plain.cut_digits(x, y, places)
    out, count, lay = torch.empty((len(places), *x.shape), dtype=torch.int64), x.numel(), _laid(tuple(places))
    _run(_cut_digits, count, _at_all(x, x if y is None else y, out), y is not None, count, lay.data_ptr(), len(places))
    return out.unbind(0)


@lru_cache(maxsize=1 << 10)
def _laid(places: tuple[tuple[int, int], ...]) -> Tensor:
    """Of each place how far to shift up and then down; only to be read."""
    return torch.tensor([[64 - low - width, 64 - width] for low, width in places], dtype=torch.int64)


def joined_both(x: Tensor, y: Tensor, z: Tensor, w: Tensor, shift: int, after: int) -> tuple[Tensor, Tensor]:
    """`joined` of x and y, and of z and w with no constant."""
    if not _alike(x, y, z, w):
        return joined(x, y, shift, after), joined(z, w, shift, 0)
    out, low = torch.empty_like(x), torch.empty_like(x)
    _run(_joined_both, x.numel(), _at_all(x, y, z, w, out, low), shift, after)
    return out, low


def wraps(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """a and b modulo 2^bits, and of their sum (2, ...) the carry with the top bit added, and the carry."""
    if not _alike(a, b):
        return plain.wraps(a, b, bits)
    x, y, counts = torch.empty_like(a), torch.empty_like(a), torch.empty((2, *a.shape), dtype=torch.int64)
    _run(_wraps, a.numel(), _at_all(a, b, x, y) + _rows(counts, 2), bits)
    return x, y, counts


def picked(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a + before and b modulo 2^bits, and the second of the choices (2, ...) where the former's top bit is set."""
    if not (_alike(a, b) and _alike(choices) and choices.shape[1:] == a.shape):
        return plain.picked(a, b, before, bits, choices)
    x, y, z = torch.empty_like(a), torch.empty_like(a), torch.empty_like(a)
    _run(_picked, a.numel(), _at_all(a, b) + _rows(choices, 2) + _at_all(x, y, z), _signed(before), bits)
    return x, y, z


def raised_masks(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `wraps`, with 2^bits times the former of the counts taken off a; and the top bits."""
    if not _alike(a, b):
        return plain.raised_masks(a, b, bits)
    x, y, turn, counts = *(torch.empty_like(a) for _ in range(3)), torch.empty((2, *a.shape), dtype=torch.int64)
    _run(_raised_masks, a.numel(), _at_all(a, b, x, y) + _rows(counts, 2) + _at_all(turn), bits)
    return x, y, counts, turn


def raised(a: Tensor, b: Tensor, before: int, bits: int, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `picked`, less `before` again, with 2^bits times what was picked taken off b; and the top bits."""
    if not (_alike(a, b) and _alike(choices) and choices.shape[1:] == a.shape):
        return plain.raised(a, b, before, bits, choices)
    x, y, turn = (torch.empty_like(a) for _ in range(3))
    _run(_raised, a.numel(), _at_all(a, b) + _rows(choices, 2) + _at_all(x, y, turn), _signed(before), bits)
    return x, y, turn


def selected(v: Tensor, own: Tensor, m: Tensor, dealt: Tensor, first: bool) -> Tensor:
    """v w + (1 - 2 v) (rho m - rho_l), w being m - own if `first` and else -own."""
    if not (_alike(v, own, m) and _alike(dealt) and dealt.shape[1:] == v.shape):
        return plain.selected(v, own, m, dealt, first)
    out = torch.empty_like(v)
    _run(_selected, v.numel(), _at_all(v, own, m) + _rows(dealt, 2) + _at_all(out), first)
    return out


def line(dealt: Tensor, sign: Tensor, v: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """t0 e - t1 b + t2 with t = v times the sign and the first two dealt words, plus (1 - 2 v) times the others."""
    if not (_alike(sign, v, e, b) and _alike(dealt) and dealt.shape[1:] == v.shape):
        return plain.line(dealt, sign, v, e, b)
    out = torch.empty_like(v)
    _run(_line, v.numel(), _rows(dealt, 5) + _at_all(sign, v, e, b, out))
    return out


def selecting(rho: Tensor, x: Pair) -> Tensor:
    """(2, ...): rho, and rho times the sum of two."""
    if not _alike(rho, *x):
        return plain.selecting(rho, x)
    out = torch.empty((2, *rho.shape), dtype=torch.int64)
    _run(_selecting, rho.numel(), _at_all(rho, *x) + _rows(out, 2))
    return out


def line_masks(s: Tensor, lu: Tensor, e: Pair, b: Pair, rho: Tensor) -> Tensor:
    """(5, ...): s lu and s (lu b - e), and rho times s and these; e and b are sums of two."""
    if not _alike(s, lu, *e, *b, rho):
        return plain.line_masks(s, lu, e, b, rho)
    out = torch.empty((5, *s.shape), dtype=torch.int64)
    _run(_line_masks, s.numel(), _at_all(s, lu, *e, *b, rho) + _rows(out, 5))
    return out


def wordwise(operation: str, x: Tensor, *others: Tensor) -> Tensor:
    """What the operation of this name says; of many words by all threads."""
    if pool.threads() == 1 or x.numel() < 2 * _LEAST or not _alike(x, *others):
        return OPERATIONS[operation](x, *others)
    return many_wordwise(operation, x, *others)


def many_wordwise(operation: str, x: Tensor, *others: Tensor) -> Tensor:
    """The same in compiled code, of words that lie alike."""
    out = torch.empty_like(x)
    _run(_wordwise, x.numel(), _at_all(x, others[-1] if others else x, out), _WHICH[operation])
    return out


def _alike(first: Tensor, *others: Tensor) -> bool:
    """Whether all lie in order and have one shape."""
    if first.dtype is not torch.int64 or not first.is_contiguous() or not first.is_cpu:
        return False
    shape = first.shape
    for x in others:
        if x.shape != shape or x.dtype is not torch.int64 or not x.is_contiguous() or not x.is_cpu:
            return False
    return True


def _signed(constant: int) -> int:
    """A word's constant as 64 bits with a sign."""
    return (constant + (1 << 63)) % (1 << 64) - (1 << 63)


def _at_all(*tensors: Tensor) -> list[int]:
    """Their addresses."""
    return list(map(Tensor.data_ptr, tensors))


def _rows(x: Tensor, count: int) -> list[int]:
    """The addresses of so many equal parts of what lies in order."""
    place, each = x.data_ptr(), 8 * x.numel() // count
    return [place + each * i for i in range(count)]


def _run(work: Any, count: int, places: Sequence[int], *numbers: int) -> None:
    """All elements, with addresses and the numbers behind them."""
    if count < 2 * _LEAST or pool.threads() == 1:
        work(count, *places, *numbers)
    else:
        pool.split(lambda low, high: work(high - low, *(p + 8 * low for p in places), *numbers), count, _LEAST, 8)


def _access(write: bool) -> Any:
    """An intrinsic that reads or writes word i behind an address, as a number without a sign: it wraps by rule."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.gep(builder.inttoptr(values[0], _I64.as_pointer()), [values[1]])
        if not write:
            return builder.load(place, align=8)
        builder.store(values[2], place, align=8)
        return context.get_dummy_value()

    @intrinsic
    def read(typing: Any, address, i):  # type: ignore
        return types.uint64(types.int64, types.int64), generate

    @intrinsic
    def put(typing: Any, address, i, value):  # type: ignore
        return types.void(types.int64, types.int64, types.uint64), generate

    return put if write else read


_at, _put = _access(write=False), _access(write=True)


@compiled
def _wordwise(count, x, y, out, which):
    if which == 0:
        for i in range(count):
            _put(out, i, _at(x, i) + _at(y, i))
    elif which == 1:
        for i in range(count):
            _put(out, i, _at(x, i) - _at(y, i))
    elif which == 2:
        for i in range(count):
            _put(out, i, _at(x, i) * _at(y, i))
    elif which == 3:
        for i in range(count):
            _put(out, i, _at(x, i) ^ _at(y, i))
    else:
        for i in range(count):
            _put(out, i, _U(0) - _at(x, i))


@compiled
def _cut(count, x, y, out, both, before, shift, spare, after):
    first, last, left, right = _U(before), _U(after), _U(spare), _U(spare + shift)
    for i in range(count):
        total = _at(x, i) + first
        if both:
            total += _at(y, i)
        _put(out, i, ((total << left) >> right) + last)


@compiled
def _joined(count, x, y, out, shift, after):
    left, last = _U(shift), _U(after)
    for i in range(count):
        _put(out, i, _at(x, i) + (_at(y, i) << left) + last)


@compiled
def _cut_both(count, x, y, z, out, low, both, before, shift, spare, after):
    first, last, left, right = _U(before), _U(after), _U(spare), _U(spare + shift)
    for i in range(count):
        total = _at(x, i) + first
        if both:
            total += _at(y, i)
        _put(out, i, ((total << left) >> right) + last)
        _put(low, i, (_at(z, i) << left) >> right)


@compiled
def _cut_digits(count, x, y, out, both, stride, lay, places):
    for j in range(places):
        left, right, to = _at(lay, 2 * j), _at(lay, 2 * j + 1), out + 8 * stride * j
        for i in range(count):
            total = _at(x, i)
            if both:
                total += _at(y, i)
            _put(to, i, (total << left) >> right)


@compiled
def _joined_both(count, x, y, z, w, out, low, shift, after):
    left, last = _U(shift), _U(after)
    for i in range(count):
        _put(out, i, _at(x, i) + (_at(y, i) << left) + last)
        _put(low, i, _at(z, i) + (_at(w, i) << left))


@compiled
def _wraps(count, a, b, x, y, raised, carried, bits):
    mask, places, top = (_U(1) << _U(bits)) - _U(1), _U(bits), _U(bits - 1)
    for i in range(count):
        low, high = _at(a, i) & mask, _at(b, i) & mask
        total = low + high
        carry = total >> places
        _put(x, i, low)
        _put(y, i, high)
        _put(carried, i, carry)
        _put(raised, i, carry + ((total >> top) & _U(1)))


@compiled
def _picked(count, a, b, low, high, x, y, z, before, bits):
    mask, first, top = (_U(1) << _U(bits)) - _U(1), _U(before), _U(bits - 1)
    for i in range(count):
        word = (_at(a, i) + first) & mask
        chosen = _U(0) - (word >> top)
        _put(x, i, word)
        _put(y, i, _at(b, i) & mask)
        _put(z, i, (_at(low, i) & ~chosen) | (_at(high, i) & chosen))


@compiled
def _raised_masks(count, a, b, x, y, raised, carried, turn, bits):
    mask, places, last = (_U(1) << _U(bits)) - _U(1), _U(bits), _U(bits - 1)
    for i in range(count):
        low, high = _at(a, i) & mask, _at(b, i) & mask
        total = low + high
        carry, top = total >> places, (total >> last) & _U(1)
        _put(x, i, low - ((carry + top) << places))
        _put(y, i, high)
        _put(raised, i, carry + top)
        _put(carried, i, carry)
        _put(turn, i, top)


@compiled
def _raised(count, a, b, low, high, x, y, turn, before, bits):
    mask, first, places, last = (_U(1) << _U(bits)) - _U(1), _U(before), _U(bits), _U(bits - 1)
    for i in range(count):
        word = (_at(a, i) + first) & mask
        top = word >> last
        chosen = _U(0) - top
        _put(x, i, word - first)
        _put(y, i, (_at(b, i) & mask) - (((_at(low, i) & ~chosen) | (_at(high, i) & chosen)) << places))
        _put(turn, i, top)


@compiled
def _selected(count, v, own, m, rho, rho_l, out, first):
    for i in range(count):
        flag, word = _at(v, i), _at(m, i)
        mine = _U(0) - _at(own, i)
        if first:
            mine += word
        _put(out, i, flag * mine + (_U(1) - _U(2) * flag) * (_at(rho, i) * word - _at(rho_l, i)))


@compiled
def _line(count, base_1, base_2, more_0, more_1, more_2, sign, v, e, b, out):
    for i in range(count):
        flag = _at(v, i)
        flip = _U(1) - _U(2) * flag
        t_0 = _at(sign, i) * flag + flip * _at(more_0, i)
        t_1 = _at(base_1, i) * flag + flip * _at(more_1, i)
        t_2 = _at(base_2, i) * flag + flip * _at(more_2, i)
        _put(out, i, t_0 * _at(e, i) - t_1 * _at(b, i) + t_2)


@compiled
def _selecting(count, rho, a, b, first, second):
    for i in range(count):
        bit = _at(rho, i)
        _put(first, i, bit)
        _put(second, i, bit * (_at(a, i) + _at(b, i)))


@compiled
def _line_masks(count, s, lu, e_1, e_2, b_1, b_2, rho, x_1, x_2, y_0, y_1, y_2):
    for i in range(count):
        sign, low, bit = _at(s, i), _at(lu, i), _at(rho, i)
        first = sign * low
        second = sign * (low * (_at(b_1, i) + _at(b_2, i)) - (_at(e_1, i) + _at(e_2, i)))
        _put(x_1, i, first)
        _put(x_2, i, second)
        _put(y_0, i, bit * sign)
        _put(y_1, i, bit * first)
        _put(y_2, i, bit * second)

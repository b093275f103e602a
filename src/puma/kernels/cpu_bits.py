"""Polynomials over GF(2) in rows of packed bits, compiled: every result in one pass over what it is made of; and how
many bits are set. It must not know where the bits come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.views import bits_set, compiled, lying, octets_at, words_at

_BLOCK = 4096  # bytes of a result that are finished before the next ones: they stay in the first-level cache
_LEAST = 1 << 20  # bytes that a thread multiplies at least: some 60 us
_FEW = 1024  # bytes of a row up to which all is copied and done in one call
_FEWEST = 1 << 14  # vectors that a thread counts at least: some 20 us
_U = np.uint64


def xor_of_products(rows: Tensor, terms: Tensor, ends: Tensor) -> Tensor:
    """(results, bytes): result r is the xor of the terms ends[r - 1] .. ends[r], each the product of its rows."""
    count, width = rows.shape
    results, every, factors = len(ends), len(terms), terms.shape[1]
    out = torch.empty((results, width), dtype=torch.uint8)
    if out.numel():
        rows, terms, ends = lying(rows, torch.uint8), lying(terms), lying(ends)
        source, which, until, to = rows.data_ptr(), terms.data_ptr(), ends.data_ptr(), out.data_ptr()
        sizes = source, which, until, every, results, factors, count, width, to
        least = -(-_LEAST // max(every * factors, 1))
        if width < 2 * least:
            _xor_of_products(*sizes, 0, width)
        else:
            pool.split(lambda low, high: _xor_of_products(*sizes, low, high), width, least, 64)
    return out


def opened_products(
    mine: Tensor, theirs: Tensor, others: Sequence[Tensor], terms: Tensor, ends: Tensor, count: int
) -> Sequence[Tensor]:
    """Polynomials in the rows mine ^ theirs and those of the others below, with zeros behind so many bits."""
    width = mine.shape[1]
    if width != (count + 7) // 8:
        raise ValueError(f"{width} bytes are not a row of {count} bits")
    if not 0 < width <= _FEW or len(others) != 3:
        out = xor_of_products(torch.cat([mine ^ theirs, *others]), terms, ends)
        if count % 8:
            out[:, -1] &= (1 << count % 8) - 1
        return out.unbind(0)
    out = torch.empty((len(ends), width), dtype=torch.uint8)
    lie = [lying(rows, torch.uint8) for rows in (mine, theirs, *others)]
    terms, ends = lying(terms), lying(ends)
    places = [rows.data_ptr() for rows in (*lie, terms, ends, out)]
    sizes = [len(rows) for rows in (mine, *others)]
    _opened_products(*places, *sizes, width, *terms.shape, len(ends), (1 << ((count - 1) % 8 + 1)) - 1)
    return out.unbind(0)


@compiled
def _opened_products(
    mine, theirs, first, second, third, which, until, result, opened, one, two, three, width, every, factors, results,
    last,
):  # fmt: skip
    rows, found, at = np.empty((opened + one + two + three) * width, np.uint8), octets_at(result, results * width), 0
    a, b = octets_at(mine, opened * width), octets_at(theirs, opened * width)
    for i in range(opened * width):
        rows[i] = a[i] ^ b[i]
    at = opened * width
    for place, size in ((first, one * width), (second, two * width), (third, three * width)):
        part = octets_at(place, size)
        for i in range(size):
            rows[at + i] = part[i]
        at += size
    total = opened + one + two + three
    _xor_of_products(rows.ctypes.data, which, until, every, results, factors, total, width, result, 0, width)
    for r in range(results):
        found[r * width + width - 1] &= np.uint8(last)
    return rows.size  # so that they are there until here


def population(e: Tensor, width: int) -> Tensor:
    """How many of the positions of each vector (..., words) are set."""
    e = lying(e)
    out, per = torch.empty(e.shape[:-1], dtype=torch.int64), e.shape[-1]
    mask = (1 << (1 << width)) - 1 if width < 6 else -1
    count, source, to = out.numel(), e.data_ptr(), out.data_ptr()
    if 0 < count < 2 * _FEWEST:
        _population(count, source, per, mask, to)
    elif count:
        pool.split(
            lambda low, high: _population(high - low, source + 8 * per * low, per, mask, to + 8 * low), count, _FEWEST
        )
    return out


@compiled
def _xor_of_products(source, which, until, every, results, factors, count, width, result, start, stop):
    rows, out = octets_at(source, count * width), octets_at(result, results * width)
    terms, ends = words_at(which, every * factors), words_at(until, results)
    product = np.empty(_BLOCK, np.uint8)
    for low in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - low)
        first = 0
        for r in range(results):
            total = out[r * width + low : r * width + low + size]
            total[:] = 0
            for term in range(first, ends[r]):
                if terms[term * factors] < 0:
                    product[:size] = 255
                for k in range(factors):
                    row = terms[term * factors + k]
                    if row < 0:
                        break
                    if row >= count:
                        raise ValueError("a term names a row that there is not")
                    source_row = rows[row * width + low : row * width + low + size]
                    if k == 0:
                        product[:size] = source_row
                    else:
                        for i in range(size):
                            product[i] &= source_row[i]
                for i in range(size):
                    total[i] ^= product[i]
            first = ends[r]


@compiled
def _population(count, source, per, mask, result):
    e, out = words_at(source, count * per), words_at(result, count)
    for i in range(count):
        total = _U(0)
        for k in range(i * per, i * per + per):
            total += bits_set(_U(e[k] & mask))
        out[i] = np.int64(total)

"""Polynomials over GF(2) in rows of packed bits, compiled: every result in one pass over what it is made of; and how
many bits are set. It must not know where the bits come from.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.views import compiled, lying, octets_at, words_at

_BLOCK = 4096  # bytes of a result that are finished before the next ones: they stay in the first-level cache
_LEAST = 1 << 18  # bytes that a thread multiplies at least: some 15 us
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


def population(e: Tensor, width: int) -> Tensor:
    """How many of the positions of each vector (..., words) are set."""
    e = lying(e)
    out, per = torch.empty(e.shape[:-1], dtype=torch.int64), e.shape[-1]
    mask = (1 << (1 << width)) - 1 if width < 6 else -1
    source, to = e.data_ptr(), out.data_ptr()
    if out.numel():
        pool.split(
            lambda low, high: _population(high - low, source + 8 * per * low, per, mask, to + 8 * low),
            *(out.numel(), _FEWEST),
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
            word = _U(e[k] & mask)
            word -= (word >> _U(1)) & _U(0x5555555555555555)
            word = (word & _U(0x3333333333333333)) + ((word >> _U(2)) & _U(0x3333333333333333))
            word = (word + (word >> _U(4))) & _U(0x0F0F0F0F0F0F0F0F)
            total += (word * _U(0x0101010101010101)) >> _U(56)
        out[i] = np.int64(total)

"""Polynomials over GF(2) in rows of packed bits, compiled: every result in one pass over what it is made of. It must
not know where the bits come from.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.views import compiled, octets, words

_BLOCK = 4096  # bytes of a result that are finished before the next ones: they stay in the first-level cache
_LEAST = 1 << 20  # bytes that a thread multiplies at least: some 50 us


def xor_of_products(rows: Tensor, terms: Tensor, ends: Tensor) -> Tensor:
    """(results, bytes): result r is the xor of the terms ends[r - 1] .. ends[r], each the product of its rows."""
    count, width = rows.shape
    out = torch.empty((len(ends), width), dtype=torch.uint8)
    if out.numel():
        source, target, factors = octets(rows), octets(out), terms.shape[1]
        which, until = words(terms), words(ends)
        pool.split(
            lambda low, high: _xor_of_products(source, which, until, factors, count, width, target, low, high),
            *(width, -(-_LEAST // max(terms.numel(), 1)), 64),
        )
    return out


@compiled
def _xor_of_products(rows, terms, ends, factors, count, width, out, start, stop):
    product = np.empty(_BLOCK, np.uint8)
    for low in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - low)
        first = 0
        for result in range(ends.size):
            total = out[result * width + low : result * width + low + size]
            total[:] = 0
            for term in range(first, ends[result]):
                if terms[term * factors] < 0:
                    product[:size] = 255
                for k in range(factors):
                    row = terms[term * factors + k]
                    if row < 0:
                        break
                    if row >= count:
                        raise ValueError("a term names a row that there is not")
                    source = rows[row * width + low : row * width + low + size]
                    if k == 0:
                        product[:size] = source
                    else:
                        for i in range(size):
                            product[i] &= source[i]
                for i in range(size):
                    total[i] ^= product[i]
            first = ends[result]

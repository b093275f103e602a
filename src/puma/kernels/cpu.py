"""Every kernel compiled for the CPU: by the threads of `puma.pool`, Python's lock released, bit for bit what `plain`
says (a matmul only in the bits its ring keeps). The cpu_* files beside it do the work; this one is their surface, and
must not know shares, parties or links.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.cpu_bits import opened_products, population, xor_of_products
from puma.kernels.cpu_chains import (
    cut,
    cut_both,
    cut_digits,
    joined,
    joined_both,
    line,
    line_masks,
    picked,
    raised,
    raised_masks,
    selected,
    selecting,
    wordwise,
    wraps,
)
from puma.kernels.cpu_matmul import matmul
from puma.kernels.cpu_onehot import above, hot_bit, member, onehot, parity
from puma.kernels.cpu_packed import chosen_packed, linear_packed, matmul_packed, taken_off
from puma.kernels.cpu_stored import linear_stored, matmul_stored, spread
from puma.kernels.cpu_wire import (
    pack,
    pack_bits,
    pack_bytes,
    pack_masked,
    unpack,
    unpack_bits,
    unpack_bytes,
    unpack_runs,
)
from puma.kernels.digits.cpu_lookup import lookup
from puma.kernels.plain import reduce
from puma.kernels.rounds.cpu_flags import flags, zeros
from puma.kernels.rounds.cpu_hiding import hidden_hots
from puma.kernels.rounds.cpu_opened import packed_less, padded
from puma.kernels.views import compiled, words

__all__ = [
    "above",
    "chosen_packed",
    "cut",
    "cut_both",
    "cut_digits",
    "flags",
    "hidden_hots",
    "hot_bit",
    "joined",
    "joined_both",
    "line",
    "line_masks",
    "linear_packed",
    "linear_stored",
    "lookup",
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
    "unpack",
    "unpack_bits",
    "unpack_bytes",
    "unpack_runs",
    "wordwise",
    "wraps",
    "xor_of_products",
    "zeros",
]

_LEAST = 1 << 17  # words that a thread takes at least: some 60 us


def shift_right(x: Tensor, shift: int, bits: int) -> Tensor:
    """The reduced word shifted right: an element of the ring of bits - shift bits."""
    if shift == bits:
        return torch.zeros_like(x)
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        source, target = words(x), words(out)
        pool.split(
            lambda low, high: _shift_right(source[low:high], target[low:high], 64 - bits, 64 - bits + shift),
            *(x.numel(), _LEAST),
        )
    return out


def signed(x: Tensor, bits: int) -> Tensor:
    """The representative in -2^(bits-1) .. 2^(bits-1) - 1."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        source, target = words(x), words(out)
        pool.split(lambda low, high: _signed(source[low:high], target[low:high], 64 - bits), x.numel(), _LEAST)
    return out


@compiled
def _shift_right(x, out, left, right):
    for i in range(x.size):
        out[i] = np.int64((np.uint64(x[i]) << np.uint64(left)) >> np.uint64(right))


@compiled
def _signed(x, out, places):
    for i in range(x.size):
        out[i] = (x[i] << places) >> places

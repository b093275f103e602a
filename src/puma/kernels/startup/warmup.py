"""Whether this machine has compiled the kernels yet, and how to do so once instead of in three processes.

It knows the kernels' surface and the compiler's cache on disk; it must not know models, parties or processes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba.core.registry import CPUDispatcher

from puma import kernels
from puma.kernels import (
    cpu,
    cpu_bits,
    cpu_chains,
    cpu_eight,
    cpu_few,
    cpu_few_stored,
    cpu_matmul,
    cpu_onehot,
    cpu_packed,
    cpu_stored,
    cpu_wire,
)
from puma.kernels.cpu_eight import SOME
from puma.kernels.digits import cpu_lookup, permutes, turning
from puma.kernels.files import cpu_bytes, reading
from puma.kernels.files.amx import SIDE, granted
from puma.kernels.rounds import cpu_flags, cpu_opened, message
from puma.kernels.tiles import WIDE
from puma.kernels.views import octets, span

_ROOMS = (
    *(cpu, cpu_bits, cpu_chains, cpu_eight, cpu_few, cpu_few_stored, cpu_matmul, cpu_onehot, cpu_packed, cpu_stored),
    *(cpu_flags, cpu_lookup, permutes, turning, reading, cpu_wire, cpu_opened),
    *((cpu_bytes,) if granted() else ()),
)


@dataclass(frozen=True)
class Kernels:
    """How many of the compiled functions lie on disk; `folder` is None where no place can be written."""

    compiled: int
    total: int
    folder: str | None

    @property
    def ready(self) -> bool:
        """Whether nothing is left to compile."""
        return self.compiled == self.total


def state() -> Kernels:
    """Look into the cache: loads the compiler, compiles nothing."""
    functions = _functions()
    folders = [f.stats.cache_path for f in functions if f.stats.cache_path]
    return Kernels(sum(map(_on_disk, functions)), len(functions), folders[0] if folders else None)


def compile_kernels() -> None:
    """Call each kernel once, on a few words; what it leaves on disk the parties load in a moment."""
    x = torch.arange(8)
    hot, table = kernels.onehot(x, 3), torch.ones((1, 8), dtype=torch.int64)
    for digits in (x, x.repeat(4)):
        kernels.lookup(kernels.onehot(digits, 3), digits, 3, table)
    kernels.member(hot, x, 3, table[0])
    kernels.above(hot, x, 3)
    kernels.hot_bit(hot, x, 3)
    kernels.hidden_hots(x.to(torch.uint8), x, [(0, 3)])
    kernels.flags([(hot, x, 0, 3, table[0]), (hot, x, 0, 3, None)])
    kernels.parity(x)
    cpu_chains.many_wordwise("xor", x, x)
    kernels.matmul(x.reshape(2, 4), x.reshape(4, 2))
    kernels.signed(kernels.shift_right(x, 1, 34), 33)
    low, high, counts = kernels.wraps(x, x, 34)
    kernels.cut_digits(x, x, [(0, 3)])
    kernels.picked(low, high, 1, 34, counts)
    kernels.raised_masks(x, x, 34)
    kernels.raised(x, x, 1, 34, counts)
    kernels.joined(kernels.cut(x, x, 1, 2, 34, -1), x, 3, 1)
    kernels.joined_both(*kernels.cut_both(x, x, x, 1, 2, 34, -1), x, x, 3, 1)
    kernels.selected(x, x, x, kernels.selecting(x, (x, x)), True)
    kernels.line(kernels.line_masks(x, x, (x, x), (x, x), x), kernels.population(hot, 3), x, x, x)
    kernels.unpack(kernels.pack(x, 34), 34, (8,))
    kernels.unpack_runs(kernels.pack(x, 2), [2], (8,))
    kernels.padded(x, 1, 2, 36, kernels.packed_less(x, 1, 2, 36, x), x)
    message.read(message.write([(x, 1)]), [(x, 1)], joined=[message.SUM])
    kernels.unpack_bytes(kernels.pack_bytes(x, 34), 34, (8,))
    pads = kernels.pack_bytes(x, 48)
    kernels.pack_masked(x.double(), 1, (pads, pads), 48, pads.clone())
    kernels.taken_off(pads, pads.clone(), 48)
    # which not every processor calls
    cpu_few.few_linear(WIDE, span(x), 8, 1, octets(pads), 6, span(x.clone()), 1, 0, 8, 0, 1)
    eight, room = octets(pads.repeat(8)), np.empty(1 << 13, np.int64)
    cpu_packed.linear_turned(WIDE, span(x), 8, 1, eight, 1, eight, 0, 6, room, span(x.clone()), 8, 0, 8, 0, 8)
    cpu_packed.matmul_banded(WIDE, span(x), 8, 1, eight, 1, eight, 0, 6, room, span(x.clone()), 8, 0, 8, 8, 0, 8)
    for n in (1, SOME + 1):
        rows = x.expand(n, 8)
        kernels.linear_packed(rows, [pads, pads], [1, 1], 48, rows[:, :1].clone())
        kernels.matmul_packed(rows[:, :1], [pads], [1], 48, rows.clone())
        kernels.matmul_packed(rows[:, :1], [pads[:42]], [1], 48, rows[:, :7].clone())
        kernels.chosen_packed(rows[:, :1] & 1, [pads], [1], 48, rows.clone())
    matrix = kernels.Stored(pads[:32], "i32", 8)
    kernels.spread(matrix, 0)
    kernels.linear_stored(x.reshape(1, 8), matrix, 0, 48, x[:1].reshape(1, 1).clone())
    floats = kernels.Stored(torch.zeros(8 * cpu_few_stored.BLOCK, dtype=torch.uint8), "bf16", cpu_few_stored.BLOCK)
    kernels.linear_stored(x[:1].expand(1, floats.columns), floats, 0, 48, x[:4].reshape(1, 4).clone())
    ones, left = np.ones(8, np.float32), span(x.clone())
    cpu_stored.linear_turned(True, span(x), 8, 1, 0, eight, ones, room, left, 8, 8, 8, 0, 8)
    if granted():
        square = kernels.Stored(torch.zeros(4 * SIDE * SIDE, dtype=torch.uint8), "i32", SIDE)
        cpu_bytes.linear_bytes(x.repeat(2).expand(1, SIDE), square, 0, 48, x.repeat(2).reshape(1, SIDE))
    kernels.matmul_stored(x[:1].reshape(1, 1), matrix, 0, 48, x.reshape(1, 8).clone())
    kernels.unpack_bits(kernels.zeros(x, 0, 3), (8,))
    kernels.xor_of_products(pads.reshape(2, -1), torch.tensor([[0, 1]]), torch.tensor([1]))
    row = pads[:1].reshape(1, 1)
    kernels.opened_products(row, row, (row, row, row), torch.tensor([[0, 1]]), torch.tensor([1]), 8)


def _functions() -> list[Any]:
    found = [f for room in _ROOMS for f in vars(room).values()]
    return list({id(f): f for f in found if isinstance(f, CPUDispatcher)}.values())


def _on_disk(function: Any) -> bool:
    """Whether the index of the cache lists this function as it stands now, for this processor; no public way tells."""
    with contextlib.suppress(Exception):
        here = function.targetctx.codegen().magic_tuple()
        return any(made == here for _, made, _ in function._cache._cache_file._load_index())
    return False

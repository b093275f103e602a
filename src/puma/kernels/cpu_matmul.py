"""The ring matmul on a CPU: which tile runs over which block. It reads both factors where they lie, through their
strides (a weight given transposed, as torch keeps a linear layer's, is never copied) and must not know what
they mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from puma import pool
from puma.kernels.shapes import broadcast
from puma.kernels.tiles import CHOOSING, LANES, NARROW, NARROW_BITS, WIDE, dot_tile, spread_tile, stream_tile
from puma.kernels.views import compiled, span

_DEPTH = 1024  # of dot products at a time, so that four rows of b stay in the first-level cache
_ROWS, _COLUMNS = 64, 1024  # of c that stay in the second-level cache while b streams by
_LEAST = 1 << 21  # multiply-adds of a thread, at least: some 80 us
TURNED = 3 * LANES  # columns of b whose sums with eight rows of a stay in registers
SHALLOW = 128  # rows of b with so many columns that stay in the first-level cache
_FEW_ROWS = 16  # of a, for which a thread need not read all of b

_dots_4x4, _dots_1x4, _dots_1x1 = dot_tile(4, 4), dot_tile(1, 4), dot_tile(1, 1)
_spread_8x3, _spread_8x1, _spread_1x1 = spread_tile(3, 8), spread_tile(1, 8), spread_tile(1, 1)
_stream_4x4, _stream_1x8, _stream_1x1 = stream_tile(4, 4), stream_tile(1, 8), stream_tile(1, 1)


def matmul(a: Tensor, b: Tensor, bits: int = 64, out: Tensor | None = None) -> Tensor:
    """a @ b, right modulo 2^bits; with `out`, added into it."""
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"cannot multiply {tuple(a.shape)} by {tuple(b.shape)}")
    lead = broadcast(a.shape[:-2], b.shape[:-2]) if a.dim() + b.dim() > 4 else ()
    n, k, m = a.shape[-2], a.shape[-1], b.shape[-1]
    if out is not None and out.shape != (*lead, n, m):
        raise ValueError(f"cannot add {(*lead, n, m)} into {tuple(out.shape)}")
    result = out
    if result is None or not result.is_contiguous():
        result = a.new_zeros((*lead, n, m))
    if k and result.numel():
        _run(a, b, result, lead, (n, k, m), NARROW if bits <= NARROW_BITS else WIDE)
    return result if out is None or out is result else out.add_(result)


def _run(a: Tensor, b: Tensor, c: Tensor, lead: Any, sizes: tuple[int, int, int], mode: int) -> None:
    n, k, m = sizes
    if b.dim() == 2 and a.dim() > 2:
        # one matrix for the whole batch: the batch is only more rows
        a = a.reshape(-1, k)
        lead, n = (), a.shape[0]
    if a.stride(-1) != 1 and k > 1:
        a = a.contiguous()
    along_k = b.stride(-2) == 1 and (b.stride(-1) != 1 or k >= m)
    if not along_k and b.stride(-1) != 1 and m > 1:
        b = b.contiguous()
    x, x_starts, x_stride = span(a), _offsets(a, lead), a.stride(-2)
    y, y_starts, y_stride = span(b), _offsets(b, lead), b.stride(-1) if along_k else b.stride(-2)
    z, batch = span(c), x_starts.size

    def matrices(low: int, high: int) -> None:
        left, right = (x, x_starts[low:high], x_stride), (y, y_starts[low:high], y_stride, along_k)
        _batch(*left, *right, z[low * n * m :], n * m, m, n, k, m, mode)

    def rows(low: int, high: int) -> None:
        left, right = (x[low * x_stride :], x_starts, x_stride), (y, y_starts, y_stride, along_k)
        _batch(*left, *right, z[low * m :], n * m, m, high - low, k, m, mode)

    def columns(low: int, high: int) -> None:
        right = (y[low * (y_stride if along_k else 1) :], y_starts, y_stride, along_k)
        _batch(x, x_starts, x_stride, *right, z[low:], n * m, m, n, k, high - low, mode)

    work, threads = batch * n * k * m, pool.threads()
    if threads == 1 or work < 2 * _LEAST:
        matrices(0, batch)
    elif batch % threads == 0 or batch >= 4 * threads:
        pool.split(matrices, batch, _least(work, batch))
    elif n >= _FEW_ROWS * threads or n >= m:
        pool.split(rows, n, _least(work, n), 4)
    else:
        pool.split(columns, m, _least(work, m), LANES)


def _least(work: int, size: int) -> int:
    """How much of a size makes it worth to wake a thread."""
    return -(-_LEAST * size // work)


def _offsets(x: Tensor, lead: Any) -> np.ndarray:
    if not lead:
        return _START
    return _starts(tuple(lead), x.expand(*lead, *x.shape[-2:]).stride()[:-2])


_START = np.zeros(1, np.int64)


@lru_cache(maxsize=256)
def _starts(sizes: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """Where each matrix of a batch begins."""
    starts = np.zeros(1, np.int64)
    for size, stride in zip(sizes, strides):
        starts = np.add.outer(starts, np.arange(size, dtype=np.int64) * stride).ravel()
    return starts


@compiled
def _batch(a, a_starts, a_stride, b, b_starts, b_stride, along_k, c, c_step, c_stride, n, k, m, mode):
    for i in range(a_starts.size):
        if along_k:
            dots(mode, a, a_starts[i], a_stride, b, b_starts[i], b_stride, c, i * c_step, c_stride, n, k, m)
            continue
        for row in range(0, n, _ROWS):
            x, z = a_starts[i] + row * a_stride, i * c_step + row * c_stride
            streams(mode, a, x, a_stride, b, b_starts[i], b_stride, c, z, c_stride, min(_ROWS, n - row), k, m)


@compiled
def dots(mode, a, a_at, a_stride, b, b_at, b_stride, c, c_at, c_stride, n, k, m):
    """b with unit stride along k: dot products, straight from where the factors lie."""
    for start in range(0, k, _DEPTH):
        depth = min(_DEPTH, k - start)
        for j in range(0, m - m % 4, 4):
            y = b_at + j * b_stride + start
            for i in range(0, n - n % 4, 4):
                x, z = a_at + i * a_stride + start, c_at + i * c_stride + j
                _dots_4x4(mode, depth, a, x, a_stride, b, y, b_stride, c, z, c_stride)
            for i in range(n - n % 4, n):
                x, z = a_at + i * a_stride + start, c_at + i * c_stride + j
                _dots_1x4(mode, depth, a, x, a_stride, b, y, b_stride, c, z, c_stride)
        for j in range(m - m % 4, m):
            y = b_at + j * b_stride + start
            for i in range(n):
                x, z = a_at + i * a_stride + start, c_at + i * c_stride + j
                _dots_1x1(mode, depth, a, x, a_stride, b, y, b_stride, c, z, c_stride)


@compiled
def spreads(mode, a, a_at, a_stride, b, b_stride, c, c_at, c_stride, n, k, m):
    """b with unit stride along its columns, m = 24 or 8 of them, few enough rows to stay in the first-level cache."""
    for i in range(0, n - n % 8, 8):
        x, z = a_at + i * a_stride, c_at + i * c_stride
        if m == TURNED:
            _spread_8x3(mode, k, a, x, a_stride, b, 0, b_stride, c, z, c_stride)
        else:
            _spread_8x1(mode, k, a, x, a_stride, b, 0, b_stride, c, z, c_stride)
    for i in range(n - n % 8, n):
        x, z = a_at + i * a_stride, c_at + i * c_stride
        for j in range(0, m, LANES):
            _spread_1x1(mode, k, a, x, a_stride, b, j, b_stride, c, z + j, c_stride)


@compiled
def streams(mode, a, a_at, a_stride, b, b_at, b_stride, c, c_at, c_stride, n, k, m):
    """b with unit stride along its columns: its rows go by once, in order, over a block of c that stays."""
    whole, sign = m - m % LANES, -1 if mode == CHOOSING else 1
    for j in range(0, whole, _COLUMNS):
        count = min(_COLUMNS, whole - j)
        for start in range(0, k - k % 8, 8):
            y = b_at + start * b_stride + j
            for i in range(0, n - n % 4, 4):
                x, z = a_at + i * a_stride + start, c_at + i * c_stride + j
                _stream_4x4(mode, count, a, x, a_stride, b, y, b_stride, c, z, c_stride)
                _stream_4x4(mode, count, a, x + 4, a_stride, b, y + 4 * b_stride, b_stride, c, z, c_stride)
            for i in range(n - n % 4, n):
                x, z = a_at + i * a_stride + start, c_at + i * c_stride + j
                _stream_1x8(mode, count, a, x, a_stride, b, y, b_stride, c, z, c_stride)
        for start in range(k - k % 8, k):
            for i in range(n):
                x, y, z = a_at + i * a_stride + start, b_at + start * b_stride + j, c_at + i * c_stride + j
                _stream_1x1(mode, count, a, x, a_stride, b, y, b_stride, c, z, c_stride)
    for i in range(n):
        for start in range(k):
            for j in range(whole, m):
                c[c_at + i * c_stride + j] += sign * a[a_at + i * a_stride + start] * b[b_at + start * b_stride + j]

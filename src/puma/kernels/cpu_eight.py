"""Products of a few dozen rows at most with a matrix that stays packed in six or five bytes a word (`pack_bytes`):
words are spread in a register, meet up to eight rows there, and are written nowhere.

Three rows of the matrix go by side by side. As many sums as eight rows make with three stay in registers, each word of
the rows that is loaded serves thrice, and memory is asked for more at a time, which is what one row waits for. Only for
processors that multiply and add at once (AVX-512 IFMA) and shuffle bytes anywhere (VBMI); for others `cpu_few` and
`cpu_packed` have loops. It must not know what the matrices are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from puma.kernels.cpu_few import ANYWHERE, eight_words
from puma.kernels.tiles import FUSED, LANES, NARROW, WIDE, ZERO, Tile
from puma.kernels.views import compiled

EIGHT = FUSED and ANYWHERE  # whether this processor is one of them
SOME = 31  # rows: of more, words that are written down as columns serve so often that it pays
_TALL, _LOW, _PAIR = 8, 4, 2  # rows that meet words in a register
_BESIDE = 3  # rows of the matrix at a time
_DEPTH = 4096  # words of a row at a time: of eight rows they stay in the second-level cache
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _tile(rows: int) -> Any:
    """An intrinsic: sums[r, j] = the sum of a[r, k] w[j, k] over `count` words k, a multiple of eight.

    w is p, or p + q or p - q as `second` (0, 1, -1) says. Rows behind the last ones are not there, and nothing is read
    of them: the last one stands in, and their sums mean nothing.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        count, _, a_at, a_stride, a_last, _, p_at, _, q_at, width, w_stride, w_last, second, _ = values
        a, p, q, sums = (context.make_array(signature.args[i])(context, builder, values[i]).data for i in (1, 5, 7, 13))
        lefts = _starts(builder, builder.gep(a, [a_at]), a_stride, a_last, rows)
        ps, qs = (_starts(builder, builder.gep(w, [at]), w_stride, w_last, _BESIDE) for w, at in ((p, p_at), (q, q_at)))
        ahead = builder.mul(w_stride, _I64(_BESIDE))  # where the next ones begin
        tile = Tile(builder, {}, count, NARROW if FUSED else WIDE)

        def emit(join: Callable[[Any, Any], Any] | None) -> None:
            def step(k: Any, totals: list[Any]) -> list[Any]:
                at = builder.mul(k, width)
                rights = [eight_words(builder, builder.gep(place, [at]), ahead, width) for place in ps]
                if join:
                    others = [eight_words(builder, builder.gep(place, [at]), ahead, width) for place in qs]
                    rights = [join(x, y) for x, y in zip(rights, others)]
                found = list[Any]()
                for r, place in enumerate(lefts):
                    left = tile.load(tile.after(place, k))
                    mine = totals[r * _BESIDE : (r + 1) * _BESIDE]
                    found += [tile.multiply_add(total, left, right) for total, right in zip(mine, rights)]
                return found

            for i, total in enumerate(tile.loop(count, LANES, [ZERO] * (rows * _BESIDE), step)):
                builder.store(tile.totals([total]), builder.gep(sums, [_I64(i)]))

        with builder.if_else(builder.icmp_signed("==", second, _I64(0))) as (alone, both):
            with alone:
                emit(None)
            with both, builder.if_else(builder.icmp_signed(">", second, _I64(0))) as (plus, minus):
                with plus:
                    emit(builder.add)
                with minus:
                    emit(builder.sub)
        return context.get_dummy_value()

    @intrinsic
    def work(typing: Any, count, a, a_at, a_stride, a_last, p, p_at, q, q_at, width, w_stride, w_last, second, sums):  # type: ignore
        number = types.int64
        left, right = (a, number, number, number), (p, number, q, number, number, number, number, number)
        return types.void(number, *left, *right, sums), generate

    return work


def _starts(builder: Any, first: Any, stride: Any, last: Any, count: int) -> list[Any]:
    """Where each of so many rows begins, and again the last one of those that there are."""
    found = list[Any]()
    for i in range(count):
        row = builder.select(builder.icmp_signed("<", _I64(i), last), _I64(i), last)
        found.append(builder.gep(first, [builder.mul(row, stride)]))
    return found


_tall, _low, _pair, _one = _tile(_TALL), _tile(_LOW), _tile(_PAIR), _tile(1)


def _eight_linear(a, a_stride, n, p, sign, q, second, width, sums, c, c_stride, first, k, low, high):
    """c[:, first+low:first+high] += sign * a @ w^T for the rows low .. high of k words, k a multiple of eight; w is
    p + second * q."""
    for start in range(0, k, _DEPTH):
        depth = min(_DEPTH, k - start)
        for row in range(low, high, _BESIDE):
            some, at = min(_BESIDE, high - row), (row * k + start) * width
            for top in range(0, n, _TALL):
                rows, left = min(_TALL, n - top), top * a_stride + start
                if rows > _LOW:
                    _tall(depth, a, left, a_stride, rows - 1, p, at, q, at, width, k * width, some - 1, second, sums)
                elif rows > _PAIR:
                    _low(depth, a, left, a_stride, rows - 1, p, at, q, at, width, k * width, some - 1, second, sums)
                elif rows > 1:
                    _pair(depth, a, left, a_stride, rows - 1, p, at, q, at, width, k * width, some - 1, second, sums)
                else:
                    _one(depth, a, left, a_stride, rows - 1, p, at, q, at, width, k * width, some - 1, second, sums)
                for r in range(rows):
                    for j in range(some):
                        c[(top + r) * c_stride + first + row + j] += sign * sums[r * _BESIDE + j]


eight_linear: Any = compiled(_eight_linear) if EIGHT else None


def scratch() -> np.ndarray:
    """For the sums of one thread."""
    return np.empty(_TALL * _BESIDE, np.int64)

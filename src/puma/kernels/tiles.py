"""The innermost loops of the ring matmul, written as LLVM vectors of eight words so that they stay in
registers. Each is a numba intrinsic over flat int64 arrays and offsets, checks no bound, and adds into c. It
must not know tensors or shapes.

A product needs only its low words, so any CPU's vector multiply will do. In a ring of at most 52 bits the
AVX-512 IFMA instruction, where the host has it, multiplies and adds at once (exact modulo 2^52, whatever lies
above in its inputs). AVX2 has no multiply of 64 bits, and the three of 32 bits that stand for it take longer than
what gives a product modulo 2^48: one of 32 bits, and one of quarters. A factor that is 0 or -1, of which all bits are
alike, chooses words by an `and` instead. `mode` says which of the three ways a caller may go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
WIDE, NARROW, CHOOSING = 0, 1, 2  # modulo 2^64; modulo 2^NARROW_BITS; the words that a is -1 at, modulo 2^64


def has(*names: str) -> bool:
    """Whether the processor that is compiled for has all of these features, by LLVM's names. numba may be told to
    compile for another one than this, or for instructions that it has."""
    features = getattr(config, "CPU_FEATURES", None)
    if features is not None:
        return {f"+{name}" for name in names} <= {each.strip() for each in features.split(",")}
    found = {} if getattr(config, "CPU_NAME", None) else binding.get_host_cpu_features()
    return all(found.get(name, False) for name in names)


FUSED = has("avx512ifma")
QUARTERED = not FUSED and has("avx2")
NARROW_BITS = 48 if QUARTERED else 52
NARROWLY = [NARROW] if FUSED or QUARTERED else []
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
VECTOR = ir.VectorType(_I64, LANES)
_FLAGS = ir.VectorType(_I1, LANES)
_CROSS = ir.FunctionType(ir.VectorType(_I32, LANES), [ir.VectorType(_I16, 2 * LANES)] * 2)
ZERO = ir.Constant(VECTOR, [0] * LANES)
_HALF = ir.VectorType(_I64, LANES // 2)  # a register of AVX2
_NONE = ir.Constant(_HALF, [0] * (LANES // 2))

Values = list[Any]


def dot_tile(rows: int, columns: int) -> Any:
    """c[r, j] += sum_k a[r, k] b[j, k]: rows x 1 or 4 dot products, both factors with unit stride along k."""

    def emit(tile: Tile) -> None:
        a_rows, b_rows, c_rows = tile.rows("a", rows), tile.rows("b", columns), tile.rows("c", rows)
        # by quarters a sum is one register: so many of them, and what they come of, stay in sixteen
        high = min(rows, 2) if tile.quartered else rows
        sums: list[Values] = [[] for _ in a_rows]
        for first in range(0, rows, high):
            found = _dots(tile, a_rows[first : first + high], b_rows)
            for r in range(high):
                sums[first + r] += found[r * columns : (r + 1) * columns]
        for row, mine in zip(c_rows, sums):
            totals = tile.totals(mine)
            tile.store(tile.builder.add(tile.load(row, totals.type), totals), row)

    return _intrinsic(emit)


def _dots(tile: Tile, a_rows: Values, b_rows: Values) -> Values:
    """Each row of a with each of b, summed up in every lane by itself."""

    def step(load: Callable[[Any], Any], k: Any, sums: Values) -> Values:
        right = [load(tile.after(row, k)) for row in b_rows]
        left = [load(tile.after(row, k)) for row in a_rows]
        sums = list(sums)
        for part in tile.parts:
            for j, y in enumerate(right):  # by column, so that little has to be kept at a time
                for r, x in enumerate(left):
                    at = r * len(right) + j
                    sums[at] = tile.dotted(sums[at], x, y, part)
        return sums

    whole = tile.builder.and_(tile.count, _I64(-LANES))
    sums = tile.loop(whole, LANES, [tile.nothing] * (len(a_rows) * len(b_rows)), lambda k, s: step(tile.load, k, s))
    rest = tile.builder.sub(tile.count, whole)
    sums = tile.loop(rest, LANES, sums, lambda _, s: step(tile.load_first(rest), whole, s))
    return [tile.widened(total) for total in sums]


def stream_tile(rows: int, depth: int) -> Any:
    """c[r, :] += the sum of a[r, k] b[k, :] over `depth` k: b goes by in order; columns come in eights."""

    def emit(tile: Tile) -> None:
        b_rows, c_rows = tile.rows("b", depth), tile.rows("c", rows)
        factors = [[tile.spread(tile.after(row, k)) for k in range(depth)] for row in tile.rows("a", rows)]

        def step(j: Any, _: Values) -> Values:
            sums: Values = [tile.load(tile.after(row, j)) for row in c_rows]
            for k in range(depth):
                lanes = tile.load(tile.after(b_rows[k], j))
                sums = [tile.multiply_add(sums[r], factors[r][k], lanes) for r in range(rows)]
            for row, value in zip(c_rows, sums):
                tile.store(value, tile.after(row, j))
            return []

        tile.loop(tile.count, LANES, [], step)

    return _intrinsic(emit, [*NARROWLY, CHOOSING])


def spread_tile(vectors: int, rows: int) -> Any:
    """c[r, :8 v] += sum_k a[r, k] b[k, :8 v]: sums of `rows` rows of a and `vectors` registers of columns stay in
    registers for all k."""

    def emit(tile: Tile) -> None:
        a_rows, c_rows = tile.rows("a", rows), tile.rows("c", rows)
        first, stride = tile.places["b"]
        places = [(r, LANES * v) for r in range(rows) for v in range(vectors)]

        def step(k: Any, sums: Values) -> Values:
            row, found = tile.after(first, tile.builder.mul(k, stride)), iter(sums)
            lanes = [tile.load(tile.after(row, LANES * v)) for v in range(vectors)]
            factors = (tile.spread(tile.after(row, k)) for row in a_rows)
            return [tile.multiply_add(next(found), x, y) for x in factors for y in lanes]

        sums = tile.loop(tile.count, 1, [ZERO] * len(places), step)
        for (r, column), value in zip(places, sums):
            to = tile.after(c_rows[r], column)
            tile.store(tile.builder.add(tile.load(to), value), to)

    return _intrinsic(emit)


def by_mode(builder: Any, mode: Any, others: Sequence[int], emit: Callable[[int], None]) -> None:
    """Code for each of these modes and for the wide one, which serves for those that are left out."""
    if not others:
        emit(WIDE)
        return
    with builder.if_else(builder.icmp_signed("==", mode, _I64(others[0]))) as (this, rest):
        with this:
            emit(others[0])
        with rest:
            by_mode(builder, mode, others[1:], emit)


def _intrinsic(emit: Callable[[Tile], None], modes: Sequence[int] = NARROWLY) -> Any:
    """A numba intrinsic around the versions of a tile, for these modes and the wide one; `mode` picks when it runs."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = {i: context.make_array(signature.args[i])(context, builder, values[i]).data for i in (2, 5, 8)}
        firsts = {i: builder.gep(data[i], [values[i + 1]]) for i in data}
        places = {name: (firsts[i], values[i + 2]) for name, i in (("a", 2), ("b", 5), ("c", 8))}
        by_mode(builder, values[0], modes, lambda mode: emit(Tile(builder, places, values[1], mode)))
        return context.get_dummy_value()

    @intrinsic
    def tile(typing: Any, mode, count, a, a_at, a_stride, b, b_at, b_stride, c, c_at, c_stride):  # type: ignore
        arrays = (a, a_at, a_stride, b, b_at, b_stride, c, c_at, c_stride)
        return types.void(types.int64, types.int64, *arrays), generate

    return tile


class Tile:
    """The LLVM builder with the handful of vector operations the tiles are written in."""

    def __init__(self, builder: Any, places: dict[str, tuple[Any, Any]], count: Any, mode: int) -> None:
        self.builder, self.places, self.count, self.mode = builder, places, count, mode
        self.quartered = mode == NARROW and QUARTERED  # by quarters of words

    def rows(self, name: str, count: int) -> Values:
        """Where `count` rows of the array of this name begin."""
        first, stride = self.places[name]
        return [self.builder.gep(first, [self.builder.mul(stride, _I64(r))]) for r in range(count)]

    def after(self, pointer: Any, offset: Any) -> Any:
        """The place so many words behind a pointer."""
        return self.builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])

    def load(self, pointer: Any, kind: Any = VECTOR) -> Any:
        """LANES words from a place."""
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=8)

    def load_first(self, count: Any) -> Callable[[Any], Any]:
        """A load of the first `count` lanes, zeros in the others, that touches no memory behind them."""
        lanes = ir.Constant(VECTOR, list(range(LANES)))
        flags = self.builder.icmp_unsigned("<", lanes, self.everywhere(count))
        kind = ir.FunctionType(VECTOR, [VECTOR.as_pointer(), _I32, _FLAGS, VECTOR])
        masked = self._external(kind, "llvm.masked.load.v8i64.p0")
        cast = self.builder.bitcast
        return lambda pointer: self.builder.call(masked, [cast(pointer, VECTOR.as_pointer()), _I32(8), flags, ZERO])

    def store(self, value: Any, pointer: Any) -> None:
        """LANES words to a place."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=8)

    def spread(self, pointer: Any) -> Any:
        """The word at a place in every lane."""
        return self.everywhere(self.builder.load(pointer))

    def totals(self, vectors: Values) -> Any:
        """The sum of the lanes of one vector, or of each of four, side by side."""
        if len(vectors) == 1:
            kind = ir.FunctionType(_I64, [VECTOR])
            return self.builder.call(self._external(kind, "llvm.vector.reduce.add.v8i64"), vectors)
        # in pairs: each step halves the lanes that a sum is spread over, and puts two sums into one vector
        low = self._folded(vectors[0], vectors[1], [0, 8, 2, 10, 4, 12, 6, 14], 1)
        high = self._folded(vectors[2], vectors[3], [0, 8, 2, 10, 4, 12, 6, 14], 1)
        four = self._folded(low, high, [0, 1, 8, 9, 4, 5, 12, 13], 2)
        return self._folded(four, four, [0, 1, 2, 3], 4)

    def prefetch(self, place: Any) -> None:
        """Ask for the line of a place, to be read from the second-level cache; one behind the buffer does no harm."""
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        call = self._external(kind, "llvm.prefetch.p0")
        self.builder.call(call, [self.builder.bitcast(place, _I8.as_pointer()), _I32(0), _I32(2), _I32(1)])

    def turned(self, rows: Values) -> Values:
        """Eight vectors, whose lanes are the rows of a square: its columns."""
        for distance in (1, 2, 4):
            swapped = list(rows)
            for low in (i for i in range(LANES) if not i & distance):
                x, y = rows[low], rows[low + distance]
                lanes = [lane for lane in range(LANES) if not lane & distance]
                firsts = {lane: lane for lane in lanes} | {lane + distance: lane + LANES for lane in lanes}
                for at, more in ((low, 0), (low + distance, distance)):
                    order = [firsts[lane] + more for lane in range(LANES)]
                    swapped[at] = self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, LANES), order))
            rows = swapped
        return rows

    def multiply_add(self, total: Any, x: Any, y: Any) -> Any:
        """total + x y in every lane, modulo 2^64, or modulo 2^52 or 2^48; with x that is 0 or -1, total + (x and y)."""
        if self.mode == CHOOSING:
            return self.builder.add(total, self.builder.and_(x, y))
        if self.quartered:
            return self._joined(*(self._by_quarters(self._part(total, part), x, y, part) for part in (0, 1)))
        if self.mode == NARROW:
            kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
            return self.builder.call(self._external(kind, "llvm.x86.avx512.vpmadd52l.uq.512"), [total, x, y])
        return self.builder.add(total, self.builder.mul(x, y))

    @property
    def nothing(self) -> Any:
        """Of `dotted`."""
        return _NONE if self.quartered else ZERO

    @property
    def parts(self) -> Sequence[int]:
        """Of a vector, that `dotted` takes one after the other."""
        return (0, 1) if self.quartered else (0,)

    def dotted(self, total: Any, x: Any, y: Any, part: int) -> Any:
        """total + x y for this part, of which only the sum of all lanes counts: by quarters in half as many."""
        return self._by_quarters(total, x, y, part) if self.quartered else self.multiply_add(total, x, y)

    def widened(self, total: Any) -> Any:
        """What was `dotted`, in all lanes."""
        return self._joined(total, _NONE) if self.quartered else total

    def _by_quarters(self, total: Any, x: Any, y: Any, part: int) -> Any:
        """total + x y of four lanes, modulo 2^48: the product of the low halves, and 2^32 times x2 y0 + x0 y2, quarters
        of 16 bits, which one instruction gives. Whatever lies above 2^48 counts for nothing."""
        builder, low = self.builder, ir.Constant(_HALF, [0xFFFF_FFFF] * (LANES // 2))
        halves = builder.mul(*(builder.and_(self._part(z, part), low) for z in (x, y)))
        factors = [self._quarters(x, [2, 0], part), self._quarters(y, [0, 2], part)]
        crossed = builder.call(self._external(_CROSS, "llvm.x86.avx2.pmadd.wd"), factors)
        return builder.add(builder.add(total, halves), builder.bitcast(crossed, _HALF))

    def _part(self, x: Any, part: int) -> Any:
        order = [4 * part + lane for lane in range(4)]
        return self.builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(_I32, 4), order))

    def _joined(self, low: Any, high: Any) -> Any:
        return self.builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES))))

    def _quarters(self, x: Any, which: list[int], part: int) -> Any:
        """In the upper half of each of four lanes these quarters of it, and zeros in the lower half."""
        quarters, zero = self.builder.bitcast(x, ir.VectorType(_I16, 4 * LANES)), 4 * LANES
        places = [at for lane in range(4 * part, 4 * part + 4) for at in (zero, zero, *(4 * lane + q for q in which))]
        zeros = ir.Constant(quarters.type, [0] * (4 * LANES))
        return self.builder.shuffle_vector(quarters, zeros, ir.Constant(ir.VectorType(_I32, 16), places))

    def loop(self, count: Any, step: int, carried: Values, body: Callable[[Any, Values], Values]) -> Values:
        """for i in range(0, count, step): carried = body(i, carried)."""
        before = self.builder.block
        head, inside, after = (self.builder.append_basic_block(name) for name in ("head", "inside", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.builder.phi(_I64)
        index.add_incoming(_I64(0), before)
        phis = [self.builder.phi(start.type) for start in carried]
        self.builder.cbranch(self.builder.icmp_signed("<", index, count), inside, after)
        self.builder.position_at_end(inside)
        results = body(index, phis)
        index.add_incoming(self.builder.add(index, _I64(step)), self.builder.block)
        for phi, start, result in zip(phis, carried, results):
            phi.add_incoming(start, before)
            phi.add_incoming(result, self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(after)
        return phis

    def everywhere(self, scalar: Any) -> Any:
        """A word in every lane."""
        nothing = ir.Constant(VECTOR, ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, nothing, zeros)

    def _folded(self, x: Any, y: Any, places: list[int], distance: int) -> Any:
        """The lanes of x and y (counted on) at `places`, plus those at `distance` from them."""
        kind = ir.VectorType(_I32, len(places))
        first = self.builder.shuffle_vector(x, y, ir.Constant(kind, places))
        return self.builder.add(
            first, self.builder.shuffle_vector(x, y, ir.Constant(kind, [p + distance for p in places]))
        )

    def _external(self, kind: Any, name: str) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

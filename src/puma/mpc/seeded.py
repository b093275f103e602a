"""Parameters as they lie with the parties: m packed as the owner sent it, and masks that are drawn where they are used.

Each use walks the parameter in blocks of rows that fit a part of the processor's last cache; the masks of a block
are drawn into one buffer, multiplied at once and forgotten. So the dealer keeps no tensor at all, and an evaluator
whole bytes of m, six a word in a ring of 48 bits. This file must not know which model a parameter belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor

from puma import kernels, pool
from puma.crypto.prg import Reader, Stream
from puma.mpc.party import DEALER, FIRST, Party
from puma.mpc.share import Share

# Of one component; twice as many where FEW rows are multiplied with it: these take 30 us for 512 kB, beside which the
# 20 us of a block's calls count.
BLOCK_BYTES, FEW = 1 << 20, 16
THREAD_BYTES = 256 << 10  # of one component that a thread takes at least: some 50 us
ROWS = 8  # a block has a multiple of so many rows: what the products take at a time

Signs = tuple[int, int]
Job = tuple[Tensor, Signs, Tensor]
Kernel = Callable[[Tensor, Sequence[Tensor], Sequence[int], int, Tensor, int], Tensor]


class Ahead(Protocol):
    """The first `done` bytes of a mask, drawn already; `less`: of m less the mask."""

    done: int
    less: bool

    def read(self, low: int, high: int, buffer: Tensor) -> Tensor:
        """Bytes of these, as they lie or in the buffer."""
        ...


def rest_bytes(shape: Sequence[int], bits: int) -> int:
    """Bytes of a parameter at rest and on its way from the owner: each word in whole bytes, so that it can be found."""
    return math.prod(shape) * ((bits + 7) // 8)


class Seeded(Share):
    """A Share of given shape whose masks are bytes of `streams`, from where these stand: two at the dealer, else one.

    `packed` is m as `kernels.pack_bytes` writes it, None at the dealer; it is only read, so it may be a map of a file
    (`torch.from_dlpack(np.memmap(path, mode="r", ...))`), and `touch` is called each time before it is. With `keep`
    both components are kept as words, which trades memory for time: products of a few thousand words take less than a
    walk over blocks. They are kept in `kept`; sessions of one process that use the same parameter share that list.
    """

    def __init__(
        self, party: Party, packed: Tensor | None, streams: Sequence[Stream], shape: Sequence[int], bits: int,
        frac: int, keep: bool = False, touch: Callable[[], None] | None = None,
        kept: list[tuple[Tensor, Tensor]] | None = None,
    ) -> None:  # fmt: skip
        empty = party.nothing(shape)
        super().__init__(party, empty, empty, bits, frac)
        self._packed, self._streams, self.keep, self._touch = packed, streams, keep, touch
        self._kept = [] if kept is None else kept  # both components as words, or nothing yet

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """Both as words, drawn anew unless they are kept; for what is small. Products use `accumulate`."""
        if self.party.dry:
            return self._a, self._b
        if self._kept:
            return self._kept[0]
        pair = self._rows(0, self.shape[0])
        if self.keep:
            self._kept.append(pair)  # of two sessions that draw them at once, the first one's stay in use
        return pair

    def __getitem__(self, index: Any) -> Share:
        """A range of rows draws no more masks than it needs."""
        if self.party.dry or self._kept or not isinstance(index, slice):
            return super().__getitem__(index)
        start, stop, step = cast("slice[Any, Any, Any]", index).indices(self.shape[0])
        if step != 1:
            return super().__getitem__(index)
        return self.like(*self._rows(start, max(start, stop)))

    def block_rows(self, least: int = ROWS) -> int:
        """Rows of a block that `least` or, if it is large, more rows are multiplied with; so many even of long ones."""
        each, size = rest_bytes(self.shape[1:], self.bits), BLOCK_BYTES if least > FEW else 2 * BLOCK_BYTES
        return -(-max(size // max(each, 1), least) // ROWS) * ROWS

    def blocks(
        self,
        least: int = ROWS,
        wanted: tuple[bool, bool] = (True, True),
        part: pool.Range | None = None,
        ahead: Ahead | None = None,
    ) -> Iterator[tuple[int, list[Tensor], bool]]:
        """First row and packed components of each block of rows, in order; one not wanted holds arbitrary bytes.

        All rows, or a part of them. The bytes are only good until the next block comes. `ahead` are the first bytes of
        an evaluator's mask, drawn already; the last value says whether instead of it m less the mask is there.
        """
        each, rows = rest_bytes(self.shape[1:], self.bits), self.block_rows(least)
        start, stop = part or (0, self.shape[0])
        sources = self._sources((start * each, stop * each), min(rows, stop - start) * each, wanted, ahead)
        for first in range(start, stop, rows):
            low, high = first * each, min(first + rows, stop) * each
            less = ahead is not None and ahead.less and high <= ahead.done
            yield first, [source(low, high) for source in sources], less

    def _sources(
        self, part: pool.Range, size: int, wanted: tuple[bool, bool], ahead: Ahead | None
    ) -> list[Callable[[int, int], Tensor]]:
        """For each component a function that gives its bytes low .. high, called for a part of them in order, at most
        `size` at a time."""
        packed = self.held() if wanted[0] or self._packed is None else [self._packed]
        held, needed = [_reading(m) for m in packed], wanted[len(packed) :]
        return held + [
            _drawing(s, part[1], size, need, self.device, ahead) for s, need in zip(self._streams, needed, strict=True)
        ]

    def held(self) -> list[Tensor]:
        """m packed, about to be read; nothing at the dealer."""
        if self._touch is not None:
            self._touch()
        return [] if self._packed is None else [self._packed]

    def of(self, party: Party) -> Seeded:
        """The same parameter at another party of this rank, drawn anew where it is used; no map of it is touched."""
        return Seeded(party, self._packed, self._streams, self.shape, self.bits, self.frac)

    def stream(self) -> Stream:
        """An evaluator's, from where its masks begin."""
        (found,) = self._streams
        return found

    def _rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Components of rows start .. stop, as words."""
        each = rest_bytes(self.shape[1:], self.bits)
        low, high, shape = start * each, stop * each, (stop - start, *self.shape[1:])
        parts = [packed[low:high] for packed in self.held()]
        parts += [_drawn(stream, low, high - low, self.device) for stream in self._streams]
        a, b = (kernels.unpack_bytes(part, self.bits, shape) for part in parts)
        return a, b


def _reading(packed: Tensor) -> Callable[[int, int], Tensor]:
    """Bytes that lie there."""
    return lambda low, high: packed[low:high]


def _drawn(stream: Stream, start: int, count: int, device: torch.device) -> Tensor:
    """Bytes of a mask that is kept, or used at once."""
    return stream.reader(start).into(torch.empty(count, dtype=torch.uint8, device=device))


def _drawing(
    stream: Stream, stop: int, size: int, needed: bool, device: torch.device, ahead: Ahead | None
) -> Callable[[int, int], Tensor]:
    """Bytes of a mask up to `stop`, drawn in order into one buffer; those that have been drawn `ahead` as they are."""
    buffer = torch.empty(size, dtype=torch.uint8, device=device)
    readers = list[Reader]()

    def source(low: int, high: int) -> Tensor:
        if ahead is not None and high <= ahead.done:
            return ahead.read(low, high, buffer)
        if not readers:  # from here on block by block
            readers.append(stream.reader(low, stop - low))
        return readers[0].into(buffer[: high - low])

    return source if needed else lambda low, high: buffer[: high - low]


def in_blocks(weight: Share) -> TypeGuard[Seeded]:
    """Whether its products walk over it: not where its words are kept anyway, unless terms are computed ahead."""
    return isinstance(weight, Seeded) and (not weight.keep or weight.party.precomputed is not None)


def accumulate(weight: Seeded, kernel: Kernel, jobs: Sequence[Job]) -> None:
    """In one walk over the weight, for each (left, signs, out): out += left o (signs[0] a + signs[1] b).

    a and b are this party's components, o is what the kernel does (`linear_packed` or `matmul_packed`).
    """
    if weight.party.dry or not jobs:
        return
    # m lies there as a whole: no need for blocks, unless each thread shall go down rows of its own
    whole = not weight.party.is_dealer and (kernel is kernels.linear_packed or pool.threads() == 1)
    held = [job for job in jobs if whole and not job[1][1]]
    for left, signs, out in held:
        kernel(left, weight.held(), signs[:1], weight.bits, out, 0)
    drawn = [job for job in jobs if not whole or job[1][1]]
    if not drawn:
        return
    wanted = (any(signs[0] for _, signs, _ in drawn), any(signs[1] for _, signs, _ in drawn))
    _walk(weight, kernel, drawn, wanted)


def _walk(weight: Seeded, kernel: Kernel, jobs: Sequence[Job], wanted: tuple[bool, bool]) -> None:
    """Block by block; threads take ranges of rows, each with the masks of its own."""
    least, each = min(jobs[0][0].shape[0], 64), rest_bytes(weight.shape[1:], weight.bits)
    parts = pool.ranges(weight.shape[0], max(THREAD_BYTES // max(each, 1), ROWS), ROWS)
    # Rows of the weight are columns of a linear layer's result, which nobody else writes; else each makes a sum.
    apart = kernel is not kernels.linear_packed and len(parts) > 1
    sums = {part: [torch.zeros_like(out) if apart else out for _, _, out in jobs] for part in parts}
    ahead = None if weight.party.foreseen is None else weight.party.foreseen.take(weight)

    def walk(low: int, high: int) -> None:
        for first, packed, less in weight.blocks(least, wanted, (low, high), ahead):
            for (left, (a, b), _), total in zip(jobs, sums[low, high], strict=True):
                # x m + y l = (x + y) m - y (m - l)
                kernel(left, packed, (a + b, -b) if less else (a, b), weight.bits, total, first)

    pool.each(walk, parts)
    if apart:
        for part in parts:
            for (_, _, out), total in zip(jobs, sums[part], strict=True):
                out.add_(total)


def known_terms(x: Share) -> list[tuple[Tensor, Signs]]:
    """The terms of x o weight that depend on masks and on the weight, but not on what x is: they can be made ahead.

    P0: (l1x + l2x) o (l1w + l2w), its whole part.  P1: -l1x o mw.  P2: -l2x o mw.
    """
    return [(x.mask, (1, 1) if x.party.rank == DEALER else (-1, 0))]


def online_terms(x: Share) -> list[tuple[Tensor, Signs]]:
    """The terms of x o weight that need x itself.  P1: mx o (mw - l1w).  P2: -mx o l2w.  P0: none."""
    if x.party.rank == DEALER:
        return []
    return [(x.m, (1, -1) if x.party.rank == FIRST else (0, -1))]


def whole_terms(x: Share) -> list[tuple[Tensor, Signs]]:
    """All terms of x o weight, one to a component.

    P0: (l1x + l2x) o (l1w + l2w).  P1: (mx - l1x) o mw - mx o l1w.  P2: -l2x o mw - mx o l2w.
    """
    if x.party.rank == DEALER:
        return known_terms(x)
    return [(x.m - x.mask if x.party.rank == FIRST else -x.mask, (1, 0)), (-x.m, (0, 1))]


def product_part(
    weight: Seeded, kernel: Kernel, terms: Sequence[tuple[Tensor, Signs]], columns: int, to: Tensor | None = None
) -> Tensor:
    """The sum of such terms (..., columns), added into `to` if given; all are this party's part of the product."""
    left = terms[0][0]
    out = left.new_zeros((math.prod(left.shape[:-1]), columns)) if to is None else to.view(-1, columns)
    accumulate(weight, kernel, [(t.reshape(-1, t.shape[-1]), signs, out) for t, signs in terms])
    return out.reshape(*left.shape[:-1], columns)


def weighted(x: Share, weight: Seeded, kernel: Kernel, columns: int) -> Tensor:
    """This party's part of x o weight (..., columns).

    The dealer may make it beforehand. In a rehearsal an evaluator makes its known terms and writes them down; in the
    run itself it makes the others; so it does where a rehearsal beside the run has made the known ones (waits/).
    """
    x.party.let_go()
    precomputed = x.party.precomputed
    if x.party.lookahead is not None and not x.party.dry:
        return x.party.lookahead.product(
            weight, kernel, x.mask, columns, lambda rows: product_part(weight, kernel, [(rows, (1, 1))], columns)
        )
    if precomputed is None:
        foreseen = x.party.foreseen
        known = None if foreseen is None else foreseen.known()
        return product_part(weight, kernel, whole_terms(x) if known is None else online_terms(x), columns, known)
    bits, shape = min(x.bits, weight.bits), (*x.shape[:-1], columns)
    known = precomputed.known(lambda: product_part(weight, kernel, known_terms(x), columns), shape, bits)
    return known if precomputed.rehearsing else product_part(weight, kernel, online_terms(x), columns, known)

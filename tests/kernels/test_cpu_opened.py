"""What opens numbers in one pass, against the plain steps: bit for bit, in every ring, on one thread and on three."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from puma import kernels, pool
from puma.kernels import plain
from puma.kernels.rounds import cpu_opened, message
from tests.kernels.words import views, words

RINGS = [
    (1, 0),
    (2, 1),
    (8, 0),
    (13, 4),
    (25, 2),
    (32, 2),
    (34, 10),
    (48, 0),
    (52, 4),
    (56, 8),
    (63, 1),
    (64, 0),
    (64, 63),
]
SIZES = [(), (0,), (1,), (7,), (3, 5), (2, 1100)]


@pytest.fixture(params=[1, 3], autouse=True)
def thread_count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu_opened, "_LEAST", 1 if request.param > 1 else cpu_opened._LEAST)
    pool.use(request.param)
    yield
    pool.use(1)


def before(shift: int) -> int:
    return (1 << (shift - 1)) - 1 if shift else 0


@pytest.mark.parametrize(("bits", "shift"), RINGS)
def test_every_ring_and_shape(bits: int, shift: int) -> None:
    for shape in SIZES:
        x, other, pads = (words(*shape, seed=seed) for seed in range(3))
        rounded = before(shift), shift, bits
        packed = kernels.packed_less(x, *rounded, other)
        assert torch.equal(packed, plain.packed_less(x, *rounded, other)), shape
        for dealt in (None, other, packed):
            found, expected = (k.padded(x, *rounded, dealt, pads) for k in (kernels, plain))
            assert torch.equal(found, expected), (shape, dealt is None)


def test_a_sum_of_parts_that_were_rounded_is_what_is_opened() -> None:
    """As three parties use it: two halves of what is dealt, pads, and the words that come back."""
    x, half, pad, theirs = (words(40, seed=seed) for seed in range(4))
    dealt = kernels.packed_less(x, 512, 10, 44, half)
    mine = kernels.padded(words(40, seed=9), 511, 10, 44, dealt, pad)
    sent = bytearray(kernels.pack(theirs, 34).numpy().tobytes())
    (m,) = message.read(sent, [(mine, 34)], joined=[message.SUM])
    total = ((x + 512) >> 10) - half + ((words(40, seed=9) + 511) >> 10) + pad + theirs
    assert torch.equal(plain.reduce(m, 34), plain.reduce(total, 34))


@pytest.mark.parametrize(("bits", "shift"), [(48, 0), (34, 7)])
def test_every_layout(bits: int, shift: int) -> None:
    others = [words(6, 8, seed=i) for i in (1, 2)]
    rounded = before(shift), shift, bits
    for layout, x in views(6, 8).items():
        for left, right in ((x, others[0]), (others[0], x)):
            found, expected = (k.packed_less(left, *rounded, right) for k in (kernels, plain))
            assert torch.equal(found, expected), layout
            found, expected = (k.padded(left, *rounded, right, others[1]) for k in (kernels, plain))
            assert torch.equal(found, expected), layout
            found, expected = (k.padded(others[1], *rounded, left, right) for k in (kernels, plain))
            assert torch.equal(found, expected), layout


def test_words_that_are_spread() -> None:
    row, whole = words(1, 5), words(4, 5)
    assert torch.equal(kernels.packed_less(row, 0, 0, 20, whole), plain.pack(row - whole, 20))
    assert torch.equal(kernels.padded(row, 0, 0, 20, row, whole), row + row + whole)


def test_bytes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 bytes are not 5 words of 20 bits"):
        kernels.padded(words(5), 0, 0, 20, torch.zeros(3, dtype=torch.uint8), words(5))


@pytest.mark.parametrize("count", [0, 1, 8, 9, 700])
def test_bits_and_words_come_back_as_one(count: int) -> None:
    """Whatever the piece is, and none of it is written to."""
    bits, other, mine, theirs = words(count) & 1, words(count, seed=1) & 1, words(count, seed=2), words(count, seed=3)
    came = bytearray(message.write([(other, 1), (theirs, 34), (theirs, 34)]))
    like, joined = [(bits, 1), (mine, 34), (mine, 34)], [message.ALONE, message.SUM, message.ALONE]
    before = [x.clone() for x, _ in like]
    single, total, alone = message.read(came, like, joined=joined)
    assert torch.equal(single, other) and torch.equal(alone, plain.reduce(theirs, 34))
    assert torch.equal(total, mine + plain.reduce(theirs, 34))
    assert all(torch.equal(x, kept) for (x, _), kept in zip(like, before, strict=True))


def test_runs_of_words() -> None:
    for count in (0, 1, 5, 33):
        parts = [(words(count, seed=bits) & ((1 << bits) - 1), bits) for bits in (32, 16, 4, 2)]
        buffer = torch.cat([plain.pack(x, bits) for x, bits in parts])
        bits = [bits for _, bits in parts]
        for k in (kernels, plain):
            found = k.unpack_runs(buffer, bits, (count, 1))
            assert all(torch.equal(f, x.unsqueeze(-1)) for f, (x, _) in zip(found, parts, strict=True))
    with pytest.raises(ValueError, match="8 bytes are not 2 runs of 3 words"):
        kernels.unpack_runs(torch.zeros(8, dtype=torch.uint8), [8, 8], (3,))


@pytest.mark.parametrize("count", [1, 7, 8, 100, 9000])
def test_polynomials_in_bits_that_are_opened(count: int) -> None:
    """In one call where bits are few; whatever lies behind the last one."""
    width = (count + 7) // 8
    rows = [words(n, width, seed=n).to(torch.uint8) for n in (2, 2, 2, 1, 3)]
    before = [each.clone() for each in rows]
    terms = torch.tensor([[0, 1, -1], [2, -1, -1], [3, 4, 7], [-1, -1, -1], [5, 6, -1]])
    for ends in (torch.tensor([2, 5]), torch.tensor([5])):
        mine, theirs, *others = rows
        found = kernels.opened_products(mine, theirs, others, terms, ends, count)
        expected = plain.opened_products(mine, theirs, others, terms, ends, count)
        assert len(found) == len(ends) and all(map(torch.equal, found, expected))
    assert all(map(torch.equal, rows, before))
    with pytest.raises(ValueError, match="a term names a row that there is not"):
        kernels.opened_products(rows[0], rows[1], rows[2:], torch.tensor([[8]]), torch.tensor([1]), count)
    with pytest.raises(ValueError, match="are not a row of"):
        kernels.opened_products(rows[0], rows[1], rows[2:], terms, torch.tensor([1]), count + 8)

"""Every kernel and every draw with three threads: bit for bit as with one, on shapes that do not divide evenly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from puma import kernels, pool
from puma.crypto import prg
from puma.crypto.prg import PairKey
from puma.kernels import cpu, cpu_bits, cpu_matmul, cpu_onehot, cpu_packed, cpu_wire, plain
from puma.kernels.digits import cpu_lookup
from puma.kernels.rounds import cpu_flags, cpu_hiding
from puma.kernels.startup import threads
from tests.kernels.words import views, words

SIZES = [0, 1, 8, 9, 31, 129, 1003]


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads, and nothing too small for them."""
    for room in (cpu, cpu_bits, cpu_flags, cpu_hiding, cpu_lookup, cpu_matmul, cpu_onehot, cpu_packed, cpu_wire, prg):
        monkeypatch.setattr(room, "_LEAST", 1)
    threads.use(3)
    assert torch.get_num_threads() == 1  # torch's own would be as many again, for the same cores
    yield
    threads.use(1)


@pytest.mark.parametrize("size", SIZES)
def test_words_and_bytes(size: int) -> None:
    x = words(size)
    for bits in (1, 3, 16, 34, 48, 57, 63, 64):
        for name in ("pack", "pack_bytes"):
            sent = getattr(kernels, name)(x, bits)
            assert torch.equal(sent, getattr(plain, name)(x, bits)), (name, bits)
            back = getattr(kernels, f"un{name}")(sent, bits, (size,))
            assert torch.equal(back, plain.reduce(x, bits)), (name, bits)
        assert torch.equal(kernels.signed(x, bits), plain.signed(x, bits))
        assert torch.equal(kernels.shift_right(x, bits // 2, bits), plain.shift_right(x, bits // 2, bits))
    numbers, pads = x.double() / 2**60, [kernels.pack_bytes(words(size, seed=i), 48) for i in (1, 2)]
    both = [k.pack_masked(numbers, 20, tuple(pads), 48, torch.empty_like(pads[0])) for k in (kernels, plain)]
    assert torch.equal(*both)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("width", [2, 6, 8])
def test_one_hot_digits(size: int, width: int) -> None:
    digit, per = words(size, seed=5), 1 << max(width - 6, 0)
    e = words(size, per) & ((1 << min(64, 1 << width)) - 1 if width < 6 else -1)
    for tables in (1, 2, 5):
        table = words(tables, 1 << width, seed=tables)
        assert torch.equal(kernels.lookup(e, digit, width, table), plain.lookup(e, digit, width, table))
    members = words(1 << width) & 1
    assert torch.equal(kernels.member(e, digit, width, members), plain.member(e, digit, width, members))
    for name in ("above", "hot_bit"):
        assert torch.equal(getattr(kernels, name)(e, digit, width), getattr(plain, name)(e, digit, width))
    assert torch.equal(kernels.onehot(digit, width), plain.onehot(digit, width))
    half = words(((digit.numel() << width) + 7) // 8).to(torch.uint8)
    assert torch.equal(kernels.hidden_hots(half, digit, [(3, width)]), plain.hidden_hots(half, digit, [(3, width)]))
    assert torch.equal(kernels.parity(e), plain.parity(e))


def test_polynomials_in_bits() -> None:
    for size in (1, 65, 9001):
        rows = words(5, size).to(torch.uint8)
        terms, ends = torch.tensor([[0, 1], [2, -1], [3, 4], [-1, -1]]), torch.tensor([2, 2, 4])
        assert torch.equal(kernels.xor_of_products(rows, terms, ends), plain.xor_of_products(rows, terms, ends))


@pytest.mark.parametrize(
    "a, b",
    [
        ((5, 7), (7, 40)), ((1, 64), (64, 133)), ((70, 9), (9, 3)), ((3, 17, 5), (3, 5, 9)), ((4, 2, 6, 5), (2, 5, 8)),
        ((13, 6, 5), (5, 11)), ((2, 0, 5), (2, 5, 4)), ((6, 0), (0, 4)),
    ],
)  # fmt: skip
def test_products(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    for left in views(*a).values():
        for layout, right in views(*b, seed=1).items():
            for bits in (48, 64):
                expected = plain.reduce(plain.matmul(left, right, bits), bits)
                assert torch.equal(plain.reduce(kernels.matmul(left, right, bits), bits), expected), layout
    into = words(*plain.matmul(words(*a), words(*b), 64).shape, seed=4)
    expected = plain.matmul(words(*a), words(*b), 64, into.clone())
    assert torch.equal(kernels.matmul(words(*a), words(*b), 64, into), expected)


@pytest.mark.parametrize("name", ["linear_packed", "matmul_packed", "chosen_packed"])
@pytest.mark.parametrize("n", [1, 3, 4, 13])
def test_products_with_packed_matrices(name: str, n: int) -> None:
    for rows, columns in ((1, 8), (7, 9), (40, 24), (21, 301)):
        for bits in (20, 48, 60):
            packed = [kernels.pack_bytes(words(rows, columns, seed=i), bits) for i in range(2)]
            k = columns if name == "linear_packed" else rows
            a, out = words(n, k + 3), words(n, (rows if name == "linear_packed" else columns), seed=3)
            a = a[:, :k] if name == "linear_packed" else a
            a = a & 1 if name == "chosen_packed" else a
            expected = getattr(plain, name)(a, packed, (1, -1), bits, out.clone())
            got = getattr(kernels, name)(a, packed, (1, -1), bits, out)
            assert torch.equal(plain.reduce(got, bits), plain.reduce(expected, bits)), (rows, columns, bits)


@pytest.mark.parametrize("galois", [False, True])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 70001])
def test_draws(size: int, galois: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers, by either mode of the cipher, and the next draw goes on at the same place."""
    monkeypatch.setattr(prg, "_galois_is_faster", lambda: galois)
    monkeypatch.setattr(prg, "_PART", 64)
    key = PairKey(bytes(range(32)))
    for what in ("bytes", "words", "bits"):
        split, whole = key.stream("mask"), key.stream("mask")
        for count in (3, size, 5):
            drawn = getattr(split, what)(count)
            pool.use(1)
            assert torch.equal(drawn, getattr(whole, what)(count)), what
            pool.use(3)
            assert split.position == whole.position


def test_large_draws_make_no_more_ciphers_than_there_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = PairKey(bytes(range(32))).stream("mask").words(7 * 700).split(700)
    monkeypatch.setattr(prg, "_galois_is_faster", lambda: False)
    cipher, made = prg._cipher, list[int]()
    monkeypatch.setattr(prg, "_cipher", lambda key, block: made.append(block) or cipher(key, block))
    stream = PairKey(bytes(range(32))).stream("mask")
    for count, words_ in zip((3, 1, 3, 1, 1, 3, 3), expected, strict=True):
        pool.use(count)  # alone one goes on where all have ended
        assert torch.equal(stream.words(700), words_)
    assert len(made) <= 3


def test_parts_of_a_draw_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cipher for all of them stands at each one's place, whichever came before it."""
    expected, drawn = PairKey(bytes(range(32))).stream("mask").words(700), list[int]()
    monkeypatch.setattr(pool, "each", lambda work, parts: drawn.extend(work(*part) or part[0] for part in parts[::-1]))
    assert torch.equal(PairKey(bytes(range(32))).stream("mask").words(700), expected) and len(drawn) > 2


def test_digits_that_are_zero() -> None:
    for digit in (words(9, 7), words(5000), words(0), views(9, 7)["transposed"]):
        for low, width in ((0, 1), (5, 3), (56, 8)):
            assert torch.equal(kernels.zeros(digit, low, width), plain.zeros(digit, low, width))


@pytest.mark.parametrize("count", SIZES)
def test_flags_of_digits(count: int) -> None:
    narrow, wide, digit = words(count, 1), words(count, 4, seed=1), words(count, seed=2)
    one, more = words(64) & 1, words(256) & 1
    asked = [(narrow, digit, 0, 3, None), (wide, digit, 5, 8, more), (narrow, digit, 58, 6, one)]
    for got, expected in zip(kernels.flags(asked), plain.flags(asked), strict=True):
        assert torch.equal(got, expected)

"""Products byte by byte in tiles against plain ones: numbers of two digits, of three and of more, the largest sums,
every ring, remainder and kind; and who may not use tiles computes without."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from puma import kernels
from puma.kernels import Stored, cpu_stored, plain
from puma.kernels.files import amx, cpu_bytes
from puma.kernels.startup import threads
from puma.kernels.stored import BLOCKS, KINDS
from tests.cases import sample
from tests.kernels.test_blocks import blocked
from tests.kernels.test_cpu_stored import same, stored
from tests.kernels.words import words


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads, and nothing too small for them."""
    monkeypatch.setattr(cpu_bytes, "_LEAST", 1)
    threads.use(3)
    yield
    threads.use(1)


tiled = pytest.mark.skipif(not amx.granted(), reason="this machine has no tiles of bytes")


def held(numbers: torch.Tensor, kind: str = "bf16") -> Stored:
    """A matrix of such numbers."""
    return Stored(numbers.to(KINDS[kind][0]).reshape(-1).view(torch.uint8), kind, numbers.shape[1])


def agree(a: torch.Tensor, matrix: Stored, frac: int, bits: int) -> bool:
    out = words(a.shape[0], matrix.rows, seed=3)
    expected = plain.linear_stored(a, matrix, frac, bits, out.clone())
    cpu_bytes.linear_bytes(a, matrix, frac, bits, out)
    return same(out, expected, bits)


def mixed(kind: str, rows: int, columns: int) -> Stored:
    """A matrix of small numbers, but for a strip of larger ones and a number that is too large in every third strip;
    it begins at an odd byte, and its columns have factors."""
    numbers = sample(rows, columns, scale=50)
    numbers[16:32] *= 2**6
    numbers[32::48, columns // 2] = 2.0**14
    matrix = held(numbers, kind)
    factors = None if KINDS[kind][1] else 2.0 ** (torch.arange(columns) % 3) + sample(columns, seed=2).abs().float()
    return matrix._replace(raw=torch.cat([matrix.raw[:1], matrix.raw])[1:], factors=factors)


@tiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 34, 40, 41, 48])
def test_every_kind_ring_and_remainder(kind: str, bits: int) -> None:
    """Rows of words by 16 and what is left, blocks of 64 columns and what is left, more than are taken at a time."""
    for n, rows, columns in ((1, 16, 16), (16, 32, 64), (33, 48, 80), (20, 48, 1104), (150, 48, 1024), (17, 32, 2064)):
        matrix = mixed(kind, rows, columns)
        assert agree(words(n, columns), matrix, 0, bits), (n, rows, columns)
        assert agree(words(n, columns), matrix, 9, bits), (n, rows, columns)


@tiled
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_every_count_of_digits(kind: str) -> None:
    """Where one number needs a digit more, and where no three digits do: each on either side, and at the edge."""
    small = [2.0**15 - 129, 2.0**15 - 128, 2.0**15 - 127]
    edges = [*small, 2.0**22 - 1, 2.0**22 - 0.5, 2.0**22, 2.0**22 + 1, 2.0**22 + 2.0**16, 2.0**23, 2.0**30]
    for edge in [*edges, *(-edge for edge in edges)]:
        numbers = sample(32, 128, scale=100)
        numbers[17, 77] = edge
        if kind != "f16" or abs(edge) < 2**15:
            assert agree(words(17, 128), held(numbers, kind), 0, 48), edge


@tiled
@pytest.mark.parametrize("digits", [2, 3])
def test_the_largest_sums_do_not_overflow(digits: int) -> None:
    """All bytes of the words 255, all digits -128 or 127, in as many columns as are summed up at once."""
    for digit in (-128, 127):
        number = sum(digit << 8 * j for j in range(digits))
        numbers = torch.full((16, 2048), number, dtype=torch.int32)
        assert agree(torch.full((16, 2048), -1), held(numbers, "i32"), 0, 48), digit


@tiled
def test_ties_go_to_even() -> None:
    numbers = torch.tensor([0.5, 1.5, 2.5, -0.5, -2.5, 2.0**22 - 0.5, 0.0, -0.0]).repeat(16, 2)
    assert agree(torch.eye(16, dtype=torch.int64), held(numbers, "f32"), 0, 48)


@tiled
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_of_integers(kind: str) -> None:
    """With so few fraction bits that two digits are enough, with more, and with too many."""
    matrix = blocked(kind, 32, 2304, factors=True)
    for frac in (3, 8, 18):
        assert agree(words(21, 2304), matrix, frac, 48), frac


@tiled
@pytest.mark.usefixtures("three")
def test_what_is_left_of_the_rows_is_multiplied_too() -> None:
    """By everybody's entrance: strips of 16 rows, and five more; words that lie apart; a result that holds words."""
    matrix, apart, out = stored("bf16", 53, 96), words(40, 192)[:, ::2], words(40, 53, seed=3)
    expected = plain.linear_stored(apart, matrix, 18, 48, out.clone())
    assert same(kernels.linear_stored(apart, matrix, 18, 48, out), expected, 48)


@tiled
@pytest.mark.usefixtures("three")
def test_threads_share_rows_and_strips() -> None:
    assert agree(words(200, 1024), stored("bf16", 128, 1024), 18, 48)


@tiled
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_place_among_words_is_the_same_either_way(kind: str) -> None:
    """Infinite numbers, none at all, and the least ones: few rows, more, and many go different ways."""
    numbers = sample(16, 32)
    if not KINDS[kind][1]:
        numbers[0, :4], numbers[1, 4] = torch.tensor([torch.inf, -torch.inf, torch.nan, 2.0**-24]), torch.inf
    matrix = held(numbers, kind)
    for bits in (34, 48):
        row, all_of = torch.eye(32, dtype=torch.int64), torch.zeros((32, 16), dtype=torch.int64)
        many = kernels.linear_stored(row.repeat(2, 1), matrix, 18, bits, all_of.repeat(2, 1))[:32]
        few = torch.cat([kernels.linear_stored(part, matrix, 18, bits, all_of[:4].clone()) for part in row.split(4)])
        without = cpu_stored._linear_words(row.repeat(2, 1), matrix, 18, bits, all_of.repeat(2, 1), 0)[:32]
        spread = kernels.spread(matrix, 18).T
        for other in (few, without, spread):
            assert same(many, other, bits), bits


@tiled
def test_a_larger_ring_or_an_odd_matrix_goes_another_way() -> None:
    assert cpu_bytes.able(stored("bf16", 16, 32), 48)
    assert not cpu_bytes.able(stored("bf16", 16, 32), 49)
    assert not cpu_bytes.able(stored("bf16", 16, 40), 48)


def test_who_is_refused_tiles_computes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may refuse them, a sandbox may hide the way to ask."""

    class Refused:
        def syscall(self, *_: int) -> int:
            return -1

    class Hidden:
        pass

    monkeypatch.setattr(amx, "AMX", True)
    for library in (Refused, Hidden):
        amx.granted.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library())
        assert not amx.granted()
        matrix, a = stored("bf16", 16, 32), words(12, 32)
        expected = plain.linear_stored(a, matrix, 18, 48, torch.zeros((12, 16), dtype=torch.int64))
        assert same(kernels.linear_stored(a, matrix, 18, 48, torch.zeros((12, 16), dtype=torch.int64)), expected, 48)
    monkeypatch.undo()
    amx.granted.cache_clear()

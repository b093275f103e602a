"""Products byte by byte in tiles against plain ones: numbers of two digits, of three and of more, the largest sums,
every ring, remainder and kind; and who may not use tiles computes without."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from puma import kernels
from puma.kernels import Stored, plain
from puma.kernels.files import amx, cpu_bytes
from puma.kernels.startup import threads
from puma.kernels.stored import KINDS
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


@tiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 34, 40, 41, 48])
def test_every_kind_ring_and_remainder(kind: str, bits: int) -> None:
    """Rows of words by 16 and what is left, blocks of 64 columns and what is left, more than are taken at a time."""
    for n, rows, columns in ((1, 16, 16), (16, 32, 64), (33, 16, 80), (20, 16, 1104), (150, 48, 1024)):
        matrix = stored(kind, rows, columns, factors=True)
        matrix = matrix._replace(raw=torch.cat([matrix.raw[:1], matrix.raw])[1:])
        assert agree(words(n, columns), matrix, 18, bits), (n, rows, columns)


@tiled
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_every_count_of_digits(kind: str) -> None:
    """Where one number needs a digit more, and where no three digits do: each on either side, and at the edge."""
    edges = [2.0**15 - 129, 2.0**15 - 128, 2.0**15 - 127, 2.0**22 - 1, 2.0**22 - 0.5, 2.0**22, 2.0**23, 2.0**30]
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
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_k", "q6_k"])
def test_blocks_of_integers(kind: str) -> None:
    assert agree(words(21, 1280), blocked(kind, 32, 1280), 18, 48)


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

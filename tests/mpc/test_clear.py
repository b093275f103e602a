"""The arithmetic without sharing: bits and orders are those of shares, truncations within a unit, wraps noted."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import puma
from puma.errors import UsageError
from puma.mpc import arithmetic, boolean, clear_forms, compare, raising, retrieval, watch
from puma.mpc.arithmetic import public, truncated
from puma.mpc.clear import Clear, ClearParty, cut, held
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.mpc.polynomial import bit, times
from puma.mpc.share import Bits
from puma.nn import functional as F
from puma.nn import inverses, paper, splines
from tests.case import finished
from tests.cases import sample
from tests.trio import bits_of, given, joined, parties

X, Y = sample(40, 16, scale=3), sample(40, 16, scale=2, seed=1)


def share(party: Party, value: Tensor, bits: int, frac: int, name: str = "x") -> Any:
    if party.clear:
        return held(party, torch.round(value.double() * 2.0**frac).long(), bits, frac)
    return given(party, value, bits, frac, name)


def both(compute: Callable[[Party], Any]) -> tuple[Tensor, Tensor, Any]:
    """Words of the secure and of the clear run, and the clear result."""
    secure, clear = parties(lambda p: finished(p, compute(p))), finished(p := ClearParty(), compute(p))
    if isinstance(clear, Bits):
        return bits_of(secure), clear.part, clear
    if isinstance(clear, list | tuple):
        secure, clear = [s[0] for s in secure], clear[0]
    assert (clear.bits, clear.frac) == (secure[0].bits, secure[0].frac)
    return joined(secure), clear.signed, clear


EXACT: dict[str, Callable[[Party], Any]] = {
    "sign": lambda p: compare.sign(share(p, X, 24, 8)),
    "below": lambda p: compare.below(share(p, X, 24, 8), [-7, 0, 300]),
    "less": lambda p: compare.less(share(p, X, 24, 8), share(p, Y, 24, 8, "y")),
    "equal": lambda p: compare.equal(share(p, X, 24, 1), share(p, Y, 24, 1, "y")),
    "maximum": lambda p: compare.maximum(share(p, X, 20, 8)),
    "columns": lambda p: compare.maximum(share(p, X, 20, 8), 0),
    "argmax": lambda p: F.argmax(share(p, X, 40, 20)),
    "lift": lambda p: arithmetic.lift((share(p, X, 24, 12), 48)),
    "reshare": lambda p: arithmetic.reshare(arithmetic.multiply(share(p, X, 40, 9), share(p, Y, 40, 9, "y"))),
    "square": lambda p: arithmetic.reshare(arithmetic.square(share(p, X, 40, 9)) + 1.5),
    "matmul": lambda p: arithmetic.reshare(arithmetic.matmul(share(p, X, 60, 20), share(p, Y.T, 60, 20, "y"))),
    "public": lambda p: share(p, X, 30, 8) + public(p, 2.0, (16,), 30, 8) - 0.5,
    "one_hot": lambda p: F.one_hot(share(p, torch.arange(9), 4, 0), 9),
    "choose": lambda p: compare.choose(
        p.run(compare.sign(share(p, X, 24, 8))), (share(p, X, 24, 8), share(p, Y, 24, 8, "y"))
    ),
    "evaluate": lambda p: boolean.evaluate(
        {"a": p.run(compare.sign(share(p, X, 24, 8))), "b": p.run(compare.sign(share(p, Y, 24, 8, "y")))},
        times(bit("a"), bit("b")) ^ bit("a"),
    ),
}


@pytest.mark.parametrize("name", [n for n in EXACT if n != "evaluate"])
def test_what_is_exact_on_shares_is_the_same(name: str) -> None:
    secure, clear, _ = both(EXACT[name])
    mask = (1 << 4) - 1 if name in ("argmax",) else -1
    assert torch.equal(secure & mask, clear & mask)


def test_polynomials_of_bits() -> None:
    secure, (clear,) = parties(lambda p: p.run(EXACT["evaluate"](p))[0]), (p := ClearParty()).run(EXACT["evaluate"](p))
    assert torch.equal(bits_of(secure), clear.part)


def _wide(party: Party, value: Tensor, name: str = "x") -> Any:
    return share(party, value, 48, 16, name)


TRUNCATED: dict[str, Callable[[Party], Any]] = {
    "open": lambda p: arithmetic.open_truncate((arithmetic.multiply(_wide(p, X), _wide(p, Y, "y")), 18)),
    "share": lambda p: truncated(share(p, X, 48, 30), 17),
    "formatted": lambda p: formatted((F.linear(share(p, X, 48, 14), share(p, Y, 48, 18, "y")), ACTIVATION, RING)),
    "chosen": lambda p: formatted((arithmetic.multiply(share(p, X, 48, 16), share(p, Y, 48, 16, "y")), 10, 30)),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncation_differs_by_one_unit_at_most(name: str) -> None:
    secure, clear, result = both(TRUNCATED[name])
    assert (secure - clear).abs().max() <= 1 and (secure != clear).any()
    assert (result.signed - result.truth).abs().max() <= 0.5


@pytest.mark.parametrize("spline", [splines.GELU, splines.SILU, splines.SIGMOID, splines.EXP], ids=lambda s: s.name)
def test_splines_are_as_good(spline: splines.Spline) -> None:
    """On shares an index may be one too high, where the neighbour's line serves: both lie within the bound."""
    x = torch.linspace(-30, 0.9 if spline.name == "exp" else 30, 5001).double()
    secure, clear, result = both(lambda p: splines.lifted(spline, share(p, x, spline.ring, spline.frac), RING))
    assert (secure - clear).abs().max() <= 2 * spline.bound * 2**ACTIVATION
    assert ((result.value - spline.function(x).where(x > -15, torch.tensor(0.0).double())).abs().max() if
            spline.name == "exp" else (result.value - spline.function(x)).abs().max()) <= spline.bound  # fmt: skip


@pytest.mark.parametrize("function", [paper.GELU, paper.SILU], ids=lambda f: f.name)
def test_published_pieces_where_powers_wrap(function: paper.Pieces) -> None:
    x = torch.tensor([-480.0, -7.7, -3.3, -1.0, 0.0, 2.9, 5.0, 490.0])
    secure, clear, result = both(lambda p: paper.piecewise(function, share(p, x, 34, 17)))
    assert (secure - clear).abs().max() <= 3 and not result.parted()


def test_rows() -> None:
    for compute in (
        lambda p: F.layer_norm(share(p, X, 34, 17), 1e-5),
        lambda p: F.reciprocal(share(p, X.abs() + 0.01, 40, 16)),
        lambda p: F.softmax(share(p, X, 48, 20), torch.ones(16, dtype=torch.bool)),
    ):
        secure, clear, _ = both(compute)
        assert (secure - clear).abs().max() * 2.0**-ACTIVATION < 2e-3


# -- what goes wrong is noted ---------------------------------------------------------------------------------------


def test_a_wrapped_product_is_noted_at_its_parameter() -> None:
    party = ClearParty()
    w = held(party, torch.full((3, 8), 100 << WEIGHT), RING, WEIGHT, "layer.7.dense")
    x = held(party, torch.full((2, 8), 60 << ACTIVATION), RING, ACTIVATION)
    with party.ledger.scope("mlp"):
        z = F.linear(x, w)
        (y,) = party.run(formatted((z, ACTIVATION, RING)))
    note = party.notes["layer.7.dense", "mlp", "value"]
    assert note.largest == 48000 and note.limit == 2.0**14 and note.lost and note.used > 1
    assert isinstance(y, Clear) and y.exact and float(y.value.abs().max()) < 2**15  # it goes on as the words say


def test_what_cannot_be_lifted_and_what_leaves_a_table_is_noted() -> None:
    party = ClearParty()
    party.run(formatted((held(party, torch.tensor([20000]) << 14, 30, 14), 14, 48)))
    assert max(n.used for n in party.notes.values()) > 1
    for value, holds in ((490, True), (500, False)):
        party = ClearParty()
        F.silu(held(party, torch.tensor([value]) << 14, 48, 14))
        assert all(n.used < 1 for n in party.notes.values()) == holds
    party = ClearParty()
    F.softmax(held(party, torch.tensor([[9000, -9000]]) << 14, 48, 14), torch.ones(2, dtype=torch.bool))
    assert any("spread" in n.what and n.used >= 1 for n in party.notes.values())


def test_a_large_row_is_noted() -> None:
    for value, holds in ((3000, True), (7000, False)):
        party = ClearParty()
        F.rms_norm(held(party, torch.full((1, 256), value) << 17, 34, 17), 1e-5)
        assert all(n.used < 1 for n in party.notes.values()) == holds


def test_products_beyond_doubles_are_words() -> None:
    a, b = torch.full((1, 4), 2**45), torch.full((4, 1), 2**15 + 1)
    party = ClearParty()
    z = arithmetic.matmul(held(party, a, 62, 0), held(party, b, 62, 0))
    assert z.part.item() == 4 * 2**45 * (2**15 + 1)


def test_what_has_no_clear_form_says_so() -> None:
    with pytest.raises(UsageError, match="no form in the clear"):
        arithmetic.deal(ClearParty(), None, (2,), 8)


# -- the way into the clear -----------------------------------------------------------------------------------------


def test_no_protocol_asks_whether_its_party_is_clear() -> None:
    """Primitives reach their forms by the decorator alone, and nothing else branches."""
    for path in [p for room in ("mpc", "nn") for p in (Path(puma.__file__).parent / room).glob("*.py")]:
        asked = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
                 and n.attr == "clear" and ast.unparse(n.value).endswith("party")]  # fmt: skip
        assert not asked, f"{path.name}:{asked}"


def test_a_form_stands_for_a_primitive_with_its_arguments() -> None:
    """Every form is called as its primitive is, and every form that there is has its primitive."""
    rooms = [
        vars(room).values() for room in (arithmetic, boolean, compare, inverses, raising, retrieval, watch, splines, F)
    ]
    taken = [f for values in rooms for f in values if hasattr(f, "form")]
    assert {f.form for f in taken if f.__module__.startswith("puma.mpc")} == set(PUBLIC_FORMS)
    for primitive in taken:
        expected = inspect.signature(inspect.unwrap(primitive)).parameters
        assert list(inspect.signature(primitive.form).parameters) == list(expected), primitive.__name__


PUBLIC_FORMS = [
    f for n, f in vars(clear_forms).items()
    if inspect.isfunction(f) and f.__module__ == clear_forms.__name__ and n != "in_clear" and n[0] != "_"
]  # fmt: skip


def test_a_protocol_in_the_clear_is_still_driven() -> None:
    protocol = compare.sign(held(ClearParty(), torch.tensor([-3, 3]), 8, 0))
    assert inspect.isgenerator(protocol) and ClearParty().run(protocol).part.tolist() == [1, 0]


def test_words_are_cut_as_masked_ones_are() -> None:
    """A line is met below its joint as often as above it; else tables with curves err by half as much again here."""
    low, words = 9, torch.arange(1 << 16) * 37 - (1 << 20)
    high, rest = cut(words, low)
    assert torch.equal((high << low) + rest, words)
    assert set((high - (words >> low)).tolist()) == {0, 1} and torch.equal(cut(words, low)[0], high)
    met = (rest.double() / 2**low).pow(2)
    assert met.mean() == pytest.approx(1 / 6, rel=0.02) and met.pow(2).mean() == pytest.approx(1 / 15, rel=0.03)
    share = (high - (words >> low)).double()
    assert share[(words & 511) >= 384].mean() == pytest.approx(7 / 8, abs=0.03)

"""The whole view of each party says nothing of a secret: no bit, pair or difference, and no xor of all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.mpc import arithmetic, boolean, compare, lookup, raising, retrieval
from puma.mpc.arithmetic import _masked, lift, multiply, open_truncate, reshare
from puma.mpc.party import DEALER, FIRST, SECOND, Piece, Protocol, together
from puma.mpc.share import Additive, Bits, Share
from puma.mpc.wide import products
from puma.nn import functional as F
from puma.nn import sampling
from tests.cases import MANY
from tests.trio import given, given_additive, given_bits, given_choice, given_public
from tests.view import Run, Viewer, findings, views

PARTIES = (DEALER, FIRST, SECOND)


@dataclass(frozen=True)
class Experiment:
    """A run of a primitive in so many copies, with its largest ring."""

    name: str
    run: Run
    copies: int
    ring: int


def held(party: Viewer, secret: Tensor, a: Any, b: Any, bits: int, frac: int = 0, name: str = "x") -> Share:
    """a where the secret is 0, b where it is 1."""
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    chosen = secret.reshape(-1, *[1] * a.ndim).bool()
    return party.hold(given(party, torch.where(chosen, b, a), bits, frac, name))


def _openings(party: Viewer, secret: Tensor) -> None:
    x, y = held(party, secret, 1, -3, 10), held(party, secret, 2, 5, 10, name="y")
    party.run(together(reshare(multiply(x, y), x.additive()), open_truncate((multiply(x, y), 3))))
    party.run(reshare(multiply(x, y)))


def _lifts(party: Viewer, secret: Tensor) -> None:
    party.run(lift((held(party, secret, 3, -14, 6), 12)))
    party.run(lift((held(party, secret, 0, 13, 5, name="y"), 9), least=4))


def _chosen(party: Viewer, secret: Tensor) -> None:
    bit = party.hold(given_bits(party, secret))
    x, y = held(party, secret, 1, 2, 7), held(party, secret, -3, 3, 7, name="y")
    party.run(compare.choose(bit, (x, y)))


def _opened_bits(party: Viewer, secret: Tensor) -> None:
    bits = [party.hold(given_bits(party, v, name)) for v, name in ((secret, "a"), (secret * 0, "b"))]
    first, second = party.run(boolean.open_masked(*bits))
    party.run(reshare(boolean.to_arithmetic(first, 9), boolean.to_arithmetic(second, 9)))


def _polynomials(party: Viewer, secret: Tensor) -> None:
    values = {"b": secret, "c": secret ^ 1, "d": secret * 0, "e": secret}
    party.run(boolean.evaluate({n: party.hold(given_bits(party, v, n)) for n, v in values.items()}, *MANY))


def _looked_up(party: Viewer, secret: Tensor) -> None:
    found = lookup.digit(held(party, secret, 3, 12, 4), 0, 4)
    party.run(reshare(*found.lookup(torch.arange(16).unsqueeze(0), 10, (0,))))
    sign = party.nothing(found.public.shape) if party.is_dealer else found.signed()
    party.run(reshare(Additive(party, sign, 10, 0, dealt=False)))
    found.borrows()


def _for_digits(party: Viewer, secret: Tensor) -> None:
    x, y = held(party, secret, 1, -3, 10), held(party, secret, 2, 5, 10, name="y")
    whole, rest = party.run(arithmetic.open_coarsely(multiply(x, y), 2, 3))
    found = lookup.digit(whole, 0, 4)
    party.run(reshare(*found.lookup(torch.arange(16).unsqueeze(0), 8, (0,)), rest.additive()))


def _raised(party: Viewer, secret: Tensor) -> None:
    grown = raising.raised(held(party, secret, 3, -14, 6), 12)
    y = raising.raised(held(party, secret, 2, -3, 5, name="y"), 12)
    party.run(reshare(raising.times(grown, y), raising.squared(grown), raising.whole(y)))


def _wide(party: Viewer, secret: Tensor) -> None:
    x = products.widened(held(party, secret, 3, -14, 6), 36)
    y = products.widened(held(party, secret, 2, -3, 5, name="y"), 36)
    party.run(products.opened(x, y, 5, 31))


def _selected(party: Viewer, secret: Tensor) -> None:
    bits = [party.hold(given_bits(party, v, name)) for v, name in ((secret, "a"), (secret ^ 1, "b"))]
    opened = party.run(boolean.open_masked(*bits))
    party.run(reshare(boolean.select_all(opened, held(party, secret, 1, 2, 7))))


def _retrieved(party: Viewer, secret: Tensor) -> None:
    rows = [6 if bit else 1 for bit in secret.tolist()]
    table = given(party, torch.arange(8.0).reshape(8, 1), 11, 0, "table")
    party.run(reshare(party.run(retrieval.retrieve(party.hold(given_choice(party, rows, 8, 11)), table))))


def _product(party: Viewer, secret: Tensor) -> None:
    x = held(party, secret, [[1.0, 2.0]], [[3.0, -4.0]], 9)
    party.run(reshare(arithmetic.matmul(x, x.transpose(-1, -2)), arithmetic.square(x)))


def _of_public(party: Viewer, secret: Tensor) -> None:
    """What both evaluators know shall not help them: a matrix that loses nothing of what it multiplies."""
    x = held(party, secret, [[1.0, 2.0]], [[3.0, -4.0]], 9)
    weight = given_public(party, torch.tensor([[1, 0], [3, 1]]), 9)
    party.run(reshare(arithmetic.linear(x, weight), multiply(x, weight[1])))
    party.run(open_truncate((arithmetic.linear(x, weight), 2)))


def _drawn(party: Viewer, secret: Tensor) -> None:
    x = held(party, secret, 1, 2, 12)
    noise = arithmetic.random_share(party, tuple(x.shape), 12)
    party.run(reshare(multiply(x, noise)))


EXPERIMENTS = [
    Experiment("reshare, open_truncate", _openings, 700, 10),
    Experiment("product", _product, 700, 10),
    Experiment("product with a public matrix", _of_public, 800, 9),
    Experiment("lift", _lifts, 700, 12),
    Experiment("sign", lambda p, s: p.run(compare.sign(held(p, s, 3, -7, 8, 1))), 500, 8),
    Experiment("sign, one digit", lambda p, s: p.run(compare.sign(held(p, s, 1, -2, 4))), 300, 8),
    Experiment("below", lambda p, s: p.run(compare.below(held(p, s, 3, -7, 7), [-2, 0, 5])), 700, 8),
    Experiment("less", lambda p, s: p.run(compare.less(held(p, s, 3, -7, 6), held(p, s, 2, 2, 6, name="y"))), 500, 8),
    Experiment("equal", lambda p, s: p.run(compare.equal(held(p, s, 3, 4, 9), held(p, s, 3, 3, 9, name="y"))), 500, 9),
    Experiment("choose", _chosen, 500, 8),
    Experiment("open_masked, to_arithmetic", _opened_bits, 500, 9),
    Experiment("evaluate", _polynomials, 300, 8),
    Experiment("lookup", _looked_up, 400, 10),
    Experiment("retrieve", _retrieved, 700, 11),
    Experiment("random_share", _drawn, 500, 12),
    Experiment("open_coarsely", _for_digits, 700, 10),
    Experiment("raised", _raised, 900, 12),
    Experiment("products of two words", _wide, 1200, 31),
    Experiment("select_all", _selected, 500, 8),
    Experiment(
        "quick maximum",
        lambda p, s: p.run(compare.maximum(held(p, s, [1.0, 2, -3], [3.0, -2, 1], 6), quick=True)),
        1300,
        6,
    ),
    Experiment("maximum", lambda p, s: p.run(compare.maximum(held(p, s, [1.0, 2, -3], [3.0, -2, 1], 6))), 1300, 6),
]
SLOW = [
    Experiment("one_hot", lambda p, s: F.one_hot(held(p, s, 2, 5, 3), 7), 3000, 48),
    Experiment("relu", lambda p, s: F.relu(held(p, s, 1.5, -7.25, 24, 14)), 4000, 48),
    Experiment("gelu", lambda p, s: F.gelu(held(p, s, 0.5, 200.0, 48, 14)), 8000, 64),
    Experiment("argmax", lambda p, s: F.argmax(held(p, s, [1.0, 2, 3, -4], [9.0, -2, 3, 1], 28, 14)), 8000, 48),
    Experiment("noise", lambda p, s: (held(p, s, 2, 5, 28), p.run(sampling.noise(p, tuple(s.shape)))), 4000, 52),
    Experiment("exp", lambda p, s: F.exp(held(p, s, -0.5, -700.0, 48, 14)), 8000, 64),
]


def suspicions(experiment: Experiment, ranks: tuple[int, ...] = PARTIES) -> dict[int, list[str]]:
    """What each party's view tells of the secret."""
    seen, secret = views(experiment.run, experiment.copies, experiment.ring)
    return {rank: findings(seen[rank], secret) for rank in ranks}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_no_view_tells_the_secret(experiment: Experiment) -> None:
    assert suspicions(experiment) == {rank: [] for rank in PARTIES}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("experiment", SLOW, ids=lambda e: e.name)
def test_no_view_of_a_function_tells_the_secret(experiment: Experiment) -> None:
    assert suspicions(experiment, (FIRST, SECOND)) == {FIRST: [], SECOND: []}


# -- what it must see ---------------------------------------------------------------------------------------------


def _bare(z: Additive) -> Protocol[Any]:
    """The evaluators swap their parts as they are."""
    yield [Piece(None if z.party.is_dealer else z.part, z.bits)]


def _one_pad(z: Additive, y: Additive) -> Protocol[Any]:
    """Two words under one pad: their difference is open, though each bit is uniform."""
    message, pads = _masked(z)
    second = [Piece(None, z.bits)] if z.party.is_dealer else [Piece(y.part + pads, y.bits)]  # type: ignore[operator]
    yield [*message, *second]


def _three_parts(b: Bits) -> Protocol[Any]:
    """A bit in three pieces of which no two tell anything: only their xor does."""
    party = b.party
    one, two = (boolean.own_bits(party, tuple(b.shape)) for _ in range(2))
    if party.is_dealer:
        yield [Piece(None, 1)] * 3
        return
    words = [kernels.unpack_bits(row, tuple(b.shape)) for row in (one, two, b.row ^ one ^ two)]
    yield [Piece(each, 1) for each in words]


def _swap(broken: Any) -> Run:
    def run(party: Viewer, secret: Tensor) -> None:
        if broken is _three_parts:
            party.run(broken(party.hold(given_bits(party, secret))))
            return
        zs = [given_additive(party, 1 + 6 * v, 10, 0, n, dealt=False) for v, n in ((secret, "x"), (0 * secret, "y"))]
        for z in zs if broken is _one_pad else []:  # parts of one secret that the other evaluator knows
            z.part = torch.zeros_like(z.part) if party.rank != FIRST else 1 + 6 * (secret if z is zs[0] else 0 * secret)
        party.run(broken(*zs) if broken is _one_pad else broken(party.hold(zs[0])))

    return run


@pytest.mark.parametrize(
    ("broken", "what"),
    [(_bare, "difference of words"), (_one_pad, "difference of words"), (_three_parts, "an xor of bits")],
)
def test_what_leaks_is_found(broken: Any, what: str) -> None:
    found = suspicions(Experiment("broken", _swap(broken), 500, 10))
    assert any(what in text for text in found[SECOND]), found
    assert found[DEALER] == []


def test_a_revealed_secret_is_found() -> None:
    run = Experiment("reveal", lambda p, s: p.run(arithmetic.reveal(held(p, s, 1, 2, 8))), 300, 8)
    assert all(suspicions(run)[rank] for rank in (FIRST, SECOND))


def test_one_mask_for_two_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `open_masked` drew once for all bits that it opens together: one that is known gives the other away."""
    own_bits, drawn = boolean.own_bits, dict[int, Tensor]()

    def once(party: Any, shape: tuple[int, ...]) -> Tensor:
        if party.rank not in drawn:
            drawn[party.rank] = own_bits(party, shape)
        return drawn[party.rank]

    def run(party: Viewer, secret: Tensor) -> None:
        party.run(boolean.open_masked(*(party.hold(given_bits(party, v, n)) for v, n in ((secret, "a"), (known, "b")))))

    monkeypatch.setattr(boolean, "own_bits", once)
    known = torch.zeros(300, dtype=torch.int64)
    found = suspicions(Experiment("one mask", run, 300, 8))
    assert all(any("an xor" in text for text in found[rank]) for rank in (FIRST, SECOND)), found

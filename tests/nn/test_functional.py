"""The other functions: on secrets they give what they give on tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.fixed import ACTIVATION, RESIDUAL, RESIDUAL_RING, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.nn import functional as F
from tests.cases import angles, sample
from tests.trio import dry, given, given_additive, given_choice, parties, value

UNIT = 2.0**-ACTIVATION


def run(compute: Any, frac: int = 20) -> Tensor:
    """compute(party), opened with `frac` fraction bits."""

    def finish(party: Party) -> Any:
        return party.run(formatted((compute(party), frac, RING)))[0]

    return value(parties(finish))


def weight(party: Party, w: Tensor, name: str = "w") -> Any:
    return given(party, w, RING, WEIGHT, name)


X, W, BIAS = sample(7, 24, scale=3), sample(10, 24, scale=0.3, seed=1), sample(10, seed=2)


def bound(x: Tensor, w: Tensor) -> Tensor:
    """Units of both factors against the other, summed at random signs and with four deviations' room."""
    return 4 * (UNIT * w.norm() + 2.0**-WEIGHT * x.norm()) + 2 * 2.0**-20


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(7,), (1,), (2, 3), ()])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    x = sample(*lead, 24, scale=3)

    def compute(party: Party) -> Any:
        extra = [weight(party, BIAS, "bias")] if bias else []
        return F.linear(given(party, x.reshape(-1, 24), RESIDUAL_RING, RESIDUAL), weight(party, W), *extra)

    exact = F.linear(x.reshape(-1, 24), W, BIAS if bias else None)
    assert (run(compute) - exact).abs().max() < bound(X[0], W[0])


def test_linear_of_products_and_sums_of_them() -> None:
    """A product can be added to, transposed, cut and passed on without a round of its own."""
    extra = sample(7, 24, seed=3)

    def compute(party: Party) -> Any:
        x = given_additive(party, X, RING, ACTIVATION + WEIGHT) + given(party, extra, RING, ACTIVATION, "extra")
        y = F.linear(x, weight(party, W), weight(party, BIAS, "bias")) + given(party, BIAS, 40, 17, "again")
        return (y.transpose(0, 1)[2:] - 1.5).reshape(4, 2, 7)

    exact = ((F.linear(X + extra, W, BIAS) + BIAS).T[2:] - 1.5).reshape(4, 2, 7)
    assert (run(compute) - exact).abs().max() < 2 * bound(X[0], W[0])


def test_products_of_secrets() -> None:
    a, b = sample(3, 5, 8), sample(3, 8, 6, seed=1)
    c = sample(3, 5, 8, scale=4, seed=2)

    def compute(party: Party) -> Any:
        x, y, z = (given(party, t, RING, 20, n) for t, n in ((a, "a"), (b, "b"), (c, "c")))
        results = [F.matmul(x, y), F.mul(x, z), F.mul(x, x), F.mul(F.mul(x, z), x)]
        return party.run(formatted(*((r, 20, RING) for r in results)))

    results = parties(compute)
    for i, exact in enumerate([a @ b, a * c, a * a, a * c * a]):
        assert (value([r[i] for r in results]) - exact).abs().max() < 40 * UNIT, i


def test_products_up_to_what_can_be_lifted() -> None:
    """|z| < 2^14 after a weight matrix, 2^18 after a product of two activations."""
    x, w = torch.tensor([[127.9], [-127.9]]).double(), torch.tensor([[127.9]]).double()
    a, b = torch.tensor([511.0, -511.0, 3.0]).double(), torch.tensor([512.9, 512.9, 2.0]).double()

    def compute(party: Party) -> Any:
        z = F.linear(given(party, x, RESIDUAL_RING, RESIDUAL), weight(party, w))
        y = F.mul(given(party, a, RING, ACTIVATION, "a"), given(party, b, RING, ACTIVATION, "b"))
        return party.run(formatted((z, ACTIVATION, RING), (z, RESIDUAL, 64), (y, ACTIVATION, RING)))

    for exact, *results in zip([x @ w, x @ w, a * b], *parties(compute), strict=True):
        assert (value(results) - exact).abs().max() < 0.05


def test_affine() -> None:
    scale, shift = sample(24, scale=2), sample(24, seed=4)
    for extra in ((shift,), ()):

        def compute(party: Party, extra: Any = extra) -> Any:
            parameters = [weight(party, t, n) for t, n in zip((scale, *extra), ("scale", "shift"), strict=False)]
            return F.affine(given(party, X, RESIDUAL_RING, RESIDUAL), *parameters)

        exact = F.affine(X, scale, *extra)
        assert (run(compute) - exact).abs().max() < 1.5 * UNIT * scale.abs().max() + 2.0**-WEIGHT * X.abs().max() + 1e-5


def test_embedding_is_exact() -> None:
    table, rows = sample(50, 12), [3, 0, 49, 3]
    one_hot = torch.eye(50).double()[rows]

    def compute(party: Party) -> Any:
        made = [given(party, one_hot, RESIDUAL_RING, 0), given_choice(party, rows, 50, RESIDUAL_RING)]
        return [party.run(formatted((F.embedding(m, weight(party, table)), WEIGHT, 30)))[0] for m in made]

    results = parties(compute)
    exact = torch.round(F.embedding(one_hot, table) * 2**WEIGHT) / 2**WEIGHT
    for i in range(2):
        assert torch.equal(value([r[i] for r in results]), exact)


def test_embedding_by_a_secret_index() -> None:
    table, rows = sample(37, 12), torch.tensor([36, 0, 5])

    def compute(party: Party) -> Any:
        return F.embedding(F.one_hot(given(party, rows, 6, 0), 37), weight(party, table))

    assert (run(compute, WEIGHT) - table[rows]).abs().max() <= 2.0**-WEIGHT


@pytest.mark.parametrize("size", [2, 3, 16, 33])
def test_one_hot_rows(size: int) -> None:
    index = torch.arange(size).flip(0)
    bits = max(1, (size - 1).bit_length())
    results = parties(lambda p: F.one_hot(given(p, index, bits, 0), size))
    assert torch.equal(value(results).float(), F.one_hot(index, size))


@pytest.mark.parametrize("turned", [False, True])
def test_heads(turned: bool) -> None:
    """Queries of fewer rows than keys, a share and products, in one round to open and one to lift."""
    xs = [sample(3, 32, scale=5), sample(9, 32, scale=4, seed=1), sample(9, 16, seed=2)]
    turns = [angles(5, 16)[:, 2:], angles(9, 16)] if turned else []

    def compute(party: Party) -> Any:
        q = given(party, xs[0], RESIDUAL_RING, RESIDUAL)
        k, v = (given_additive(party, x, RING, ACTIVATION + WEIGHT, n) for x, n in zip(xs[1:], "kv", strict=True))
        return F.heads(q, k, v, 16, turns), party.ledger.total().rounds

    results, rounds = zip(*parties(compute), strict=True)
    assert rounds == (0, 2, 2)
    for x, exact, *shares in zip(xs, F.heads(*xs, 16, turns), *results, strict=True):
        errors = (value(shares) - exact).abs()
        assert shares[0].frac == ACTIVATION and exact.shape == (x.shape[0], x.shape[1] // 16, 16)
        assert errors.max() < 1.5 * UNIT * (1 + 2**0.5) + 2.0**-15 * 2 * x.abs().max()


def test_a_gate_takes_no_round_of_its_own() -> None:
    gate, up = sample(40, scale=6), sample(40, scale=20, seed=1)

    def compute(party: Party) -> Any:
        g, u = (given_additive(party, x, RING, ACTIVATION + WEIGHT, n) for x, n in ((gate, "g"), (up, "u")))
        F.silu(g)
        alone = party.ledger.total().rounds
        g.opened.clear()
        y = F.silu_gated(g, u)
        together = party.ledger.total().rounds - alone
        return party.run(formatted((y, ACTIVATION, RING)))[0], together - alone

    results, extra = zip(*parties(compute), strict=True)
    assert extra == (0, -1, -1)  # and the activation is not lifted by itself
    error = (value(results) - F.silu_gated(gate, up)).abs()
    assert (error <= 1.1e-3 * up.abs() + 2 * UNIT * (1 + gate.abs()) + 2 * UNIT).all()


def test_relu_is_as_exact_as_its_input() -> None:
    """Over the whole ring of a residual, and with ties at zero."""
    x = torch.cat([torch.linspace(-1, 1, 999), torch.linspace(-8000, 8000, 999), torch.zeros(1)]).double()
    x = torch.round(x * 2**ACTIVATION) / 2**ACTIVATION
    for frac, slack in ((ACTIVATION, 0.0), (RESIDUAL, 1.5 * UNIT)):
        results = parties(lambda p, f=frac: p.run(formatted((F.relu(given(p, x, 34, f)), ACTIVATION, RING)))[0])
        assert (value(results) - torch.relu(x)).abs().max() <= slack
    results = parties(lambda p: F.relu(given_additive(p, x, RING, 28)))
    assert (value(results) - torch.relu(x)).abs().max() <= 1.5 * UNIT


@pytest.mark.parametrize("size", [1, 2, 5, 64, 301])
def test_argmax(size: int) -> None:
    logits = sample(4, size, scale=6, seed=size)
    logits[0] -= 3000
    results = parties(lambda p: F.argmax(given_additive(p, logits, RING, ACTIVATION + WEIGHT)))
    bits = max(1, (size - 1).bit_length())
    assert results[0].bits == bits
    index = value(results).long() % (1 << bits)
    assert torch.equal(logits.gather(-1, index[:, None])[:, 0], logits.amax(-1))
    again = parties(lambda p: F.one_hot(F.argmax(given(p, logits, RING, ACTIVATION)), size))
    assert torch.equal(value(again).argmax(-1), logits.argmax(-1))


def test_concatenation_is_local_and_wants_one_format() -> None:
    y = sample(3, 5, seed=9)

    def compute(party: Party) -> Any:
        one, other = given(party, X[:3], RING, ACTIVATION), given(party, y, RING, ACTIVATION, "y")
        with pytest.raises(ValueError, match="one ring and fraction"):
            F.cat([one, other.scaled(1)], -1)
        return F.cat([one, other], -1), party.ledger.total().rounds

    results, rounds = zip(*parties(compute), strict=True)
    assert rounds == (0, 0, 0)
    assert (value(results) - torch.cat([X[:3], y], -1)).abs().max() < UNIT


def test_components_are_booked_by_name() -> None:
    def compute(party: Party) -> Any:
        x = given(party, X, RESIDUAL_RING, RESIDUAL)
        with F.component("feed forward", x):
            F.relu(x)
        with F.component("attention", x):
            F.rms_norm(x, 1e-5)
        return {name for name, entry in party.ledger.entries.items() if entry.online or entry.offline}

    for members in (None, dry()):
        names = parties(compute, members)
        assert set().union(*names) == {"feed forward", "attention"}
    with F.component("nothing", X):
        pass


def test_on_tensors_they_are_torch() -> None:
    """The plain run: what models are compared with."""
    x, mask = sample(4, 6).float(), torch.ones(4, 6, dtype=torch.bool).tril()
    tf = torch.nn.functional
    assert torch.equal(F.gelu(x, "tanh"), tf.gelu(x, approximate="tanh")) and torch.equal(F.silu(x), tf.silu(x))
    assert torch.equal(F.softmax(x, mask), x.masked_fill(~mask, -torch.inf).softmax(-1))
    assert torch.allclose(F.rms_norm(x, 1e-5), tf.rms_norm(x, (6,), eps=1e-5))
    assert torch.equal(F.layer_norm(x, 1e-5), tf.layer_norm(x, (6,), eps=1e-5))
    for name in ("gelu", "sigmoid", "tanh", "relu", "exp", "reciprocal", "rsqrt"):
        reference = getattr(torch, name, None) or getattr(tf, name)
        assert torch.equal(getattr(F, name)(x.abs() + 1), reference(x.abs() + 1)), name
    assert torch.equal(F.one_hot(F.argmax(x), 6).argmax(-1), x.argmax(-1))

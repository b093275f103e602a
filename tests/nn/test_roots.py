"""Reciprocals and roots over all binades, and norms of rows of all kinds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.fixed import ACTIVATION, RESIDUAL, RESIDUAL_RING, RING, WEIGHT
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn import roots
from puma.nn.roots import RECIPROCAL_BOUND, RSQRT_BOUND, reciprocal, rsqrt
from puma.reference.plan import least_rms
from tests.cases import sample
from tests.trio import counted, given, given_additive, parties, value

UNIT = 2.0**-RESIDUAL


def binades(low: int, high: int) -> Tensor:
    """Words of every binade from 2^low to 2^high: both ends, the middle, and what lies between."""
    powers = 2.0 ** torch.arange(low, high).double()[:, None]
    inner = powers * (1 + torch.linspace(0, 1, 14).double())[:-1]
    ends = torch.cat([powers, powers + 1, 2 * powers - 1, 1.5 * powers], 1)
    return torch.cat([inner.reshape(-1), ends.reshape(-1)]).floor().clamp(2.0**low, 2.0**high - 1).unique()


@pytest.mark.parametrize(("low", "high", "bits"), [(4, 31, 33), (13, 20, 22), (0, 8, 10), (12, 34, 36)])
def test_reciprocals_of_all_binades(low: int, high: int, bits: int) -> None:
    words = binades(low, high)
    results = parties(lambda p: p.run(reciprocal(given(p, words, bits), low, high)))
    relative = value(results) * words - 1
    unit = words / 2.0 ** results[0].frac
    assert (relative.abs() <= RECIPROCAL_BOUND + unit).all(), float(relative.abs().max())


def test_reciprocals_hold_a_little_further_down() -> None:
    """Row sums of softmax may fall a little below their nominal least."""
    for words, bound in ((torch.arange(7373, 8192, 7).double(), 1.4), (binades(12, 13), 4.0)):
        results = parties(lambda p, w=words: p.run(reciprocal(given(p, w, 22), 13, 20)))
        assert (value(results) * words - 1).abs().max() <= bound * RECIPROCAL_BOUND


@pytest.mark.parametrize("scale", [1.0, 0.75, 0.5001])
@pytest.mark.parametrize(("last", "bits"), [(23, 50), (4, 12), (0, 4)])
def test_roots_of_all_binades(last: int, bits: int, scale: float) -> None:
    words = binades(0, 2 * last + 2)
    results = parties(lambda p: p.run(rsqrt(given(p, words, bits), last, scale)))
    exact = scale * torch.rsqrt(words)
    unit = 2.0 ** -results[0].frac / exact
    assert ((value(results) / exact - 1).abs() <= RSQRT_BOUND + unit).all()


def test_functions_over_their_whole_range() -> None:
    """Relative error of the bound, and 1.5 units of 2^-17."""
    x = binades(4, 31) / 2.0**16
    y = binades(4, 47) / 2.0**16
    results = parties(lambda p: (F.reciprocal(given(p, x, 40, 16)), F.rsqrt(given(p, y, 52, 16))))
    inverse, root = (value([r[i] for r in results]) for i in range(2))
    assert ((inverse - 1 / x).abs() <= RECIPROCAL_BOUND / x + 1.5 * UNIT).all()
    assert ((root - torch.rsqrt(y)).abs() <= RSQRT_BOUND * torch.rsqrt(y) + 1.5 * UNIT).all()


# -- norms ----------------------------------------------------------------------------------------------------------


def outliers(rows: int, n: int, size: float) -> Tensor:
    """Rows of deviation about 1 with a few channels as large as `size`, as in LLaMA."""
    x = sample(rows, n)
    x[:, 3], x[:, n // 2], x[::2, n - 1] = size, -size / 3, size / 2
    return x


ROWS = {
    "plain": sample(12, 64),
    "wide": sample(4, 768),
    "odd": sample(6, 37, scale=5),
    "narrow": sample(6, 2, scale=3),
    "shifted": sample(8, 96) + 20,
    "scaled": sample(16, 64) * 2.0 ** torch.arange(-4, 12)[:, None],
    "outliers of 1000": outliers(4, 512, 1000.0),
    "outliers of 8000": outliers(4, 256, 8000.0),
    "tiny": sample(8, 512, scale=1e-2),
    "tiny and short": sample(8, 64, scale=1e-2),
    "at the limit": torch.tensor([8190.0, -8190.0]).double().repeat(2, 32),
    "one of many": torch.eye(16).double()[:5] * 100,
}


def tolerance(x: Tensor, exact: Tensor, deviation: Tensor) -> Tensor:
    """Input units over the deviation, relative error of the root, and the last place of the result.

    The sum of squares errs by 1.5 units of 2^-16 at last, and its terms by units of 2^-13 that average out.
    """
    n = x.shape[-1]
    squares = n * deviation**2
    root = RSQRT_BOUND + 1.0 * 2.0**-16 / squares + 3 * 2.0**-13 / (n**0.5 * deviation)
    return 2.5 * UNIT / deviation + root * exact.abs() + 2.0 * 2.0**-ACTIVATION


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_norms_of_rows_of_all_kinds(norm: Any, kind: str) -> None:
    x = torch.round(ROWS[kind] * 2**RESIDUAL) / 2**RESIDUAL
    exact = norm(x, 1e-5)
    centred = x - x.mean(-1, keepdim=True) if norm is F.layer_norm else x
    deviation = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def compute(party: Party) -> Any:
        share = given(party, x, RESIDUAL_RING, RESIDUAL)
        product = given_additive(party, x, 48, ACTIVATION + WEIGHT)
        return norm(share, 1e-5), norm(product, 1e-5)

    for results in zip(*parties(compute), strict=True):
        assert (results[0].frac, results[0].bits) == (ACTIVATION, RING)
        errors = (value(list(results)) - exact).abs()
        assert (errors <= tolerance(x, exact, deviation)).all(), float((errors / tolerance(x, exact, deviation)).max())


def test_a_row_of_zeros_stays_small() -> None:
    """Nothing but eps below the root: the result is zero within what one unit of input may become."""
    for norm in (F.layer_norm, F.rms_norm):
        results = parties(lambda p, f=norm: f(given(p, torch.zeros(4, 64), RESIDUAL_RING, RESIDUAL), 1e-5))
        assert value(results).abs().max() < 0.02


def test_norms_of_higher_shapes() -> None:
    x = sample(2, 3, 16)
    results = parties(lambda p: F.layer_norm(given(p, x, RESIDUAL_RING, RESIDUAL), 1e-5))
    assert results[0].shape == (2, 3, 16)
    assert (value(results) - F.layer_norm(x, 1e-5)).abs().max() < 1e-3


def test_the_format_of_an_inverse_is_what_is_said_and_can_be_lifted() -> None:
    for low, high in ((4, 31), (13, 24), (6, 8)):
        words = binades(low, high)
        (x, *_) = results = parties(lambda p, n=low, h=high, w=words: p.run(reciprocal(given(p, w, h + 2), n, h)))
        assert (x.frac, x.bits) == roots.inverse_format(0, low, high)
        assert value(results).abs().max() * 2.0**x.frac < 2.0 ** (x.bits - 2)


# -- reaches --------------------------------------------------------------------------------------------------------

REACHES = [3, 4, 5, 6, 8, 9, 10, 11, 12, 15, 16, 17, 20, 21, 23]


def rows_up_to(reach: int, n: int) -> Tensor:
    """Rows of all lengths that the reach allows, a few to each power of two and at its joints, longest last: spread
    over all entries, and most of it in one. As short as leaves the root mean square one last place of the squares."""
    least = math.log2(roots.RowFormat(reach).step * 4) + math.log2(n) / 2
    lengths = 2.0 ** torch.linspace(max(least, reach - 26), reach - 1e-3, 47).double()
    lengths = torch.cat([lengths, 2.0 ** torch.arange(math.ceil(max(least, reach - 26)), reach).double()])
    spread = sample(len(lengths), n, seed=3)
    massive = sample(len(lengths), n, scale=1e-4, seed=4)
    massive[:, n // 3] = 1
    x = torch.cat([spread, massive])
    return x / x.norm(dim=-1, keepdim=True) * torch.cat([lengths, lengths])[:, None]


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize(("n", "norm"), [(48, F.rms_norm), (48, F.layer_norm), (768, F.rms_norm), (768, F.layer_norm)])
def test_norms_of_rows_of_every_length_at_every_reach(norm: Any, n: int, reach: int) -> None:
    """The bounds of RowFormat, from products and from shares, lengths measured less the mean."""
    form, stream = roots.RowFormat(reach), max(14, reach - 2)
    x = rows_up_to(reach, n)
    if norm is F.layer_norm:
        length = x.norm(dim=-1, keepdim=True)
        x = x - x.mean(-1, keepdim=True)
        x = (x / x.norm(dim=-1, keepdim=True) + 0.25 / n**0.5) * length
    x = torch.round(x * 2**RESIDUAL) / 2**RESIDUAL
    exact = norm(x, 1e-5)
    centred = x - x.mean(-1, keepdim=True) if norm is F.layer_norm else x
    size = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def compute(party: Party) -> Any:
        product = given_additive(party, x, 34 + max(stream, reach + 1), ACTIVATION + WEIGHT)
        share = given(party, x, 20 + max(stream, reach + 1), RESIDUAL)
        return norm(product, 1e-5, reach, 44), norm(share, 1e-5, reach)

    bound = RSQRT_BOUND + form.step**2 / (8 * size**2) + 3 * form.step / (n**0.5 * size)
    bound = bound + 2.0**-form.sum_frac / (n * size**2)
    bound = bound * exact.abs() + 2.5 * 2.0**-form.frac / size + 2.0 * 2.0**-ACTIVATION
    bound = bound + (x.mean(-1, keepdim=True) / size).abs() * 2.0**-12 * (norm is F.layer_norm)
    for results, ring in zip(zip(*parties(compute), strict=True), (44, RING), strict=True):
        assert (results[0].frac, results[0].bits) == (ACTIVATION, ring)
        errors = (value(list(results)) - exact).abs()
        assert (errors <= bound).all(), float((errors / bound).max())


@pytest.mark.parametrize("reach", [3, 4, 5, 6])
def test_faint_rows_of_a_table_keep_a_five_hundredth_of_themselves(reach: int) -> None:
    """As faint as a plan allows, beside rows as long as the reach, in the 18 fraction bits of embeddings."""
    least, n = least_rms(reach), 1024
    faint = sample(64, n, seed=7)
    faint = faint / faint.pow(2).mean(-1, keepdim=True).sqrt() * least * 2.0 ** torch.linspace(0, 3, 64)[:, None]
    long = sample(8, n, seed=8)
    x = torch.cat([faint, long / long.norm(dim=-1, keepdim=True) * 0.999 * 2.0**reach])
    x = torch.round(x * 2**WEIGHT) / 2**WEIGHT
    exact = F.rms_norm(x, 1e-6)
    results = parties(lambda p: F.rms_norm(given(p, x, 34, WEIGHT), 1e-6, reach))
    errors = (value(results) - exact).pow(2).mean(-1).sqrt() / exact.pow(2).mean(-1).sqrt()
    assert float(errors.max()) < 2.0**-9


def test_small_reaches_make_norms_cheaper_and_large_ones_no_dearer() -> None:
    x = sample(4, 2048)
    costs = [counted(lambda p, r=r: F.rms_norm(given_additive(p, x, 48, 32), 1e-5, r)) for r in REACHES]
    bits = [cost.online + cost.offline for cost in costs]
    usual = REACHES.index(16)
    assert bits[: usual + 1] == sorted(bits[: usual + 1]) and bits[0] < 0.85 * bits[usual]
    assert max(bits[usual:]) < 1.07 * bits[usual]

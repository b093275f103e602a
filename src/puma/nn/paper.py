"""The published approximations, in the same engine as ours: PUMA's piecewise polynomials and exponential, MPCFormer's
quadratic stand-ins for GeLU and softmax.

Which functions a session computes with is its *approximation*: "spline" (ours), "puma" or "mpcformer". A secret learns
it from its party and a tensor of the plain run from its class, so that float polynomials can be told from fixed point.
What a profile does not name (reciprocals, roots, tanh, sigmoid; MPCFormer's SiLU) is ours. This file must not know
models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from puma.mpc.arithmetic import lift, multiply, open_truncate, square, truncated
from puma.mpc.boolean import MaskedBit, open_masked, select
from puma.mpc.compare import below
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, ACTIVATION_REACH, NONLINEAR, RESIDUAL, RING, SCORE_REACH, formatted
from puma.mpc.party import Protocol, together
from puma.mpc.share import Additive, Secret, Share, stacked
from puma.nn.roots import normalised

SPLINE, PUMA, MPCFORMER = PROFILES = ("spline", "puma", "mpcformer")
POWER, POWER_RING = 18, 64  # fraction bits and ring of powers, as published
COEFFICIENT = 24  # fraction bits of coefficients; the sum of powers loses them at once
COMPARED = POWER + 15  # the ring of x where it is compared with the bounds of pieces
EXPONENT = 5  # exp(x) is (1 + x / 2^EXPONENT)^(2^EXPONENT)
CLIP = -14.0  # below, exp is 0
SQUARED_RING = 2 * POWER + 3  # of numbers up to 1 to be squared
SHIFT = 5.0  # of 2Quad: (x + SHIFT)^2 over the sum of a row


class Published(Tensor):
    """A tensor of the plain run whose functions are PUMA's."""

    approximation = PUMA


class Quadratic(Tensor):
    """A tensor of the plain run whose functions are MPCFormer's."""

    approximation = MPCFORMER


TENSORS: dict[str, type[Tensor]] = {PUMA: Published, MPCFORMER: Quadratic}


def marked(x: Tensor, approximation: str) -> Tensor:
    """The same tensor; whatever is computed from it in the plain run uses this profile's functions in float."""
    return x if approximation == SPLINE else x.as_subclass(TENSORS[approximation])


def approximation_of(x: Any) -> str:
    """The profile that goes with a tensor or a secret."""
    return x.party.approximation if isinstance(x, Secret) else getattr(x, "approximation", SPLINE)


# -- piecewise polynomials ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pieces:
    """0 below the first bound, a polynomial between two, x above the last; coefficients by power, lowest first."""

    name: str
    bounds: tuple[float, float, float]
    polynomials: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def thresholds(self) -> list[int]:
        """Words t so that x < t means the piece before a bound; the last piece holds its upper bound."""
        *lower, last = (round(b * 2**POWER) for b in self.bounds)
        return [*lower, last + 1]

    @property
    def powers(self) -> tuple[int, ...]:
        """Exponents above 1 that some polynomial has, with those that they are made of."""
        return tuple(n for n in PRODUCTS if any(len(p) > n for p in self.polynomials) and (n != 3 or self._cubic))

    @property
    def _cubic(self) -> bool:
        return any(len(p) > 3 and p[3] for p in self.polynomials)

    def __call__(self, x: Tensor) -> Tensor:
        """In float."""
        low, middle, high = self.bounds
        first, second = (sum(c * x**n for n, c in enumerate(p)) for p in self.polynomials)
        inner = torch.where(x < middle, first, second)
        return torch.where(x > high, x, torch.where(x < low, torch.zeros_like(x), inner))


PRODUCTS = {2: (1, 1), 3: (1, 2), 4: (2, 2), 6: (2, 4)}  # a power and the two whose product it is
TURNS = ((2,), (3, 4), (6,))  # what can be multiplied at the same time

GELU = Pieces(
    "gelu",
    (-4.0, -1.95, 3.0),
    (
        (-0.5054031199708174, -0.42226581151983866, -0.11807612951181953, -0.011034134030615728),
        (0.008526321541038084, 0.5, 0.3603292692789629, 0.0, -0.037688200365904236, 0.0, 0.0018067462606141187),
    ),
)
SILU = Pieces(
    "silu",
    (-8.0, -4.0, 4.0),
    (
        (-0.3067541139982155, -0.0819767021525476, -0.0055465625580307),
        (0.0085064025895951, 0.5, 0.2281430841728270, 0.0, -0.011113046708173, 0.0, 0.0002743776353465),
    ),
)


def _raised(x: Share, wanted: tuple[int, ...]) -> Protocol[dict[int, Share]]:
    """The wanted powers of x. Where a power wraps, no polynomial of it is selected."""
    found = {1: x}
    for turn in TURNS:
        new = [n for n in turn if n in wanted]
        if new:
            products = [_product(*(found[part] for part in PRODUCTS[n])) for n in new]
            opened = yield from open_truncate(*((z, POWER) for z in products))
            found |= dict(zip(new, (yield from lift(*((s, POWER_RING) for s in opened))), strict=True))
    return found


def _product(a: Share, b: Share) -> Additive:
    return square(a) if a is b else multiply(a, b)


def _between(x: Share, thresholds: list[int]) -> Protocol[MaskedBit]:
    """Whether x lies in each piece but the lowest, along a new first dimension."""
    smaller = yield from below(x.reduced(COMPARED), thresholds)
    flags = [smaller[..., i] for i in range(len(thresholds))]
    inner = [a ^ b for a, b in pairwise(flags)]
    return (yield from open_masked(stacked([*inner, ~flags[-1]])))[0]


def _polynomial(coefficients: tuple[float, ...], powers: dict[int, Share]) -> Share:
    """The sum with POWER fraction bits, in a ring of POWER_RING - COEFFICIENT bits."""
    total = powers[1].times(0, COEFFICIENT).shifted(round(coefficients[0] * 2 ** (POWER + COEFFICIENT)))
    for n, c in enumerate(coefficients[1:], start=1):
        if c:
            total = total + powers[n].times(round(c * 2**COEFFICIENT), COEFFICIENT)
    return truncated(total, COEFFICIENT)


@declares("3 comparisons, powers of 64 bits, 3 selections; 10 rounds and x's", "section 9")
def piecewise(function: Pieces, x: Share | Additive, watched: bool = False) -> Protocol[Share]:
    """PUMA's function(x) with ACTIVATION fraction bits in ring RING; |x| < 2^13 and below what x can be lifted from,
    beyond which it is flagged if it is `watched`."""
    (x,) = yield from formatted((x, POWER, POWER_RING), noted=(0,) if watched else ())
    inside, powers = yield from together(_between(x, function.thresholds), _raised(x, function.powers))
    values = [_polynomial(p, powers) for p in function.polynomials]
    chosen = select(inside, stacked([*values, x.reduced(values[0].bits)])).sum(0)
    (result,) = yield from open_truncate((chosen, POWER - ACTIVATION))
    return (yield from lift((result, RING)))[0]


# -- the exponential ------------------------------------------------------------------------------------------------


def exponential_plain(x: Tensor) -> Tensor:
    """(1 + x / 32)^32 from -14 to 0, and 0 below, in float."""
    return torch.where(x < CLIP, torch.zeros_like(x), (1 + x / 2**EXPONENT) ** (2**EXPONENT))


@declares("a comparison, 5 squares of 39 bits, a selection; 12 rounds", "section 9")
def exponential(x: Share, out_frac: int, bits: int) -> Protocol[Share]:
    """PUMA's exp(x) with so many fraction bits in ring `bits`, for x <= 0 with NONLINEAR fraction bits."""
    inside, power = yield from together(_above_clip(x), _repeated_squares(x))
    chosen = select(MaskedBit(inside.party, inside.word), power)
    (result,) = yield from open_truncate((chosen, POWER - out_frac))
    return (yield from lift((result, bits)))[0]


def _above_clip(x: Share) -> Protocol[MaskedBit]:
    smaller = yield from below(x, [round(CLIP * 2**x.frac)])
    return (yield from open_masked(~smaller[..., 0]))[0]


def _repeated_squares(x: Share) -> Protocol[Share]:
    """x with EXPONENT more fraction bits is x / 2^EXPONENT, exactly."""
    power = x.like(*x.components, frac=x.frac + EXPONENT) + 1
    power = power.reduced(min(x.bits, SQUARED_RING - 1))
    for _ in range(EXPONENT):
        (power,) = yield from lift((power, SQUARED_RING))
        (power,) = yield from open_truncate((square(power), POWER))
    return power


def _exp(x: Share | Additive, reach: int = SCORE_REACH, watched: bool = False) -> Protocol[Share]:
    (x,) = yield from formatted((x, NONLINEAR, NONLINEAR + reach + 1))
    return (yield from exponential(x, ACTIVATION, RING))


# -- softmax --------------------------------------------------------------------------------------------------------


def softmax_plain(scores: Tensor, mask: Tensor) -> Tensor:
    """The profile's softmax in float; the profile is the tensor's."""
    if approximation_of(scores) == MPCFORMER:
        weights = (scores + SHIFT) ** 2
    else:
        allowed = scores.masked_fill(~mask, float("-inf"))
        weights = exponential_plain(scores - allowed.amax(-1, keepdim=True))
    weights = weights * mask
    return weights / weights.sum(-1, keepdim=True)


def columns(count: int) -> int:
    """The next power of four: rows of so many columns can be normalised and squared with exact factors."""
    return 4 ** math.ceil(math.log2(count) / 2)


@declares("RMS norm of a row, 1 square", "section 9")
def quadratic_weights(scores: Share | Additive, mask: Tensor) -> Protocol[Additive]:
    """2Quad, (x + 5)^2 over the sum of its row: the squares of an RMS norm over the number of columns.

    The sum of a row's squares < 2^32; forbidden entries are 0.
    """
    width = columns(scores.shape[-1])
    (x,) = yield from formatted((scores, RESIDUAL, min(64, scores.bits + RESIDUAL - scores.frac)))
    shifted = (x + SHIFT).times(mask.expand(scores.shape).to(torch.int64).to(x.device))
    weights = square((yield from normalised(shifted, 0.0, False, width)))
    weights.frac += width.bit_length() - 1
    return weights


# -- GeLU by a square -----------------------------------------------------------------------------------------------


def quadratic_plain(x: Tensor) -> Tensor:
    """0.125 x^2 + 0.25 x + 0.5 in float."""
    return 0.125 * x * x + 0.25 * x + 0.5


@declares("formatted", "section 9")
def quadratic(x: Share | Additive, reach: int = ACTIVATION_REACH, watched: bool = False) -> Protocol[Additive]:
    """MPCFormer's GeLU, 0.125 x^2 + 0.25 x + 0.5, untruncated; |x| < 2^reach - 16. Its public factors are exact shifts.

    The ring holds what is below 2^(2 reach - 3), and lifts it.
    """
    (x,) = yield from formatted((x, ACTIVATION, max(RING, 30 + 2 * reach)), noted=(0,) if watched else ())
    squares = square(x)
    squares.frac += 3
    return squares + x.like(*x.components, frac=x.frac + 2) + 0.5


# -- what stands in for what ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Approximation:
    """A function in float, and on secrets below 2^reach, of which it is told whether those beyond are to be flagged."""

    plain: Callable[[Tensor], Tensor]
    secure: Callable[[Any, int, bool], Protocol[Any]]

    def __call__(self, x: Tensor) -> Tensor:
        return self.plain(x)


def _by_pieces(function: Pieces) -> Approximation:
    return Approximation(function, lambda x, reach, watched: piecewise(function, x, watched))


INSTEAD: dict[tuple[str, str], Approximation] = {
    (PUMA, "gelu"): _by_pieces(GELU),
    (PUMA, "silu"): _by_pieces(SILU),
    (PUMA, "exp"): Approximation(exponential_plain, _exp),
    (MPCFORMER, "gelu"): Approximation(quadratic_plain, quadratic),
}


def instead(name: str, x: Any) -> Approximation | None:
    """What the profile of x computes instead of ours under this name, if anything."""
    return INSTEAD.get((approximation_of(x), name))

"""A token drawn at random inside the computation: noise that no party knows, added before the largest logit is sought.

The largest of logits / T + G has the distribution of a softmax at temperature T if every G is a Gumbel variable of its
own. A Gumbel variable is a sum of independent parts, each of which one digit of a shared uniform number gives without a
message: G = Y + K log 16 + R. Y + K log 16 is exponential, split at powers of 16: K counts leading zeros in digits of
four bits, and is exact up to 16^-7; Y, on [0, log 16), is looked up. R = -log(Gamma(2)) is looked up, too. A cell of
either table holds the logarithm of the mean of exp(.) over it, which keeps the probability of large G as it is. Nothing
depends on an input. Section 5 of docs/protocol.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from puma.mpc.arithmetic import deal, random_share, reshare
from puma.mpc.boolean import evaluate, open_masked, to_arithmetic
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, LOGIT_REACH, LOGIT_RING, logit_ring
from puma.mpc.lookup import Digit, digits
from puma.mpc.party import Party, Protocol, together
from puma.mpc.polynomial import Polynomial, bit, times
from puma.mpc.share import Additive, Share
from puma.nn.functional import argmax

LEADING, LEADING_BITS = 7, 4  # digits whose zeros are counted
TABLE_BITS = (6, 8)  # of the digits that look up Y and R
WIDTHS = (*[LEADING_BITS] * LEADING, *TABLE_BITS)
STEP = LEADING_BITS * math.log(2)  # log 16
# Between the bounds a unit of the logits is less than a hundredth of the noise, and the noise less than their ring.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
HALVINGS = 80


@cache
def tables() -> tuple[Tensor, Tensor]:
    """Y and R in cells of equal probability, as float64: (2^6,) and (2^8,)."""
    return _table(TABLE_BITS[0], _exponential), _table(TABLE_BITS[1], _second)


def _table(width: int, edges: Callable[[Tensor], Tensor]) -> Tensor:
    """log of the mean of exp over each cell, from the integral of exp up to each cell's edge."""
    integral = edges(torch.linspace(0, 1, (1 << width) + 1, dtype=torch.float64))
    return torch.log((integral[1:] - integral[:-1]) * (1 << width))


def _exponential(p: Tensor) -> Tensor:
    """For Y, of density exp(-y) / (1 - 1/16): the integral of exp up to a cell's edge is the edge itself, scaled."""
    rest = 1 - math.exp(-STEP)
    return -torch.log1p(-p * rest) / rest


def _second(p: Tensor) -> Tensor:
    """For R = -log X, P(R < r) = (1 + x) exp(-x): the integral is exp(-x) at the x of each edge, found by halving."""
    low, high = torch.zeros_like(p), torch.full_like(p, 64.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (1 + middle) * torch.exp(-middle) > p
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return torch.exp(-low)


@cache
def counting() -> tuple[Polynomial, ...]:
    """The binary digits of K, lowest first, from bits z1 .. z7: with P_k = z1 ... zk, digit j is the xor of every
    P_k with k a multiple of 2^j, because these come one after the other."""
    leading = {k: times(*(bit(f"z{i}") for i in range(1, k + 1))) for k in range(1, LEADING + 1)}
    found = []
    for j in range(LEADING.bit_length()):
        total: Polynomial = frozenset()
        for k in range(1 << j, LEADING + 1, 1 << j):
            total = total ^ leading[k]
        found.append(total)
    return tuple(found)


@declares("online 4k + 20, offline 552 + 5k; 2 rounds", "section 5")
def noise(party: Party, shape: tuple[int, ...], temperature: float = 1.0, ring: int = LOGIT_RING) -> Protocol[Additive]:
    """Gumbel variables times a public temperature, in the format of logits, from numbers that no party knows.

    Two rounds: looked-up words are reshared while zeros are counted, then the count's digits are opened under masks.
    """
    uniform = random_share(party, shape, sum(WIDTHS))
    *leading, y, r = digits(uniform, 0, WIDTHS)
    words = [torch.round(temperature * t * 2**ACTIVATION).long() for t in tables()]
    signed = [d.lookup(t.unsqueeze(0), ring, (ACTIVATION,))[0] for d, t in zip((y, r), words, strict=True)]
    zeros = {f"z{i}": digit.is_in([0]) for i, digit in enumerate(leading, start=1)}
    looked_up, count = yield from together(reshare(*signed), evaluate(zeros, *counting()))
    masked = yield from open_masked(*count)
    total = _unsigned((y, r), looked_up, ring)
    for j, flag in enumerate(masked):
        weight = round(temperature * STEP * 2 ** (ACTIVATION + j))
        total = total + to_arithmetic(flag, ring).times(weight, ACTIVATION)
    return total


def _unsigned(of: tuple[Digit, ...], looked_up: list[Share], ring: int) -> Additive:
    """The sum of s E over digits of sign s and what was looked up with that sign, E = m - l: s l is dealt, of s itself
    the evaluators have parts."""
    party, shape = looked_up[0].party, tuple(looked_up[0].shape)
    if party.is_dealer:
        words = [digit.sign() * e.mask for digit, e in zip(of, looked_up, strict=True)]
        deal(party, torch.stack(words), (len(of), *shape), ring)
        part = party.nothing(shape)
    else:
        dealt = deal(party, None, (len(of), *shape), ring)
        part = sum(d.signed() * e.m - word for d, e, word in zip(of, looked_up, dealt, strict=True))
    return Additive(party, part, ring, ACTIVATION, dealt=False)  # type: ignore[arg-type]


def with_noise(reach: int, temperature: float) -> int:
    """How far apart logits within 2^reach of each other lie once noise has been added: a number of it is below 32."""
    return max(reach, min(LOGIT_REACH, max(reach, math.ceil(math.log2(32 * max(temperature, 1)))) + 1))


@declares("argmax; at a temperature noise before it", "section 5")
def sample(
    logits: Share | Additive, temperature: float, reach: int = LOGIT_REACH, barred: tuple[int, ...] = ()
) -> Share:  # fmt: skip
    """An index of the last dimension: drawn with softmax(logits / temperature), or the largest at temperature 0; none
    of those that are `barred`, which are public.

    No token's probability errs by more than 2e-3, besides the logits' own rounding (2^-14).
    """
    if not temperature:
        return argmax(logits, reach, barred)
    reach = with_noise(reach, temperature)
    added = noise(logits.party, tuple(logits.shape), temperature, logit_ring(reach))
    return argmax(logits + logits.party.run(added), reach, barred)

"""Activations in the ring of their reader, and gates: an activation times what another matrix gives.

Of the products one is of clamped numbers, as gpt-oss has it: (up + 1) gate sigmoid(1.702 gate), gate up to 7, up
between -7 and 7; both factors are functions of one number each, which end where the clamps begin, and so tables. It
must not know models.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from puma.mpc.arithmetic import multiply
from puma.mpc.cost import declares
from puma.mpc.fixed import (
    ACTIVATION,
    ACTIVATION_REACH,
    GATED_REACH,
    NONLINEAR,
    RESIDUAL,
    RING,
    SCORE_REACH,
    formatted,
    gated_ring,
    grown,
)
from puma.mpc.party import Protocol, together
from puma.mpc.raising import raised_to, times, whole
from puma.mpc.share import Additive, Share
from puma.nn import paper
from puma.nn.splines import Spline, least, lifted, piecewise, reaching, roomy
from puma.nn.variants import GATED

Value = Any  # a torch tensor, a Share or an Additive

LIMIT, ALPHA = 7.0, 1.702
SOFTCAP_SLOPE = 20
SCALE = LIMIT / (1.0 + 2.718281828459045 ** (-ALPHA * LIMIT))  # the largest number that the gate gives


def _gate(x: Tensor) -> Tensor:
    x = x.clamp(max=LIMIT)
    return x * torch.sigmoid(ALPHA * x) / SCALE


def _up(x: Tensor) -> Tensor:
    return (x.clamp(-LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)


# Where a clamp begins a line over both sides of it errs by a quarter of a segment: 6e-4 and 3e-4 of these functions.
GATE = Spline("clamped gate", _gate, -8.0, 10, 6, bound=9e-4, above=1, slope=10, bits=30, out_frac=RESIDUAL)
UP = Spline("clamp", _up, -8.0, 10, 6, bound=5e-4, above=1, slope=10, bits=30, out_frac=RESIDUAL)


@declares("formatted, both tables in the same rounds", "section 5")
def clamped(gate: Value, up: Value, reach: int = ACTIVATION_REACH, other: int = ACTIVATION_REACH) -> Value:
    """(clamp(up) + 1) clamp(gate) sigmoid(1.702 clamp(gate)) over SCALE; |gate| < 2^reach - 16, |up| < 2^other - 16."""
    if isinstance(gate, Tensor):
        return (2 * LIMIT * _up(up) + 1 - LIMIT) * _gate(gate)

    def protocol() -> Protocol[Additive]:
        splines = reaching(GATE, reach), reaching(UP, other)
        made = yield from together(*map(_small, splines, (gate, up)))
        first, second = (raised_to(x, RING, least(spline)) for x, spline in zip(made, splines, strict=True))
        return times(first, second).times(round(2 * LIMIT)) - whole(first).times(round(LIMIT) - 1)

    return gate.party.run(protocol())


@cache
def softcap_table(cap: float, reach: int = SCORE_REACH, watched: bool = True) -> Spline:
    """sigmoid(2 x / cap), of which cap tanh(x / cap) is a linear function, so fine that it stays small times 2 cap.

    The table reaches to 5 caps or more, where the function is within 5e-5 of its limit.
    """
    high = math.ceil(math.log2(5 * cap))
    bits = SOFTCAP_SLOPE + NONLINEAR + 2
    spline = Spline(
        "softcap", lambda x: torch.sigmoid(2 * x / cap), -(2.0**high), 10, 9 - high, bound=5e-5, above=1,
        slope=SOFTCAP_SLOPE, bits=bits, out_frac=21, reach=max(reach, high + 2),
    )  # fmt: skip
    return roomy(spline, SCORE_REACH, watched)


def activated(spline: Spline, x: Share | Additive, ring: int = RING, grows: bool = False) -> Protocol[Any]:
    """The activation of a spline's name, by the profile of x, in `ring`; or it `grows` into it where it is read."""
    other = paper.instead(spline.name.removesuffix("_tanh"), x)
    if other:
        return (yield from other.secure(x, spline.reach, bool(spline.room)))
    (x,) = yield from formatted((x, spline.frac, spline.ring))
    if grows:
        return raised_to((yield from piecewise(spline, x)), ring, least(spline))
    return (yield from lifted(spline, x, ring))


def gated(
    spline: Spline, gate: Share | Additive, up: Share | Additive, product: int, watched: bool, grows: bool = False
) -> Protocol[Additive]:
    """The activation times up, below 2^product, `watched` or not; both grow in the product, without a lift.

    Where the plan has GATED, the ring has room for what the next matrix reads; but what is watched is watched where it
    is lifted, and what `grows` in public matrices takes no round there anyway.
    """
    ring, unproven = gated_ring(product), watched and product != GATED_REACH
    if GATED in gate.party.quick and not (unproven or grows):
        ring = max(ring, RING + ACTIVATION)
    if paper.instead(spline.name.removesuffix("_tanh"), gate):
        activation, (factor,) = yield from together(activated(spline, gate, ring), formatted((up, ACTIVATION, ring)))
        result = multiply(activation, factor)
    else:
        made, (factor,) = yield from together(_small(spline, gate), grown((up, ACTIVATION, ring)))
        result = times(raised_to(made, ring, least(spline)), factor)
    result.unproven = unproven  # whoever reads it lifts it
    return result


def _small(spline: Spline, x: Share | Additive) -> Protocol[Share]:
    (x,) = yield from formatted((x, spline.frac, spline.ring))
    return (yield from piecewise(spline, x))

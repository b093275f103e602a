"""A gate of clamped numbers, as gpt-oss has it: (up + 1) gate sigmoid(1.702 gate), gate up to 7, up between -7 and 7.

Both factors are functions of one number each, which end where the clamps begin, and so tables. It must not know models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from puma.mpc.arithmetic import multiply
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION_REACH, RESIDUAL, RING, formatted
from puma.mpc.party import Protocol, together
from puma.mpc.share import Additive, Share
from puma.nn.splines import Spline, lifted, reaching

Value = Any  # a torch tensor, a Share or an Additive

LIMIT, ALPHA = 7.0, 1.702
SCALE = LIMIT / (1.0 + 2.718281828459045 ** (-ALPHA * LIMIT))  # the largest number that the gate gives


def _gate(x: Tensor) -> Tensor:
    x = x.clamp(max=LIMIT)
    return x * torch.sigmoid(ALPHA * x) / SCALE


def _up(x: Tensor) -> Tensor:
    return (x.clamp(-LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)


# Where a clamp begins a line over both sides of it errs by a quarter of a segment: 6e-4 and 3e-4 of these functions.
GATE = Spline("clamped gate", _gate, -8.0, 10, 6, bound=9e-4, above=1, slope=10, bits=30, out_frac=RESIDUAL)
UP = Spline("clamp", _up, -8.0, 10, 6, bound=5e-4, above=1, slope=10, bits=30, out_frac=RESIDUAL)


@declares("formatted, lifted, both in the same rounds", "section 5")
def clamped(gate: Value, up: Value, reach: int = ACTIVATION_REACH, other: int = ACTIVATION_REACH) -> Value:
    """(clamp(up) + 1) clamp(gate) sigmoid(1.702 clamp(gate)) over SCALE; |gate| < 2^reach - 16, |up| < 2^other - 16."""
    if isinstance(gate, Tensor):
        return (2 * LIMIT * _up(up) + 1 - LIMIT) * _gate(gate)

    def protocol() -> Protocol[Additive]:
        made = yield from together(_table(reaching(GATE, reach), gate), _table(reaching(UP, other), up))
        product: Additive = multiply(*made)
        return product.times(round(2 * LIMIT)) - made[0].times(round(LIMIT) - 1)

    return gate.party.run(protocol())


def _table(spline: Spline, x: Share | Additive) -> Protocol[Share]:
    (x,) = yield from formatted((x, spline.frac, spline.ring))
    return (yield from lifted(spline, x, RING))

"""The functions that are measured one by one, as the parties run them and as torch does in float.

Launcher and parties both read this file; it must not know how anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from puma.engine.engine import settled
from puma.mpc import compare
from puma.mpc.fixed import ACTIVATION, LOGIT_RING, RING
from puma.mpc.share import Bits, Share
from puma.nn import functional as F

MILLION = 1 << 20


@dataclass(frozen=True)
class Function:
    """Shapes of the operands, where their entries lie, and both ways to run it.

    `spacing` is how the first operand covers its range, "even" or "log"; with "log" errors are divided by the result
    where that is above 1.
    """

    title: str
    shapes: tuple[tuple[int, ...], ...]
    reach: tuple[float, float]
    plain: Callable[..., Tensor]
    secure: Callable[..., Share | Bits]
    spacing: str = "even"
    bits: int = RING

    @property
    def elementwise(self) -> bool:
        return len(self.shapes[0]) == 1


def _less(x: Share, y: Share) -> Bits:
    return x.party.run(compare.less(x, y))


def _softmax(x: Any) -> Any:
    return F.softmax(x, torch.ones(x.shape[-1], dtype=torch.bool))


ONE, TWO = ((MILLION,),), ((MILLION,), (MILLION,))
ROWS = ((MILLION >> 4,),)  # of these a model has one a row; a million would need 9 GiB a party
FUNCTIONS: dict[str, Function] = {
    "gelu": Function("GeLU", ONE, (-8, 8), F.gelu, F.gelu),
    "silu": Function("SiLU", ONE, (-20, 20), F.silu, F.silu),
    "exp": Function("exp", ONE, (-16, 0), F.exp, F.exp),
    "reciprocal": Function("1/x", ROWS, (2**-9, 2**14), F.reciprocal, F.reciprocal, "log"),
    "rsqrt": Function("1/sqrt(x)", ROWS, (2**-9, 2**24), F.rsqrt, F.rsqrt, "log"),
    "multiply": Function("x y", TWO, (-16, 16), F.mul, lambda x, y: settled(F.mul(x, y))),
    "less": Function(f"x < y, {LOGIT_RING} bits", TWO, (-4096, 4096), torch.lt, _less, bits=LOGIT_RING),
    "softmax": Function("softmax, 12 x 128 x 128", ((12, 128, 128),), (-8, 8), _softmax, _softmax),
    "matmul": Function(
        "128 x 768 times 768 x 3072",
        ((128, 768), (768, 3072)),
        (-1, 1),
        F.matmul,
        lambda x, y: settled(F.matmul(x, y)),
    ),
}


def operands(function: Function, size: int | None = None) -> list[Tensor]:
    """Whole words with ACTIVATION fraction bits: the first covers the range in order, if alone; the rest is random.

    `size` replaces the million elements of an elementwise function.
    """
    low, high = function.reach
    generator = torch.Generator().manual_seed(7)
    values = []
    for shape in function.shapes:
        shape = (size,) if size and function.elementwise else shape
        if len(function.shapes) > 1 or not function.elementwise:
            values.append(low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64))
        elif function.spacing == "log":
            ends = torch.log2(torch.tensor([low, high], dtype=torch.float64)).tolist()
            values.append(2 ** torch.linspace(*ends, shape[0], dtype=torch.float64))
        else:
            values.append(torch.linspace(low, high, shape[0], dtype=torch.float64))
    return [(v * 2**ACTIVATION).round().to(torch.int64) for v in values]

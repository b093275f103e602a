"""Places: where in a model numbers of limited size come about, how large they may become, and who is told of them.

A place has a reach r: what it is about stays below 2^r. Formats follow from reaches, here and nowhere else: with the
reaches that places have by themselves they are those of docs/protocol.md. This file must not know configs, nor whether
numbers are tensors or shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from puma.mpc.fixed import (
    ACTIVATION_REACH,
    GATED_REACH,
    LOGIT_REACH,
    NORM_REACH,
    RELU_REACH,
    RING,
    SCORE_REACH,
    STREAM_REACH,
    VALUE_REACH,
    gated_ring,
    product_ring,
)

# What is below 2^reach, by kind, and by how much if no reach is given:
REACHES = {
    "stream": STREAM_REACH,  # |x| of the residual stream and of whatever is added to it
    "norm": NORM_REACH,  # the length of a row, less its mean for layer norm: the root of its squares' sum
    "activation": ACTIVATION_REACH,  # |x| at the input of gelu, silu and tanh
    "relu": RELU_REACH,  # |x| at the input of relu
    "gated": GATED_REACH,  # |activation(gate) * up|
    "value": VALUE_REACH,  # |v| of attention
    "scores": SCORE_REACH,  # how far apart the scores of a row are that attention may see; |x| before a soft cap
    "logits": LOGIT_REACH,  # how far apart the logits of a row are
}
LARGEST = {
    "stream": 30,
    "norm": 23,
    "activation": 14,
    "relu": 28,
    "gated": 30,
    "value": 20,
    "scores": 18,
    "logits": 15,
}
LEAST = {
    "stream": 5,
    "norm": 3,
    "activation": 5,  # the widest table of a function that is looked up ends at 16
    "relu": 5,
    "gated": 5,
    "value": 3,
    "scores": 5,
    "logits": 5,
}
SEEN = 6  # the least of what is not proven, norms apart: what is twice the reach must be seen

Observer = Callable[["Place", Any], None]


class Place:
    """One place of a model. The walk that hands out formats sets `name`, and `reach` and `named` if it has a reach of
    its own, which may be `proven`; `fine` asks for tables of twice as many segments. An `observer` is told of each
    tensor of the plain run that comes about here (never of a share):

    - "stream", "activation", "relu", "gated", "value": the numbers themselves, of any shape;
    - "norm": the rows (..., d) as they enter, the mean not yet taken off; `centred` says whether the norm does;
    - "scores", "logits": how far the largest and the least of each row lie apart (...,), and before a soft cap |x|.
    """

    def __init__(self, kind: str, centred: bool = False) -> None:
        self.kind, self.centred = kind, centred
        self.name, self.reach, self.named = "", REACHES[kind], False
        self.proven = self.fine = False
        self.observer: Observer | None = None

    def __repr__(self) -> str:
        return f"Place({self.kind}, {self.name!r}, reach={self.reach})"

    @property
    def watched(self) -> bool:
        """Whether what leaves the reach is flagged: not what cannot leave it. The usual reach stands for a proof, too,
        but in norms."""
        return not self.proven

    @property
    def limit(self) -> float:
        """What the numbers stay below."""
        whole = 2.0**self.reach
        return whole - 16 if self.kind == "activation" else whole * 15 / 16 if self.kind == "value" else whole

    @property
    def hiding(self) -> int:
        """What is taken off scores that are to be hidden in secret: 32 more than how far apart the others lie.

        Where a reach was given, it is the others'; the usual one holds both, so that these may use less than half.
        """
        return 1 << (self.reach + 1 if self.named else self.reach - 1)

    @property
    def hidden_reach(self) -> int:
        """The reach of scores some of which are hidden."""
        return self.reach + 2 * self.named

    @property
    def ring(self) -> int:
        """Of a matrix whose results are what this place is about; what has no reach of its own keeps the usual one."""
        if self.kind == "stream":
            return product_ring(self.reach)
        if not self.named:
            return RING
        if self.kind in ("activation", "relu", "value"):
            return product_ring(self.reach)
        # What is multiplied, or compared, may itself be larger than what comes of it.
        return max(RING, gated_ring(self.reach)) if self.kind == "gated" else RING

    def seen(self, x: Any) -> None:
        """Tell the observer, if there is one and these are plain numbers."""
        if self.observer is not None and isinstance(x, Tensor):
            self.observer(self, x)

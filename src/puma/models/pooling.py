"""What comes behind the states of a text's tokens: one vector by pooling, and matrices that change it.

The public shape of it is a part of a model's config; any architecture that has states may have it. This file must not
know folders, nor tensors from shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

import puma.nn.modules as nn
from puma.models.fields import Size
from puma.nn import functional as F
from puma.nn.modules import Value
from puma.nn.pooling import pooled

Mode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
EMBED = "embed."  # what the names of its parameters begin with, in every architecture
ASSUMED: Mode = "mean"  # where nothing says which


class Dense(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A matrix behind the pooling, with an activation or none (identity)."""

    outputs: Size
    bias: bool = True
    activation: Literal["", "tanh", "relu", "gelu", "gelu_tanh", "silu", "sigmoid"] = ""


class Pooling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How states become a text's vector: `modes`, their parts side by side (none: nothing says which, and the mean is
    taken), then matrices one after the other. A text ends with its first token of the number `ends`, or of the largest
    number that it holds if that is -1: what follows is not read.
    """

    modes: Annotated[tuple[Mode, ...], Meta(max_length=6)] = ()
    dense: Annotated[tuple[Dense, ...], Meta(max_length=8)] = ()
    ends: Annotated[int, Meta(ge=-1)] | None = None

    @property
    def taken(self) -> tuple[Mode, ...]:
        """The modes that are computed."""
        return self.modes or (ASSUMED,)

    def width(self, size: int) -> int:
        """Numbers of a vector that is made of states of this size."""
        return self.dense[-1].outputs if self.dense else len(self.taken) * size

    @property
    def words(self) -> str:
        """For people."""
        dense = f", {len(self.dense)} dense" if self.dense else ""
        return f"{' and '.join(self.taken)}{dense}{'' if self.modes else ' (assumed: its folder does not say)'}"


MEAN = Pooling()


class Embed(nn.Module):
    """The module that computes it: states (rows, size) to vectors (texts, width)."""

    def __init__(self, pooling: Pooling, size: int) -> None:
        self.pooling, self.dense = pooling, list[nn.Linear]()
        inputs = len(pooling.taken) * size
        for each in pooling.dense:
            place = nn.place_of(each.activation) if each.activation else ""
            self.dense.append(nn.Linear(inputs, each.outputs, each.bias, place))
            inputs = each.outputs

    def __call__(self, states: Value, lengths: Sequence[int], skip: int = 0, padding: Any = None) -> Value:
        """Of texts of these lengths; `skip` and `padding` are as for `nn.pooling.pooled`."""
        with F.component("head", states):
            x = pooled(states, self.pooling.taken, lengths, skip, padding)
            for i, (dense, each) in enumerate(zip(self.dense, self.pooling.dense, strict=True)):
                after = self.dense[i + 1 : i + 2]
                x = nn.activate(each.activation, dense, x, *after) if each.activation else dense(x)
        return x

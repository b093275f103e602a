"""Two convolutions over time, of which the second leaves every other row: a spectrum to the rows of an encoder.

A convolution is a matrix for each of three rows side by side, so that it is as free as a matrix on shares. This file
must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import puma.nn.modules as nn
from puma.models import bounds as b
from puma.models.architecture import Bound, Params, Shapes
from puma.models.hearing.spectrum import LOUDEST
from puma.nn import functional as F
from puma.nn.belonging import belonging
from puma.nn.modules import Value
from puma.nn.places import Place

TAPS = 3  # rows that a convolution reads: one before, its own, one behind
ACTIVATION = "gelu"  # of both, whatever the layers behind them have (transformers 5, WhisperEncoder)


class Near(nn.Module):
    """The first convolution: rows (rows, bands) to as many (rows, size)."""

    def __init__(self, bands: int, size: int) -> None:
        self.size = size
        self.weight: Value = nn.Parameter((TAPS * size, bands))
        self.bias: Value = nn.Parameter((size,))
        self.place = Place(nn.place_of(ACTIVATION))

    def __call__(self, x: Value, rows: nn.Rows) -> Value:
        each = F.linear(x, self.weight)
        parts = [each[:, i * self.size : (i + 1) * self.size] for i in range(TAPS)]
        return rows.moved(parts[0], -1) + parts[1] + rows.moved(parts[2], 1) + self.bias


class Halving(nn.Module):
    """The second one: rows (2 * rows, size) to half as many: of each pair the first row is its middle."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.even = nn.Linear(size, size)
        self.odd = nn.Linear(size, 2 * size, bias=False)  # what comes before the next pair, and behind its own first
        self.place = Place(nn.place_of(ACTIVATION))

    def __call__(self, x: Value, rows: nn.Rows) -> Value:
        odd = self.odd(x[1::2])
        return rows.moved(odd[:, : self.size], -1) + self.even(x[::2]) + odd[:, self.size :]


class Stem(nn.Module):
    """Both, each activated: a window's rows (2 * context, bands) to (context, hidden_size)."""

    def __init__(self, c: Any) -> None:
        self.conv1 = Near(c.sound.bands, c.hidden_size)
        self.conv2 = Halving(c.hidden_size)

    def __call__(self, x: Value, rows: nn.Rows) -> Value:
        """`rows` are those that come out, of all windows."""
        all_rows = nn.Rows([2 * length for length in rows.lengths])
        with F.component("embedding", x):
            with belonging(x, all_rows):
                x = self._activated(self.conv1(x, all_rows), self.conv1.place, self.conv2.even, self.conv2.odd)
            return self._activated(self.conv2(x, rows), self.conv2.place)

    def _activated(self, x: Value, place: Place, *readers: nn.Module) -> Value:
        place.seen(x)
        ring = nn.ring_for(*readers)
        return nn.ACTIVATIONS[ACTIVATION](x, place.reach, ring, watched=place.watched, fine=place.fine)


def unfolded(shapes: Shapes, size: int, bands: int) -> Shapes:
    """Names and shapes as a checkpoint has the convolutions."""
    found = {name: shape for name, shape in shapes.items() if not name.startswith("stem.")}
    for name, inputs in (("conv1", bands), ("conv2", size)):
        found |= {f"stem.{name}.weight": (size, inputs, TAPS), f"stem.{name}.bias": (size,)}
    return found


def fold_stem(folded: dict[str, Value], size: int) -> None:
    """At the owner: a matrix for each row that a convolution reads."""
    first, second = (folded.pop(f"stem.{name}.weight").permute(2, 0, 1) for name in ("conv1", "conv2"))
    folded["stem.conv1.weight"] = first.reshape(TAPS * size, -1)
    folded["stem.conv2.even.weight"], folded["stem.conv2.even.bias"] = second[1], folded.pop("stem.conv2.bias")
    folded["stem.conv2.odd.weight"] = second[::2].reshape(2 * size, -1)


def heard(config: Any, params: Params) -> Iterator[Bound]:
    """Of both convolutions, and of what the stream begins with: no number of a spectrum is larger than LOUDEST."""
    size = config.hidden_size
    parts = params["stem.conv1.weight"].abs().sum(1).reshape(TAPS, size).sum(0)
    first = LOUDEST * parts + params["stem.conv1.bias"].abs()
    yield b.activation(ACTIVATION, "stem.conv1", float(first.max()))
    inner = first + b.APART
    second = params["stem.conv2.even.weight"].abs() @ inner + params["stem.conv2.even.bias"].abs()
    second = second + (params["stem.conv2.odd.weight"].abs() @ inner).reshape(2, size).sum(0)
    yield b.activation(ACTIVATION, "stem.conv2", float(second.max()))
    yield b.added("encoder.positions", second + b.APART + params["encoder.positions.weight"].abs().amax(0))

"""Parameters whose masks are never stored: each use draws them again from a stream at a fixed position.

The dealer keeps no tensor at all, an evaluator one word a parameter. Masks of a small model may be kept, which trades
memory for time. This file must not know which model a parameter belongs to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puma.crypto.prg import Stream
from puma.mpc.party import Party
from puma.mpc.share import Share


def rest_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of a parameter at rest and on its way from the owner: each word in whole bytes, so that it can be found."""
    return math.prod(shape) * ((bits + 7) // 8)


class Seeded(Share):
    """A Share of given shape: `m` at the evaluators, masks from `streams` (two at the dealer, one elsewhere)."""

    def __init__(
        self, party: Party, m: Tensor | None, streams: list[Stream], shape: tuple[int, ...], bits: int, frac: int,
        keep: bool = False,
    ) -> None:  # fmt: skip
        empty = torch.empty(shape, dtype=torch.int64, device="meta")
        super().__init__(party, empty, empty, bits, frac)
        self._m, self._streams, self._keep = m, streams, keep
        self._kept: tuple[Tensor, Tensor] | None = None

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        if self._kept is not None:
            return self._kept
        if self.party.dry:
            return self._a, self._b
        masks = [s.at(s.position).words(tuple(self.shape)) for s in self._streams]
        pair = (masks[0], masks[1]) if self._m is None else (self._m, masks[0])
        if self._keep:
            self._kept = pair
        return pair

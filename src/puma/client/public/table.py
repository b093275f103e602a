"""The public table of embeddings at a client, which looks its own tokens up in it: nobody learns which.

This file must not know where the table comes from.
"""

from __future__ import annotations

from torch import Tensor

from puma import kernels
from puma.kernels.stored import Stored
from puma.mpc.fixed import WEIGHT


class PublicTable:
    """Rows of a matrix as words, each made when it is looked up."""

    def __init__(self, matrix: Stored) -> None:
        self._matrix = matrix

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of these tokens (n, width) as words with WEIGHT fraction bits, as the parties would have them."""
        return kernels.spread(self._matrix.chosen(ids), WEIGHT)

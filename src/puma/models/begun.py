"""Prompts together with what their answers begin with, as a model with a decoder of its own is given them.

Tensors, what an outsider chose, or shares: this file must not know which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from puma.nn import functional as F


class Begun(NamedTuple):
    """The rows of prompts, and the tokens that their answers begin with: as many for each, prompt by prompt."""

    prompts: Any
    tokens: Any

    def joined(self, others: Sequence[Begun]) -> Begun:
        """With those of others below."""
        every = (self, *others)
        return Begun(*(_below([each[i] for each in every]) for i in (0, 1)))


def parted(given: Any) -> tuple[Any, Any]:
    """The prompts, and what their answers begin with, if anything."""
    return (given.prompts, given.tokens) if isinstance(given, Begun) else (given, None)


def _below(rows: Sequence[Any]) -> Any:
    return rows[0].joined(rows[1:]) if hasattr(rows[0], "joined") else F.cat(rows, 0)

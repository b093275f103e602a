"""What the owner folds into matrices before a model is shared, so that parties need not compute it.

It knows the names of parameters alone, and must not know what computes with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def absorb(state: dict[str, Any], norm: str, readers: Iterable[str]) -> None:
    """Fold the affine of a norm into the matrices that read it: W(s*n + b) + c = (W*s) n + (Wb + c)."""
    for reader in readers:
        weight = state[f"{reader}.weight"]
        if f"{norm}.bias" in state:
            own, added = state.get(f"{reader}.bias"), weight @ state[f"{norm}.bias"]
            state[f"{reader}.bias"] = added if own is None else own + added
        state[f"{reader}.weight"] = weight * state[f"{norm}.weight"]


def absorb_norms(state: dict[str, Any], block: str, readers: Mapping[str, Iterable[str]]) -> None:
    """The same for the norms and matrices of a block, whichever of them the model has."""
    for norm, names in readers.items():
        if f"{block}{norm}.weight" in state:
            absorb(state, block + norm, [block + name for name in names if f"{block}{name}.weight" in state])


def rescale(state: dict[str, Any], linear: str, factor: float) -> None:
    """Multiply what a matrix and its bias return by a public factor."""
    for name in (f"{linear}.weight", f"{linear}.bias"):
        if name in state:
            state[name] = state[name] * factor

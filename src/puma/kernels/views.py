"""Torch tensors as flat numpy arrays for compiled code, without copies where that can be, and the one
decorator that compiles it. Every kernel sees flat int64 or uint8 arrays only, so each is compiled once. It
must not know what the arrays hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at the first call, kept on disk where a place can be written, releasing Python's lock."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no directory it may write to
        return njit(nogil=True)(function)


def words(x: Tensor) -> np.ndarray:
    """The words of x in order; a copy if they do not lie so."""
    if x.dtype is not torch.int64 or not x.is_cpu:  # as `_check`: this is called some thousand times a token
        _check(x, torch.int64)
    return x.contiguous().numpy().reshape(-1)


def octets(x: Tensor) -> np.ndarray:
    """The bytes of x in order; a copy if they do not lie so."""
    _check(x, torch.uint8)
    return x.contiguous().numpy().reshape(-1)


def span(x: Tensor) -> np.ndarray:
    """The words from the first of x to the last in memory order, whatever its strides: never a copy."""
    _check(x, torch.int64)
    if x.is_contiguous():
        return x.numpy().reshape(-1)
    length = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))
    return x.as_strided((length,), (1,)).numpy()


def _check(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype or not x.is_cpu:
        raise TypeError(f"expected {dtype} on the cpu, got {x.dtype} on {x.device}")

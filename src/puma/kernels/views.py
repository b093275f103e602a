"""Torch tensors as flat numpy arrays for compiled code, without copies where that can be, and the one
decorator that compiles it. Every kernel sees flat int64 or uint8 arrays only, so each is compiled once.

Kernels that are called for a few words thousands of times a second are given addresses and make the arrays themselves:
to describe an array to compiled code takes longer than the work. Whoever calls them holds the tensors. It must not
know what the arrays hold.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from torch import Tensor

ROOM = Path(__file__).parent
_IMPORTS = re.compile(r"^from puma\.kernels([.\w]*) import (\([^)]*\)|.*)$", re.MULTILINE)


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at the first call, kept on disk where a place can be written, releasing Python's lock."""
    try:
        result: Any = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no directory it may write to
        return njit(nogil=True)(function)
    # numba asks whether the function's own file has changed, and would keep code of what that file imports for ever
    with contextlib.suppress(AttributeError, OSError):  # numba names it otherwise; or the text is in no file
        kept = result._cache
        kept._guard_against_spurious_io_errors = _or_not  # numba fails where a disk is full
        stamp = kept._cache_file._source_stamp
        kept._cache_file._source_stamp = stamp, origin(Path(function.__code__.co_filename))
    return result


def _or_not() -> contextlib.suppress:
    """What cannot be kept, or read (EOFError: a file that a machine lost as it stopped), is compiled all the same."""
    return contextlib.suppress(OSError, EOFError)


@cache
def origin(path: Path) -> str:
    """A digest of all texts that the compiled code of a file is made of."""
    found = sha256()
    for file in sorted(made_of(path), key=lambda file: file.name):
        found.update(sha256(file.read_bytes()).digest())
    return found.hexdigest()


@cache
def made_of(path: Path) -> frozenset[Path]:
    """A file, and those of this room that it imports functions and numbers from."""
    found = {path}
    for room, names in _IMPORTS.findall(path.read_text(encoding="utf-8")):
        place = ROOM.joinpath(*room.split("."))
        for file in (place.with_suffix(".py"), *(place / f"{name}.py" for name in re.findall(r"\w+", names))):
            if file.is_file():
                found |= made_of(file)
    return frozenset(found)


def words(x: Tensor) -> np.ndarray:
    """The words of x in order; a copy if they do not lie so."""
    return lying(x).numpy().reshape(-1)


def octets(x: Tensor) -> np.ndarray:
    """The bytes of x in order; a copy if they do not lie so."""
    return lying(x, torch.uint8).numpy().reshape(-1)


def lying(x: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """x, or a copy whose elements lie in order: what is behind its address is all of it."""
    if x.dtype is not dtype or not x.is_cpu:
        _check(x, dtype)
    return x if x.is_contiguous() else x.contiguous()


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


def _pointing() -> Any:
    """An intrinsic: an address as a pointer to bytes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    @intrinsic
    def pointer(typing: Any, address):  # type: ignore
        return types.voidptr(types.int64), generate

    return pointer


pointer = _pointing()  # in compiled code: what lies behind an address


@compiled
def words_at(address, count):
    """In compiled code: so many words behind an address."""
    return carray(pointer(address), (count,), np.int64)


@compiled
def octets_at(address, count):
    """In compiled code: so many bytes behind an address."""
    return carray(pointer(address), (count,), np.uint8)


def _counting() -> Any:
    """An intrinsic: how many bits of a word are set, one instruction where a processor has one."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    @intrinsic
    def bits_set(typing: Any, word):  # type: ignore
        return types.uint64(types.uint64), generate

    return bits_set


bits_set = _counting()  # in compiled code

"""Tensors that are a shape and nothing else, for dry runs: what torch's meta device is, a hundred times as fast.

What is done to whole tensors, element by element, costs a look at two shapes here; whatever else is asked for goes to
torch's own meta device, so that there is one truth about shapes. It must not know what a kernel or a share is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

META = torch.device("meta")


class Outline:
    """A tensor's shape and type. It never changes, so that what would have the same shape may be the same outline.

    `count` is of a mask: how many of its entries are True, where somebody knows that.
    """

    __slots__ = ("count", "dtype", "shape")
    is_cpu, is_meta, device = False, True, META

    def __init__(self, shape: Any, dtype: torch.dtype = torch.int64, count: int | None = None) -> None:
        self.shape, self.dtype, self.count = torch.Size(shape), dtype, count

    def __repr__(self) -> str:
        return f"Outline(shape={tuple(self.shape)})"

    @property
    def ndim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    @property
    def T(self) -> Outline:
        """As a tensor's."""
        return Outline(self.shape[::-1], self.dtype)

    def dim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Outline]:
        return iter([Outline(self.shape[1:], self.dtype)] * self.shape[0])

    def __bool__(self) -> bool:
        raise TypeError("an outline has no words")

    # -- element by element ---------------------------------------------------------------------------------------

    def _with(self, other: Any) -> Outline:
        """As a tensor's, with another one or a number."""
        shape = getattr(other, "shape", None)
        if shape is None or shape == self.shape or not shape:
            return self
        return other if not self.shape and isinstance(other, Outline) else Outline(_common(self.shape, shape))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __xor__ = __rxor__ = _with
    __and__ = __rand__ = __or__ = __ror__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _with
    __lt__ = __gt__ = __le__ = __ge__ = _with
    __eq__ = __ne__ = _with  # type: ignore[assignment]
    __hash__ = object.__hash__

    def _same(self, *_: Any, **__: Any) -> Outline:
        """As a tensor's, which keeps its shape."""
        return self

    __neg__ = __invert__ = contiguous = clone = bool = add_ = copy_ = index_add = index_copy = _same

    def long(self) -> Outline:
        """As whole numbers."""
        return Outline(self.shape)

    def to(self, *_: Any) -> Outline:
        """On another device, or of another type."""
        return self

    # -- shapes ---------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Outline:
        """As a tensor's."""
        wanted = tuple(shape[0]) if shape and not isinstance(shape[0], int) else shape
        if -1 in wanted:
            rest = self.numel() // -math.prod(wanted)
            wanted = tuple(rest if n == -1 else n for n in wanted)
        assert math.prod(wanted) == self.numel(), f"{tuple(self.shape)} is no {wanted}"
        return Outline(wanted, self.dtype)

    def view(self, *shape: Any) -> Outline:
        """As a tensor's, also of another type."""
        if isinstance(shape[0], torch.dtype):
            size = self.shape[-1] * self.dtype.itemsize // shape[0].itemsize
            return Outline((*self.shape[:-1], size), shape[0])
        return self.reshape(*shape)

    def expand(self, *shape: Any) -> Outline:
        """As a tensor's."""
        wanted = tuple(shape[0]) if shape and not isinstance(shape[0], int) else shape
        if -1 in wanted:
            return self._by_torch(Tensor.expand, *shape)
        if wanted == self.shape:
            return self
        count = None if self.count is None else self.count * math.prod(wanted) // self.numel()
        return Outline(_common(self.shape, wanted), self.dtype, count)

    def expand_as(self, other: Any) -> Outline:
        """As a tensor's."""
        return self.expand(*other.shape)

    def transpose(self, a: int, b: int) -> Outline:
        """As a tensor's."""
        shape = list(self.shape)
        shape[a], shape[b] = shape[b], shape[a]
        return Outline(shape, self.dtype)

    def movedim(self, source: int, to: int) -> Outline:
        """As a tensor's."""
        shape = list(self.shape)
        size = shape.pop(source)
        shape.insert(to if to >= 0 else to + len(shape) + 1, size)
        return Outline(shape, self.dtype)

    def unsqueeze(self, dim: int) -> Outline:
        """As a tensor's."""
        at = dim if dim >= 0 else dim + len(self.shape) + 1
        return Outline((*self.shape[:at], 1, *self.shape[at:]), self.dtype)

    def select(self, dim: int, _: int) -> Outline:
        """As a tensor's."""
        shape = list(self.shape)
        del shape[dim]
        return Outline(shape, self.dtype)

    def sum(self, dim: int = -1, keepdim: bool = False) -> Outline:
        """As a tensor's along a dimension."""
        shape = list(self.shape)
        shape[dim : dim + 1 or None] = [1] if keepdim else []
        return Outline(shape, self.dtype)

    def new_zeros(self, *shape: Any) -> Outline:
        """As a tensor's."""
        return Outline(shape[0] if shape and not isinstance(shape[0], int) else shape, self.dtype)

    def gather(self, _: int, index: Any) -> Outline:
        """As a tensor's."""
        return Outline(index.shape, self.dtype)

    def split_with_sizes(self, sizes: Any) -> list[Outline]:
        """As a tensor's."""
        assert sum(sizes) == self.shape[0]
        return [Outline((size, *self.shape[1:]), self.dtype) for size in sizes]

    def __getitem__(self, index: Any) -> Outline:
        if type(index) is slice:
            return Outline((len(range(*index.indices(self.shape[0]))), *self.shape[1:]), self.dtype)
        shape = _indexed(self.shape, index if type(index) is tuple else (index,))
        return self._by_torch(Tensor.__getitem__, index) if shape is None else Outline(shape, self.dtype)

    # -- whatever else --------------------------------------------------------------------------------------------

    def _by_torch(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return _outlined(function(_meta(self), *(_meta(a) for a in arguments), **named))

    def __getattr__(self, name: str) -> Any:
        method = getattr(Tensor, name)
        return lambda *arguments, **named: self._by_torch(method, *arguments, **named)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        """torch's own functions of outlines."""
        quick = _quick().get(function)
        if quick is not None and not named:
            return quick(*arguments)
        return _outlined(function(*(_meta(a) for a in arguments), **(named or {})))


def _indexed(shape: tuple[int, ...], index: tuple[Any, ...]) -> list[int] | None:
    """What is left of a shape, one place after the other; None for what is less usual."""
    left, found, lists = list(shape), list[int](), 0
    for at, each in enumerate(index):
        if each is None:
            found.append(1)
        elif each is ...:
            rest = sum(other is not None for other in index[at + 1 :])
            kept = len(left) - rest
            found, left = [*found, *left[:kept]], left[kept:]
        elif type(each) is int:
            left.pop(0)
        elif type(each) is slice:
            found.append(len(range(*each.indices(left.pop(0)))))
        else:
            numbers = getattr(each, "shape", None) if getattr(each, "dtype", None) == torch.int64 else _listed(each)
            lists += 1
            if numbers is None or lists > 1:
                return None
            found += numbers
            left.pop(0)
    return [*found, *left]


def _listed(index: Any) -> tuple[int] | None:
    return (len(index),) if isinstance(index, list) and all(type(i) is int for i in index) else None  # type: ignore[misc]


def _common(*shapes: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(tuple(shape) for shape in shapes))


def _meta(x: Any) -> Any:
    """What torch's meta device has in place of outlines; what lies on the CPU comes along, or it would compute."""
    if isinstance(x, Outline):
        return torch.empty(x.shape, dtype=x.dtype, device=META)
    if isinstance(x, (list, tuple)):
        return type(x)(_meta(each) for each in x)  # type: ignore[misc]
    return x


def _outlined(x: Any) -> Any:
    if isinstance(x, Tensor) and x.is_meta:
        return Outline(x.shape, x.dtype)
    if isinstance(x, (list, tuple)):
        return type(x)(_outlined(each) for each in x)  # type: ignore[misc]
    return x


def _stack(items: Any, dim: int = 0) -> Outline:
    first = items[0]
    at = dim if dim >= 0 else dim + len(first.shape) + 1
    return Outline((*first.shape[:at], len(items), *first.shape[at:]), first.dtype)


def _cat(items: Any, dim: int = 0) -> Outline:
    shape = list(items[0].shape)
    shape[dim] = sum(item.shape[dim] for item in items)
    return Outline(shape, items[0].dtype)


def _matmul(a: Any, b: Any) -> Outline:
    return Outline((*_common(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))


def _elementwise(*operands: Any) -> Outline:
    return Outline(_common(*(x.shape for x in operands if hasattr(x, "shape"))))


@cache
def _quick() -> dict[Any, Callable[..., Any]]:
    """Functions of torch whose shapes need no meta device."""
    names = ("add", "sub", "mul", "bitwise_xor", "bitwise_and", "bitwise_or", "eq", "lt", "gt")
    slots = ("__and__", "__xor__", "__or__", "__lshift__", "__rshift__", "__radd__", "__rmul__", "__rsub__")
    found: dict[Any, Callable[..., Any]] = {getattr(Tensor, name): _elementwise for name in (*names, *slots)}
    found |= {getattr(torch, name): _elementwise for name in (*names, "where")}
    found |= dict.fromkeys((torch.neg, torch.zeros_like, torch.empty_like, torch.full_like), lambda x, *_: x)
    return found | {torch.stack: _stack, torch.cat: _cat, torch.matmul: _matmul}

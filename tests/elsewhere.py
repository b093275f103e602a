"""A device that is not the host, on a machine that has none: tensors that say so and refuse what a GPU would refuse.

`Elsewhere` holds its elements in a tensor of the host and does there what it is asked for, but not together with the
host's own tensors, except those that torch lets through (numbers without a dimension, and indices). It has no numpy
form. Inside `device()` torch makes such tensors wherever a device of this name is asked for. One thread each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("maia", 0)  # a name that torch knows and that nobody's machine has
INDEXING = ("aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::copy_")


class Elsewhere(Tensor):
    """A tensor of the device."""

    device = DEVICE  # type: ignore[assignment]
    is_cpu = False  # type: ignore[assignment]
    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, inner: Tensor) -> Any:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device="cpu",  # type: ignore[arg-type]
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def inner(x: Tensor) -> Tensor:
            if isinstance(x, Elsewhere):
                return x.inner
            assert not x.dim() or func._schema.name in INDEXING, f"{func} takes tensors of two devices"
            return x

        return mapped(away, func(*mapped(inner, args), **mapped(inner, kwargs or {})))


def mapped(function: Callable[[Tensor], Any], x: Any) -> Any:
    """`tree_map` for tensors in lists, tuples and dictionaries alone, and quick: it is called at each step."""
    if isinstance(x, Tensor):
        return function(x)
    if type(x) in (tuple, list):
        return type(x)(mapped(function, each) for each in x)
    return {name: mapped(function, each) for name, each in x.items()} if type(x) is dict else x


def home(x: Any) -> Any:
    """The elements, on the host; what is no tensor of the device stays as it is."""
    return x.inner if isinstance(x, Elsewhere) else x


def away(x: Any) -> Any:
    """The same elements on the device; what is no tensor stays as it is."""
    return Elsewhere(x) if isinstance(x, Tensor) and not isinstance(x, Elsewhere) else x


class _Made(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cpu:
            return home(args[0]).clone()
        named = [kind for x in (*args, *kwargs.values()) if (kind := _kind(x)) is not None]
        if not named or func is torch.device:
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda x: "cpu" if _kind(x) == DEVICE.type else x, (list(args), kwargs))
        if func is Tensor.to:
            args[0] = home(args[0])
        result = func(*args, **kwargs)
        return tree_map(away, result) if named[0] == DEVICE.type else result


def _kind(x: Any) -> str | None:
    """The kind of a device, or None if x names none."""
    if isinstance(x, torch.device):
        return x.type
    return x.partition(":")[0] if isinstance(x, str) and x.startswith(("cpu", "meta", DEVICE.type)) else None


def device() -> Any:
    """Meanwhile, in this thread, the device exists."""
    return _Made()

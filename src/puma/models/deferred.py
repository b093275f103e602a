"""Tensors that are computed when they are asked for: so a checkpoint is folded one parameter at a time.

A deferred tensor has a shape and no numbers. Whatever torch computes with it is written down, and done each time that
somebody asks for the result; nothing is kept. Folding is thus written once, for tensors. This file must not know
models or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma.errors import UsageError

Done = dict[Any, Any]  # results of one evaluation, by what gave them
Compute = Callable[[Done], Tensor]


class Recipe(NamedTuple):
    """What torch is to compute, with which arguments; of several results, which one."""

    function: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    part: int | None = None


class Deferred(Tensor):
    """A float32 tensor that `compute` gives; operations on it give deferred tensors, which keep their `recipe`.

    One that was made by `deferred` is `called` something instead, perhaps nothing.
    """

    compute: Compute
    recipe: Recipe | None
    called: str

    @staticmethod
    def __new__(cls, like: Tensor, compute: Compute) -> Deferred:
        """`like` has its shape and strides, and perhaps no storage."""
        made: Deferred = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=torch.device("cpu")
        )
        made.compute = compute
        return made

    def __init__(self, like: Tensor, compute: Compute) -> None:
        """Everything has been set."""

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Deferred{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:  # it would change a copy that is made for it alone
            raise UsageError(f"{func} changes a tensor that has no numbers yet", "compute a new one")

        def run(done: Done) -> Any:
            given = _each(lambda value: computed(value, done), args)
            return func(*given, **{name: _each(lambda value: computed(value, done), v) for name, v in kwargs.items()})

        def once(done: Done) -> Any:
            if once not in done:
                done[once] = run(done)
            return done[once]

        found = func(*_each(_shaped, args), **{name: _each(_shaped, value) for name, value in kwargs.items()})
        if isinstance(found, Tensor):
            return _by(cls(found, run), Recipe(func, tuple(args), kwargs))
        parts = [cls(part, lambda done, i=i: once(done)[i]) for i, part in enumerate(found)]
        return [_by(part, Recipe(func, tuple(args), kwargs, i)) for i, part in enumerate(parts)]


def deferred(shape: tuple[int, ...], compute: Callable[[], Tensor], name: str = "") -> Tensor:
    """The float32 tensor of this shape that `compute` gives, once it is asked for."""
    return _by(Deferred(torch.empty(shape, device="meta"), lambda done: compute()), None, name)


def _by(made: Deferred, recipe: Recipe | None, name: str = "") -> Deferred:
    made.recipe, made.called = recipe, name
    return made


class Folded(Mapping[str, Tensor]):
    """Parameters by name; each is computed anew whenever it is looked up, so that only those in use take memory.

    `entry` gives what is behind a deferred tensor of a name, if anybody knows.
    """

    def __init__(self, parameters: Mapping[str, Tensor], entry: Callable[[str], Any] | None = None) -> None:
        self._parameters, self.entry = dict(parameters), entry

    def __getitem__(self, name: str) -> Tensor:
        """In memory of its own: a view would keep the file mapped, or the tensor that it is a part of."""
        found: Tensor = computed(self._parameters[name])
        if found.untyped_storage().nbytes() == found.nbytes:
            return found.contiguous()
        return found.clone(memory_format=torch.contiguous_format)

    def unread(self, name: str) -> Tensor:
        """A parameter as it was written down, deferred unless it was at hand."""
        return self._parameters[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def computed(value: Any, done: Done | None = None) -> Any:
    """The numbers of what is deferred; anything else as it is. What gives several results is `done` once for all of
    them, such as all experts of a layer."""
    return value.compute({} if done is None else done) if isinstance(value, Deferred) else value


def _shaped(value: Any) -> Any:
    """The same without numbers."""
    if isinstance(value, Deferred):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value.to("meta") if isinstance(value, Tensor) else value


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """The change made to whatever lies in lists and tuples."""
    if isinstance(value, list | tuple):
        return type(value)(_each(change, one) for one in value)
    return change(value)

"""A plain run that is watched: how large numbers become at every place of a model, in the memory of one parameter.

Parameters are read when a function of torch wants them and let go of behind it, so that one pass over all texts reads
each once. It must not know where texts come from, nor what follows from the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as tf

from puma.models.architecture import Shapes
from puma.nn.places import Place

AT_ONCE = 1 << 24  # numbers of a head's result; more are computed in turns, and not kept
UNREAD = (Tensor.shape.__get__, Tensor.ndim.__get__, Tensor.__len__, Tensor.__repr__)  # type: ignore[attr-defined]
Told = Callable[[str], None]


@dataclass
class Seen:
    """What came about at a place: the largest of what its kind is about, and of rows that are normalised the smallest
    root mean square, less the mean where the norm takes it off; of inputs of an activation that of all numbers of a
    group of texts. Not a number counts as infinite.
    """

    largest: float = 0.0
    least: float = float("inf")


class Watch:
    """An observer of places, which remembers what it is told of."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], Seen] = {}

    def __call__(self, place: Place, x: Tensor) -> None:
        """A tensor of a plain run at this place."""
        if not x.numel() or x.is_meta:
            return
        x, note = x.as_subclass(Tensor), self.at(place.kind, place.name)
        if place.kind == "norm":
            rows = x.double()
            rows = rows - rows.mean(-1, keepdim=True) if place.centred else rows
            squares = rows.pow(2).sum(-1)
            self.more(note, float(squares.max()) ** 0.5)
            note.least = min(note.least, (float(squares.min()) / x.shape[-1]) ** 0.5)
        else:
            self.more(note, max(abs(float(end)) for end in x.aminmax()))
            if place.kind == "activation":
                note.least = min(note.least, float(x.double().pow(2).mean()) ** 0.5)

    def at(self, kind: str, name: str) -> Seen:
        """What is known of a place; the stream is one, wherever it is written."""
        return self.seen.setdefault((kind, "" if kind == "stream" else name), Seen())

    @staticmethod
    def more(note: Seen, value: float) -> None:
        """Remember a number if it is the largest."""
        note.largest = max(note.largest, value if value == value else float("inf"))


class Read(Tensor):
    """A parameter that is read when a function wants it; by itself it has a shape and no numbers."""

    label: str
    source: Reader

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in UNREAD:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        given = next(x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Read))
        return given.source.run(given, func, args, kwargs or {})


class Reader(Mapping[str, Tensor]):
    """A model's parameters as `Read`s; `told` hears the name of each that is used.

    `vocabulary` is how many logits a head gives. Where they are many, `spread` hears how far apart those of a row are,
    and they are not kept: what comes back has their shape and no numbers.
    """

    def __init__(
        self, params: Mapping[str, Tensor], shapes: Shapes, vocabulary: int, told: Told, spread: Callable[[float], None]
    ) -> None:
        self._params, self._shapes, self._vocabulary = params, shapes, vocabulary
        self._told, self._spread = told, spread

    def __getitem__(self, name: str) -> Tensor:
        found: Any = torch.empty(self._shapes[name], device="meta").as_subclass(Read)
        found.label, found.source = name, self
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def run(self, parameter: Read, func: Any, args: Any, kwargs: Any) -> Any:
        """A function of torch on the parameters' numbers."""
        self._told(parameter.label)
        args = [self._numbers(x) for x in args]
        kwargs = {name: self._numbers(x) for name, x in kwargs.items()}
        if func is tf.linear and len(args[1]) == self._vocabulary and len(args[0]) * len(args[1]) > AT_ONCE:
            return self._logits(*args)
        return func(*args, **kwargs)

    def _numbers(self, x: Any) -> Any:
        return self._params[x.label] if isinstance(x, Read) else x

    def _logits(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        for rows in x.as_subclass(Tensor).split(max(1, AT_ONCE // len(weight))):
            low, high = tf.linear(rows, weight, bias).aminmax(dim=-1)
            self._spread(float((high - low).max()))
        return torch.empty(len(x), len(weight), device="meta")

"""A plain run that is watched: how large numbers become at every place of a model, in the memory of one parameter.

Parameters are read when a function of torch wants them and let go of behind it, so one pass over all texts reads each
once. What a named matrix gives or takes is noted under its module's name; norms and scores, which have no parameter,
report through their reach (`nn/reach.py`). It must not know where texts come from, nor what follows from the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as tf

from puma.models.architecture import Shapes

AT_ONCE = 1 << 24  # numbers of a head's result; more are computed in turns, and not kept
Told = Callable[[str], None]
UNREAD = (Tensor.shape.__get__, Tensor.ndim.__get__, Tensor.__len__, Tensor.__repr__)  # type: ignore[attr-defined]


@dataclass
class Seen:
    """The largest numbers of all passes, by module: what its parameters gave (`gave`) and took (`took`); of a head's
    rows how far logits lie apart (`apart`); of norms' rows the root of their sum of squares (`length`), the smallest
    root mean square of one (`least`), less the mean where the norm takes it off; how far a row's scores lie apart
    (`spread`).
    """

    gave: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)
    length: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    entered: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    def more(self, of: str, name: str, value: float) -> None:
        """Remember a number if it is the largest of its kind; not a number counts as infinite."""
        known: dict[str, float] = getattr(self, of)
        known[name] = max(known.get(name, 0.0), value if value == value else float("inf"))

    def row(self, name: str, x: Tensor, centre: bool) -> None:
        """Rows that a norm is about to normalise."""
        x = x.as_subclass(Tensor).double()
        self.more("entered", name, largest(x))
        squares = (x - x.mean(-1, keepdim=True) if centre else x).pow(2).sum(-1)
        self.more("length", name, float(squares.max()) ** 0.5)
        least = (float(squares.min()) / x.shape[-1]) ** 0.5
        self.least[name] = min(self.least.get(name, least), least)

    def scores(self, name: str, scores: Tensor, mask: Tensor) -> None:
        """Scores that a softmax is about to read, and which of them it will."""
        scores = scores.as_subclass(Tensor)
        high = scores.masked_fill(~mask, float("-inf")).amax(-1)
        low = scores.masked_fill(~mask, float("inf")).amin(-1)
        self.more("spread", name, float((high - low).max()))


class Read(Tensor):
    """A parameter that is read when a function wants it; by itself it has a shape and no numbers."""

    name: str
    source: Reader

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in UNREAD:
            return super().__torch_function__(func, types, args, kwargs or {})
        kwargs = kwargs or {}
        given = next(x for x in (*args, *kwargs.values()) if isinstance(x, Read))
        return given.source.run(given, func, args, kwargs)


class Reader(Mapping[str, Tensor]):
    """A model's parameters as `Read`s, and what was `seen` while they served; `told` hears the name of each module.

    `vocabulary` is how many logits a head gives: what it gives is noted, and not kept.
    """

    def __init__(self, params: Mapping[str, Tensor], shapes: Shapes, vocabulary: int, told: Told) -> None:
        self._params, self._shapes, self._vocabulary, self._told = params, shapes, vocabulary, told
        self.seen = Seen()

    def __getitem__(self, name: str) -> Tensor:
        found: Any = torch.empty(self._shapes[name], device="meta").as_subclass(Read)
        found.name, found.source = name, self
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def run(self, parameter: Read, func: Any, args: Any, kwargs: Any) -> Any:
        """A function of torch on parameters' numbers; what it gives is noted under the first one's module."""
        module = parameter.name.rpartition(".")[0]
        self._told(module)
        args = tuple(self._numbers(x) for x in args)
        kwargs = {name: self._numbers(x) for name, x in kwargs.items()}
        if func is not tf.linear:
            result = func(*args, **kwargs)
            self.seen.more("gave", module, largest(result))
            return result
        x, weight = (t.as_subclass(Tensor) for t in args[:2])
        self.seen.more("took", module, largest(x))
        if len(weight) == self._vocabulary and len(x) * len(weight) > AT_ONCE:
            return self._logits(module, x, weight, args[2] if len(args) > 2 else None)
        result = func(*args, **kwargs)
        self.seen.more("gave", module, largest(result))
        if result.shape[-1]:
            self.seen.more("apart", module, apart(result))
        return result

    def _numbers(self, x: Any) -> Any:
        return self._params[x.name] if isinstance(x, Read) else x

    def _logits(self, module: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Rows in turns; nobody reads logits here, and all together they may not fit into memory."""
        for rows in x.split(max(1, AT_ONCE // len(weight))):
            found = tf.linear(rows, weight, bias)
            self.seen.more("gave", module, largest(found))
            self.seen.more("apart", module, apart(found))
        return torch.empty(len(x), len(weight), device="meta")


def largest(x: Tensor) -> float:
    """The largest absolute value."""
    x = x.as_subclass(Tensor)
    return max(abs(float(end)) for end in x.aminmax()) if x.numel() else 0.0


def apart(x: Tensor) -> float:
    """How far the numbers of one row lie apart."""
    low, high = x.as_subclass(Tensor).aminmax(dim=-1)
    return float((high - low).max())

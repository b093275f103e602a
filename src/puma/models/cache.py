"""Keys and values of earlier tokens, so that a new token costs one position and not the whole prefix.

It holds whatever the model appends, tensors or shares, and knows which places hold tokens of which prompt. Between two
passes prompts may join it or leave it; whose they are it must not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Protocol

import torch

from puma.errors import UsageError
from puma.nn import functional as F
from puma.nn.delta import joined
from puma.nn.layout import placed
from puma.nn.modules import Layout, Value


class LayerCache:
    """Keys (rotated already, where positions rotate) and values of one layer: (prompts, heads, length, head_dim)."""

    def __init__(self) -> None:
        self.k: Value = None
        self.v: Value = None

    def append(self, k: Value, v: Value) -> tuple[Value, Value]:
        """Add new positions and return all of them."""
        self.k = k if self.k is None else F.cat([self.k, k], 2)
        self.v = v if self.v is None else F.cat([self.v, v], 2)
        return self.k, self.v

    def join(self, other: LayerCache, lacks: tuple[int, int]) -> None:
        """Add another's prompts below; zeros that everybody knows go before what is shorter, by `lacks` columns."""
        self.k, self.v = (
            F.cat([led(mine, lacks[0]), led(theirs, lacks[1])], 0)
            for mine, theirs in ((self.k, other.k), (self.v, other.v))
        )

    def keep(self, prompts: torch.Tensor, columns: slice | torch.Tensor) -> None:
        """Only these prompts from now on, and the columns that any of them fills."""
        self.k, self.v = (x[prompts][:, :, columns] for x in (self.k, self.v))

    def move(self, columns: torch.Tensor, held: torch.Tensor) -> None:
        """Of each prompt these columns, in this order (prompts, columns), zeros where none is held."""
        self.k, self.v = (moved(x, columns, held) for x in (self.k, self.v))


class Recurrent(LayerCache):
    """What a layer with a memory of constant size holds instead: the memory, and the rows `before` the next ones that
    its convolution reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: Any = None  # a nn.delta.Memory
        self.before: Value = None

    def join(self, other: Recurrent, lacks: tuple[int, int]) -> None:  # type: ignore[override]
        """Add another's prompts below; tokens that one has beside its memory and the other has not are zeros there."""
        self.memory, self.before = joined(self.memory, other.memory), F.cat([self.before, other.before], 0)

    def keep(self, prompts: torch.Tensor, columns: slice | torch.Tensor) -> None:
        """Only these prompts from now on."""
        self.memory, self.before = self.memory.each(lambda x, state: x[prompts]), self.before[prompts]

    def move(self, columns: torch.Tensor, held: torch.Tensor) -> None:
        """UsageError: what a memory has taken in stays there."""
        raise UsageError("a memory of constant size cannot be cut", "leave out drafts")


class Blank(LayerCache):
    """A layer's cache as it will lie once `length` positions are held, for those who only ask how: zeros."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def append(self, k: Value, v: Value) -> tuple[Value, Value]:
        """The new positions behind as many zeros."""
        return led(k, self.length), led(v, self.length)


class Memory(Protocol):
    """What an encoder made of the prompts, for the decoder that reads it."""

    @property
    def own(self) -> Cache:
        """Of the decoder's tokens."""
        ...

    def joined(self, other: Any) -> Any:
        """With the prompts of another below."""
        ...

    def chosen(self, prompts: torch.Tensor) -> Any:
        """With these prompts alone; this one stays as it is."""
        ...


class Cache:
    """One `LayerCache` per layer of a causal model, for prompts of public lengths; for one prompt if none are given.

    What lies side by side is padded: `held` (prompts, length) is True where there is a token.
    """

    def __init__(self, layers: int, lengths: Sequence[int] | None = None) -> None:
        self.layers: list[LayerCache] = [LayerCache() for _ in range(layers)]
        self.memory: Memory | None = None  # for models that have an encoder
        self._lengths = lengths
        self._next: Sequence[Sequence[int]] | None = None  # how the rows of the next pass follow each other
        self._further: Sequence[int] | None = None  # how many rows of each prompt it reads, where they are not alike
        self._padding: Value = None  # (prompts, 1, length, 1): 1 where a prompt has only padding, if that is secret
        self._hidden: Value = None  # columns from the rows that come next
        self._columns: torch.Tensor | None = None  # positions of the columns, since there are branches
        self.held = torch.empty((1 if lengths is None else len(lengths), 0), dtype=torch.bool)

    @property
    def length(self) -> int:
        """How many positions are held of the longest prompt."""
        return self.held.shape[1]

    def expect(self, parents: Sequence[Sequence[int]]) -> None:
        """In the next pass several rows go on with each prompt, and all of them ask for an answer: one, and for each of
        its `parents` one more, which follows the new row in that place and sees none beside it."""
        self._own._next = parents

    def advance(self, rows: int) -> Layout:
        """How the next rows lie: first the prompts one after the other, later as many new rows of each, unless others
        are expected."""
        if self._hidden is not None:
            return self._branched(rows)
        prompts = len(self.held)
        lengths = [rows // prompts] * prompts if self.length or self._lengths is None else self._lengths
        lengths, self._further = self._further or lengths, None
        parents, self._next = self._next, None
        lengths = lengths if parents is None else [1 + len(mine) for mine in parents]
        if sum(lengths) != rows:
            raise UsageError(f"{rows} rows are not those of {prompts} prompts", "pass the lengths of all prompts")
        layout = Layout(lengths, self.held, parents=parents)
        if self._padding is not None:
            layout.hidden = self._spread(layout).transpose(2, 3)
        self.held = layout.held
        return layout

    def further(self, lengths: Sequence[int]) -> None:
        """The next pass reads so many rows of each prompt, behind those that are held; the last one of each asks."""
        self._further = lengths

    def hide(self, padding: Value) -> None:
        """Nothing is to see some rows of the prompts that come next, which stand before the others as mere padding.

        `padding` (rows,) is 1 for these and 0 for others; if it is secret, so is how long the prompts are. It stays
        with the columns as long as the cache holds them.
        """
        if self.length or self.memory is not None:
            raise UsageError("prompts that have been read cannot be padded", "say so before")
        self._padding = padding

    def _spread(self, layout: Layout) -> Value:
        """The padding of all columns, as keys lie; rows that come later are none."""
        if self.length:
            rows = layout.rows.longest
            self._padding = _reshaped(self._padding, lambda t: torch.cat([t, t.new_zeros(len(t), 1, rows, 1)], 2))
        else:
            self._padding = layout.rows.pad(self._padding.reshape(-1, 1, 1))
        return self._padding

    def branch(self, hidden: Value) -> None:
        """The next rows go on with one text each, all from the same single prompt, as a beam search has them.

        `hidden` (rows, columns since the prompt, theirs included) is 1 where a row must not see a column, because it
        belongs to another text, and 0 elsewhere. It may be secret: every token is computed once and stays where it is,
        and nobody learns whose it was.
        """
        own = self._own
        if len(own.held) != 1:
            raise UsageError(f"{len(own.held)} prompts cannot branch", "ask for one at a time")
        if own._padding is not None:
            raise UsageError("a prompt of secret length cannot branch", "make its length public")
        own._hidden = hidden

    def cut(self, rows: Sequence[int], but: Sequence[Sequence[int]] | None = None) -> None:
        """So many of the last rows of each prompt have never been, `but` those in these places among them; what is left
        of each ends in the same column again.

        UsageError if nothing would be left of a prompt, and for layers that cannot forget.
        """
        own = self._own
        held = own.held.clone()
        for prompt, (count, kept) in enumerate(zip(rows, but or [()] * len(rows), strict=True)):
            held[prompt, own.length - count :] = False
            for place in kept:
                held[prompt, own.length - count + place] = True
        if not bool(held.any(1).all()) or min(rows) < 0 or bool((held & ~own.held).any()):
            raise UsageError(f"{list(rows)} rows cannot be cut off", "leave a row of each prompt")
        own.held = held
        own.close_up()

    def close_up(self) -> None:
        """Let the rows of all prompts end in the last column, without gaps, as they lie but after unequal passes."""
        own = self._own
        counts, columns = own.held.sum(1), own.length
        longest = int(counts.max())
        held = torch.arange(longest) >= longest - counts[:, None]
        if torch.equal(held, own.held):
            return
        places = own.held.to(torch.int8).argsort(dim=1, stable=True)[:, columns - longest :]
        for layer in own.layers:
            layer.move(places, held)
        if own._padding is not None:
            own._padding = moved(own._padding, places, held)
        own.held = held

    @property
    def _own(self) -> Cache:
        """Where the tokens lie that are generated."""
        return self if self.memory is None else self.memory.own

    @property
    def prompts(self) -> int:
        """How many prompts it holds; each gets one row in the next pass, unless there are branches."""
        return len(self.held)

    @property
    def branched(self) -> bool:
        """Whether the rows of the next pass are branches of one prompt: others cannot join them."""
        return self._own._hidden is not None or self._own._columns is not None

    def join(self, other: Cache) -> None:
        """Add the prompts of another cache of the same model below those of this one; the other is used up."""
        if self.branched or other.branched or self.length == 0 or other.length == 0:
            raise UsageError("only prompts that are under way can be joined, one text of each", "run each alone first")
        if self.memory is not None and other.memory is not None:
            self.memory = self.memory.joined(other.memory)
        else:
            longest = max(self.length, other.length)
            lacks = longest - self.length, longest - other.length
            for mine, theirs in zip(self.layers, other.layers, strict=True):
                mine.join(theirs, lacks)
            self._join_padding(other, lacks)
        self.held = torch.cat(evened(self.held, other.held))

    def _join_padding(self, other: Cache, lacks: tuple[int, int]) -> None:
        known = self._padding if other._padding is None else other._padding
        if known is None:
            return
        both = [
            led(_unpadded(known, cache) if cache._padding is None else cache._padding, columns)
            for cache, columns in zip((self, other), lacks, strict=True)
        ]
        self._padding = F.cat(both, 0)

    def keep(self, prompts: Sequence[int]) -> None:
        """Hold these prompts only, from now on in this order; columns that none of them fills go, too."""
        chosen = torch.tensor(list(prompts), dtype=torch.int64)
        held = self.held[chosen]
        filled = held.any(0)
        columns: slice | torch.Tensor = slice(int(filled.to(torch.int8).argmax()), None)
        if not bool(filled[columns].all()):
            columns = filled.nonzero().squeeze(-1)
        if self.memory is not None:
            self.memory = self.memory.chosen(chosen)
        else:
            for layer in self.layers:
                layer.keep(chosen, columns)
            if self._padding is not None:
                self._padding = self._padding[chosen][:, :, columns]
        self.held = held[:, columns]

    def apart(self, prompts: Sequence[int]) -> Cache:
        """A cache of its own for these prompts, in this order; this one stays as it is."""
        other = copy(self)
        other.layers = [copy(layer) for layer in self.layers]
        other.keep(prompts)
        return other

    def beginning(self, columns: int) -> Cache:
        """A cache of its own with the first columns of the one prompt that this one holds, which stays as it is."""
        if self.prompts != 1 or not 0 < columns <= self.length or not (self.even and bool(self.held.all())):
            raise UsageError(f"a prompt of {self.length} tokens has no {columns} to go on from", "name fewer")
        other = Cache(len(self.layers))
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            theirs.k, theirs.v = (x[:, :, :columns] for x in (mine.k, mine.v))
        other.held = self.held[:, :columns]
        return other

    def _branched(self, rows: int) -> Layout:
        before, hidden = self._columns, self._hidden
        before = torch.arange(self.length)[None] if before is None else before
        count = before.shape[1] + rows
        columns = placed(hidden.transpose(0, 1), torch.arange(count - hidden.shape[1], count), count)
        layout = Layout.branches(before, rows, columns.transpose(0, 1).reshape(1, 1, rows, count))
        self.held, self._columns, self._hidden = layout.held, layout.columns, None
        return layout

    @property
    def even(self) -> bool:
        """Whether steps differ only in how many columns they see."""
        return all(type(layer) is LayerCache for layer in self._own.layers)

    @property
    def columns(self) -> int:
        """How many positions are held where the generated tokens lie."""
        return self._own.length

    def stretch(self, columns: int) -> None:
        """Let so many positions be held of every prompt, of a dry run that only asks how long rows are."""
        own = self._own
        for layer in own.layers:
            layer.k, layer.v = (_resized(x, columns) for x in (layer.k, layer.v))
        if own._padding is not None:
            own._padding = _resized(own._padding, columns)
        rest = own.held.new_ones(len(own.held), max(0, columns - own.length))
        own.held = torch.cat([own.held, rest], 1)[:, :columns]

    @classmethod
    def blank(cls, layers: int, held: torch.Tensor) -> Cache:
        """As it will lie once these columns are held, for those who only ask how."""
        cache = cls(layers)
        cache.held = held
        cache.layers = [Blank(cache.length) for _ in range(layers)]
        return cache


def led(x: Value, columns: int) -> Value:
    """Keys or values (prompts, heads, length, size) behind so many columns of zeros."""

    def lead(t: torch.Tensor) -> torch.Tensor:
        return torch.cat([t.new_zeros(*t.shape[:2], columns, t.shape[3]), t], 2)

    return _reshaped(x, lead) if columns else x


def moved(x: Value, columns: torch.Tensor, held: torch.Tensor) -> Value:
    """Keys or values (prompts, heads, length, size) with other columns of each prompt, zeros where none is held; local.

    What is cut off goes with its masks: a later token is computed under others, in a step with another number.
    """
    first = columns[0, 0]
    run = torch.arange(int(first), int(first) + columns.shape[1])
    if bool(held.all()) and bool((columns == run).all()):
        return x[:, :, int(first) : int(first) + columns.shape[1]]

    def move(t: torch.Tensor) -> torch.Tensor:
        index = columns[:, None, :, None].expand(-1, t.shape[1], -1, t.shape[3])
        real = held[:, None, :, None].to(t.dtype)
        return t.gather(2, index.to(t.device)) * real.to(t.device)

    return _reshaped(x, move)


def _resized(x: Value, columns: int) -> Value:
    """Another length of keys, values or padding whose words nobody has; nothing of a layer that holds none."""
    return None if x is None else _reshaped(x, lambda t: t.new_zeros(*t.shape[:2], columns, t.shape[3]))


def _unpadded(known: Value, cache: Cache) -> Value:
    """The padding of prompts of public lengths, none, in the format of one that is known."""
    return _reshaped(known, lambda t: t.new_zeros(cache.prompts, 1, cache.length, 1))


def _reshaped(x: Value, how: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """What a function that adds nothing but zeros makes of a tensor, or of each component of a share."""
    return how(x) if isinstance(x, torch.Tensor) else x.apply(how)


def evened(*held: torch.Tensor) -> list[torch.Tensor]:
    """The same columns (prompts, length), all ending together; nothing is held before what is shorter."""
    longest = max(h.shape[1] for h in held)
    return [torch.cat([h.new_zeros(len(h), longest - h.shape[1]), h], 1) for h in held]

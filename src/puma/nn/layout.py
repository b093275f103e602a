"""How the rows of several prompts lie, which is public: one request computes all of them at once.

Outside attention a pass is one matrix, the rows of a prompt below those of the one before, so no row is padding.
Attention works prompt by prompt, on rows side by side that are padded on the left to the longest. Padding is zeros that
everybody knows; it sees itself only, and nothing sees it. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from puma.errors import UsageError


class Rows:
    """Rows of prompts of these lengths, in a matrix or side by side."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = tuple(lengths)
        if min(self.lengths, default=0) < 1:
            raise UsageError(f"prompts of lengths {list(lengths)} make no batch", "pass prompts of one token or more")
        self.longest = max(self.lengths)
        # (prompts, longest): True where a row lies; on the CPU, as masks are.
        self.real = torch.arange(self.longest) >= self.longest - torch.tensor(self.lengths)[:, None]
        self._where = None if bool(self.real.all()) else self.real.reshape(-1).nonzero().squeeze(-1)

    @property
    def ends(self) -> Tensor:
        """The last row of each prompt."""
        return torch.tensor(self.lengths).cumsum(0) - 1

    @property
    def starts(self) -> Tensor:
        """The first row of each prompt."""
        return self.ends - torch.tensor(self.lengths) + 1

    def pad(self, x: Any) -> Any:
        """A matrix's rows (rows, heads, size) side by side: (prompts, heads, longest, size)."""
        prompts, where, shape = len(self.lengths), self._where, tuple(x.shape[1:])
        x = x if where is None else placed(x, where, self.real.numel())
        return x.reshape(prompts, self.longest, *shape).transpose(1, 2)

    def unpad(self, x: Any) -> Any:
        """The way back, heads joined: (prompts, heads, longest, size) -> (rows, heads * size)."""
        x = x.transpose(1, 2).reshape(self.real.numel(), -1)
        return x if self._where is None else x[self._where]

    def moved(self, x: Any, steps: int) -> Any:
        """In each row's place the one so many steps behind it in its prompt, zeros beyond the end; (rows, size)."""
        count = sum(self.lengths)
        owner, there = torch.repeat_interleave(torch.tensor(self.lengths)), torch.arange(count) + steps
        inside = (there >= 0) & (there < count)
        inside &= owner[there.clamp(0, count - 1)] == owner
        where = inside.nonzero().squeeze(-1)
        return x if steps == 0 else placed(x[there[where]], where, count)

    def sum(self, x: Any) -> Any:
        """The sum of each prompt's rows: (rows, size) -> (prompts, size)."""
        return self.pad(x.unsqueeze(1)).sum(2).reshape(len(self.lengths), -1)


class Layout:
    """The rows of one pass, which of them ask for an answer, and what those may see.

    `rows` and `queries` are Rows: all of them, and those that ask. `positions` (rows,) counts within a prompt; `mask`
    is (prompts, queries.longest, earlier and new columns), True where allowed, at least once a row. What is `hidden`,
    1 in a tensor that broadcasts to (prompts, 1, queries.longest, columns) and 0 elsewhere, has its score lowered until
    it counts no more: it may be secret which columns these are.
    """

    hidden: Any = None
    branched = False  # whether all rows are the last of their texts
    every = False  # whether all rows ask to the end
    turns = 1  # in how many turns rows ask, of prompts of one length that see all of themselves: memory for rounds

    def __init__(
        self, lengths: Sequence[int], earlier: Tensor | None = None, causal: bool = True,
        parents: Sequence[Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        """`lengths`: new rows of each prompt; `earlier` (prompts, columns): where the cache holds rows of theirs;
        `parents`: of each new row of a prompt but the first the new row that it follows, so that it sees none beside
        it; all new rows then ask to the end, and not the last one of each prompt alone."""
        self.every = parents is not None
        self.rows = self.queries = Rows(lengths)
        new = self.rows.real
        before = new[:, :0] if earlier is None else earlier
        self.held = torch.cat([before, new], 1)
        rows, columns, held = new.shape[1], self.held.shape[1], self.held
        follows = None if parents is None else _following(parents, rows)
        deep = new.cumsum(1) - 1 if follows is None else follows.sum(2) - 1
        self.positions = (deep + before.sum(1, keepdim=True))[new]
        self._columns = torch.cat([before.cumsum(1) - 1, before.sum(1, keepdim=True) + deep], 1)  # positions, too
        self._places = self._columns[:, columns - rows :]
        each = self._places + 1 if causal else held.sum(1, keepdim=True).expand(-1, rows)
        self._counts: Tensor | None = torch.where(new, each, 1)
        self._make, self._made, self._causal = partial(_seen, new, held, causal, follows), torch.empty(0), causal
        self._asking: Tensor | None = None
        self._width = columns

    @classmethod
    def branches(cls, columns: Tensor, rows: int, hidden: Any) -> Layout:
        """So many new rows of one prompt, all at the position after the last one; `columns` (1, earlier ones) are the
        positions of what lies before them. They see each other as far as `hidden` lets them.
        """
        result, deepest = cls([rows], torch.ones_like(columns, dtype=torch.bool), causal=False), int(columns.max()) + 1
        result.positions, result._places = torch.full((rows,), deepest), torch.full((1, rows), deepest)
        result._columns = torch.cat([columns, result._places], 1)
        result.hidden, result.branched = hidden, True
        return result

    @property
    def columns(self) -> Tensor:
        """Positions of all columns (prompts, columns)."""
        return self._columns

    @cached_property
    def mask(self) -> Tensor:
        """What the rows that ask may see; made when somebody looks, since a dry run only wants to know how much."""
        self._made = self._make()
        return self._made

    @property
    def seen(self) -> int:
        """How many columns the mask has."""
        return self._width if "mask" not in vars(self) else self.mask.shape[2]

    @property
    def allowed(self) -> int:
        """How many entries of the mask are True."""
        known = self._counts is not None and vars(self).get("mask", self._made) is self._made
        return int((self._counts if known else self.mask).sum())  # type: ignore[union-attr]

    def _seeing(self, make: Callable[[], Tensor], counts: Tensor | None, **changed: Any) -> Layout:
        """The same rows with another mask, of which each row has so many that are True, if that is known."""
        result = Layout.__new__(Layout)
        kept = {name: value for name, value in vars(self).items() if name != "mask"}
        vars(result).update(kept, _make=make, _counts=counts, **changed)
        return result

    def asking(self, x: Any) -> Any:
        """Those rows of x that ask."""
        return x if self._asking is None else x[self._asking]

    def ending(self) -> Layout:
        """The same rows, of which the last one of each prompt asks."""
        if self.queries.longest == 1 or self.branched or self.every:
            return self
        counts = None if self._counts is None else self._counts[:, -1:]
        last = Rows([1] * len(self.rows.lengths))
        result = self._seeing(lambda: self.mask[:, -1:], counts, queries=last)
        result._asking, result._places = self.rows.ends, self._places[:, -1:]
        return result

    def parts(self) -> list[tuple[Tensor, Layout]]:
        """The rows of each turn, and the same rows of which these ask."""
        prompts, length = len(self.rows.lengths), self.rows.longest
        starts, found = torch.arange(prompts)[:, None] * length, list[tuple[Tensor, Layout]]()
        for places in torch.arange(length).chunk(self.turns):
            counts, here = None if self._counts is None else self._counts[:, places], places
            asking = Rows([len(places)] * prompts)
            part = self._seeing(lambda here=here: self.mask[:, here], counts, queries=asking, turns=1)
            part._places = self._places[:, places]
            found.append(((starts + places).flatten(), part))
        return found

    @property
    def distances(self) -> Tensor:
        """From the position of each row that asks to each column's: (prompts, queries.longest, columns)."""
        return self._columns[:, None, :] - self._places[:, :, None]

    def across(self, source: Rows) -> Layout:
        """The same rows, which see all rows of their prompt in `source` and nothing else."""
        shape = (-1, self.queries.longest, -1)
        counts = torch.tensor(source.lengths)[:, None].expand(-1, self.queries.longest)
        return self._seeing(lambda: source.real[:, None, :].expand(shape), counts, hidden=None, _width=source.longest)

    def within(self, window: int, both: bool = False) -> Layout:
        """The same rows, which see their own position and the `window` - 1 before, on `both` sides also behind."""
        counts = self._counts.clamp(max=window) if self._causal and self._counts is not None else None
        if both and not self._causal:
            before, behind = self._places, self.held.sum(1, keepdim=True) - 1 - self._places
            near = before.clamp(max=window - 1) + behind.clamp(max=window - 1) + 1
            counts = torch.where(self.rows.real, near, 1) if self.queries is self.rows else None
        return self._seeing(lambda: self.mask & self._near(window, both), counts)

    def _near(self, window: int, both: bool) -> Tensor:
        return (self.distances.abs() < window) if both else (self.distances > -window)


def _following(parents: Sequence[Sequence[int]], longest: int) -> Tensor:
    """Which rows each row follows, itself included (prompts, longest, longest), prompts padded on the left."""
    found = torch.zeros(len(parents), longest, longest, dtype=torch.bool)
    for prompt, mine in enumerate(parents):
        first = longest - 1 - len(mine)
        for row in range(len(mine) + 1):
            if row:
                found[prompt, first + row] = found[prompt, first + mine[row - 1]]
            found[prompt, first + row, first + row] = True
    return found


def _seen(new: Tensor, held: Tensor, causal: bool, follows: Tensor | None = None) -> Tensor:
    """Which columns that are `held` the `new` rows at their end see: of new ones, those that they follow, if that is
    said. Padding sees itself."""
    rows, columns = new.shape[1], held.shape[1]
    seen = new[:, :, None] & held[:, None, :]
    if follows is not None:
        seen[:, :, columns - rows :] &= follows
    elif causal:
        seen &= torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    return seen | torch.eye(columns, dtype=torch.bool)[columns - rows :]


def placed(x: Any, where: Tensor, rows: int) -> Any:
    """The rows of x at these places among so many, of which the others are zeros that everybody knows."""

    def place(t: Tensor) -> Tensor:
        return t.new_zeros(rows, *t.shape[1:]).index_copy(0, where.to(t.device), t)

    return place(x) if isinstance(x, Tensor) else x.apply(place)

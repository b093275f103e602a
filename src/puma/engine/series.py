"""What the steps of a generation cost together, from a few of them: exactly, because it is known how messages grow.

A step at a longer cache sends the same messages with more words in them, as long as a row's maximum takes the same
turns and its formats stay. Such a number of words is a + b ceil(L / D) for a row of L entries, D how many of them each
of those that are left stands for: 2^k after k turns of twos. Steps are tried until a, b and D are certain for every
length that is asked for, and then one more that was foretold. Where that does not hold, all steps are tried. It must
not know models, nor how a step is run.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from puma.mpc.cost import Entry
from puma.mpc.recall import Call, Event

Calls = Mapping[Call, int]
Trying = Generator[int, Calls, "Total"]
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
HALVED = tuple(1 << k for k in range(41))
FEW = 3  # of so many steps each is tried


class Total(NamedTuple):
    """What an evaluator and the dealer spend, by component."""

    evaluator: dict[str, Entry]
    dealer: dict[str, Entry]

    @classmethod
    def nothing(cls) -> Total:
        """Before anything is booked."""
        return cls({}, {})

    def add(self, other: Total) -> None:
        """Add another's."""
        for mine, theirs in zip(self, other, strict=True):
            for name, entry in theirs.items():
                mine.setdefault(name, Entry()).add(entry)

    def book(self, event: Event, frames: int, size: int) -> None:
        """So many frames of one kind, of so many bytes together."""
        entry, dealer = (side.setdefault(event.component, Entry()) for side in self)
        if event.kind == "dealt":
            dealer.add(Entry(offline=size, frames_offline=frames))
            return
        entry.add(Entry(rounds=frames if event.kind == "round" else 0, online=size, frames_online=frames))
        if event.kind == "answer":
            dealer.add(Entry(online=size, frames_online=frames))


def total(calls: Calls) -> Total:
    """What these messages come to."""
    result = Total.nothing()
    for call, times in calls.items():
        for event, n in call.booked():
            size = sum(w.runs * ((w.numel * w.bits + 7) // 8) for w in event.words)
            result.book(event, times * n, times * n * size)
    return result


def steps(lengths: Sequence[int], forms: Sequence[Hashable], parts: Sequence[Sequence[int]] = ()) -> Trying:
    """The cost of one step at each of these lengths of a row, which grow by as much each time; alike where forms are.

    `parts` are of each length every D there may be, from 1 on; powers of two unless they are told. It yields the number
    of a step that it wants to see, and is sent that step's messages.
    """
    result, first = Total.nothing(), 0
    for _, alike in groupby(forms):
        count = len(list(alike))
        known = tuple(parts[first]) if parts else HALVED
        result.add((yield from _alike(np.asarray(lengths[first : first + count]), first, known)))
        first += count
    return result


def _alike(lengths: Numbers, first: int, parts: Sequence[int]) -> Trying:
    """The same of steps whose messages differ in how many words they have, if in anything."""
    count, seen = len(lengths), dict[int, Calls]()
    if count <= FEW:
        return (yield from _every(seen, count, first))
    for at in (0, count - 1):
        seen[at] = yield first + at
    while True:
        series = _series(seen, lengths, parts)
        if series is None:
            return (yield from _every(seen, count, first))
        doubt = next((at for each in series.values() if (at := each.doubt) is not None), None)
        if doubt is None:
            break
        seen[doubt] = yield first + doubt
    check = next(at for at in sorted(range(count), key=lambda at: abs(at - count * 2 // 3)) if at not in seen)
    seen[check] = yield first + check
    series = _series(seen, lengths, parts)
    return (yield from _every(seen, count, first)) if series is None else _summed(seen[0], seen, series)


def _every(seen: dict[int, Calls], count: int, first: int) -> Trying:
    result = Total.nothing()
    for at in range(count):
        if at not in seen:
            seen[at] = yield first + at
        result.add(total(seen[at]))
    return result


class Series(NamedTuple):
    """How many words a message has at each length, and a length at which that is not certain yet."""

    counts: Numbers
    doubt: int | None


def _series(
    seen: Mapping[int, Calls], lengths: Numbers, parts: Sequence[int]
) -> dict[tuple[int, ...], Series] | None:  # fmt: skip
    """By the counts that were seen, those of all lengths; None if messages differ in something else, or grow in another
    way."""
    forms = [[(times, call.form) for call, times in calls.items()] for calls in seen.values()]
    if any(form != forms[0] for form in forms):
        return None
    places, found = list(seen), dict[tuple[int, ...], Series]()
    for counts in set(_counts(seen)):
        grown = _grown(np.asarray(counts), places, lengths, parts)
        if grown is None:
            return None
        found[counts] = grown
    return found


def _counts(seen: Mapping[int, Calls]) -> Iterator[tuple[int, ...]]:
    """Of each number of words, one after the other, how large it was in each step that was seen."""
    for calls in zip(*seen.values(), strict=True):
        yield from zip(*(call.counts for call in calls), strict=True)


def _grown(counts: Numbers, places: Sequence[int], lengths: Numbers, parts: Sequence[int]) -> Series | None:
    """Every a + b ceil(L / D) that gives these counts, and where any two of them differ."""
    if not (counts - counts[0]).any():
        return Series(np.full(len(lengths), counts[0]), None)
    found: Numbers | None = None
    for part in parts:
        halved = -(-lengths // part)
        at = halved[places]
        apart = int(np.argmax(np.abs(at - at[0])))
        if at[apart] == at[0]:
            break
        slope, rest = divmod(int(counts[apart] - counts[0]), int(at[apart] - at[0]))
        if rest or (slope * (at - at[0]) != counts - counts[0]).any():
            continue
        candidate = counts[0] + slope * (halved - at[0])
        if found is None:
            found = candidate
        elif (different := (found != candidate).nonzero()[0]).size:
            return Series(found, int(different[different.size // 2]))
    return None if found is None else Series(found, None)


def _summed(like: Calls, seen: Mapping[int, Calls], series: Mapping[tuple[int, ...], Series]) -> Total:
    """The cost of all lengths; `like` is the first of those `seen`."""
    result, each = Total.nothing(), _counts(seen)
    many = len(next(iter(series.values())).counts) if series else 0
    for call, times in like.items():
        for event, n in call.booked():
            size = 0
            for w in event.words:
                counts = next(each)
                if len(set(counts)) == 1:
                    size += w.runs * many * ((w.numel * w.bits + 7) // 8)
                else:
                    size += w.runs * int(((series[counts].counts * w.bits + 7) // 8).sum())
            result.book(event, times * n * many, times * n * size)
    return result

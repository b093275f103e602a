"""What the steps of a generation cost together, from a few of them: exactly, because it is known how messages grow.

A step at a longer cache sends the same messages with more words in them, as long as a row's formats stay: a + b L words
for a row of L entries. Both ends are tried, and one more step that they foretell, at an odd distance so that halves and
quarters that are rounded up do not look even. Where the messages themselves change, the length is sought at which they
do; where they grow in another way, all steps are tried. What the maxima of rows send is told by the numbers of rows and
entries. It must not know models, nor how a step is run.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from puma.engine.maxima import played
from puma.mpc.cost import Entry, Words
from puma.mpc.recall import MAXIMA, Call, Event

Calls = Mapping[Call, int]
Trying = Generator[int, Calls, "Total"]
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
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
            maxima = event.kind in MAXIMA
            sent = played(event, *([w.numel] for w in event.words)) if maxima else [(event, 1, size)]
            for one, frames, together in sent:
                result.book(one, times * n * frames, times * n * together)
    return result


def steps(lengths: Sequence[int], forms: Sequence[Hashable]) -> Trying:
    """The cost of one step at each of these lengths of a row, which grow by as much each time; alike where forms are.

    It yields the number of a step that it wants to see, and is sent that step's messages.
    """
    result, first = Total.nothing(), 0
    for _, alike in groupby(forms):
        count = len(list(alike))
        result.add((yield from _alike({}, np.asarray(lengths[first : first + count]), first)))
        first += count
    return result


def _alike(seen: dict[int, Calls], lengths: Numbers, first: int) -> Trying:
    """The same of steps whose messages differ in how many words they have, if in anything; some may be `seen`."""
    count = len(lengths)
    if count <= FEW:
        return (yield from _every(seen, count, first))
    for at in (0, count - 1, (count * 2 // 3 - 1) | 1):
        if at not in seen:
            seen[at] = yield first + at
    if _unlike(seen):
        return (yield from _halved(seen, lengths, first))
    series = _series(seen, lengths)
    return (yield from _every(seen, count, first)) if series is None else _summed(seen, series, count)


def _unlike(seen: Mapping[int, Calls]) -> bool:
    """Whether messages differ in something else."""
    forms = [[(times, call.form) for call, times in calls.items()] for calls in seen.values()]
    return any(form != forms[0] for form in forms)


def _halved(seen: Mapping[int, Calls], lengths: Numbers, first: int) -> Trying:
    """The steps of either half, one of which ends where messages change, or has it in a half of its own."""
    result, half = Total.nothing(), len(lengths) // 2
    for start, stop in ((0, half), (half, len(lengths))):
        part = {at - start: calls for at, calls in seen.items() if start <= at < stop}
        result.add((yield from _alike(part, lengths[start:stop], first + start)))
    return result


def _every(seen: dict[int, Calls], count: int, first: int) -> Trying:
    result = Total.nothing()
    for at in range(count):
        if at not in seen:
            seen[at] = yield first + at
        result.add(total(seen[at]))
    return result


def _series(seen: Mapping[int, Calls], lengths: Numbers) -> dict[tuple[int, ...], Numbers] | None:
    """By the counts of words that were seen, those of all lengths; None if they grow in another way."""
    places, found = list(seen), dict[tuple[int, ...], Numbers]()
    for counts in set(_counts(seen)):
        grown = _grown(counts, places, lengths)
        if grown is None:
            return None
        found[counts] = grown
    return found


def _counts(seen: Mapping[int, Calls]) -> Iterator[tuple[int, ...]]:
    """Of each number of words, one after the other, how large it was in each step that was seen."""
    for calls in zip(*seen.values(), strict=True):
        yield from zip(*(call.counts for call in calls), strict=True)


def _grown(counts: Sequence[int], places: Sequence[int], lengths: Numbers) -> Numbers | None:
    """The a + b L that gives these counts, if there is one."""
    known: list[int] = lengths[places].tolist()
    slope = (counts[1] - counts[0]) // (known[1] - known[0])
    found = counts[0] + slope * (lengths - known[0])
    return found if found[places].tolist() == list(counts) else None


def _summed(seen: Mapping[int, Calls], series: Mapping[tuple[int, ...], Numbers], many: int) -> Total:
    """The cost of all lengths, which are so many."""
    result, each = Total.nothing(), _counts(seen)
    for call, times in next(iter(seen.values())).items():
        for event, n in call.booked():
            counts = [next(each) for _ in event.words]
            if event.kind in MAXIMA:
                sent = played(event, *(series[found].tolist() for found in counts))
            else:
                sizes = (_sizes(w, found, series, many) for w, found in zip(event.words, counts, strict=True))
                sent = [(event, many, sum(sizes))]
            for one, frames, together in sent:
                result.book(one, times * n * frames, times * n * together)
    return result


def _sizes(w: Words, counts: tuple[int, ...], series: Mapping[tuple[int, ...], Numbers], many: int) -> int:
    """The bytes of such words in all steps, which have these counts in those that were seen."""
    if len(set(counts)) == 1:
        return w.runs * many * ((counts[0] * w.bits + 7) // 8)
    return w.runs * int(((series[counts] * w.bits + 7) // 8).sum())

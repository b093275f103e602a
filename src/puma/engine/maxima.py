"""What maxima of rows send, of many lengths of a row at once: turn by turn, of which each kind runs once.

How many turns there are, and of what kind, changes with nearly every length. But a turn's messages have so many words
for each of its winners, whatever the length. This file must not know where rows come from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from puma.mpc.compare import Meeting, best, meetings
from puma.mpc.party import SECOND, Party
from puma.mpc.recall import MAXIMA, Event, Trace
from puma.mpc.share import Share


def played(event: Event, rows: Iterable[int], entries: Iterable[int]) -> Iterator[tuple[Event, int, int]]:
    """The messages of such maxima, each of so many rows with so many entries: one of each kind, how many frames of it
    there are in all, and their bytes together."""
    quick, bits = event.kind == MAXIMA[True], event.words[0].bits
    wins = defaultdict[Meeting, list[int]](list)
    for count, left in zip(rows, entries, strict=True):
        for meeting in meetings(left, count, quick):
            left = -(-left // meeting.radix)
            wins[meeting].append(count * left)
    for meeting, counts in wins.items():
        winners = np.asarray(counts, dtype=np.int64)
        for one in _turn(meeting, bits):
            size = sum(w.runs * int(((w.numel * winners * w.bits + 7) // 8).sum()) for w in one.words)
            yield one._replace(component=event.component), len(counts), size


@cache
def _turn(meeting: Meeting, bits: int) -> tuple[Event, ...]:
    """What a turn with one winner sends, in a ring of so many bits."""
    party = Party(SECOND)
    party.ledger = trace = Trace()
    rival = Share(party, party.nothing((1,)), party.nothing((1,)), bits, 0)
    party.run(best([[rival] * meeting.radix], meeting.at_once))
    (call,) = trace.taken()
    return tuple(call.events)

"""A request under way at one party: what its next step reads, what it holds, and what its asker is still owed.

Several requests go through steps together as rows of joined caches; rows come and go between two steps. This file must
not know how a step computes, nor who asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from puma.errors import ProtocolError
from puma.models.cache import Cache
from puma.mpc.share import Additive, Share
from puma.nn import functional as F
from puma.wire.input_share import Given
from puma.wire.messages import Encode, Generate


@dataclass
class Request:
    """One request at one party; of a generation the rows are its prompts, or what is left of them.

    `given` is what an outsider shared for the next step, if anything, of each row so many tokens as it `reads`;
    `token` the indices (rows,) that the last step gave and nobody opened. `due` are the results of the last step, for
    the asker, and `flags` (prompts,) the words that tell him whether a number of theirs left its reach. Of a prompt
    `unread` rows are yet to be read, of which the next step reads the first ones, a `piece`, or all; what watched the
    rows before waits in `earlier`.
    """

    job: Generate | Encode
    given: Given | None
    owed: list[int]  # results that each row is still to get
    asked: list[tuple[int, int]]  # of each row the tokens of its prompt, and the new ones that were asked for
    cache: Cache | None = None  # of these rows and perhaps others'
    first: int = 0  # where in the cache these rows begin
    token: Share | None = None
    due: list[Share] = field(default_factory=list[Share])
    flags: Additive | Share | None = None
    unread: int = 0
    piece: int = 0
    earlier: Additive | None = None
    follows: list[list[int]] = field(default_factory=list[list[int]])  # of each row, what of a step follows what

    def __post_init__(self) -> None:
        self.alone()

    @property
    def reads(self) -> list[int]:
        """How many tokens of each row the last step read, or the one that is about to be; of a prompt one counts, as
        it gives one result."""
        return [1 + len(parents) for parents in self.follows]

    def alone(self) -> None:
        """A step reads one token of each row, unless it is said otherwise."""
        self.follows = [[] for _ in self.owed]

    @classmethod
    def of(cls, job: Generate | Encode, given: Given, prefix: Cache | None = None) -> Request:
        """A request that has just come; its prompt goes on from what this cache holds."""
        asked = sizes(job)
        if not isinstance(job, Generate):
            return cls(job, given, [1], asked)
        return cls(job, given, [new for _, new in asked], asked, cache=prefix, unread=job.input.tokens)

    @property
    def partly(self) -> bool:
        """Whether the next step leaves some of the prompt unread, and so has no result."""
        return 0 < self.piece < self.unread

    @property
    def width(self) -> int:
        """Rows that the next step reads."""
        if self.unread:
            return self.piece or self.unread
        return sum(self.reads) * self.beams if self.cache is not None else self.job.input.tokens

    def take(self) -> Any:
        """What the next step reads of what outsiders shared, if anything; the rest waits."""
        given: Any = self.given
        self.given = None
        if self.partly:
            given, self.given = given[: self.piece], given[self.piece :]
        self.unread -= self.piece or self.unread
        self.piece = 0
        return given

    @property
    def rows(self) -> range:
        """Where in the cache these rows lie."""
        return range(self.first, self.first + len(self.owed))

    @property
    def beams(self) -> int:
        """How many texts continue its one prompt; 1 for all others."""
        return self.job.beams if isinstance(self.job, Generate) else 1


def sizes(job: Generate | Encode) -> list[tuple[int, int]]:
    """Of each prompt its tokens, those before it too, and how many new ones are asked for."""
    before = job.prefix.length if isinstance(job, Generate) and job.prefix is not None else 0
    return [(before + length, job.tokens if isinstance(job, Generate) else 0) for length in job.input.lengths]


def by_cache(requests: Sequence[Request]) -> list[list[Request]]:
    """Requests under way, those of a common cache together and in its order."""
    groups: dict[int, list[Request]] = {}
    for request in requests:
        if request.cache is not None:
            groups.setdefault(id(request.cache), []).append(request)
    return [sorted(group, key=lambda request: request.first) for group in groups.values()]


def join(groups: Sequence[Sequence[Request]]) -> list[Request]:
    """Let requests of several caches share the first one, in this order."""
    (head, *others), joined = groups, [*groups[0]]
    for group in others:
        cache, extra = head[0].cache, group[0].cache
        assert cache is not None and extra is not None
        start = cache.prompts
        cache.join(extra)
        for request in group:
            request.cache, request.first = cache, start + request.first
        joined += group
    return joined


def leave(requests: Sequence[Request], rows: Sequence[int]) -> list[Request]:
    """The requests without these rows, which count through all of them in order; ProtocolError for rows that are not
    there or come twice. Requests that have lost their last row are gone.
    """
    check_rows(requests, rows)
    if not rows:
        return list(requests)
    gone, kept = set(rows), dict[int, list[int]]()
    start = 0
    for request in requests:
        kept[id(request)] = [i for i in range(len(request.owed)) if start + i not in gone]
        start += len(request.owed)
    for group in by_cache(requests):
        _keep(group, [kept[id(request)] for request in group])
    return [request for request in requests if request.owed]


def check_rows(requests: Sequence[Request], rows: Sequence[int]) -> int:
    """How many rows stay; ProtocolError for rows that are not there or come twice."""
    total = sum(len(request.owed) for request in requests)
    if len(set(rows)) != len(rows) or not all(0 <= row < total for row in rows):
        raise ProtocolError(f"rows {list(rows)} of {total} cannot leave", "name each row that leaves once")
    return total - len(rows)


def _keep(group: Sequence[Request], kept: Sequence[list[int]]) -> None:
    """Of each request of one cache only these rows."""
    cache, remaining = group[0].cache, [r.first + i for r, mine in zip(group, kept, strict=True) for i in mine]
    assert cache is not None
    if remaining and len(remaining) < cache.prompts:
        cache.keep(remaining)
    start = 0
    for request, mine in zip(group, kept, strict=True):
        if request.token is not None and len(mine) < len(request.owed):
            request.token = request.token[mine]
        request.owed, request.asked = [request.owed[i] for i in mine], [request.asked[i] for i in mine]
        request.follows = [request.follows[i] for i in mine]
        request.first = start
        start += len(mine)


def cut(requests: Sequence[Request], kept: Sequence[Sequence[int]]) -> None:
    """Of what each row read in the last step only the tokens in these places count, each of which has given it one
    more; the others are cut out of its cache. Nothing of what they were computed with is used again: the next step has
    another number.
    """
    left = iter(kept)
    for request in requests:
        mine, reads = [next(left) for _ in request.owed], request.reads
        request.owed = [owed + 1 - len(right) for owed, right in zip(request.owed, mine, strict=True)]
        if request.cache is not None and any(len(a) < b for a, b in zip(mine, reads, strict=True)):
            prompts = request.cache.prompts
            rows, but = [0] * prompts, [list[int]()] * prompts
            rows[request.first : request.first + len(mine)] = reads
            but[request.first : request.first + len(mine)] = map(list, mine)
            request.cache.cut(rows, but)
        request.alone()


def apart(requests: Sequence[Request], going: Sequence[Request]) -> None:
    """Let those that take a step now lie in caches without the others, which keep theirs until they go on.

    `requests` are all that have rows in these caches.
    """
    chosen = {id(request) for request in going}
    for group in by_cache(requests):
        now, later = ([r for r in group if (id(r) in chosen) is goes] for goes in (True, False))
        cache = group[0].cache
        assert cache is not None
        if now and later:
            _lie(later, cache.apart([row for request in later for row in request.rows]))
            cache.keep([row for request in now for row in request.rows])
            _lie(now, cache)


def _lie(requests: Sequence[Request], cache: Cache) -> None:
    """These are the rows of the cache, one request's after the other's."""
    start = 0
    for request in requests:
        request.cache, request.first, start = cache, start, start + len(request.owed)


def finished(requests: Sequence[Request]) -> list[int]:
    """The rows that are owed nothing more, counted through all requests."""
    return [row for row, owed in enumerate(owed for request in requests for owed in request.owed) if owed == 0]


def parts(x: Any, counts: Sequence[int]) -> Iterator[Any]:
    """So many rows of x at a time."""
    if len(counts) == 1:
        yield x
        return
    start = 0
    for count in counts:
        yield x[start : start + count]
        start += count


def whole(rows: Sequence[Any]) -> Any:
    """Rows of several requests below each other: outsiders' choices, or what a model gives."""
    if len(rows) == 1:
        return rows[0]
    return rows[0].joined(rows[1:]) if hasattr(rows[0], "joined") else F.cat(rows, 0)

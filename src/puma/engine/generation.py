"""Requests in steps until nothing is owed any more: the client's word between two steps, and what it lets happen.

Everything here is public and the same at all parties: lengths, rows that leave, prompts that join. How a step computes,
and how words come from a client, it must not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import count

from puma.engine.engine import Emit, Engine
from puma.engine.lookahead import Ahead
from puma.engine.rehearsing import step
from puma.engine.request import Request, cut, finished, leave, whole
from puma.errors import ProtocolError
from puma.models.cache import Cache
from puma.mpc.share import Share
from puma.nn import functional as F
from puma.wire.input_share import Flagged, Given
from puma.wire.messages import Encode, Generate


@dataclass(frozen=True)
class Turn:
    """The client's word after a result: whether to go on, which of the tokens that each row read in the last step
    count, which rows leave then, its own choice of the tokens of those that stay, what of these `follows` what, and
    requests that join them."""

    more: bool = True
    leave: Sequence[int] = ()
    given: Given | None = None
    join: Sequence[Request] = ()
    kept: Sequence[Sequence[int]] = ()
    follows: Sequence[Sequence[int]] = ()  # as Cache.expect has it; one token of each row where nothing is said

    @property
    def plain(self) -> bool:
        """Whether the next step is made of the same as the last one."""
        others = [getattr(self, each.name) for each in fields(self) if each.name not in ("more", "given")]
        return self.given is None and not any(others)


Word = Callable[[Sequence[Request]], Turn]


def on(_: Sequence[Request]) -> Turn:
    """As many tokens as were asked for, whatever they are."""
    return Turn()


def nothing() -> None:
    """Nobody waits for the first result."""


def run(
    engine: Engine, job: Generate | Encode, given: Given, emit: Emit, prefilled: Callable[[], None] = nothing,
    word: Word = on, prefix: Cache | None = None,
) -> Request:  # fmt: skip
    """A request from its input on: emit its results as they are decided, and then the flags of its prompts; see
    `run_steps` for the others. The prompt goes on from a `prefix`, if there is one."""
    request = Request.of(job, given, prefix)
    if isinstance(job, Generate):
        run_steps(engine, request, emit, prefilled, word)
        return request
    try:
        engine.step([request])
    finally:
        engine.rest()
    _emit([request], emit)
    return request


def run_steps(
    engine: Engine, request: Request, emit: Emit, prefilled: Callable[[], None] = nothing, word: Word = on
) -> None:
    """Emit after each step one result for all rows: their next tokens, as indices (rows,), which are fed back without
    being opened; or, if the client chooses, logits (rows, vocabulary). Then the flags of the step, one of each prompt.

    Rows that have got all they are owed leave. Before each further step `word` is asked what the client wants.
    """
    requests, ahead = [request], Ahead(engine)
    try:
        for number in count():
            ahead.begin(number, requests)
            # Each step has streams of its own and each number comes once, whoever joins or leaves: no mask serves
            # twice.
            with engine.party.stage(f"step {number}"):
                step(engine, requests)
            _emit(requests, emit)
            if number == 0:
                prefilled()
            requests = leave(requests, finished(requests))
            if not requests:
                return
            turn = word(requests)
            if not turn.more:
                return
            requests = _next(requests, turn)
    finally:
        ahead.end()
        engine.rest()


def _emit(requests: Sequence[Request], emit: Emit) -> None:
    found = results(requests)
    with F.component("head", found[0]):
        for due in found:
            emit(due)


def results(requests: Sequence[Request]) -> list[Share]:
    """What the last step gave these, as it leaves: of generations one result for all rows; and then the flags."""
    due = [share for request in requests for share in request.due]
    if isinstance(requests[0].job, Encode):
        return [*due, *_flags(requests)]
    return [whole(due), whole(_flags(requests))]


def _flags(requests: Sequence[Request]) -> list[Share]:
    """Those of the step, reshared."""
    return [request.flags for request in requests if isinstance(request.flags, Share)]


def _next(requests: Sequence[Request], turn: Turn) -> list[Request]:
    """The requests of the next step, each with what it reads."""
    if turn.kept:
        cut(requests, turn.kept)
    return gone_on(leave(requests, turn.leave), turn)


def gone_on(staying: Sequence[Request], turn: Turn) -> list[Request]:
    """The same, once those that leave have left."""
    staying = list(staying)
    if turn.given is not None:
        _feed(staying, turn.given, turn.follows)
    staying += turn.join
    if not staying:
        raise ProtocolError("a request goes on without rows", "say that it is over")
    return staying


def _feed(requests: Sequence[Request], given: Given, follows: Sequence[Sequence[int]]) -> None:
    """Give the requests the tokens that the client has chosen for their rows: one of each, unless it says otherwise."""
    left = iter(follows)
    for request in requests:
        request.follows = [list(next(left, ())) for _ in request.owed]
    if isinstance(given, Flagged):
        (request,) = requests
        assert request.cache is not None
        request.cache.branch(given.flags.reshape(request.beams, -1))
        request.given = given.rows
    elif len(requests) == 1:
        requests[0].given = given
    else:
        start = 0
        for request in requests:
            count = sum(request.reads)
            request.given = given[start : start + count]  # type: ignore[index]
            start += count


def hidden_flags(job: Generate, step: int) -> int:
    """How many ones and zeros come with the tokens of beams that are fed in this step, from 1 on."""
    return job.beams**2 * step if job.beams > 1 else 0

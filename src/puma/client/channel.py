"""How an outsider talks to the three parties: one request at a time, the same word from each, every copy compared.

What comes is taken only as everybody knew beforehand that it would come: kind, shape, ring and fraction bits of each
answer are checked at all three before its words are read, and what does not fit ends the session. A flag that is set
makes an answer an error, or a warning for who takes it all the same. It must not know what is asked, nor where the
parties run.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import msgspec
import torch
from torch import Tensor

from puma import errors, kernels
from puma.client import arguments
from puma.client.cost import Cost
from puma.client.evidence.receipt import Receipt
from puma.client.evidence.session import Receipts
from puma.client.turns import Turns
from puma.errors import OutOfRange, OutOfRangeWarning, PeerLost, ProtocolError, PumaError
from puma.mpc.cost import message_bytes
from puma.net import Link
from puma.net.endpoint import printable
from puma.nn.variants import named
from puma.wire import messages as msg
from puma.wire.answers import Format
from puma.wire.beside.network import Surveyed
from puma.wire.receipts import Commitment, Signed, joined
from puma.wire.twin import reported

R = TypeVar("R")
Judgement = Literal["refuse", "warn", "note"]  # the last one by who tells it in another way
JUDGEMENTS: tuple[Judgement, ...] = ("refuse", "warn")
HINT = 'see `puma check MODEL --text "..."`, or take the answer all the same by out_of_range="warn"'
NO_SEEDS = (b"", b"")
MISBEHAVES = "one of the parties misbehaves, or runs another version: do not ask again before you know which"


def judgement(value: object) -> Judgement:
    """One of the two; UsageError for anything else."""
    return arguments.one_of(value, "out_of_range", JUDGEMENTS)  # type: ignore[return-value]


def out_of_range(prompts: Sequence[int], count: int) -> OutOfRange:
    """The error about these of so many prompts."""
    which = "" if count == 1 else f" for prompt {', '.join(str(i + 1) for i in prompts)} of {count}"
    what = f"a number left its range while the answer{which} was computed: it may be wrong"
    return OutOfRange(what, HINT, prompts)


def judge(prompts: Sequence[int], count: int, how: Judgement) -> None:
    """OutOfRange if some of so many prompts are flagged; a warning where the answer is taken all the same."""
    if not prompts:
        return
    error = out_of_range(prompts, count)
    if how == "refuse":
        raise error
    if how == "note":
        return
    warnings.warn_explicit(error.message, OutOfRangeWarning, "puma.client", 1, registry={})  # not only the first time


@contextmanager
def counted(first: int, count: int) -> Iterator[None]:
    """Meanwhile prompts that an OutOfRange names are those from the `first` one on of so many."""
    try:
        yield
    except OutOfRange as error:
        raise out_of_range([first + i for i in error.prompts], count) from None


class PartyChannel:
    """One link to each of P0, P1, P2, in this order; an error ends it."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = list(links)
        self.turns = Turns()  # each request is one, so that no thread ever meets a half-sent one
        self._awaited: deque[Format] = deque()  # results of the present request that have not been read
        self.held = 0  # tokens of the latest prompt that the parties had already
        self._granted = 0  # of these, how many come without a further word
        self._reported = True
        self._over = False
        self._why = ""  # it is over
        self.said: list[msg.Request] = []  # in public, in the latest request
        self.early = -1  # how many further words had been said when the first result was read; -1 before
        self.once = False  # whether the session is for one request, and over after it
        self.judges = True  # whether answers must make sense; not in a canary, which is judged afterwards
        self.audited = False  # whether it may turn out to be a canary, and asks nothing that no canary is like
        self.before: list[Callable[[msg.Generate | msg.Encode], None]] = []  # told of each request before it leaves
        self.flagged: list[int] = []  # prompts of the latest result of which a number has left its reach
        self._last: Cost | None = None
        self.receipts: Receipts | None = None  # who checks what the parties sign, where they do
        self._receipt: Receipt | None = None
        self._opens = [0, 0, 0]
        self._mine = threading.local()
        self.variants = "lean"  # or quick, auto, or functions by name: which of them take fewer rounds and more words
        self.network: Surveyed | None = None  # between P1 and P2, once they were asked
        self.plans: dict[object, tuple[str, ...]] = {}  # that they made, by the size of what was asked

    @property
    def cost(self) -> Cost | None:
        """What this thread's last request cost, or the last of all if this thread has made none."""
        return getattr(self._mine, "cost", self._last)

    @cost.setter
    def cost(self, cost: Cost) -> None:
        self._last = self._mine.cost = cost

    @property
    def receipt(self) -> Receipt | None:
        """What the parties signed of this thread's last request, checked; None where they sign nothing."""
        return getattr(self._mine, "receipt", self._receipt)

    @property
    def over(self) -> bool:
        """Whether every further request would fail: the session has ended, perhaps while nobody asked."""
        return self._over or (self._reported and (any(x.lost for x in self.links) or bool(self.once and self.said)))

    def ask(
        self, kind: type[R], request: Callable[[list[bytes]], msg.Request], seeds: Sequence[bytes] = NO_SEEDS
    ) -> list[R]:  # fmt: skip
        """Begin a request that is one message to each party and one back, of this kind; the three replies.

        `request` makes the message out of the seeds that a party may have: of two, P0 has both, and P1 and P2 one.
        """
        self._begin()
        self._send(request, list(seeds))
        replies = self._replies(kind)
        self._reported = True
        return replies

    def planned(self, request: msg.Generate | msg.Encode) -> msg.Generate | msg.Encode:
        """The request by the session's choice of variants; for "auto" the parties are asked once for each size."""
        quick, read = named(self.variants), request.input
        if quick is None:
            sizes = getattr(request, "tokens", 0), len(read.lengths), max(read.lengths)
            size = tuple(each.bit_length() for each in sizes)
            if size not in self.plans:
                self.network = self.ask(Surveyed, lambda _: msg.Survey(msg.bare(request)))[1]
                self.plans[size] = self.network.quick
            quick = self.plans[size]
        request = msgspec.structs.replace(request, input=msgspec.structs.replace(read, quick=quick))
        for hear in self.before:
            hear(request)
        return request

    def answers(self, kind: type[R]) -> list[R]:
        """One more message of each party, of this kind, to what it was sent since it was asked."""
        return self._replies(kind)

    @contextmanager
    def sending(self) -> Iterator[Sequence[Any]]:
        """The links, for what follows a message. One that has given up, for want of room perhaps, has said why."""
        with self._exchange(sending=True):
            yield self.links

    @property
    def _paced(self) -> bool:
        """Whether the parties will wait for a word of the client's."""
        return len(self._awaited) > self._granted

    def _begin(self, results: Sequence[Format] = ()) -> None:
        """Read what an abandoned request still sends, so that no answer is taken for another's; await these results."""
        self.turns.check()
        if self._over:
            why = f": {self._why}" if self._why else ""
            raise ProtocolError(f"the session has ended{why}", "start a new one; an earlier error may say why")
        self._drain()
        self._awaited, self._reported = deque(results), False
        self._granted = len(results)

    def _drain(self) -> list[msg.Report]:
        """Leave the present request where it is, and read what the parties had sent or been granted; their reports."""
        if self._paced:
            self._leave()
        while self._awaited:
            self._result()
        return [] if self._reported else self._reports()

    def _leave(self) -> None:
        """No more results are wanted of a paced request than have been granted."""
        while self._paced:
            self._awaited.pop()
        self._tell(msg.Pace(False))

    def tell_next(
        self, words: Sequence[msg.Request], frames: Sequence[Sequence[Tensor]], wanted: Format, new: bool
    ) -> None:
        """To each party its word about the next step of a stream, and its frames of words behind it; `wanted` answers.

        It begins a `new` request, or goes on with the present one.
        """
        if new:
            self._begin([wanted])
            self._asks(words[0])
        else:
            self._awaited, self._granted = deque([wanted]), 1
            self.said.append(msg.public(words[0]))
        with self._exchange(sending=True):
            for link, word, mine in zip(self.links, words, frames, strict=True):
                link.send_control(msg.encode(word))
                for frame in mine:
                    if frame.numel():
                        link.send(kernels.to_wire(frame))

    def hear_next(self, later: Format | None) -> Tensor:
        """The result of that step; `later` is the format of the next one, for which the parties then await a word."""
        result = self._result()
        if later is not None:
            self._awaited.append(later)
        return result

    def end_stream(self) -> list[msg.Report]:
        """No further step is wanted, if there is one: what the request cost each party."""
        return self._drain()

    def _grant(self) -> None:
        """One more result is wanted of a paced request."""
        self._granted += 1
        self._tell(msg.Pace(True))

    def _tell(self, word: msg.Request) -> None:
        """The same to all three."""
        self.said.append(word)
        message = msg.encode(word)
        with self._exchange(sending=True):
            for link in self.links:
                link.send_control(message)

    @contextmanager
    def _exchange(self, sending: bool = False) -> Iterator[None]:
        """Whatever breaks off a message, an interrupt too, leaves links that no later request can use.

        A party that has given up while we were `sending` has said why before it left.
        """
        try:
            yield
        except PeerLost as error:
            self._end(error.message)
            if sending:
                self._name_lost()
            raise
        except Exception as error:
            self._end(str(error) or type(error).__name__)
            raise
        except BaseException as error:  # the user's Ctrl-C: the parties need not go on
            self._end(f"{type(error).__name__} came in the middle of a request")
            for link in self.links:
                with suppress(PumaError):
                    link.fail("the client was interrupted")
            raise

    def _end(self, why: str) -> None:
        """No further request can use the links; the first reason counts."""
        self._over, self._why = True, self._why or why

    def _asks(self, word: msg.Request) -> None:
        """The first word of a request is about to leave."""
        self.said, self.early = [msg.public(word)] if isinstance(word, msg.Generate | msg.Encode) else [], -1
        if self.receipts is not None:
            self.receipts.ask(word)

    def _send(self, request: Callable[[list[bytes]], msg.Request], seeds: list[bytes]) -> None:
        self._asks(request(seeds))
        messages = [msg.encode(request(mine)) for mine in (seeds, seeds[:1], seeds[1:])]
        with self._exchange(sending=True):
            for link, message in zip(self.links, messages, strict=True):
                link.send_control(message)

    def _result(self) -> Tensor:
        """The next result; `flagged` then says of which prompts it may be wrong.

        ProtocolError, which names who differs as far as that can be known, for any other header than was awaited, for
        copies that differ, and for an index that there is not.
        """
        wanted = self._awaited[0]
        self.early = len(self.said) - 1 if self.early < 0 else self.early
        with self._exchange():
            self._name_lost()
            found, flags = self._joined(wanted), torch.zeros(0)
            if wanted.flagged:
                flags = self._joined(wanted.flags)
            self.flagged = flags.nonzero().flatten().tolist()
        self._awaited.popleft()
        self._granted -= 1
        return found.double() / 2.0**wanted.frac

    def _joined(self, wanted: Format) -> Tensor:
        """The words of the next output; (l1, l2), (m, l1) and (m, l2) must agree on every component."""
        for link in self.links:
            self._header(link, wanted)
        (l1, l2), (m, one), (m2, two) = (self._components(link, wanted) for link in self.links)
        if self.judges:
            self._compare(torch.equal(l1, one), torch.equal(l2, two), torch.equal(m, m2))
        found = m - l1 - l2
        if not wanted.below:
            return kernels.signed(found, wanted.bits)
        found = kernels.reduce(found, wanted.bits)  # an index has no sign
        if not self.judges:
            return found % wanted.below
        if bool((found >= wanted.below).any()):
            what = f"an answer names an entry beyond the {wanted.below} that there are"
            raise ProtocolError(what, MISBEHAVES)
        return found

    def _header(self, link: Link, wanted: Format) -> None:
        """One party's announcement of a result, before any word of it is read or room made for it."""
        reply = self._reply(link)
        if not isinstance(reply, msg.Result):
            what = f"{link.peer} sent a {type(reply).__name__.lower()} where a result was expected"
            raise ProtocolError(what, MISBEHAVES)
        if reply != wanted.header:
            what = f"{link.peer} sent a result of another shape or format than was asked for"
            raise ProtocolError(what, MISBEHAVES)

    def _components(self, link: Link, wanted: Format) -> tuple[Tensor, Tensor]:
        count = message_bytes(math.prod(wanted.shape), wanted.bits)
        parts = kernels.from_wire(link.recv(2 * count)).split(count)
        a, b = (kernels.unpack(part, wanted.bits, wanted.shape) for part in parts)
        return a, b

    def _compare(self, l1: bool, l2: bool, m: bool) -> None:
        """Whether both copies of each component are alike; who differs in two of them differs from both others."""
        if l1 and l2 and m:
            return
        holders = {"l1": (l1, 0, 1), "l2": (l2, 0, 2), "m": (m, 1, 2)}
        differing = [set(who) for alike, *who in holders.values() if not alike]
        suspects = sorted(set.intersection(*differing) or {0, 1, 2})
        names = " or ".join(self.links[rank].peer for rank in suspects)
        raise ProtocolError(f"two parties sent different copies of one component: {names} differs", MISBEHAVES)

    def _name_lost(self) -> None:
        """Name a lost party now: the dealer runs far ahead, and its answers would hide for long that it is gone."""
        for link in self.links:
            while link.lost:
                self._reply(link)  # in the end it raises what the party said last, or how it was lost

    def _reports(self) -> list[msg.Report]:
        """Of each party, and of a second dealer behind them."""
        reports = [*self._replies(msg.Report), *reported(self.links)]
        self._reported = True
        for peer, report in zip([*(link.peer for link in self.links), "the second dealer"], reports, strict=False):
            seconds = [report.seconds, report.prefill, report.cpu_seconds, *(s.seconds for s in report.spent)]
            if not all(0 <= each < math.inf for each in seconds):  # NaN, too
                self._end(f"{peer} sent a report that makes no sense")
                raise ProtocolError(self._why, MISBEHAVES)
        return reports

    def _replies(self, kind: type[R]) -> list[R]:
        """The next message of each party, which must be of this kind."""
        with self._exchange():
            replies = [self._reply(link) for link in self.links]
            for link, reply in zip(self.links, replies, strict=True):
                if not isinstance(reply, kind):
                    what = f"{link.peer} sent a {type(reply).__name__.lower()} instead of a {kind.__name__.lower()}"
                    raise ProtocolError(what, MISBEHAVES)
            self._signed([reply.receipt for reply in replies if isinstance(reply, msg.Report)])
        return replies  # type: ignore[return-value]

    def _signed(self, receipts: Sequence[Signed | None]) -> None:
        """What came with reports, if these are some."""
        if self.receipts is not None and receipts:
            links = {rank: heads for rank, link in enumerate(self.links) if (heads := link.heads) is not None}
            self._receipt = self._mine.receipt = self.receipts.take(receipts, links)

    def _hash_opened(self, replies: Sequence[msg.Opened]) -> None:
        """Hash from now on what goes over each link to a party that has opened a model."""
        for rank, (link, reply) in enumerate(zip(self.links, replies, strict=True)):
            if self.receipts is not None and reply.config is not None:
                self._opens[rank] += 1
                link.chain(f"model {self._opens[rank]}", words=True)

    def _committed(self, replies: Sequence[msg.Opened]) -> Commitment | None:
        """What the parties commit to of a model that they opened alike; ProtocolError if two of them contradict each
        other."""
        told = [reply.commitment for reply in replies if reply.commitment is not None]
        found = joined(told) if len(told) == len(replies) else None
        if found is None and told:
            self._end("the parties commit to different shares of the model")
            raise ProtocolError(self._why, MISBEHAVES)
        return found

    def _reply(self, link: Link) -> msg.Reply:
        reply = msg.decode_reply(link.recv_control())
        if isinstance(reply, msg.Failed):
            kind = getattr(errors, reply.kind, None)
            if not (isinstance(kind, type) and issubclass(kind, PumaError)):
                kind = ProtocolError
            raise kind(*(printable(text.encode(errors="replace")) for text in (reply.message, reply.hint)))
        return reply

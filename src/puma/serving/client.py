"""The two outsiders: the owner, who shares a model, and the client, who shares a prompt and joins the answer.

Both see plaintext, their own. A session holds one link to each party; every output component comes from two
parties and the two copies must agree. This file must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, chain
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor

from puma import errors, kernels
from puma.crypto.prg import PairKey, fresh_secret
from puma.errors import InputError, MaterialError, PeerLost, ProtocolError, PumaError, TensorError, UsageError
from puma.models.config import Config, Vit
from puma.models.text import check_batch
from puma.mpc.cost import message_bytes
from puma.mpc.seeded import rest_bytes
from puma.serving import messages as msg
from puma.serving import pixels
from puma.serving.account import Cost, cost_of
from puma.serving.engine import EVERY_TOKEN, tensor_specs
from puma.serving.material import ID_BYTES
from puma.serving.prompt import Sealed, Seeds, seal, upload_bytes
from puma.serving.tickets import Ticket, Tickets

KEEP_MASKS_BELOW = 50_000_000  # parameters; larger models draw their masks again at every use
PIECE_WORDS = 1 << 15  # that the owner masks at a time

Inference = msg.Generate | msg.Encode
R = TypeVar("R")
Progress = Callable[[str, int, int], None]  # what, done, of


def masked(x: Tensor, spec: msg.TensorSpec, seeds: Sequence[bytes], purpose: str) -> Iterator[Tensor]:
    """m = x 2^frac + l1 + l2 as packed bytes, FRAME_WORDS words at a time, made in pieces that stay in the cache.

    Safe: each evaluator lacks one of the two seeds, and each purpose is used once.
    """
    size = rest_bytes((PIECE_WORDS,), spec.bits)
    readers = [PairKey(seed).stream(purpose).reader(0) for seed in seeds]
    pads = torch.empty((2, size), dtype=torch.uint8)
    for frame in x.reshape(-1).split(msg.FRAME_WORDS):
        packed = torch.empty(rest_bytes(frame.shape, spec.bits), dtype=torch.uint8)
        for piece, out in zip(frame.split(PIECE_WORDS), packed.split(size), strict=True):
            l1, l2 = (reader.into(pad[: out.numel()]) for reader, pad in zip(readers, pads, strict=True))
            kernels.pack_masked(piece.double(), spec.frac, (l1, l2), spec.bits, out)
        yield packed


def secret_length(
    config: Config | None, prompts: Sequence[Sequence[int]], types: Sequence[Sequence[int]], padded: int
) -> int:
    """The common length that the parties learn instead of the prompts'; token types, which are public, are refused."""
    longest, context = max(map(len, prompts), default=1), config.context if config else 1
    if any(chain(*types)):
        raise UsageError(
            "public token types would tell where texts end", "make the lengths public, or send single texts"
        )
    width = padded or min(context, max(16, 1 << (longest - 1).bit_length()))
    if not longest <= width <= context:
        raise InputError(
            f"texts of up to {longest} tokens cannot be padded to {width}", f"choose {longest} to {context}"
        )
    return width


class Session:
    """One link to each of P0, P1, P2, in this order. One request at a time; an error ends it."""

    def __init__(self, links: Sequence[Any], approximation: str = "spline") -> None:
        self.links = list(links)
        self.approximation = approximation  # what the parties compute with; they refuse requests that name another
        self.config: Config | None = None
        self.sharing = b""  # of the model that the parties serve
        self.card: msg.Card | None = None  # and what its owner says of it
        self.cost: Cost | None = None
        self.tickets: Tickets | None = None  # where requests look for what has been prepared
        self._requests = 0
        self._unread = 0  # results of the present request
        self._open_ended = False  # the parties wait for a word after each of these
        self._reported = True
        self._over = False

    # -- owner ----------------------------------------------------------------------------------------------

    def share(
        self,
        config: Config,
        params: Mapping[str, Tensor],
        progress: Progress | None = None,
        alias: Mapping[str, str] | None = None,
        keep: str = "",
    ) -> None:
        """Send each evaluator the masked words of every parameter, tensor by tensor, and everyone the seeds.

        A parameter in `alias` is not sent: it is the same secret as another, under the same masks. With a name in
        `keep` the parties put the model into their stores, and `open` finds it there later.
        """
        alias = dict(alias or {})
        specs = [spec for spec in tensor_specs(config) if spec.name not in alias]
        seeds, sharing = [fresh_secret(), fresh_secret()], fresh_secret()[:ID_BYTES]
        self._begin()
        keep_masks = sum(torch.Size(s.shape).numel() for s in specs) < KEEP_MASKS_BELOW
        self._send(lambda mine: msg.Load(config, specs, mine, keep_masks, alias, sharing, keep), seeds)
        with self._talking():
            for i, spec in enumerate(specs):
                tensor = params[spec.name]
                if tuple(tensor.shape) != tuple(spec.shape):
                    raise TensorError(f"parameter {spec.name} is misshapen", "fold the checkpoint first")
                for frame in masked(tensor, spec, seeds, f"weight {spec.name}"):
                    self._both(frame)
                if progress:
                    progress("sharing the model", i + 1, len(specs))
        self._reports()
        self.config, self.sharing = config, sharing

    def open(self, name: str) -> bool:
        """Serve a model from the parties' stores; False if not all of them hold the same sharing of it."""
        self._begin()
        self._send(lambda _: msg.Open(name), [b"", b""])
        found = self._replies(msg.Opened)
        self._reported = True
        config = found[0].config
        if config is None or found[1:] != found[:1] * 2:
            return False
        self.config, self.sharing, self.card = config, found[0].sharing, found[0].card
        return True

    # -- client ---------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Sequence[int]], tokens: int, until: Callable[[Sequence[int]], bool] | None = None
    ) -> Iterator[list[int]]:
        """Yield the next token of each prompt as they are decided; `cost` is set when the last ones have come.

        With `until`, the parties wait after each step until it has told whether that was the last one.
        """
        paced = until is not None
        sent, ticket = self._ask(lambda job: msg.Generate(job, tokens, paced=paced), prompts, [], tokens)
        self._open_ended, mine = paced, self._requests
        while self._unread:
            step = [int(index) % (1 << self._bits) for index in self._result()]  # an index is unsigned
            if until is not None and self._unread:
                self._pace(not until(step))
            yield step
            if mine != self._requests:
                raise UsageError("a new request came before this one was read", "read a stream to its end")
        self.cost = cost_of(self._reports(), sent, ticket)

    def encode(
        self, prompts: Sequence[Sequence[int]], output: str, types: Sequence[Sequence[int]] = (),
        lengths: str = "public", padded: int = 0,
    ) -> list[Tensor]:  # fmt: skip
        """Of each prompt hidden states (tokens, d), their sum (d,) or class logits (labels,), as float64.

        A head for tokens gives logits (tokens, labels). With `lengths` "secret" the parties learn a common length only:
        `padded`, or else the next power of two from 16 on; ranges.check_padding says for which models that is right.
        """
        width = secret_length(self.config, prompts, types, padded) if lengths == "secret" else 0
        sent, ticket = self._ask(lambda job: msg.Encode(job, output), prompts, () if width else types, 1, width)
        result = self._result()
        self.cost = cost_of(self._reports(), sent, ticket)
        each = output in EVERY_TOKEN or (output == "logits" and getattr(self.config, "each_token", False))
        if each and width:
            return [rows[: len(ids)] for ids, rows in zip(prompts, result.split(width), strict=True)]
        return list(result.split([len(ids) for ids in prompts]) if each else result)

    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (),
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first.

        Everyone learns the places.
        """
        starts = [0, *accumulate(len(ids) for ids in prompts)]
        if any(not 0 <= i < len(ids) for ids, places in zip(prompts, masked, strict=True) for i in places):
            raise InputError("a masked place is not among the tokens", "places count from 0 in each prompt")
        rows = [start + i for start, places in zip(starts, masked) for i in places]
        sent, ticket = self._ask(lambda job: msg.Encode(job, "tokens", rows=rows, top=top), prompts, types, top)
        found = [[int(index) % (1 << self._bits) for index in self._result()] for _ in range(top)]
        self.cost = cost_of(self._reports(), sent, ticket)
        ranked = iter(zip(*found, strict=True))
        return [[list(next(ranked)) for _ in places] for places in masked]

    def prepare(self, request: Inference) -> Ticket:
        """Let the parties do beforehand what the request needs no input for; the ticket goes to `tickets`.

        Only what everyone may know of `request` matters: its lengths, its number of tokens, its output.
        """
        if self.tickets is None:
            raise MaterialError("there is no place for what is prepared", "start the cluster with a store")
        named = msgspec.structs.replace(request.input, approximation=self.approximation)
        request = msg.bare(msgspec.structs.replace(request, input=named))
        seeds, identity = Seeds.fresh(), fresh_secret()[:ID_BYTES]
        self._begin()
        with self._talking():
            for rank, link in enumerate(self.links):
                masks, choices = seeds.of(rank)
                part = msgspec.structs.replace(request.input, masks=masks, choices=choices)
                link.send_control(msg.encode(msg.Prepare(identity, msgspec.structs.replace(request, input=part))))
        reports = self._reports()
        cost = cost_of(reports, 0)
        ticket = Ticket(
            id=identity, sharing=self.sharing, request=request, choices=seeds.choices, masks=seeds.masks,
            seconds=cost.seconds, offline=cost.total, sizes=[report.material for report in reports],
        )  # fmt: skip
        self.tickets.add(ticket)
        return ticket

    def selftest(self) -> Tensor:
        """The parties' answer to the built-in self-test."""
        self._begin(1)
        self._send(lambda _: msg.SelfTest(), [b"", b""])
        result = self._result()
        self.cost = cost_of(self._reports(), 0)
        return result

    def close(self) -> None:
        """Let the parties go."""
        self._over = True
        for link in self.links:
            with suppress(PumaError):
                link.send_control(msg.encode(msg.Quit()))
            link.close()

    def _ask(
        self,
        request: Callable[[msg.Input], Inference],
        prompts: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]],
        results: int,
        width: int = 0,
    ) -> tuple[int, Ticket | None]:
        """Send a request, on material prepared for it if there is any; the bytes of the prompt, and the ticket.

        All prompts are padded in secret to a `width`, if there is one.
        """
        assert self.config is not None
        lengths, sealed_under, upload = self._input(prompts, width)
        check_batch(self.config, lengths, results)
        self._begin(results)
        kinds = [*chain(*types)]
        ticket = self._ticket(request(msg.Input(lengths, [], [], kinds, bool(width), self.approximation)))
        sealed = sealed_under(ticket.seeds if ticket else None)
        with self._talking():
            for link, part in zip(self.links, sealed, strict=True):
                seeds = ([], []) if ticket else (part.masks, part.choices)
                job = msg.Input(lengths, *seeds, kinds, bool(width), self.approximation)
                asked = msgspec.structs.replace(request(job), material=ticket.id if ticket else b"")
                link.send_control(msg.encode(asked))
                if part.payload.numel():
                    link.send(part.payload.numpy())
        return upload, ticket

    def _input(
        self, prompts: Sequence[Sequence[int]] | Sequence[Tensor], padded: int
    ) -> tuple[list[int], Callable[[Seeds | None], list[Sealed]], int]:
        """Rows of each prompt or image, what seals them under given seeds, and the bytes that will take."""
        config = self.config
        assert config is not None
        width = config.vocab_size
        if isinstance(config, Vit):
            rows = pixels.checked(prompts, config.context - 1, width)  # type: ignore[arg-type]
            lengths = [config.context] * len(prompts)
            return lengths, lambda seeds: pixels.seal(rows, seeds), pixels.upload_bytes(len(rows), width)
        lengths, ids = [len(prompt) for prompt in prompts], [int(token) for prompt in prompts for token in prompt]
        if min(lengths, default=0) < 1 or min(ids) < 0 or max(ids) >= width:
            raise InputError(f"not prompts of a vocabulary of {width}", "pass token ids, at least one each")
        if not padded:
            return lengths, lambda seeds: seal(ids, width, seeds), upload_bytes(len(ids), width)
        real = [i < length for length in lengths for i in range(padded)]
        rest = iter(ids)
        ids, pads = [next(rest) if here else 0 for here in real], [int(not here) for here in real]
        upload = upload_bytes(len(ids), width, padded=True)
        return [padded] * len(lengths), lambda seeds: seal(ids, width, seeds, pads), upload

    def _ticket(self, request: Inference) -> Ticket | None:
        """A ticket for this request whose material every party has at hand; it is used up, and so is any that fails."""
        while self.tickets is not None and (ticket := self.tickets.take(self.sharing, request)):
            if not self._problem(ticket):
                return ticket
        return None

    def _problem(self, ticket: Ticket) -> str:
        """Let the parties take their material out; what one of them lacks."""
        with self._talking():
            for link in self.links:
                link.send_control(msg.encode(msg.Take(ticket.id)))
        return next((reply.problem for reply in self._replies(msg.Taken) if reply.problem), "")

    def _begin(self, results: int = 0) -> None:
        """Read what an abandoned request still sends, so that no answer is taken for another's."""
        if self._over:
            raise ProtocolError("the session has ended", "start a new one; an earlier error may say why")
        while self._unread:
            self._result()
            if self._unread and self._open_ended:
                self._pace(False)
        self._open_ended = False
        if not self._reported:
            self._reports()
        self._requests += 1
        self._unread, self._reported = results, False

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Whatever breaks off a message, an interrupt too, leaves links that no later request can use."""
        try:
            yield
        except BaseException:
            self._over = True
            raise

    def _pace(self, more: bool) -> None:
        """Tell the parties whether one more token is wanted."""
        with self._talking():
            for link in self.links:
                link.send_control(msg.encode(msg.Pace(more)))
        if not more:
            self._unread = 0

    def _send(self, request: Callable[[list[bytes]], msg.Request], seeds: list[bytes]) -> None:
        with self._talking():
            for link, mine in zip(self.links, (seeds, seeds[:1], seeds[1:]), strict=True):
                link.send_control(msg.encode(request(mine)))

    def _both(self, frame: Tensor) -> None:
        """A piece of a parameter to each evaluator; one that has given up, for want of room perhaps, has said why."""
        try:
            for link in self.links[1:]:
                link.send(frame.numpy())
        except PeerLost:
            self._watch()
            raise

    def _result(self) -> Tensor:
        """Join the next output; (l1, l2), (m, l1) and (m, l2) must agree on every component."""
        with self._talking():
            self._watch()
            (l1, l2), (m, one), (m2, two) = (self._components(link) for link in self.links)
            if not (torch.equal(l1, one) and torch.equal(l2, two) and torch.equal(m, m2)):
                raise ProtocolError(
                    "two parties sent different copies of one component", "one of the parties misbehaves"
                )
        self._unread -= 1
        return kernels.signed(m - l1 - l2, self._bits).double() / 2.0**self._frac

    def _watch(self) -> None:
        """Name a lost party now: the dealer runs far ahead, and its answers would hide for long that it is gone."""
        for link in self.links:
            while link.lost:
                self._reply(link)  # in the end it raises what the party said last, or how it was lost

    def _components(self, link: Any) -> tuple[Tensor, Tensor]:
        reply = self._reply(link)
        if not isinstance(reply, msg.Result):
            raise ProtocolError(
                f"{link.peer} sent a report where a result was expected", "one of the parties misbehaves"
            )
        count = message_bytes(torch.Size(reply.shape).numel(), reply.bits)
        self._bits, self._frac = reply.bits, reply.frac
        parts = torch.frombuffer(link.recv(2 * count), dtype=torch.uint8).split(count)
        a, b = (kernels.unpack(part, reply.bits, tuple(reply.shape)) for part in parts)
        return a, b

    def _reports(self) -> list[msg.Report]:
        reports = self._replies(msg.Report)
        self._reported = True
        return reports

    def _replies(self, kind: type[R]) -> list[R]:
        """The next message of each party, which must be of this kind."""
        with self._talking():
            replies = [self._reply(link) for link in self.links]
            for reply in replies:
                if not isinstance(reply, kind):
                    what = f"a party sent a {type(reply).__name__.lower()} instead of a {kind.__name__.lower()}"
                    raise ProtocolError(what, "one of the parties misbehaves")
        return replies  # type: ignore[return-value]

    def _reply(self, link: Any) -> msg.Reply:
        reply = msg.decode_reply(link.recv_control())
        if isinstance(reply, msg.Failed):
            kind = getattr(errors, reply.kind, None)
            if not (isinstance(kind, type) and issubclass(kind, PumaError)):
                kind = ProtocolError
            raise kind(reply.message, reply.hint)
        return reply

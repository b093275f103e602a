"""The client, who shares a prompt and joins the answer; what it sees in the clear is its own.

A session holds one link to each party; every output component comes from two
parties and the two copies must agree. This file must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma import kernels
from puma.client.arguments import count
from puma.client.beam_search import Beams
from puma.client.channel import Judgement, PartyChannel, judge
from puma.client.cost import cost_of
from puma.client.drafts.tempo import Tempo
from puma.client.lengths import told
from puma.client.places import by_place, places
from puma.client.sampling import Sampler, Sampling
from puma.client.tokens.remembered import Remembered, going_on
from puma.client.tokens.rules import Following
from puma.client.turns import Stream, whole
from puma.crypto.prg import fresh_secret
from puma.errors import OutOfRange, PolicyError, PreprocessingError, PumaError, UsageError
from puma.models import inputs
from puma.models.config import Config
from puma.models.text import check_batch
from puma.mpc.fixed import RING
from puma.net import Link
from puma.nn.paper import SPLINE
from puma.store.prepared_requests import PreparedRequest, PreparedRequests
from puma.store.preprocessing import ID_BYTES
from puma.wire import messages as msg
from puma.wire.answers import answers, numbers
from puma.wire.input_share import Laid, Seeds
from puma.wire.inputs import Table, laid_out, looked_up, seeds_for, share_input, upload_bytes
from puma.wire.policy import allow_output, allowed_outputs
from puma.wire.receipts import Commitment
from puma.wire.request_shapes import by_token

LOGITS_HINT = "search greedily, or let the owner share with reveal_logits"
SELFTEST = numbers((6,))._replace(bits=RING)
Inference = msg.Generate | msg.Encode
Choose = Callable[[Tensor], list[int]]  # from the logits of each prompt, its next token


class Session(PartyChannel):
    """One link to each of P0, P1, P2, in this order. One request at a time; an error ends it."""

    def __init__(self, links: Sequence[Link], approximation: str = "spline", owns: bool = False) -> None:
        super().__init__(links)
        self.owns = owns  # whether it may have all of every model, as whoever started the parties
        self.approximation = approximation  # what the parties compute with; they refuse requests that name another
        self.config: Config | None = None
        self.sharing = b""  # of the model that the parties serve
        self.card: msg.Card | None = None  # and what its owner says of it
        self.reveals = False  # whether its owner lets clients see logits
        self.commitment: Commitment | None = None  # to its shares, by all three parties together
        self.table: Table | None = None  # of public weights, in which this client looks its tokens up
        self.prepared_requests: PreparedRequests | None = None  # where requests look for what has been prepared
        self.out_of_range: Judgement = "refuse"  # what becomes of answers that may be wrong
        self.tempo = Tempo()  # what a step takes, as drafts have to know
        self.doubtful: set[int] = set()  # prompts of the latest request whose answers may be wrong, and were taken

    @whole
    def open(self, name: str) -> bool:
        """Serve a model from the parties' stores; False if not all of them hold the same sharing of it."""
        self._begin()
        self._send(lambda _: msg.Open(name, self.approximation), [b"", b""])
        found = self._replies(msg.Opened)
        self._reported = True
        config = found[0].config
        self._hash_opened(found)
        alike = [msgspec.structs.replace(each, commitment=None) for each in found]
        if config is None or alike[1:] != alike[:1] * 2:
            return False
        self.config, self.sharing, self.card = config, found[0].sharing, found[0].card
        self.reveals = found[0].reveal_logits
        self.commitment = committed = self._committed(found)
        if self.receipts is not None:
            self.receipts.opened(found[0], name, self.approximation, committed)
        return True

    def continued(
        self, prompts: Sequence[Sequence[int]], tokens: int, paced: bool = False, choose: Choose | None = None,
        temperature: float = 0.0, ahead: int = 0, lengths: str = "public", padded: int = 0,
        begun: Sequence[Sequence[int]] = (), memory: Remembered | None = None,
    ) -> Generator[list[int]]:  # fmt: skip
        """Yield the next token of each prompt as they are decided; `cost` is set when the last ones have come.

        `paced`: the parties wait after each, or as soon as they are so many tokens `ahead` of what has been read, and
        closing the iterator ends the request there. `choose` makes the next token of each prompt from their logits
        (prompts, vocabulary), which the model's owner must allow; at a `temperature` the parties draw it without
        knowing the chance that decides. `lengths` and `padded` are as for `encode`; prompts are padded in front. The
        answer to each begins with the tokens `begun`, as many for all, which is what the parties learn of them.
        OutOfRange at the first token that may be wrong, unless `out_of_range` says "warn". For `memory` see `going_on`.
        """
        tokens = count(tokens, "tokens", 1)
        width = self._width(lengths, prompts, (), padded, tokens)
        if choose and not self.reveals:
            raise PolicyError("the model's owner does not let clients see logits", msg.POLICY_HINT)
        paced = paced or choose is not None or ahead > 0
        order = partial(msg.Generate, tokens=tokens, temperature=temperature, reveal=choose is not None, paced=paced)
        found: list[int] = []
        with self.turns.stream() as stream:
            with stream:
                kept, public = None if width or self.audited else memory, self.approximation == SPLINE
                going = going_on(kept, prompts, self.served, self._held, public)
                self.held, order, prompts = (0, order, prompts) if going is None else going.put(order)
                sent, prepared_request = self._ask(order, prompts, [], width, 0 if choose else ahead, begun)
                for _ in range(0 if choose else ahead):
                    self._further()
            with self._leaving(stream, lambda: sent, prepared_request, going and partial(going.ended, found)):
                while self._awaited:
                    with stream:
                        result = self._sound(len(prompts))
                        new = choose(result) if choose else [int(index) for index in result]
                    found += [] if self.doubtful else new[:1]  # nobody goes on from what may be wrong
                    yield new
                    with stream:
                        if choose and self._awaited:
                            sent += self._go_on(new)
                        else:
                            self._further()
            with stream:
                self.cost = cost_of(self._reports(), sent, prepared_request)

    def _held(self, prefix: msg.Prefix) -> bool:
        """Whether all parties still have what a request may go on from."""
        return not any(taken.problem for taken in self.ask(msg.Taken, lambda _: msg.Recall(prefix)))

    def _sound(self, prompts: int) -> Tensor:
        """The next result of so many prompts, if no number has left its reach or the answer is taken all the same."""
        result = self._result()
        self.judged(self.flagged, prompts)
        return result

    def judged(self, flagged: Sequence[int], prompts: int) -> None:
        """OutOfRange for what is flagged, or one warning in each request."""
        if self.judges and not self.doubtful.issuperset(flagged):
            self.doubtful.update(flagged)
            judge(flagged, prompts, self.out_of_range)

    def _further(self) -> None:
        """Ask for one more token of a paced request, if there is one to ask for."""
        if self._paced:
            self._grant()

    @contextmanager
    def _leaving(
        self, stream: Stream, sent: Callable[[], int], prepared_request: PreparedRequest | None, ended: Any
    ) -> Iterator[None]:
        """A stream that is closed ends its request at the parties: now, or before the next if a finaliser may not."""
        try:
            yield
        except (GeneratorExit, OutOfRange):
            if stream.at_hand and not self._over and (self._paced or not self._awaited):
                with suppress(PumaError), stream:
                    self.cost = cost_of(self._drain(), sent(), prepared_request)
            raise
        finally:
            if ended is not None and not self._over:
                ended()

    def search(
        self, prompt: Sequence[int], beams: Beams, stop: bool = False, begun: Sequence[int] = ()
    ) -> Iterator[int]:  # fmt: skip
        """Search for the likeliest text that begins so, which `beams` then holds; yield how many steps are done.

        With `stop` it ends when nothing better can come, which the parties then learn. They never learn which beams go
        on.
        """
        if not self.reveals:
            raise PolicyError("beam search needs logits, which the model's owner does not let clients see", LOGITS_HINT)
        order = partial(msg.Generate, tokens=beams.tokens, reveal=True, paced=True, beams=beams.count)
        with self.turns.stream() as stream:
            with stream:
                sent, prepared_request = self._ask(order, [prompt], [], begun=[begun] if begun else ())
            while self._awaited:
                with stream:
                    chosen = beams.choose(self._sound(1))
                yield beams.steps
                with stream:
                    if self._paced and stop and beams.over:
                        self._leave()
                    elif self._paced:
                        sent += self._go_on(chosen, beams.hidden())
            with stream:
                self.cost = cost_of(self._reports(), sent, prepared_request)

    def choosing(self, how: Sampling, following: Following | None = None) -> dict[str, Any]:
        """How `continued` does it: at the client where logits may be seen, else by the parties, who take a temperature
        only; PolicyError if it cannot be done. Rules that there are for the prompts need logits, and are left out
        without."""
        if self.reveals and (following is not None or not how.greedy):
            return {"choose": Sampler(how, following)}
        if how.greedy:
            return {}
        how.need_logits()
        return {"temperature": how.temperature}

    @whole
    def encode(
        self, prompts: Sequence[Sequence[int]], output: str, types: Sequence[Sequence[int]] = (), skip: int = 0,
        lengths: str = "public", padded: int = 0,
    ) -> list[Tensor]:  # fmt: skip
        """Of each prompt hidden states (tokens, d), its vector (width,) or class logits (labels,), as float64.

        The first `skip` tokens of each, which everyone learns, do not count in the vector. A head for tokens gives
        logits (tokens, labels). With `lengths` "secret" the parties learn a common length only:
        `padded`, or else the next power of two from 16 on; ranges.check_hiding says for which models that is right.
        """
        if self.card is not None and self.config is not None and not self.owns:
            allow_output(allowed_outputs(self.config, self.card, self.reveals), output)
        width = self._width(lengths, prompts, types, padded)
        config = self.served
        sent, prepared_request = self._ask(
            lambda job: msg.Encode(job, output, skip=skip), prompts, () if width else types, width
        )
        result, flagged = self._result(), self.flagged
        self.cost = cost_of(self._reports(), sent, prepared_request)
        self.judged(flagged, len(prompts))
        each = by_token(config, output)
        if each and width:
            return [rows[: len(ids)] for ids, rows in zip(prompts, result.split(width), strict=True)]
        read = inputs(config)
        return list(result.split([read.length(len(ids)) for ids in prompts]) if each else result)

    @whole
    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (), lengths: str = "public", padded: int = 0,
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first.

        Everyone learns the places; `lengths` and `padded` are as for `encode`.
        """
        width = self._width(lengths, prompts, types, padded)
        rows = places(prompts, masked, width)
        types = () if width else types
        sent, prepared_request = self._ask(
            lambda job: msg.Encode(job, "tokens", rows=rows, top=top), prompts, types, width
        )
        found = [[int(index) for index in self._result()] for _ in range(top)]
        flagged = self.flagged
        self.cost = cost_of(self._reports(), sent, prepared_request)
        self.judged(flagged, len(prompts))
        return by_place(found, masked)

    @whole
    def prepare(self, request: Inference) -> PreparedRequest:
        """Let the parties do beforehand what the request needs no input for; `prepared_requests` keeps the result.

        Only what everyone may know of `request` matters: its lengths, its number of tokens, its output.
        """
        if self.prepared_requests is None:
            raise PreprocessingError("there is no place for what is prepared", "start the cluster with a store")
        mine = msgspec.structs.replace(request.input, approximation=self.approximation)
        request = self.planned(msg.bare(msgspec.structs.replace(request, input=mine)))
        seeds, identity = Seeds.fresh(), fresh_secret()[:ID_BYTES]
        self._begin()
        self._asks(msg.Prepare(identity, request))
        with self._exchange():
            for rank, link in enumerate(self.links):
                masks, choices = seeds_for(self.served, seeds, rank, request.input.begun)
                part = msgspec.structs.replace(request.input, masks=masks, choices=choices)
                link.send_control(msg.encode(msg.Prepare(identity, msgspec.structs.replace(request, input=part))))
        reports = self._reports()
        cost = cost_of(reports, 0)
        prepared_request = PreparedRequest(
            id=identity, sharing=self.sharing, request=request, choices=seeds.choices, masks=seeds.masks,
            seconds=cost.seconds, offline=cost.total, sizes=[report.preprocessing for report in reports],
        )  # fmt: skip
        self.prepared_requests.add(prepared_request)
        return prepared_request

    @whole
    def selftest(self) -> Tensor:
        """The parties' answer to the built-in self-test."""
        self._begin([SELFTEST])
        self._send(lambda _: msg.SelfTest(), [b"", b""])
        result = self._result()
        self.cost = cost_of(self._reports(), 0)
        return result

    def close(self) -> None:
        """Let the parties go: in words if no thread is in the middle of a request, else by closing the links.

        In a forked process nothing happens.
        """
        if not self.turns.here:
            return
        with self.turns.at_once() as free, suppress(PumaError):
            if free and self._paced and not self._over:
                self._leave()
        self._end("it was closed")
        for link in self.links:
            with suppress(PumaError):
                if free:
                    link.send_control(msg.encode(msg.Quit()))
            link.close()

    def _width(self, lengths: str, *asked: Any) -> int:
        """The length that the parties are told, if it is another than the prompts' own."""
        return told(self.config, self.approximation, lengths, *asked)

    def _ask(
        self,
        request: Callable[[msg.Input], Inference],
        prompts: Sequence[Sequence[int]],
        types: Sequence[Sequence[int]],
        width: int = 0,
        ahead: int = 0,
        begun: Sequence[Sequence[int]] = (),
    ) -> tuple[int, PreparedRequest | None]:
        """Send a request, on preprocessing made for it if there is any; the bytes of the prompt, and what was prepared.

        All prompts are padded in secret to a `width`, if there is one. Whatever is wrong is found before a byte leaves.
        """
        config = self.served
        laid, kinds = laid_out(config, prompts, width, begun), [*chain(*types)]
        bare = msg.Input(laid.lengths, [], [], kinds, bool(width), self.approximation, laid.count)
        plain = request(bare)
        check_batch(config, laid.lengths, laid.count + (plain.tokens if isinstance(plain, msg.Generate) else 1))
        kept = self.prepared_requests and self.variants == "auto" and self.prepared_requests.alike(self.sharing, plain)
        plain = kept or self.planned(plain)
        results = answers(config, plain)
        laid = looked_up(config, laid, self.table)
        self._begin(results)
        self.doubtful = set()
        # A stream that could be cancelled takes what was prepared for one that cannot.
        fixed = msgspec.structs.replace(plain, paced=False) if ahead else plain
        prepared_request = self._prepared_request(fixed)
        paced = isinstance(plain, msg.Generate) and plain.paced and not prepared_request
        shared = share_input(config, laid, prepared_request.seeds if prepared_request else None)
        identity = prepared_request.id if prepared_request else b""
        parts = []
        for part in shared:
            seeds = ([], []) if prepared_request else (part.masks, part.choices)
            job = msgspec.structs.replace(plain.input, masks=seeds[0], choices=seeds[1])
            asked = msgspec.structs.replace(request(job), preprocessing=identity)
            if ahead and prepared_request:
                asked = msgspec.structs.replace(asked, paced=False)
            parts.append((msg.encode(asked), part.payload))
            self._asks(asked)
        self._granted = 1 if paced else len(results)
        self._both(parts)
        return upload_bytes(config, bare), prepared_request

    def _both(self, parts: Sequence[tuple[bytes, Tensor]]) -> None:
        """To each party its message, and the words behind it if it gets any."""
        with self._exchange(sending=True):
            for link, (message, payload) in zip(self.links, parts, strict=True):
                link.send_control(message)
                if payload.numel():
                    link.send(kernels.to_wire(payload))

    @property
    def served(self) -> Config:
        """The config of the model that the parties serve."""
        if self.config is None:
            raise UsageError("the parties serve no model yet", "share or open one first")
        return self.config

    def _prepared_request(self, request: Inference) -> PreparedRequest | None:
        """A prepared request of this shape that every party has at hand; it is used up, and so is any that fails."""
        while self.prepared_requests is not None and (
            prepared_request := self.prepared_requests.take(self.sharing, request)
        ):
            if not self._problem(prepared_request):
                return prepared_request
        return None

    def _problem(self, prepared_request: PreparedRequest) -> str:
        """Let the parties take their preprocessing out; what one of them lacks."""
        self._tell(msg.Take(prepared_request.id))
        return next((reply.problem for reply in self._replies(msg.Taken) if reply.problem), "")

    def _go_on(self, chosen: Sequence[int], hidden: Sequence[int] = ()) -> int:
        """Ask for the next token of a paced request, after those that the client chose; the bytes of these. `hidden`
        says of beams which columns each does not see."""
        config, tokens = self.served, Laid([1] * len(chosen), torch.tensor(list(chosen)), hidden)
        laid, parts = looked_up(config, tokens, self.table), []
        for part in share_input(config, laid):
            fed = msg.Input(laid.lengths, part.masks, part.choices, padded=bool(hidden))
            parts.append((msg.encode(msg.Pace(True, fed)), part.payload))
        self.said.append(msg.Pace(True))
        self._both(parts)
        self._granted += 1
        return upload_bytes(config, msg.Input(laid.lengths, [], padded=bool(hidden)), len(hidden))

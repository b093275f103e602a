"""The client, who shares a prompt and joins the answer; what it sees in the clear is its own.

A session holds one link to each party; every output component comes from two
parties and the two copies must agree. This file must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma import kernels
from puma.client.beam_search import Beams
from puma.client.channel import PartyChannel
from puma.client.cost import Cost, cost_of
from puma.client.places import by_place, places
from puma.client.sampling import Sampler, Sampling
from puma.crypto.prg import fresh_secret
from puma.errors import (
    InputError,
    PolicyError,
    PreprocessingError,
    PumaError,
    UsageError,
)
from puma.models import inputs
from puma.models.config import Config
from puma.models.text import check_batch
from puma.store.prepared_requests import PreparedRequest, PreparedRequests
from puma.store.preprocessing import ID_BYTES
from puma.wire import messages as msg
from puma.wire.input_share import Laid, Seeds
from puma.wire.inputs import laid_out, share_input, upload_bytes
from puma.wire.policy import allow_output, allowed_outputs
from puma.wire.request_shapes import by_token

LOGITS_HINT = "search greedily, or let the owner share with reveal_logits"

Inference = msg.Generate | msg.Encode
Choose = Callable[[Tensor], list[int]]  # from the logits of each prompt, its next token


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


class Session(PartyChannel):
    """One link to each of P0, P1, P2, in this order. One request at a time; an error ends it."""

    def __init__(self, links: Sequence[Any], approximation: str = "spline", owns: bool = False) -> None:
        super().__init__(links)
        self.owns = owns  # whether it may have all of every model, as whoever started the parties
        self.approximation = approximation  # what the parties compute with; they refuse requests that name another
        self.config: Config | None = None
        self.sharing = b""  # of the model that the parties serve
        self.card: msg.Card | None = None  # and what its owner says of it
        self.reveals = False  # whether its owner lets clients see logits
        self.cost: Cost | None = None
        self.prepared_requests: PreparedRequests | None = None  # where requests look for what has been prepared

    def open(self, name: str) -> bool:
        """Serve a model from the parties' stores; False if not all of them hold the same sharing of it."""
        self._begin()
        self._send(lambda _: msg.Open(name, self.approximation), [b"", b""])
        found = self._replies(msg.Opened)
        self._reported = True
        config = found[0].config
        if config is None or found[1:] != found[:1] * 2:
            return False
        self.config, self.sharing, self.card = config, found[0].sharing, found[0].card
        self.reveals = found[0].reveal_logits
        return True

    def generate(
        self, prompts: Sequence[Sequence[int]], tokens: int, paced: bool = False, choose: Choose | None = None,
        temperature: float = 0.0,
    ) -> Generator[list[int]]:  # fmt: skip
        """Yield the next token of each prompt as they are decided; `cost` is set when the last ones have come.

        `paced`: the parties wait after each, and closing the iterator ends the request there. `choose` makes the next
        token of each prompt from their logits (prompts, vocabulary), which the model's owner must allow; at a
        `temperature` the parties draw it without knowing the chance that decides.
        """
        if choose and not self.reveals:
            raise PolicyError("the model's owner does not let clients see logits", msg.POLICY_HINT)
        paced = paced or choose is not None
        order = partial(msg.Generate, tokens=tokens, temperature=temperature, reveal=choose is not None, paced=paced)
        sent, prepared_request = self._ask(order, prompts, [], tokens)
        mine = self._requests
        while self._unread:
            result = self._result()
            self._paced = paced and self._unread > 0
            new = choose(result) if choose else [int(index) % (1 << self._bits) for index in result]  # unsigned
            try:
                yield new
            except GeneratorExit:
                if mine == self._requests and (self._paced or not self._unread):
                    if self._paced:
                        self._leave()
                    self.cost = cost_of(self._reports(), sent, prepared_request)
                raise
            if mine != self._requests:
                raise UsageError("a new request came before this one was read", "read a stream to its end")
            if self._paced:
                sent += self._go_on(new if choose else [])
        self.cost = cost_of(self._reports(), sent, prepared_request)

    def search(self, prompt: Sequence[int], beams: Beams, stop: bool = False) -> Iterator[int]:
        """Search for the likeliest text, which `beams` then holds; yield how many steps are done.

        With `stop` it ends when nothing better can come, which the parties then learn. They never learn which beams go
        on.
        """
        if not self.reveals:
            raise PolicyError("beam search needs logits, which the model's owner does not let clients see", LOGITS_HINT)
        order = partial(msg.Generate, tokens=beams.tokens, reveal=True, paced=True, beams=beams.count)
        sent, prepared_request = self._ask(order, [prompt], [], beams.tokens)
        mine = self._requests
        while self._unread:
            result = self._result()
            self._paced = self._unread > 0
            chosen = beams.choose(result)
            yield beams.steps
            if mine != self._requests:
                raise UsageError("a new request came before this one was read", "read a search to its end")
            if self._paced and stop and beams.over:
                self._leave()
            elif self._paced:
                sent += self._go_on(chosen, beams.hidden())
        self.cost = cost_of(self._reports(), sent, prepared_request)

    def asked(self, how: Sampling) -> dict[str, Any]:
        """How `generate` does it: at the client where logits may be seen, else by the parties, who take a temperature
        only; PolicyError if it cannot be done."""
        if how.greedy:
            return {}
        if not self.reveals:
            how.need_logits()
            return {"temperature": how.temperature}
        return {"choose": Sampler(how)}

    def encode(
        self, prompts: Sequence[Sequence[int]], output: str, types: Sequence[Sequence[int]] = (),
        lengths: str = "public", padded: int = 0,
    ) -> list[Tensor]:  # fmt: skip
        """Of each prompt hidden states (tokens, d), their sum (d,) or class logits (labels,), as float64.

        A head for tokens gives logits (tokens, labels). With `lengths` "secret" the parties learn a common length only:
        `padded`, or else the next power of two from 16 on; ranges.check_hiding says for which models that is right.
        """
        if self.card is not None and self.config is not None and not self.owns:
            allow_output(allowed_outputs(self.config, self.card, self.reveals), output)
        width = secret_length(self.config, prompts, types, padded) if lengths == "secret" else 0
        assert self.config is not None
        sent, prepared_request = self._ask(
            lambda job: msg.Encode(job, output), prompts, () if width else types, 1, width
        )
        result = self._result()
        self.cost = cost_of(self._reports(), sent, prepared_request)
        each = by_token(self.config, output)
        if each and width:
            return [rows[: len(ids)] for ids, rows in zip(prompts, result.split(width), strict=True)]
        read = inputs(self.config)
        return list(result.split([read.length(len(ids)) for ids in prompts]) if each else result)

    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (), lengths: str = "public", padded: int = 0,
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first.

        Everyone learns the places; `lengths` and `padded` are as for `encode`.
        """
        width = secret_length(self.config, prompts, types, padded) if lengths == "secret" else 0
        rows = places(prompts, masked, width)
        types = () if width else types
        sent, prepared_request = self._ask(
            lambda job: msg.Encode(job, "tokens", rows=rows, top=top), prompts, types, top, width
        )
        found = [[int(index) % (1 << self._bits) for index in self._result()] for _ in range(top)]
        self.cost = cost_of(self._reports(), sent, prepared_request)
        return by_place(found, masked)

    def prepare(self, request: Inference) -> PreparedRequest:
        """Let the parties do beforehand what the request needs no input for; `prepared_requests` keeps the result.

        Only what everyone may know of `request` matters: its lengths, its number of tokens, its output.
        """
        if self.prepared_requests is None:
            raise PreprocessingError("there is no place for what is prepared", "start the cluster with a store")
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
        prepared_request = PreparedRequest(
            id=identity, sharing=self.sharing, request=request, choices=seeds.choices, masks=seeds.masks,
            seconds=cost.seconds, offline=cost.total, sizes=[report.preprocessing for report in reports],
        )  # fmt: skip
        self.prepared_requests.add(prepared_request)
        return prepared_request

    def selftest(self) -> Tensor:
        """The parties' answer to the built-in self-test."""
        self._begin(1)
        self._send(lambda _: msg.SelfTest(), [b"", b""])
        result = self._result()
        self.cost = cost_of(self._reports(), 0)
        return result

    def close(self) -> None:
        """Let the parties go."""
        if self._paced:
            with suppress(PumaError):
                self._leave()
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
    ) -> tuple[int, PreparedRequest | None]:
        """Send a request, on preprocessing made for it if there is any; the bytes of the prompt, and what was prepared.

        All prompts are padded in secret to a `width`, if there is one.
        """
        assert self.config is not None
        laid, kinds = laid_out(self.config, prompts, width), [*chain(*types)]
        check_batch(self.config, laid.lengths, results)
        self._begin(results)
        plain = msg.Input(laid.lengths, [], [], kinds, bool(width), self.approximation)
        prepared_request = self._prepared_request(request(plain))
        sealed = share_input(self.config, laid, prepared_request.seeds if prepared_request else None)
        with self._talking(sending=True):
            for link, part in zip(self.links, sealed, strict=True):
                seeds = ([], []) if prepared_request else (part.masks, part.choices)
                job = msg.Input(laid.lengths, *seeds, kinds, bool(width), self.approximation)
                asked = msgspec.structs.replace(
                    request(job), preprocessing=prepared_request.id if prepared_request else b""
                )
                link.send_control(msg.encode(asked))
                if part.payload.numel():
                    link.send(kernels.to_wire(part.payload))
        return upload_bytes(self.config, plain), prepared_request

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
        with self._talking():
            for link in self.links:
                link.send_control(msg.encode(msg.Take(prepared_request.id)))
        return next((reply.problem for reply in self._replies(msg.Taken) if reply.problem), "")

    def _go_on(self, chosen: Sequence[int], hidden: Sequence[int] = ()) -> int:
        """Ask for the next token of a paced request, after those that the client chose; the bytes of these.

        `hidden` says of beams which columns each does not see.
        """
        assert self.config is not None
        self._paced, laid = False, Laid([1] * len(chosen), torch.tensor(list(chosen)), hidden)
        with self._talking(sending=True):
            if not chosen:
                for link in self.links:
                    link.send_control(msg.encode(msg.Pace(True)))
                return 0
            for link, part in zip(self.links, share_input(self.config, laid), strict=True):
                fed = msg.Input(laid.lengths, part.masks, part.choices, padded=bool(hidden))
                link.send_control(msg.encode(msg.Pace(True, fed)))
                if part.payload.numel():
                    link.send(kernels.to_wire(part.payload))
        return upload_bytes(self.config, msg.Input(laid.lengths, [], padded=bool(hidden)), len(hidden))

"""The work of one party on one request: shares in, model, shares out. The same text serves a real party and a dry one.

It knows models and requests; it must not know links, addresses or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from puma.models import Cache, architecture
from puma.models.config import Config, Decoder, Vit
from puma.mpc.arithmetic import public, reshare
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING, formatted, index_bits
from puma.mpc.lookahead import Lookahead
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import in_blocks
from puma.mpc.share import Additive, Share
from puma.nn import functional as F
from puma.nn.layout import Rows
from puma.nn.sampling import sample
from puma.wire import prompt
from puma.wire.messages import NEXT, Encode, Generate, Input, Spent

Emit = Callable[[Share], None]
Given = Choice | Share | prompt.Flagged  # the input of a request: tokens, pixels, tokens with secret flags
Proceed = Callable[[], Given | bool]  # the client's word after a result: its own choice of tokens, or whether to go on
AHEAD = 4  # steps of which the dealer multiplies masks in one walk over a parameter: the first token waits for them
RULED_OUT = 1 << 12  # taken off a logit that has been answered: logits lie within 2^13 of each other


class Engine:
    """One party's copy of a shared model."""

    def __init__(self, party: Party, config: Config, params: Mapping[str, Share]) -> None:
        self.party = party
        self.config = config
        self.model = architecture(config).model(config, params)
        self._params = list(params.values())

    def generate(
        self, one_hot: Given, job: Generate, emit: Emit, prefilled: Callable[[], None],
        proceed: Proceed = lambda: True,
    ) -> None:  # fmt: skip
        """Emit each prompt's next token, as indices (prompts,), when decided; fed back without being opened.

        Before each further token `proceed` is asked whether it is wanted. If the client chooses, emit logits (prompts,
        vocabulary) instead, and feed back what `proceed` brings.
        """
        cache = Cache(self.config.layers, job.input.lengths)
        ranked = not (job.reveal or job.temperature)  # only which logit is the largest matters
        token: Any = None  # shares of indices, or logits that the client chooses from
        with self._lookahead(job) as lookahead:
            for step in range(job.tokens):
                if lookahead and step % AHEAD == 0:
                    self._look_ahead(lookahead, job, range(step + 1, min(step + AHEAD, job.tokens)))
                if lookahead:
                    lookahead.begin(step)
                with self.party.stage(f"step {step}"):
                    logits = self.model(one_hot if token is None else self._fed(token), cache, ranked=ranked)
                    with F.component("head", one_hot):
                        token = logits if job.reveal else sample(logits, job.temperature)
                        emit(settled(token))
                if step == 0:
                    prefilled()
                word = step + 1 < job.tokens and proceed()
                if word is False:
                    return
                if isinstance(word, prompt.Flagged):
                    cache.branch(word.flags.reshape(job.beams, -1))
                    word = word.rows
                if isinstance(word, Choice):
                    one_hot, token = word, None

    def _fed(self, token: Share) -> Share:
        """One-hot rows of a token under masks of the present stage."""
        with F.component("embedding", token):
            (token,) = self.party.run(reshare(token.additive()))
            return F.one_hot(token, self.config.vocab_size)

    @contextmanager
    def _lookahead(self, job: Generate) -> Iterator[Lookahead | None]:
        """Meanwhile the dealer may make products of several steps at once, where parameters are drawn at each use and
        it knows the masks that will be fed: not those of tokens that the client chooses."""
        drawn = any(in_blocks(p) for p in self._params)
        known = not job.reveal and isinstance(self.config, Decoder)
        if not self.party.is_dealer or self.party.dry or not drawn or not known:
            yield None
            return
        self.party.lookahead = Lookahead()
        try:
            yield self.party.lookahead
        finally:
            self.party.lookahead = None

    def _look_ahead(self, lookahead: Lookahead, job: Generate, steps: range) -> None:
        """Note the masks that the dealer will multiply with parameters in these steps."""
        prompts = job.input.lengths
        for step in steps:
            blank = self.party.nothing((len(prompts),))
            token = Share(self.party, blank, blank, index_bits(self.config.vocab_size), 0)
            with lookahead.looking_ahead(step), self.party.silent(), self.party.stage(f"step {step}"):
                self.model(
                    self._fed(token), Cache.foreseen(self.config.layers, prompts, step), ranked=not job.temperature
                )

    def encode(self, one_hot: Given, job: Encode, emit: Emit) -> None:
        """Emit hidden states (all tokens, d), their sums over each prompt (prompts, d), logits (prompts, labels) or
        (tokens, labels), the likeliest tokens (rows,), then the next ones, or logits of every next token (tokens, V).
        """
        lengths = job.input.lengths
        if job.output == NEXT:
            emit(settled(self.model.every(one_hot, Cache(self.config.layers, lengths))))
            return
        if architecture(self.config).family == "causal":
            hidden = self.model.hidden(one_hot, Cache(self.config.layers, lengths))
        elif isinstance(one_hot, prompt.Flagged):
            padding, one_hot = one_hot.flags, one_hot.rows
            hidden = self.model(one_hot, None, lengths, padding)
            if job.output == "pooled":
                hidden = F.mul(hidden, (F.times(padding, -1) + 1).unsqueeze(-1))
        else:
            hidden = self.model(one_hot, job.input.types, lengths)
        if job.output == "tokens":
            self._predict(hidden, job, emit)
            return
        if job.output == "hidden":
            result = hidden
        elif job.output == "pooled":
            result = Rows(lengths).sum(hidden)
        else:
            result = self.model.classify(hidden, lengths)
        with F.component("head", one_hot):
            emit(settled(result))

    def _predict(self, hidden: Share | Additive, job: Encode, emit: Emit) -> None:
        """Emit the most likely token of each row, rule it out, and so on."""
        logits = self.model.predict(hidden, job.rows)
        with F.component("head", hidden):
            for i in range(job.top):
                token = F.argmax(logits)
                emit(settled(token))
                if i + 1 < job.top:
                    logits = logits - F.times(F.one_hot(token, self.config.vocab_size), RULED_OUT)


def answered(party: Party, share: Share) -> None:
    """Book an output that leaves for the client."""
    party.ledger.sent(2 * message_bytes(share.numel(), share.bits), online=True)


def settled(x: Share | Additive) -> Share:
    """Open an untruncated result into a share of ACTIVATION fraction bits."""
    if isinstance(x, Additive):
        (x,) = x.party.run(formatted((x, ACTIVATION, x.bits - x.frac + ACTIVATION)))
    return x


def selftest(party: Party) -> Share:
    """GeLU of a few public numbers, so that every kind of message crosses every link."""
    x = public(party, torch.tensor(SELFTEST), (len(SELFTEST),), RING, ACTIVATION)
    return F.gelu(x)


SELFTEST = (-300.0 / 2, -1.0, 0.0, 0.5, 1.0, 100.0)


def hidden_flags(job: Generate, step: int) -> int:
    """How many ones and zeros come with the tokens of beams that are fed in this step, from 1 on."""
    return job.beams**2 * step if job.beams > 1 else 0


def patch_rows(config: Vit, job: Input) -> int:
    """Rows of pixels that a client sends."""
    return len(job.lengths) * config.patches


def spent(party: Party) -> list[Spent]:
    """The party's ledger by component, bytes with frame headers."""
    party.ledger.total()
    entries = party.ledger.entries.items()
    return [Spent(name, e.seconds, e.rounds, e.online_bytes, e.offline_bytes) for name, e in entries]

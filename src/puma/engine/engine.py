"""The work of one party on one request: shares in, model, shares out. The same text serves a real party and a dry one.

It knows models and requests; it must not know links, addresses or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch

from puma.errors import InputError, UsageError
from puma.models import Cache, architecture
from puma.models.config import Config, Decoder, Encoder, Vit, with_layers
from puma.models.text import MAX_ELEMENTS, check_batch
from puma.mpc.arithmetic import reshare
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING, formatted, index_bits
from puma.mpc.lookahead import Lookahead
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import Seeded, in_blocks
from puma.mpc.share import Additive, Share, public
from puma.nn import functional as F
from puma.nn.layout import Rows
from puma.nn.sampling import LEAST_TEMPERATURE, MOST_TEMPERATURE, sample
from puma.wire import pixels, prompt
from puma.wire.limits import MOST_TOP
from puma.wire.messages import NEXT, OUTPUTS, Encode, Generate, Input, Spent
from puma.wire.parameters import tensor_specs

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

    def admit(self, job: Generate | Encode, owner: bool = False) -> None:
        """Refuse what cannot be served, before its prompts are read: a party trusts no client to have checked.

        `owner` says that whoever asks is known to own the model, and may see what would give it away.
        """
        tokens, prompts = job.tokens if isinstance(job, Generate) else 1, job.input
        if prompts.approximation != self.party.approximation:
            raise UsageError(
                f"the parties compute with {self.party.approximation}, the request names {prompts.approximation}",
                "start the session with the approximation that is wanted",
            )
        beams = job.beams if isinstance(job, Generate) else 1
        check_batch(self.config, prompts.lengths * beams, tokens)
        if isinstance(self.config, Vit) and set(prompts.lengths) != {self.config.context}:
            raise InputError(f"an image has {self.config.context} rows", "name as many for each")
        if isinstance(job, Generate) and (architecture(self.config).family != "causal" or self.config.labels):
            raise UsageError("the model does not generate text", "ask it to encode")
        kinds = max(1, getattr(self.config, "type_vocab_size", 1))
        if prompts.types and (len(prompts.types) != prompts.tokens or not all(0 <= t < kinds for t in prompts.types)):
            raise InputError("the token types do not fit the prompt or the model", "leave them out")
        if isinstance(job, Encode) and job.output not in OUTPUTS:
            raise UsageError(f"there is no output {job.output}", f"choose one of {', '.join(OUTPUTS)}")
        if prompts.padded and not (isinstance(self.config, Encoder) and isinstance(job, Encode) and not prompts.types):
            raise UsageError("only encoders can be asked about texts of secret length", "make the lengths public")
        if isinstance(job, Generate):
            _admit_sampling(job)
        elif job.output == NEXT:
            self._admit_logits(prompts.tokens, owner)
        else:
            self._admit_head(job)

    def _admit_logits(self, tokens: int, owner: bool) -> None:
        """Refuse logits of every next token to all but the owner, and more of them than fit into a frame."""
        if not owner:
            raise UsageError("logits of all tokens are for the model's owner alone", "ask for generated tokens")
        if architecture(self.config).family != "causal" or self.config.labels:
            raise UsageError("the model predicts no next token", "ask a causal model")
        if tokens * self.config.vocab_size > MAX_ELEMENTS:
            what = f"the logits of {tokens} tokens are too many for one request"
            raise InputError(what, "send fewer texts at a time")

    def _admit_head(self, job: Encode) -> None:
        """Refuse an output for which the model has no head, and rows that are not the prompts'."""
        if job.output == "logits" and not getattr(self.config, "labels", ()):
            raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
        if job.output != "tokens":
            return
        if not getattr(self.config, "predicts", False):
            raise UsageError("the model has no head for masked tokens", "use a ForMaskedLM checkpoint")
        if not job.rows or not all(0 <= row < job.input.tokens for row in job.rows):
            raise InputError("the masked places are not among the tokens", "name at least one, counted from 0")
        if not 1 <= job.top <= min(MOST_TOP, self.config.vocab_size):
            raise UsageError(f"the {job.top} most likely tokens make no answer", f"ask for 1 to {MOST_TOP}")

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


def _admit_sampling(job: Generate) -> None:
    """Refuse what contradicts itself; whether logits may be seen at all is for the server to know."""
    if job.temperature and not LEAST_TEMPERATURE <= job.temperature <= MOST_TEMPERATURE:
        between = f"from {LEAST_TEMPERATURE} to {MOST_TEMPERATURE:g}"
        raise UsageError(f"cannot sample at temperature {job.temperature:g}", f"choose one {between}, or 0")
    if job.reveal and (job.temperature or not job.paced):
        raise UsageError("logits are revealed step by step, without noise", "let the client choose after each step")
    if job.beams > 1 and not (job.reveal and len(job.input.lengths) == 1):
        raise UsageError(
            "beams continue one prompt, as the client chooses from logits", "ask for logits, prompt by prompt"
        )
    if job.preprocessing and job.paced:
        raise UsageError("what is prepared runs in one go", "leave out the preprocessing, or generate a fixed number")


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


def dry_run(config: Config, job: Generate | Encode) -> list[list[Spent]]:
    """What a request would cost each party, counted on torch's meta device; no arithmetic, no link.

    All layers cost the same, so models of one and two layers are counted; the evaluators send the same.
    """
    if not config.alike:  # layers with a window
        dealer, first = (_dry_party(rank, config, job) for rank in (0, 1))
        return [dealer, first, first]
    one, two = ([_dry_party(rank, with_layers(config, n), job) for rank in (0, 1)] for n in (1, 2))
    dealer, first = (_extended(a, b, config.layers - 1) for a, b in zip(one, two, strict=True))
    return [dealer, first, first]


def _extended(one: list[Spent], two: list[Spent], layers: int) -> list[Spent]:
    """The cost of one layer's model and `layers` times what the second layer added."""
    before = {s.name: s for s in one}
    result = []
    for s in two:
        base = before.get(s.name, Spent(s.name, 0.0, 0, 0, 0))
        rounds, online, offline = (
            a + layers * (b - a)
            for a, b in ((base.rounds, s.rounds), (base.online, s.online), (base.offline, s.offline))
        )
        result.append(Spent(s.name, 0.0, rounds, online, offline))
    return result


def _dry_party(rank: int, config: Config, job: Generate | Encode) -> list[Spent]:
    party = Party(rank)
    party.approximation = job.input.approximation
    params = {t.name: Seeded(party, None, [], t.shape, t.bits, t.frac) for t in tensor_specs(config)}
    engine = Engine(party, config, params)
    given = imagined(party, job.input, config)
    if isinstance(job, Generate):
        steps, fed = count(1), len(job.input.lengths) * job.beams

        def proceed() -> Given | bool:
            if not job.reveal:
                return True
            rows, hidden = prompt.imagined(party, fed, config.vocab_size), hidden_flags(job, next(steps))
            return prompt.Flagged(rows, prompt.imagined_flags(party, hidden)) if hidden else rows

        engine.generate(given, job, lambda share: answered(party, share), lambda: None, proceed)
    else:
        engine.encode(given, job, lambda share: answered(party, share))
    return spent(party)


def imagined(party: Party, job: Input, config: Config) -> Given:
    """The input of a dry run."""
    if isinstance(config, Vit):
        return pixels.imagined(party, patch_rows(config, job), config.vocab_size)
    rows = prompt.imagined(party, job.tokens, config.vocab_size)
    return prompt.Flagged(rows, prompt.imagined_flags(party, job.tokens)) if job.padded else rows


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

"""The work of one party on one request: shares in, model, shares out. The same text serves a real party and a dry one.

It knows models and requests; it must not know links, addresses or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from puma.errors import InputError, UsageError
from puma.models import Cache, architecture
from puma.models.config import Config, with_layers
from puma.models.text import MAX_ELEMENTS, check_batch
from puma.mpc.arithmetic import reshare
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT, formatted
from puma.mpc.foresight import Foresight
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import Seeded, in_blocks
from puma.mpc.share import Additive, Share, public
from puma.nn import functional as F
from puma.nn.layout import Rows
from puma.serving.messages import Encode, Generate, Spent, TensorSpec
from puma.serving.prompt import imagined

Emit = Callable[[Share], None]
AHEAD = 4  # steps of which the dealer multiplies masks in one walk over a parameter: the first token waits for them
NEXT = "next logits"  # of every token of a prompt the logits of the next one: whoever sees them can rebuild the head
OUTPUTS = ("hidden", "pooled", "logits", NEXT)
EVERY_TOKEN = ("hidden", NEXT)  # outputs that have a row for each token


def tensor_specs(config: Config) -> list[TensorSpec]:
    """Names, shapes and formats of the parameters that the owner shares."""
    shapes = architecture(config).parameters(config)
    return [TensorSpec(name, shape, RING, parameter_frac(name)) for name, shape in shapes.items()]


def parameter_frac(name: str) -> int:
    """Biases are added to untruncated products, everything else is a factor or a table."""
    return ACTIVATION + WEIGHT if name.endswith(".bias") else WEIGHT


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
        check_batch(self.config, prompts.lengths, tokens)
        kinds = getattr(self.config, "type_vocab_size", 1)
        if prompts.types and (len(prompts.types) != prompts.tokens or not all(0 <= t < kinds for t in prompts.types)):
            raise InputError("the token types do not fit the prompt or the model", "leave them out")
        if isinstance(job, Encode) and job.output not in OUTPUTS:
            raise UsageError(f"there is no output {job.output}", f"choose one of {', '.join(OUTPUTS)}")
        if isinstance(job, Encode) and job.output == NEXT:
            self._admit_logits(prompts.tokens, owner)

    def _admit_logits(self, tokens: int, owner: bool) -> None:
        if not owner:
            raise UsageError("logits of all tokens are for the model's owner alone", "ask for generated tokens")
        if architecture(self.config).family != "causal":
            raise UsageError("the model predicts no next token", "ask a causal model")
        if tokens * self.config.vocab_size > MAX_ELEMENTS:
            raise InputError(
                f"the logits of {tokens} tokens are too many for one request", "send fewer texts at a time"
            )

    def generate(self, one_hot: Choice | Share, job: Generate, emit: Emit, prefilled: Callable[[], None]) -> None:
        """Emit each prompt's next token, as indices (prompts,), when decided; fed back without being opened."""
        cache = Cache(self.config.layers, job.input.lengths)
        token: Share | None = None
        with self._foresight() as foresight:
            for step in range(job.tokens):
                if foresight and step % AHEAD == 0:
                    self._scout(foresight, job, range(step + 1, min(step + AHEAD, job.tokens)))
                if foresight:
                    foresight.begin(step)
                with self.party.stage(f"step {step}"):
                    logits = self.model(one_hot if token is None else self._fed(token), cache)
                    with F.component("head", one_hot):
                        token = F.argmax(logits)
                        emit(settled(token))
                if step == 0:
                    prefilled()

    def _fed(self, token: Share) -> Share:
        """One-hot rows of a token under masks of the present stage."""
        with F.component("embedding", token):
            (token,) = self.party.run(reshare(token.additive()))
            return F.one_hot(token, self.config.vocab_size)

    @contextmanager
    def _foresight(self) -> Iterator[Foresight | None]:
        """Meanwhile the dealer may make products of several steps at once, where parameters are drawn at each use."""
        drawn = any(in_blocks(p) for p in self._params)
        if not self.party.is_dealer or self.party.dry or not drawn:
            yield None
            return
        self.party.foresight = Foresight()
        try:
            yield self.party.foresight
        finally:
            self.party.foresight = None

    def _scout(self, foresight: Foresight, job: Generate, steps: range) -> None:
        """Note the masks that the dealer will multiply with parameters in these steps."""
        prompts = job.input.lengths
        for step in steps:
            blank = self.party.nothing((len(prompts),))
            token = Share(self.party, blank, blank, F.index_bits(self.config.vocab_size), 0)
            with foresight.scouting(step), self.party.silent(), self.party.stage(f"step {step}"):
                self.model(self._fed(token), Cache.foreseen(self.config.layers, prompts, step))

    def encode(self, one_hot: Choice, job: Encode, emit: Emit) -> None:
        """Emit hidden states (all tokens, d), their sums over each prompt (prompts, d), logits (prompts, labels), or
        those of every next token (all tokens, vocabulary).
        """
        lengths = job.input.lengths
        if architecture(self.config).family == "causal":
            hidden = self.model.hidden(one_hot, Cache(self.config.layers, lengths))
        else:
            hidden = self.model(one_hot, job.input.types, lengths)
        if job.output == "hidden":
            result = hidden
        elif job.output == "pooled":
            result = Rows(lengths).sum(hidden)
        elif job.output == NEXT:
            result = self.model.logits(hidden)
        else:
            result = self.model.classify(hidden, lengths)
        with F.component("head", one_hot):
            emit(settled(result))


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
    prompt = imagined(party, job.input.tokens, config.vocab_size)
    if isinstance(job, Generate):
        engine.generate(prompt, job, lambda share: answered(party, share), lambda: None)
    else:
        engine.encode(prompt, job, lambda share: answered(party, share))
    return spent(party)


def spent(party: Party) -> list[Spent]:
    """The party's ledger by component, bytes with frame headers."""
    party.ledger.total()
    entries = party.ledger.entries.items()
    return [Spent(name, e.seconds, e.rounds, e.online_bytes, e.offline_bytes) for name, e in entries]

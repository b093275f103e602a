"""What a request would cost each party, counted by running it on shapes alone.

No arithmetic is done and nothing is sent: the same engine runs for one evaluator on outlines, who notes what he sends
and what the dealer sends him. It must not know weights or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from puma.engine import series
from puma.engine.engine import Engine, answered
from puma.engine.generation import Turn, hidden_flags, run
from puma.engine.request import Request
from puma.models import architecture, with_layers
from puma.models.config import Config
from puma.mpc.party import SECOND, Party
from puma.mpc.public import Public
from puma.mpc.recall import Consulted, Recall, Trace
from puma.mpc.seeded import Seeded
from puma.mpc.share import Share
from puma.nn.attention import row_formats
from puma.nn.places import REACHES
from puma.wire.input_share import Given
from puma.wire.inputs import imagined
from puma.wire.messages import Encode, Generate, Input, Spent, TensorSpec
from puma.wire.parameters import of_adapter, tensor_specs

FEW_LAYERS = 2  # of which one is the first and one the last


class Counted(NamedTuple):
    """What a request costs each of the three parties, up to its `first` token and as a `whole`."""

    first: list[list[Spent]]
    whole: list[list[Spent]]


class Memory:
    """What dry runs remember for each other: of prompts of the same lengths and functions of one approximation, by any
    plan, and of models of one kind."""

    def __init__(self, approximation: str) -> None:
        self.party, self.trace = Party(SECOND), Trace()
        self.party.approximation, self.party.ledger = approximation, self.trace
        self.party.recall = Recall(self.party, self.trace)


def dry_run(config: Config, job: Generate | Encode) -> list[list[Spent]]:
    """What a request would cost each party; no arithmetic, no link. The evaluators send the same."""
    return counted(config, job).whole


def counted(config: Config, job: Generate | Encode, memory: Memory | None = None) -> Counted:
    """The same, and what of it is spent by the first token; of an encoder's request all is.

    Where layers cost the same again after some, two smaller models are counted, which differ by those: layers in the
    middle.
    """
    memory = memory or Memory(job.input.approximation)
    assert memory.party.approximation == job.input.approximation
    job = replace(job, input=replace(job.input, quick=Consulted(job.input.quick)))
    smaller = _smaller(config)
    if smaller is None:
        return _counted(memory, config, job)
    two, three = (_counted(memory, with_layers(config, n), job) for n in smaller)
    times = (config.layers - smaller[0]) // (smaller[1] - smaller[0])
    return Counted(*(
        [_extended(a, b, times) for a, b in zip(before, after, strict=True)]
        for before, after in zip(two, three, strict=True)
    ))  # fmt: skip


def _smaller(config: Config) -> tuple[int, int] | None:
    """The layers of two models that tell of this one, which end with a layer of the same kind; None if all of it is
    counted as quickly, or has to be."""
    period = 0 if config.formats.places or config.formats.adapted else config.period
    if not period:
        return None
    fewer = FEW_LAYERS + (config.layers - FEW_LAYERS) % period
    return (fewer, fewer + period) if 2 * fewer + period < config.layers else None


def _extended(fewer: list[Spent], more: list[Spent], times: int) -> list[Spent]:
    """The cost of the smaller model and so many `times` what the larger one's layers added."""
    before = {s.name: s for s in fewer}
    result: list[Spent] = []
    for s in more:
        base = before.get(s.name, Spent(s.name, 0.0, 0, 0, 0))
        rounds, online, offline = (
            a + times * (b - a)
            for a, b in ((base.rounds, s.rounds), (base.online, s.online), (base.offline, s.offline))
        )
        result.append(Spent(s.name, 0.0, rounds, online, offline))
    return result


def _spent(total: series.Total) -> list[list[Spent]]:
    """As the three parties report it."""
    first, dealer = (
        [Spent(name, 0.0, e.rounds, e.online_bytes, e.offline_bytes) for name, e in entries.items()]
        for entries in total
    )
    return [dealer, first, first]


def _counted(memory: Memory, config: Config, job: Generate | Encode) -> Counted:
    party = memory.party
    party.quick = job.input.quick
    params = {t.name: _parameter(party, config, t) for t in tensor_specs(config)}
    engine = Engine(party, config, params)
    given = imagined(config, party, job.input)
    word = _Word(party, config, job, memory.trace)
    run(engine, job, given, lambda share: answered(party, share), word=word)
    return Counted(*map(_spent, word.counted()))


def _parameter(party: Party, config: Config, spec: TensorSpec) -> Share:
    if config.formats.open and not of_adapter(spec.name):
        return Public(party, spec.shape, spec.bits, spec.frac)
    return Seeded(party, None, [], spec.shape, spec.bits, spec.frac)


class _Word:
    """A client who lets a dry run go on: to every step, or only to those that are needed to know all of them."""

    def __init__(self, party: Party, config: Config, job: Generate | Encode, trace: Trace) -> None:
        self._party, self._config, self._job, self._trace = party, config, job, trace
        self._total = series.Total.nothing()
        self._first: series.Total | None = None  # once it is there
        self._numbers = count(1)
        self._trying: series.Trying | None = None
        self._known = False  # what all steps cost, before the last one
        self._columns = 0  # of the cache after the prompt

    def counted(self) -> tuple[series.Total, series.Total]:
        """What the first step cost, and all of them, those that were left out, too; once the run is over."""
        if not self._known:
            self._wanted()
        return self._first or self._total, self._total

    def __call__(self, requests: Sequence[Request]) -> Turn:
        job, cache = requests[0].job, requests[0].cache
        assert isinstance(job, Generate) and cache is not None
        step = self._wanted()
        if self._first is None:
            self._first = series.Total.nothing()
            self._first.add(self._total)
        if job.beams == 1 and job.tokens > series.FEW and cache.even:
            if self._trying is None:
                self._columns = cache.columns
                entries, after = architecture(self._config).entries, range(1, job.tokens)
                lengths = [entries(self._config, self._columns + n) for n in after]
                self._trying = series.steps(lengths, [self._form(n) for n in lengths])
                step = next(self._trying)
            if step is None:
                return Turn(more=False)
            cache.stretch(self._columns + step)
        return Turn(given=self._given(requests, job))

    def _wanted(self) -> int | None:
        """Add up what there is, and tell which step is to be seen next, if any."""
        calls = self._trace.taken()
        if self._trying is None:
            self._total.add(series.total(calls))
            return None
        try:
            return self._trying.send(calls)
        except StopIteration as stop:
            self._total.add(stop.value)
            self._known = True
            return None

    def _form(self, length: int) -> tuple[object, ...]:
        """What of a step's messages depends on how many entries a row of scores has, besides their sizes."""
        window = architecture(self._config).window(self._config)
        values = {REACHES["value"], *self._config.formats.places.values()}
        return (*(row_formats(length, reach) for reach in sorted(values)), 0 < window < length)

    def _given(self, requests: Sequence[Request], job: Generate) -> Given | None:
        """Of a client that chooses from logits: a token for each row, and of beams who sees what."""
        if not job.reveal:
            return None
        fed, hidden = sum(r.beams * len(r.owed) for r in requests), hidden_flags(job, next(self._numbers))
        return imagined(self._config, self._party, Input([1] * fed, [], padded=bool(hidden)), hidden)

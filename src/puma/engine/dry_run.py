"""What a request would cost each party, counted by running it on torch's meta device.

No arithmetic is done and nothing is sent: the same engine runs on shapes alone. It must not know weights or prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

from puma.engine.engine import Engine, answered, spent
from puma.engine.generation import Turn, hidden_flags, on, run
from puma.engine.request import Request
from puma.models import with_layers
from puma.models.config import Config
from puma.mpc.party import Party
from puma.mpc.seeded import Seeded
from puma.wire.inputs import imagined
from puma.wire.messages import Encode, Generate, Input, Spent
from puma.wire.parameters import tensor_specs


def dry_run(config: Config, job: Generate | Encode) -> list[list[Spent]]:
    """What a request would cost each party, counted on torch's meta device; no arithmetic, no link.

    Where all layers cost the same, models of one and two layers are counted; the evaluators send the same.
    """
    if not config.alike or config.formats.places:  # layers with a window, or with formats of their own
        dealer, first = (_dry_party(rank, config, job) for rank in (0, 1))
        return [dealer, first, first]
    one, two = ([_dry_party(rank, with_layers(config, n), job) for rank in (0, 1)] for n in (1, 2))
    dealer, first = (_extended(a, b, config.layers - 1) for a, b in zip(one, two, strict=True))
    return [dealer, first, first]


def _extended(one: list[Spent], two: list[Spent], layers: int) -> list[Spent]:
    """The cost of one layer's model and `layers` times what the second layer added."""
    before = {s.name: s for s in one}
    result: list[Spent] = []
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
    given = imagined(config, party, job.input)
    chooses = isinstance(job, Generate) and job.reveal
    word = partial(_chosen, party, config, count(1)) if chooses else on
    run(engine, job, given, lambda share: answered(party, share), word=word)
    return spent(party)


def _chosen(party: Party, config: Config, steps: Iterator[int], requests: Sequence[Request]) -> Turn:
    """A client that chooses from logits: a token for each row, and of beams who sees what."""
    job = requests[0].job
    assert isinstance(job, Generate)
    fed, hidden = sum(r.beams * len(r.owed) for r in requests), hidden_flags(job, next(steps))
    return Turn(given=imagined(config, party, Input([1] * fed, [], padded=bool(hidden)), hidden))

"""When the dealer multiplies the masks of several steps at once: as long as the same rows go on, and it knows what
will be fed.

Masks come from streams that begin with each step, so the dealer can draw those of a later step ahead, under the same
label and for the same rows. What it made for rows that then leave or are joined is thrown away, and the step draws its
masks anew for the rows that are there: nothing has left this party meanwhile, so no mask serves twice. This file must
not know who asks, nor what is emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from puma.engine.engine import Engine
from puma.engine.request import Request
from puma.models import architecture
from puma.models.cache import Cache, evened
from puma.mpc.fixed import index_bits
from puma.mpc.lookahead import Lookahead
from puma.mpc.seeded import in_blocks
from puma.mpc.share import Share
from puma.nn.layout import Rows
from puma.wire.messages import Generate

Label = Callable[[int], str]  # the name of a step's streams, if the requests of this one go on until then
STEPS = 4  # of which masks are multiplied in one walk over a parameter: the first token waits for them


def plain(number: int) -> str:
    """Where nobody but the request itself takes steps, under keys of its own."""
    return f"step {number}"


class Ahead:
    """The dealer's lookahead over one run of steps; at other parties, in dry runs, and where parameters are not drawn
    at each use, it does nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine, party = engine, engine.party
        foreseen = architecture(engine.config).foresees(engine.config) and any(in_blocks(p) for p in engine.params)
        self._possible = party.is_dealer and not party.dry and foreseen
        self._until, self._expected = 0, torch.empty(0, 0, dtype=torch.bool)
        self._labels: dict[int, str] = {}  # under which later steps have been looked at

    def begin(self, number: int, requests: Sequence[Request], label: Label = plain) -> None:
        """Before a step: use what was made for it, or look ahead from it on."""
        if not (self._possible and all(_known(request) for request in requests)):
            self.end()
            return
        party, held = self._engine.party, _held(requests)
        foreseen = self._labels.get(number) == label(number) and torch.equal(held, self._expected)
        if party.lookahead is None or number >= self._until or not foreseen:
            party.lookahead = Lookahead()
            steps = min(STEPS, *(owed for request in requests for owed in request.owed))
            self._until = number + steps
            self._labels = {step: label(step) for step in range(number + 1, self._until)}
            for step, name in self._labels.items():
                cache = Cache.blank(self._engine.config.layers, _longer(held, step - number - 1))
                self._look(party.lookahead, (step, name), cache, requests)
        self._expected = _longer(held, 1)
        party.lookahead.begin(number)

    def end(self) -> None:
        """No more steps, or none that can be foreseen."""
        if self._possible:
            self._engine.party.lookahead = None

    @torch.inference_mode()
    def _look(self, lookahead: Lookahead, step: tuple[int, str], cache: Cache, requests: Sequence[Request]) -> None:
        """Note the masks that the dealer will multiply with parameters in this step, under its number and label."""
        engine, party = self._engine, self._engine.party
        blank = party.nothing((cache.prompts,))
        token = Share(party, blank, blank, index_bits(engine.config.vocab_size), 0)
        ranked = all(not _temperature(request) for request in requests)
        party.quick = requests[0].job.input.quick
        number, label = step
        with lookahead.looking_ahead(number), party.silent(), party.stage(label):
            engine.logits(engine.fed(token), cache, [1] * cache.prompts, ranked)


def _known(request: Request) -> bool:
    """Whether the dealer knows the masks that will be fed: not those of tokens that the client chooses or guesses; and
    of a prompt that goes on behind what has been read, or is read in part, it does not look for them."""
    whole = not request.unread or (request.cache is None and not request.partly)
    return isinstance(request.job, Generate) and not request.job.fed and whole


def _temperature(request: Request) -> float:
    return request.job.temperature if isinstance(request.job, Generate) else 0.0


def _held(requests: Sequence[Request]) -> Tensor:
    """Which columns the requests will hold after this step (rows, columns), in the order in which they will lie."""
    caches = {id(r.cache): _longer(r.cache.held, 1) for r in requests if r.cache is not None}
    new = [n for request in requests if request.cache is None for n in request.job.input.lengths]
    return torch.cat(evened(*caches.values(), *([Rows(new).real] if new else [])))


def _longer(held: Tensor, passes: int) -> Tensor:
    """The same after so many more tokens of each row."""
    return torch.cat([held, held.new_ones(len(held), passes)], 1)

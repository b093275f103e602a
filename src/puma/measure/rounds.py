"""The rounds of a layer, one after the other: which function each belongs to, counted by dry runs.

A layer in the middle is what a model of three layers has more of than one of two. Rounds are named by the protocols
that wait for them, which a generator tells of itself. It must not know networks, nor how this is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import msgspec

from puma.engine.engine import Engine, answered
from puma.engine.generation import run
from puma.models import with_layers
from puma.models.config import Config
from puma.mpc.cost import Bytes, Ledger
from puma.mpc.party import SECOND, Party
from puma.mpc.seeded import Seeded
from puma.wire.inputs import imagined
from puma.wire.messages import Encode, Generate
from puma.wire.parameters import tensor_specs

JOINED = "together"  # the protocol that runs others in lockstep


class Step(NamedTuple):
    """Rounds of one kind in a layer: under which component, waited for by which protocols, and how many."""

    component: str
    protocols: str
    rounds: int


class _Named(Party):
    """A dry party that writes down who waits for each round."""

    def __init__(self, approximation: str) -> None:
        super().__init__(SECOND)
        self.approximation = approximation
        self.ledger = _Silent()
        self.seen: list[tuple[str, str]] = []
        self._waiting: Any = None

    def run(self, protocol: Generator[Any, Any, Any]) -> Any:
        """As every party does, remembering what is run."""
        before, self._waiting = self._waiting, protocol
        try:
            return super().run(protocol)
        finally:
            self._waiting = before

    def exchange(self, pieces: Any) -> list[Any]:
        """One round."""
        self.seen.append((self.ledger.current, " | ".join(dict.fromkeys(_chains(self._waiting)))))
        return super().exchange(pieces)


class _Silent(Ledger):
    """Counts nothing but knows the component."""

    def sent(self, count: int, online: bool) -> None:
        assert isinstance(count, Bytes)


def _chains(protocol: Any) -> list[str]:
    """The innermost protocols that wait, with the one that asked for each."""
    names = list[str]()
    while protocol is not None:
        frame = protocol.gi_frame
        if frame is None:
            return []
        name = protocol.gi_code.co_name
        if name == JOINED and "protocols" in frame.f_locals:
            return [found for each in frame.f_locals["protocols"] for found in _chains(each)]
        names.append(name.lstrip("_"))
        protocol = protocol.gi_yieldfrom
    return [" > ".join(names[-2:])]


def layer(config: Config, request: Generate | Encode) -> list[Step]:
    """The rounds of one layer in the middle: of a pass over the prompts, or, where several tokens are asked for, of
    the last token's step."""
    more, fewer = (_rounds(with_layers(config, n), request) for n in (3, 2))
    if isinstance(request, Generate) and request.tokens > 1:
        before = msgspec.structs.replace(request, tokens=request.tokens - 1)
        more = _less(more, _rounds(with_layers(config, 3), before))
        fewer = _less(fewer, _rounds(with_layers(config, 2), before))
    return [Step(*names, count) for names, count in _less(more, fewer).items()]


def _less(more: dict[tuple[str, str], int], fewer: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    rest = {names: count - fewer.get(names, 0) for names, count in more.items()}
    return {names: count for names, count in rest.items() if count}


def _rounds(config: Config, request: Generate | Encode) -> dict[tuple[str, str], int]:
    """How many rounds of each kind a request has, in the order in which the first of them comes."""
    party = _Named(request.input.approximation)
    params = {t.name: Seeded(party, None, [], t.shape, t.bits, t.frac) for t in tensor_specs(config)}
    given = imagined(config, party, request.input)
    run(Engine(party, config, params), request, given, lambda share: answered(party, share))
    return dict(Counter(party.seen))


def total(steps: Sequence[Step]) -> int:
    """All rounds of a layer."""
    return sum(step.rounds for step in steps)

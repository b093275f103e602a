"""A call of something that declares a cost, and what a party holds of its result: what runs of `cases.py` share."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from puma.kernels.outline import Outline
from puma.mpc import boolean, cost, lookup, raising
from puma.mpc.party import Party
from puma.mpc.share import Additive, Bits, Secret, Share
from puma.mpc.wide import products


@dataclass(frozen=True)
class Case:
    """A call of a declared function: `arguments` makes them for one party."""

    function: Callable[..., Any]
    arguments: Callable[[Party], tuple[Any, ...]]
    note: str = ""

    @property
    def declared(self) -> str:
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"

    @property
    def name(self) -> str:
        return f"{self.declared}({self.note})" if self.note else self.declared

    def run(self, party: Party) -> Any:
        try:
            return finished(party, self.function(*self.arguments(party)))
        finally:
            party.on_watch, party.quick = None, ()

    def cost(self, party: Party) -> cost.Cost | None:
        """What the function declares for these arguments; None if only a run tells."""
        declared = cost.DECLARED[self.declared].cost
        return None if declared is None else declared(*self.arguments(party))


# What functions that are made of primitives cost: rounds, bits online and offline. No figure may grow unexplained.
COSTS = {
    name: cost.Cost(*figures)
    for name, figures in json.loads((Path(__file__).parent / "vectors" / "costs.json").read_text()).items()
}


def finished(party: Party, result: Any) -> Any:
    """The result of a protocol, or of what was no protocol."""
    return party.run(cast(Any, result)) if inspect.isgenerator(result) else result


def secrets_in(result: Any) -> Iterator[Any]:
    """The secrets of a result, in order."""
    if isinstance(result, lookup.Digit | lookup.Top | boolean.MaskedBit | Secret | Tensor | Outline):
        yield result
    elif isinstance(result, list | tuple):
        for item in result:
            yield from secrets_in(item)


def parts(result: Any) -> list[Tensor | None]:
    """What this party holds of every secret in a result, None where it holds nothing."""
    found: list[Tensor | None] = []
    for secret in secrets_in(result):
        if isinstance(secret, Share):
            found += secret.components
        elif isinstance(secret, raising.Raised):
            found += [*secret.share.components, secret.turn]
        elif isinstance(secret, products.Widened):
            found += secret.words
        elif isinstance(secret, Additive):
            found.append(None if secret.silent else secret.part)
        elif isinstance(secret, Bits):
            found.append(None if secret.party.is_dealer else secret.part)
        elif isinstance(secret, boolean.MaskedBit):
            found.append(secret.word)
        elif isinstance(secret, lookup.Digit):
            found += [secret.hot, secret.public]
        elif isinstance(secret, lookup.Top):
            found += [secret.part, secret.public, *(parts(secret.rest) if secret.rest else [])]
        else:
            found.append(secret)
    return found

"""What an owner keeps of an upload so that canaries can be computed again: the plan of it with its seeds, and the
weights as they were shared. Of weights that everybody may know it takes the weights alone.

The file holds the seeds of all masks: with an evaluator's disk it gives the weights away, so it is as secret as these.
This file must not know sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import Tensor

from puma.client.public.content import Part, digested, parts, weights_of
from puma.client.resume import Plan
from puma.errors import StoreError, UsageError
from puma.models.checkpoint import Checkpoint
from puma.models.config import Config
from puma.models.unfolded.apart import apart, base_of
from puma.reference.plain_model import PlainModel
from puma.store import folders
from puma.wire.messages import Card

_plans = msgspec.json.Decoder(Plan)


@dataclass(frozen=True, repr=False)
class Shared:
    """A model as its owner shared it. What is `given` in the open has no seeds in its plan; a secret adapter has a
    `base` that is."""

    plan: Plan
    params: Mapping[str, Tensor]
    given: Sequence[Part] = ()
    base: Shared | None = None

    @property
    def public(self) -> Plan | None:
        """The plan, where all of it may be known to everybody."""
        return self.plan if self.given else None


def in_the_open(config: Config, card: Card, sharing: bytes, params: Mapping[str, Tensor]) -> Shared:
    """A model whose weights everybody may know, as three parties serve it; UsageError if these are other weights."""
    found = parts(config, params)
    if card.weights is None or weights_of(config, found) != card.weights:
        found = digested(found, _silent)
    if card.weights is None or weights_of(config, found) != card.weights:
        what = f"these are not the weights of {card.name} that the parties serve in the open"
        raise UsageError(what, "name the checkpoint that was shared with --open-weights")
    return Shared(Plan(card, config, [], {}, sharing, [], b""), params, found)


def write(path: Path, plan: Plan) -> None:
    """A new file, for its owner alone; StoreError if there is one."""
    with folders.explained(f"the sharing {path}"):
        folders.write_new(path, msgspec.json.encode(plan) + b"\n")


def kept(path: Path) -> Plan:
    """What `puma share --keep` wrote; StoreError if it is none."""
    with folders.explained(f"the sharing {path}"):
        content = path.read_bytes()
    try:
        return _plans.decode(content)
    except (ValueError, msgspec.MsgspecError):
        raise StoreError(f"{path} is no sharing of a model", "`puma share --keep FILE` writes one") from None


def over(plan: Plan, base: Shared, params: Mapping[str, Tensor]) -> Shared:
    """An adapter that was shared over open weights; UsageError if it was over others."""
    named = plan.card.base
    if named is None or (named.name, named.sharing) != (base.plan.card.name, base.plan.sharing):
        what = f"{plan.card.name} was not shared over {base.plan.card.name} as it is served"
        raise UsageError(what, "name the base and the file that `puma share --keep` wrote last")
    return Shared(plan, params, base=base)


def again(clear: PlainModel, sharing: Path | None, public: Plan | None, under: Plan | None) -> Shared:
    """The model of a report: one whose weights are `public`, or what was kept of its sharing, of an adapter over the
    open weights that are `under` it."""
    if public is not None:
        return in_the_open(public.config, public.card, public.sharing, clear.params)
    assert sharing is not None
    plan = kept(sharing)
    if under is None:
        return Shared(plan, clear.params)
    base, tensors = taken_apart(clear)
    return over(plan, in_the_open(under.config, under.card, under.sharing, base.fold()), tensors)


def taken_apart(clear: PlainModel) -> tuple[Checkpoint, Mapping[str, Tensor]]:
    """The base of a model under an adapter, and what of the adapter is shared."""
    source, adapter = clear.made_of
    if adapter is None:
        raise UsageError("the model was shared under an adapter", "name it by --adapter")
    base = base_of(clear.config, source)
    return base, apart(base, adapter)[1]


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""

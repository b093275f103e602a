"""Number formats of a model: how large numbers become at which place, as its owner proved or measured.

They are a part of a model's config, and so of what parties agree on. From them follow the rings of parameters and of
everything in between (`nn/places.py`). This file must not know architectures: it walks the tree that each of them is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import force_setattr, replace

from puma.errors import UsageError
from puma.mpc.fixed import STREAM_REACH
from puma.nn.modules import Module
from puma.nn.places import LARGEST, LEAST, Observer, Place

MOST = 1 << 16  # places; a model of 4096 layers has fewer
Reach = Annotated[int, Meta(ge=LEAST, le=max(LARGEST.values()))]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Places = Annotated[dict[Name, Reach], Meta(max_length=MOST)]


class Formats(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reaches: exponents r of powers of two, 5 to 30. The defaults are those of docs/protocol.md, section 3.

    `stream`: every number of the residual stream, and all that is added to it, stays below 2^stream. `places`: by the
    name of a module, what `nn.places.REACHES` says of the kind of its place; what is not named has the default.
    A named place gets as small a ring as its reach allows, even if the reach is the default.
    """

    stream: Annotated[int, Meta(ge=LEAST, le=LARGEST["stream"])] = STREAM_REACH
    places: Places = {}

    def __post_init__(self) -> None:
        force_setattr(self, "places", dict(sorted(self.places.items())))  # equal formats are written alike

    def __hash__(self) -> int:
        return hash((self.stream, tuple(self.places.items())))

    def within(self, names: Iterable[str]) -> Formats:
        """For a model that has these places only, such as one with fewer layers."""
        kept = set(names)
        return replace(self, places={name: reach for name, reach in self.places.items() if name in kept})


def places(model: Module) -> dict[str, Place]:
    """The places of a model that can have a reach of their own, by the name of the module, in its order."""
    found = {name: place for name, module in model.modules() for place in module.places if place.kind != "stream"}
    return found


def hand_out(model: Module, formats: Formats) -> None:
    """Tell every place of a model its name and its reach: once, before parameters are filled in.

    UsageError if a place is named that the model has not, or given a reach that its kind cannot have.
    """
    known = set[str]()
    for name, module in model.modules():
        for place in module.places:
            place.name = name
            if place.kind == "stream":
                place.reach = formats.stream
            elif name in formats.places:
                known.add(name)
                place.reach, place.named = formats.places[name], True
                if place.reach > LARGEST[place.kind]:
                    what = f"a reach of 2^{place.reach} at {name} is beyond 2^{LARGEST[place.kind]}"
                    raise UsageError(what, "fixed point cannot hold it; use a checkpoint with smaller numbers")
    unknown = set(formats.places) - known
    if unknown:
        raise UsageError(f"the formats name {min(unknown)}, a place that the model has not", "make a new plan for it")


def observe(model: Module, observer: Observer | None) -> None:
    """Have an observer told of all that comes about at the places of a plain run, those of the stream included; None
    ends that. See `nn.places.Place` for what it is told."""
    for _, module in model.modules():
        for place in module.places:
            place.observer = observer


def rings(model: Module) -> dict[str, int]:
    """The ring of each parameter of a model whose formats have been handed out and that is not filled in yet."""
    return {name: owner.ring for name, owner, _ in model.slots()}

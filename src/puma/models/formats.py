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
from puma.nn.modules import Linear, Module
from puma.nn.places import LARGEST, LEAST, SEEN, Observer, Place

MOST = 1 << 16  # places; a model of 4096 layers has fewer
Reach = Annotated[int, Meta(ge=min(LEAST.values()), le=max(LARGEST.values()))]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Places = Annotated[dict[Name, Reach], Meta(max_length=MOST)]
Names = Annotated[tuple[Name, ...], Meta(max_length=MOST)]
Ranks = Annotated[dict[Name, Annotated[int, Meta(ge=1, le=1 << 16)]], Meta(max_length=MOST)]
ADAPTED = "as a matrix"  # in messages


class Formats(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reaches: exponents r of powers of two, 3 to 30. The defaults are those of docs/protocol.md, section 3.

    `stream`: every number of the residual stream, and all that is added to it, stays below 2^stream. `places`: by the
    name of a module, what `nn.places.REACHES` says of the kind of its place; what is not named has the default.
    A named place gets as small a ring as its reach allows, even if the reach is the default. What is `proven` never
    leaves its reach: it needs no room beyond it, and is not watched. Activations whose inputs are small as a rule may
    be `fine`: computed by tables of twice as many segments. Weights are secret, or `open` to everybody; over open ones
    matrices may be `adapted`, each by a secret adapter of this rank.
    """

    stream: Annotated[int, Meta(ge=LEAST["stream"], le=LARGEST["stream"])] = STREAM_REACH
    places: Places = {}
    proven: Names = ()
    fine: Names = ()
    open: bool = False
    adapted: Ranks = {}

    def __post_init__(self) -> None:
        force_setattr(self, "places", dict(sorted(self.places.items())))  # equal formats are written alike
        force_setattr(self, "proven", tuple(sorted(set(self.proven))))
        force_setattr(self, "fine", tuple(sorted(set(self.fine))))
        force_setattr(self, "adapted", dict(sorted(self.adapted.items())))

    def __hash__(self) -> int:
        kinds = self.open, tuple(self.adapted.items())
        return hash((self.stream, tuple(self.places.items()), self.proven, self.fine, *kinds))

    def within(self, names: Iterable[str], modules: Iterable[str] = ()) -> Formats:
        """For a model that has these places only, and these modules, such as one with fewer layers."""
        kept = set(names)
        proven, fine = (tuple(name for name in names if name in kept) for names in (self.proven, self.fine))
        held = {name: reach for name, reach in self.places.items() if name in kept}
        there = set(modules)
        adapted = {name: rank for name, rank in self.adapted.items() if name in there}
        return replace(self, places=held, proven=proven, fine=fine, adapted=adapted)


def places(model: Module) -> dict[str, Place]:
    """The places of a model that can have a reach of their own, by the name of the module, in its order."""
    found = {name: place for name, module in model.modules() for place in module.places if place.kind != "stream"}
    return found


def hand_out(model: Module, formats: Formats) -> None:
    """Tell every place of a model its name and its reach: once, before parameters are filled in.

    UsageError if a place is named that the model has not, or given a reach that its kind cannot have.
    """
    known, proven, fine = set[str](), set(formats.proven), set(formats.fine)
    for name, module in list(model.modules()):
        if name in formats.adapted and isinstance(module, Linear):
            known.add(f"{name} {ADAPTED}")
            module.adapt(formats.adapted[name])
        for place in module.places:
            place.name = name
            if place.kind == "stream":
                place.reach = formats.stream
            elif name in formats.places:
                known.add(name)
                place.reach, place.named, place.proven = formats.places[name], True, name in proven
                place.fine = name in fine
                _check(place)
    unknown = (set(formats.places) | proven | fine | {f"{name} {ADAPTED}" for name in formats.adapted}) - known
    if unknown:
        raise UsageError(f"the formats name {min(unknown)}, a place that the model has not", "make a new plan for it")


def _check(place: Place) -> None:
    least = LEAST[place.kind] if place.proven or place.kind == "norm" else max(SEEN, LEAST[place.kind])
    if place.reach > LARGEST[place.kind]:
        what = f"a reach of 2^{place.reach} at {place.name} is beyond 2^{LARGEST[place.kind]}"
        raise UsageError(what, "fixed point cannot hold it; use a checkpoint with smaller numbers")
    if place.reach < least:
        what = f"a reach of 2^{place.reach} at {place.name} is below 2^{least}"
        raise UsageError(what, "what leaves it would not be seen; make a new plan")


def observe(model: Module, observer: Observer | None) -> None:
    """Have an observer told of all that comes about at the places of a plain run, those of the stream included; None
    ends that. See `nn.places.Place` for what it is told."""
    for _, module in model.modules():
        for place in module.places:
            place.observer = observer


def rings(model: Module) -> dict[str, int]:
    """The ring of each parameter of a model whose formats have been handed out and that is not filled in yet."""
    return {name: owner.ring for name, owner, _ in model.slots()}

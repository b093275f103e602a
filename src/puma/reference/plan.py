"""Which formats follow from a model: for each place the smallest reach that a proof or a calibration allows.

A proof holds for every input, and so it is what counts wherever there is one: what is proven needs no room beyond its
reach, and no flag. A calibration holds for what its texts reached, times a margin, and whatever leaves its reach raises
the flag that goes to the client (docs/numerics.md). It must not know where numbers come from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from puma.errors import RangeError
from puma.models.architecture import Bound
from puma.models.bounds import ADDED
from puma.models.formats import Formats
from puma.models.ranges import NEGLIGIBLE
from puma.nn.places import LARGEST, LEAST, REACHES, SEEN
from puma.nn.roots import RowFormat
from puma.reference.observed import Seen, Watch
from puma.wire.messages import Provenance

MARGIN, LEAST_MARGIN = 3, 1  # bits between the largest number seen and the reach; fewer where rows need the places
WATCHED_ELSEWHERE = ("activation", "relu", "gated", "value", "scores")  # at any other reach than the usual one
BEYOND = 64  # stands for whatever no ring holds
TABLE = 16.0  # where the widest table of a function ends
SMALL = 0.2  # inputs of an activation whose root mean square is below would lose 2^-9 by usual tables
LONGEST = 1.25  # times its reach a row may be without a flag (mpc/watch.py)
ROUNDED = 1 + 2.0**-7  # what fixed point may add to a bound that is proven of exact numbers
WHAT = {
    "stream": "the residual stream",
    "norm": "length of a row to be normalised",
    "activation": "what enters an activation",
    "relu": "what enters relu",
    "gated": "a gated product",
    "value": "values of attention",
    "scores": "spread of a row's scores",
    "logits": "spread of a row's logits",
}
HINT = "look at `puma check`; --margin 1 leaves less room, and docs/numerics.md says what fixed point holds"


class Placed(msgspec.Struct, frozen=True):
    """What holds at one place: numbers stay below 2^reach, because none can be larger (`proven`), or because none was.

    `seen` is the largest of the calibration and `bound` what no input exceeds, None where nothing is proven; `default`
    is the reach of a model without a plan. `least` is the smallest root mean square of a row to be normalised. `fine`:
    inputs of an activation are so small that tables need twice as many segments.
    """

    name: str
    kind: str
    reach: int
    default: int
    proven: bool
    seen: float
    bound: float | None = None
    least: float | None = None
    fine: bool = False

    @property
    def what(self) -> str:
        """In words."""
        return WHAT[self.kind]

    @property
    def margin(self) -> float:
        """Bits between the largest number seen and the reach."""
        return self.reach - math.log2(self.seen) if self.seen else float(self.reach)


class Plan(msgspec.Struct, frozen=True):
    """Formats of a model, and where each comes from: proofs, and a calibration on so many `texts` of `tokens`, with a
    `margin` of bits. `coarse`: layers of a kind have one reach.
    """

    formats: Formats
    places: tuple[Placed, ...]
    margin: int
    texts: int
    tokens: int
    coarse: bool = False

    @property
    def provenance(self) -> Provenance:
        """What everyone may know of it."""
        proven = tuple(place.name for place in self.places if place.proven)
        return Provenance(self.margin, self.texts, self.tokens, proven)


class Calibration(NamedTuple):
    """What a plan is made of, beside proofs."""

    watch: Watch
    texts: int
    tokens: int


def made(
    kinds: Mapping[str, str], bounds: Iterable[Bound], calibration: Calibration, margin: int = MARGIN,
    coarse: bool = False, cap: float = 0.0,
) -> Plan:  # fmt: skip
    """The plan of a model whose places are of these `kinds` and whose scores are soft-capped by `cap`, if not 0.

    RangeError if some place cannot hold its numbers.
    """
    watch, found = calibration.watch, list(bounds)
    proofs = {name: bound for name, bound, what in found if what != ADDED}
    written = max((bound for _, bound, what in found if what == ADDED), default=0.0)
    ends = {"activation": TABLE, "scores": max(8 * cap, NEGLIGIBLE)}  # by which these stay below 2^reach
    placed = [_placed("", "stream", watch.at("stream", ""), None, margin, 0.0)]
    for name, kind in kinds.items():
        seen = watch.seen.get((kind, name))
        if seen is not None or name in proofs:
            placed.append(_placed(name, kind, seen or Seen(), proofs.get(name), margin, ends.get(kind, 0.0)))
    placed = _alike(placed) if coarse else placed
    placed[0] = _holding(placed[0], max((p.reach for p in placed if p.kind == "norm"), default=0), written)
    for place in placed:
        _check(place)
    reaches = {place.name: place.reach for place in placed[1:]}
    proven = tuple(place.name for place in placed[1:] if place.proven)
    fine = tuple(place.name for place in placed[1:] if place.fine)
    formats = Formats(stream=placed[0].reach, places=reaches, proven=proven, fine=fine)
    return Plan(formats, tuple(placed), margin, calibration.texts, calibration.tokens, coarse)


def _placed(name: str, kind: str, seen: Seen, bound: float | None, margin: int, end: float) -> Placed:
    """A bound counts; where it is at most twice as large as what rings hold, the flag sees all that lies beyond. One
    that is larger says nothing: then what was seen counts, and is watched.
    """
    fine = kind == "activation" and seen.least < SMALL
    if bound is not None:
        proven = _reach(kind, ROUNDED * bound, end)
        beyond = kind in WATCHED_ELSEWHERE and proven == LARGEST[kind] + 1
        if proven - beyond <= LARGEST[kind] or kind not in WATCHED_ELSEWHERE or not seen.largest:
            return Placed(name, kind, proven - beyond, REACHES[kind], not beyond, seen.largest, bound, fine=fine)
    measured = _measured(kind, seen, margin, end)
    if kind in WATCHED_ELSEWHERE:
        measured = max(measured, SEEN)
        measured += measured == REACHES[kind]  # which stands for a proof: there is no room beyond it, and no flag
    least = seen.least if kind == "norm" and math.isfinite(seen.least) else None
    return Placed(name, kind, measured, REACHES[kind], False, seen.largest, bound, least, fine)


def _holding(stream: Placed, longest: int, written: float) -> Placed:
    """The stream in a ring that holds, up to twice its reach, what is added to rows that no norm has flagged: they are
    up to LONGEST times as long as their reach. So nothing comes round between one look at it and the next.
    """
    most = LONGEST * 2.0**longest + ROUNDED * written
    return (
        msgspec.structs.replace(stream, reach=max(stream.reach, math.ceil(math.log2(most)) - 1)) if written else stream
    )


def _measured(kind: str, seen: Seen, margin: int, end: float) -> int:
    """The reach with a margin above the largest number; of rows to be normalised with a smaller one, if the faintest
    row would lose its places otherwise."""
    for bits in range(margin, min(LEAST_MARGIN, margin) - 1, -1):
        reach = _reach(kind, seen.largest * 2**bits, end)
        if kind != "norm" or seen.least >= least_rms(reach):
            return reach
    return _reach(kind, seen.largest * 2 ** min(LEAST_MARGIN, margin), end)


def least_rms(reach: int) -> float:
    """The smallest root mean square of a row that keeps 2^-9 of itself where rows up to 2^reach are normalised: what
    is lost of its squares and of its entries says `roots.RowFormat`.
    """
    form = RowFormat(reach)
    return max(16 * form.step, 1.5 * 2.0 ** (9 - form.frac))


def _reach(kind: str, value: float, end: float) -> int:
    """The smallest reach of numbers up to this one."""
    if not math.isfinite(value):
        return BEYOND
    value = value * 16 / 15 if kind == "value" else value + end
    return min(BEYOND, max(LEAST[kind], math.floor(math.log2(value)) + 1 if value > 0 else LEAST[kind]))


def _alike(placed: list[Placed]) -> list[Placed]:
    """The same with one reach for all layers of a kind, the largest; proven if it is so in all of them."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for place in placed:
        groups.setdefault((re.sub(r"\.\d+\.", ".*.", place.name), place.kind), []).append(place)
    largest = {key: max(place.reach for place in group) for key, group in groups.items()}
    proven = {key: all(place.proven for place in group) for key, group in groups.items()}
    fine = {key: any(place.fine for place in group) for key, group in groups.items()}
    found = []
    for place in placed:
        key = re.sub(r"\.\d+\.", ".*.", place.name), place.kind
        found.append(msgspec.structs.replace(place, reach=largest[key], proven=proven[key], fine=fine[key]))
    return found


def _check(place: Placed) -> None:
    what, where = WHAT[place.kind], f" at {place.name}" if place.name else ""
    if not math.isfinite(place.seen):
        raise RangeError(f"{what}{where} becomes infinite in float32", "the checkpoint is damaged")
    if place.reach > LARGEST[place.kind]:
        largest = place.seen if place.bound is None or place.seen > 0 else place.bound
        raise RangeError(f"{what}{where} can be {largest:.4g}, beyond what rings hold", HINT)
    if place.least is not None and place.least < least_rms(place.reach):
        faint = f"a row to be normalised{where} has a root mean square of {place.least:.4g} beside one of length"
        raise RangeError(f"{faint} {place.seen:.4g}: no ring holds both", HINT)

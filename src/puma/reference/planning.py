"""A model's plan, from the cache or made anew: proofs from its weights, a calibration in the clear, formats from both.

It must not know shares, parties or links.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.models import architecture, inputs, ranges
from puma.models.checkpoint import Checkpoint
from puma.models.formats import places
from puma.nn.paper import SPLINE
from puma.reference import plan_cache
from puma.reference.calibration import observe, samples
from puma.reference.plan import MARGIN, Calibration, Plan, made

MADE = 5  # counts up when the same settings make another plan
MOST_MARGIN = 8
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How a plan is made: bits above the largest number seen, the owner's own `texts` (of an image model, files) beside
    those that come with Puma, one reach for all layers of a kind, the functions that it will be computed with.
    """

    margin: int = MARGIN
    texts: tuple[str, ...] = ()
    coarse: bool = False
    approximations: tuple[str, ...] = (SPLINE,)

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= MOST_MARGIN:
            raise UsageError(f"a margin of {self.margin} bits makes no sense", f"choose 0 to {MOST_MARGIN}")

    def covering(self, approximation: str) -> Settings:
        """The same, for these functions, too."""
        if approximation in self.approximations:
            return self
        return replace(self, approximations=(*self.approximations, approximation))


def planned(model: ModelInfo, checkpoint: Checkpoint, settings: Settings, progress: Progress) -> Plan:
    """The plan of a checkpoint; RangeError, with the place, if fixed point cannot hold its numbers."""
    name = plan_cache.key(checkpoint.weights, MADE, checkpoint.config, _digest(model, settings))
    known = plan_cache.read(name, Plan)
    if known is not None:
        return known
    config, params = checkpoint.config, checkpoint.fold()
    progress("checking the weights", 0, 1)
    ranges.check_weights(params)
    kinds = {name: place.kind for name, place in places(architecture(config).model(config)).items()}
    given = samples(model, checkpoint.folder, settings.texts)
    if not given:
        raise UsageError(f"{model.name} has no token for any of the texts", "give some of its own with --calibrate")
    watch = observe(config, params, given, progress, settings.approximations)
    for seen in watch.seen.values():
        seen.least = math.hypot(seen.least, math.sqrt(config.eps))  # a fainter row counts as this, whatever is lost
    progress("proving bounds", 0, 1)
    tokens = sum(inputs(config).length(len(each.ids)) for each in given)
    calibration = Calibration(watch, len(given), tokens)
    bounds, cap = ranges.bounds(config, params), ranges.score_cap(config)
    found = made(kinds, bounds, calibration, settings.margin, settings.coarse, cap)
    plan_cache.keep(name, found)
    return found


def _digest(model: ModelInfo, settings: Settings) -> str:
    """Of what else the plan depends on."""
    found = hashlib.sha256(repr(settings).encode())
    for name in sorted(model.files):
        found.update(model.files[name]())
    return found.hexdigest()

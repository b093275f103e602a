"""What the owner proves about a model before sharing it: how large numbers can become, whatever the input.

Every architecture bounds its own matrices, from norms on, with the arithmetic in `bounds.py`; the bounds hold for all
prompts, and a plan makes formats of them. The residual stream has none: it is calibrated, and norms watch it. It works
on folded parameters in the clear, a few of which are in memory at a time, and must not know shares.
"""

from __future__ import annotations

from collections.abc import Iterator

from puma.errors import RangeError
from puma.models.architecture import Bound, Params
from puma.models.architectures import Config, architecture
from puma.models.formats import places
from puma.mpc.fixed import WEIGHT_LIMIT

NEGLIGIBLE = 32.0  # a score so far below another adds nothing: exp is 0 from -15 on
HINT = "fixed-point numbers could overflow; use a checkpoint with smaller weights"


def check_weights(params: Params) -> None:
    """Raise RangeError, with the parameter's name, if some weight is too large to be a factor."""
    for name, tensor in params.items():
        largest = max(abs(float(end)) for end in tensor.aminmax()) if tensor.numel() else 0.0
        if not largest < WEIGHT_LIMIT:
            raise RangeError(f"{name} holds a {largest:.4g}, but weights must stay below {WEIGHT_LIMIT:g}", HINT)


def score_cap(config: Config) -> float:
    """The soft cap of attention's scores; 0 where there is none."""
    return getattr(config, "attention_cap", 0.0)


def hides(config: Config, params: Params) -> bool:
    """Whether scores can be hidden in secret: those of padding, or of other branches."""
    try:
        check_hiding(config, params, HINT)
    except RangeError:
        return False
    return True


def check_hiding(config: Config, params: Params, hint: str) -> None:
    """Raise RangeError if scores that are lowered in secret, by `Place.hiding`, could still count or go too far."""
    if getattr(config, "delta", None):
        raise RangeError("layers with a memory cannot leave out rows of a text in secret", hint)
    found = places(architecture(config).model(config))
    for name, bound, what in bounds(config, params):
        place = found.get(name)
        if place and place.kind == "scores" and not place.named and not bound < place.hiding - NEGLIGIBLE:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, too wide for hiding some in secret", hint)


def bounds(config: Config, params: Params) -> Iterator[Bound]:
    """For each matrix whose result has a limited range: its name, its bound, the limit, and what the result is."""
    return architecture(config).bounds(config, params)

"""What the owner of a model allows, as its card says it: parties refuse the rest, and clients do not ask for it."""

from __future__ import annotations

from puma.errors import PolicyError
from puma.nn.paper import SPLINE
from puma.wire import messages as msg


def allow_approximation(card: msg.Card | None, wanted: str) -> None:
    """PolicyError unless the model's owner lets it be computed with this approximation."""
    allowed = card.approximations if card else (SPLINE,)
    if wanted not in allowed:
        what = f"the model's owner does not let it be computed with {wanted}"
        raise PolicyError(what, f"choose {' or '.join(allowed)} by --approximation, or let the owner share it again")

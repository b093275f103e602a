"""Canaries with three parties on this machine: the model as they hold it, which their cluster has given them.

It must not know how a canary is judged.
"""

from __future__ import annotations

from puma.audit.shared import Shared, in_the_open, over, taken_apart
from puma.errors import UsageError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel


def shared_by(parties: LocalCluster) -> Shared:
    """The model of a cluster that has shared it a moment ago, or lets its parties know the weights; UsageError for one
    whose parties held it already."""
    session, clear = parties.session, parties.model
    assert session.config is not None and session.card is not None and isinstance(clear, PlainModel)
    config, card, sharing = session.config, session.card, session.sharing
    if card.weights is not None and card.base is None:
        return in_the_open(config, card, sharing, clear.params)
    if parties.sharing is None:
        what = "the parties held this model already, and the seeds of its masks are kept nowhere"
        raise UsageError(what, "start others without a store")
    if card.base is None:
        return Shared(parties.sharing, clear.params)
    base, tensors = taken_apart(clear)
    assert session.open(card.base.name)
    under = in_the_open(session.config, session.card, session.sharing, base.fold())
    assert session.open(card.name)
    return over(parties.sharing, under, tensors)

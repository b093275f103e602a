"""Canaries with distant parties: each is a session of its own, opened as any client opens one.

It must not know how a canary is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from puma import config
from puma.audit.auditing import Ask, Auditor
from puma.audit.report import Report
from puma.audit.shared import Shared, in_the_open, kept, over, taken_apart
from puma.client.canaries.alike import read_whole
from puma.client.connect import ClusterSession, open_session
from puma.client.public.content import among
from puma.client.session import Session
from puma.config import Cluster
from puma.crypto.signing import Signer
from puma.errors import UsageError
from puma.models import in_the_open as opened
from puma.models.config import Config
from puma.nn.paper import SPLINE
from puma.reference.plain_model import PlainModel


def canary(
    model: str | Path | PlainModel, adapter: str | Path | None, cluster: str | Path, key: str | Path,
    owner: str | Path | None = None, sharing: str | Path | None = None, insecure: bool = False,
    approximation: str = SPLINE,
) -> Callable[[Ask], Report]:  # fmt: skip
    """What asks one canary after the other, as the client of this key with the consent of this owner, of a model as it
    was shared; each begins as `connect` does. Weights that everybody may know have no `sharing` that was kept, and it
    takes no owner's consent. The errors of puma.errors."""
    clear = model if isinstance(model, PlainModel) else PlainModel(model, adapter)
    known, whose = config.read(cluster), f"the file {sharing}"
    if sharing is None:
        if clear.made_of[1] is not None:
            raise UsageError("an adapter is secret, over open weights, too", "name --owner and --sharing")
        shared, whose = _open(opened(clear.config), clear.params, known, key, insecure), "the checkpoint"
    elif (made := kept(Path(sharing))).card.base is None:
        shared = Shared(made, clear.params)
    else:
        base, tensors = taken_apart(clear)
        shared = over(made, _open(opened(base.config), base.fold(), known, key, insecure), tensors)
    auditor = Auditor(Signer.of(Path(key)), None if owner is None else Signer.of(Path(owner)), shared)
    plan = shared.plan

    def use(session: Session) -> None:
        assert isinstance(session, ClusterSession)
        read_whole(session.use(plan.card.name, approximation))
        if session.sharing != plan.sharing:
            what = f"the parties serve another sharing of {plan.card.name} than that of {whose}"
            raise UsageError(what, "name the file that `puma share --keep` wrote last")

    def one(ask: Ask) -> Report:
        session = open_session(known, key, "client", insecure)
        try:
            return auditor.audit(session, use, ask)
        finally:
            session.close()

    return one


def _open(
    config: Config, params: Mapping[str, Tensor], known: Cluster, key: str | Path, insecure: bool
) -> Shared:  # fmt: skip
    """The model of the cluster that has these weights in the open. It is looked for in a session that is none of the
    canaries', which also fetches what a client keeps of it: they then ask for no more than others do."""
    session = open_session(known, key, "client", insecure)
    try:
        one = among(session.models(), config, params, _silent)
        if one is None:
            what = "no model of the cluster has these weights in the open"
            raise UsageError(what, "of hidden weights name the owner's key and the file of `puma share --keep`")
        session.use(one.card.name, one.card.approximations[0])
    finally:
        session.close()
    return in_the_open(one.config, one.card, one.sharing, params)


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""

"""Canaries with distant parties: each is a session of its own, opened as any client opens one.

It must not know how a canary is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from puma import config
from puma.audit.auditing import Ask, Auditor
from puma.audit.report import Report
from puma.audit.shared import Shared, kept
from puma.client.canaries.alike import read_whole
from puma.client.connect import ClusterSession, open_session
from puma.client.session import Session
from puma.crypto.signing import Signer
from puma.errors import UsageError
from puma.nn.paper import SPLINE
from puma.reference.plain_model import PlainModel


def canary(
    model: str | Path | PlainModel, adapter: str | Path | None, cluster: str | Path, key: str | Path, owner: str | Path,
    sharing: str | Path, insecure: bool = False, approximation: str = SPLINE,
) -> Callable[[Ask], Report]:  # fmt: skip
    """What asks one canary after the other, as the client of this key with the consent of this owner, of a model as it
    was shared; each begins as `connect` does. The errors of puma.errors."""
    clear = model if isinstance(model, PlainModel) else PlainModel(model, adapter)
    plan, known = kept(Path(sharing)), config.read(cluster)
    auditor = Auditor(Signer.of(Path(key)), Signer.of(Path(owner)), Shared(plan, clear.params))

    def use(session: Session) -> None:
        assert isinstance(session, ClusterSession)
        read_whole(session.use(plan.card.name, approximation))
        if session.sharing != plan.sharing:
            what = f"the parties serve another sharing of {plan.card.name} than the one in {sharing}"
            raise UsageError(what, "name the file that `puma share --keep` wrote last")

    def one(ask: Ask) -> Report:
        session = open_session(known, key, "client", insecure)
        try:
            return auditor.audit(session, use, ask)
        finally:
            session.close()

    return one

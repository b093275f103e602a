"""One canary from its first word to the report: commit, ask, open, compute again, compare.

A canary is a session like any audited one until it is opened. This file must not know where the parties run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from puma.audit import report as reports
from puma.audit.replay import replayed
from puma.audit.report import Report
from puma.audit.shared import Shared
from puma.audit.verdict import judged, secrets_of
from puma.client.canaries.opening import Opening, commit, reveal
from puma.client.canaries.recorded import Recorded, Script
from puma.client.session import Session
from puma.crypto.signing import Signer
from puma.errors import UsageError
from puma.wire import messages as msg
from puma.wire.receipts import Signed

Ask = Callable[[Session], None]


@dataclass(frozen=True)
class Auditor:
    """Who audits: the client's signature under the report, the owner's under its consent (none for parties of one's
    own, nor where the weights are open), and the model as it was shared; None where nothing is asked of a model."""

    signer: Signer
    owner: Signer | None = None
    shared: Shared | None = None

    def audit(self, session: Session, use: Ask | None, ask: Ask) -> Report:
        """Use up a session that has asked nothing yet: `use` opens a model in it, `ask` asks what means nothing.

        ProtocolError, by name, where the session ends before it can be opened: that is a finding, too.
        """
        if session.receipts is None:
            raise UsageError("parties that sign nothing cannot be audited", "start them with keys")
        opening = commit(session, canary=True)
        if use is not None:
            use(session)
        opened = None if session.config is None else msg.Open(self._name(session), session.approximation)
        scripts, receipts = _asked(session, ask)
        return self._report(opening, opened, scripts, receipts, session)

    def _report(
        self, opening: Opening, opened: msg.Open | None, scripts: list[Script], receipts: list[Signed],
        session: Session,
    ) -> Report:  # fmt: skip
        sealed = reveal(session, opening, self.owner)
        made, known = time.time(), session.receipts
        assert known is not None
        pledges, disclosures = reports.said(opening.pledges, sealed, known.authority, made)
        expected = replayed(self.shared, opened, scripts, secrets_of(pledges, disclosures))
        statements = reports.stated(receipts, known.authority)
        public = self.shared and self.shared.public
        over = self.shared and self.shared.base and self.shared.base.public
        reports.check_model(expected, statements, public)
        found = judged(expected, pledges, disclosures, scripts, [reports.heads(each) for each in statements])
        name = self._name(session) if opened else ""
        whole = Report(
            known.cluster.hex(), name, made, opening.nonce, opening.pledges, sealed, receipts, opened, scripts,
            expected, found, b"", public=public, over=over,
        )  # fmt: skip
        return reports.sign(whole, self.signer)

    def _name(self, session: Session) -> str:
        return session.card.name if session.card is not None else "model"


def _asked(session: Session, ask: Ask) -> tuple[list[Script], list[Signed]]:
    """What was said and heard, and the last receipt of each party; nothing is judged yet."""
    links: Sequence[Recorded] = [Recorded(link) for link in session.links]
    before, session.links = session.links, list(links)  # type: ignore[arg-type]
    session.judges = False
    try:
        ask(session)
    finally:
        session.links, session.judges = before, True
    last = [_last_receipt(link.script) for link in links]
    return [link.script for link in links], [receipt for receipt in last if receipt is not None]


def _last_receipt(script: Script) -> Signed | None:
    """Over everything up to the last request's end."""
    found = [reply for reply in map(msg.decode_reply, script.replies) if isinstance(reply, msg.Report)]
    return found[-1].receipt if found else None

"""Audits of parties that serve strangers: client and owner together, and nobody without them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from puma.audit import report as reports
from puma.audit.auditing import Auditor
from puma.audit.report import Report
from puma.audit.shared import Shared
from puma.client.canaries.asking import ask_like, usual
from puma.client.session import Session
from puma.crypto.signing import Signer
from puma.errors import AdmissionError, PeerLost, UsageError
from puma.party.limits import Limits
from puma.reference.plain_model import PlainModel
from tests.audit.trio import CHANGES, Deviate, swaps
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.threads import pinned

pytestmark = pytest.mark.masks_again  # an auditor shares the model again, in this process
OWNER = Signer.fresh()


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=400))
    llama = tiny.llama(folder / "llama", num_hidden_layers=1)
    made.clear = made.share(llama, "llama", owner=OWNER.fingerprint)  # type: ignore[attr-defined]
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


def shared(parties: Sessions) -> Shared:
    clear: PlainModel = parties.clear  # type: ignore[attr-defined]
    assert parties.plan is not None
    return Shared(parties.plan, clear.params)


def opened(session: Session) -> None:
    assert session.open("llama")


def audited(
    parties: Sessions, of: Shared, owner: Signer | None = OWNER, rank: int = 0, deviate: Deviate | None = None
) -> Report:
    def ask(session: Session) -> None:
        if deviate is not None:
            deviate(parties.servers[rank])
        ask_like(session, usual(session.served, 3, 2))

    with parties.session() as session:
        return Auditor(Signer.fresh(), owner, of).audit(session, opened, ask)


def test_honest_parties_are_not_accused(parties: Sessions) -> None:
    report = audited(parties, shared(parties))
    assert report.findings == [] and report.model == "llama"
    assert reports.verify(report, pinned(parties.notaries), shared(parties)) == []


def test_who_deviates_is_named(parties: Sessions) -> None:
    report = audited(parties, shared(parties), OWNER, 1, swaps(9, CHANGES["shifted"]))
    assert report.accused == ["P1"]
    assert reports.verify(report, pinned(parties.notaries), shared(parties)) == report.findings


def test_a_client_alone_opens_nothing(parties: Sessions) -> None:
    with pytest.raises(AdmissionError, match="the model's owner has not agreed"):
        audited(parties, shared(parties), None)


def test_the_wrong_weights_accuse_nobody(parties: Sessions) -> None:
    """Another checkpoint, or the seeds of another sharing, is the auditor's mistake."""
    right = shared(parties)
    other = {name: tensor + 0.5 for name, tensor in right.params.items()}
    seeds = msgspec.structs.replace(right.plan, seeds=right.plan.seeds[::-1])
    for wrong in (Shared(right.plan, other), Shared(seeds, right.params)):
        with pytest.raises(UsageError, match="are not of the model that the parties serve"):
            audited(parties, wrong)

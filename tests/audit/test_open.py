"""Models with open weights: a client audits alone, of these weights and no others, and anybody can verify it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.audit import report as reports
from puma.audit.auditing import Auditor
from puma.audit.here import shared_by
from puma.audit.report import Report
from puma.audit.shared import Shared, again, in_the_open, over, write
from puma.client.canaries.asking import ask_like, usual
from puma.client.public.table import PublicTable
from puma.client.session import Session
from puma.crypto.signing import Signer
from puma.errors import PeerLost, ProtocolError, UsageError
from puma.local.cluster import LocalCluster
from puma.party.limits import Limits
from puma.reference.plain_model import PlainModel
from tests.audit.trio import CHANGES, corrects
from tests.local.test_private_adapters import adapter
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.threads import Threads, pinned

pytestmark = pytest.mark.masks_again  # an auditor computes with the same weights again, in this process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open")


@pytest.fixture(scope="module")
def clear(folder: Path) -> PlainModel:
    return PlainModel(tiny.llama(folder / "llama", num_hidden_layers=1))


@pytest.fixture(scope="module")
def parties(folder: Path, clear: PlainModel) -> Iterator[tuple[Sessions, PublicTable]]:
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=400))
    yield made, made.open_up(folder / "llama", "open")
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


def served(parties: Sessions, params: Any) -> Shared:
    """As a client finds it at the parties."""
    with parties.session() as session:
        assert session.open("open") and session.config is not None and session.card is not None
        return in_the_open(session.config, session.card, session.sharing, params)


def audited(known: tuple[Sessions, PublicTable], of: Shared, deviate: Callable[[Any], None] | None = None) -> Report:
    """By a client alone."""
    parties, table = known

    def use(session: Session) -> None:
        assert session.open("open")
        session.table = table

    def ask(session: Session) -> None:
        if deviate is not None:
            deviate(parties.servers[0])
        ask_like(session, usual(session.served, 3, 2))

    with parties.session() as session:
        return Auditor(Signer.fresh(), None, of).audit(session, use, ask)


def test_a_client_alone_audits_and_anybody_verifies(
    parties: tuple[Sessions, PublicTable], clear: PlainModel, tmp_path: Path
) -> None:
    shared = served(parties[0], clear.params)
    report = audited(parties, shared)
    assert report.findings == [] and report.public == shared.plan
    reports.write(report, tmp_path / "report")
    found = reports.read(tmp_path / "report")
    assert found.public is not None and not found.public.seeds
    plan = found.public
    again = in_the_open(plan.config, plan.card, plan.sharing, clear.params)
    assert reports.verify(found, pinned(parties[0].notaries), again) == []


def test_who_deviates_is_named(parties: tuple[Sessions, PublicTable], clear: PlainModel) -> None:
    report = audited(parties, served(parties[0], clear.params), corrects(4, CHANGES["shifted"]))
    assert report.accused == ["P0"]


def test_the_wrong_weights_accuse_nobody(parties: tuple[Sessions, PublicTable], clear: PlainModel) -> None:
    other = PlainModel(tiny.edit(tiny.llama(parties[0].folder / "other", num_hidden_layers=1), _negated))
    with pytest.raises(UsageError, match="these are not the weights of open that the parties serve in the open"):
        served(parties[0], other.params)
    shared = served(parties[0], clear.params)
    report = audited(parties, shared)
    card = msgspec.structs.replace(shared.plan.card, version="2")
    for change in ({"card": card}, {"sharing": bytes(16)}):
        public = msgspec.structs.replace(shared.plan, **change)
        lie = reports.sign(msgspec.structs.replace(report, public=public), Signer.fresh())
        with pytest.raises((UsageError, ProtocolError), match="not of the model that the parties serve"):
            reports.verify(lie, pinned(parties[0].notaries))


def test_an_adapter_over_open_weights_is_its_owners(folder: Path, tmp_path: Path) -> None:
    """Its seeds are kept; its base is known to everybody, and named in the report."""
    clear = PlainModel(folder / "llama", adapter(tmp_path / "adapter"))
    with closing(Threads()) as trio:
        cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
        shared = shared_by(cluster)
        report = Auditor(Signer.fresh(), None, shared).audit(
            trio.session, None, lambda session: ask_like(session, usual(session.served, 3, 2))
        )
        assert report.findings == [] and report.public is None and report.over is not None
        write(tmp_path / "sharing", shared.plan)
        known = again(clear, tmp_path / "sharing", None, report.over)
        assert reports.verify(report, pinned(trio.notaries[:3]), known) == []
        assert shared.base is not None
        another = replace(shared.base, plan=msgspec.structs.replace(shared.base.plan, sharing=bytes(16)))
        with pytest.raises(UsageError, match="was not shared over"):
            over(shared.plan, another, shared.params)


def _negated(state: dict[str, Any]) -> None:
    for name in state:
        state[name] = -state[name]

"""Honest parties are never accused, and a report shows what it shows to whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.audit import report as reports
from puma.audit.auditing import Auditor
from puma.audit.report import Report
from puma.audit.shared import Shared
from puma.client.canaries.asking import ask_like, usual
from puma.client.evidence.authority import Pinned
from puma.client.session import Session
from puma.crypto.signing import Signer, fingerprint_of
from puma.errors import ProtocolError, StoreError
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate, Input, Pace
from tests.audit.trio import CHANGES, canary, canary_of, swaps
from tests.models import tiny
from tests.threads import Threads

pytestmark = pytest.mark.masks_again  # an auditor shares the model again, in this process


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.bert(tmp_path_factory.mktemp("bert"), num_hidden_layers=1))


def like(*said: Any) -> Callable[[Session], None]:
    return lambda session: ask_like(session, said)


GENERATED = [
    like(Generate(Input([3, 2], []), 3)),
    like(Generate(Input([3], []), 4, paced=True), Pace(True), Pace(False)),
    like(Generate(Input([2], []), 2, temperature=0.7)),
    like(Generate(Input([16], [], padded=True), 2)),
]


@pytest.mark.parametrize("ask", GENERATED, ids=["plain", "paced", "drawn", "padded"])
def test_honest_parties_that_generate_are_not_accused(ask: Callable[[Session], None], llama: PlainModel) -> None:
    report = canary_of(llama, ask)
    assert report.findings == [] and report.expected.outputs[0]


def test_honest_parties_that_encode_are_not_accused(bert: PlainModel) -> None:
    kinds = [
        Encode(Input([3, 4], [], types=[0, 0, 1, 0, 0, 0, 1]), "pooled"),
        Encode(Input([16], [], padded=True), "hidden"),
    ]
    assert canary_of(bert, lambda session: [ask_like(session, [kind]) for kind in kinds]).findings == []


def test_a_usual_request_is_one_that_the_model_takes(bert: PlainModel, llama: PlainModel) -> None:
    for model in (bert, llama):
        assert canary_of(model, lambda session: ask_like(session, usual(session.served, 4, 2))).findings == []


def test_what_is_asked_means_nothing(llama: PlainModel) -> None:
    """Two canaries alike ask for different tokens, and their masks have nothing in common."""
    one, other = (canary_of(llama, GENERATED[0]) for _ in range(2))
    assert one.scripts[1].frames != other.scripts[1].frames and one.nonce != other.nonce
    assert one.expected.trails[1] != other.expected.trails[1]


# -- reports ----------------------------------------------------------------------------------------------------------


def keys(report: Report) -> Pinned:
    return Pinned([fingerprint_of(pledge.key) for pledge in report.pledges])


def test_a_report_is_written_read_and_verified(llama: PlainModel, tmp_path: Path) -> None:
    with closing(Threads()) as trio:
        cluster = LocalCluster(llama, trio=trio)  # type: ignore[arg-type]
        assert cluster.sharing is not None
        shared = Shared(cluster.sharing, llama.params)
        swaps(4, CHANGES["shifted"])(trio.servers[2])
        report = Auditor(Signer.fresh(), shared=shared).audit(trio.session, None, GENERATED[1])
    reports.write(report, tmp_path / "report.json")
    found = reports.read(tmp_path / "report.json")
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o600
    assert found == report and found.accused == ["P2"] and "secret" not in repr(found)
    assert reports.verify(found, keys(found)) == reports.verify(found, keys(found), shared) == report.findings
    other = Shared(msgspec.structs.replace(shared.plan, seeds=shared.plan.seeds[::-1]), llama.params)
    with pytest.raises(ProtocolError, match="something else than the report says"):
        reports.verify(found, keys(found), other)
    with pytest.raises(ProtocolError, match="what P0 is said to have signed does not hold"):
        reports.verify(found, Pinned([Signer.fresh().fingerprint] * 3))


def forged(report: Report, **other: Any) -> Report:
    """As an auditor who wants to accuse somebody would sign it."""
    return reports.sign(msgspec.structs.replace(report, **other), Signer.fresh())


def test_a_report_that_was_changed_is_not_believed() -> None:
    report = canary(1, swaps(0, CHANGES["zeros"]))
    innocent = msgspec.structs.replace(report.findings[0], parties=[2])
    with pytest.raises(ProtocolError, match="auditor's signature"):
        reports.verify(msgspec.structs.replace(report, findings=[]), keys(report))
    changes: list[tuple[str, dict[str, Any]]] = [
        ("findings do not follow", {"findings": [innocent]}),
        ("findings do not follow", {"findings": []}),
        ("not committed to as a canary", {"nonce": bytes(32)}),
        ("P1 is said to have signed", {"disclosures": [report.disclosures[0]] * 3}),
        ("does not hold", {"pledges": [report.pledges[0], report.pledges[2], report.pledges[1]]}),
        ("2 parties have signed", {"disclosures": report.disclosures[:2]}),
        ("the receipt of P0", {"receipts": [report.receipts[1]] * 3}),
    ]
    for says, change in changes:
        with pytest.raises(ProtocolError, match=says):
            reports.verify(forged(report, **change), keys(report))
    assert reports.verify(forged(report), keys(report)) == report.findings


def test_an_accusation_that_was_made_up_falls_when_it_is_computed_again() -> None:
    """An auditor can claim that honest parties would have sent something else; the replay shows that they would not."""
    report = canary()
    wrong = canary().expected
    trails, keyed = wrong.trails, keys(report)
    lie = msgspec.structs.replace(report.expected, trails=trails)
    found = reports.judged(lie, *reports.said(report.pledges, report.disclosures, keyed, 0), report.scripts)
    made_up = forged(report, expected=lie, findings=found)
    assert found and reports.verify(made_up, keyed) == found  # without the model its word stands
    with pytest.raises(ProtocolError, match="something else than the report says"):
        reports.verify(made_up, keyed, again=True)


def test_what_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("{}")
    with pytest.raises(StoreError, match="is no report of an audit"):
        reports.read(tmp_path / "no")
    report = canary()
    reports.write(report, tmp_path / "one")
    with pytest.raises(StoreError):
        reports.write(report, tmp_path / "one")

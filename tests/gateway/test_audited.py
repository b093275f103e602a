"""Where parties are audited, a session is for one request, and nothing is asked after a finding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from puma.audit.scheduled import Audited, Schedule
from puma.audit.verdict import Finding
from puma.cli.app import run
from puma.errors import ProtocolError
from puma.gateway.load.worker import Seat, Worker
from puma.wire.messages import Generate, Input


def stub() -> Any:
    """A cluster whose session has answered its one request once `over` is set."""
    session = SimpleNamespace(said=[Generate(Input([3], []), 2)], early=0, once=False, over=False, links=[])
    return SimpleNamespace(session=session, close=lambda: None)


def test_each_request_has_a_session_of_its_own() -> None:
    made, shapes = list[Any](), list[Any]()
    schedule = Schedule(lambda ask: shapes.append(ask) or SimpleNamespace(findings=[]), 1, lambda _: None)  # type: ignore[arg-type]

    def start() -> Any:
        made.append(stub())
        return Audited(made[-1], schedule)

    worker = Worker(start, 4)
    try:
        seat, other = Seat(), Seat()
        worker._seats += [seat, other]
        first = worker._session(seat)
        assert worker._session(seat) is first and made[0].session.once
        assert worker._session(other) is None, "and nobody is asked beside it"
        made[0].session.over = True
        assert worker._session(seat) is not first and len(made) == 2
    finally:
        worker.close()
    schedule.close()
    assert len(shapes) == 2  # of each session that was closed


def test_after_a_finding_no_session_is_opened() -> None:
    finding = Finding([2], "it sent something else")
    schedule = Schedule(lambda _: SimpleNamespace(findings=[finding]), 1, lambda _: None)  # type: ignore[arg-type]
    schedule.over([Generate(Input([3], []), 2)])
    schedule.close()
    with pytest.raises(ProtocolError, match="P2: it sent something else"):
        schedule.check()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--audit-every", "5"], "needs --cluster, --audit-model, --audit-owner and --audit-sharing"),
        (["--audit-owner", "o.key"], "go with --audit-every"),
    ],
)
def test_what_belongs_together(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gateway", *words]) == 2
    assert says in capsys.readouterr().err

"""Where parties are audited, a session is for one request, and nothing is asked after a finding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puma.audit.auditing import Auditor
from puma.audit.report import Report
from puma.audit.scheduled import Audited, Schedule
from puma.audit.shared import Shared
from puma.audit.verdict import Finding
from puma.cli.app import run
from puma.client.canaries.opening import commit
from puma.client.connect import RemoteCluster
from puma.crypto.signing import Signer
from puma.errors import PeerLost, ProtocolError
from puma.gateway.load.worker import Seat, Worker
from puma.party.limits import Limits
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Input
from tests.audit.trio import CHANGES, swaps
from tests.gateway.conftest import openai, serving, until
from tests.live import Live
from tests.party.sessions import Sessions

OWNER = Signer.fresh()


def stub() -> Any:
    """A cluster whose session has answered its one request once `over` is set."""
    said = [Generate(Input([3], []), 2)]
    session = SimpleNamespace(said=said, early=0, once=False, over=False, links=[], before=[], variants="lean")
    return SimpleNamespace(session=session, close=lambda: None)


def test_each_request_has_a_session_of_its_own() -> None:
    made = list[Any]()
    schedule = Schedule(lambda _: SimpleNamespace(findings=[]), 1, lambda _: None)  # type: ignore[arg-type]

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
        made[0].session.over, seat.asks = True, False  # its answer is there, and what came of it has been told
        assert worker._session(seat) is not first and len(made) == 2
        assert all(len(each.session.before) == 1 for each in made), "each asks whether a canary is due"
    finally:
        worker.close()
    schedule.close()


def test_after_a_finding_no_session_is_opened() -> None:
    finding = Finding([2], "it sent something else")
    schedule = Schedule(lambda _: SimpleNamespace(findings=[finding]), 1, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="P2: it sent something else"):
        for _ in range(2):
            schedule.about(Generate(Input([3], []), 2))
            schedule.close()


@pytest.fixture(scope="module")
def parties(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    made = Sessions(tmp_path_factory.mktemp("parties"), Limits(sessions=8, tokens=400))
    made.share(llama, "llama", owner=OWNER.fingerprint)
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


class Mine(RemoteCluster):
    """A session that may be a canary, as far as the parties know."""

    def __init__(self, parties: Sessions, clear: PlainModel) -> None:
        self._open = ExitStack()
        session = self._open.enter_context(parties.session())
        commit(session)
        assert session.open("llama")
        super().__init__(session, clear)

    def close(self) -> None:
        self._open.close()


@pytest.mark.masks_again  # an auditor shares the model again, in this process
def test_a_gateway_audits_its_parties_until_one_deviates(llama: Path, parties: Sessions) -> None:
    told, deviates = list[Any](), [False]
    clear = PlainModel(llama)
    assert parties.plan is not None
    auditor = Auditor(Signer.fresh(), OWNER, Shared(parties.plan, clear.params))

    def opened(session: Any) -> None:
        assert session.open("llama")

    def one(ask: Callable[[Any], None]) -> Report:
        def asking(session: Any) -> None:
            if deviates[0]:
                swaps(9, CHANGES["shifted"])(parties.servers[1])
            ask(session)

        with parties.session() as session:
            return auditor.audit(session, opened, asking)

    schedule = Schedule(one, 1, told.append)
    with serving(llama, begin=lambda: Audited(Mine(parties, clear), schedule)) as served:
        ask = partial(served.client.completions.create, model="tiny", prompt="the cat", max_tokens=3, temperature=0)
        first = ask()
        assert first.choices[0].text == ask().choices[0].text
        several = served.client.completions.create(model="tiny", prompt=["the cat", "a"], max_tokens=3, temperature=0)
        assert several.choices[0].text == first.choices[0].text
        until(lambda: not schedule._busy and told)
        assert all(each.findings == [] for each in told), told
        deviates[0], before = True, len(told)
        with pytest.raises(openai.APIStatusError, match="P1: it sent P2 something else than the protocol says"):
            for _ in range(9):
                ask()
                until(lambda: not schedule._busy)
        assert len(told) == before + 1 and told[-1].accused == ["P1"]
        with pytest.raises(openai.APIStatusError, match="P1"):
            ask()
    schedule.close()


@pytest.mark.slow
@pytest.mark.processes
def test_a_gateway_command_audits_three_daemons(llama: Path, tmp_path: Path) -> None:
    sharing, state = tmp_path / "sharing", {"XDG_STATE_HOME": str(tmp_path / "state")}
    with Live(tmp_path) as live:
        cluster = ("--cluster", str(live.file))
        owned = ("--as", str(live.key("olga")), "--name", "tiny", "--keep", str(sharing))
        shared = live.run("share", str(llama), *cluster, *owned)
        assert shared.returncode == 0, shared.stderr
        words = ["gateway", *cluster, "--as", str(live.key("alice")), "--model", "tiny", "--port", "0", "--json"]
        words += ["--audit-every", "1", "--audit-model", str(llama), "--audit-owner", str(live.key("olga"))]
        words += ["--audit-sharing", str(sharing)]
        line = [sys.executable, "-m", "puma.cli.app", *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=os.environ | state) as gateway:
            assert gateway.stdout is not None and gateway.stderr is not None
            url = json.loads(gateway.stdout.readline())["url"]
            try:
                with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
                    for _ in range(3):
                        client.completions.create(model="tiny", prompt="the cat", max_tokens=2, temperature=0)
            finally:
                gateway.terminate()
            notes = gateway.stderr.read()
        assert "all three parties did what they should have" in notes and "AUDIT" not in notes, notes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--audit-every", "5"], "needs --cluster, --audit-model and, of hidden weights"),
        (["--audit-owner", "o.key"], "go with --audit-every"),
    ],
)
def test_what_belongs_together(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gateway", *words]) == 2
    assert says in capsys.readouterr().err

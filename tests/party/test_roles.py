"""What a client and an owner may ask, held by each party for itself, whatever program the guest runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from puma.client.session import SELFTEST
from puma.errors import AdmissionError, PolicyError
from puma.party.limits import Limits
from puma.wire import messages as msg
from tests.models import tiny
from tests.party.sessions import Role, Sessions

NAME = "model"


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """A cluster that lets clients see logits, with a model whose owner does not."""
    folder = tmp_path_factory.mktemp("roles")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=200, reveal_logits=True))
    made.share(tiny.llama(folder / "llama", num_hidden_layers=1), NAME)
    yield made


def said(session: Any, request: msg.Request) -> None:
    """The same to all parties, past what the client's own program would refuse; raises what they answer."""
    for link in session.links:
        link.send_control(msg.encode(request))
    session._replies(msg.Report)


ASKED: list[tuple[Role, msg.Request]] = [
    ("client", msg.Delete(NAME)),
    ("client", msg.Publish()),
    ("owner", msg.Open(NAME)),
    ("owner", msg.Take(b"i" * 16)),
    ("owner", msg.Generate(msg.Input([2], []), 1)),
    ("owner", msg.Encode(msg.Input([2], []), "hidden")),
]


@pytest.mark.parametrize(("role", "request_"), ASKED, ids=lambda value: getattr(value, "__class__", str).__name__)
def test_a_role_may_ask_what_is_listed_for_it(parties: Sessions, role: Role, request_: msg.Request) -> None:
    with parties.session(role) as session, pytest.raises(AdmissionError, match=f"as {role} may not ask"):
        said(session, request_)
    assert {failure.kind for failure in parties.failures} == {"AdmissionError"}
    assert all([listed.card.name for listed in library.models()] == [NAME] for library in parties.libraries)


def test_logits_step_by_step_are_refused_by_all_three(parties: Sessions) -> None:
    with parties.session() as session:
        assert session.open(NAME)
        with pytest.raises(PolicyError, match="does not let clients see logits"):
            said(session, msg.Generate(msg.Input([2], []), 2, reveal=True, paced=True))
    assert {failure.kind for failure in parties.failures} == {"PolicyError"}


def test_no_client_is_told_how_much_memory_a_party_takes(parties: Sessions) -> None:
    """Of a process that serves others, too, that would tell how large their requests are."""
    with parties.session() as session:
        session.open(NAME)
        session._begin([SELFTEST])
        session._send(lambda _: msg.SelfTest(), [b"", b""])
        session._result()
        assert [report.peak_rss_mib for report in session._reports()] == [0.0] * 3

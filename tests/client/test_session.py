"""The client's end of a session on links that play back what three parties could say."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch

from puma import kernels
from puma.client.session import Session
from puma.errors import PeerLost, ProtocolError, PumaError, RangeError
from puma.models.config import Llama
from puma.wire import messages as msg

BITS, FRAC = 34, 14
CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
REPORT = msg.encode(msg.Report([], 0.0, 0.0, 0.0, 0.0))


class Playback:
    """A link that forgets what is sent, and receives what was laid in."""

    def __init__(self, rank: int) -> None:
        self.peer = f"P{rank}"
        self.lost = False
        self.control: deque[bytes] = deque()
        self.data: deque[bytes] = deque()

    def send_control(self, payload: bytes) -> None: ...

    def send(self, *payload: Any) -> None: ...

    def recv_control(self) -> bytes:
        return self.control.popleft()

    def recv(self, size: int) -> memoryview:
        assert len(self.data[0]) == size
        return memoryview(bytearray(self.data.popleft()))


@pytest.fixture
def session() -> Session:
    made = Session([Playback(rank) for rank in range(3)])
    made.config = CONFIG
    return made


def lay(session: Session, value: float, broken: tuple[int, int] | None = None) -> None:
    """An answer in three shares; `broken` names a party and a component whose copy is off by one."""
    l1, l2 = torch.tensor([12345678901]), torch.tensor([9876543210])
    m = l1 + l2 + int(value * 2**FRAC)
    for rank, held in enumerate(((l1, l2), (m, l1), (m, l2))):
        parts = [part + int(broken == (rank, i)) for i, part in enumerate(held)]
        session.links[rank].control.append(msg.encode(msg.Result((1,), BITS, FRAC)))
        session.links[rank].data.append(b"".join(kernels.pack(p, BITS).numpy().tobytes() for p in parts))


def report(session: Session) -> None:
    for link in session.links:
        link.control.append(REPORT)


def test_three_shares_are_one_answer(session: Session) -> None:
    lay(session, -1.25)
    report(session)
    assert [float(x) for x in session.encode([[1, 2]], "pooled")] == [-1.25]


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("component", [0, 1])
def test_copies_that_differ_end_the_session(session: Session, rank: int, component: int) -> None:
    lay(session, 1.0, broken=(rank, component))
    with pytest.raises(ProtocolError, match="different copies"):
        session.encode([[1, 2]], "pooled")
    with pytest.raises(ProtocolError, match="has ended"):
        session.encode([[1, 2]], "pooled")


def test_a_lost_party_is_named_though_others_have_answers(session: Session) -> None:
    lay(session, 1.0)
    session.links[2].control[0] = msg.encode(msg.Failed("PeerLost", "P1 is gone", "look at its log"))
    session.links[2].lost = True
    with pytest.raises(PeerLost, match="P1 is gone"):
        session.selftest()
    assert session.links[0].control


def test_a_report_is_no_result(session: Session) -> None:
    report(session)
    with pytest.raises(ProtocolError, match="P0 sent a report where a result was expected"):
        session.selftest()


def test_a_result_is_no_report(session: Session) -> None:
    lay(session, 1.0)
    lay(session, 1.0)
    with pytest.raises(ProtocolError, match="a result instead of a report"):
        session.selftest()


@pytest.mark.parametrize(
    ("kind", "raised"), [("RangeError", RangeError), ("annotations", ProtocolError), ("open", ProtocolError)]
)
def test_a_party_that_fails_is_heard(session: Session, kind: str, raised: type[PumaError]) -> None:
    session.links[0].control.append(msg.encode(msg.Failed(kind, "too large", "scale it")))
    with pytest.raises(raised, match="too large") as failure:
        session.selftest()
    assert failure.value.hint == "scale it"

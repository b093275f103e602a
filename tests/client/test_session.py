"""The client's end of a session on links that play back what three parties could say."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puma import kernels
from puma.client.session import Session
from puma.errors import PeerLost, ProtocolError, PumaError, RangeError
from puma.models.config import Llama
from puma.wire import messages as msg

CONFIG = Llama(vocab_size=6, hidden_size=8, intermediate_size=8, layers=1, heads=2)
BITS, FRAC, SHAPE = 30, 14, (1, CONFIG.hidden_size)
HONEST = msg.Result(SHAPE, BITS, FRAC)
TOKEN = msg.Result((1,), 3, 0)
FLAG = msg.Result((1,), 64, 0)
REPORT = msg.encode(msg.Report([], 0.0, 0.0, 0.0, 0.0))


class Playback:
    """A link that forgets what is sent, and receives what was laid in."""

    def __init__(self, rank: int) -> None:
        self.peer = f"P{rank}"
        self.lost = False
        self.control: deque[bytes] = deque()
        self.data: deque[bytes] = deque()
        self.sent = 0

    def send_control(self, payload: bytes) -> None:
        self.sent += 1

    def send(self, *payload: Any) -> None:
        self.sent += 1

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


def lay(
    session: Session, value: float, broken: tuple[int, int] | None = None, header: msg.Result = HONEST,
    headers: dict[int, bytes] | None = None, flag: int | None = 0,
) -> None:  # fmt: skip
    """An answer in three shares; `broken` names a party and a component whose copy is off by one, and `headers` what
    parties say instead of the header. Behind it comes the `flag` of its one prompt, if any."""
    l1, l2 = torch.full(header.shape, 12345678901), torch.full(header.shape, 9876543210)
    m = l1 + l2 + int(value * 2**header.frac)
    for rank, held in enumerate(((l1, l2), (m, l1), (m, l2))):
        parts = [part + int(broken == (rank, i)) for i, part in enumerate(held)]
        session.links[rank].control.append((headers or {}).get(rank, msg.encode(header)))
        session.links[rank].data.append(b"".join(kernels.pack(p, header.bits).numpy().tobytes() for p in parts))

    if flag is not None:
        lay(session, flag, header=FLAG, flag=None)


def report(session: Session) -> None:
    for link in session.links:
        link.control.append(REPORT)


def test_three_shares_are_one_answer(session: Session) -> None:
    lay(session, -1.25)
    report(session)
    assert [x.tolist() for x in session.encode([[1, 2]], "pooled")] == [[-1.25] * CONFIG.hidden_size]


@pytest.mark.parametrize("index", [0, 5])
def test_three_shares_are_one_token(session: Session, index: int) -> None:
    lay(session, index, header=TOKEN)
    report(session)
    assert list(session.continued([[1, 2]], 1)) == [[index]]


@pytest.mark.parametrize("index", [6, 7, -1])
def test_an_index_that_there_is_not_ends_the_session(session: Session, index: int) -> None:
    lay(session, index, header=TOKEN)
    with pytest.raises(ProtocolError, match="beyond the 6"):
        next(session.continued([[1, 2]], 1))
    assert session.over


WILD = st.one_of(
    st.builds(
        msg.Result,
        st.lists(st.integers(0, 1 << 40), max_size=4).map(tuple) | st.just(SHAPE) | st.just((1,)),
        st.integers(1, 64) | st.sampled_from([3, BITS]),
        st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, FRAC, -3000, 5000]),
    ).map(msg.encode),
    st.sampled_from([REPORT, msg.encode(msg.Opened(b"", None)), msg.encode(msg.Taken("")), msg.encode(msg.Held(1))]),
    st.binary(max_size=40),
)


@settings(max_examples=300, deadline=None)
@given(rank=st.integers(0, 2), wild=WILD, tokens=st.booleans())
def test_nobody_alone_says_how_an_answer_is_read(rank: int, wild: bytes, tokens: bool) -> None:
    """Whatever one party says instead of a header: a ProtocolError that names it, before a word is read."""
    session = Session([Playback(rank) for rank in range(3)])
    session.config = CONFIG
    honest = TOKEN if tokens else HONEST
    if wild == msg.encode(honest):
        return
    lay(session, 1.0, header=honest, headers={rank: wild})
    with pytest.raises(ProtocolError) as failure:
        next(session.continued([[1, 2]], 1)) if tokens else session.encode([[1, 2]], "pooled")
    assert f"P{rank}" in failure.value.message or "a message cannot be read" in failure.value.message
    assert session.over and all(link.data for link in session.links)
    asked = [link.sent for link in session.links]
    with pytest.raises(ProtocolError, match="has ended"):
        session.selftest()
    assert [link.sent for link in session.links] == asked, "the session asked again"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_report_that_makes_no_sense_ends_the_session(session: Session, seconds: float) -> None:
    lay(session, 1.0)
    report(session)
    session.links[1].control[2] = msg.encode(msg.Report([], 0.0, 0.0, seconds, 0.0))
    with pytest.raises(ProtocolError, match="P1 sent a report that makes no sense"):
        session.encode([[1, 2]], "pooled")
    assert session.over


def test_what_a_party_says_cannot_steer_a_terminal(session: Session) -> None:
    session.links[0].control.append(msg.encode(msg.Failed("RangeError", "too\x1b[2J large", "a\nb")))
    with pytest.raises(RangeError) as failure:
        session.selftest()
    assert (failure.value.message, failure.value.hint) == ("too?[2J large", "a?b")


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("component", [0, 1])
def test_copies_that_differ_end_the_session(session: Session, rank: int, component: int) -> None:
    lay(session, 1.0, broken=(rank, component))
    holders = [(0, 1), (0, 2), (1, 2)][[(0, 1), (2, 0), (2, 1)][rank][component]]
    with pytest.raises(ProtocolError, match=rf"different copies .*: P{holders[0]} or P{holders[1]} differs"):
        session.encode([[1, 2]], "pooled")
    with pytest.raises(ProtocolError, match="has ended"):
        session.encode([[1, 2]], "pooled")


def test_who_differs_twice_is_named(session: Session) -> None:
    lay(session, 1.0)
    session.links[2].data[0] = bytes(len(session.links[2].data[0]))
    with pytest.raises(ProtocolError, match=r"different copies .*: P2 differs"):
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
    with pytest.raises(ProtocolError, match="P0 sent a result instead of a report"):
        session.encode([[1, 2]], "pooled")


@pytest.mark.parametrize(
    ("kind", "raised"), [("RangeError", RangeError), ("annotations", ProtocolError), ("open", ProtocolError)]
)
def test_a_party_that_fails_is_heard(session: Session, kind: str, raised: type[PumaError]) -> None:
    session.links[0].control.append(msg.encode(msg.Failed(kind, "too large", "scale it")))
    with pytest.raises(raised, match="too large") as failure:
        session.selftest()
    assert failure.value.hint == "scale it"


def test_a_model_is_open_only_if_all_parties_say_the_same_of_it(session: Session) -> None:
    """One party alone could else choose the policy, the config or the sharing that a client asks under."""
    mine = msg.Opened(bytes(16), CONFIG, msg.Card("m"))
    other = [
        msg.Opened(bytes([1] * 16), CONFIG, msg.Card("m")), msg.Opened(bytes(16), CONFIG, msg.Card("m", "2")),
        msg.Opened(bytes(16), CONFIG, msg.Card("m"), True), msg.Opened(b"", None),
    ]  # fmt: skip
    for odd in other:
        for rank in range(3):
            for link in session.links:
                link.control.append(msg.encode(odd if link.peer == f"P{rank}" else mine))
            assert not session.open("m")
    for link in session.links:
        link.control.append(msg.encode(mine))
    assert session.open("m")

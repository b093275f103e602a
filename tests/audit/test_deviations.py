"""Whatever one party does otherwise in a canary is found, and nobody else is accused of it."""

from __future__ import annotations

from typing import Any

import pytest

from puma.audit.report import Report
from puma.client.session import Session
from puma.crypto.prg import fresh_secret
from puma.errors import ProtocolError, ReceiptError
from puma.mpc.party import Piece
from puma.net import chain, endpoint
from puma.party.server import Server
from puma.reference.plain_model import PlainModel
from puma.wire import canaries
from puma.wire import messages as msg
from tests.audit import trio
from tests.audit.trio import CHANGES, Deviate, answers, canary, canary_of, corrects, drops_a_pad, other_secret, swaps
from tests.models import tiny

pytestmark = pytest.mark.masks_again  # an auditor shares the model again, in this process

CORRECTIONS, PIECES = 5, 7  # of a self-test: one-hot, bits' products, three deals; words, rows of bits, bits
DEALT = [
    (0, f"correction {n}, {how}", corrects(n, change)) for n in range(CORRECTIONS) for how, change in CHANGES.items()
]
SWAPPED = [
    (rank, f"piece {n}, {how}", swaps(n, change))
    for rank in (1, 2) for n in range(PIECES) for how, change in list(CHANGES.items())[::2]
]  # fmt: skip
PADS = [
    (0, "half of a deal", drops_a_pad("deal", 0)), (0, "half of a one-hot", drops_a_pad("one-hot", 0)),
    (0, "half of products", drops_a_pad("bit-deal", 0)), (0, "mask", drops_a_pad("mask", 0)),
    *((rank, f"mask {n}", drops_a_pad("mask", n)) for rank in (1, 2) for n in (0, 2)),
    *((rank, f"bits {n}", drops_a_pad("bit", n)) for rank in (1, 2) for n in (0,)),
    (1, "half of a deal", drops_a_pad("deal", 1)), (1, "half of a one-hot", drops_a_pad("one-hot", 0)),
]  # fmt: skip
KEYS = [
    (0, "key of P1", other_secret(1)),
    (0, "key of P2", other_secret(2)),
    (1, "key of P0", other_secret(0)),
    (2, "key of P0", other_secret(0)),
]
ANSWERS = [(rank, f"component {c}", answers(c, 2)) for rank in range(3) for c in (0, 1)]
TABLE = [*DEALT, *SWAPPED, *PADS, *KEYS, *ANSWERS]


def accuses(report: Report, rank: int) -> bool:
    """This party alone, in every finding."""
    return bool(report.findings) and all(finding.parties == [rank] for finding in report.findings)


@pytest.mark.parametrize(("rank", "what", "deviate"), TABLE, ids=lambda x: x if isinstance(x, str) else None)
def test_a_deviation_is_found_and_named(rank: int, what: str, deviate: Deviate) -> None:
    report = canary(rank, deviate)
    assert accuses(report, rank), (what, report.findings)


def test_there_are_many() -> None:
    assert len(TABLE) >= 60 and len({(rank, what) for rank, what, _ in TABLE}) == len(TABLE)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


def two_tokens(session: Session) -> None:
    for _ in session.continued([[2, 5, 7]], 2, paced=True):
        pass


MODELS: list[tuple[int, str, Deviate]] = [
    *((rank, f"other weights, component {c}", trio.parameter(3, c)) for rank, c in ((0, 0), (0, 1), (1, 0), (2, 0))),
    *((rank, "other input", trio.input_of) for rank in range(3)),
]


@pytest.mark.parametrize(("rank", "what", "deviate"), MODELS, ids=lambda x: x if isinstance(x, str) else None)
def test_another_model_or_input_is_found(rank: int, what: str, deviate: Deviate, llama: PlainModel) -> None:
    report = canary_of(llama, two_tokens, rank, deviate)
    assert accuses(report, rank), report.findings


def test_an_earlier_request_replayed_is_found() -> None:
    """The evaluators' second self-test, in which P2 sends what it sent in the first."""
    before: list[Any] = []

    def deviate(server: Server) -> None:
        honest = server.party.exchange

        def exchange(pieces: list[Piece]) -> list[Any]:
            rounds = 4
            sent = before[len(before) - rounds] if len(before) >= rounds else pieces
            before.append(pieces)
            return honest(sent)

        server.party.exchange = exchange  # type: ignore[method-assign]

    report = canary(2, deviate, lambda session: [session.selftest(), session.selftest()])
    assert accuses(report, 2) and report.findings[0].frame is not None and report.findings[0].frame >= 4


# -- what ends the session at once ------------------------------------------------------------------------------------


def header(**other: Any) -> Deviate:
    """A party announces an answer otherwise."""

    def deviate(server: Server) -> None:
        honest = server.client.send_control

        def send_control(payload: bytes) -> None:
            reply = msg.decode_reply(payload)
            if isinstance(reply, msg.Result):
                payload = msg.encode(
                    msg.Result(**({"shape": reply.shape, "bits": reply.bits, "frac": reply.frac} | other))
                )
            honest(payload)

        server.client.send_control = send_control

    return deviate


@pytest.mark.parametrize("rank", range(3))
@pytest.mark.parametrize("other", [{"bits": 40}, {"frac": 3}, {"shape": (3, 2)}], ids=lambda o: next(iter(o)))
def test_another_announcement_ends_the_session_by_name(rank: int, other: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=f"^P{rank} sent a result of another shape or format"):
        canary(rank, header(**other))


@pytest.mark.parametrize(("rank", "short"), [(0, True), (1, True), (2, True), (0, False)])
def test_another_length_ends_the_session_by_name(rank: int, short: bool) -> None:
    """A frame too short, or none at all where one is waited for."""

    def deviate(server: Server) -> None:
        link: Any = server.party.links[2 if rank < 2 else 1]
        honest = link.send

        def send(*buffers: Any) -> None:
            if short:
                honest(b"".join(bytes(b) for b in buffers)[:-1])
            else:
                link.fail("tired")

        link.send = send

    says = f"P{rank} sent .* bytes in data frame 0" if short else "tired"  # as whoever is heard first has it
    with pytest.raises(ProtocolError, match=says):
        canary(rank, deviate)


FORGED = [(0, 2), (1, 2), (2, 1)]


@pytest.mark.parametrize(("rank", "peer"), FORGED)
def test_a_state_that_is_not_of_its_frame_ends_the_session_by_name(
    rank: int, peer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large frame is not what its sender hashed, and says what it hashes to: the receiver knows whose doing it is."""
    for room in (chain, endpoint):
        monkeypatch.setattr(room, "STAMPED", 1)
    assert canary().findings == []
    with pytest.raises(ProtocolError, match=f"P{rank} says of data frame 2 what it does not hash to"):
        canary(rank, trio.forges(peer, 2))


@pytest.mark.parametrize(("rank", "peer"), FORGED)
def test_a_small_frame_that_is_not_what_its_sender_says_is_one_of_two_parties(rank: int, peer: int) -> None:
    """Nobody else can know which of the two it was."""
    low, high = sorted((rank, peer))
    with pytest.raises(ReceiptError, match=f"P{low} or P{high}|P{high} or P{low}"):
        canary(rank, trio.forges(peer, 2))


# -- by the quick plan, with weights that grow, and beside a second dealer -----------------------------------------


def quickly(session: Session) -> None:
    session.variants = "quick"
    for _ in session.continued([[2, 5, 7]], 2, temperature=0.7):
        pass


def wide(piece: Piece) -> bool:
    """Of a ring in which products are opened."""
    return piece.bits > 32 and not piece.row


QUICKLY: list[tuple[int, str, Deviate, dict[str, Any]]] = [
    *((r, f"large ring {n}", trio.swaps_where(wide, n, CHANGES["shifted"]), {}) for r, n in ((1, 0), (2, 1))),
    *((0, f"correction {n}", corrects(n, CHANGES["low bit"]), {}) for n in (5, 40, 90)),
    *((r, f"piece {n}", swaps(n, CHANGES["last bit"]), {}) for r, n in ((1, 30), (2, 60))),
    (0, "correction 9 beside open weights", corrects(9, CHANGES["shifted"]), {"weights": "open"}),
    (1, "piece 12 beside open weights", swaps(12, CHANGES["zeros"]), {"weights": "open"}),
    (2, "piece 4 with two dealers", swaps(4, CHANGES["shifted"]), {"dealers": 2}),
]


@pytest.mark.parametrize(("rank", "what", "deviate", "how"), QUICKLY, ids=lambda x: x if isinstance(x, str) else None)
def test_a_deviation_in_another_plan_is_found(
    rank: int, what: str, deviate: Deviate, how: dict[str, Any], llama: PlainModel
) -> None:
    report = canary_of(llama, quickly, rank, deviate, **how)
    assert accuses(report, rank), report.findings


# -- lies about what was sent -----------------------------------------------------------------------------------------


def discloses(change: Any) -> Deviate:
    """A party follows the protocol, and lies when the canary is opened."""

    def deviate(server: Server) -> None:
        commitment = server._evidence.commitment
        honest = commitment._sign

        def sign(what: canaries.Pledge | canaries.Disclosure) -> Any:
            return honest(change(what) if isinstance(what, canaries.Disclosure) else what)

        commitment._sign = sign  # type: ignore[method-assign]

    return deviate


def other_secrets(what: canaries.Disclosure) -> canaries.Disclosure:
    return canaries.Disclosure(what.rank, what.session, what.commitment, [fresh_secret(), what.secrets[1]], what.trails)


def other_marks(what: canaries.Disclosure, direction: str) -> canaries.Disclosure:
    trails = {peer: {name: bytes(marks) for name, marks in each.items()} for peer, each in what.trails.items()}
    peer = "P1" if what.rank == 2 else "P2"
    marks = bytearray(trails[peer][direction])
    marks[8] ^= 1
    trails[peer][direction] = bytes(marks)
    return canaries.Disclosure(what.rank, what.session, what.commitment, what.secrets, trails)


@pytest.mark.parametrize("rank", range(3))
def test_a_party_that_discloses_another_secret_is_named(rank: int) -> None:
    assert accuses(canary(rank, discloses(other_secrets)), rank)


@pytest.mark.parametrize("rank", range(3))
def test_a_party_that_says_it_sent_something_else_is_named(rank: int) -> None:
    assert accuses(canary(rank, discloses(lambda what: other_marks(what, "sent"))), rank)


@pytest.mark.parametrize("rank", [1, 2])
def test_of_a_receiver_that_lies_both_ends_are_suspected(rank: int) -> None:
    """Nobody else can know which of the two it was."""
    (finding,) = canary(rank, discloses(lambda what: other_marks(what, "received"))).findings
    assert sorted(finding.parties) == [1, 2] and finding.frame == 1


def test_a_finding_names_party_and_frame() -> None:
    report = canary(1, swaps(0, CHANGES["shifted"]))
    assert [str(finding) for finding in report.findings] == [
        "P1: it sent P2 something else than the protocol says, from data frame 0 on"
    ]

"""Links from peers and the sessions that wait for them meet in any order; what waits is bounded."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from puma.errors import AdmissionError, PeerTimeout
from puma.net.tcp import Met
from puma.party.rendezvous import Rendezvous, room

ONE, TWO = b"1" * 16, b"2" * 16


class Link:
    """Remembers how it ended."""

    def __init__(self) -> None:
        self.lost, self.why = False, ""

    def fail(self, why: str) -> None:
        self.lost, self.why = True, why


def met(session: bytes, rank: int) -> Any:
    return Met(Link(), "party", rank, b"", session=session)  # type: ignore[arg-type]


def here() -> bool:
    return False


def test_order_does_not_matter() -> None:
    place = Rendezvous(4, 2.0)
    early, late = met(ONE, 1), met(ONE, 2)
    place.arrived(early)
    assert place.take(ONE, 1, here) is early
    threading.Timer(0.05, place.arrived, [late]).start()
    assert place.take(ONE, 2, here) is late
    assert len(place) == 0


def test_nobody_waits_for_ever() -> None:
    place = Rendezvous(4, 0.1)
    with pytest.raises(PeerTimeout, match="P2 did not come"):
        place.take(ONE, 2, here)
    with pytest.raises(AdmissionError, match="ended before all parties had met"):
        place.take(ONE, 2, lambda: True)


def test_what_waits_is_bounded_in_number_and_time() -> None:
    place = Rendezvous(2, 0.0)
    links = [met(bytes([i] * 16), 1) for i in range(3)]
    for each in links:
        place.arrived(each)
    assert [each.link.lost for each in links] == [False, False, True] and len(place) == 2
    place.sweep()
    assert len(place) == 0 and all(each.link.lost for each in links)


def test_a_session_that_is_over_takes_no_links() -> None:
    place = Rendezvous(4, 5.0)
    before, after, other = met(ONE, 1), met(ONE, 2), met(TWO, 1)
    place.arrived(before)
    place.arrived(other)
    place.close(ONE, "no room")
    place.arrived(after)
    assert (before.link.why, after.link.why, other.link.why) == ("no room", "no room", "")


def test_there_is_room_for_a_link_from_each_other_party() -> None:
    """With a second dealer three come to P0 for each session, which may all begin at a time."""
    assert room(3, 16) >= 2 * 16 and room(4, 16) >= 3 * 16


def test_one_link_of_a_name_waits_at_a_time() -> None:
    place = Rendezvous(4, 2.0)
    early, late = met(ONE, 1), met(ONE, 1)
    place.arrived(early)
    place.arrived(late)
    assert early.link.why == "another link came in its place" and len(place) == 1
    assert place.take(ONE, 1, here) is late and not late.link.lost

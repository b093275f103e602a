"""Hash chains over a link's frames: equal at both ends, for nothing but these frames in this order, and hiding them."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from puma.errors import ProtocolError
from puma.net import endpoint
from puma.net.chain import LOOKS, MARK_BYTES, MOST_MARKS, STAMPED, STATE_BYTES, Chain, chain_key, looks
from puma.net.frame import HEADER_BYTES, Kind
from puma.net.handshake import Agreed
from puma.net.memory import MemoryLink, pair

KEY = b"k" * 32


def linked(key: bytes = KEY) -> tuple[MemoryLink, MemoryLink]:
    ends = pair("P1", "P2")
    ends[0].chain_key = ends[1].chain_key = key
    return ends


def head(*frames: bytes, label: str = "session", key: bytes = KEY) -> bytes:
    """Of these frames, from P1 to P2."""
    one, _ = linked(key)
    one.chain(label)
    for frame in frames:
        one.send(frame)
    assert one.heads is not None
    return one.heads.sent.digest


@pytest.mark.parametrize("make_links", ["memory", "tcp", "here", "tls"], indirect=True)
def test_both_ends_have_the_same_heads_however_frames_come_in_pieces(make_links) -> None:
    one, two = make_links()
    assert one.heads is None and one.chain_key == two.chain_key
    for end in (one, two):
        end.chain("session", words=True)
    large = bytes(range(256)) * 4096
    one.send(b"ab", b"", b"c")
    one.send()
    one.send(large[:70_000], large[70_000:])
    one.send_control(b"word")
    two.send(b"back")
    assert [bytes(two.recv(3)), bytes(two.recv(0)), bytes(two.recv(len(large)))] == [b"abc", b"", large]
    assert two.recv_control() == b"word" and bytes(one.recv(4)) == b"back"
    mine, theirs = one.heads, two.heads
    assert mine is not None and theirs is not None
    assert (mine.sent, mine.received, mine.said) == (theirs.received, theirs.sent, theirs.heard)
    assert (mine.sent.frames, mine.sent.size, mine.received.frames) == (3, 3 + len(large), 1)
    assert one.trails["sent"] == two.trails["received"] and len(one.trails["sent"]) == 3 * MARK_BYTES
    one.send(b"more")
    assert two.heads == theirs and one.heads != mine  # a frame counts when it is taken
    two.recv(4)
    assert one.heads is not None and two.heads is not None and one.heads.sent == two.heads.received


@pytest.mark.parametrize("make_links", ["memory", "tcp", "here", "tls"], indirect=True)
def test_a_large_frame_between_parties_carries_its_senders_state(make_links) -> None:
    one, two = make_links()
    for end in (one, two):
        end.chain("session")
    frames = [bytes([i]) * size for i, size in enumerate((STAMPED - 1, STAMPED, STAMPED + 5, 3 << 20, 7, STAMPED))]
    for frame in frames:
        before = one.sent_bytes
        one.send(frame[:70_000], frame[70_000:])
        more = STATE_BYTES if len(frame) >= STAMPED else 0
        assert one.sent_bytes - before == HEADER_BYTES + len(frame) + more
        assert two.recv(len(frame)) == frame
    assert one.heads.sent == two.heads.received and one.heads.sent.frames == len(frames)
    assert one.heads.sent.size == sum(map(len, frames)) and one.trails["sent"] == two.trails["received"]
    assert one.heads.sent.digest == head(*frames, key=one.chain_key), "as if all had been hashed at both ends"


def large(state: bytes | None = None) -> tuple[MemoryLink, MemoryLink]:
    """A link on which a large frame has been sent, with another state than its own if one is given."""
    one, two = linked()
    for end in (one, two):
        end.chain("session")
    honest = Chain.stamped
    with pytest.MonkeyPatch.context() as patch:
        if state is not None:
            patch.setattr(Chain, "stamped", lambda *given: [*[*honest(*given)][:-1], memoryview(state)])
        one.send(bytes(STAMPED))
    return one, two


def test_a_state_that_is_not_of_its_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who doubts always, by others where they look; one that nobody looked at is the chain's of both."""
    for looking, doubting in ((False, True), (True, False)):
        monkeypatch.setattr(endpoint, "looks", lambda looking=looking: looking)
        _, two = large(b"another state of 32 bytes.......")
        if doubting:
            two.doubt()
        with pytest.raises(ProtocolError, match=r"^P1 says of data frame 0 what it does not hash to"):
            two.recv(STAMPED)
        one, two = large()
        assert len(two.recv(STAMPED)) == STAMPED and one.heads is not None and two.heads is not None
        assert one.heads.sent == two.heads.received
    monkeypatch.setattr(endpoint, "looks", lambda: False)
    _, two = large(b"another state of 32 bytes.......")
    two.recv(STAMPED)
    assert two.trails["received"] == b"another "


def test_nobody_knows_which_frames_are_looked_at() -> None:
    found = sum(looks() for _ in range(4000)) / 4000
    assert abs(found - 1 / LOOKS) < 0.03


def test_what_a_client_hears_and_says_is_hashed_at_both_ends() -> None:
    one, two = linked()
    for end in (one, two):
        end.chain("model 1", words=True)
    before = one.sent_bytes
    one.send(bytes(STAMPED))
    assert one.sent_bytes - before == HEADER_BYTES + STAMPED and len(two.recv(STAMPED)) == STAMPED
    assert one._chains is not None and one._chains.stamp(Kind.DATA, STAMPED) == 0


def test_the_key_of_a_link_follows_from_the_secret_of_its_pair_and_is_another() -> None:
    first, second = (Agreed("party", 1, b"", secret * 32).chain_key for secret in (b"a", b"b"))
    assert len({first, second, bytes(32), b"a" * 32, b"b" * 32}) == 5


def test_a_head_is_of_these_frames_in_this_order_under_this_label() -> None:
    whole = head(b"one", b"two", b"three")
    others = [
        head(b"one", b"two"),
        head(b"one", b"three"),
        head(b"two", b"one", b"three"),
        head(b"onetwo", b"three"),
        head(b"one", b"two", b"", b"three"),
        head(b"one", b"two", b"thref"),
        head(b"one", b"two", b"three", label="step 1"),
        head(b"one", b"two", b"three", key=b"l" * 32),
    ]
    assert whole == head(b"one", b"two", b"three") and len({whole, *others}) == len(others) + 1
    one, two = linked()
    for end in (one, two):
        end.chain("session")
    one.send(b"same")
    two.send(b"same")
    assert one.heads is not None and two.heads is not None
    assert one.heads.sent.digest != two.heads.sent.digest  # the way it went counts


def test_a_head_tells_nothing_to_who_lacks_the_key_of_the_link() -> None:
    """A frame of one byte could be guessed from a plain hash, and from a state of the chain."""
    frame = b"\x05"
    told = head(frame)
    known = [bytes(32), chain_key(bytes(32), "session")]
    for guess in (bytes([i]) for i in range(256)):
        assert told not in {hashlib.sha256(guess).digest(), blake3(guess).digest()}
        for key in known:
            assert told != head(guess, key=key)
    # Nor does one head give the next: the state before it is not told.
    after = {blake3(bytes([i]) + (1).to_bytes(8, "little"), key=told).digest() for i in range(256)}
    heads = {blake3(b"puma/1|head", key=state).digest() for state in after}
    assert head(frame, b"\x07") not in heads | after


def test_labels_keep_chains_apart_and_the_key_of_one_opens_no_other() -> None:
    first, second = (chain_key(KEY, f"step {n}") for n in (1, 2))
    assert first != second and KEY not in (first, second)


def test_a_trail_has_an_end_and_the_head_has_not() -> None:
    chain = Chain(KEY, "P1")
    chain.frames = MOST_MARKS - 1
    before = chain.head
    chain.add([b"a"], 1)
    chain.add([b"b"], 1)
    assert len(chain.trail) == MARK_BYTES and chain.head.frames == MOST_MARKS + 1 != before.frames
    assert repr(chain) == f"Chain({MOST_MARKS + 1} frames)"

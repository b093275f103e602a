"""What every link must do, in memory, over TCP, at a socket of this machine and over TLS alike."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from puma.errors import FrameError, PeerLost, PeerTimeout
from puma.net import Link
from puma.net.endpoint import Inbox
from puma.net.frame import HEADER_BYTES, Kind

every_kind = pytest.mark.parametrize("make_links", ["memory", "tcp", "here", "tls"], indirect=True)


@every_kind
def test_pieces_become_one_frame(make_links):
    a, b = make_links()
    assert isinstance(a, Link)
    assert (a.name, a.peer, b.name, b.peer) == ("P1", "P2", "P2", "P1")
    words = torch.arange(6).view(2, 3)
    a.send(b"head", words.numpy(), memoryview(b""), bytearray(b"tail"), np.zeros((0, 4)))
    got = b.recv(56)
    assert bytes(got[:4]) == b"head" and bytes(got[-4:]) == b"tail"
    assert torch.equal(torch.frombuffer(got[4:52], dtype=torch.uint8).clone().view(torch.int64), words.flatten())
    a.send()
    assert len(b.recv(0)) == 0


@every_kind
@pytest.mark.parametrize("size", [1, 5000, 70_000, 3_000_000])
def test_received_buffers_belong_to_the_caller(make_links, size):
    a, b = make_links()
    data = bytearray(np.arange(size, dtype=np.uint8).tobytes())
    expected = bytes(data)
    a.send(data)
    data[:] = bytes(size)
    first = b.recv(size)
    assert bytes(first) == expected
    torch.frombuffer(first, dtype=torch.uint8).zero_()
    a.send(expected[: size // 2], expected[size // 2 :])
    assert bytes(b.recv(size)) == expected and not any(first)


@every_kind
def test_counters_count_payloads_and_headers(make_links):
    a, b = make_links()
    a.send(b"12345678", b"9")
    a.send_control(b"abc")
    assert a.sent_bytes == 12 + 2 * HEADER_BYTES and a.received_bytes == 0 and b.received_bytes == 0
    b.recv(9)
    assert b.recv_control() == b"abc"
    assert b.received_bytes == a.sent_bytes and b.sent_bytes == 0


@every_kind
def test_control_and_data_do_not_wait_for_each_other(make_links):
    a, b = make_links()
    a.send(b"one")
    a.send_control(b"first")
    a.send(b"two")
    a.send_control(b"")
    assert b.recv_control() == b"first"
    assert bytes(b.recv(3)) == b"one"
    assert b.recv_control() == b""
    assert bytes(b.recv(3)) == b"two"


@every_kind
def test_two_threads_may_wait_for_the_two_kinds(make_links, aside):
    a, b = make_links()
    control = aside(b.recv_control)
    data = aside(b.recv, 4)
    time.sleep(0.02)
    a.send(b"data")
    assert bytes(data.result()) == b"data"
    a.send_control(b"control")
    assert control.result() == b"control"


@every_kind
def test_another_size_is_an_error_with_numbers(make_links):
    a, b = make_links()
    a.send(b"1234")
    b.recv(4)
    a.send(b"123456")
    with pytest.raises(FrameError, match="P1 sent 6 bytes in data frame 1 where 8 were expected"):
        b.recv(8)


@every_kind
def test_silence_names_the_frame_waited_for(make_links):
    a, b = make_links()
    a.send(b"x")
    b.recv(1)
    b.set_timeout(0.05)
    for _ in range(2):
        with pytest.raises(PeerTimeout, match=r"P1 sent nothing for 0\.05 s; P2 waits for data frame 1"):
            b.recv(1)
    with pytest.raises(PeerTimeout, match="control frame 0"):
        b.recv_control()
    a.send(b"y")
    assert bytes(b.recv(1)) == b"y"


@every_kind
def test_close_lets_what_was_sent_arrive(make_links):
    a, b = make_links()
    a.send(b"last")
    a.send_control(b"words")
    a.close()
    a.close()
    assert bytes(b.recv(4)) == b"last" and b.recv_control() == b"words"
    for _ in range(2):
        with pytest.raises(PeerLost, match="P1 closed its link"):
            b.recv(1)
    with pytest.raises(PeerLost, match="P1 closed its link"):
        b.send(b"too late")
    with pytest.raises(PeerLost, match="closed on this side"):
        a.send(b"too late")
    with pytest.raises(PeerLost, match="closed on this side"):
        a.recv(1)


@every_kind
def test_a_failure_is_told_in_its_own_words(make_links, aside):
    a, b = make_links()
    waiting = aside(b.recv, 4)
    time.sleep(0.02)
    a.fail("out of memory in layer 3")
    with pytest.raises(PeerLost, match="P1 stopped: out of memory in layer 3"):
        waiting.result()
    with pytest.raises(PeerLost, match="P1 stopped: out of memory in layer 3"):
        b.recv_control()
    with pytest.raises(PeerLost, match="P1 stopped: out of memory in layer 3"):
        b.send(b"anything")


@every_kind
def test_leaving_a_with_block_by_an_error_tells_it(make_links):
    a, b = make_links()
    with pytest.raises(RuntimeError), a:
        raise RuntimeError("broken")
    with pytest.raises(PeerLost, match="P1 stopped: RuntimeError: broken"):
        b.recv(1)


@every_kind
def test_closing_frees_a_thread_that_waits(make_links, aside):
    a, _ = make_links()
    data, control = aside(a.recv, 1), aside(a.recv_control)
    time.sleep(0.05)
    a.close()
    for waiting in (data, control):
        with pytest.raises(PeerLost, match="closed on this side"):
            waiting.result(2)


@every_kind
def test_both_may_send_frames_far_beyond_every_bound_at_once(make_links, aside):
    a, b = make_links(queue_bytes=1 << 16)
    big = np.arange(3 << 20).astype(np.uint8)

    def exchange(link):
        for _ in range(3):
            link.send(big)
            assert np.array_equal(np.frombuffer(link.recv(big.size), np.uint8), big)

    other = aside(exchange, b)
    exchange(a)
    other.result()


@every_kind
def test_small_frames_both_ways_then_many_one_way(make_links, aside):
    a, b = make_links()

    def echo():
        for _ in range(300):
            b.send(b.recv(64))
        return [int.from_bytes(b.recv(4), "little") for _ in range(2000)]

    other = aside(echo)
    for i in range(300):
        a.send(bytes([i % 256]) * 64)
        assert bytes(a.recv(64)) == bytes([i % 256]) * 64
        if i % 100 == 0:
            time.sleep(0.02)  # the receiving thread takes over, and must hand back
    for i in range(2000):
        a.send(i.to_bytes(4, "little"))
    assert other.result() == list(range(2000))


@every_kind
def test_a_peer_that_does_not_read_holds_the_sender_back(make_links):
    a, b = make_links(timeout=0.2, queue_bytes=1 << 20)
    with pytest.raises(PeerTimeout, match=r"P2 took no data for 0\.2 s"):
        for _ in range(100):
            a.send(bytes(1 << 20))
    assert b.inbox.bytes <= 2 << 20


@every_kind
def test_limits_hold_before_anything_leaves(make_links):
    a, b = make_links()
    a.limits[Kind.DATA] = 1000
    with pytest.raises(FrameError, match="a data frame of 1001 bytes for P2 is over the limit of 1000"):
        a.send(bytes(1001))
    a.send(bytes(1000))
    b.recv(1000)
    with pytest.raises(FrameError, match="control frame"):
        a.send_control(bytes((16 << 20) + 1))


def test_the_inbox_lets_one_frame_over_its_bound():
    inbox = Inbox(10)
    assert inbox.put(Kind.DATA, memoryview(bytes(100)), 0)
    assert not inbox.put(Kind.DATA, memoryview(b"x"), 0.01)
    assert len(inbox.take(Kind.DATA, 0) or b"") == 100
    assert inbox.put(Kind.DATA, memoryview(b"x"), 0)

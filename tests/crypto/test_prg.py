"""Streams: known answers from independent code, positions, domains, shapes, and nothing secret in a repr."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from puma.crypto import galois, prg
from puma.crypto.prg import BLOCK, MAX_POSITION, PairKey, Stream, fresh_secret

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "prg.json").read_text())
SECRET = bytes(range(32))


def stream(purpose: str = "mask", lane: int = 0, secret: bytes = SECRET) -> Stream:
    return PairKey(secret).stream(purpose, lane)


def by_hand(secret: bytes, purpose: str, lane: int, position: int, blocks: int) -> bytes:
    """HKDF as RFC 5869 writes it, then counter mode as single blocks."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    key = hmac.digest(extracted, f"puma/1|{purpose}|{lane}".encode() + b"\x01", hashlib.sha256)[:16]
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return b"".join(cipher.update((position + i).to_bytes(16, "big")) for i in range(blocks))


@pytest.mark.parametrize("vector", VECTORS)
def test_known_answers(vector):
    secret, expected = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["bytes"])
    name = vector["purpose"], vector["lane"]
    drawn = PairKey(secret).stream(*name).at(vector["position"]).bytes(len(expected))
    assert drawn.numpy().tobytes() == expected
    assert by_hand(secret, *name, vector["position"], len(expected) // BLOCK) == expected


def test_words_and_bits_read_the_same_bytes():
    octets = stream().bytes(48).numpy().tobytes()
    words = stream().words((2, 3))
    assert words.dtype == torch.int64 and words.shape == (2, 3)
    assert [w.to_bytes(8, "little", signed=True) for w in words.flatten().tolist()] == [
        octets[i : i + 8] for i in range(0, 48, 8)
    ]
    bits = stream().bits((5, 7))
    assert bits.dtype == torch.int64 and bits.shape == (5, 7)
    assert bits.flatten().tolist() == [octets[i // 8] >> (i % 8) & 1 for i in range(35)]


@given(st.lists(st.tuples(st.sampled_from(["bytes", "words", "bits"]), st.integers(0, 70)), max_size=6))
def test_every_draw_can_be_repeated_at_its_position(draws):
    running = stream()
    for what, n in draws:
        start = running.position
        assert torch.equal(getattr(running, what)(n), getattr(stream().at(start), what)(n))
        size = {"bytes": n, "words": 8 * n, "bits": (n + 7) // 8}[what]
        assert running.position == start + -(-size // BLOCK)


def test_large_draws_cross_the_chunks():
    n = (3 << 20) // 8 + 5
    drawn = stream().words(n)
    assert torch.equal(drawn[-6:], stream().at((n - 6) * 8 // BLOCK).words(6 + (n - 6) % 2)[-6:])
    assert len(drawn.unique()) == n


def test_meta_draws_advance_as_real_ones_do():
    real, dry = stream(), stream()
    for what, shape in (("words", (3, 5)), ("bits", (9,)), ("words", (0, 4)), ("bytes", 17)):
        a, b = getattr(real, what)(shape), getattr(dry, what)(shape, device="meta")
        assert b.is_meta and a.shape == b.shape and a.dtype == b.dtype
        assert real.position == dry.position
    assert torch.equal(real.words(4), dry.words(4, torch.device("cpu")))


def test_domains_differ():
    streams = [stream(), stream("deal"), stream(lane=1), stream("mas", 0), stream(secret=bytes(32))]
    drawn = {s.words(2).numpy().tobytes() for s in streams}
    assert len(drawn) == len(streams)
    assert torch.equal(stream().words(8), stream().words(8))


def test_draws_do_not_share_memory():
    s = stream()
    a, b = s.words(4), s.words(4)
    b.zero_()
    assert torch.equal(a, stream().words(4))


def test_nothing_secret_is_shown():
    key, s = PairKey(SECRET), stream("mask", 3)
    s.words(3)
    assert repr(key) == "PairKey(...)"
    assert repr(s) == "Stream('mask', lane=3, position=2)"


@pytest.mark.parametrize("purpose, lane", [("", 0), ("a|b", 0), ("a", -1)])
def test_ambiguous_names_are_refused(purpose, lane):
    with pytest.raises(ValueError, match="not a stream name"):
        stream(purpose, lane)


def test_ends_are_guarded():
    with pytest.raises(ValueError, match="32 bytes"):
        PairKey(b"short")
    with pytest.raises(ValueError, match="position"):
        stream().at(-1)
    last = stream().at(MAX_POSITION)
    with pytest.raises(OverflowError, match="used up"):
        last.words(1)
    with pytest.raises(OverflowError, match="used up"):
        last.words(1, "meta")


def test_fresh_secrets_are_fresh():
    assert len({fresh_secret() for _ in range(4)}) == 4 and len(fresh_secret()) == 32


def test_children_are_secrets_of_their_own():
    key = PairKey(SECRET)
    child = key.child("preprocessing 00ff")
    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    assert child.secret == hmac.digest(extracted, b"puma/1/child|preprocessing 00ff\x01", hashlib.sha256)
    assert key.secret == SECRET and key.child("preprocessing 00ff").secret == child.secret
    secrets = [SECRET, child.secret, key.child("preprocessing 00fe").secret, child.child("preprocessing 00ff").secret]
    drawn = {k.stream(p).bytes(32).numpy().tobytes() for k in map(PairKey, secrets) for p in ("mask", "deal")}
    assert len(set(secrets)) == 4 and len(drawn) == 8
    assert repr(child) == "PairKey(...)"


@pytest.mark.parametrize("pieces", [[1], [31, 1, 7], [32, 64], [100_000, 5, 70_001], [16, 200_003]])
def test_a_reader_from_the_start_gives_the_stream(pieces: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made by another mode of the cipher, in any pieces, beyond one call's size."""
    monkeypatch.setattr(prg, "_ZEROS", memoryview(bytes(1 << 16)))
    stream = PairKey(bytes(32)).stream("whole")
    reader = stream.reader(0)
    got = torch.cat([reader.into(torch.empty(size, dtype=torch.uint8)) for size in pieces])
    assert torch.equal(got, stream.bytes(sum(pieces)))


@pytest.mark.parametrize("galois", [False, True])
def test_both_ways_to_read_a_stream_give_its_bytes(galois: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them a party takes is measured, and another party may take the other."""
    monkeypatch.setattr(prg, "_galois_is_faster", lambda: galois)
    size = (1 << 16) + 21
    for start in (0, 5, 16, 1 << 16):
        read = stream().reader(start).into(torch.empty(size, dtype=torch.uint8))
        assert torch.equal(read, stream().bytes(start + size)[start:])


@pytest.mark.parametrize("first", [0, 7])
def test_galois_mode_from_any_place_on(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a nonce of its own, up to the block that the mode cannot tell from the first one; beyond, in counter mode."""
    nonce, found = galois.nonce, list[int]()
    monkeypatch.setattr(galois, "nonce", lambda block, inverse: found.append(block) or nonce(block, inverse))
    monkeypatch.setattr(prg, "_galois_is_faster", lambda: True)
    monkeypatch.setattr(prg, "_LONG", 40)
    running, last = stream().at(first), galois.COUNTED - first
    for start in (16, 5, (1 << 20) + 31, BLOCK * last - 51, BLOCK * last - 50, BLOCK * last - 40, BLOCK * (last + 5)):
        expected = stream().at(first + start // BLOCK).bytes(50 + start % BLOCK)[start % BLOCK :]
        assert torch.equal(running.reader(start, 50).into(torch.empty(50, dtype=torch.uint8)), expected), start
        assert torch.equal(running.reader(start).into(torch.empty(50, dtype=torch.uint8)), expected), start
    assert found == [first + 1, first, first + (1 << 16) + 1, galois.COUNTED - 4]


def test_the_inverse_in_galois_mode() -> None:
    for i in range(20):
        hashing = hashlib.sha256(bytes([i])).digest()[:16]
        assert galois._times(galois.inverse(hashing), galois._element(hashing)) == 1
    assert galois.inverse(b"\x80" + bytes(15)) == 1  # that of one


@pytest.mark.parametrize("seconds, galois", [([1.0, 2.0], True), ([2.0, 1.0], False)])
def test_the_faster_way_is_measured_once(seconds: list[float], galois: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter(seconds)
    monkeypatch.setattr(prg, "_least_seconds", lambda _: next(took))
    prg._galois_is_faster.cache_clear()
    try:
        assert [prg._galois_is_faster() for _ in range(3)] == [galois] * 3
    finally:
        prg._galois_is_faster.cache_clear()


def test_small_draws_out_of_what_was_drawn_at_once() -> None:
    """Whatever came before and comes behind, and however large, each draw has the bytes at its own position."""
    running, sizes = stream(), [1, 700, 16, 1024, 1025, 5, 4096, 3000, 33, 70_000, 9, *[999] * 9, 0, 2]
    for size in sizes:
        start = running.position
        drawn = running.bytes(size)
        assert torch.equal(drawn, stream().at(start).bytes(size + 5000)[:size]) and drawn.numel() == size
        assert running.position == start + -(-size // BLOCK)
        drawn.zero_()  # the caller's own


def test_no_byte_comes_twice_where_nothing_is_computed() -> None:
    running = stream()
    running.bytes(5)
    running.bytes(20, "meta")
    assert torch.equal(running.bytes(7), stream().at(3).bytes(7))


def test_nonces_of_many_blocks_are_those_of_each() -> None:
    inverse = galois.inverse(hashlib.sha256(b"a block").digest()[:16])
    nonces = galois.Nonces(inverse)
    for block in (0, 1, 2, 3, 1 << 16, (1 << 20) + 7, (1 << 31) - 1, 1 << 31, galois.COUNTED - 1):
        assert nonces.of(block) == galois.nonce(block, inverse), block


def test_a_stream_goes_on_where_galois_mode_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last block that the mode tells apart from the first: whatever of a draw would lie beyond it is drawn in
    counter mode, and so is all that comes behind."""
    expected = stream().bytes(9000)
    monkeypatch.setattr(prg, "_galois_is_faster", lambda: True)
    monkeypatch.setattr(prg, "_GALOIS_BYTES", 5000)
    monkeypatch.setattr(prg, "_SMALL", 0)
    running = stream()
    assert torch.equal(torch.cat([running.bytes(size) for size in (2000, 2992, 16, 3984)]), expected[:8992])
    assert running._running is not None and running._running.left == math.inf

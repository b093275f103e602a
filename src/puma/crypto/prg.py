"""Pseudorandom streams for one pair of parties: AES-128 in counter mode, keyed by HKDF-SHA256 from the
pair's secret, one independent stream for every purpose and lane. It must not know what the numbers mask;
all it promises is that equal secrets, purposes, lanes and positions give equal numbers, and that nobody
else can tell them from random ones. A position must never serve twice for two different values: that is
the caller's duty."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from time import perf_counter

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from puma import pool
from puma.crypto import galois

BLOCK = 16
HOST = torch.device("cpu")
SECRET_BYTES = 32
# Far below the 2^64 blocks at which counter mode shows itself, and far above what any session draws.
MAX_POSITION = 1 << 48

Shape = int | Sequence[int]
Device = str | torch.device

# Counter mode xors its output onto an input; zeros in, the bare stream out. They are never written, so that the system
# has one page for all of them, which stays in the cache; and so many that threads seldom meet at Python's lock.
_ZEROS = memoryview(bytes(1 << 20))
_LEAST = 1 << 19  # bytes that a thread draws at least: some 60 us
_SMALL, _AHEAD = 1 << 12, 1 << 14  # bytes of a draw that may come out of so many drawn at once
_NOTHING = np.empty(0, np.uint8)
_GALOIS_BYTES = BLOCK * galois.COUNTED  # of a stream in that mode, from its start
_LONG = 8 << 20  # bytes from which on it pays to find the nonce of a place, 0.04 to 0.2 ms
_PART = 1 << 19  # bytes of a thread's part from which on that pays where many such are looked for
_TRIALS, _TRIED = 5, 1 << 18  # of a way to draw: how often it is tried, and with how many bytes


def fresh_secret() -> bytes:
    """A new pair secret from the operating system."""
    return os.urandom(SECRET_BYTES)


class PairKey:
    """The secret that two parties hold in common, and the way to its streams."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a pair secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    def stream(self, purpose: str, lane: int = 0) -> Stream:
        """The stream of this purpose and lane, from its start; asking again gives the same numbers again."""
        # The separator inside a purpose could make two different pairs (purpose, lane) share one key.
        if not purpose or "|" in purpose or lane < 0:
            raise ValueError(f"not a stream name: {purpose!r}, lane {lane}")
        info = f"puma/1|{purpose}|{lane}".encode()
        key = HKDF(algorithm=SHA256(), length=16, salt=None, info=info).derive(self._secret)
        return Stream(key, purpose, lane)

    def child(self, label: str) -> PairKey:
        """A secret of its own, from which nothing about this one or another child follows; for one run of streams."""
        info = f"puma/1/child|{label}".encode()
        return PairKey(HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=info).derive(self._secret))

    @property
    def secret(self) -> bytes:
        """The bare secret, for whoever must keep it until later."""
        return self._secret

    def __repr__(self) -> str:
        return "PairKey(...)"


class Stream:
    """Uniform numbers in a fixed order; `position` counts the 16-byte blocks drawn so far. For one thread."""

    __slots__ = ("_held", "_key", "_low", "_nonces", "_position", "_running", "_spare", "lane", "purpose")

    def __init__(self, key: bytes, purpose: str, lane: int = 0, position: int = 0) -> None:
        self._key = key
        self.purpose = purpose
        self.lane = lane
        self._position = position
        self._held, self._low = _NOTHING, 0  # behind `low` lie bytes from `position` on that have been made already
        self._running: Reader | None = None  # goes on behind them
        self._spare: list[CipherContext] = []  # that nobody uses: to make one takes as long as 256 kB
        self._nonces: galois.Nonces | None = None

    @property
    def position(self) -> int:
        """Where the next draw starts, in blocks."""
        return self._position

    def at(self, position: int) -> Stream:
        """Another stream of the same key, standing at `position`."""
        if not 0 <= position <= MAX_POSITION:
            raise ValueError(f"a stream position lies in 0..2^48, not at {position}")
        return Stream(self._key, self.purpose, self.lane, position)

    def reader(self, start: int, size: int = 0) -> Reader:
        """The bytes from `start` on behind the present position, to be read again and again: this draws nothing. `size`
        of them at most, if that is known."""
        block, skipped = divmod(start, BLOCK)
        if start < 0 or self._position + block > MAX_POSITION:
            raise ValueError(f"a stream has no byte {start}")
        if start == self._position == 0 and _galois_is_faster():
            return _whole(self._key)
        first, last = self._position + block, self._position + (start + size) // BLOCK
        if size >= _LONG and last < galois.COUNTED and _galois_is_faster():
            inverse = galois.inverse(_hashing(self._key))
            cipher = _galois(self._key, galois.nonce(first, inverse))
        else:
            cipher = _cipher(self._key, first)
        cipher.update(bytes(skipped))
        return Reader(cipher)

    def bytes(self, n: int, device: Device = HOST) -> torch.Tensor:
        """n uniform bytes, a 1-D uint8 tensor."""
        if device is HOST:
            return torch.from_numpy(self._draw(n)[:n])
        if _is_meta(device):
            self._skip(n)
            return torch.empty(n, dtype=torch.uint8, device="meta")
        return torch.from_numpy(self._draw(n)[:n]).to(device)

    def words(self, shape: Shape, device: Device = HOST) -> torch.Tensor:
        """Uniform 64-bit words, an int64 tensor."""
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        size = 8 * math.prod(dims)
        if device is HOST:
            return torch.from_numpy(np.ndarray(dims, np.int64, self._draw(size)))
        if _is_meta(device):
            self._skip(size)
            return torch.empty(dims, dtype=torch.int64, device="meta")
        return torch.from_numpy(np.ndarray(dims, np.int64, self._draw(size))).to(device)

    def bits(self, shape: Shape, device: Device = HOST) -> torch.Tensor:
        """Uniform bits as 0/1 int64 words; eight are spent per byte, lowest first."""
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        n = math.prod(dims)
        size = (n + 7) // 8
        if _is_meta(device):
            self._skip(size)
            return torch.empty(dims, dtype=torch.int64, device="meta")
        drawn, bits = self._draw(size), np.empty(n, np.int64)

        def spread(low: int, high: int) -> None:
            bits[low:high] = np.unpackbits(drawn[low // 8 : (high + 7) // 8], count=high - low, bitorder="little")

        pool.split(spread, n, _LEAST, 8)
        return torch.from_numpy(bits.reshape(dims)).to(device)

    def _draw(self, size: int) -> np.ndarray:
        """Whole blocks, at least `size` bytes: the next draw then starts at a block that `at` can name."""
        size, start, low = (size + BLOCK - 1) & -BLOCK, self._position, self._low
        self._position = start + size // BLOCK
        if self._position > MAX_POSITION:
            raise self._used_up()
        end = low + size
        if end <= self._held.size:
            self._low = end
            return self._held[low:end]
        held = self._held[low:]
        # numpy asks the system for huge pages where torch does not: large draws are twice as fast.
        buffer = np.empty(size if size > _SMALL else held.size + _AHEAD, dtype=np.uint8)
        buffer[: held.size] = held
        parts = pool.ranges(buffer.size, _LEAST, BLOCK)
        if len(parts) > 1:  # each at its own position
            self._stop(start + buffer.size // BLOCK)
            pool.each(lambda low, high: self._fill_at(start + low // BLOCK, buffer[low:high]), parts)
        else:
            self._behind(start + held.size // BLOCK, buffer.size - held.size).fill(buffer[held.size :])
        self._held, self._low = (buffer, size) if size < buffer.size else (_NOTHING, 0)
        return buffer[:size]

    def _behind(self, position: int, size: int) -> Reader:
        """What goes on at this position, for so many bytes at least."""
        running = self._running
        if running is None or running.left < size:
            from_start = position == 0 and size < _GALOIS_BYTES and _galois_is_faster()
            running = self._running = _whole(self._key) if from_start else Reader(self._context(position))
        return running

    def _stop(self, end: int) -> None:
        """Before threads draw up to a position, each for itself."""
        if self._running is not None and self._running.left == math.inf:
            self._spare.append(self._running.context)
        self._running = None
        if self._nonces is None and end < galois.COUNTED and _galois_is_faster():
            self._nonces = galois.Nonces(galois.inverse(_hashing(self._key)))

    def _fill_at(self, position: int, part: np.ndarray) -> None:
        """What lies from a position on; threads do this side by side."""
        if self._nonces is not None and part.size >= _PART and position + part.size // BLOCK < galois.COUNTED:
            _fill(_galois(self._key, self._nonces.of(position)), part)
            return
        context = self._context(position)
        _fill(context, part)
        self._spare.append(context)

    def _context(self, position: int) -> CipherContext:
        """One that stands at a position: one that nobody uses, or a new one."""
        try:
            context = self._spare.pop()
        except IndexError:
            return _cipher(self._key, position)
        context.reset_nonce(position.to_bytes(BLOCK, "big"))
        return context

    def _skip(self, size: int) -> None:
        self._position += (size + BLOCK - 1) // BLOCK
        if self._position > MAX_POSITION:
            raise self._used_up()
        self._running, self._held, self._low = None, _NOTHING, 0

    def _used_up(self) -> OverflowError:
        return OverflowError(f"the stream {self.purpose!r} is used up; open a new session")

    def __repr__(self) -> str:
        return f"Stream({self.purpose!r}, lane={self.lane}, position={self._position})"


class Reader:
    """Bytes of a stream in order, written where the caller wants them. For one thread.

    After the bytes of `head` come those of the context; `left` are as many as its mode may give.
    """

    __slots__ = ("_head", "context", "left")

    def __init__(self, context: CipherContext, head: bytes = b"", left: float = math.inf) -> None:
        self.context, self._head, self.left = context, head, left

    def into(self, buffer: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous uint8 tensor with the next bytes; the same tensor. They are drawn on the host."""
        host = buffer if buffer.is_cpu else torch.empty(buffer.shape, dtype=torch.uint8)
        self.fill(host.numpy())
        return buffer if host is buffer else buffer.copy_(host)

    def fill(self, out: np.ndarray) -> None:
        """The same for an array."""
        self.left -= out.size
        if self._head:
            size = min(len(self._head), out.size)
            out[:size] = np.frombuffer(self._head, np.uint8, size)
            self._head, out = self._head[size:], out[size:]
        _fill(self.context, out)

    def __repr__(self) -> str:
        return "Reader(...)"


def _cipher(key: bytes, block: int) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(BLOCK, "big"))).encryptor()


def _whole(key: bytes) -> Reader:
    """A stream from its start to its 2^32nd block, by the encryption of Galois/counter mode.

    That is counter mode from block 2 on (NIST SP 800-38D, 7.1). With AVX-512 OpenSSL computes it a third faster than
    plain counter mode, and without at half the speed. Nobody asks for the tag, so nothing is learnt from the nonce
    being the same.
    """
    return Reader(_galois(key, bytes(12)), _cipher(key, 0).update(bytes(2 * BLOCK)), _GALOIS_BYTES)


def _galois(key: bytes, nonce: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()


def _hashing(key: bytes) -> bytes:
    """What the cipher makes of zeros."""
    return _cipher(key, 0).update(bytes(BLOCK))


@cache
def _galois_is_faster() -> bool:
    """Which of two ways to the same bytes this process takes: both are tried once, for less than a millisecond."""
    return _least_seconds(_whole(bytes(BLOCK)).context) < _least_seconds(_cipher(bytes(BLOCK), 0))


def _least_seconds(context: CipherContext) -> float:
    """Of drawing some bytes, several times."""
    buffer, took = np.empty(_TRIED, np.uint8), list[float]()
    for _ in range(_TRIALS):
        started = perf_counter()
        _fill(context, buffer)
        took.append(perf_counter() - started)
    return min(took)


def _fill(context: CipherContext, buffer: np.ndarray) -> None:
    out = buffer.data
    for low in range(0, len(out), len(_ZEROS)):
        piece = out[low : low + len(_ZEROS)]
        context.update_into(_ZEROS[: len(piece)], piece)


def _is_meta(device: Device) -> bool:
    return torch.device(device).type == "meta"

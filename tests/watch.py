"""Parties whose every message and every draw is written down, and what must be true of both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch import Tensor

from puma import kernels
from puma.crypto.prg import Stream
from puma.mpc.party import DEALER, FIRST, SECOND, Message, Party
from tests.case import Case
from tests.trio import parties, trio

LACKS = {FIRST: (DEALER, SECOND), SECOND: (DEALER, FIRST)}


class Heard(NamedTuple):
    """A piece of a message as it was received, and which of its bits belong to words (the rest fill up bytes)."""

    payload: np.ndarray
    live: np.ndarray


class Recorder:
    """A link that remembers every payload it received."""

    def __init__(self, link: Any) -> None:
        self.link, self.received = link, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)

    def recv(self, size: int) -> Any:
        data = self.link.recv(size)
        self.received.append(np.frombuffer(bytes(data), dtype=np.uint8))
        return data


class Watched(Party):
    """A party that notes for every frame it sends which of its bits belong to words."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.links = {peer: Recorder(link) for peer, link in self.links.items()}  # type: ignore[attr-defined]
        self.live: dict[int, list[list[np.ndarray]]] = {rank: [] for rank in range(3)}

    def exchange(self, pieces: Message) -> list[Tensor | None]:
        if not self.is_dealer:
            masks = [_live(p.words.numel() * p.bits) for p in pieces]  # type: ignore[union-attr]
            self.live[SECOND if self.rank == FIRST else FIRST].append(masks)
        return super().exchange(pieces)

    def correction(self, payload: Tensor | None, count: int) -> Tensor | None:
        if self.is_dealer and count:
            self.live[SECOND].append([_live(getattr(payload, "live_bits", 8 * count))])
        return super().correction(payload, count)

    @property
    def received(self) -> dict[int, list[np.ndarray]]:
        return {peer: link.received for peer, link in self.links.items()}  # type: ignore[attr-defined]


def _live(bits: int) -> np.ndarray:
    return np.packbits(np.ones(bits, dtype=np.uint8), bitorder="little")


@contextmanager
def watching() -> Iterator[None]:
    """Meanwhile packed words say how many bits they have, so that corrections can be noted."""
    pack, packed_less = kernels.pack, kernels.packed_less

    def tagged(x: Tensor, bits: int) -> Tensor:
        packed = pack(x, bits)
        packed.live_bits = x.numel() * bits  # type: ignore[attr-defined]
        return packed

    def tagged_less(x: Tensor, before: int, shift: int, bits: int, less: Tensor) -> Tensor:
        packed = packed_less(x, before, shift, bits, less)
        packed.live_bits = less.numel() * (bits - shift)  # type: ignore[attr-defined]
        return packed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "pack", tagged)
        patch.setattr(kernels, "packed_less", tagged_less)
        yield


def streams_begun(patch: pytest.MonkeyPatch) -> list[tuple[int, bytes, str]]:
    """From now on each stream that an evaluator begins: its rank, the key and the purpose."""
    begun: list[tuple[int, bytes, str]] = []
    real = Party._stream

    def spied(party: Party, evaluator: int, purpose: str) -> object:
        if not party.is_dealer and (evaluator, purpose) not in party._streams:
            begun.append((party.rank, party._keys[DEALER].secret, purpose))
        return real(party, evaluator, purpose)

    patch.setattr(Party, "_stream", spied)
    return begun


class Draw(NamedTuple):
    """Blocks that one party took from one stream."""

    key: bytes
    purpose: str
    start: int
    blocks: int


class Run(NamedTuple):
    """Three watched parties that have run something, their results, and what each drew from which stream."""

    members: list[Watched]
    results: list[Any]
    drawn: dict[str, list[Draw]]


def run(function: Any, secrets: dict[tuple[int, int], bytes] | None = None) -> Run:
    """Three watched parties run `function`."""
    members = trio(secrets, kind=Watched)
    with watching(), draws() as drawn:
        results = parties(function, members)
    return Run(members, results, drawn)  # type: ignore[arg-type]


@cache
def once(case: Case) -> Run:
    """The case under the usual keys; several tests look at one run."""
    return run(case.run)


def heard(members: list[Watched], rank: int) -> list[Heard]:
    """What party `rank` has received, piece by piece."""
    found = []
    for peer, received in members[rank].received.items():
        for frame, masks in zip(received, members[peer].live[rank], strict=True):
            ends = np.cumsum([m.size for m in masks])
            assert ends[-1] == frame.size
            found += [Heard(p, m) for p, m in zip(np.split(frame, ends[:-1]), masks, strict=True)]
    return found


def assert_hidden(function: Any, rank: int, before: list[Heard] | None = None) -> None:
    """Whatever `rank` receives is padded by the key it lacks: change that key alone, and every word changes.

    Of the bits of each piece about half must flip, and no more bytes may stay as they were than chance allows: pieces
    that are unpadded, or padded only in part, are found if they have 64 bits or more.
    """
    before = heard(run(function).members, rank) if before is None else before
    after = heard(run(function, {LACKS[rank]: b"\x07" * 32}).members, rank)
    kept = whole = 0
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        changed = (a.payload ^ b.payload) & a.live
        count, flipped = int(np.unpackbits(a.live).sum()), int(np.unpackbits(changed).sum())  # type: ignore[arg-type]
        assert abs(flipped - count / 2) <= 2.7 * count**0.5, f"piece {i}: {flipped} of {count} bits changed"
        kept += int(((changed == 0) & (a.live == 255)).sum())
        whole += int((a.live == 255).sum())
    assert abs(kept - whole / 256) <= 6 * (whole / 256) ** 0.5 + 2, f"{kept} of {whole} bytes kept their value"


@contextmanager
def draws() -> Iterator[dict[str, list[Draw]]]:
    """Meanwhile every draw from a stream is noted, by thread; streams that tests share inputs with are left out."""
    noted: dict[str, list[Draw]] = {}
    draw = Stream._draw

    def noting(stream: Stream, size: int) -> np.ndarray:
        start = stream.position
        result = draw(stream, size)
        if not stream.purpose.startswith("test "):
            taken = Draw(stream._key, stream.purpose, start, stream.position - start)
            noted.setdefault(threading.current_thread().name, []).append(taken)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "_draw", noting)
        yield noted

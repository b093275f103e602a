"""One-time preprocessing of a party that serves strangers: encrypted on disk, bounded in bytes and in days.

The key of each piece is fresh and nowhere but in this process's memory. It goes when the piece is taken, so what is
left on the disk's blocks is noise for whoever finds it, and so is all of it once the process has ended. This file must
not know protocols, links or what the bytes mean.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from puma import kernels
from puma.crypto.prg import PairKey, fresh_secret
from puma.errors import AdmissionError, PreprocessingError
from puma.store import folders
from puma.store.folders import explained
from puma.store.preprocessing import MISSING, Header, Item, PreprocessingStore, Writer

AT_A_TIME = 1 << 20  # bytes of key stream that are in memory at a time
KEEP_SECONDS = 24 * 3600.0  # what nobody has asked for by then belongs to a client that has lost its prepared requests


class Seal:
    """AES-128-CTR under a key of its own; each byte of a file has its place in the stream."""

    def __init__(self) -> None:
        self._stream = PairKey(fresh_secret()).stream("preprocessing at rest")

    def turn(self, at: int, source: memoryview, target: memoryview) -> None:
        """Encrypt or decrypt what lies in a file from byte `at` on; source and target may be the same."""
        reader, pad = self._stream.reader(at), torch.empty(min(AT_A_TIME, len(source)), dtype=torch.uint8)
        for start in range(0, len(source), AT_A_TIME):
            words, out = (np.frombuffer(each[start : start + AT_A_TIME], np.uint8) for each in (source, target))
            np.bitwise_xor(words, np.asarray(kernels.to_wire(reader.into(pad[: len(words)]))), out=out)


@dataclass
class Piece:
    """What the process knows of one: its key, its bytes so far, and whether all of it is there."""

    key: str = ""  # whose it is, and how many bytes that one may have in all; 0: any
    most: int = 0
    seal: Seal = field(default_factory=Seal)
    size: int = 0
    whole: bool = False
    since: float = field(default_factory=monotonic)


class EncryptedStore(PreprocessingStore):
    """Pieces of `most` bytes at most, all together; sessions in several threads may use it.

    What lies there from before is thrown away: nobody has its keys.
    """

    def __init__(self, root: Path | str, most: int) -> None:
        super().__init__(root)
        self._most, self._used = most, 0
        self._pieces: dict[Path, Piece] = {}
        self._lock = threading.Lock()
        with explained(f"the preprocessing in {self.root}"):
            folders.retire(self.root)

    def begin(self, header: Header, key: str = "", most: int = 0) -> Writer:
        """A new piece, of somebody who may have `most` bytes in all (0: any).

        AdmissionError where there is no room for any, PreprocessingError for an id that is taken.
        """
        self._expire()
        folders.private_folder(self.root)
        path = self._path(header.sharing, header.id)
        folders.private_folder(path.parent)
        piece = Piece(key, most)
        with self._lock:
            if path in self._pieces:
                raise PreprocessingError("this preprocessing has been made before", "use a fresh id")
            self._pieces[path] = piece
        try:
            with explained(f"the preprocessing in {self.root}"):
                folders.sweep(path.parent)
            return EncryptedWriter(path, header, self, piece)
        except BaseException:
            self.forget(path)
            raise

    def take(self, sharing: bytes, identity: bytes) -> Item:
        """Use up a piece: its name and its key are gone when this returns."""
        path = self._path(sharing, identity)
        with self._lock:
            piece = self._pieces.get(path)
            if piece is None or not piece.whole:
                raise PreprocessingError(*MISSING)
            self._forgotten(path)
        return self._opened(path, piece.seal)

    def drop(self, sharing: bytes, identity: bytes) -> None:
        """Throw one piece away, if it is there."""
        path = self._path(sharing, identity)
        with self._lock:
            piece = self._pieces.get(path)
            if piece is None or not piece.whole:
                return
            self._forgotten(path)
        with explained(f"the preprocessing in {self.root}"):
            folders.remove(path)

    def discard(self, sharing: bytes) -> None:
        folder = self._path(sharing, b"").parent
        with self._lock:
            for path in [path for path, piece in self._pieces.items() if path.parent == folder and piece.whole]:
                self._forgotten(path)
        super().discard(sharing)

    def claim(self, piece: Piece, count: int) -> None:
        """So many bytes more of a piece are about to be written."""
        with self._lock:
            if self._used + count > self._most:
                what = f"this party keeps {self._most >> 20} MiB of preprocessing at most, and has no room for more"
                raise AdmissionError(what, "use what has been prepared, or prepare fewer requests")
            if piece.most and count + sum(p.size for p in self._pieces.values() if p.key == piece.key) > piece.most:
                what = f"this party keeps {piece.most >> 20} MiB of preprocessing at most for one key"
                raise AdmissionError(what, "use what has been prepared, or prepare fewer requests")
            self._used += count
            piece.size += count

    def forget(self, path: Path) -> None:
        """A piece that will not be finished."""
        with self._lock:
            self._forgotten(path)

    def _forgotten(self, path: Path) -> None:
        piece = self._pieces.pop(path, None)
        self._used -= piece.size if piece else 0

    def _expire(self) -> None:
        now = monotonic()
        with self._lock:
            old = [path for path, piece in self._pieces.items() if piece.whole and now - piece.since > KEEP_SECONDS]
            for path in old:
                self._forgotten(path)
        with explained(f"the preprocessing in {self.root}"):
            for path in old:
                folders.remove(path)


class EncryptedWriter(Writer):
    """A piece that is being made, encrypted on its way."""

    def __init__(self, path: Path, header: Header, preprocessing_store: EncryptedStore, piece: Piece) -> None:
        self._preprocessing_store, self._piece = preprocessing_store, piece
        super().__init__(path, header)

    def finish(self) -> int:
        size = super().finish()
        self._piece.whole = True
        return size

    def discard(self) -> None:
        super().discard()
        if not self._piece.whole:
            self._preprocessing_store.forget(self._path)

    def _store(self, at: int, view: memoryview) -> None:
        self._preprocessing_store.claim(self._piece, len(view))
        for start in range(0, len(view), AT_A_TIME):
            part = view[start : start + AT_A_TIME]
            turned = memoryview(bytearray(len(part)))
            self._piece.seal.turn(at + start, part, turned)
            super()._store(at + start, turned)

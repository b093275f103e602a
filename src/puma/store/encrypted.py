"""One-time preprocessing of a party that serves strangers: encrypted on disk, bounded in bytes and in days.

The key of each item is fresh and nowhere but in this process's memory. It goes when the item is taken, so what is
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


class Cipher:
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
class Entry:
    """What the process knows of one: its key, its bytes so far, and whether all of it is there."""

    key: str = ""  # whose it is, and how many bytes that one may have in all; 0: any
    most: int = 0
    cipher: Cipher = field(default_factory=Cipher)
    size: int = 0
    whole: bool = False
    since: float = field(default_factory=monotonic)


class EncryptedStore(PreprocessingStore):
    """Items of `most` bytes at most, all together; sessions in several threads may use it.

    What lies there from before is thrown away: nobody has its keys.
    """

    def __init__(self, root: Path | str, most: int) -> None:
        super().__init__(root)
        self._most, self._used = most, 0
        self._entries: dict[Path, Entry] = {}
        self._lock = threading.Lock()
        with explained(f"the preprocessing in {self.root}"):
            folders.retire(self.root)

    def begin(self, header: Header, key: str = "", most: int = 0) -> Writer:
        """A new item, of somebody who may have `most` bytes in all (0: any).

        AdmissionError where there is no room for any, PreprocessingError for an id that is taken.
        """
        self._expire()
        folders.private_folder(self.root)
        path = self._path(header.sharing, header.id)
        folders.private_folder(path.parent)
        entry = Entry(key, most)
        with self._lock:
            if path in self._entries:
                raise PreprocessingError("this preprocessing has been made before", "use a fresh id")
            self._entries[path] = entry
        try:
            with explained(f"the preprocessing in {self.root}"):
                folders.sweep(path.parent)
            return EncryptedWriter(path, header, self, entry)
        except BaseException:
            self.forget(path)
            raise

    def take(self, sharing: bytes, identity: bytes) -> Item:
        """Use up an item: its name and its key are gone when this returns."""
        path = self._path(sharing, identity)
        with self._lock:
            entry = self._entries.get(path)
            if entry is None or not entry.whole:
                raise PreprocessingError(*MISSING)
            self._forgotten(path)
        return self._opened(path, entry.cipher)

    def drop(self, sharing: bytes, identity: bytes) -> None:
        """Throw one item away, if it is there."""
        path = self._path(sharing, identity)
        with self._lock:
            entry = self._entries.get(path)
            if entry is None or not entry.whole:
                return
            self._forgotten(path)
        with explained(f"the preprocessing in {self.root}"):
            folders.remove(path)

    def discard(self, sharing: bytes) -> None:
        folder = self._path(sharing, b"").parent
        with self._lock:
            for path in [path for path, entry in self._entries.items() if path.parent == folder and entry.whole]:
                self._forgotten(path)
        super().discard(sharing)

    def claim(self, entry: Entry, count: int) -> None:
        """So many bytes more of an item are about to be written."""
        with self._lock:
            if self._used + count > self._most:
                what = f"this party keeps {self._most >> 20} MiB of preprocessing at most, and has no room for more"
                raise AdmissionError(what, "use what has been prepared, or prepare fewer requests")
            if entry.most and count + sum(p.size for p in self._entries.values() if p.key == entry.key) > entry.most:
                what = f"this party keeps {entry.most >> 20} MiB of preprocessing at most for one key"
                raise AdmissionError(what, "use what has been prepared, or prepare fewer requests")
            self._used += count
            entry.size += count

    def forget(self, path: Path) -> None:
        """An item that will not be finished."""
        with self._lock:
            self._forgotten(path)

    def _forgotten(self, path: Path) -> None:
        entry = self._entries.pop(path, None)
        self._used -= entry.size if entry else 0

    def _expire(self) -> None:
        now = monotonic()
        with self._lock:
            old = [path for path, entry in self._entries.items() if entry.whole and now - entry.since > KEEP_SECONDS]
            for path in old:
                self._forgotten(path)
        with explained(f"the preprocessing in {self.root}"):
            for path in old:
                folders.remove(path)


class EncryptedWriter(Writer):
    """An item that is being made, encrypted on its way."""

    def __init__(self, path: Path, header: Header, preprocessing_store: EncryptedStore, entry: Entry) -> None:
        self._preprocessing_store, self._entry = preprocessing_store, entry
        super().__init__(path, header)

    def finish(self) -> int:
        size = super().finish()
        self._entry.whole = True
        return size

    def discard(self) -> None:
        super().discard()
        if not self._entry.whole:
            self._preprocessing_store.forget(self._path)

    def _store(self, at: int, view: memoryview) -> None:
        self._preprocessing_store.claim(self._entry, len(view))
        for start in range(0, len(view), AT_A_TIME):
            part = view[start : start + AT_A_TIME]
            turned = memoryview(bytearray(len(part)))
            self._entry.cipher.turn(at + start, part, turned)
            super()._store(at + start, turned)

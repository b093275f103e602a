"""One-time preprocessing: what a party computed for a request before there was one, kept until that request comes.

An item is one file, below the number of the model's sharing and under an id of its own. It lies in memory only and is
written once, read once: its name is gone before the first byte is used, so that no mask can serve twice, whatever
happens to the request. This file must not know protocols, links or what the bytes mean.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path
from typing import Any, Protocol

import msgspec

from puma.errors import PreprocessingError, StoreError
from puma.store import folders
from puma.store.folders import explained
from puma.wire.messages import Encode, Generate

VERSION = 1
ID_BYTES = 16
ALIGN = 64  # so that what is read can be used in place, as words
START = struct.Struct("<8sQQ")  # magic, bytes of the file, bytes of the header
MAGIC = b"pumaonce"
MISSING = ("the preprocessing is missing or has been used", "prepare more of it")


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the item was made for: a party, a sharing of a model and a request with this party's seeds.

    `secret` is the key, shared with the dealer, of all streams of the run; the dealer has no use for it any more.
    """

    version: int = VERSION
    id: bytes
    rank: int
    sharing: bytes
    request: Generate | Encode
    secret: bytes = b""


class Cipher(Protocol):
    """Encryption of a file; what it turns twice is as it was."""

    def turn(self, at: int, source: memoryview, target: memoryview) -> None:
        """Encrypt or decrypt what lies in a file from byte `at` on."""
        ...


_headers = msgspec.msgpack.Decoder(Header)


class PreprocessingStore:
    """The items that one party keeps below `root`."""

    def __init__(self, root: Path | str) -> None:
        self.root = folders.private_folder(Path(root)) / "preprocessing"

    def begin(self, header: Header) -> Writer:
        """A new item; refused where files could reach a disk, and under an id that is taken."""
        folders.private_folder(self.root)
        if not folders.in_memory(self.root):
            raise PreprocessingError(
                f"one-time preprocessing must not reach a disk, and {self.root} is on one",
                "choose a store below /dev/shm, or mount a tmpfs there",
            )
        path = self._path(header.sharing, header.id)
        folders.private_folder(path.parent)
        with explained(f"the preprocessing in {self.root}"):
            folders.sweep(path.parent)
        if path.exists():
            raise PreprocessingError("this preprocessing has been made before", "use a fresh id")
        return Writer(path, header)

    def take(self, sharing: bytes, identity: bytes) -> Item:
        """Use up an item: it has no name any more when this returns."""
        path = self._path(sharing, identity)
        return self._opened(path)

    def _opened(self, path: Path, cipher: Cipher | None = None) -> Item:
        missing = PreprocessingError(*MISSING)
        with explained(f"the preprocessing in {self.root}"):
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise missing from None
            try:
                os.unlink(path)
                return Item(file, cipher)
            except FileNotFoundError:  # somebody else was faster
                raise missing from None
            finally:
                os.close(file)

    def discard(self, sharing: bytes) -> None:
        """Throw away what was made for this sharing of a model."""
        folders.retire(self._path(sharing, b"").parent)

    def sizes(self) -> list[int]:
        """Bytes of each item."""
        items = [path for path in self.root.glob("*/*") if not path.name.startswith(folders.INCOMING)]
        return [path.stat().st_size for path in items]

    def _path(self, sharing: bytes, identity: bytes) -> Path:
        return self.root / (sharing.hex() or "none") / (identity.hex() or "none")


class Writer:
    """An item that is being made: `write` in order, then `finish`, or `discard`."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._what = path, f"the preprocessing in {path.parents[1]}"
        with explained(self._what):
            self._incoming = folders.Incoming(path.parent, folder=False)
            self._file = os.fdopen(os.dup(self._incoming.fd), "wb", buffering=1 << 20)
        self._header = msgspec.msgpack.encode(header)
        self.size = START.size
        try:
            with explained(self._what):
                self._file.write(START.pack(MAGIC, 0, len(self._header)))  # whose first number is written in the end
            self._put(self._header)
        except BaseException:
            self.discard()
            raise

    def write(self, *buffers: Any) -> None:
        """One more record; it is read back as one run of bytes."""
        self._put(*buffers)

    def finish(self) -> int:
        """Give the item its name; how many bytes it takes."""
        with explained(self._what):
            self._file.seek(0)
            self._file.write(START.pack(MAGIC, self.size, len(self._header)))
            self._file.close()
            self._incoming.keep(self._path)
        return self.size

    def discard(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._incoming.discard()

    def _put(self, *buffers: Any) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        views.append(memoryview(bytes(-(self.size + sum(map(len, views))) % ALIGN)))
        for view in views:
            self._store(self.size, view)
            self.size += len(view)

    def _store(self, at: int, view: memoryview) -> None:
        """Bytes whose place in the file is `at`."""
        with explained(self._what):
            self._file.write(view)


class Item:
    """An item in use: its header, and its records in the order in which they were written."""

    def __init__(self, file: int, cipher: Cipher | None = None) -> None:
        size = os.fstat(file).st_size
        if size < START.size:
            raise PreprocessingError("the preprocessing is damaged", "prepare more of it")
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        self._view = memoryview(mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=rights))
        self._at, self._cipher = 0, cipher
        magic, whole, header = START.unpack(self._view[: START.size])
        try:
            if magic != MAGIC or whole != size:
                raise ValueError("not what was written")
            body = self.read(START.size + header)[START.size :]
            self.header = _headers.decode(body)
        except (ValueError, struct.error, msgspec.MsgspecError, StoreError) as error:
            raise PreprocessingError("the preprocessing is damaged", "prepare more of it") from error
        if self.header.version != VERSION:
            raise PreprocessingError("the preprocessing was made by another version of puma", "prepare more of it")

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._view) - self._at

    def read(self, count: int) -> memoryview:
        """The next record, which must have `count` bytes; writable, and the caller's to keep."""
        if count > self.left:
            raise PreprocessingError(
                "the preprocessing ends too early", "it was made for another request; prepare more of it"
            )
        record = self._view[self._at : self._at + count]
        if self._cipher:
            at = max(self._at, START.size)  # the sizes are not encrypted
            self._cipher.turn(at, record[at - self._at :], record[at - self._at :])
        self._at += -(-count // ALIGN) * ALIGN
        return record

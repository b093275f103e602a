"""A model on its way into a party's store from a distant owner, which may be cut off and taken up again.

What has arrived lies in a folder beside the models, with the offer that it belongs to and a journal of the checksums of
its complete parameters. An upload that is taken up again reads them back and goes on behind the last one that is whole.
Nothing in that folder is ever served: it becomes a model by one rename, when all three parties hold all of it. This
file must not know links.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from puma.errors import ProtocolError, StoreError
from puma.store import folders
from puma.store.folders import explained
from puma.store.models import CHUNK, DATA, MANIFEST, PAGE, Manifest, Model, Store, layout, open_folder, wire_bytes
from puma.store.models import write_manifest as write_manifest_file
from puma.wire.messages import File, Offer
from puma.wire.parameters import tensor_specs

OFFER, JOURNAL = "offer", "journal"
DIGEST_BYTES = 32
FILES = "files"
MOST_FILES, MOST_FILE_BYTES = 16, 64 << 20
KEEP_SECONDS = 14 * 24 * 3600.0  # that an upload may rest before the party forgets it


def uploads_folder(root: Path) -> Path:
    """Where uploads lie, below the folder of a store."""
    return folders.private_folder(root / "uploads")


def forget_old(root: Path, seconds: float = KEEP_SECONDS) -> list[str]:
    """Remove uploads that nobody has gone on with for so long; their names."""
    found = [path for path in uploads_folder(root).iterdir() if time.time() - path.stat().st_mtime > seconds]
    for path in found:
        folders.remove(path)
    return [path.name for path in found]


def check(offer: Offer, rank: int) -> None:
    """ProtocolError or StoreError for an offer that is no model, or whose names would lead elsewhere."""
    folders.checked_name(offer.card.name)
    wanted = {spec.name: spec for spec in tensor_specs(offer.config)}
    offered = {spec.name: spec for spec in offer.tensors}
    shared = len(offered) == len(offer.tensors) and all(wanted.get(name) == spec for name, spec in offered.items())
    others = set(wanted) - set(offered)
    if not shared or set(offer.alias) != others or not set(offer.alias.values()) <= set(offered):
        raise ProtocolError("the parameters offered are not those of the model", "run the same version everywhere")
    if len(offer.seeds) != (2 if rank == 0 else 1) or {len(seed) for seed in offer.seeds} != {32}:
        raise ProtocolError("the offer has not the seeds of this party", "run the same version everywhere")
    names = [file.name for file in offer.card.files]
    if len(names) > MOST_FILES or len(set(names)) != len(names):
        raise ProtocolError("the offer names too many files, or one twice", "run the same version everywhere")
    for file in offer.card.files:
        folders.checked_name(file.name)
        if not 0 <= file.size <= MOST_FILE_BYTES:
            raise ProtocolError(f"{file.name} of {file.size} bytes is too large", f"at most {MOST_FILE_BYTES} bytes")


class ResumableUpload:
    """One upload: first each file, then each parameter that is lacking with its checksum, then `complete`, `publish`.

    `held` parameters are whole. A StoreError means that what had arrived is gone from the disk; `close` keeps it.
    """

    def __init__(self, store: Store, offer: Offer, data: bool) -> None:
        self.offer, self._store, self._with_data = offer, store, data
        name = offer.card.name
        self.published = store.holds(name) and store.sharing(name) == offer.sharing
        self.held = len(offer.tensors) if self.published or not data else 0
        self.model: Model | None = None
        self._path = uploads_folder(store.root) / name
        self._hash, self._tensor, self._arrived = hashlib.sha256(), hashlib.sha256(), 0
        self._folder = self._file = self._journal = -1
        if not self.published:
            self._begin()

    def _begin(self) -> None:
        words = msgspec.msgpack.encode(self.offer)
        offsets, size = layout(self.offer.tensors) if self._with_data else ([], 0)
        self._offsets, self._size = offsets, size
        self._what = f"the model {self.offer.card.name} of {size} bytes in {self._store.root}"
        with self._cleaned():
            self._lock()
            offer = self._path / OFFER
            if not offer.is_file() or offer.read_bytes() != words:
                self._empty()
                folders.private_folder(self._path / FILES)
                folders.write_new(offer, words)
            if self._with_data:
                self._open_data()
                self.held = self._read_back()

    def _lock(self) -> None:
        """One writer at a time; the lock goes with the process."""
        folders.private_folder(self._path)
        self._folder = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._folder)
            self._folder = -1
            what = f"the model {self.offer.card.name} is being uploaded already"
            raise ProtocolError(what, "wait until that is over, or end it") from None
        os.utime(self._path)

    def _empty(self) -> None:
        for path in self._path.iterdir():
            folders.remove(path)

    def _open_data(self) -> None:
        flags = os.O_RDWR | os.O_CREAT
        self._file = os.open(self._path / DATA, flags, 0o600)
        os.posix_fallocate(self._file, 0, self._size)  # a full disk is noticed before anything is sent in vain
        self._journal = os.open(self._path / JOURNAL, flags, 0o600)

    def _read_back(self) -> int:
        """How many parameters are as the journal has them; what follows is forgotten."""
        digests, held = os.pread(self._journal, DIGEST_BYTES * len(self.offer.tensors), 0), 0
        for i, (spec, offset) in enumerate(zip(self.offer.tensors, self._offsets)):
            wanted = digests[i * DIGEST_BYTES :][:DIGEST_BYTES]
            found, whole = hashlib.sha256(), self._hash.copy()
            for piece in self._pieces(offset, wire_bytes(spec)):
                found.update(piece)
                whole.update(piece)
            if found.digest() != wanted:
                break
            whole.update(bytes(-wire_bytes(spec) % PAGE))
            self._hash, held = whole, i + 1
        os.ftruncate(self._journal, held * DIGEST_BYTES)
        return held

    def _pieces(self, offset: int, left: int) -> Iterator[bytes]:
        while left and (piece := os.pread(self._file, min(left, CHUNK), offset)):
            offset, left = offset + len(piece), left - len(piece)
            yield piece

    def file(self, file: File, content: bytes) -> None:
        """A whole file of the card."""
        if len(content) != file.size or hashlib.sha256(content).digest() != file.sha256:
            raise ProtocolError(f"{file.name} does not have its checksum", "upload the model again")
        with self._cleaned():
            folders.remove(self._path / FILES / file.name)
            folders.write_new(self._path / FILES / file.name, content)

    def write(self, payload: Any) -> None:
        """More of the next parameter, in wire form."""
        view = memoryview(payload).cast("B")
        spec, offset = self.offer.tensors[self.held], self._offsets[self.held] + self._arrived
        if self._arrived + len(view) > wire_bytes(spec):
            raise ProtocolError(f"parameter {spec.name} has too many bytes", "upload the model again")
        with self._cleaned():
            self._tensor.update(view)
            self._hash.update(view)
            self._arrived += len(view)
            while view:
                done = os.pwrite(self._file, view, offset)
                view, offset = view[done:], offset + done

    def checked(self, sha256: bytes) -> None:
        """The parameter is complete, and this is its checksum."""
        spec = self.offer.tensors[self.held]
        if self._arrived != wire_bytes(spec) or self._tensor.digest() != sha256:
            raise ProtocolError(f"parameter {spec.name} does not have its checksum", "upload the model again")
        padding = bytes(-self._arrived % PAGE)
        with self._cleaned():
            os.pwrite(self._file, padding, self._offsets[self.held] + self._arrived)
            os.pwrite(self._journal, sha256, self.held * DIGEST_BYTES)
        self._hash.update(padding)
        self._tensor, self._arrived, self.held = hashlib.sha256(), 0, self.held + 1

    def complete(self) -> None:
        """All has arrived: write the manifest, and read everything back."""
        if self.published:
            return
        offer = self.offer
        if self.held != len(offer.tensors):
            raise ProtocolError(f"only {self.held} of {len(offer.tensors)} parameters arrived", "upload it again")
        manifest = Manifest(
            name=offer.card.name, sharing=offer.sharing, config=offer.config, tensors=offer.tensors, seeds=offer.seeds,
            keep_masks=offer.keep_masks, alias=offer.alias, offsets=self._offsets, size=self._size,
            digest=self._hash.hexdigest() if self._size else "", card=offer.card,
        )  # fmt: skip
        with self._cleaned():
            if self._size:
                os.fsync(self._file)
            folders.remove(self._path / MANIFEST)
            write_manifest_file(self._path, manifest)
            folders.sync(self._path)
            self.model = open_folder(self._path, manifest.name, self._store.resident)

    def publish(self) -> Model | None:
        """Give the folder its place among the models, instead of an older one; None if it had it already."""
        if self.published:
            return None
        if self.model is None:
            raise ProtocolError("a model is to be published that has not arrived", "upload it again")
        final = self._store.path(self.offer.card.name)
        with explained(self._what):
            folders.retire(final)
            os.rename(self._path, final)
            folders.sync(final.parent)
            for name in (OFFER, JOURNAL):
                folders.remove(final / name)
        self.published = True
        return self.model

    def close(self) -> None:
        """Nothing more comes now; what has arrived stays, unless it was published."""
        for fd in (self._file, self._journal, self._folder):
            if fd >= 0:
                os.close(fd)
        self._folder = self._file = self._journal = -1

    @contextlib.contextmanager
    def _cleaned(self) -> Iterator[None]:
        """On a StoreError, for want of room perhaps, nothing stays behind."""
        try:
            with explained(self._what):
                yield
        except StoreError:
            folders.remove(self._path)
            raise

"""A model on its way to a party: on disk, where it may be cut off and taken up again, or in memory alone.

On disk, what has arrived lies in a folder beside the models, with the offer that it belongs to, whose it is, and a
journal of the checksums of its complete parameters. An upload that is taken up again reads them back and goes on behind
the last one that is whole. Nothing in that folder is ever served: it becomes a model by one rename, when all three
parties hold all of it. This file must not know links.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from puma.errors import ProtocolError, StoreError
from puma.mpc.party import DEALER
from puma.store import folders
from puma.store.folders import explained
from puma.store.models import (
    DATA,
    MANIFEST,
    MAP_NORESERVE,
    SEED_BYTES,
    Manifest,
    Model,
    Store,
    layout,
    open_folder,
    pieces,
    wire_bytes,
)
from puma.store.models import write_manifest as write_manifest_file
from puma.wire.messages import File, Offer, TensorSpec
from puma.wire.parameters import CHECK, offered_specs, open_digest, open_sharing, public, public_specs, tensor_specs

OFFER, JOURNAL = "offer", "journal"
DIGEST_BYTES = 32
FILES = "files"
MOST_FILES, MOST_FILE_BYTES = 16, 64 << 20
KEEP_SECONDS = 14 * 24 * 3600.0  # that an upload may rest before the party forgets it
EVERYTHING = 1 << 62  # bytes of a model in memory that may be there at a time: what is let go would be lost


class Resting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upload as its folder names it: the offer, and the fingerprint of the key that made it."""

    owner: str
    offer: Offer


_resting = msgspec.msgpack.Decoder(Resting)


def uploads_folder(root: Path) -> Path:
    """Where uploads lie, below the folder of a store."""
    return folders.private_folder(root / "uploads")


def forget_old(root: Path, seconds: float = KEEP_SECONDS) -> list[str]:
    """Remove uploads that nobody has gone on with for so long; their names."""
    found = [path for path in uploads_folder(root).iterdir() if time.time() - path.stat().st_mtime > seconds]
    for path in found:
        folders.remove(path)
    return [path.name for path in found]


def resting_owner(root: Path, name: str) -> str | None:
    """Whose upload of this name has arrived in part; None if there is none, or nobody could go on with it."""
    try:
        return _resting.decode((uploads_folder(root) / name / OFFER).read_bytes()).owner
    except (OSError, msgspec.MsgspecError):
        return None


def check(offer: Offer, rank: int) -> None:
    """ProtocolError or StoreError for an offer that is no model, or whose names would lead elsewhere."""
    folders.checked_name(offer.card.name)
    if public(offer.config):
        _check_public(offer)
    else:
        _check_secret(offer, rank)
    names = [file.name for file in offer.card.files]
    if len(names) > MOST_FILES or len(set(names)) != len(names):
        raise ProtocolError("the offer names too many files, or one twice", "run the same version everywhere")
    for file in offer.card.files:
        folders.checked_name(file.name)
        if not 0 <= file.size <= MOST_FILE_BYTES:
            raise ProtocolError(f"{file.name} of {file.size} bytes is too large", f"at most {MOST_FILE_BYTES} bytes")


def _check_public(offer: Offer) -> None:
    """Whoever is told the same digest holds the same weights; what parties and clients compare is made of it."""
    wanted, offered = ({spec.name for spec in specs} for specs in (tensor_specs(offer.config), offer.tensors))
    others = wanted - offered
    fits = public_specs(offer.config, offer.tensors) and others == set(offer.alias) and not offer.seeds
    weights = offer.card.weights
    if not fits or weights is None or set(offer.alias.values()) - offered:
        raise ProtocolError("the parameters offered are not those of the model", "run the same version everywhere")
    if weights.sha256 != open_digest(offer.config, offer.tensors):
        raise ProtocolError("the digest of the weights is not that of what is offered", "share the model again")
    if offer.places and len(offer.places) != len(offer.tensors):
        raise ProtocolError("the offer says of some weights only where they lie", "run the same version everywhere")
    if not offer.places and offer.sharing != open_sharing(offer.card):
        raise ProtocolError("public weights are not called by their digest", "run the same version everywhere")


def _check_secret(offer: Offer, rank: int) -> None:
    """All parameters, the check vector, and this party's seeds."""
    wanted = {spec.name: spec for spec in offered_specs(offer.config)}
    offered = {spec.name: spec for spec in offer.tensors}
    shared = len(offered) == len(offer.tensors) and all(wanted.get(name) == spec for name, spec in offered.items())
    others = set(wanted) - set(offered) - {CHECK.name}
    shared = shared and CHECK.name in offered
    aliased = all(source in offered and _alike(wanted[name], offered[source]) for name, source in offer.alias.items())
    if not shared or set(offer.alias) != others or not aliased:
        raise ProtocolError("the parameters offered are not those of the model", "run the same version everywhere")
    if len(offer.seeds) != (2 if rank == DEALER else 1) or {len(seed) for seed in offer.seeds} != {SEED_BYTES}:
        raise ProtocolError("the offer has not the seeds of this party", "run the same version everywhere")
    if rank == DEALER and offer.salt:
        raise ProtocolError("the dealer was given the evaluators' salt", "run the same version everywhere")
    over = offer.card.base is not None and offer.card.weights is not None
    if offer.places or over != bool(offer.config.formats.adapted) or (offer.card.weights is not None) != over:
        raise ProtocolError("secret weights lie nowhere in the open", "run the same version everywhere")


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether one tensor can be the other under one more name."""
    return (one.shape, one.bits, one.frac) == (other.shape, other.bits, other.frac)


class ResumableUpload:
    """One upload: first each file, then each parameter that is lacking with its checksum, then `complete`, `publish`.

    `held` parameters are whole. A StoreError means that what had arrived is gone from the disk; `close` keeps it, if
    it came with checksums. `owner` is the fingerprint of the key with which it comes.
    """

    def __init__(self, store: Store, offer: Offer, owner: str = "") -> None:
        self.offer, self.owner, self._store = offer, owner, store
        self._with_data = store.rank != DEALER and not offer.places
        name = offer.card.name
        self.published = store.holds(name) and store.sharing(name) == offer.sharing
        self.held = 0 if self._with_data and not self.published else len(offer.tensors)
        self.model: Model | None = None
        self._path = uploads_folder(store.root) / name
        self._tensor, self._arrived, self._digests = hashlib.sha256(), 0, list[bytes]()
        self._folder = self._file = self._journal = -1
        if not self.published:
            self._begin()

    def _begin(self) -> None:
        words = msgspec.msgpack.encode(Resting(self.owner, self.offer))
        offsets, size = layout(self.offer.tensors) if self._with_data else ([], 0)
        self._offsets, self._size = offsets, size
        self._what = f"the model {self.offer.card.name} of {size} bytes in {self._store.root}"
        with self._cleaned():
            self._lock()
            offer = self._path / OFFER
            if not self.offer.checksums or not offer.is_file() or offer.read_bytes() != words:
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
        digests = os.pread(self._journal, DIGEST_BYTES * len(self.offer.tensors), 0)
        for i, (spec, offset) in enumerate(zip(self.offer.tensors, self._offsets, strict=False)):
            found = hashlib.sha256()
            for piece in pieces(self._file, offset, wire_bytes(spec)):
                found.update(piece)
            if found.digest() != digests[i * DIGEST_BYTES :][:DIGEST_BYTES]:
                break
            self._digests.append(found.digest())
        os.ftruncate(self._journal, len(self._digests) * DIGEST_BYTES)
        return len(self._digests)

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
        offset = self._offsets[self.held] + self._arrived
        self._arrived = _grown(self.offer, self.held, self._arrived, len(view))
        with self._cleaned():
            self._tensor.update(view)
            while view:
                done = os.pwrite(self._file, view, offset)
                view, offset = view[done:], offset + done

    def checked(self, sha256: bytes | None) -> None:
        """The parameter is complete, and this is its checksum, if it came with one."""
        found = self._tensor.digest()
        _check_whole(self.offer, self.held, self._arrived, sha256 in (None, found))
        _check_said(self.offer, self.held, found)
        with self._cleaned():
            os.pwrite(self._journal, found, self.held * DIGEST_BYTES)
        self._digests.append(found)
        self._tensor, self._arrived, self.held = hashlib.sha256(), 0, self.held + 1

    def complete(self) -> None:
        """All has arrived: write the manifest, and read everything back."""
        if self.published:
            return
        manifest = self._manifest()
        with self._cleaned():
            if self._size:
                os.fsync(self._file)
            folders.remove(self._path / MANIFEST)
            write_manifest_file(self._path, manifest)
            folders.sync(self._path)
            self.model = open_folder(self._path, manifest.name, self._store.rank, self._store.resident)

    def _manifest(self) -> Manifest:
        rank, laid = self._store.rank, (self._offsets, self._size, self._digests)
        return manifest_of(self.offer, self.held, self.owner, *laid, rank)

    def publish(self) -> Model | None:
        """Give the folder its place among the models, instead of an older one; None if it had it already."""
        if self.published:
            return None
        model = _arrived(self.model)
        final = self._store.path(self.offer.card.name)
        with explained(self._what):
            folders.retire(final)
            os.rename(self._path, final)
            folders.sync(final.parent)
            for name in (OFFER, JOURNAL):
                folders.remove(final / name)
        self.published = True
        return model

    def discard(self) -> None:
        """What has arrived goes, unless it was published."""
        if not self.published:
            folders.remove(self._path)

    def close(self) -> None:
        """Nothing more comes now; what has arrived stays if it can be gone on with, unless it was published."""
        if not (self.offer.checksums or self.published):
            folders.remove(self._path)
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


class MemoryUpload:
    """The same for a model that lives in this process's memory alone: nothing is resumed, nothing published before."""

    owner, published = "", False

    def __init__(self, offer: Offer, rank: int) -> None:
        arrives = rank != DEALER and not offer.places
        self.offer, self.held, self.model = offer, 0 if arrives else len(offer.tensors), None
        self._offsets, self._size = layout(offer.tensors) if arrives else ([], 0)
        self._rank = rank
        self._data = _memory(self._size) if self._size else None
        self._tensor, self._arrived, self._digests = hashlib.sha256(), 0, list[bytes]()

    def file(self, file: File, content: bytes) -> None:
        """A whole file of the card; who has a model in memory has its files, too."""

    def write(self, payload: Any) -> None:
        """More of the next parameter, in wire form."""
        assert self._data is not None
        view = memoryview(payload).cast("B")
        at = self._offsets[self.held] + self._arrived
        self._arrived = _grown(self.offer, self.held, self._arrived, len(view))
        self._data[at : at + len(view)] = view
        self._tensor.update(view)

    def checked(self, sha256: bytes | None) -> None:
        """The parameter is complete, and this is its checksum, if it came with one."""
        _check_whole(self.offer, self.held, self._arrived, sha256 in (None, self._tensor.digest()))
        self._digests.append(self._tensor.digest())
        self._tensor, self._arrived, self.held = hashlib.sha256(), 0, self.held + 1

    def complete(self) -> None:
        """All has arrived."""
        manifest = manifest_of(self.offer, self.held, self.owner, self._offsets, self._size, self._digests, self._rank)
        self.model: Model | None = Model(manifest, self._data, EVERYTHING)

    def publish(self) -> Model:
        """The model."""
        return _arrived(self.model)

    def discard(self) -> None:
        """What has arrived goes."""
        self.close()

    def close(self) -> None:
        """Nothing more comes now."""
        self._data = self.model = None


Upload = ResumableUpload | MemoryUpload


def manifest_of(
    offer: Offer, held: int, owner: str, offsets: list[int], size: int, digests: list[bytes], rank: int
) -> Manifest:  # fmt: skip
    """What a party keeps of an offer of which it holds so many parameters; ProtocolError unless these are all."""
    if held != len(offer.tensors):
        raise ProtocolError(f"only {held} of {len(offer.tensors)} parameters arrived", "upload it again")
    return Manifest(
        card=offer.card, sharing=offer.sharing, config=offer.config, tensors=offer.tensors, seeds=offer.seeds,
        keep_masks=offer.keep_masks, alias=offer.alias, owner=owner, offsets=offsets, size=size, digests=digests,
        salt=offer.salt,
        places=[] if rank == DEALER else offer.places,
    )  # fmt: skip


def _grown(offer: Offer, held: int, arrived: int, more: int) -> int:
    """How much of the next parameter has arrived with `more` bytes; ProtocolError if that is too much."""
    if arrived + more > wire_bytes(offer.tensors[held]):
        raise ProtocolError(f"parameter {offer.tensors[held].name} has too many bytes", "upload the model again")
    return arrived + more


def _check_whole(offer: Offer, held: int, arrived: int, right: bool) -> None:
    spec = offer.tensors[held]
    if arrived != wire_bytes(spec) or not right:
        raise ProtocolError(f"parameter {spec.name} does not have its checksum", "upload the model again")


def _check_said(offer: Offer, held: int, found: bytes) -> None:
    """ProtocolError unless a public parameter is the one that everybody was told of."""
    spec = offer.tensors[held]
    if spec.kind and spec.sha256 != found:
        raise ProtocolError(f"parameter {spec.name} is not the one that its digest says", "share the model again")


def _arrived(model: Model | None) -> Model:
    if model is None:
        raise ProtocolError("a model is to be published that has not arrived", "upload it again")
    return model


def _memory(size: int) -> mmap.mmap:
    """Memory of this process alone, which is taken as it is written."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)

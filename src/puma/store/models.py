"""A party's shares of models on disk: one folder a model, with a manifest and, at the evaluators, one data file.

The data file holds every parameter's masked words in wire form, each from a page of its own. `uploads.py` writes it as
the frames arrive, and the folder gets its name only when all of it is on disk and has been read back. It is mapped into
memory to be used, so a model may be larger than memory. This file must not know links or what words mean.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from puma import kernels
from puma.errors import StoreError
from puma.models.config import Config
from puma.mpc.party import DEALER
from puma.store import folders
from puma.store.folders import explained
from puma.wire import receipts
from puma.wire.messages import Card, Place, TensorSpec
from puma.wire.parameters import public, spec_bytes

VERSION = 2
PAGE = mmap.PAGESIZE
CHUNK = 16 << 20
# Without it the system would refuse to map a file larger than memory, though nothing is ever written to the mapping.
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
MANIFEST, DATA = "manifest.json", "data"
DAMAGED = "delete the model with `puma store`, at every party, and share it again"
SEED_BYTES = 32


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one party keeps of a shared model; `seeds` are those of the masks that this party holds.

    `sharing` names this very set of masks, at all three parties, and `owner` the fingerprint of the key with which the
    model came, if it came with one. Offsets, size in bytes and each parameter's SHA-256 are those of the data file,
    which an evaluator has and the dealer has not; likewise the salt of its commitment. The files that the card
    names lie beside it. Public weights have no seeds, and may lie in `places` of the machine, a tensor each, instead of
    a data file.
    """

    version: int = VERSION
    card: Card
    config: Config
    tensors: list[TensorSpec]
    seeds: list[bytes]
    keep_masks: bool
    sharing: bytes
    alias: dict[str, str] = {}
    owner: str = ""
    offsets: list[int] = []
    size: int = 0
    digests: list[bytes] = []
    salt: bytes = b""
    places: list[Place] = []

    @property
    def public(self) -> bool:
        """Whether everybody may know all of what lies here."""
        return public(self.config)

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.card.name


class _Version(msgspec.Struct):
    """What every version's manifest begins with."""

    version: int


class _Digested(msgspec.Struct, forbid_unknown_fields=True):
    """A manifest as it lies on disk, with its own digest."""

    digest: str
    manifest: msgspec.Raw


_digested = msgspec.json.Decoder(_Digested)
_manifests = msgspec.json.Decoder(Manifest)
_versions = msgspec.json.Decoder(_Version)


class Store:
    """The models that the party of this rank keeps below `root`; opening it removes what was half deleted."""

    def __init__(self, root: Path | str, rank: int, resident: int | None = None) -> None:
        self.root, self.rank, self.resident = folders.private_folder(Path(root)), rank, resident
        self._models = folders.private_folder(self.root / "models")
        with explained(f"the store {self.root}"):
            folders.sweep(self._models)

    def names(self) -> list[str]:
        """The models in the store."""
        return sorted(path.name for path in self._models.iterdir() if folders.NAME.fullmatch(path.name))

    def holds(self, name: str) -> bool:
        """Whether a model of this name is complete here; UsageError for what is no name."""
        return (self._models / folders.checked_name(name)).is_dir()

    def open(self, name: str) -> Model:
        """Map a model into memory, after reading all of it once to see that it is whole; StoreError if it is not."""
        if not self.holds(name):
            raise StoreError(f"there is no model {name} in {self.root}", "its owner shares it first")
        return open_folder(self._models / name, name, self.rank, self.resident)

    def sharing(self, name: str) -> bytes:
        """Which sharing of the model this is; empty if there is none."""
        return read_manifest(self._models / name, name).sharing if self.holds(name) else b""

    def size(self, name: str) -> int:
        """What the model takes on disk; nothing if it is not there."""
        folder = self._models / folders.checked_name(name)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def manifest(self, name: str) -> Manifest:
        """What the store knows of a model, without looking at its data."""
        if not self.holds(name):
            raise StoreError(f"there is no model {name} in {self.root}", "look at the names in the store")
        return read_manifest(self._models / name, name)

    def path(self, name: str) -> Path:
        """The folder of a model, whether it is there or not."""
        return self._models / folders.checked_name(name)

    def delete(self, name: str) -> None:
        """Forget a model; processes that have it open keep what they have mapped."""
        if not self.holds(name):
            raise StoreError(f"there is no model {name} in {self.root}", "look at the names in the store")
        with explained(f"the store {self.root}"):
            folders.retire(self._models / name)


class Model:
    """A stored model in use. `packed` gives a parameter's words, mapped; they take memory only while they are read."""

    def __init__(self, manifest: Manifest, data: mmap.mmap | None, resident: int | None) -> None:
        self.manifest = manifest
        self.base: Model | None = None  # whose weights an adapter changes
        spans = _spans(manifest, data)
        self._spans = {spec.name: span for spec, span in zip(manifest.tensors, spans, strict=False)}
        names = list(self._spans)
        self._next = dict(zip(names, [*names[1:], *names[:1]], strict=True))
        self._resident = _memory() // 4 if resident is None else resident
        self._read: OrderedDict[str, None] = OrderedDict()  # latest last
        self._mapped = 0  # bytes of these
        self._lock = threading.Lock()  # sessions in threads of one process share a model
        self.words: dict[str, list[tuple[Tensor, Tensor]]] = {
            spec.name: [] for spec in manifest.tensors
        }  # that all keep

    def packed(self, name: str) -> Tensor | None:
        """The parameter's words in wire form, or a public one's numbers, a flat uint8 tensor over the file; None at the
        dealer."""
        if not self._spans:
            return None
        data, offset, size = self._spans[name]
        return kernels.from_wire(memoryview(data)[offset : offset + size])

    def touch(self, name: str) -> None:
        """`name` is about to be read: ask for the one that follows it, and let go of what was read longest ago.

        Parameters lie in the order in which a pass reads them, so the next layer is read from the disk while this one
        computes. What is let go comes back by itself when it is read again.
        """
        if not self._spans:
            return
        with self._lock:
            if next(reversed(self._read), None) != name:
                self._touched(name)

    def _touched(self, name: str) -> None:
        self._mapped += 0 if name in self._read else self._spans[name][2]
        self._read[name] = None
        self._read.move_to_end(name)
        while len(self._read) > 1 and self._mapped > self._resident:
            oldest, _ = self._read.popitem(last=False)
            self._mapped -= self._spans[oldest][2]
            self._advise(mmap.MADV_DONTNEED, oldest)
        if self._next[name] not in self._read:
            self._advise(mmap.MADV_WILLNEED, self._next[name])

    def _advise(self, advice: int, name: str) -> None:
        """Of all pages that hold nothing else; those at the ends stay as they are."""
        data, offset, size = self._spans[name]
        first, stop = -(-offset // PAGE) * PAGE, (offset + size) // PAGE * PAGE
        if first < stop:
            data.madvise(advice, first, stop - first)


def _spans(manifest: Manifest, data: mmap.mmap | None) -> list[tuple[mmap.mmap, int, int]]:
    """In which map, from where on and how far each tensor lies; none at the dealer."""
    sizes = [wire_bytes(spec) for spec in manifest.tensors]
    if data is not None:
        return [(data, at, size) for at, size in zip(manifest.offsets, sizes, strict=True)]
    maps = {place.file: place for place in manifest.places}
    opened = {file: _elsewhere(manifest.name, place) for file, place in maps.items()}
    if any(place.offset + size > place.size for place, size in zip(manifest.places, sizes, strict=False)):
        raise StoreError(f"the weights of {manifest.name} are not all there", "download the model again")
    return [(opened[place.file], place.offset, size) for place, size in zip(manifest.places, sizes, strict=False)]


def _elsewhere(name: str, place: Place) -> mmap.mmap:
    """A map of a file that is not the store's own; StoreError unless it is the one that was meant."""
    with explained(f"the weights of {name} in {place.file}"):
        file = os.open(place.file, os.O_RDONLY)
        try:
            found = os.fstat(file)
            if (found.st_size, found.st_mtime_ns) != (place.size, place.written):
                raise StoreError(f"{place.file} has been changed since {name} was opened", "run the command again")
            return _map(file, place.size)
        finally:
            os.close(file)


def _map(file: int, size: int) -> mmap.mmap:
    """Private: whatever a process does to its memory, the file stays as it is; pages that are read are shared."""
    kind, rights = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(file, size, flags=kind, prot=rights)


def owner_key(folder: Path) -> bytes:
    """The owner's secret behind the names of stored models, made when it is first asked for."""
    return folders.kept_secret(folder / "key", 32)


def content_name(key: bytes, name: str, config: Config, params: Mapping[str, Tensor]) -> str:
    """A model's name in the store, which changes with its config and weights.

    Under the owner's key: a bare digest would let a party recognise weights that it has seen elsewhere.
    """
    digest = hmac.new(key, msgspec.json.encode(config), "sha256")
    for label, tensor in params.items():
        digest.update(f"{label} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(kernels.to_wire(tensor))
    return f"{content_label(name)}-{digest.hexdigest()[:24]}"


def content_label(name: str) -> str:
    """What of a model's name can stand in that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[-40:].strip("-._") or "model"


def wire_bytes(spec: TensorSpec) -> int:
    """Bytes of a parameter in wire form."""
    return spec_bytes(spec)


def layout(specs: list[TensorSpec]) -> tuple[list[int], int]:
    """Where each parameter begins, on a page of its own, and the size of the file."""
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end)
        end += -(-wire_bytes(spec) // PAGE) * PAGE
    return offsets, end


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """With its own digest, into a folder that holds none yet."""
    body = msgspec.json.encode(manifest)
    content = msgspec.json.encode(_Digested(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
    folders.write_new(folder / MANIFEST, content)


def read_manifest(folder: Path, name: str) -> Manifest:
    """The manifest, if it is what was written."""
    place = f"model {name} in {folder.parents[1]}"
    try:
        found = _digested.decode((folder / MANIFEST).read_bytes())
        intact = hashlib.sha256(found.manifest).hexdigest() == found.digest
        if _versions.decode(found.manifest).version != VERSION:
            raise StoreError(f"{place} was stored by another version of puma", DAMAGED)
        manifest = _manifests.decode(found.manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"the manifest of {place} cannot be read", DAMAGED) from error
    expected = layout(manifest.tensors) if manifest.offsets else ([], 0)
    if not intact or manifest.name != name or (manifest.offsets, manifest.size) != expected:
        raise StoreError(f"the manifest of {place} is damaged", DAMAGED)
    return manifest


def open_folder(folder: Path, name: str, rank: int, resident: int | None) -> Model:
    """Map a model that lies in this folder; StoreError unless it is all that this rank must hold, and as written."""
    manifest = read_manifest(folder, name)
    check_part(manifest, rank)
    if not manifest.size:
        return Model(manifest, None, resident)
    with explained(f"the data of model {name}"):
        file = os.open(folder / DATA, os.O_RDONLY)
        try:
            if os.fstat(file).st_size != manifest.size or not _intact(file, manifest):
                raise StoreError(f"the data of model {name} in {folder.parents[1]} is damaged", DAMAGED)
            return Model(manifest, _map(file, manifest.size), resident)
        finally:
            os.close(file)


def check_part(manifest: Manifest, rank: int) -> None:
    """StoreError unless this is what the party must hold: P0 two seeds and no data, P1 and P2 a seed and all data; of
    public weights no seed at all."""
    data = 0 if rank == DEALER else len(manifest.tensors)
    seeds = 0 if manifest.public else 2 if rank == DEALER else 1
    if manifest.public and manifest.places:
        whole = len(manifest.places) == data and not manifest.offsets
    else:
        whole = len(manifest.offsets) == len(manifest.digests) == data
    if not whole or [len(seed) for seed in manifest.seeds] != [SEED_BYTES] * seeds:
        raise StoreError(f"what lies here of model {manifest.name} is not P{rank}'s part of it", DAMAGED)


def commitment(manifest: Manifest, rank: int) -> receipts.Commitment | None:
    """What the party of this rank commits to of a model that it holds; None for public weights, of which the card has
    the digest. StoreError if that is not its part."""
    if manifest.public:
        return None
    check_part(manifest, rank)
    ranks = (1, 2) if rank == DEALER else (rank,)
    pairs = zip(ranks, manifest.seeds, strict=True)
    seeds = [receipts.committed_seed(manifest.sharing, evaluator, seed) for evaluator, seed in pairs]
    if rank == DEALER:
        return receipts.Commitment(seeds)
    held = zip(manifest.tensors, manifest.digests, strict=True)
    tensors = ((spec.name, spec.shape, spec.bits, spec.frac, digest) for spec, digest in held)
    words = receipts.committed_words(manifest.salt, manifest.sharing, tensors, manifest.alias)
    return receipts.Commitment(seeds, words)


def pieces(file: int, offset: int, left: int) -> Iterator[memoryview]:
    """Bytes of a file, read piece by piece; fewer if it ends."""
    buffer = memoryview(bytearray(min(left, CHUNK)))
    while left and (count := os.preadv(file, [buffer[:left]], offset)):
        yield buffer[:count]
        offset, left = offset + count, left - count


def _intact(file: int, manifest: Manifest) -> bool:
    """Whether every parameter in the file has its digest."""
    for spec, offset, digest in zip(manifest.tensors, manifest.offsets, manifest.digests, strict=True):
        found = hashlib.sha256()
        for piece in pieces(file, offset, wire_bytes(spec)):
            found.update(piece)
        if found.digest() != digest:
            return False
    return True


def _memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE

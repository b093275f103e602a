"""A party's shares of models on disk: one folder a model, with a manifest and, at the evaluators, one data file.

The data file holds every parameter's masked words in wire form, each from a page of its own. It is written as the
frames arrive, and the folder gets its name only when all of it is on disk and has been read back. It is mapped into
memory to be used, so a model may be larger than memory. This file must not know links, parties or what words mean.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from puma import kernels
from puma.errors import StoreError
from puma.models.config import Config
from puma.mpc.seeded import rest_bytes
from puma.store import folders
from puma.store.folders import explained
from puma.wire.messages import Card, TensorSpec

VERSION = 1
PAGE = mmap.PAGESIZE
CHUNK = 16 << 20
# Without it the system would refuse to map a file larger than memory, though nothing is ever written to the mapping.
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
MANIFEST, DATA = "manifest.json", "data"
DAMAGED = "delete the model there, at every party, and share it again"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one party keeps of a shared model; `seeds` are those of the masks that this party holds.

    `sharing` names this very set of masks, at all three parties. Offsets, sizes in bytes and the SHA-256 digest are
    those of the data file, which an evaluator has and the dealer has not.
    """

    version: int = VERSION
    name: str
    sharing: bytes
    config: Config
    tensors: list[TensorSpec]
    seeds: list[bytes]
    keep_masks: bool
    alias: dict[str, str] = {}
    reveal_logits: bool = False
    offsets: list[int] = []
    size: int = 0
    digest: str = ""
    card: Card | None = None  # of models that came from a distant owner; the files that it names lie beside the data


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    """A manifest as it lies on disk, with its own digest."""

    digest: str
    manifest: msgspec.Raw


_seals = msgspec.json.Decoder(_Sealed)
_manifests = msgspec.json.Decoder(Manifest)


class Store:
    """The models that one party keeps below `root`; opening it removes what an interrupted upload left."""

    def __init__(self, root: Path | str, resident: int | None = None) -> None:
        self.root = folders.private_folder(Path(root))
        self._models = folders.private_folder(self.root / "models")
        self.resident = resident
        with explained(f"the store {self.root}"):
            folders.sweep(self._models)

    def names(self) -> list[str]:
        """The models in the store."""
        return sorted(path.name for path in self._models.iterdir() if folders.NAME.fullmatch(path.name))

    def holds(self, name: str) -> bool:
        return (self._models / folders.checked_name(name)).is_dir()

    def open(self, name: str) -> Model:
        """Map a model into memory, after reading all of it once to see that it is whole; StoreError if it is not."""
        if not self.holds(name):
            raise StoreError(f"there is no model {name} in {self.root}", "share it first, and ask to keep it")
        return open_folder(self._models / name, name, self.resident)

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

    def create(self, manifest: Manifest, data: bool) -> Upload:
        """Take in a model that is being shared; with `data`, the words of its parameters, else seeds only."""
        folders.checked_name(manifest.name)
        return Upload(self._models, manifest, data, self.resident)

    def delete(self, name: str) -> None:
        """Forget a model; processes that have it open keep what they have mapped."""
        if not self.holds(name):
            raise StoreError(f"there is no model {name} in {self.root}", "look at the names in the store")
        with explained(f"the store {self.root}"):
            folders.retire(self._models / name)


class Upload:
    """A model on its way into the store: `write` its parameters in order, then `finish`, or `discard`.

    Room for all of it is set aside first, so that a full disk is noticed before anything has been sent in vain.
    """

    def __init__(self, models: Path, manifest: Manifest, data: bool, resident: int | None) -> None:
        offsets, size = layout(manifest.tensors) if data else ([], 0)
        self._manifest = msgspec.structs.replace(manifest, offsets=offsets, size=size)
        self._models, self._resident, self._hash = models, resident, hashlib.sha256()
        self._done = self._arrived = 0  # parameters that are complete, and bytes of the next one
        self._what = f"the model {manifest.name} of {size} bytes in {models.parent}"
        with explained(self._what):
            self._incoming = folders.Incoming(models, folder=True)
        self._file = -1
        try:
            with explained(self._what):
                if size:
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                    self._file = os.open(self._incoming.path / DATA, flags, 0o600)
                    os.posix_fallocate(self._file, 0, size)
        except BaseException:
            self.discard()
            raise

    def write(self, payload: Any) -> None:
        """More of the parameters in wire form, in order; one may come in several pieces."""
        view = memoryview(payload).cast("B")
        spec = self._manifest.tensors[self._done]
        self._arrived += len(view)
        missing = wire_bytes(spec) - self._arrived
        if missing < 0:
            raise StoreError(f"parameter {spec.name} has {-missing} bytes too many", "share it again")
        padding = b"" if missing else bytes(-wire_bytes(spec) % PAGE)
        with explained(self._what):
            for piece in (view, memoryview(padding)):
                self._hash.update(piece)
                while piece:
                    piece = piece[os.write(self._file, piece) :]
        if not missing:
            self._done, self._arrived = self._done + 1, 0

    def finish(self) -> Model:
        """Read back what was written, give the folder its name, and open it; the same name is replaced."""
        manifest = msgspec.structs.replace(self._manifest, digest=self._hash.hexdigest() if self._file >= 0 else "")
        if self._file >= 0 and self._done != len(manifest.tensors):
            raise StoreError(f"only {self._done} parameters of {manifest.name} arrived", "share it again")
        with explained(self._what):
            if self._file >= 0:
                os.fsync(self._file)
            write_manifest(self._incoming.path, manifest)
            model = open_folder(self._incoming.path, manifest.name, self._resident)
            folders.retire(self._models / manifest.name)
            self._incoming.keep(self._models / manifest.name)
        self._close()
        return model

    def discard(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        self._incoming.discard()
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Model:
    """A stored model in use. `packed` gives a parameter's words, mapped; they take memory only while they are read."""

    def __init__(self, manifest: Manifest, data: mmap.mmap | None, resident: int | None) -> None:
        self.manifest = manifest
        self._data = data
        specs = manifest.tensors
        self._spans = {s.name: (at, wire_bytes(s)) for s, at in zip(specs, manifest.offsets, strict=False)}
        names = list(self._spans)
        self._next = dict(zip(names, [*names[1:], *names[:1]], strict=True))
        self._resident = _memory() // 4 if resident is None else resident
        self._read: OrderedDict[str, None] = OrderedDict()  # latest last
        self._mapped = 0  # bytes of these
        self._lock = threading.Lock()  # sessions in threads of one process share a model
        self.words: dict[str, list[tuple[Tensor, Tensor]]] = {spec.name: [] for spec in specs}  # that all of them keep

    def packed(self, name: str) -> Tensor | None:
        """The parameter's words in wire form, a flat uint8 tensor over the file; None at the dealer."""
        if self._data is None:
            return None
        offset, size = self._spans[name]
        return kernels.from_wire(memoryview(self._data)[offset : offset + size])

    def touch(self, name: str) -> None:
        """`name` is about to be read: ask for the one that follows it, and let go of what was read longest ago.

        Parameters lie in the order in which a pass reads them, so the next layer is read from the disk while this one
        computes. What is let go comes back by itself when it is read again.
        """
        if self._data is None:
            return
        with self._lock:
            if next(reversed(self._read), None) != name:
                self._touched(name)

    def _touched(self, name: str) -> None:
        self._mapped += 0 if name in self._read else self._spans[name][1]
        self._read[name] = None
        self._read.move_to_end(name)
        while len(self._read) > 1 and self._mapped > self._resident:
            oldest, _ = self._read.popitem(last=False)
            self._mapped -= self._spans[oldest][1]
            self._advise(mmap.MADV_DONTNEED, oldest)
        if self._next[name] not in self._read:
            self._advise(mmap.MADV_WILLNEED, self._next[name])

    def _advise(self, advice: int, name: str) -> None:
        assert self._data is not None
        self._data.madvise(advice, *self._spans[name])


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
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[-40:].strip("-._") or "model"
    return f"{readable}-{digest.hexdigest()[:24]}"


def wire_bytes(spec: TensorSpec) -> int:
    """Bytes of a parameter in wire form."""
    return rest_bytes(spec.shape, spec.bits)


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
    sealed = msgspec.json.encode(_Sealed(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
    folders.write_new(folder / MANIFEST, sealed)


def read_manifest(folder: Path, name: str) -> Manifest:
    """The manifest, if it is what was written."""
    try:
        sealed = _seals.decode((folder / MANIFEST).read_bytes())
        intact = hashlib.sha256(sealed.manifest).hexdigest() == sealed.digest
        manifest = _manifests.decode(sealed.manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"the manifest of model {name} in {folder.parents[1]} cannot be read", DAMAGED) from error
    expected = layout(manifest.tensors) if manifest.offsets else ([], 0)
    if not intact or manifest.name != name or (manifest.offsets, manifest.size) != expected:
        raise StoreError(f"the manifest of model {name} in {folder.parents[1]} is damaged", DAMAGED)
    if manifest.version != VERSION:
        raise StoreError(f"model {name} was stored by another version of puma", DAMAGED)
    return manifest


def open_folder(folder: Path, name: str, resident: int | None) -> Model:
    manifest = read_manifest(folder, name)
    if not manifest.size:
        return Model(manifest, None, resident)
    with explained(f"the data of model {name}"):
        file = os.open(folder / DATA, os.O_RDONLY)
        try:
            if os.fstat(file).st_size != manifest.size or _digest(file) != manifest.digest:
                raise StoreError(f"the data of model {name} in {folder.parents[1]} is damaged", DAMAGED)
            # Private: whatever a process does to its memory, the file stays as it is.
            kind, rights = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            return Model(manifest, mmap.mmap(file, manifest.size, flags=kind, prot=rights), resident)
        finally:
            os.close(file)


def _digest(file: int) -> str:
    """SHA-256 of a file, read piece by piece."""
    found, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    while count := os.readv(file, [buffer]):
        found.update(buffer[:count])
    return found.hexdigest()


def _memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE

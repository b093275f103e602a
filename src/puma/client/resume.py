"""What an interrupted upload needs to go on, in one file of the owner's alone: the seeds of the masks, and of each
parameter that was begun a digest of its plaintext.

A mask never covers two plaintexts, nor two roundings of one: an upload is gone on with only while the tensors' formats
are what they were and every parameter that was begun is unchanged, and begins anew with fresh seeds otherwise. This
file must not know links.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from puma import kernels
from puma.crypto.prg import fresh_secret
from puma.errors import StoreError
from puma.models.config import Config
from puma.store import folders
from puma.store.folders import explained
from puma.store.preprocessing import ID_BYTES
from puma.wire.messages import Card, TensorSpec
from puma.wire.parameters import CHECK


def state_folder() -> Path:
    """Where resume files lie unless told otherwise."""
    return folders.of_user("XDG_STATE_HOME", ".local", "state") / "puma" / "uploads"


def plaintext_digest(tensor: Tensor) -> bytes:
    """SHA-256 of a parameter in the clear; it never leaves the owner."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(kernels.to_wire(tensor))
    return digest.digest()


def whole_digest(digests: Mapping[str, bytes]) -> str:
    """One for all parameters of a model, from those of each; the check vector, which all models share, is left out."""
    found = hashlib.sha256()
    for name in sorted(name for name in digests if name != CHECK.name):
        found.update(name.encode() + b"\0" + digests[name])
    return found.hexdigest()


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is shared, in which formats, and under which seeds; the first line of a resume file."""

    card: Card
    config: Config
    tensors: list[TensorSpec]
    alias: dict[str, str]
    sharing: bytes
    seeds: list[bytes]
    salt: bytes

    @classmethod
    def fresh(cls, card: Card, config: Config, tensors: list[TensorSpec], alias: Mapping[str, str]) -> Plan:
        """The same under seeds that nobody has seen."""
        seeds = [fresh_secret(), fresh_secret()]
        return cls(card, config, tensors, dict(alias), fresh_secret()[:ID_BYTES], seeds, fresh_secret())

    def covers(self, other: Plan) -> bool:
        """Whether the other one shares the same in the same formats, so that masks of one may go on in it."""
        return msgspec.structs.replace(other, sharing=self.sharing, seeds=self.seeds, salt=self.salt) == self


class Begun(msgspec.Struct, frozen=True, array_like=True):
    """Each further line: a parameter of which masked words may have left, and the SHA-256 of its plaintext."""

    name: str
    sha256: bytes


_plans = msgspec.json.Decoder(Plan)
_begun = msgspec.json.Decoder(Begun)


class Resume:
    """The resume file of one upload. It holds the seeds, so it is as secret as the weights; `done` deletes it.

    Without a path there is none, and the upload is made in one go.
    """

    def __init__(self, path: Path | None, wanted: Plan, params: Mapping[str, Tensor]) -> None:
        """Go on with what the file has begun, if that is what is `wanted` of these parameters; else begin with that."""
        self._path, self.plan, self.begun = path, wanted, dict[str, bytes]()
        self._shared = None if path is None else path.with_name(f"{path.name}.shared")
        self.resumed = path is not None and self._read(path, wanted, params)
        if path is not None and not self.resumed:
            self._anew(path, wanted)

    def _read(self, path: Path, wanted: Plan, params: Mapping[str, Tensor]) -> bool:
        """Whether the file belongs to this very upload."""
        try:
            first, *lines = path.read_bytes().splitlines()
            plan = _plans.decode(first)
            begun = [_begun.decode(line) for line in lines]
        except (OSError, ValueError, msgspec.MsgspecError):
            return False
        if not plan.covers(wanted) or any(b.name not in params for b in begun if b.name != CHECK.name):
            return False
        if any(plaintext_digest(params[b.name]) != b.sha256 for b in begun if b.name != CHECK.name):
            return False
        self.plan, self.begun = plan, {b.name: b.sha256 for b in begun}
        return True

    def _anew(self, path: Path, plan: Plan) -> None:
        folders.private_folder(path.parent)
        with explained(f"the resume file {path}"):
            folders.remove(path)
            folders.write_new(path, msgspec.json.encode(plan) + b"\n")
            folders.sync(path.parent)

    def begin(self, name: str, tensor: Tensor) -> None:
        """Write down what is about to be masked, before the first word of it leaves."""
        if self._path is None:
            return
        digest = plaintext_digest(tensor)
        known = self.begun.setdefault(name, digest)
        if known != digest:
            raise StoreError(f"parameter {name} has changed since the upload began", "run the command again")
        with explained(f"the resume file {self._path}"), self._path.open("ab") as file:
            file.write(msgspec.json.encode(Begun(name, digest)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> None:
        """All parties serve the model: the seeds are needed no more. What it was made of is kept as a digest."""
        if self._path is None or self._shared is None:
            return
        folders.remove(self._path)
        folders.remove(self._shared)
        if self.plan.alias or not {spec.name for spec in self.plan.tensors} <= {*self.begun}:
            return  # another attempt sent a part of it
        with explained(f"the record {self._shared}"):
            folders.write_new(self._shared, f"{self.plan.sharing.hex()} {whole_digest(self.begun)}\n".encode())


def shared_before(path: Path, params: Mapping[str, Tensor]) -> bytes | None:
    """Which sharing was made of these very parameters by an upload whose resume file was `path`; None if none was.

    It reads all of them once.
    """
    try:
        sharing, digest = path.with_name(f"{path.name}.shared").read_text(encoding="utf-8").split()
        found = bytes.fromhex(sharing)
    except (OSError, ValueError):
        return None
    same = whole_digest({name: plaintext_digest(tensor) for name, tensor in params.items()}) == digest
    return found if same else None

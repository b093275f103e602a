"""The owner of a model and three distant parties: upload it, go on after a cut, list and delete.

What an interrupted upload needs to go on lies in one file of the owner's alone: the seeds of the masks, and of each
parameter that was begun a digest of its plaintext. A mask never covers two plaintexts: an upload is gone on with only
while every parameter that was begun is unchanged, and begins anew with fresh seeds otherwise. This file must not know
how links come to be.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from puma import kernels
from puma.client.connect import ClusterSession
from puma.client.session import Progress, masked
from puma.crypto.prg import fresh_secret
from puma.errors import PeerLost, StoreError, TensorError, UsageError
from puma.models.config import Config
from puma.nn.paper import PROFILES, SPLINE
from puma.store import folders
from puma.store.folders import explained
from puma.store.preprocessing import ID_BYTES
from puma.wire import messages as msg
from puma.wire.limits import FRAME_BYTES
from puma.wire.parameters import KEEP_MASKS_BELOW, tensor_specs


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a resume file."""

    card: msg.Card
    config: Config
    sharing: bytes
    seeds: list[bytes]


class Begun(msgspec.Struct, frozen=True, array_like=True):
    """Each further line: a parameter of which masked words may have left, and the SHA-256 of its plaintext."""

    name: str
    sha256: bytes


_plans = msgspec.json.Decoder(Plan)
_begun = msgspec.json.Decoder(Begun)


class Resume:
    """The resume file of one upload. It holds the seeds, so it is as secret as the weights; `done` deletes it."""

    def __init__(self, path: Path, card: msg.Card, config: Config, params: Mapping[str, Tensor]) -> None:
        folders.private_folder(path.parent)
        self._path, self.begun = path, {}
        self.resumed = path.exists() and self._read(card, config, params)
        if not self.resumed:
            self._anew(Plan(card, config, fresh_secret()[:ID_BYTES], [fresh_secret(), fresh_secret()]))

    def _read(self, card: msg.Card, config: Config, params: Mapping[str, Tensor]) -> bool:
        """Whether the file belongs to this very upload."""
        try:
            first, *lines = self._path.read_bytes().splitlines()
            plan = _plans.decode(first)
            begun = [_begun.decode(line) for line in lines]
        except (OSError, ValueError, msgspec.MsgspecError):
            return False
        if (plan.card, plan.config) != (card, config) or any(b.name not in params for b in begun):
            return False
        if any(plaintext_digest(params[b.name]) != b.sha256 for b in begun):
            return False
        self.plan, self.begun = plan, {b.name: b.sha256 for b in begun}
        return True

    def _anew(self, plan: Plan) -> None:
        with explained(f"the resume file {self._path}"):
            folders.remove(self._path)
            folders.write_new(self._path, msgspec.json.encode(plan) + b"\n")
            folders.sync(self._path.parent)
        self.plan, self.begun = plan, {}

    def begin(self, name: str, tensor: Tensor) -> None:
        """Write down what is about to be masked, before the first word of it leaves."""
        digest = plaintext_digest(tensor)
        known = self.begun.setdefault(name, digest)
        if known != digest:
            raise StoreError(f"parameter {name} has changed since the upload began", "run the command again")
        with explained(f"the resume file {self._path}"), self._path.open("ab") as file:
            file.write(msgspec.json.encode(Begun(name, digest)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> None:
        """All parties serve the model: the seeds are not needed here any more."""
        folders.remove(self._path)


def plaintext_digest(tensor: Tensor) -> bytes:
    """SHA-256 of a parameter in the clear; it never leaves the owner."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(kernels.to_wire(tensor))
    return digest.digest()


def state_folder() -> Path:
    """Where resume files lie unless told otherwise."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "puma" / "uploads"


def card_of(
    name: str, version: str, files: Mapping[str, bytes], eos: Sequence[int] = (), reveal_logits: bool = False,
    max_tokens: int = 0, approximations: Sequence[str] = (SPLINE,), hides: bool = False, outputs: Sequence[str] = (),
) -> msg.Card:  # fmt: skip
    """What the parties and clients are told of a model; UsageError for an approximation that there is not.

    `outputs` are what clients may have of one pass, as wire/policy.chosen_outputs gives them; the head's if empty.
    """
    unknown = [name for name in approximations if name not in PROFILES]
    if unknown or not approximations:
        what = f"there is no approximation {unknown[0]}" if unknown else "no approximation is allowed"
        raise UsageError(what, f"choose some of {', '.join(PROFILES)}")
    listed = [msg.File(label, len(data), hashlib.sha256(data).digest()) for label, data in files.items()]
    name, allowed = folders.checked_name(name), tuple(approximations)
    return msg.Card(name, version, list(eos), listed, reveal_logits, max_tokens, allowed, hides, tuple(outputs))


def upload(
    session: ClusterSession, config: Config, params: Mapping[str, Tensor], card: msg.Card, files: Mapping[str, bytes],
    state: Path, progress: Progress | None = None,
) -> bool:  # fmt: skip
    """Share a model with the three parties, one parameter at a time; True if an interrupted upload was gone on with.

    The parties serve it once all of them hold all of it. StoreError if one has no room.
    """
    place = hashlib.sha256(session.cluster.digest + card.name.encode()).hexdigest()[:16]
    resume = Resume(state / f"{card.name}-{place}", card, config, params)
    plan, specs = resume.plan, tensor_specs(config)
    held = _offer(session, plan, specs)
    for link, state_there in zip(session.links, held, strict=True):
        if not state_there.published:
            _send_files(session, link, files)
    first = min(reply.tensors for reply in held)
    for i, spec in enumerate(specs[first:], first):
        lacking = [link for link, reply in zip(session.links, held, strict=True) if reply.tensors <= i]
        _send(session, lacking, params[spec.name], spec, resume)
        if progress:
            progress("sharing the model", i + 1, len(specs))
    if progress:
        progress("the parties check what they hold", 0, 1)
    for reply in session._replies(msg.Held):
        if reply.tensors != len(specs):
            raise StoreError("a party has lost a part of what was sent", "run the command again")
    session._begin()
    session._send(lambda _: msg.Publish(), [b"", b""])
    session._reports()
    resume.done()
    return resume.resumed


def delete(session: ClusterSession, name: str) -> None:
    """Let all parties forget a model, and what has arrived of one."""
    session._begin()
    session._send(lambda _: msg.Delete(name), [b"", b""])
    session._reports()


def _offer(session: ClusterSession, plan: Plan, specs: list[msg.TensorSpec]) -> list[msg.Held]:
    session._begin()
    keep_masks = sum(torch.Size(s.shape).numel() for s in specs) < KEEP_MASKS_BELOW
    session._send(lambda mine: msg.Offer(plan.card, plan.config, specs, mine, keep_masks, plan.sharing), plan.seeds)
    held = session._replies(msg.Held)
    session._reported = True
    return held


def _send_files(session: ClusterSession, link: Any, files: Mapping[str, bytes]) -> None:
    with session._talking():
        for content in map(memoryview, files.values()):
            for at in range(0, len(content), FRAME_BYTES):
                link.send(content[at : at + FRAME_BYTES])


def _send(session: ClusterSession, links: Sequence[Any], tensor: Tensor, spec: msg.TensorSpec, resume: Resume) -> None:
    """One parameter, masked, and its checksum, to whoever lacks it."""
    if tuple(tensor.shape) != tuple(spec.shape):
        raise TensorError(f"parameter {spec.name} is misshapen", "fold the checkpoint first")
    resume.begin(spec.name, tensor)
    digest = hashlib.sha256()
    with session._talking():
        try:
            for frame in masked(tensor, spec, resume.plan.seeds, f"weight {spec.name}"):
                digest.update(kernels.to_wire(frame))
                for link in links:
                    link.send(kernels.to_wire(frame))
            for link in links:
                link.send_control(msg.encode(msg.Checksum(digest.digest())))
        except PeerLost:
            session._watch()  # who has given up has said why
            raise

"""Plans that were made, kept under the digest of the checkpoint's files, so that each is made once.

A file's digest is kept beside what the file system says of it, so that a large one is read for it once, too. What lies
here tells how large a model's numbers become: it is the owner's. It must not know how plans are made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from puma.errors import StoreError
from puma.store import folders
from puma.version import VERSION

CHUNK = 16 << 20
T = TypeVar("T")


def folder() -> Path | None:
    """Where plans are kept; made when it is first asked for. None where none can be made that is this user alone's:
    then each plan is made anew."""
    try:
        return folders.private_folder(folders.of_user("XDG_CACHE_HOME", ".cache") / "puma" / "plans")
    except StoreError:
        return None


def key(files: Iterable[Path], *settings: object) -> str:
    """A name for what was made of these files, with these settings, by this version."""
    found = hashlib.sha256(repr((VERSION, settings)).encode())
    for path in sorted(set(files)):
        found.update(_digest(path))
    return found.hexdigest()[:32]


def read(name: str, kind: type[T]) -> T | None:
    """What was kept under this name; None if nothing that can be read is there."""
    where = folder()
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((where / f"{name}.json").read_bytes(), type=kind) if where else None
    return None


def keep(name: str, what: msgspec.Struct) -> None:
    """Keep it; nothing is said where there is no room, for it can be made again."""
    if (where := folder()) is not None:
        _write(where / f"{name}.json", msgspec.json.encode(what))


def _digest(path: Path) -> bytes:
    """SHA-256 of a file, which is read only if it is not the one that was read before."""
    found = path.resolve().stat()
    stamp = f"{path.resolve()} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
    where = folder()
    known = where and where / f"file-{hashlib.sha256(stamp.encode()).hexdigest()[:32]}"
    with contextlib.suppress(OSError):
        kept = known.read_bytes() if known else b""
        if len(kept) == hashlib.sha256().digest_size:
            return kept
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    if known is not None:
        _write(known, digest.digest())
    return digest.digest()


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        scratch.write_bytes(content)
        scratch.replace(path)

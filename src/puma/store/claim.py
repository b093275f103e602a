"""Whose store a folder is: its party's rank and key in a file that is written at first use, and a lock that one process
holds as long as it serves from there.

Without them a party that is started on another's folder would compute with shares that are not its own, and give
answers that are noise. This file must not know what else is kept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from puma.errors import StoreError
from puma.store import folders
from puma.store.folders import explained

FILE, VERSION = "party.json", 1
KEPT = ("models", "uploads")  # that make a folder somebody's
OWN = "every party has a store of its own: name this one's with --store"


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose a store is. `party` is what the cluster file knows the party by: its key's fingerprint or, under a CA, its
    certificate's name; nothing where all three are on one machine."""

    rank: int
    party: str = ""
    version: int = VERSION


_identities = msgspec.json.Decoder(Identity)


class Claim:
    """A store in use by this process, as this party; StoreError if it is another's, incomplete, or in use already."""

    def __init__(self, root: Path, mine: Identity) -> None:
        self._folder = _lock(root)
        try:
            with explained(f"the store {root}"):
                _check(root, mine)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have it; a process that ends has let go anyway."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Meanwhile no process serves from here; StoreError if one does. Whose the store is does not matter."""
    folder = _lock(root)
    try:
        yield
    finally:
        os.close(folder)


def identity(root: Path) -> Identity | None:
    """Whose store this is; None if it does not say so, StoreError if nobody can tell."""
    try:
        found = _identities.decode((root / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = f"{root / FILE}, which says whose store this is, cannot be read"
        raise StoreError(what, "choose another folder, and share the models again") from error
    if found.version != VERSION:
        raise StoreError(f"the store {root} is another version's of puma", "choose another folder")
    return found


def _lock(root: Path) -> int:
    folder = os.open(folders.private_folder(root), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        if isinstance(error, BlockingIOError):
            hint = f"is this party already running? if not, {OWN}"
            raise StoreError(f"the store {root} is in use by another process", hint) from None
        raise StoreError(f"the store {root} cannot be locked: {error.strerror or error}", "choose another") from error
    return folder


def _check(root: Path, mine: Identity) -> None:
    found = identity(root)
    if found is None:
        if any(path.is_dir() and any(path.iterdir()) for path in (root / name for name in KEPT)):
            what = f"the store {root} holds models and does not say whose it is"
            raise StoreError(what, "it is incomplete or an older version's: empty it, and share the models again")
        folders.write_new(root / FILE, msgspec.json.encode(mine) + b"\n")
        folders.sync(root)
    elif found.rank != mine.rank:
        raise StoreError(f"the store {root} is P{found.rank}'s, and this is P{mine.rank}", OWN)
    elif found.party != mine.party:
        what = f"the store {root} is that of {found.party or 'a local cluster'}, and this is {mine.party or 'another'}"
        raise StoreError(what, f"{OWN}; if only its key was replaced, write the new fingerprint into {root / FILE}")

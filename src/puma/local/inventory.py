"""What a local cluster, or one party, has kept in its folder, and how to be rid of it.

It knows where the parties' folders lie, and must not know what is in their files.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from puma.errors import StoreError
from puma.store import claim, folders
from puma.store.models import Store
from puma.store.prepared_requests import PreparedRequests
from puma.store.preprocessing import PreprocessingStore
from puma.store.uploads import uploads_folder

OPEN = "open"  # below it lies what public weights need besides their files


@dataclass(frozen=True)
class Inventory:
    """Models by name with their bytes at each of these `parties`, prepared requests, bytes of preprocessing there."""

    parties: list[str]
    models: dict[str, list[int]]
    prepared: int
    preprocessing: list[int]


def default_folder() -> Path:
    """Where a local cluster keeps things unless told otherwise: in memory, until the machine is switched off."""
    return Path(f"/dev/shm/puma-{os.geteuid()}")


def party_folders(root: Path) -> dict[int, Path]:
    """Where each party's things lie: below a local cluster's folder, or in the one party's whose store this is."""
    one = claim.identity(root)
    if one is not None:
        return {one.rank: root}
    ranks = [0, 1, 2, *([3] if (root / "p3").is_dir() else [])]  # the last one is a second dealer
    return {rank: root / f"p{rank}" for rank in ranks}


def look(root: Path) -> Inventory:
    """What lies below `root`; StoreError if there is no such folder."""
    found = party_folders(_found(root))
    stores = [Store(folder, rank) for rank, folder in found.items()]
    names = sorted({name for store in stores for name in store.names()})
    models = {name: [store.size(name) for store in stores] for name in names}
    preprocessing = [sum(PreprocessingStore(folder).sizes()) for folder in found.values()]
    prepared = len(PreparedRequests(root / "client").all()) if len(found) > 1 else 0
    return Inventory([f"P{rank}" for rank in found], models, prepared, preprocessing)


def forget(root: Path, models: bool, only: str = "") -> None:
    """Throw away all preprocessing and prepared requests, and with `models` the models too, or one of them.

    StoreError while a party serves from there, or if there is no such model.
    """
    found = party_folders(_found(root))
    if only and not any(Store(folder, rank).holds(only) for rank, folder in found.items()):
        raise StoreError(f"there is no model {only} in {root}", "`puma store` shows which there are")
    with ExitStack() as stack:
        for folder in found.values():
            stack.enter_context(claim.locked(folder))
        for rank, folder in found.items():
            folders.retire(folder / "preprocessing")
            if models:
                _forget_models(Store(folder, rank), only)
        if models:
            for path in [root / OPEN / only] if only else [root / OPEN]:
                folders.remove(path)
        folders.retire(root / "client" / "prepared_requests")


def _forget_models(store: Store, only: str) -> None:
    """With what has arrived of them; a store that is emptied is nobody's any more."""
    for name in [only] if only else store.names():
        if store.holds(name):
            store.delete(name)
    uploads = uploads_folder(store.root)
    for path in [uploads / only] if only else list(uploads.iterdir()):
        folders.remove(path)
    if not only:
        folders.remove(store.root / claim.FILE)


def _found(root: Path) -> Path:
    if not root.is_dir():
        raise StoreError(f"there is no store {root}", "name another folder with --store")
    return folders.private_folder(root)

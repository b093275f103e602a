"""What a local cluster has kept in its folder: models, preprocessing and prepared requests, and how to be rid of them.

It knows where the parties' folders lie, and must not know what is in their files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from puma.errors import StoreError
from puma.store import folders
from puma.store.models import Store
from puma.store.prepared_requests import PreparedRequests
from puma.store.preprocessing import PreprocessingStore


@dataclass(frozen=True)
class Inventory:
    """Models by name with their bytes at P0, P1 and P2, prepared requests, and the bytes of preprocessing there."""

    models: dict[str, list[int]]
    prepared: int
    preprocessing: list[int]


def default_folder() -> Path:
    """Where a local cluster keeps things unless told otherwise: in memory, until the machine is switched off."""
    return Path(f"/dev/shm/puma-{os.geteuid()}")


def party_folders(root: Path) -> list[Path]:
    """Where P0, P1 and P2 keep what they hold, below `root`."""
    return [root / f"p{rank}" for rank in range(3)]


def look(root: Path) -> Inventory:
    """What lies below `root`; StoreError if there is no such folder."""
    stores = [Store(folder, rank) for rank, folder in enumerate(party_folders(_found(root)))]
    names = sorted({name for store in stores for name in store.names()})
    models = {name: [store.size(name) for store in stores] for name in names}
    preprocessing = [sum(PreprocessingStore(folder).sizes()) for folder in party_folders(root)]
    return Inventory(models, len(PreparedRequests(root / "client").all()), preprocessing)


def forget(root: Path, models: bool) -> None:
    """Throw away all preprocessing and prepared requests, and with `models` the models too."""
    for rank, folder in enumerate(party_folders(_found(root))):
        folders.retire(folder / "preprocessing")
        if models:
            store = Store(folder, rank)
            for name in store.names():
                store.delete(name)
    folders.retire(root / "client" / "prepared_requests")


def _found(root: Path) -> Path:
    if not root.is_dir():
        raise StoreError(f"there is no store {root}", "name another folder with --store")
    return folders.private_folder(root)

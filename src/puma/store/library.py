"""The models of one party, each mapped into memory once, however many sessions use it.

A model that is replaced or deleted stays with those who have it open, and its memory goes with the last of them. This
file must not know links or requests.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

from puma.errors import StoreError
from puma.store import folders
from puma.store import uploads as arrivals
from puma.store.models import Model, Store
from puma.store.uploads import FILES, ResumableUpload
from puma.wire.messages import Listed, Offer


class Library:
    """What one party keeps below `root`; sessions in several threads may use it."""

    def __init__(self, root: Path | str, rank: int) -> None:
        self.store, self._rank = Store(root), rank
        self._open: dict[str, Model] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        with folders.explained(f"the uploads in {root}"):
            arrivals.forget_old(self.store.root)

    def open(self, name: str) -> Model | None:
        """A model, mapped and checked when it is first asked for; None if there is none of this name."""
        if not self.store.holds(name):
            return None
        with self._locks[name]:
            if name not in self._open and self.store.holds(name):
                self._open[name] = self.store.open(name)
            return self._open.get(name)

    def models(self) -> list[Listed]:
        """All that came from owners; one whose manifest is damaged is left out."""
        found = []
        for name in self.store.names():
            try:
                manifest = self.store.manifest(name)
                if manifest.card is not None:
                    size = self.store.size(name)
                    found.append(Listed(manifest.card, manifest.config, manifest.sharing, size))
            except (StoreError, OSError):
                continue
        return found

    def file(self, model: Model, name: str) -> bytes:
        """A file of a model's card; StoreError unless the card names it."""
        manifest = model.manifest
        if manifest.card is None or name not in [file.name for file in manifest.card.files]:
            raise StoreError(f"the model {manifest.name} has no file {name[:100]!r}", "its card says which it has")
        with folders.explained(f"{name} of model {manifest.name}"):
            return (self.store.path(manifest.name) / FILES / name).read_bytes()

    def receive(self, offer: Offer) -> ResumableUpload:
        """Take in a model, or go on where an earlier upload broke off; the dealer keeps no parameters."""
        arrivals.check(offer, self._rank)
        return ResumableUpload(self.store, offer, data=self._rank > 0)

    def publish(self, arrival: ResumableUpload) -> None:
        """From now on sessions find this one."""
        name = arrival.offer.card.name
        with self._locks[name]:
            model = arrival.publish()
            if model is not None:
                self._open[name] = model

    def delete(self, name: str) -> None:
        """Forget a model and whatever has arrived of one; StoreError if there is neither."""
        folders.checked_name(name)
        upload = arrivals.uploads_folder(self.store.root) / name
        with self._locks[name]:
            if not (self.store.holds(name) or upload.exists()):
                raise StoreError(f"there is no model {name}", "`puma models list` shows which there are")
            self._open.pop(name, None)
            with folders.explained(f"the model {name}"):
                folders.remove(upload)
                if self.store.holds(name):
                    self.store.delete(name)

"""The models of one party, each mapped into memory once, however many sessions use it; or one model in memory alone.

A model that is replaced or deleted stays with those who have it open, and its memory goes with the last of them. Only
whoever brought a model may replace or delete it. This file must not know links or requests.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from puma.errors import AdmissionError, StoreError
from puma.store import folders, uploads
from puma.store.claim import Claim, Identity
from puma.store.given import Given
from puma.store.models import Manifest, Model, Store, commitment
from puma.store.uploads import FILES, KEEP_SECONDS, MemoryUpload, ResumableUpload, Upload
from puma.wire.messages import Base, Listed, Offer

NOT_YOURS = "take another name, or let that owner delete it, or an operator at each party by `puma store`"


def listed(manifest: Manifest, size: int, rank: int) -> Listed:
    """A model as the party of this rank tells of it."""
    return Listed(manifest.card, manifest.config, manifest.sharing, size, commitment(manifest, rank))


class Library:
    """What one party keeps below `root`, which is its own until `close`; sessions in several threads may use it.

    `party` is what the cluster file knows it by, if there is one. Uploads that have rested for `resting` seconds are
    forgotten. What of public weights lies in `given` checkpoints need not be sent. StoreError if the folder is another
    party's, incomplete, or in use by another process.
    """

    def __init__(
        self, root: Path | str, rank: int, party: str = "", resting: float = KEEP_SECONDS, given: Sequence[Path] = ()
    ) -> None:
        self._given = Given(given)
        self._claim = Claim(Path(root), Identity(rank, party))
        self.store = Store(root, rank)
        self.tested: set[bytes] = set()  # sharings whose parts have been seen to fit since this process started
        self._open: dict[str, Model] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        with folders.explained(f"the uploads in {root}"):
            uploads.forget_old(self.store.root, resting)

    def open(self, name: str) -> Model | None:
        """A model, mapped and checked when it is first asked for; None if there is none of this name."""
        if not self.store.holds(name):
            return None
        with self._locks[name]:
            if name not in self._open and self.store.holds(name):
                self._open[name] = self._over(self.store.open(name))
            return self._open.get(name)

    def _over(self, model: Model) -> Model:
        """With the model that an adapter changes; StoreError if that is not here any more."""
        base = model.manifest.card.base
        if base is not None:
            model.base = _fits(self.open(base.name), base, model)
        return model

    def models(self) -> list[Listed]:
        """All of them; one whose manifest is damaged is left out."""
        found = []
        for name in self.store.names():
            try:
                manifest = self.store.manifest(name)
                found.append(listed(manifest, self.store.size(name), self.store.rank))
            except (StoreError, OSError):
                continue
        return found

    def sharing(self, name: str) -> bytes:
        """Which sharing of a model is served; nothing if there is none."""
        return next((listed.sharing for listed in self.models() if listed.card.name == name), b"")

    def file(self, model: Model, name: str) -> bytes:
        """A file of a model's card; StoreError unless the card names it."""
        manifest = model.manifest
        if name not in [file.name for file in manifest.card.files]:
            raise StoreError(f"the model {manifest.name} has no file {name[:100]!r}", "its card says which it has")
        with folders.explained(f"{name} of model {manifest.name}"):
            return (self.store.path(manifest.name) / FILES / name).read_bytes()

    def receive(self, offer: Offer, owner: str = "") -> ResumableUpload:
        """Take in a model from whoever has this fingerprint, or go on where an earlier upload broke off.

        The dealer keeps no parameters. AdmissionError if another owner has a model or an upload of this name.
        """
        uploads.check(offer, self.store.rank)
        self._check_owner(offer.card.name, owner)
        upload = ResumableUpload(self.store, offer, owner)
        try:
            self._given.fill(upload)
        except BaseException:
            upload.close()
            raise
        return upload

    def publish(self, upload: Upload) -> None:
        """From now on sessions find this one."""
        name = upload.offer.card.name
        with self._locks[name]:
            self._check_owner(name, upload.owner)
            model = upload.publish()
            if model is not None:
                self._open[name] = self._over(model)

    def delete(self, name: str, owner: str = "") -> None:
        """Forget a model and whatever has arrived of one; StoreError if there is neither, AdmissionError if it is
        another owner's."""
        folders.checked_name(name)
        folder = uploads.uploads_folder(self.store.root) / name
        with self._locks[name]:
            if not (self.store.holds(name) or folder.exists()):
                raise StoreError(f"there is no model {name}", "`puma models list` shows which there are")
            self._check_owner(name, owner)
            self._open.pop(name, None)
            with folders.explained(f"the model {name}"):
                folders.remove(folder)
                if self.store.holds(name):
                    self.store.delete(name)

    def close(self) -> None:
        """Let another process have the folder."""
        self._claim.close()

    def _check_owner(self, name: str, owner: str) -> None:
        """AdmissionError if what there is of a model came with another key."""
        known = [self.store.manifest(name).owner] if self.store.holds(name) else []
        resting = uploads.resting_owner(self.store.root, name)
        if any(other != owner for other in [*known, *([] if resting is None else [resting])]):
            raise AdmissionError(f"the model {name} is another owner's", NOT_YOURS)


def _fits(found: Model | None, base: Base, model: Model) -> Model:
    if found is None or found.manifest.sharing != base.sharing or not found.manifest.public:
        what = f"{model.manifest.name} is an adapter of {base.name}, which is not here as it was"
        raise StoreError(what, "let the owner of the base share it again, and then the adapter's owner")
    return found


class InMemory:
    """A library of one model, the one that came last, for as long as this process lives; and of the base that it
    changes."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self.tested: set[bytes] = set()
        self._model: Model | None = None
        self._base: Model | None = None  # the latest with public weights

    def open(self, name: str) -> Model | None:
        """The model, if it is called so."""
        found = (self._model, self._base)
        return next((each for each in found if each is not None and each.manifest.name == name), None)

    def models(self) -> list[Listed]:
        """The one that there is, if any."""
        found = [self._model.manifest] if self._model else []
        return [listed(each, each.size, self._rank) for each in found]

    def sharing(self, name: str) -> bytes:
        """Which sharing of a model is served; nothing if there is none."""
        model = self.open(name)
        return model.manifest.sharing if model else b""

    def receive(self, offer: Offer, owner: str = "") -> MemoryUpload:
        """Take in a model."""
        uploads.check(offer, self._rank)
        return MemoryUpload(offer, self._rank)

    def publish(self, upload: Upload) -> None:
        """From now on requests find this one, and no older one."""
        model = upload.publish()
        assert model is not None  # nothing is published before
        base = model.manifest.card.base
        if base is not None:
            model.base = _fits(self.open(base.name), base, model)
        elif model.manifest.public:
            self._base = model
        self._model = model

    def delete(self, name: str, owner: str = "") -> None:
        """Forget the model; StoreError if there is none of this name."""
        if self.open(name) is None:
            raise StoreError(f"there is no model {name}", "share it first")
        self._model = self._base = None

    def close(self) -> None:
        """Forget whatever there is."""
        self._model = None

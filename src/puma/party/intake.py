"""How a model comes to a party over its owner's link: what is lacking of an offer, and then the owner's last word.

It puts what arrives where the party's library says. It must not know requests other than these, nor what words mean.
"""

from __future__ import annotations

from collections.abc import Callable

from puma import kernels
from puma.errors import ProtocolError
from puma.net import Link
from puma.party import loading
from puma.store.library import InMemory, Library
from puma.store.models import Model
from puma.store.uploads import Upload
from puma.wire import messages as msg
from puma.wire.files import received


class Intake:
    """One upload at a time over one link. `owner` is the fingerprint of the key at its other end, if there is one;
    `arrived` is told how many bytes have come, each time some have. Who is `here`, as whoever started the party on this
    machine, may name files of it."""

    def __init__(
        self, link: Link, library: Library | InMemory, owner: str = "", arrived: Callable[[int], None] | None = None,
        here: bool = False,
    ) -> None:  # fmt: skip
        self._link, self._library, self._owner, self._arrived = link, library, owner, arrived
        self._here = here
        self._upload: Upload | None = None

    def offered(self, offer: msg.Offer) -> None:
        """Take in whatever is lacking of a model; say before and after how much of it is here."""
        self.leave()
        if offer.places and not self._here:
            raise ProtocolError("an offer names files of this party's machine", "let the weights be sent")
        upload = self._upload = self._library.receive(offer, self._owner)
        self._say(msg.Held(upload.held, upload.published))
        if not upload.published:
            for file in offer.card.files:
                upload.file(file, b"".join(received(self._link, file.size)))
            for spec in offer.tensors[upload.held :]:
                self._parameter(upload, spec)
            upload.complete()
        self._say(msg.Held(upload.held, upload.published))

    def arrived(self) -> Model | None:
        """The model that was offered last, all of it."""
        if self._upload is None:
            raise ProtocolError("a model is to be published that was not offered", "upload it first")
        return self._library.open(self._upload.offer.card.name) if self._upload.published else self._upload.model

    def publish(self) -> bytes:
        """Serve the model that was offered last; the sharing that it takes the place of, or nothing."""
        upload = self._upload
        if upload is None:
            raise ProtocolError("a model is to be published that was not offered", "upload it first")
        old = b"" if upload.published else self._library.sharing(upload.offer.card.name)
        self._library.publish(upload)
        self.leave()
        return old

    def discard(self) -> None:
        """Throw an upload away: what has arrived of it is whole and yet of no use, so nobody shall go on with it."""
        if self._upload is not None:
            self._upload.discard()
            self.leave()

    def leave(self) -> None:
        """Let go of an upload; what has arrived stays where it can be gone on with."""
        if self._upload is not None:
            self._upload.close()
            self._upload = None

    def _parameter(self, upload: Upload, spec: msg.TensorSpec) -> None:
        for frame in loading.frames(self._link, spec):
            upload.write(kernels.to_wire(frame))
            if self._arrived is not None:
                self._arrived(frame.numel())
        upload.checked(self._checksum() if upload.offer.checksums else None)

    def _checksum(self) -> bytes:
        request = msg.decode_request(self._link.recv_control())
        if not isinstance(request, msg.Checksum):
            raise ProtocolError("a parameter came without its checksum", "run the same version of Puma everywhere")
        return request.sha256

    def _say(self, reply: msg.Reply) -> None:
        self._link.send_control(msg.encode(reply))

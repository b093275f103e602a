"""A receipt: what each of the three parties signed of one request; and the file in which receipts are kept.

The file is JSON that anybody may see: statements and signatures in base64, as they came. This file checks nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from puma.crypto.signing import fingerprint_of
from puma.errors import StoreError
from puma.store.folders import explained
from puma.wire import receipts
from puma.wire.receipts import Commitment, Ends, Place, Signed, Statement

FORMAT = "puma receipts 1"
PARTIES = 3


@dataclass(frozen=True)
class Receipt:
    """Three signed statements about one request, of P0, P1 and P2 in this order once they have been checked.

    `local`: the keys were made by parties on one machine when they started, and prove nothing to others.
    """

    signed: tuple[Signed, ...]
    local: bool = False

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """What was signed; ProtocolError if it cannot be read."""
        return tuple(receipts.decode(each.statement) for each in self.signed)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the keys that signed."""
        return tuple(fingerprint_of(each.key) for each in self.signed)

    @property
    def digest(self) -> str:
        """SHA-256 over all three, in hex: a short name for this receipt."""
        return hashlib.sha256(b"".join(each.statement + each.signature for each in self.signed)).hexdigest()

    @property
    def commitment(self) -> bytes:
        """The commitment of the model that answered; empty if the parties made none, or no model was open."""
        told = [each.model.commitment for each in self.statements if each.model is not None]
        found: Commitment | None = receipts.joined(told) if len(told) == PARTIES else None
        return receipts.commitment_digest(found) if found else b""

    def ends(self, rank: int, peer: str, place: Place) -> Ends | None:
        """What a party says of its links to a peer."""
        found = self.statements[rank].links
        return next((each for each in found if (each.peer, each.place) == (peer, place)), None)

    def __repr__(self) -> str:
        return f"Receipt({self.digest[:16]})"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A file of receipts."""

    puma: str
    local: bool
    receipts: list[list[Signed]]


_decoder = msgspec.json.Decoder(_File)


def write(path: Path, kept: Sequence[Receipt]) -> None:
    """All of these, in place of what the file held; StoreError if it cannot be written."""
    content = _File(FORMAT, any(each.local for each in kept), [[*each.signed] for each in kept])
    with explained(f"the receipts {path}"):
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def read(path: Path) -> list[Receipt]:
    """StoreError for a file that holds no receipts."""
    hint = "name a file that --receipt or puma.receipt.write has written"
    try:
        found = _decoder.decode(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", hint) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"{path} holds no receipts: {error}", hint) from None
    if found.puma != FORMAT:
        raise StoreError(
            f"{path} holds {found.puma[:40]!r} and not {FORMAT!r}", "read it with the version that wrote it"
        )
    return [Receipt(tuple(each), found.local) for each in found.receipts]

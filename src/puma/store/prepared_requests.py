"""The client's half of one-time material: the seeds under which a prompt will be sealed, kept until there is one.

A ticket is one file, for its owner only, and in memory like the parties' material: who had it later, together with what
the client sent, could read the prompt. It is deleted before its seeds are used. This file must not know links.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from puma.errors import MaterialError
from puma.store import folders
from puma.store.folders import explained
from puma.wire.messages import Encode, Generate
from puma.wire.prompt import Seeds


class Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Material that all parties hold under one id; `request` is what everyone may know of the request it is for.

    `seconds` and `offline` (bytes sent) are what preparing it took, `sizes` the bytes that P0, P1 and P2 keep.
    """

    id: bytes
    sharing: bytes
    request: Generate | Encode
    choices: list[bytes]
    masks: list[bytes]
    seconds: float
    offline: int
    sizes: list[int]

    @property
    def seeds(self) -> Seeds:
        return Seeds(self.choices, self.masks)


_tickets = msgspec.json.Decoder(Ticket)


class Tickets:
    """The tickets of one client below `root`."""

    def __init__(self, root: Path | str) -> None:
        self._root = folders.private_folder(Path(root)) / "tickets"

    def add(self, ticket: Ticket) -> None:
        """Keep a ticket; only where files stay in memory."""
        folders.private_folder(self._root)
        if not folders.in_memory(self._root):
            raise MaterialError(
                f"tickets must not reach a disk, and {self._root} is on one",
                "choose a store below /dev/shm, or mount a tmpfs there",
            )
        with explained(f"a ticket in {self._root}"):
            folders.write_new(self._root / ticket.id.hex(), msgspec.json.encode(ticket))

    def take(self, sharing: bytes, request: Generate | Encode) -> Ticket | None:
        """Use up a ticket for this sharing of a model and this request; None if there is none."""
        for ticket in self.all():
            if (ticket.sharing, ticket.request) == (sharing, request):
                with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                    os.unlink(self._root / ticket.id.hex())
                    return ticket
        return None

    def all(self) -> list[Ticket]:
        """Every ticket; none of them is used up by looking."""
        paths = sorted(self._root.iterdir()) if self._root.is_dir() else []
        return [ticket for path in paths if (ticket := _read(path))]


def _read(path: Path) -> Ticket | None:
    """The ticket in a file; None if it has been used meanwhile."""
    try:
        return _tickets.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise MaterialError(f"the ticket {path} cannot be read", "delete it") from error

"""The client's half of one-time preprocessing: the seeds under which a prompt will be shared, kept until there is one.

A prepared request is one file, for its owner only, and in memory like the parties' preprocessing: who had it later,
together with what the client sent, could read the prompt. It is deleted before its seeds are used.
This file must not know links.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from puma.errors import PreprocessingError
from puma.store import folders
from puma.store.folders import explained
from puma.wire.input_share import Seeds
from puma.wire.messages import Encode, Generate


class PreparedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Preprocessing that all parties hold under one id; `request` is what everyone may know of the request it is for.

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
        """The seeds under which its prompt will be shared."""
        return Seeds(self.choices, self.masks)


_prepared_requests = msgspec.json.Decoder(PreparedRequest)


class PreparedRequests:
    """The prepared requests of one client below `root`."""

    def __init__(self, root: Path | str) -> None:
        self._root = folders.private_folder(Path(root)) / "prepared_requests"

    def add(self, prepared_request: PreparedRequest) -> None:
        """Keep a prepared request; only where files stay in memory."""
        folders.private_folder(self._root)
        if not folders.in_memory(self._root):
            raise PreprocessingError(
                f"prepared requests must not reach a disk, and {self._root} is on one",
                "choose a store below /dev/shm, or mount a tmpfs there",
            )
        with explained(f"a prepared request in {self._root}"):
            folders.write_new(self._root / prepared_request.id.hex(), msgspec.json.encode(prepared_request))

    def take(self, sharing: bytes, request: Generate | Encode) -> PreparedRequest | None:
        """Use up a prepared request for this sharing of a model and this request; None if there is none."""
        for prepared_request in self.all():
            if (prepared_request.sharing, prepared_request.request) == (sharing, request):
                with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                    os.unlink(self._root / prepared_request.id.hex())
                    return prepared_request
        return None

    def alike(self, sharing: bytes, request: Generate | Encode) -> Generate | Encode | None:
        """The request by the plan by which one like it has been prepared; None if none has."""
        for each in self.all():
            quick = each.request.input.quick
            if each.sharing == sharing and _at_once(each.request, quick) == _at_once(request, quick):
                return msgspec.structs.replace(request, input=msgspec.structs.replace(request.input, quick=quick))
        return None

    def all(self) -> list[PreparedRequest]:
        """Every prepared request; none of them is used up by looking."""
        paths = sorted(self._root.iterdir()) if self._root.is_dir() else []
        return [prepared_request for path in paths if (prepared_request := _read(path))]


def _at_once(request: Generate | Encode, quick: tuple[str, ...]) -> Generate | Encode:
    """By this plan, and not waiting for the client's word between tokens."""
    found = msgspec.structs.replace(request, input=msgspec.structs.replace(request.input, quick=quick))
    return msgspec.structs.replace(found, paced=False) if isinstance(found, Generate) else found


def _read(path: Path) -> PreparedRequest | None:
    """The prepared request in a file; None if it has been used meanwhile."""
    try:
        return _prepared_requests.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise PreprocessingError(f"the prepared request {path} cannot be read", "delete it") from error

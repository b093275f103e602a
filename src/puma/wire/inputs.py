"""The input of a request, whatever a model reads: laid out and shared by a client, received by a party.

A module for each kind of input has these functions; `KINDS` says which serves what an architecture names in its
`Inputs`. A new kind is one such file and a line here. Must not know links or what a request asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from puma.errors import UsageError
from puma.models import Inputs, inputs
from puma.models.config import Config
from puma.mpc.clear import Clear, ClearChoice, ClearParty
from puma.mpc.party import Party
from puma.wire import pixels, prompt, rows
from puma.wire.input_share import Given, InputShare, Laid, Seeds
from puma.wire.messages import Input

NO_TABLE = "name the model's own files, or fetch the table with the model"


class Kind(Protocol):
    """How rows of one kind come to three parties: `rows` of them, of a `width`, perhaps with secret `flags`."""

    def laid_out(self, items: Sequence[Any], read: Inputs, padded: int = 0, /) -> Laid:
        """Inputs in the clear; with `padded`, filled up to that many rows each. InputError for others."""
        ...

    def payload_bytes(self, rank: int, rows: int, width: int, flags: int = 0, /) -> int:
        """Bytes of the payload for one party."""
        ...

    def share_input(
        self, rows: Tensor, width: int, seeds: Seeds | None, flags: Sequence[int] = (), /
    ) -> list[InputShare]:
        """Shares for P0, P1 and P2, under fresh seeds or seeds drawn beforehand."""
        ...

    def receive_input(self, party: Party, share: InputShare, rows: int, width: int, flags: int = 0, /) -> Given:
        """What a party makes of its part."""
        ...

    def imagined(self, party: Party, rows: int, width: int, flags: int = 0, /) -> Given:
        """The same of a dry run: shapes only."""
        ...

    def in_clear(self, party: ClearParty, rows: Tensor, width: int, /) -> Clear | ClearChoice:
        """The same of the computation in the clear."""
        ...


KINDS: Mapping[str, Kind] = {"tokens": prompt, "pixels": pixels}


def _kind(read: Inputs) -> tuple[Kind, int]:
    """How such an input travels, and how wide its rows are then."""
    return (rows, read.row) if read.row else (KINDS[read.kind], read.width)


class Table(Protocol):
    """A public table of embeddings at a client."""

    def rows(self, ids: Tensor, /) -> Tensor:
        """The rows of these tokens (n, width) as words with mpc.fixed.WEIGHT fraction bits."""
        ...


def laid_out(config: Config, items: Sequence[Any], padded: int = 0) -> Laid:
    """What a client was given, in the clear; InputError unless a model of this config reads such."""
    read = inputs(config)
    return _kind(read)[0].laid_out(items, read, padded)


def looked_up(config: Config, laid: Laid, table: Table | None) -> Laid:
    """What was laid out as it is shared: of public weights tokens become their rows of the client's own table.

    UsageError if there is none.
    """
    if not inputs(config).row:
        return laid
    if table is None:
        raise UsageError("the model's weights are public, and its table of embeddings is not here", NO_TABLE)
    return replace(laid, rows=table.rows(laid.rows))


def upload_bytes(config: Config, job: Input, flags: int = 0) -> int:
    """Bytes of the payloads for all parties."""
    return sum(payload_bytes(config, rank, job, flags) for rank in range(3))


def share_input(config: Config, laid: Laid, seeds: Seeds | None = None) -> list[InputShare]:
    """Shares for P0, P1 and P2, under fresh seeds or seeds drawn beforehand."""
    kind, width = _kind(inputs(config))
    return kind.share_input(laid.rows, width, seeds, laid.flags)


def seeds_for(config: Config, seeds: Seeds, rank: int) -> tuple[list[bytes], list[bytes]]:
    """Of seeds drawn beforehand those of the masks and of the choices that this party is given."""
    masks, choices = seeds.of(rank)
    return masks, choices if _kind(inputs(config))[0] is prompt else []


def payload_bytes(config: Config, rank: int, job: Input, flags: int = 0) -> int:
    """Bytes that this party is sent; of flagged tokens so many `flags` come with them, or else one for each token."""
    read = inputs(config)
    kind, width = _kind(read)
    return kind.payload_bytes(rank, read.sent(job.lengths), width, _flags(job, flags))


def most_bytes(config: Config, rank: int, count: int, flags: int) -> int:
    """Bytes that this party is sent with so many rows in all, and flags where tokens can have some."""
    read = inputs(config)
    kind, width = _kind(read)
    return kind.payload_bytes(rank, count, width, flags if read.tokenized else 0)


def receive_input(config: Config, party: Party, job: Input, payload: Tensor, flags: int = 0) -> Given:
    """What a party makes of its part: of the seeds in `job` and of a payload of `payload_bytes`.

    ProtocolError unless the seeds are as many as this party's.
    """
    read, share = inputs(config), InputShare(job.masks, job.choices, payload)
    kind, width = _kind(read)
    return kind.receive_input(party, share, read.sent(job.lengths), width, _flags(job, flags))


def imagined(config: Config, party: Party, job: Input, flags: int = 0) -> Given:
    """The same of a dry run: shapes only."""
    read = inputs(config)
    kind, width = _kind(read)
    return kind.imagined(party, read.sent(job.lengths), width, _flags(job, flags))


def in_clear(config: Config, party: ClearParty, laid: Tensor) -> Clear | ClearChoice:
    """What the computation in the clear makes of laid out rows."""
    kind, width = _kind(inputs(config))
    return kind.in_clear(party, laid, width)


def _flags(job: Input, flags: int) -> int:
    """How many flags come with tokens: those of beams, or one for each that may be padding."""
    return (flags or job.tokens) if job.padded else 0

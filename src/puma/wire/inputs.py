"""The input of a request, whatever a model reads: laid out and shared by a client, received by a party.

A module or a value for each kind of input has these functions; `KINDS` says which serves what an architecture names in
its `Inputs`. A new kind is one of these and a line here. Must not know links or what a request asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from puma.errors import InputError, UsageError
from puma.models import Inputs, inputs
from puma.models.begun import Begun
from puma.models.config import Config
from puma.mpc.clear import Clear, ClearChoice, ClearParty
from puma.mpc.party import Party
from puma.wire import prompt, rows
from puma.wire.input_share import Given, InputShare, Laid, Seeds, check_seeds
from puma.wire.measured import PIXELS, SOUND
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


KINDS: Mapping[str, Kind] = {"tokens": prompt, "pixels": PIXELS, "audio": SOUND}


def _kind(read: Inputs) -> tuple[Kind, int]:
    """How such an input travels, and how wide its rows are then."""
    return (rows, read.row) if read.row else (KINDS[read.kind], read.width)


class Table(Protocol):
    """A public table of embeddings at a client."""

    def rows(self, ids: Tensor, /) -> Tensor:
        """The rows of these tokens (n, width) as words with mpc.fixed.WEIGHT fraction bits."""
        ...


def laid_out(
    config: Config, items: Sequence[Any], padded: int = 0, begun: Sequence[Sequence[int]] = ()
) -> Laid:  # fmt: skip
    """What a client was given, in the clear; InputError unless a model of this config reads such.

    `begun` are the tokens that the answer to each item begins with, as many for each.
    """
    read = inputs(config)
    laid = _kind(read)[0].laid_out(items, read, padded)
    if not any(begun):
        return laid
    counts = {len(ids) for ids in begun}
    if len(begun) != len(items) or len(counts) != 1 or not read.apart or padded:
        raise InputError("these answers cannot begin with tokens", "give as many for each prompt, of public lengths")
    if config.formats.open and not read.tokenized:
        what = "with public weights the answers of a model that hears cannot begin with tokens"
        raise UsageError(what, "let its owner share it with secret ones")
    first = prompt.laid_out(begun, _words(config)).rows
    return replace(laid, begun=first.reshape(len(begun), -1))


def looked_up(config: Config, laid: Laid, table: Table | None) -> Laid:
    """What was laid out as it is shared: of public weights tokens become their rows of the client's own table.

    UsageError if there is none.
    """
    if not inputs(config).row:
        return laid
    if table is None:
        raise UsageError("the model's weights are public, and its table of embeddings is not here", NO_TABLE)
    begun = None if laid.begun is None else table.rows(laid.begun.reshape(-1)).reshape(*laid.begun.shape, -1)
    return replace(laid, rows=table.rows(laid.rows), begun=begun)


def upload_bytes(config: Config, job: Input, flags: int = 0) -> int:
    """Bytes of the payloads for all parties."""
    return sum(payload_bytes(config, rank, job, flags) for rank in range(3))


def share_input(config: Config, laid: Laid, seeds: Seeds | None = None) -> list[InputShare]:
    """Shares for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    Safe: what begins an answer lies behind a prompt in the same streams, or in streams of another purpose than
    numbers: no position serves twice.
    """
    read = _read(config, laid.lengths)
    kind, width = _kind(read)
    if laid.begun is None:
        return kind.share_input(laid.rows, width, seeds, laid.flags)
    if read.tokenized:
        behind = laid.begun.reshape(-1, *laid.rows.shape[1:])
        return kind.share_input(torch.cat([laid.rows, behind]), width, seeds)
    seeds = seeds or Seeds.fresh()
    parts = kind.share_input(laid.rows, width, seeds)
    words = prompt.share_input(laid.begun.reshape(-1), config.vocab_size, seeds)
    payloads = [torch.cat([a.payload, b.payload]) for a, b in zip(parts, words, strict=True)]
    return [InputShare(*seeds.of(rank), payload) for rank, payload in enumerate(payloads)]


def seeds_for(config: Config, seeds: Seeds, rank: int, begun: int = 0) -> tuple[list[bytes], list[bytes]]:
    """Of seeds drawn beforehand those of the masks and of the choices that this party is given."""
    masks, choices = seeds.of(rank)
    chosen = _kind(inputs(config))[0] is prompt or (begun > 0 and not inputs(config).row)
    return masks, choices if chosen else []


def payload_bytes(config: Config, rank: int, job: Input, flags: int = 0) -> int:
    """Bytes that this party is sent; of flagged tokens so many `flags` come with them, or else one for each token."""
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    (kind, width), count, flags = _kind(read), read.sent(job.lengths), _flags(job, flags)
    if read.tokenized or not words:
        return kind.payload_bytes(rank, count + words, width, flags)
    return kind.payload_bytes(rank, count, width) + prompt.payload_bytes(rank, words, config.vocab_size)


def most_bytes(config: Config, rank: int, count: int, flags: int) -> int:
    """Bytes that this party is sent with so many rows in all, and flags where tokens can have some."""
    read = inputs(config)
    kind, width = _kind(read)
    if read.tokenized:
        return kind.payload_bytes(rank, count, width, flags)
    sent = -(-count * max(read.rows, read.context) // read.context)  # of sound more rows are sent than computed
    most = kind.payload_bytes(rank, sent, width)
    return max(most, prompt.payload_bytes(rank, count, config.vocab_size, flags)) if read.apart else most


def receive_input(config: Config, party: Party, job: Input, payload: Tensor, flags: int = 0) -> Given:
    """What a party makes of its part: of the seeds in `job` and of a payload of `payload_bytes`.

    ProtocolError unless the seeds are as many as this party's.
    """
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    share, count, flags = InputShare(job.masks, job.choices, payload), read.sent(job.lengths), _flags(job, flags)
    kind, width = _kind(read)
    if not words:
        return kind.receive_input(party, share, count, width, flags)
    if read.tokenized:
        found: Any = kind.receive_input(party, share, count + words, width)
        return Begun(found[:count], found[count:])
    check_seeds(party.rank, share.masks, share.choices, chosen=True)
    at = kind.payload_bytes(party.rank, count, width)
    own = kind.receive_input(party, InputShare(job.masks, [], payload[:at]), count, width)
    return Begun(own, prompt.receive_choice(party, replace(share, payload=payload[at:]), words, config.vocab_size))


def imagined(config: Config, party: Party, job: Input, flags: int = 0) -> Given:
    """The same of a dry run: shapes only."""
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    kind, width = _kind(read)
    found = kind.imagined(party, read.sent(job.lengths), width, _flags(job, flags))
    if not words:
        return found
    behind = kind.imagined(party, words, width) if read.tokenized else prompt.imagined(party, words, config.vocab_size)
    return Begun(found, behind)


def in_clear(config: Config, party: ClearParty, laid: Laid) -> Any:
    """What the computation in the clear makes of an input."""
    kind, width = _kind(inputs(config))
    found = kind.in_clear(party, laid.rows, width)
    if laid.begun is None:
        return found
    words, width = _kind(_words(config))
    return Begun(found, words.in_clear(party, laid.begun.reshape(-1), width))


def plain(laid: Laid, marked: Callable[[Tensor], Tensor]) -> Any:
    """What a run on tensors is given, each of them `marked`."""
    found = marked(laid.rows)
    return found if laid.begun is None else Begun(found, marked(laid.begun.reshape(-1)))


def _read(config: Config, lengths: Sequence[int]) -> Inputs:
    """What these are: a model of something else than tokens is fed the tokens of its answers one by one."""
    read = inputs(config)
    fed = read.apart and not read.tokenized and read.context > 1 and set(lengths) == {1}
    return _words(config) if fed else read


def _words(config: Config) -> Inputs:
    """Tokens of answers."""
    return Inputs("tokens", config.vocab_size, config.context)


def _flags(job: Input, flags: int) -> int:
    """How many flags come with tokens: those of beams, or one for each that may be padding."""
    return (flags or job.tokens) if job.padded else 0

"""The input of a request, whatever a model reads: laid out and shared by a client, received by a party.

A module for each kind of input has these functions; `KINDS` says which serves what an architecture names in its
`Inputs`. A new kind is one such file and a line here. Must not know links or what a request asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from puma.errors import InputError
from puma.models import Inputs, inputs
from puma.models.begun import Begun
from puma.models.config import Config
from puma.mpc.clear import Clear, ClearChoice, ClearParty
from puma.mpc.party import Party
from puma.wire import audio, pixels, prompt
from puma.wire.input_share import Given, InputShare, Laid, Seeds, check_seeds
from puma.wire.messages import Input


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


KINDS: Mapping[str, Kind] = {"tokens": prompt, "pixels": pixels, "audio": audio}


def laid_out(
    config: Config, items: Sequence[Any], padded: int = 0, begun: Sequence[Sequence[int]] = ()
) -> Laid:  # fmt: skip
    """What a client was given, in the clear; InputError unless a model of this config reads such.

    `begun` are the tokens that the answer to each item begins with, as many for each.
    """
    read = inputs(config)
    laid = KINDS[read.kind].laid_out(items, read, padded)
    if not any(begun):
        return laid
    counts = {len(ids) for ids in begun}
    if len(begun) != len(items) or len(counts) != 1 or not read.apart or padded:
        raise InputError("these answers cannot begin with tokens", "give as many for each prompt, of public lengths")
    first = prompt.laid_out(begun, _words(config)).rows
    return replace(laid, begun=first.reshape(len(begun), -1))


def upload_bytes(config: Config, job: Input, flags: int = 0) -> int:
    """Bytes of the payloads for all parties."""
    return sum(payload_bytes(config, rank, job, flags) for rank in range(3))


def share_input(config: Config, laid: Laid, seeds: Seeds | None = None) -> list[InputShare]:
    """Shares for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    Safe: what begins an answer lies behind a prompt in the same streams, or in streams of another purpose than
    numbers: no position serves twice.
    """
    read = _read(config, laid.lengths)
    if laid.begun is None:
        return KINDS[read.kind].share_input(laid.rows, read.width, seeds, laid.flags)
    ids = laid.begun.reshape(-1)
    if read.tokenized:
        return prompt.share_input(torch.cat([laid.rows, ids]), read.width, seeds)
    seeds = seeds or Seeds.fresh()
    parts = KINDS[read.kind].share_input(laid.rows, read.width, seeds)
    words = prompt.share_input(ids, config.vocab_size, seeds)
    payloads = [torch.cat([a.payload, b.payload]) for a, b in zip(parts, words, strict=True)]
    return [InputShare(*seeds.of(rank), payload) for rank, payload in enumerate(payloads)]


def payload_bytes(config: Config, rank: int, job: Input, flags: int = 0) -> int:
    """Bytes that this party is sent; of flagged tokens so many `flags` come with them, or else one for each token."""
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    rows, flags = read.sent(job.lengths), _flags(job, flags)
    if read.tokenized:
        return prompt.payload_bytes(rank, rows + words, read.width, flags)
    own = KINDS[read.kind].payload_bytes(rank, rows, read.width, flags)
    return own + prompt.payload_bytes(rank, words, config.vocab_size) if words else own


def most_bytes(config: Config, rank: int, rows: int, flags: int) -> int:
    """Bytes that this party is sent with so many rows in all, and flags where tokens can have some."""
    read = inputs(config)
    if read.tokenized:
        return prompt.payload_bytes(rank, rows, read.width, flags)
    sent = -(-rows * max(read.rows, read.context) // read.context)  # of sound more rows are sent than computed
    most = KINDS[read.kind].payload_bytes(rank, sent, read.width)
    return max(most, prompt.payload_bytes(rank, rows, config.vocab_size, flags)) if read.apart else most


def receive_input(config: Config, party: Party, job: Input, payload: Tensor, flags: int = 0) -> Given:
    """What a party makes of its part: of the seeds in `job` and of a payload of `payload_bytes`.

    ProtocolError unless the seeds are as many as this party's.
    """
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    share, rows, flags = InputShare(job.masks, job.choices, payload), read.sent(job.lengths), _flags(job, flags)
    if not words:
        return KINDS[read.kind].receive_input(party, share, rows, read.width, flags)
    if read.tokenized:
        found = prompt.receive_choice(party, _checked(party, share), rows + words, read.width)
        return Begun(found[:rows], found[rows:])
    at = KINDS[read.kind].payload_bytes(party.rank, rows, read.width)
    own = KINDS[read.kind].receive_input(party, InputShare(job.masks, [], payload[:at]), rows, read.width)
    last = replace(_checked(party, share), payload=payload[at:])
    return Begun(own, prompt.receive_choice(party, last, words, config.vocab_size))


def imagined(config: Config, party: Party, job: Input, flags: int = 0) -> Given:
    """The same of a dry run: shapes only."""
    read, words = _read(config, job.lengths), job.begun * len(job.lengths)
    found = KINDS[read.kind].imagined(party, read.sent(job.lengths), read.width, _flags(job, flags))
    return Begun(found, prompt.imagined(party, words, config.vocab_size)) if words else found


def in_clear(config: Config, party: ClearParty, laid: Laid) -> Any:
    """What the computation in the clear makes of an input."""
    read = inputs(config)
    found = KINDS[read.kind].in_clear(party, laid.rows, read.width)
    if laid.begun is None:
        return found
    return Begun(found, prompt.in_clear(party, laid.begun.reshape(-1), config.vocab_size))


def plain(laid: Laid, marked: Callable[[Tensor], Tensor]) -> Any:
    """What a run on tensors is given, each of them `marked`."""
    rows = marked(laid.rows)
    return rows if laid.begun is None else Begun(rows, marked(laid.begun.reshape(-1)))


def _read(config: Config, lengths: Sequence[int]) -> Inputs:
    """What these are: a model of something else than tokens is fed the tokens of its answers one by one."""
    read = inputs(config)
    fed = read.apart and not read.tokenized and read.context > 1 and set(lengths) == {1}
    return _words(config) if fed else read


def _words(config: Config) -> Inputs:
    """Tokens of answers."""
    return Inputs("tokens", config.vocab_size, config.context)


def _checked(party: Party, share: InputShare) -> InputShare:
    check_seeds(party.rank, share.masks, share.choices, chosen=True)
    return share


def _flags(job: Input, flags: int) -> int:
    """How many flags come with tokens: those of beams, or one for each that may be padding."""
    return (flags or job.tokens) if job.padded else 0

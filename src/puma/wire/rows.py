"""A prompt on its way to parties that compute with public weights: the rows of the embedding table that belong to its
tokens, which the client looks up itself and shares as numbers.

P1 gets them under masks of which P2 gets the seed, so that what both hold adds up to the rows, and the parties retrieve
nothing. A row names its token to whoever sees it; so no seed serves twice. This file must not know links or which model
reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import InputError
from puma.models.architecture import Inputs
from puma.mpc.clear import ClearChoice, ClearParty
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import WEIGHT
from puma.mpc.party import FIRST, Party
from puma.mpc.public import LookedUp
from puma.mpc.share import Additive, Share
from puma.wire import prompt
from puma.wire.input_share import Flagged, InputShare, Laid, Seeds, check_seeds

RING = prompt.RING  # as rows that are retrieved
FLAG_RING = prompt.FLAG_RING


def laid_out(items: Sequence[Sequence[int]], read: Inputs, padded: int = 0) -> Laid:
    """Token ids, as `prompt.laid_out` has them; their rows are looked up before they are shared."""
    return prompt.laid_out(items, read, padded)


def payload_bytes(rank: int, rows: int, width: int, flags: int = 0) -> int:
    """Bytes of the payload for one party: P1's masked words, and masked flags of both evaluators."""
    return prompt.flag_bytes(rank, flags) + (message_bytes(rows * width, RING) if rank == FIRST else 0)


def share_input(words: Tensor, width: int, seeds: Seeds | None = None, flags: Sequence[int] = ()) -> list[InputShare]:
    """Shares of rows (n, width), words with WEIGHT fraction bits, for P0, P1 and P2, under fresh seeds or seeds drawn
    beforehand. InputError for what is no such row.

    Safe: P1 lacks the seed of the masks, and P2 gets nothing but the seed.
    """
    if words.dtype != torch.int64 or words.dim() != 2 or words.shape[1] != width:
        raise InputError(f"not rows of {width} numbers each", "look the tokens up in the model's own table")
    seeds = seeds or Seeds.fresh()
    masked = kernels.pack(words + _masks(seeds.masks[1], len(words), width), RING)
    nothing = torch.empty(0, dtype=torch.uint8)
    last = prompt.masked_flags(flags, seeds) if len(flags) else nothing
    payloads = (nothing, torch.cat([masked, last]), last)
    return [InputShare(seeds.of(rank)[0], [], payload) for rank, payload in enumerate(payloads)]


def receive_input(party: Party, share: InputShare, rows: int, width: int, flags: int = 0) -> LookedUp | Flagged:
    """What a party makes of its part; so many flags lie at the payload's end."""
    check_seeds(party.rank, share.masks, share.choices, chosen=False)
    at = payload_bytes(party.rank, rows, width)
    if party.is_dealer:
        part = party.nothing((rows, width))
    elif party.rank == FIRST:
        part = kernels.unpack(share.payload[:at], RING, (rows, width))
    else:
        part = -_masks(share.masks[0], rows, width)
    found = LookedUp(Additive(party, part, RING, WEIGHT, dealt=False))
    return Flagged(found, prompt.received_flags(party, share.masks, share.payload[at:], flags)) if flags else found


def imagined(party: Party, rows: int, width: int, flags: int = 0) -> LookedUp | Flagged:
    """A prompt of a dry run: shapes only."""
    found, words = LookedUp(Additive(party, party.nothing((rows, width)), RING, WEIGHT, False)), party.nothing((flags,))
    return Flagged(found, Share(party, words, words, FLAG_RING, 0)) if flags else found


def in_clear(party: ClearParty, ids: Tensor, width: int) -> ClearChoice:
    """A prompt of the computation in the clear, which looks its tokens up in whatever table there is."""
    return ClearChoice(party, ids, width, RING)


def _masks(seed: bytes, rows: int, width: int) -> Tensor:
    return PairKey(seed).stream("row").words((rows, width))

"""Rows of numbers on their way from the client to the parties, such as pixels or a spectrum: shared like any secret.

The masks come from two fresh seeds, each purpose from a stream of its own; the evaluators get the masked words. This
file must not know links, nor what the numbers mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.mpc.clear import Clear, ClearParty, held
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share, encode
from puma.wire.input_share import InputShare, Seeds, check_seeds


def payload_bytes(rank: int, rows: int, width: int) -> int:
    """Bytes of the payload for one party: masked words for the evaluators."""
    return 0 if rank == DEALER else message_bytes(rows * width, RING)


def share_rows(numbers: Tensor, purpose: str, seeds: Seeds | None = None) -> list[InputShare]:
    """Shares of numbers (rows, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    Safe: each evaluator lacks one of the two seeds.
    """
    seeds = seeds or Seeds.fresh()
    words = encode(numbers, ACTIVATION)
    for seed in seeds.masks:
        words = words + _masks(seed, purpose, *numbers.shape)
    packed, nothing = kernels.pack(words, RING), torch.empty(0, dtype=torch.uint8)
    return [InputShare(seeds.of(rank)[0], [], nothing if rank == DEALER else packed) for rank in range(3)]


def receive_rows(party: Party, share: InputShare, purpose: str, rows: int, width: int) -> Share:
    """What a party makes of its part."""
    check_seeds(party.rank, share.masks, share.choices, chosen=False)
    components = [_masks(seed, purpose, rows, width) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(share.payload, RING, (rows, width)), *components]
    return Share(party, components[0], components[1], RING, ACTIVATION)


def imagined_rows(party: Party, rows: int, width: int) -> Share:
    """The same of a dry run: shapes only."""
    words = party.nothing((rows, width))
    return Share(party, words, words, RING, ACTIVATION)


def rows_in_clear(party: ClearParty, numbers: Tensor) -> Clear:
    """The same of the computation in the clear."""
    return held(party, encode(numbers, ACTIVATION), RING, ACTIVATION)


def _masks(seed: bytes, purpose: str, rows: int, width: int) -> Tensor:
    return PairKey(seed).stream(purpose).words((rows, width))

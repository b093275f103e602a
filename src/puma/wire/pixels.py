"""An image on its way from the client to the parties: the pixels of its patches, shared like any secret.

The masks come from two fresh seeds; the evaluators get the masked words. This file must not know links or which model
reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import InputError, UsageError
from puma.models.architecture import Inputs
from puma.mpc.clear import Clear, ClearParty, held
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share, encode
from puma.wire.input_share import InputShare, Laid, Seeds, check_seeds

LIMIT = 64.0  # of a normalised pixel


def laid_out(items: Sequence[Tensor], read: Inputs, padded: int = 0) -> Laid:
    """The patches of all images below each other; InputError unless they are such patches and can be shared."""
    _unflagged(padded)
    if not items or any(tuple(image.shape) != (read.rows, read.width) for image in items):
        raise InputError(
            f"not images of {read.rows} patches of {read.width} numbers", "pass what PlainModel.sentence_ids returns"
        )
    pixels = torch.cat(list(items))
    if not float(pixels.abs().max()) < LIMIT:  # NaN, too
        raise InputError(f"a pixel lies beyond {LIMIT:g} after normalisation", "check the image's mean and deviation")
    return Laid([read.context] * len(items), pixels)


def payload_bytes(rank: int, rows: int, width: int, flags: int = 0) -> int:
    """Bytes of the payload for one party: masked words for the evaluators."""
    _unflagged(flags)
    return 0 if rank == DEALER else message_bytes(rows * width, RING)


def share_input(pixels: Tensor, width: int, seeds: Seeds | None = None, flags: Sequence[int] = ()) -> list[InputShare]:
    """Shares of pixels (rows, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    Safe: each evaluator lacks one of the two seeds.
    """
    _unflagged(len(flags))
    seeds = seeds or Seeds.fresh()
    words = encode(pixels, ACTIVATION)
    for seed in seeds.masks:
        words = words + _masks(seed, len(pixels), width)
    packed, nothing = kernels.pack(words, RING), torch.empty(0, dtype=torch.uint8)
    return [InputShare(seeds.of(rank)[0], [], nothing if rank == DEALER else packed) for rank in range(3)]


def receive_input(party: Party, share: InputShare, rows: int, width: int, flags: int = 0) -> Share:
    """What a party makes of its part."""
    check_seeds(party.rank, share.masks, share.choices, chosen=False)
    _unflagged(flags)
    components = [_masks(seed, rows, width) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(share.payload, RING, (rows, width)), *components]
    return Share(party, components[0], components[1], RING, ACTIVATION)


def imagined(party: Party, rows: int, width: int, flags: int = 0) -> Share:
    """Images of a dry run: shapes only."""
    _unflagged(flags)
    words = party.nothing((rows, width))
    return Share(party, words, words, RING, ACTIVATION)


def in_clear(party: ClearParty, pixels: Tensor, width: int) -> Clear:
    """Images of the computation in the clear."""
    return held(party, encode(pixels, ACTIVATION), RING, ACTIVATION)


def _unflagged(flags: int) -> None:
    if flags:
        raise UsageError("images are all of one size, and nothing pads them", "make the lengths public")


def _masks(seed: bytes, rows: int, width: int) -> Tensor:
    return PairKey(seed).stream("pixel").words((rows, width))

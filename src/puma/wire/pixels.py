"""An image on its way from the client to the parties: the pixels of its patches, shared like any secret.

The masks come from two fresh seeds; the evaluators get the masked words. This file must not know links or models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import InputError
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share, encode
from puma.wire.prompt import InputShare, Seeds

LIMIT = 64.0  # of a normalised pixel


def payload_bytes(rank: int, rows: int, width: int) -> int:
    """Bytes of the payload for one party: masked words for the evaluators."""
    return 0 if rank == DEALER else message_bytes(rows * width, RING)


def upload_bytes(rows: int, width: int) -> int:
    """Bytes of the payloads for all parties."""
    return sum(payload_bytes(rank, rows, width) for rank in range(3))


def checked(images: Sequence[Tensor], rows: int, width: int) -> Tensor:
    """The patches of all images below each other, if they are those of such images and can be shared."""
    if not images or any(tuple(image.shape) != (rows, width) for image in images):
        raise InputError(
            f"not images of {rows} patches of {width} numbers", "pass what PlainModel.sentence_ids returns"
        )
    pixels = torch.cat(list(images))
    if not float(pixels.abs().max()) < LIMIT:  # NaN, too
        raise InputError(f"a pixel lies beyond {LIMIT:g} after normalisation", "check the image's mean and deviation")
    return pixels


def share_input(pixels: Tensor, seeds: Seeds | None = None) -> list[InputShare]:
    """Shares of pixels (rows, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    Safe: each evaluator lacks one of the two seeds.
    """
    seeds = seeds or Seeds.fresh()
    words = encode(pixels, ACTIVATION)
    for seed in seeds.masks:
        words = words + _masks(seed, *pixels.shape)
    packed, nothing = kernels.pack(words, RING), torch.empty(0, dtype=torch.uint8)  # type: ignore[arg-type]
    return [InputShare(seeds.of(rank)[0], [], nothing if rank == DEALER else packed) for rank in range(3)]


def receive_input(party: Party, share: InputShare, rows: int, width: int) -> Share:
    """What a party makes of its part."""
    components = [_masks(seed, rows, width) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(share.payload, RING, (rows, width)), *components]
    return Share(party, components[0], components[1], RING, ACTIVATION)


def imagined(party: Party, rows: int, width: int) -> Share:
    """Images of a dry run: shapes only."""
    words = party.nothing((rows, width))
    return Share(party, words, words, RING, ACTIVATION)


def _masks(seed: bytes, rows: int, width: int) -> Tensor:
    return PairKey(seed).stream("pixel").words((rows, width))

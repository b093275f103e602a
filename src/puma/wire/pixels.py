"""An image on its way from the client to the parties: the pixels of its patches.

This file must not know links or which model reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma.errors import InputError, UsageError
from puma.models.architecture import Inputs
from puma.mpc.clear import Clear, ClearParty
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.wire.input_share import InputShare, Laid, Seeds
from puma.wire.measured import numbers

LIMIT = 64.0  # of a normalised pixel
PURPOSE = "pixel"


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
    """Bytes of the payload for one party."""
    _unflagged(flags)
    return numbers.payload_bytes(rank, rows, width)


def share_input(pixels: Tensor, width: int, seeds: Seeds | None = None, flags: Sequence[int] = ()) -> list[InputShare]:
    """Shares of pixels (rows, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand."""
    _unflagged(len(flags))
    return numbers.share_rows(pixels, PURPOSE, seeds)


def receive_input(party: Party, share: InputShare, rows: int, width: int, flags: int = 0) -> Share:
    """What a party makes of its part."""
    _unflagged(flags)
    return numbers.receive_rows(party, share, PURPOSE, rows, width)


def imagined(party: Party, rows: int, width: int, flags: int = 0) -> Share:
    """Images of a dry run: shapes only."""
    _unflagged(flags)
    return numbers.imagined_rows(party, rows, width)


def in_clear(party: ClearParty, pixels: Tensor, width: int) -> Clear:
    """Images of the computation in the clear."""
    return numbers.rows_in_clear(party, pixels)


def _unflagged(flags: int) -> None:
    if flags:
        raise UsageError("images are all of one size, and nothing pads them", "make the lengths public")

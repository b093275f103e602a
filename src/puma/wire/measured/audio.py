"""A window of sound on its way from the client to the parties: the rows of its spectrum.

This file must not know links or which model hears them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puma.errors import InputError, UsageError
from puma.models.architecture import Inputs
from puma.models.hearing.spectrum import LOUDEST
from puma.mpc.clear import Clear, ClearParty
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.wire.input_share import InputShare, Laid, Seeds
from puma.wire.measured import numbers

PURPOSE = "sound"


def laid_out(items: Sequence[Tensor], read: Inputs, padded: int = 0) -> Laid:
    """The spectra of all windows below each other; InputError unless they are such spectra and can be shared."""
    _unflagged(padded)
    if not items or any(tuple(window.shape) != (read.rows, read.width) for window in items):
        raise InputError(
            f"not windows of {read.rows} rows of {read.width} bands", "pass what models.hearing.spectrum gives"
        )
    rows = torch.cat(list(items))
    if not float(rows.abs().max()) < LOUDEST:  # NaN, too
        raise InputError(f"a spectrum goes beyond {LOUDEST:g}", "pass samples between -1 and 1")
    return Laid([read.context] * len(items), rows)


def payload_bytes(rank: int, rows: int, width: int, flags: int = 0) -> int:
    """Bytes of the payload for one party."""
    _unflagged(flags)
    return numbers.payload_bytes(rank, rows, width)


def share_input(rows: Tensor, width: int, seeds: Seeds | None = None, flags: Sequence[int] = ()) -> list[InputShare]:
    """Shares of spectra (rows, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand."""
    _unflagged(len(flags))
    return numbers.share_rows(rows, PURPOSE, seeds)


def receive_input(party: Party, share: InputShare, rows: int, width: int, flags: int = 0) -> Share:
    """What a party makes of its part."""
    _unflagged(flags)
    return numbers.receive_rows(party, share, PURPOSE, rows, width)


def imagined(party: Party, rows: int, width: int, flags: int = 0) -> Share:
    """Sound of a dry run: shapes only."""
    _unflagged(flags)
    return numbers.imagined_rows(party, rows, width)


def in_clear(party: ClearParty, rows: Tensor, width: int) -> Clear:
    """Sound of the computation in the clear."""
    return numbers.rows_in_clear(party, rows)


def _unflagged(flags: int) -> None:
    if flags:
        raise UsageError("windows of sound are all of one length, and nothing pads them", "make the lengths public")

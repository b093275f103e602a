"""Rows of numbers on their way from the client to the parties, an image's pixels or a sound's spectrum: shared like any
secret.

The masks come from two fresh seeds, those of each kind from streams of a purpose of its own; the evaluators get the
masked words. This file must not know links, nor which model reads the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import InputError, UsageError
from puma.models.architecture import Inputs
from puma.models.hearing.spectrum import LOUDEST
from puma.mpc.clear import Clear, ClearParty, held
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import ACTIVATION, RING
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share, encode
from puma.wire.input_share import InputShare, Laid, Seeds, check_seeds


@dataclass(frozen=True)
class Measured:
    """A kind of input that is rows of numbers, all inputs of one size: `purpose` names the streams of their masks, and
    numbers lie below `limit`.

    The rest are words of errors: what inputs are (of `rows` and `width`), where one gets them, what it is called if a
    number reaches the limit (`{limit}`), what to do then, and that all are alike.
    """

    purpose: str
    limit: float
    inputs: str
    origin: str
    beyond: str
    remedy: str
    alike: str

    def laid_out(self, items: Sequence[Tensor], read: Inputs, padded: int = 0) -> Laid:
        """The rows of all inputs below each other; InputError unless they are such rows and can be shared."""
        self._unflagged(padded)
        if not items or any(tuple(item.shape) != (read.rows, read.width) for item in items):
            raise InputError(f"not {self.inputs.format(rows=read.rows, width=read.width)}", self.origin)
        rows = torch.cat(list(items))
        if not float(rows.abs().max()) < self.limit:  # NaN, too
            raise InputError(self.beyond.format(limit=f"{self.limit:g}"), self.remedy)
        return Laid([read.context] * len(items), rows)

    def payload_bytes(self, rank: int, rows: int, width: int, flags: int = 0) -> int:
        """Bytes of the payload for one party: masked words for the evaluators."""
        self._unflagged(flags)
        return 0 if rank == DEALER else message_bytes(rows * width, RING)

    def share_input(
        self, rows: Tensor, width: int, seeds: Seeds | None = None, flags: Sequence[int] = ()
    ) -> list[InputShare]:
        """Shares of rows (n, width) for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

        Safe: each evaluator lacks one of the two seeds.
        """
        self._unflagged(len(flags))
        seeds = seeds or Seeds.fresh()
        words = encode(rows, ACTIVATION)
        for seed in seeds.masks:
            words = words + self._masks(seed, *rows.shape)
        packed, nothing = kernels.pack(words, RING), torch.empty(0, dtype=torch.uint8)
        return [InputShare(seeds.of(rank)[0], [], nothing if rank == DEALER else packed) for rank in range(3)]

    def receive_input(self, party: Party, share: InputShare, rows: int, width: int, flags: int = 0) -> Share:
        """What a party makes of its part."""
        self._unflagged(flags)
        check_seeds(party.rank, share.masks, share.choices, chosen=False)
        components = [self._masks(seed, rows, width) for seed in share.masks]
        if not party.is_dealer:
            components = [kernels.unpack(share.payload, RING, (rows, width)), *components]
        return Share(party, components[0], components[1], RING, ACTIVATION)

    def imagined(self, party: Party, rows: int, width: int, flags: int = 0) -> Share:
        """The same of a dry run: shapes only."""
        self._unflagged(flags)
        words = party.nothing((rows, width))
        return Share(party, words, words, RING, ACTIVATION)

    def in_clear(self, party: ClearParty, rows: Tensor, width: int) -> Clear:
        """The same of the computation in the clear."""
        return held(party, encode(rows, ACTIVATION), RING, ACTIVATION)

    def _masks(self, seed: bytes, rows: int, width: int) -> Tensor:
        return PairKey(seed).stream(self.purpose).words((rows, width))

    def _unflagged(self, flags: int) -> None:
        if flags:
            raise UsageError(f"{self.alike}, and nothing pads them", "make the lengths public")


PIXELS = Measured(
    purpose="pixel",
    limit=64.0,  # of a normalised pixel
    inputs="images of {rows} patches of {width} numbers",
    origin="pass what PlainModel.sentence_ids returns",
    beyond="a pixel lies beyond {limit} after normalisation",
    remedy="check the image's mean and deviation",
    alike="images are all of one size",
)
SOUND = Measured(
    purpose="sound",
    limit=LOUDEST,
    inputs="windows of {rows} rows of {width} bands",
    origin="pass what models.hearing.spectrum gives",
    beyond="a spectrum goes beyond {limit}",
    remedy="pass samples between -1 and 1",
    alike="windows of sound are all of one length",
)

"""A prompt on its way from the client to the parties: token ids become choices of rows of the embedding table.

Of each component of the table one holder gets a seed for random choice bits, the other the same bits with one
flipped, and the signs that this leaves are shared like any secret (mpc/retrieval.py). Without two parties' knowledge
the bits are uniform. This file must not know links or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey, fresh_secret
from puma.mpc import fixed
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import RESIDUAL_RING
from puma.mpc.party import DEALER, Party
from puma.mpc.retrieval import COMPONENTS, Choice, choice_bytes
from puma.mpc.share import Share, cat

RING = RESIDUAL_RING  # retrieved rows stay in the residual's ring
FLAG_RING = fixed.RING
EXPLICIT = (0, 1, 2)  # components whose bits P0, P1 and P2 are sent in full, not as a seed


@dataclass(frozen=True)
class InputShare:
    """What one party gets: seeds of the signs' masks, seeds of its choice bits, and a payload (empty at the dealer)."""

    masks: list[bytes]
    choices: list[bytes]
    payload: Tensor


@dataclass(frozen=True)
class Seeds:
    """All that is random about the shares of a prompt; may be drawn before the prompt is known, and serves once."""

    choices: list[bytes]  # of the bits for m at P1, for l1 and l2 at P0
    masks: list[bytes]  # of the signs, at P1 and P2

    @classmethod
    def fresh(cls) -> Seeds:
        return cls([fresh_secret() for _ in range(COMPONENTS)], [fresh_secret(), fresh_secret()])

    def of(self, rank: int) -> tuple[list[bytes], list[bytes]]:
        """The seeds of the masks and of the choices that this party is given."""
        return [self.masks, self.masks[:1], self.masks[1:]][rank], [self.choices[1:], self.choices[:1], []][rank]


@dataclass(frozen=True)
class Flagged:
    """Tokens, and secret ones and zeros about them: 1 for a token that is only padding (tokens,); or, row by row, for
    each column that a branch does not see (rows * columns,), as `Cache.branch` has it.
    """

    rows: Choice
    flags: Share

    def joined(self, others: Sequence[Flagged]) -> Flagged:
        """With the tokens of others below."""
        flags = cat([self.flags, *(other.flags for other in others)], 0)
        return Flagged(self.rows.joined([other.rows for other in others]), flags)


def payload_bytes(rank: int, tokens: int, vocabulary: int, flags: int = 0) -> int:
    """Bytes of the payload for one party: choices in full, masked signs, and so many masked flags."""
    if rank == DEALER:
        return 0
    rest = message_bytes(flags, FLAG_RING)
    return rest + tokens * EXPLICIT[rank] * choice_bytes(vocabulary) + message_bytes(tokens * COMPONENTS, RING)


def upload_bytes(tokens: int, vocabulary: int, flags: int = 0) -> int:
    """Bytes of the payloads for all parties."""
    return sum(payload_bytes(rank, tokens, vocabulary, flags) for rank in range(3))


def share_input(
    ids: Sequence[int], vocabulary: int, seeds: Seeds | None = None, flags: Sequence[int] = ()
) -> list[InputShare]:
    """Shares of token ids for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    The ids of several prompts come one after the other; `flags`, ones and zeros, make them Flagged.
    """
    seeds = seeds or Seeds.fresh()
    n, width = len(ids), choice_bytes(vocabulary)
    token = torch.tensor(list(ids))
    rows, byte, place = torch.arange(n), token // 8, (token % 8).to(torch.uint8)
    flip = torch.zeros((n, width), dtype=torch.uint8)
    flip[rows, byte] = torch.tensor(1, dtype=torch.uint8) << place
    random = [_choice(seed, n, width) for seed in seeds.choices]
    signs = torch.stack([2 * ((r[rows, byte] >> place) & 1).to(torch.int64) - 1 for r in random], dim=1)
    for mask in seeds.masks:
        signs = signs + _sign_masks(mask, n)
    packed = kernels.pack(signs, RING)
    m, l1, l2 = ((r ^ flip).reshape(-1) for r in random)
    last = [_masked_flags(flags, seeds)] if flags else []
    nothing = torch.empty(0, dtype=torch.uint8)
    payloads = (nothing, torch.cat([l1, packed, *last]), torch.cat([m, l2, packed, *last]))
    return [InputShare(*seeds.of(rank), payload) for rank, payload in enumerate(payloads)]


def receive_flagged_input(party: Party, share: InputShare, tokens: int, vocabulary: int, count: int) -> Flagged:
    """What a party makes of its part, if so many flags came with it."""
    at = payload_bytes(party.rank, tokens, vocabulary)
    front, last = share.payload[:at], share.payload[at:]
    components = [_flag_masks(seed, count) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(last, FLAG_RING, (count,)), *components]
    flags = Share(party, components[0], components[1], FLAG_RING, 0)
    return Flagged(receive_input(party, replace(share, payload=front), tokens, vocabulary), flags)


def receive_input(party: Party, share: InputShare, tokens: int, vocabulary: int) -> Choice:
    """What a party makes of its part."""
    width = choice_bytes(vocabulary)
    explicit, packed = share.payload.split(
        [EXPLICIT[party.rank] * tokens * width, share.payload.numel() - EXPLICIT[party.rank] * tokens * width]
    )
    bits = [_choice(seed, tokens, width) for seed in share.choices]
    bits += list(explicit.reshape(EXPLICIT[party.rank], tokens, width))
    components = [_sign_masks(seed, tokens) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(packed, RING, (tokens, COMPONENTS)), *components]
    return Choice(party, (bits[0], bits[1]), Share(party, components[0], components[1], RING, 0), vocabulary)


def imagined_flags(party: Party, count: int) -> Share:
    """Flags of a dry run: shapes only."""
    words = party.nothing((count,))
    return Share(party, words, words, FLAG_RING, 0)


def imagined(party: Party, tokens: int, vocabulary: int) -> Choice:
    """A prompt of a dry run: shapes only."""
    bits = torch.empty((tokens, choice_bytes(vocabulary)), dtype=torch.uint8, device="meta")
    words = party.nothing((tokens, COMPONENTS))
    return Choice(party, (bits, bits), Share(party, words, words, RING, 0), vocabulary)


def _choice(seed: bytes, tokens: int, width: int) -> Tensor:
    return PairKey(seed).stream("choice").bytes(tokens * width).reshape(tokens, width)


def _sign_masks(seed: bytes, tokens: int) -> Tensor:
    return PairKey(seed).stream("sign").words((tokens, COMPONENTS))


def _flag_masks(seed: bytes, count: int) -> Tensor:
    return PairKey(seed).stream("padding").words((count,))


def _masked_flags(flags: Sequence[int], seeds: Seeds) -> Tensor:
    """Packed m = f + l1 + l2. Safe: each evaluator lacks one of the two seeds, and each stream has its purpose."""
    words = torch.tensor(list(flags))
    for seed in seeds.masks:
        words = words + _flag_masks(seed, len(flags))
    return kernels.pack(words, FLAG_RING)

"""A prompt on its way from the client to the parties: token ids become choices of rows of the embedding table.

Of each component of the table one holder gets a seed for random choice bits, the other the same bits with one
flipped, and the signs that this leaves are shared like any secret (mpc/retrieval.py). Without two parties' knowledge
the bits are uniform. This file must not know links or which model reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import InputError
from puma.models.architecture import Inputs
from puma.mpc import fixed
from puma.mpc.clear import ClearChoice, ClearParty
from puma.mpc.cost import message_bytes
from puma.mpc.fixed import RESIDUAL_RING
from puma.mpc.party import DEALER, Party
from puma.mpc.retrieval import COMPONENTS, Choice, choice_bytes
from puma.mpc.share import Share
from puma.wire.input_share import Flagged, InputShare, Laid, Seeds, check_seeds

RING = RESIDUAL_RING  # retrieved rows stay in the residual's ring
FLAG_RING = fixed.RING
EXPLICIT = (0, 1, 2)  # components whose bits P0, P1 and P2 are sent in full, not as a seed


def laid_out(items: Sequence[Sequence[int]], read: Inputs, padded: int = 0) -> Laid:
    """Token ids of all prompts, one after the other; InputError unless they are at least one each, of the vocabulary.

    With `padded`, prompts are filled up to that many tokens, in front or behind as the model takes it, and flags say
    which of them are only padding.
    """
    lengths, ids = [len(prompt) for prompt in items], [int(token) for prompt in items for token in prompt]
    if min(lengths, default=0) < 1 or min(ids) < 0 or max(ids) >= read.width:
        raise InputError(f"not prompts of a vocabulary of {read.width}", "pass token ids, at least one each")
    if not padded:
        return Laid(lengths, torch.tensor(ids))
    firsts = [padded - length if read.pads == "front" else 0 for length in lengths]
    ends = zip(firsts, lengths, strict=True)
    real, rest = [first <= i < first + length for first, length in ends for i in range(padded)], iter(ids)
    filled = [next(rest) if here else 0 for here in real]
    return Laid([padded] * len(lengths), torch.tensor(filled), [int(not here) for here in real])


def payload_bytes(rank: int, tokens: int, vocabulary: int, flags: int = 0) -> int:
    """Bytes of the payload for one party: choices in full, masked signs, and so many masked flags."""
    if rank == DEALER:
        return 0
    chosen = tokens * EXPLICIT[rank] * choice_bytes(vocabulary) + message_bytes(tokens * COMPONENTS, RING)
    return chosen + flag_bytes(rank, flags)


def flag_bytes(rank: int, flags: int) -> int:
    """Bytes of so many masked flags for one party."""
    return 0 if rank == DEALER else message_bytes(flags, FLAG_RING)


def share_input(
    ids: Sequence[int] | Tensor, vocabulary: int, seeds: Seeds | None = None, flags: Sequence[int] = ()
) -> list[InputShare]:
    """Shares of token ids for P0, P1 and P2, under fresh seeds or seeds drawn beforehand.

    The ids of several prompts come one after the other; `flags`, ones and zeros, make them Flagged.
    """
    seeds = seeds or Seeds.fresh()
    n, width = len(ids), choice_bytes(vocabulary)
    token = torch.as_tensor(ids)
    rows, byte, place = torch.arange(n), token // 8, (token % 8).to(torch.uint8)
    flip = torch.zeros((n, width), dtype=torch.uint8)
    flip[rows, byte] = torch.tensor(1, dtype=torch.uint8) << place
    random = [_choice(seed, n, width) for seed in seeds.choices]
    signs = torch.stack([2 * ((r[rows, byte] >> place) & 1).to(torch.int64) - 1 for r in random], dim=1)
    for mask in seeds.masks:
        signs = signs + _sign_masks(mask, n)
    packed = kernels.pack(signs, RING)
    m, l1, l2 = ((r ^ flip).reshape(-1) for r in random)
    last = [masked_flags(flags, seeds)] if len(flags) else []
    nothing = torch.empty(0, dtype=torch.uint8)
    payloads = (nothing, torch.cat([l1, packed, *last]), torch.cat([m, l2, packed, *last]))
    return [InputShare(*seeds.of(rank), payload) for rank, payload in enumerate(payloads)]


def receive_input(party: Party, share: InputShare, tokens: int, vocabulary: int, flags: int = 0) -> Choice | Flagged:
    """What a party makes of its part; so many flags lie at the payload's end."""
    check_seeds(party.rank, share.masks, share.choices, chosen=True)
    if not flags:
        return receive_choice(party, share, tokens, vocabulary)
    at = payload_bytes(party.rank, tokens, vocabulary)
    rows = receive_choice(party, replace(share, payload=share.payload[:at]), tokens, vocabulary)
    return Flagged(rows, received_flags(party, share.masks, share.payload[at:], flags))


def received_flags(party: Party, masks: Sequence[bytes], payload: Tensor, flags: int) -> Share:
    """So many flags (flags,), of the seeds of their masks and of masked words."""
    components = [_flag_masks(seed, flags) for seed in masks]
    if not party.is_dealer:
        components = [kernels.unpack(payload, FLAG_RING, (flags,)), *components]
    return Share(party, components[0], components[1], FLAG_RING, 0)


def imagined(party: Party, tokens: int, vocabulary: int, flags: int = 0) -> Choice | Flagged:
    """A prompt of a dry run: shapes only."""
    bits = party.nothing((tokens, choice_bytes(vocabulary)))
    words = party.nothing((tokens, COMPONENTS))
    rows = Choice(party, (bits, bits), Share(party, words, words, RING, 0), vocabulary)
    words = party.nothing((flags,))
    return Flagged(rows, Share(party, words, words, FLAG_RING, 0)) if flags else rows


def in_clear(party: ClearParty, ids: Tensor, vocabulary: int) -> ClearChoice:
    """A prompt of the computation in the clear."""
    return ClearChoice(party, ids, vocabulary, RING)


def receive_choice(party: Party, share: InputShare, tokens: int, vocabulary: int) -> Choice:
    """Choices of rows and their signs, without flags."""
    width = choice_bytes(vocabulary)
    explicit, packed = share.payload.split_with_sizes(
        [EXPLICIT[party.rank] * tokens * width, share.payload.numel() - EXPLICIT[party.rank] * tokens * width]
    )
    bits = [_choice(seed, tokens, width) for seed in share.choices]
    bits += list(explicit.reshape(EXPLICIT[party.rank], tokens, width))
    components = [_sign_masks(seed, tokens) for seed in share.masks]
    if not party.is_dealer:
        components = [kernels.unpack(packed, RING, (tokens, COMPONENTS)), *components]
    return Choice(party, (bits[0], bits[1]), Share(party, components[0], components[1], RING, 0), vocabulary)


def _choice(seed: bytes, tokens: int, width: int) -> Tensor:
    return PairKey(seed).stream("choice").bytes(tokens * width).reshape(tokens, width)


def _sign_masks(seed: bytes, tokens: int) -> Tensor:
    return PairKey(seed).stream("sign").words((tokens, COMPONENTS))


def _flag_masks(seed: bytes, count: int) -> Tensor:
    return PairKey(seed).stream("padding").words((count,))


def masked_flags(flags: Sequence[int], seeds: Seeds) -> Tensor:
    """Packed m = f + l1 + l2. Safe: each evaluator lacks one of the two seeds, and each stream has its purpose."""
    words = torch.tensor(list(flags))
    for seed in seeds.masks:
        words = words + _flag_masks(seed, len(flags))
    return kernels.pack(words, FLAG_RING)

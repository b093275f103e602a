"""A parameter becomes masked words: all that the evaluators ever see of it. It must not know links or parties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import PairKey
from puma.mpc.seeded import rest_bytes
from puma.wire.limits import FRAME_WORDS
from puma.wire.messages import TensorSpec

PIECE_WORDS = 1 << 15  # that the owner masks at a time


def masked(x: Tensor, spec: TensorSpec, seeds: Sequence[bytes], purpose: str) -> Iterator[Tensor]:
    """m = x 2^frac + l1 + l2 as packed bytes, FRAME_WORDS words at a time, made in pieces that stay in the cache.

    Safe: each evaluator lacks one of the two seeds, and each purpose is used once.
    """
    size = rest_bytes((PIECE_WORDS,), spec.bits)
    readers = [PairKey(seed).stream(purpose).reader(0) for seed in seeds]
    pads = torch.empty((2, size), dtype=torch.uint8)
    for frame in x.reshape(-1).split(FRAME_WORDS):
        packed = torch.empty(rest_bytes(frame.shape, spec.bits), dtype=torch.uint8)
        for piece, out in zip(frame.split(PIECE_WORDS), packed.split(size), strict=True):
            l1, l2 = (reader.into(pad[: out.numel()]) for reader, pad in zip(readers, pads, strict=True))
            kernels.pack_masked(piece.double(), spec.frac, (l1, l2), spec.bits, out)
        yield packed

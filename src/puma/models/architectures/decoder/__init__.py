"""Causal decoders, in the variants that a config chooses between.

`config` says what is computed, `blocks` and `model` compute it, `folding` has a checkpoint's tensors and `proofs` what
no input exceeds. Blocks and parts of them serve other architectures, too.
"""

from __future__ import annotations

from puma.models.architecture import Architecture
from puma.models.architectures.decoder.blocks import MLP, Attention, Block, norm
from puma.models.architectures.decoder.config import Decoder
from puma.models.architectures.decoder.folding import QKV_BIASES, READERS, fold, plain
from puma.models.architectures.decoder.model import Model, heads, inputs
from puma.models.architectures.decoder.proofs import bounds, halves

DECODER = Architecture(
    "causal", Decoder, Model, plain, fold, inputs, heads, bounds, table="model.embed_tokens.weight", foreseen=True
)

__all__ = ["DECODER", "MLP", "QKV_BIASES", "READERS", "Attention", "Block", "Decoder", "bounds", "halves", "norm"]

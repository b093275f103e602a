"""Encoders with a decoder that reads them, LayerNorm and absolute positions, in the variants that a config chooses
between.

`config` says what is computed, `blocks` and `model` compute it, `folding` has a checkpoint's tensors and `proofs` what
no input exceeds.
"""

from __future__ import annotations

from puma.models.architecture import Architecture
from puma.models.architectures.seq2seq.config import Seq2Seq
from puma.models.architectures.seq2seq.folding import fold, plain
from puma.models.architectures.seq2seq.model import Model, heads, inputs
from puma.models.architectures.seq2seq.proofs import bounds

SEQ2SEQ = Architecture(
    "causal", Seq2Seq, Model, plain, fold, inputs, heads, bounds, stacks=("layers", "encoder_layers"),
    table="shared.weight",
)  # fmt: skip

__all__ = ["SEQ2SEQ", "Seq2Seq"]

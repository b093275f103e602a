"""The configs of all architectures, and the names of those whose settings are the defaults.

A config says what is computed and knows no checkpoint's dialect; `architectures/` has each beside what computes it.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures import Config
from puma.models.architectures.clip import ClipVision
from puma.models.architectures.decoder import Decoder
from puma.models.architectures.encoder import Encoder
from puma.models.architectures.modernbert import ModernBert
from puma.models.architectures.patches import PatchEncoder
from puma.models.architectures.seq2seq import Seq2Seq
from puma.models.architectures.t5 import T5
from puma.models.architectures.vit import Vit
from puma.models.fields import Activation, Rope

Llama, Bert = Decoder, Encoder


def Gpt2(*, width: int, inner: int = 0, activation: Activation = "gelu_tanh", **sizes: Any) -> Decoder:
    """A Decoder with GPT-2's settings and GPT-2's names of its sizes."""
    settings: dict[str, Any] = {"context": 1024, "eps": 1e-5, "tied": True} | sizes
    return Decoder(
        hidden_size=width, intermediate_size=inner or 4 * width, activation=activation, norm="layer", gated=False,
        qkv_bias=True, out_bias=True, mlp_bias=True, rope=None, **settings,
    )  # fmt: skip


__all__ = [
    "T5",
    "Bert",
    "ClipVision",
    "Config",
    "Decoder",
    "Encoder",
    "Gpt2",
    "Llama",
    "ModernBert",
    "PatchEncoder",
    "Rope",
    "Seq2Seq",
    "Vit",
]

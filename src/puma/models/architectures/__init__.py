"""Architectures: what is computed, written once for tensors, for shares and for torch's meta device.

A file each: the config, the forward run, names and shapes of its parameters, how a checkpoint's tensors are folded into
them, the bounds that hold for all inputs, what a model reads and which questions it takes. To add one, write the file
and name it below.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from msgspec import structs

from puma.errors import UnsupportedModel, UsageError
from puma.models.architecture import Architecture, Heads, Inputs
from puma.models.architectures.clip import CLIP_VISION, ClipVision
from puma.models.architectures.decoder import DECODER, Decoder
from puma.models.architectures.encoder import ENCODER, Encoder
from puma.models.architectures.modernbert import MODERNBERT, ModernBert
from puma.models.architectures.patches import PATCHES, PatchEncoder
from puma.models.architectures.seq2seq import SEQ2SEQ, Seq2Seq
from puma.models.architectures.t5 import T5, TEXT_TO_TEXT
from puma.models.architectures.vit import VIT, Vit

Config = (
    Decoder | Encoder | ModernBert | T5 | Seq2Seq | Vit | PatchEncoder | ClipVision
)  # what travels to the parties, told apart by its tag
ARCHITECTURES: dict[type, Architecture] = {
    each.config: each for each in (DECODER, ENCODER, MODERNBERT, TEXT_TO_TEXT, SEQ2SEQ, PATCHES, VIT, CLIP_VISION)
}


def architecture(config: Config) -> Architecture:
    """The architecture that a config belongs to."""
    found = ARCHITECTURES.get(type(config))
    if found is None:
        raise UnsupportedModel(f"{type(config).__name__} is no model config", "use one of puma.models.config")
    return found


def heads(config: Config) -> Heads:
    """Which questions a model of this config takes."""
    return architecture(config).heads(config)


def inputs(config: Config) -> Inputs:
    """What a model of this config reads."""
    found = architecture(config).inputs(config)
    return replace(found, row=_row(config)) if found.tokenized and config.formats.open else found


@lru_cache(maxsize=256)
def _row(config: Config) -> int:
    """How many numbers a token's row of the table has."""
    return architecture(config).parameters(config)[architecture(config).table][1]


def preamble(config: Config) -> tuple[int, ...] | None:
    """The tokens with which prompts may begin whose words the owner has computed; none where there are none, and None
    for a model that can have none."""
    return getattr(config, "preamble", None)


def in_the_open(config: Config, weights_are: bool = True) -> Config:
    """The same model with weights that everybody may know, or not; UsageError if it has a preamble, which is secret."""
    if weights_are and preamble(config):
        raise UsageError("a model with open weights has no preamble", "leave out one of both")
    return structs.replace(config, formats=structs.replace(config.formats, open=weights_are))


def vectors(config: Config) -> str:
    """How a model of texts without a head makes vectors of them, in words; nothing for other models."""
    asked = heads(config)
    texts = asked.encodes and inputs(config).tokenized and not (asked.labels or asked.predicts)
    return asked.pooling.words if texts else ""


def with_layers(config: Config, layers: int) -> Config:
    """The same model with another number of layers."""
    return architecture(config).with_layers(config, layers)

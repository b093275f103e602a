"""How a client puts texts to a model for sentences, and what it makes of vectors: what a folder says besides weights.

It travels with the model as a public file, for clients alone; the parties take no notice of it. This file must not know
tokenizers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from puma.errors import CheckpointError

FILE = "sentences.json"  # as which it travels
Text = Annotated[str, Meta(max_length=1 << 14)]
Count = Annotated[int, Meta(ge=0, le=1 << 24)]
PASSAGES = ("document", "passage", "corpus")  # names of a document's prompt, the first that there is


class Wording(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Prompts by name and which of them is used where none is named; `longest` (0: the context): tokens that are read
    of a text, from its end if `cut` is "left"; the first `dimensions` (0: all) of a vector that are kept; whether a
    vector is `normalised` to length one, and whether a prompt's own tokens count in the pooling (`whole`).
    """

    prompts: Annotated[dict[str, Text], Meta(max_length=256)] = {}
    default: str = ""
    longest: Count = 0
    cut: Literal["left", "right"] = "right"
    dimensions: Count = 0
    normalised: bool = True
    whole: bool = True

    @property
    def bytes(self) -> bytes:
        """The file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)


_decoder = msgspec.json.Decoder(Wording)


def read(content: bytes) -> Wording:
    """What such a file says; CheckpointError if it is none."""
    try:
        return _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{FILE} cannot be read: {error}", "let the model's owner share it again") from None

"""What is said of a model besides its config: each parameter's format, and the card that everyone may read.

Nothing here is secret. Strict msgspec structs, which travel in messages and lie in manifests.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from puma.wire.fields import FEW, MANY, Bits, Digest, Frac, Name, Shape, Size, Small, Text, Words


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Name, shape and fixed-point format of one parameter. A public one lies as numbers of a `kind` (kernels.stored)
    and has this SHA-256; a secret one as masked words."""

    name: Name
    shape: Shape
    bits: Bits
    frac: Frac
    kind: Name = ""
    sha256: bytes = b""


class File(msgspec.Struct, frozen=True, array_like=True):
    """A public file that travels with a model, such as its tokenizer: its name, bytes and SHA-256."""

    name: Name
    size: Size
    sha256: Digest


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model's number formats come from: the places that are `proven` for every input; all others hold what so
    many `texts` of `tokens` reached, and `margin` bits more.
    """

    margin: Small
    texts: Size
    tokens: Size
    proven: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MANY)] = ()


class OpenWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights that everybody may know, and the parties do: a digest of all of them, and how the `table` of embeddings
    lies, in which clients look their tokens up themselves, with `factors` of its columns, if it has any."""

    sha256: Digest
    table: TensorSpec | None = None
    factors: TensorSpec | None = None


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model with public weights that an adapter changes: its name, and by what the parties know it."""

    name: Name
    sharing: Annotated[bytes, msgspec.Meta(max_length=32)]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A file on the machine of all three parties and their owner, and the byte from which on a parameter lies there.

    How many bytes the file has, and when it was written, in nanoseconds: another one is not the one that was meant."""

    file: Text
    offset: Size
    size: int
    written: int


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What everyone may know of a model besides its config: what it is called, which tokens end a text, its files and
    what its owner allows. `reveal_logits`: clients may see logits. `max_tokens`: of a request; 0 for the cluster's.
    `approximations`: which functions it may be computed with, of nn.paper.PROFILES. `hides`: its owner has proven that
    scores can be hidden in secret (ranges.hides), as texts of secret length and beams need. `outputs`: what a client
    may have of one pass (Encode), of OUTPUTS; empty: what the model's head is for (wire/policy.py). `plan`: where its
    number formats come from, unless they are the usual ones. `weights`: what is said of them where they are public.
    `base`: of a secret adapter the model that it changes, whose weights these are.
    """

    name: Name
    version: Name = ""
    eos: Annotated[list[Small], msgspec.Meta(max_length=256)] = []
    files: Annotated[list[File], msgspec.Meta(max_length=FEW)] = []
    reveal_logits: bool = False
    max_tokens: Size = 0
    approximations: Words = ("spline",)
    hides: bool = False
    outputs: Words = ()
    plan: Provenance | None = None
    weights: OpenWeights | None = None
    base: Base | None = None

"""Types of fields that messages have in common, each with its bound: what comes over a link is never longer than this.

It must not know what a message says."""

from __future__ import annotations

from typing import Annotated

import msgspec

MANY, FEW = 1 << 17, 16
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Bits = Annotated[int, msgspec.Meta(ge=1, le=64)]
Frac = Annotated[int, msgspec.Meta(ge=-64, le=64)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Seeds = Annotated[list[Digest], msgspec.Meta(max_length=2)]  # as long as a digest
Id = Annotated[bytes, msgspec.Meta(max_length=32)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Shape = Annotated[tuple[Size, ...], msgspec.Meta(max_length=8)]
Small = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]  # a token, its type or its place
Words = Annotated[tuple[Name, ...], msgspec.Meta(max_length=FEW)]

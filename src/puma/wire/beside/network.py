"""What P1 and P2 say of the network between them. It must not know requests."""

from __future__ import annotations

from typing import Annotated

import msgspec

Functions = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=16)]


class Surveyed(msgspec.Struct, frozen=True, tag="surveyed"):
    """P1's plan, and the seconds of a round trip and the bits a second that P1 and P2 saw; 0 at the dealer."""

    quick: Functions
    rtt: float
    rate: float

"""Public files on links: in data frames of FRAME_BYTES and a shorter last one.

It must not know what a file is for: nothing secret goes this way."""

from __future__ import annotations

from puma.net import Link
from puma.wire.limits import FRAME_BYTES


def received(link: Link, size: int) -> list[memoryview]:
    """A file in its frames."""
    sizes = [min(FRAME_BYTES, size - at) for at in range(0, size, FRAME_BYTES)]
    return [link.recv(each) for each in sizes]

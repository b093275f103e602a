"""A party as deployments run it, but that it writes down how long its hash chains take.

Its processor time in them, and the bytes that they are over, lie in a file that the launcher reads.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from puma.net.chain import Chain
from puma.party.launched import nursery, process

FOLDER = "PUMA_BENCH_HASHES"  # the variable that names it
SPENT = struct.Struct("<ddd")  # seconds, bytes, frames


class Watch:
    """Of this process: threads that hash are few, and a sum that one of them spoils once in a while does not matter."""

    def __init__(self) -> None:
        self._spent = [0.0, 0.0, 0.0]
        path = Path(os.environ[FOLDER]) / str(os.getpid())
        path.write_bytes(bytes(SPENT.size))
        with path.open("r+b") as file:
            self._kept = mmap.mmap(file.fileno(), SPENT.size)
        self._hash = Chain.after

    def after(self, chain: Chain, pieces: Sequence[bytes | memoryview], size: int) -> bytes:
        """As the chain's own."""
        began = time.thread_time()
        state = self._hash(chain, pieces, size)
        for at, more in enumerate((time.thread_time() - began, size, 1)):
            self._spent[at] += more
        SPENT.pack_into(self._kept, 0, *self._spent)
        return state


def main() -> int:
    watch = Watch()
    Chain.after = lambda *given: watch.after(*given)  # type: ignore[method-assign]
    return process.main()


if __name__ == "__main__":
    nursery.begin(main)

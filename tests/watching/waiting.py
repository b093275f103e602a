"""A party's program that loads nothing and waits until its launcher is gone: for tests of who is forked and ends."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

PROGRAM = (str(Path(__file__).resolve()),)


def wait() -> int:
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    ready = ModuleType("puma.kernels.startup")
    ready.warmup = SimpleNamespace(compile_kernels=lambda: None)  # type: ignore[attr-defined]
    sys.modules[ready.__name__] = ready
    from puma.party.launched import nursery

    nursery.begin(wait)

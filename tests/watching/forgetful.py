"""A party's program that gives every request the same masks, under the same watch as the others: what must be seen."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from puma.mpc.party import Party
    from puma.party.launched import nursery, process
    from tests.watching import positions

    positions.install()
    child_keys = Party.child_keys
    Party.child_keys = lambda party, label: child_keys(  # type: ignore[method-assign]
        party, "request" if label.startswith("request ") else label
    )
    nursery.begin(process.main)

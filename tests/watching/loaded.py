"""The program of a process that has loaded Puma once and forks parties and commands (command.py), with every draw from
their streams of masks noted (positions.py)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve()
PROGRAM = (str(HERE),)  # what Python runs, also as the parties of a trio

if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[2])
    from puma.party.launched import nursery
    from tests.watching import command, positions

    positions.install()
    nursery.begin(command.main)

"""Runs a module as a program, as `python -m` does, with every draw from its streams of masks noted (positions.py).

    python tests/watching/watched.py puma.cli.app party ...

Tests start daemons by it that run elsewhere than this process; what is read twice goes to the file that
PUMA_TEST_REPEATS names.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
PROGRAM = str(HERE)

if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[2])
    from tests.watching import positions

    positions.install()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

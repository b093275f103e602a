"""The tutorial's blocks, run as they stand; slow, and the classifier's only where there is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]


def test_blocks_were_found() -> None:
    assert len(BLOCKS) >= 6 and all(line.startswith("puma ") for line in LINES)


def shell(tmp_path: Path, text: str) -> str:
    """Run lines of a shell in which `puma` is this program; what it printed."""
    (tmp_path / "puma").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m puma.cli.app "$@"\n')
    (tmp_path / "puma").chmod(0o755)
    settings = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", text], capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
def test_every_block(tmp_path: Path, real: Callable[[str], Path]) -> None:
    """In order, for a later block may need an earlier one."""
    skipped = not os.environ.get("PUMA_TEST_DATA")
    for kind, block in BLOCKS:
        if kind == "python":
            done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and "rounds" in done.stdout, done.stderr
        elif not (skipped and "PUMA_TEST_DATA" in block):
            assert shell(tmp_path, block)
    if skipped:
        real("minilm-sst2-hf")  # says what was left out

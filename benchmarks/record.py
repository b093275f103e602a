"""What is measured, by name, as JSON: the numbers, and where, when and from which program they come."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import puma
from puma.cli import machine

ROOT = Path(__file__).parents[1]
PAIR = re.compile(r"\[\s+([-+.\de]+),\s+([-+.\de]+)\s+\]")  # a point of a curve, which belongs on one line


def about(module: str) -> dict[str, Any]:
    """Machine, versions, date, commit (with a word if the tree has changed since) and the module's command line."""
    cpu = machine.processor()
    return {
        "machine": machine.summary(),
        "processor": cpu["model"],
        "cores": cpu["cores"],
        "memory_gib": round(machine.memory_gib(), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "puma": puma.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    }


def commit() -> str:
    """The commit, and whether source or benchmarks differ from it."""
    where = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return (where or "unknown") + (" and changes" if changed else "")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def save(folder: Path, part: str, results: Any, module: str = "benchmarks") -> None:
    """Write a part's file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"part": part, "about": about(module), "results": rounded(results)}, indent=1)
    (folder / f"{part}.json").write_text(PAIR.sub(r"[\1, \2]", text) + "\n")


def rounded(found: Any) -> Any:
    """The same with six digits in every fraction: more were never measured."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [rounded(value) for value in found]
    return float(f"{found:.6g}") if isinstance(found, float) else found


def read(folder: Path, part: str) -> dict[str, Any] | None:
    """A part's file, if it has been measured."""
    path = folder / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else None

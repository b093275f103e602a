"""Tries every mutant on a copy of the tree: applies it, runs the tests named with it, and expects one to fail.

    python -m tests.mutants [--quick] [--only WORD] [--jobs N] [--list]

What takes long to import is imported once, before a process is split off for each mutant. Without --quick the named
tests are run on the unchanged tree first: a test that fails anyway notices nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests import mutants
from tests.mutants import ROOT, Mutant

HEAVY = ("torch", "numpy", "numba", "cryptography.x509", "msgspec", "safetensors.torch", "tokenizers",
         "pytest", "_pytest.assertion.rewrite", "huggingface_hub", "jinja2", "transformers")  # fmt: skip
TREE = ("src", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "benchmarks", "deploy")
OPTIONS = ("-x", "-q", "--assert=plain", "-m", "", "-p", "no:cacheprovider", "--no-header", "-o", "timeout=60")
PASSED, FAILED = 0, 1  # pytest's own
LOST = 70
SECONDS = 300.0


class Ended:
    """Hears how the tests went."""

    status = LOST

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.status = int(exitstatus)


def copied(to: Path) -> Path:
    """The tree as it is, with the compiled kernels beside their text."""
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("*.pyc", ".pytest_cache", ".hypothesis"))
        elif source.is_file():
            shutil.copy2(source, to / name)
    return to


def run(tree: Path, tests: Sequence[str], log: Path, seconds: float = SECONDS) -> int:
    """pytest's answer about these tests in that tree, from a process of its own; -1 if it does not come."""
    child = os.fork()
    if child == 0:
        _become_pytest(tree, tests, log)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def _become_pytest(tree: Path, tests: Sequence[str], log: Path) -> None:
    """Never returns."""
    code, ended = LOST, Ended()
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree / "src")
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a changed text of the same second and size must not be mistaken
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "puma")]:
            del sys.modules[name]
        sys.path[:] = [str(tree), str(tree / "src"), *(p for p in sys.path if p and not _ours(p))]
        importlib.invalidate_caches()
        pytest = importlib.import_module("pytest")
        code = int(pytest.main([*OPTIONS, *tests], plugins=[ended]))
    except BaseException:  # what a broken program leaves behind may trouble pytest itself, after the tests
        traceback.print_exc()
        code = ended.status
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ours(path: str) -> bool:
    return Path(path).resolve() in (ROOT, ROOT / "src")


def tried(mutant: Mutant, tree: Path) -> str:
    """What is wrong with a mutant; empty if a test notices it."""
    try:
        texts = mutants.mutated(mutant, tree)
    except (ValueError, OSError) as error:
        return f"cannot be applied: {error}"
    before = {name: (tree / name).read_text() for name in texts}
    log = tree / "log"
    try:
        for name, text in texts.items():
            (tree / name).write_text(text)
        code = run(tree, mutant.tests, log)
    finally:
        for name, text in before.items():
            (tree / name).write_text(text)
    if code == FAILED:
        return ""
    said = "\n    ".join(log.read_text(errors="replace").splitlines()[-15:])
    return "SURVIVES: " + mutant.breaks if code == PASSED else f"its tests do not run (exit code {code})\n    {said}"


def failing(tree: Path, chosen: Sequence[Mutant]) -> set[str]:
    """The tests that fail without any mutant, of those that are named with these."""
    tests, found = sorted({test for mutant in chosen for test in mutant.tests}), set[str]()
    if run(tree, ["--maxfail=1000", *tests], tree / "log", 4 * SECONDS) == PASSED:
        return found
    said = [line.split()[1] for line in (tree / "log").read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {test for test in tests if not said or any(name.startswith(test) for name in said)}


def main(words: Sequence[str] | None = None) -> int:
    """0 if every mutant chosen is noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=mutants.__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="the few that every change must pass")
    parser.add_argument("--only", default="", help="those whose name or file has this word")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time")
    parser.add_argument("--list", action="store_true", help="show them and their tests")
    asked = parser.parse_args(words)
    chosen = [m for m in mutants.read() if m.quick or not asked.quick]
    chosen = [m for m in chosen if any(asked.only in text for text in (m.name, *(e.file for e in m.edits)))]
    if asked.list:
        for mutant in chosen:
            print(f"{mutant.name}\n    breaks {mutant.breaks}\n    seen by {', '.join(mutant.tests)}")
        return 0
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="puma-mutants-") as scratch:
        return _all(chosen, Path(scratch), asked.jobs, check=not (asked.quick or asked.only))


def _all(chosen: Sequence[Mutant], scratch: Path, jobs: int, check: bool) -> int:
    trees: SimpleQueue[Path] = SimpleQueue()
    for i in range(jobs):
        trees.put(copied(scratch / str(i)))
    broken = failing(scratch / "0", chosen) if check else set[str]()

    def one(mutant: Mutant) -> bool:
        tree, began = trees.get(), time.monotonic()
        useless = broken & set(mutant.tests)
        try:
            problem = f"without it fails {', '.join(useless)}" if useless else tried(mutant, tree)
        finally:
            trees.put(tree)
        print(f"{time.monotonic() - began:6.1f} s  {mutant.name}: {problem or 'noticed'}", flush=True)
        return not problem

    with ThreadPoolExecutor(jobs) as pool:
        noticed = list(pool.map(one, chosen))
    print(f"{sum(noticed)} of {len(chosen)} mutants are noticed")
    return 0 if chosen and all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Requests to three parties that write down what their hash chains take (`party`), beside all that they compute."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.receipts.party import FOLDER, SPENT
from puma.local.cluster import Trio
from puma.measure.bench import ask, configured, random_inputs
from puma.wire.request_shapes import shaped

Case = tuple[str, int | None, int, int | None]  # a preset, layers, tokens of the prompt, new tokens
CASES: dict[str, Case] = {
    "BERT-base, 128 tokens": ("bert-base", None, 128, None),
    "GPT-2, 32 in, 1 out": ("gpt2", None, 32, 1),
    "LLaMA-7B, one layer, 8 in, 1 out": ("llama-7b", 1, 8, 1),
}
QUICK: dict[str, Case] = {"MiniLM, one layer, 8 tokens": ("minilm-l6", 1, 8, None)}
PROGRAM = (str(Path(__file__).with_name("party.py")),)

Say = Callable[[str], None]


def receipts(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """A line for each request: medians over the runs after one that does not count."""
    found = []
    for title, case in (QUICK if quick else CASES).items():
        say(title)
        with tempfile.TemporaryDirectory() as folder:
            os.environ[FOLDER] = folder
            try:
                found.append({"title": title, "runs": runs} | _measured(Path(folder), case, runs))
            finally:
                del os.environ[FOLDER]
    return found


def _measured(folder: Path, case: Case, runs: int) -> dict[str, float]:
    name, layers, prompt, tokens = case
    _, config, params = configured(name, layers)
    prompts = random_inputs(config, shaped(config, prompt, tokens).input.lengths)
    lines = []
    with Trio(program=PROGRAM) as trio:
        trio.share(config, params, alias=getattr(params, "alias", {}))
        for _ in range(runs + 1):
            before = _spent(folder)
            ask(trio.session, prompts, tokens)
            assert trio.session.cost is not None
            lines.append((trio.session.cost.cpu_seconds, *(b - a for a, b in zip(before, _spent(folder), strict=True))))
    cpu, hashing, size, frames = (statistics.median(column) for column in zip(*lines[1:], strict=True))
    return {"cpu_seconds": cpu, "hash_seconds": hashing, "bytes": size, "frames": frames, "share": hashing / cpu}


def _spent(folder: Path) -> list[float]:
    """Seconds, bytes and frames of all parties so far."""
    return [sum(column) for column in zip(*(SPENT.unpack(path.read_bytes()) for path in folder.iterdir()), strict=True)]

"""Every real model on its data, by `puma eval`: ours and the published profiles, in the clear and by three parties.

Models, data, and columns are those that docs/accuracy.md names above each table. An evaluation that is there already,
in the folder that is given, is not run again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from puma.errors import OutOfRange
from puma.nn.paper import PROFILES


class Evaluation(NamedTuple):
    """What is evaluated: a model's folder, a task, a file, further options, and how many examples by the clear run (0:
    all) and by three parties."""

    model: str
    task: str
    data: str
    options: tuple[str, ...] = ()
    clear: int = 0
    parties: int = 0

    def words(self, data: Path, made: Path, profile: str, clear: bool) -> list[str]:
        """The command line, for files that lie in `data` or were `made`."""

        def found(word: str) -> str:
            return word.replace("DATA/", f"{data}/").replace("MADE/", f"{made}/")

        limit = self.clear if clear else self.parties
        words = ["eval", str(data / self.model), "--task", self.task, "--data", found(self.data)]
        words += [*map(found, self.options), *(("--limit", str(limit)) if limit else ()), "--approximation", profile]
        return [*words, *(("--clear",) if clear else ()), "--json"]


EVALUATIONS = {
    "sst2": Evaluation(
        "minilm-sst2-hf", "classification", "DATA/glue/SST-2/dev.tsv", ("--text", "1", "--label", "2"), parties=64
    ),
    "stsb": Evaluation(
        "minilm-hf-fp16", "similarity", "DATA/glue/STS-B/stsb-en-dev.csv", ("--text", "1,2", "--label", "3"), parties=64
    ),
    "mnist": Evaluation(
        "vit-mnist", "classification", "DATA/mnist-test/t10k-images-idx3-ubyte.gz",
        ("--label", "DATA/mnist-test/t10k-labels-idx1-ubyte.gz"), parties=1000,
    ),
    "stories": Evaluation(
        "stories260k-hf", "perplexity", "MADE/stories.txt", ("--tokens", "256"), clear=300, parties=8
    ),
    "begun": Evaluation("stories260k-hf", "generation", "MADE/begun.txt", ("--tokens", "200"), clear=50, parties=8),
    "adder": Evaluation(
        "minigpt-adder-hf", "generation", "MADE/sums.tsv", ("--text", "1", "--label", "2", "--tokens", "3"), parties=500
    ),
    "sort": Evaluation(
        "gpt-nano-sort-hf", "generation", "MADE/sort.tsv", ("--text", "1", "--label", "2", "--tokens", "6"), parties=128
    ),
}  # fmt: skip


def made(data: Path, folder: Path) -> None:
    """The files of examples that the page describes."""
    text = (data / "tinystories" / "tinystories_val.txt").read_text(encoding="utf-8")
    stories = re.split(r"\n\n(?=Once upon a time)", text)[1:]  # the first one has no beginning
    folder.mkdir(parents=True, exist_ok=True)
    lines = [re.sub(r"\s*\n\s*", "\n", story) for story in stories]
    (folder / "stories.txt").write_text("\n\n".join(lines), encoding="utf-8")
    begun = [" ".join(story.split()[:12]) for story in stories]
    (folder / "begun.txt").write_text("\n\n".join(begun), encoding="utf-8")
    pairs = product(range(100), repeat=2)
    sums = [f"{a:02}{b:02}\t{(a + b) % 10}{(a + b) // 10 % 10}{(a + b) // 100}" for a, b in pairs]
    (folder / "sums.tsv").write_text("\n".join(sums), encoding="utf-8")
    words = ["".join(word) for word in product("ABC", repeat=6)]
    sort = [f"{word}\t{''.join(sorted(word))}" for word in words]
    (folder / "sort.tsv").write_text("\n".join(sort), encoding="utf-8")


def measured(data: Path, folder: Path, say: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """For each of EVALUATIONS its rows; what `puma eval` said is kept in the folder."""
    made(data, folder)
    for name, each in EVALUATIONS.items():
        rows = []
        for clear, profile in product((True, False), PROFILES):
            kept = folder / f"{name}-{profile}-{'clear' if clear else 'parties'}.json"
            if not kept.exists():
                say(f"{name}, {profile}, {'clear' if clear else 'three parties'}")
                words = [sys.executable, "-m", "puma.cli.app", *each.words(data, folder, profile, clear)]
                done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
                if done.returncode not in (0, OutOfRange.exit_code):  # which is an answer, too
                    raise RuntimeError(f"{' '.join(words)}: {(done.stderr + done.stdout)[-500:]}")
                kept.write_text(done.stdout)
            rows.append({"profile": profile, "clear": clear} | json.loads(kept.read_text()))
        yield name, rows

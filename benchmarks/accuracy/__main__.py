"""How near fixed point by a model's plan comes to plaintext, on real and made-up checkpoints.

    python -m benchmarks.accuracy [--only PARTS] [--smollm2 FILE] [--pieces N] [--texts N] [--kept FOLDER] [--quick]

Parts: evaluations (real models on their data), published (`$PUMA_TEST_DATA/activations`), smollm2, alarms (false
ones), missed (alarms). Each writes a JSON file to benchmarks/results; docs/accuracy.md is then filled in from all files
that are there. `--only page` measures nothing; `--pieces` of text have 160 tokens; for alarms so many `--texts` are
looked at. Evaluations that the folder `--kept` holds are not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import page, record
from benchmarks.accuracy import evaluations, flags, published, real_width, smollm2, tables
from puma.errors import RangeError

PAGE = record.ROOT / "docs" / "accuracy.md"
RESULTS = record.ROOT / "benchmarks" / "results" / "accuracy"


def say(text: str) -> None:
    """What is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def all_published(data: Path, quick: bool) -> list[dict[str, Any]]:
    """A row for each stretch of each model; with `quick` those up to 2048 wide."""
    rows = []
    for name, figures in published.read(data / "activations").items():
        if quick and figures["hidden_size"] > 2048:
            continue
        for stretch, layers in published.stretches(figures).items():
            say(f"{name}, {stretch}")
            try:
                rows.append({"stretch": stretch} | real_width.measured(name, figures, layers))
            except RangeError as error:
                width = figures["hidden_size"]
                rows.append({"stretch": stretch, "model": name, "width": width, "refused": str(error)})
    return rows


def fill() -> None:
    """The page from all files that are there."""
    text = PAGE.read_text()
    for part, table in tables.TABLES.items():
        if found := record.read(RESULTS, part):
            text = page.filled(text, part, f"{table(found['results'])}\n\n{page.origin(found['about'])}")
    PAGE.write_text(text)


def main() -> None:
    """Measure what was asked for, then fill in the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy")
    parser.add_argument("--only", default="evaluations,published,smollm2,alarms,missed")
    parser.add_argument("--smollm2", type=Path)
    parser.add_argument("--pieces", type=int)
    parser.add_argument("--texts", type=int, default=flags.TEXTS)
    parser.add_argument("--kept", type=Path, default=Path("accuracy-runs"))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    data, parts = Path(os.environ["PUMA_TEST_DATA"]), asked.only.split(",")
    if "published" in parts:
        save("published", all_published(data, asked.quick))
    if "smollm2" in parts and asked.smollm2:
        save("smollm2", smollm2.measured(asked.smollm2, data, asked.pieces))
    if "alarms" in parts:
        save("alarms", flags.false_alarms(data, asked.texts))
    if "missed" in parts:
        save("missed", flags.missed(data, asked.quick))
    if "evaluations" in parts:
        for name, rows in evaluations.measured(data, asked.kept, say):
            save(name, rows)
    fill()


def save(part: str, results: Any) -> None:
    """Write a part's file."""
    record.save(RESULTS, part, results, "benchmarks.accuracy")


if __name__ == "__main__":
    main()

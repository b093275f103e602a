"""Whole models through `puma bench`, each run a process of its own: the published figures are those of the command."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import puma.models
from puma.measure.bench import configured, in_the_clear, plainly, random_inputs
from puma.measure.estimate import measured

STORIES = Path(puma.models.__file__).parent / "stories"  # the model in the package
MINUTES = 20.0
PLAIN_RUNS = 5  # of which the least counts

MODELS: dict[str, list[str]] = {
    "BERT-base, 128 tokens": ["bert-base", "--prompt", "128"],
    "GPT-2, 32 in, 1 out": ["gpt2", "--prompt", "32", "--tokens", "1"],
    "LLaMA-7B, one layer, 8 in, 1 out": ["llama-7b", "--prompt", "8", "--tokens", "1", "--layers", "1"],
    "LLaMA-7B, 8 in, 1 out": ["llama-7b", "--prompt", "8", "--tokens", "1"],
    "LLaMA-7B, 8 in, 2 out": ["llama-7b", "--prompt", "8", "--tokens", "2"],
    "embedded model, 4 in, 20 out": [str(STORIES), "--prompt", "4", "--tokens", "20"],
}
QUICK = ("embedded model, 4 in, 20 out",)
PHASES = ("BERT-base, 128 tokens", "GPT-2, 32 in, 1 out", "embedded model, 4 in, 20 out")
BATCHES = (1, 2, 4, 8, 16)
LENGTHS = (16, 32, 64, 128, 256)

Say = Callable[[str], None]


class Failed(Exception):
    """The command ended with an error; its message."""


def models(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Every model, `runs` times; those that cannot run here say why."""
    found = []
    for title, words in MODELS.items():
        if not quick or title in QUICK:
            say(title)
            found.append({"title": title, "command": _shown(words)} | _tried(words, runs))
    return found


def plain(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """The same requests in the clear, by torch in float32 on all cores: how many times slower three parties are."""
    found = []
    for title, words in MODELS.items():
        if not quick or title in QUICK:
            say(title)
            source, asked = words[0], dict(zip(words[1::2], map(int, words[2::2]), strict=True))
            _, config, params = configured(source, asked.get("--layers"))
            request = measured(config, asked["--prompt"], asked.get("--tokens"))
            clear, prompts = in_the_clear(config, params), random_inputs(config, request.input.lengths)
            took = plainly(clear, prompts, asked.get("--tokens"), max(runs, PLAIN_RUNS))
            found.append({"title": title, "runs": max(runs, PLAIN_RUNS), "seconds": took})
    return found


def batches(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """The embedded model with several prompts in one request."""
    found = []
    for size in BATCHES[: 2 if quick else None]:
        say(f"batch {size}")
        words = [*MODELS[QUICK[0]], "--batch", str(size), "--no-error"]
        found.append({"batch": size, "command": _shown(words)} | _tried(words, runs))
        if "error" in found[-1]:
            break
    return found


def lengths(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """BERT-base at several lengths."""
    found = []
    for length in LENGTHS[: 2 if quick else None]:
        say(f"BERT-base, {length} tokens")
        words = ["bert-base", "--prompt", str(length), "--no-error", *(["--layers", "1"] if quick else [])]
        found.append({"length": length, "command": _shown(words)} | _tried(words, runs))
    return found


def phases(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Requests at once, and the same from what was prepared for them."""
    found = []
    for title in QUICK if quick else PHASES:
        say(title)
        words = [*MODELS[title], "--prepared", "--no-error"]
        answers = [bench(words) for _ in range(runs)]
        again = [answer["prepared"] for answer in answers]
        found.append(
            {
                "title": title,
                "command": _shown(words),
                "runs": runs,
                "seconds": statistics.median(a["seconds"] for a in answers),
                "cpu_seconds": statistics.median(a["cpu_seconds"] for a in answers),
                "online_seconds": statistics.median(a["seconds"] for a in again),
                "online_cpu_seconds": statistics.median(a["cpu_seconds"] for a in again),
                "ahead_seconds": statistics.median(a["ahead"]["seconds"] for a in again),
                "kept_bytes": sum(again[0]["preprocessing"]),
                "rounds": again[0]["rounds"],
                "bytes": again[0]["bytes"]["total"],
            }
        )
    return found


def _tried(words: list[str], runs: int) -> dict[str, Any]:
    try:
        return median([bench(words) for _ in range(runs)])
    except Failed as error:
        return {"error": str(error)}


def bench(words: list[str]) -> dict[str, Any]:
    """One run of `puma bench`; raises Failed with its own words."""
    command = [sys.executable, "-m", "puma.cli.app", "bench", *words, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {MINUTES:.0f} minutes") from None
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Failed((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]) from None
    if "error" in answer:
        raise Failed(answer["error"]["message"])
    return answer


def median(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds are medians over the runs; the rest is the same in all of them, or the largest."""
    first = answers[0]
    errors = [a["max_abs_error"] for a in answers if a["max_abs_error"] is not None]
    parts = [
        part | {"seconds": statistics.median(_part(a, part["name"])["seconds"] for a in answers)}
        for part in first["breakdown"]
    ]
    same = ("prompt", "tokens", "layers", "repeated_layers", "rounds", "bytes")
    kept = {key: first[key] for key in same if key in first}
    return kept | {
        "runs": len(answers),
        "seconds": statistics.median(a["seconds"] for a in answers),
        "first_seconds": statistics.median(_first(a) for a in answers),
        "cpu_seconds": statistics.median(a["cpu_seconds"] for a in answers),
        "peak_rss_mib": [max(a["peak_rss_mib"][rank] for a in answers) for rank in range(3)],
        "max_error": max(errors, default=None),
        "breakdown": parts,
    }


def _first(answer: dict[str, Any]) -> float:
    """Seconds to the first of several tokens, of which the rest can be told apart; 0 without any."""
    return answer["prefill_seconds"] if (answer["tokens"] or 0) > 1 else 0.0


def _part(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next((part for part in answer["breakdown"] if part["name"] == name), {"seconds": 0.0})


def _shown(words: list[str]) -> str:
    shown = ["src/puma/models/stories" if word == str(STORIES) else word for word in words]
    return "puma bench " + " ".join(shown)

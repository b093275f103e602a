"""The same functions in SPU and in Puma, one after the other, again and again; ratios of the medians.

    python3.11 -m venv ~/spu && ~/spu/bin/pip install spu==0.9.5        # brings jax 0.4.34; Python 3.10 or 3.11
    python -m benchmarks.spu --spu ~/spu/bin/python [--only NAMES] [--runs N] [--out DIR]

SPU runs in an environment and in processes of its own (`server.py`), Puma as in `function_run.py`. Both as three
processes on loopback, operands shared beforehand, results left as shares. SPU: ABY3, 64 bits, 18 fraction bits, and
for gelu, silu and exp the polynomials that PUMA published, with which its own figures were made; the others are what
SPU makes of JAX's functions. Bytes are what SPU's links count as sent, what Puma's ledgers count. Processor seconds are
user and system time of the three processes, SPU's communication threads included. Before each run that counts comes one
that does not. The BERT layer has biases and an embedding of 256 words in Puma, and neither in SPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import function_run, page, record
from benchmarks.functions import FUNCTIONS
from puma.local.cluster import Trio
from puma.measure.bench import RandomParams, random_ids
from puma.models.config import Bert
from puma.reference.float_session import Plain

LAYER = Bert(vocab_size=256, hidden_size=768, intermediate_size=3072, layers=1, heads=12)
NAMES = ("gelu", "silu", "exp", "less", "multiply", "softmax", "matmul", "bert layer")

Sample = dict[str, float]  # cpu_seconds, seconds, megabytes, max_error


class Spu:
    """SPU's three processes, behind one that shares and joins."""

    def __init__(self, python: Path) -> None:
        script = str(Path(__file__).with_name("server.py"))
        self._server = subprocess.Popen(
            [str(python), script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def sample(self, name: str) -> Sample:
        """One run."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps({"function": name, "runs": 1}) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise SystemExit(f"SPU ended at {name}: run server.py by itself to see why")
        answer = json.loads(line)
        (parties,) = answer["runs"]
        return {
            "cpu_seconds": sum(p["cpu_seconds"] for p in parties),
            "seconds": max(p["seconds"] for p in parties),
            "megabytes": sum(p["bytes"] for p in parties) / 1e6,
            "max_error": answer["max_error"],
        }

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


def puma_function(parties: Trio, name: str) -> Sample:
    """One run of a single function."""
    found = function_run.measure(parties, name, 1)
    sent = found["bits"] * found["elements"] / 8e6
    return {key: found[key] for key in ("cpu_seconds", "seconds", "max_error")} | {"megabytes": sent}


def puma_layer(parties: Trio, right: torch.Tensor, prompt: list[list[int]]) -> Sample:
    """One run of the layer, whose model has been shared."""
    parties.session.encode(prompt, "hidden")
    started = time.perf_counter()
    (states,) = parties.session.encode(prompt, "hidden")
    seconds, cost = time.perf_counter() - started, parties.session.cost
    assert cost is not None
    error = float((states - right).abs().max())
    spent = {"cpu_seconds": cost.cpu_seconds, "seconds": seconds, "megabytes": cost.total / 1e6}
    return spent | {"max_error": error}


def alternating(one: Callable[[], Sample], other: Callable[[], Sample], runs: int) -> tuple[Sample, Sample]:
    """Medians of both, each run of the one beside a run of the other."""
    pairs = [(one(), other()) for _ in range(runs)]
    medians = [{key: statistics.median(s[key] for s in side) for key in side[0]} for side in zip(*pairs)]
    return medians[0], medians[1]


def compare(python: Path, names: list[str], runs: int) -> list[dict[str, Any]]:
    """Every function in both; the processes of either wait while the other's work."""
    rows, spu = [], Spu(python)
    with function_run.trio() as functions, Trio() as models:
        params, prompt = RandomParams(LAYER), random_ids(LAYER, [128])
        if "bert layer" in names:
            models.share(LAYER, params)
        (right,) = Plain(LAYER, params).encode(prompt, "hidden")
        for name in names:
            print(name, file=sys.stderr, flush=True)
            if name == "bert layer":
                title, ours = "BERT-base's layer, 128 tokens", partial(puma_layer, models, right.double(), prompt)
            else:
                title, ours = FUNCTIONS[name].title, partial(puma_function, functions, name)
            theirs, mine = alternating(partial(spu.sample, name), ours, runs)
            rows.append({"title": title, "spu": theirs, "puma": mine, "runs": runs})
    spu.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spu", description=__doc__.partition("\n")[0])
    parser.add_argument("--spu", type=Path, required=True, help="the Python of an environment that has SPU")
    parser.add_argument("--only", help=f"some of {', '.join(NAMES)}, separated by commas")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--out", type=Path, help="a folder for everything, instead of the repository's own")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no function {', '.join(sorted(unknown))}")
    results = options.out or record.ROOT / "benchmarks" / "results"
    record.save(results, "spu", compare(options.spu, names, options.runs), "benchmarks.spu")
    page.write(results, options.out or record.ROOT / "docs")


if __name__ == "__main__":
    main()

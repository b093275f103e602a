"""Make every published table and plot.

    python -m benchmarks [--only PARTS] [--runs N] [--quick] [--out DIR]

With --instructions avx2 models are measured as on a machine without AVX-512, which is hidden from numba and OpenSSL.

Parts: models, plain, functions, kernels, links, networks, far, stack, phases, batch, lengths, sentences, open, threads,
clients, receipts, drafts (and --smollm2 FILE of a chat model, --draft-model FOLDER for drafts by a smaller one). Each
writes a JSON file; tables and plots are then made of all files that are there. The measurements go to
benchmarks/results, the page to docs/benchmarks.md, the plots to docs/plots; with --out everything goes to that folder.
`--only page` measures nothing. The whole takes about an hour and a half and wants the machine for itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import function_run, model_run, netem, network_run, open_weights, page, record, sentences, stack
from benchmarks.clients import run as clients
from benchmarks.drafts import run as drafts
from benchmarks.functions import FUNCTIONS
from benchmarks.network import ONE_MACHINE
from benchmarks.receipts import run as receipts
from puma import pool
from puma.local.nursery import ENVIRONMENT
from puma.measure.speed import speed

Part = Callable[[int, bool], Any]
# A processor of the generation before AVX-512 for numba, which would else keep this one's instructions, and for OpenSSL
# without them (leaf 7 of CPUID).
AVX2 = {
    "NUMBA_CPU_NAME": "znver3",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+popcnt,-avx512f",
    "OPENSSL_ia32cap": ":~0xd0230000",
}


def say(text: str) -> None:
    """What is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def functions(runs: int, quick: bool) -> dict[str, Any]:
    """Every function, by three processes that are started once."""
    found = {}
    with function_run.trio() as parties:
        for name in FUNCTIONS:
            say(name)
            found[name] = function_run.measure(parties, name, runs, 4096 if quick else None)
    return found


def script(name: str, quick: bool) -> dict[str, Any]:
    """A script of its own, as it is."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, str(Path(__file__).with_name(name)), "--json", str(report)]
        subprocess.run([*command, *(["--quick"] if quick else [])], check=True, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text())


def threads(runs: int, quick: bool) -> list[dict[str, Any]]:
    """Each party alone, with one thread and with as many as there are cores, in a process of its own."""
    counts = f"1,{max(2, pool.cores())}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["--threads", counts, "--runs", str(runs), "--json", str(report), *(["--quick"] if quick else [])]
        environment = os.environ | ENVIRONMENT
        command = [sys.executable, "-m", "benchmarks.alone", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return json.loads(report.read_text())


def networks(runs: int, quick: bool) -> list[dict[str, Any]]:
    """Every case over every network; the machine's speed, which drifts, is measured anew before each."""
    if kernel := netem.available():
        netem.enter()
    found = []
    for case in [network_run.QUICK] if quick else network_run.CASES:
        for network in (None, "lan") if quick else (None, "lan", "paper", "wan"):
            say(f"{case[0]} over {network or ONE_MACHINE}")
            rates = speed(lambda what, done, of: None, again=bool(network) and not quick)
            found.append(network_run.measure(case, network, 1 if network == "wan" else runs, rates, kernel))
    return found


def far(_: int, quick: bool) -> list[dict[str, Any]]:
    """Some layers of a large model over the slowest network."""
    if kernel := netem.available():
        netem.enter()
    return network_run.far(speed(lambda what, done, of: None, again=not quick), kernel, quick)


PARTS: dict[str, Part] = {
    "models": lambda runs, quick: model_run.models(runs, quick, say),
    "plain": lambda runs, quick: model_run.plain(runs, quick, say),
    "functions": functions,
    "kernels": lambda _, quick: script("kernels.py", quick),
    "links": lambda _, quick: script("links.py", quick),
    "networks": networks,
    "far": far,
    "stack": lambda runs, quick: stack.stack(runs, quick, say),
    "phases": lambda runs, quick: model_run.phases(runs, quick, say),
    "batch": lambda runs, quick: model_run.batches(runs, quick, say),
    "lengths": lambda runs, quick: model_run.lengths(runs, quick, say),
    "sentences": lambda runs, quick: sentences.sentences(runs, quick, say),
    "threads": threads,
    "clients": lambda runs, quick: clients.clients(runs, quick, say),
    "drafts": lambda _, quick: drafts.drafts(quick, say),
    "receipts": lambda runs, quick: receipts.receipts(runs, quick, say),
    "open": lambda runs, quick: open_weights.open_weights(runs, quick, say),
}


def _drafts(smollm2: Path | None, model: str | None, _: int, quick: bool) -> Any:
    return drafts.drafts(quick, say, smollm2, model)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help=f"some of {', '.join(PARTS)}, separated by commas; page for none")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median counts")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that all works")
    parser.add_argument("--instructions", choices=["all", "avx2"], default="all", help="those that may be used")
    parser.add_argument("--out", type=Path, help="a folder for everything, instead of the repository's own")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M-Instruct as a GGUF file, for drafts")
    parser.add_argument("--draft-model", help="a smaller model of its tokenizer, which drafts")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(wanted) - {*PARTS, "page"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if options.instructions == "avx2":
        if wanted != ["models"]:
            parser.error("--instructions avx2 is for --only models")
        os.environ |= AVX2
    results = options.out or record.ROOT / "benchmarks" / "results"
    for name in wanted:
        if name != "page":
            say(f"-- {name}")
            kind = "_avx2" if options.instructions == "avx2" else ""
            part = PARTS[name]
            if name == "drafts":
                part = partial(_drafts, options.smollm2, options.draft_model)
            record.save(results, name + kind, part(1 if options.quick else options.runs, options.quick))
    page.write(results, options.out or record.ROOT / "docs")
    (options.out or record.ROOT).joinpath("README.md").write_text(page.written(page.read(results)))


if __name__ == "__main__":
    main()

"""Each party alone with one thread and with more, one after the other in turn, and what that implies for more cores.

    python -m benchmarks.alone [--threads 1,2] [--runs N] [--quick] [--json FILE] [--case NAME | --kernels]

Two cores cannot show how three parties go together, but one party needs nobody else about: the others are a tape. The
share of a party's work that stays with one thread is what the seconds with one and with the most threads tell (Amdahl
1967), once by the clock and once by the processor time of the thread that calls: that one does its part of whatever is
split and all that is not, and other work on the machine does not slow it down. Beside them stands what the cores allow
(cores.py): how much more several processes, each with one thread and a tape, do at once than one does alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.alone import cores
from benchmarks.alone.parties import Alone
from puma.kernels.startup import threads, warmup
from puma.measure.bench import configured
from puma.wire.request_shapes import shaped

CASES = {
    "BERT-base, 128 tokens": ("bert-base", None, 128, None),
    "LLaMA-7B, one layer, 8 in, 1 out": ("llama-7b", 1, 8, 1),
}
QUICK = {"MiniLM, one layer, 8 tokens": ("minilm-l6", 1, 8, None)}
CORES = (4, 8, 16)


def case(title: str, counts: list[int], runs: int) -> list[dict[str, Any]]:
    """A line for each party."""
    name, layers, prompt, tokens = CASES.get(title) or QUICK[title]
    _, config, params = configured(name, layers)
    alone = Alone(config, params, shaped(config, prompt, tokens))
    alone.record()
    return [{"title": title} | party(alone, rank, counts, runs) for rank in range(3)]


def party(alone: Alone, rank: int, counts: list[int], runs: int) -> dict[str, Any]:
    """Medians, by the number of threads; the runs of all numbers take turns."""
    spent: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for turn in range(runs + 1):
        for count in counts:
            threads.use(count)
            took = alone.play(rank)
            if turn:  # the first warms up
                spent[count].append(took)
    keys = ("seconds", "cpu_seconds", "own_seconds")
    found = {
        count: {key: statistics.median(run[key] for run in runs_) for key in keys} for count, runs_ in spent.items()
    }
    threads.use(1)
    one, many, most = found[counts[0]], found[counts[-1]], counts[-1]
    clock, own = one["seconds"] / many["seconds"], one["own_seconds"] / many["own_seconds"]
    return {
        "party": f"P{rank}",
        "runs": runs,
        "threads": {str(count): each for count, each in found.items()},
        "ratio": clock,
        "own_ratio": own,
        "serial": serial(clock, most),
        "own_serial": serial(own, most),
        "implied": {str(count): 1 / (serial(own, most) + (1 - serial(own, most)) / count) for count in CORES},
        "allowed": cores.allowed(lambda: alone.play(rank)["seconds"], most, runs),
    }


def told(line: dict[str, Any]) -> str:
    """For whoever looks on."""
    if "party" not in line:
        return f"{line['title']:34} allowed x{line['allowed']:.2f}"
    times = "  ".join(f"{count}: {t['seconds']:.3f} s ({t['own_seconds']:.3f})" for count, t in line["threads"].items())
    ratios = f"x{line['ratio']:.2f} (x{line['own_ratio']:.2f}), allowed x{line['allowed']:.2f}"
    return f"{line['title']:34} {line['party']}  {times}  {ratios}"


def serial(ratio: float, count: int) -> float:
    """The part that stays with one thread, if so many threads are `ratio` times as fast as one (Amdahl 1967)."""
    return min(1.0, max(0.0, (1 / ratio - 1 / count) / (1 - 1 / count)))


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alone", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", default="1,2", help="numbers of threads, the first of which is 1")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median counts")
    parser.add_argument("--quick", action="store_true", help="small, to see that all works")
    parser.add_argument("--case", help="only the one whose name begins so")
    parser.add_argument("--kernels", action="store_true", help="only what cores allow of some kernels")
    parser.add_argument("--json", type=Path, help="a file for the report")
    options = parser.parse_args()
    warmup.compile_kernels()
    counts, runs = [int(count) for count in options.threads.split(",")], options.runs
    found = list[dict[str, Any]]()
    for title in [] if options.kernels else QUICK if options.quick else CASES:
        if options.case is None or title.startswith(options.case):
            print(title, file=sys.stderr, flush=True)
            found += case(title, counts, runs)
    if options.case is None:
        allowed = cores.kernels_allowed(counts[-1], 1 if options.quick else runs)
        found += [{"title": name, "allowed": times} for name, times in allowed.items()]
    for line in found:
        print(told(line))
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()

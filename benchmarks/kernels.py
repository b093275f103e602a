"""How fast one core does the local arithmetic: ring matmuls, products with packed weights, table lookups, packing.

    python benchmarks/kernels.py [--json FILE] [--quick]

One thread; each number is the median of several runs, in processor time, so that a busy machine disturbs it
less. Matmuls in thousand million multiply-adds a second, in a 64-bit and a 48-bit ring, with the right factor
in rows and as a transposed weight, beside torch's int64 matmul; the rest in nanoseconds per element.

Products with packed weights (six bytes a word, read from memory, far more of them than any cache holds) stand
beside a roofline: a product whose factors stay in the cache, and what memory delivers. "Pair" is the
product with a difference of two packed matrices, one of them in the cache, as a party's own masks are.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from puma import kernels
from puma.crypto.prg import PairKey

SHAPES = [
    (1, 1, 4096, 4096),
    (1, 8, 4096, 4096),
    (1, 128, 768, 768),
    (1, 128, 768, 3072),
    (1, 128, 3072, 768),
    (12, 128, 64, 128),
]
ELEMENTS = 300_000
WEIGHTS = {
    "LLaMA-7B q, k, v, o": (4096, 4096),
    "LLaMA-7B gate, up": (11008, 4096),
    "LLaMA-7B down": (4096, 11008),
    "BERT-base q, k, v, o": (768, 768),
    "BERT-base in": (3072, 768),
    "BERT-base out": (768, 3072),
}
ROWS = (1, 8, 128)  # of activations
WORD = 6  # bytes
BLOCK = 512 << 10  # bytes of weights a call, as the parties do it
STREAMED = 512 << 20  # bytes, of what cannot be in a cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--quick", action="store_true", help="fewer runs, no torch matmul beside")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = 3 if options.quick else 9
    report = {
        "machine": machine(),
        "torch": torch.__version__,
        "matmul, G multiply-adds/s": matmuls(runs, against_torch=not options.quick),
        "roofline": (roof := roofline(runs)),
        "packed weights": packed_weights(runs, roof),
        "lookup, ns/element": lookups(runs),
        "other, ns/element": others(runs),
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def machine() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, one of {len(names) or 'its'} cores"


def seconds(work: Callable[[], Any], runs: int) -> float:
    """The median time of one call; short calls are repeated until they can be timed."""
    work()
    start = time.thread_time()
    work()
    repeat = max(1, int(0.01 / (time.thread_time() - start + 1e-9)))
    times = []
    for _ in range(runs):
        start = time.thread_time()
        for _ in range(repeat):
            work()
        times.append((time.thread_time() - start) / repeat)
    return statistics.median(times)


def words(*shape: int) -> torch.Tensor:
    return torch.randint(-(1 << 63), (1 << 63) - 1, shape)


def matmuls(runs: int, against_torch: bool) -> dict[str, dict[str, float]]:
    return {" x ".join(map(str, shape)): matmul(*shape, runs, against_torch) for shape in SHAPES}


def matmul(batch: int, n: int, k: int, m: int, runs: int, against_torch: bool) -> dict[str, float]:
    a, rows = words(batch, n, k).squeeze(0), words(batch, k, m).squeeze(0)
    weight = rows.transpose(-1, -2).contiguous().transpose(-1, -2)
    calls: dict[str, Callable[[], Any]] = {
        "64 bits, rows": lambda: kernels.matmul(a, rows, 64),
        "64 bits, transposed": lambda: kernels.matmul(a, weight, 64),
        "48 bits, rows": lambda: kernels.matmul(a, rows, 48),
        "48 bits, transposed": lambda: kernels.matmul(a, weight, 48),
    }
    if against_torch:
        calls |= {
            "torch, rows": lambda: torch.matmul(a, rows),
            "torch, transposed": lambda: torch.matmul(a, weight),
        }
    return {name: batch * n * k * m / 1e9 / seconds(call, runs) for name, call in calls.items()}


def roofline(runs: int) -> dict[str, dict[str, float]]:
    """The limits: a product whose factors stay in the cache, memory read in order, and the masks' generator."""
    a, b = words(128, 768).expand(20, 128, 768), words(768, 128).expand(20, 768, 128)
    row, buffer = torch.ones(STREAMED // 8, dtype=torch.int64), torch.empty(BLOCK, dtype=torch.uint8)
    reader = PairKey(bytes(32)).stream("benchmark").reader(0)
    work = a.numel() * b.shape[-1] / 1e9
    return {
        "multiply-adds, G/s": {"48 bits": work / seconds(lambda: kernels.matmul(a, b, 48), runs)},
        "bytes, GB/s": {
            "memory": STREAMED / 1e9 / seconds(row.sum, runs),
            "masks drawn": BLOCK / 1e9 / seconds(lambda: reader.into(buffer), runs),
        },
    }


def packed_weights(runs: int, roof: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Linear layers of packed weights, block by block; GB/s are of packed weights."""
    peak, memory = roof["multiply-adds, G/s"]["48 bits"], roof["bytes, GB/s"]["memory"]
    table = {}
    for name, (out, k) in WEIGHTS.items():
        copies = max(1, STREAMED // 4 // (WORD * out * k))
        weight = torch.randint(0, 255, (copies * WORD * out * k,), dtype=torch.uint8)
        for n in ROWS:
            limit = min(peak, n * memory / WORD)
            table[f"{name}, {n}"] = packed_weight(runs, weight, copies * out, k, n, limit)
    return table


def packed_weight(runs: int, weight: torch.Tensor, out: int, k: int, n: int, limit: float) -> dict[str, float]:
    a, result = words(n, k), torch.zeros(n, out, dtype=torch.int64)
    rows = max(BLOCK // (WORD * k) // 8 * 8, 8, min(n, 64))
    blocks, mask = weight.split(rows * WORD * k), torch.randint(0, 255, (rows * WORD * k,), dtype=torch.uint8)

    def walk(*signs: int) -> None:
        for i, block in enumerate(blocks):
            kernels.linear_packed(a, [block, mask[: block.numel()]][: len(signs)], signs, 48, result, i * rows)

    times = {"": seconds(lambda: walk(1), runs), "pair ": seconds(lambda: walk(1, -1), runs)}
    found = {}
    for kind, time_of_one in times.items():
        rate = n * out * k / 1e9 / time_of_one
        found |= {f"{kind}G/s": rate, f"{kind}GB/s": WORD * rate / n, f"{kind}% of roofline": 100 * rate / limit}
    return found


def lookups(runs: int) -> dict[str, dict[str, float]]:
    return {f"width {width}": lookup(width, runs) for width in (4, 6, 8)}


def lookup(width: int, runs: int) -> dict[str, float]:
    e, digit = words(ELEMENTS, 1 << max(width - 6, 0)), words(ELEMENTS)
    tables, members = words(2, 1 << width), words(1 << width) & 1
    return per_element(
        runs,
        {
            "lookup, 2 tables": lambda: kernels.lookup(e, digit, width, tables),
            "lookup, 1 table": lambda: kernels.lookup(e, digit, width, tables[:1]),
            "member": lambda: kernels.member(e, digit, width, members),
            "above": lambda: kernels.above(e, digit, width),
            "hot_bit": lambda: kernels.hot_bit(e, digit, width),
            "onehot": lambda: kernels.onehot(digit, width),
        },
    )


def others(runs: int) -> dict[str, dict[str, float]]:
    return {f"{bits} bits": ring(bits, runs) for bits in (16, 24, 48, 64)} | {"single bits": single_bits(runs)}


def ring(bits: int, runs: int) -> dict[str, float]:
    x = words(ELEMENTS)
    sent = kernels.pack(x, bits)
    return per_element(
        runs,
        {
            "pack": lambda: kernels.pack(x, bits),
            "unpack": lambda: kernels.unpack(sent, bits, (ELEMENTS,)),
            "reduce": lambda: kernels.reduce(x, bits),
            "shift right": lambda: kernels.shift_right(x, 12, bits),
            "signed": lambda: kernels.signed(x, bits),
        },
    )


def single_bits(runs: int) -> dict[str, float]:
    x = words(ELEMENTS)
    sent = kernels.pack_bits(x)
    return per_element(
        runs,
        {
            "pack": lambda: kernels.pack_bits(x),
            "unpack": lambda: kernels.unpack_bits(sent, (ELEMENTS,)),
            "parity": lambda: kernels.parity(x),
        },
    )


def per_element(runs: int, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    return {name: 1e9 * seconds(call, runs) / ELEMENTS for name, call in calls.items()}


def show(report: dict[str, Any]) -> None:
    print(f"{report['machine']}; torch {report['torch']}")
    for title, table in report.items():
        if not isinstance(table, dict):
            continue
        print(f"\n{title}")
        for row, cells in table.items():
            print(f"  {row:26}" + "  ".join(f"{name} {value:.2f}" for name, value in cells.items()))


if __name__ == "__main__":
    main()

"""What these cores allow: the same work by one process, and by two or more at once with a thread each.

Threads of one process can hardly give more. Processes share nothing of a program, neither Python's lock nor a part that
stays with one thread; but they share what cores do not have for themselves: the last cache, the way to memory, and
perhaps, where a machine is virtual, the very core.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from puma import kernels
from puma.crypto.prg import PairKey, fresh_secret
from puma.kernels.startup import threads

Work = Callable[[], float]  # done once, in so many seconds

SECONDS = 0.25  # that one look at a kernel takes
SMALL, LARGE = 16 << 10, 4 << 20  # words: three such tensors fit a core's own cache, or no cache at all
ROWS, SHAPE = 128, (192, 768)  # of activations, and the rows of a parameter that are drawn and multiplied at a time


def allowed(work: Work, count: int, runs: int) -> float:
    """How many times as much so many processes at once do as one does by itself."""
    return count * at_once(work, 1, runs) / at_once(work, count, runs)


def at_once(work: Work, count: int, runs: int) -> float:
    """Seconds, the mean of these processes' medians: all are forked from this one, do the work once, so that memory is
    there, and then so many times together. EOFError if one dies."""
    context = multiprocessing.get_context("fork")
    together, ends = context.Barrier(count), list[Connection]()
    processes = list[BaseProcess]()

    def process(end: Connection) -> None:
        threads.use(1)
        work()
        took = list[float]()
        for _ in range(runs):
            together.wait()
            took.append(work())
        end.send(statistics.median(took))

    for _ in range(count):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=process, args=(theirs,), daemon=True))
        processes[-1].start()
        theirs.close()
        ends.append(ours)
    found = [end.recv() for end in ends]
    for each in processes:
        each.join()
    return statistics.mean(found)


def kernels_allowed(count: int, runs: int) -> dict[str, float]:
    """`allowed` of what a party does most, by what it is called."""
    return {name: allowed(_repeated(call), count, runs) for name, call in _calls().items()}


def _calls() -> dict[str, Callable[[], object]]:
    stream, other = (PairKey(fresh_secret()).stream("what cores allow") for _ in range(2))
    reader, mask = other.reader(0), torch.empty(6 * SHAPE[0] * SHAPE[1], dtype=torch.uint8)
    packed, left = stream.bytes(mask.numel()), stream.words((ROWS, SHAPE[1]))
    out = torch.zeros(ROWS, SHAPE[0], dtype=torch.int64)
    small, large = ([torch.ones(size, dtype=torch.int64) for _ in range(3)] for size in (SMALL, LARGE))
    return {
        "masks drawn, in a cache": lambda: reader.into(mask),
        "128 rows times packed words": lambda: kernels.linear_packed(left, [packed], [1], 48, out),
        "words added, in a cache": lambda: torch.add(small[0], small[1], out=small[2]),
        "words added, in memory": lambda: torch.add(large[0], large[1], out=large[2]),
        "words drawn, to memory": lambda: stream.words(LARGE),
    }


def _repeated(call: Callable[[], object]) -> Work:
    """A call so many times that it can be timed."""
    threads.use(1)
    call()
    began = time.perf_counter()
    call()
    times = max(1, round(SECONDS / (time.perf_counter() - began)))

    def work() -> float:
        started = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - started

    return work

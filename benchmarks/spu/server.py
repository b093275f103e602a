"""Single functions in SPU: three processes with brpc links on loopback, ABY3 over 64 bits with 18 fraction bits.

    python server.py              with SPU's own Python; benchmarks/spu starts it

Reads one JSON line a request, {"function": ..., "runs": ...}, and answers with one: the largest error, and for every
run the three processes' processor seconds, seconds and bytes sent. It must run without Puma and torch, which need not
be installed beside SPU; so the functions stand here again, in JAX, as PUMA published them for SPU.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from spu.utils import frontend

from spu import api, libspu

MILLION = 1 << 20
SENT = re.compile(r"send bytes (\d+)")
LAYER, HEADS, TOKENS = 768, 12, 128


def pieces(x: Any, low: float, middle: float, high: float, left: list[float], centre: list[float]) -> Any:
    """0 below `low`, a polynomial up to `middle`, another up to `high`, x above."""
    none, lower, above = x < low, x < middle, x > high
    inside = jnp.logical_not(jnp.logical_xor(lower, above))
    squares = {1: x, 2: x * x}
    squares[3], squares[4] = squares[2] * x, squares[2] * squares[2]
    squares[6] = squares[4] * squares[2]

    def polynomial(terms: list[float]) -> Any:
        return terms[0] + sum(c * squares[power] for power, c in enumerate(terms) if power and c)

    return above * x + jnp.logical_xor(none, lower) * polynomial(left) + inside * polynomial(centre)


def gelu(x: Any) -> Any:
    """PUMA's polynomials of degree 3 and 6."""
    left = [-0.5054031199708174, -0.42226581151983866, -0.11807612951181953, -0.011034134030615728]
    centre = [0.008526321541038084, 0.5, 0.3603292692789629, 0, -0.037688200365904236, 0, 0.0018067462606141187]
    return pieces(x, -4.0, -1.95, 3.0, left, centre)


def silu(x: Any) -> Any:
    """PUMA's polynomials of degree 2 and 6, of its LLaMA."""
    left = [-0.3067541139982155, -0.0819767021525476, -0.0055465625580307]
    centre = [0.0085064025895951, 0.5, 0.2281430841728270, 0, -0.011113046708173, 0, 0.0002743776353465]
    return pieces(x, -8.0, -4.0, 4.0, left, centre)


def exp(x: Any) -> Any:
    """PUMA's (1 + x/32)^32 above -14, 0 below."""
    y = 1 + x / 32
    for _ in range(5):
        y = y * y
    return y * (x > -14.0)


def softmax(x: Any) -> Any:
    """Over the last dimension, with PUMA's exp."""
    e = exp(x - jnp.max(x, axis=-1, keepdims=True))
    return e / jnp.sum(e, axis=-1, keepdims=True)


def norm(x: Any) -> Any:
    """Layer norm without scale and bias."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-12)


def heads(x: Any) -> Any:
    """(tokens, width) to (heads, tokens, width of a head)."""
    return x.reshape(TOKENS, HEADS, LAYER // HEADS).transpose(1, 0, 2)


def bert_layer(x: Any, *weights: Any) -> Any:
    """One encoder layer, biases left out."""
    q, k, v, out, up, down = weights
    scores = heads(x @ q) @ heads(x @ k).transpose(0, 2, 1)
    mixed = (softmax(scores) @ heads(x @ v)).transpose(1, 0, 2).reshape(TOKENS, LAYER)
    x = norm(x + mixed @ out)
    return norm(x + gelu(x @ up) @ down)


@dataclass(frozen=True)
class Function:
    """How SPU runs it, what is right, its operands' shapes and where their entries lie."""

    run: Callable[..., Any]
    right: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    reach: tuple[float, float]


def _bert_right(x: Any, *weights: Any) -> Any:
    """The same layer with the functions themselves."""
    q, k, v, out, up, down = weights
    mixed = jax.nn.softmax(heads(x @ q) @ heads(x @ k).transpose(0, 2, 1)) @ heads(x @ v)
    x = norm(x + mixed.transpose(1, 0, 2).reshape(TOKENS, LAYER) @ out)
    return norm(x + jax.nn.gelu(x @ up, approximate=False) @ down)


ONE, TWO = ((MILLION,),), ((MILLION,), (MILLION,))
SQUARE = (LAYER, LAYER)
BERT = ((TOKENS, LAYER), *[SQUARE] * 4, (LAYER, 4 * LAYER), (4 * LAYER, LAYER))
FUNCTIONS = {
    "gelu": Function(gelu, lambda x: jax.nn.gelu(x, approximate=False), ONE, (-8, 8)),
    "silu": Function(silu, jax.nn.silu, ONE, (-20, 20)),
    "exp": Function(exp, jnp.exp, ONE, (-16, 0)),
    "multiply": Function(lambda x, y: x * y, lambda x, y: x * y, TWO, (-16, 16)),
    "less": Function(lambda x, y: x < y, lambda x, y: x < y, TWO, (-4096, 4096)),
    "softmax": Function(softmax, jax.nn.softmax, ((12, 128, 128),), (-8, 8)),
    "matmul": Function(jnp.matmul, jnp.matmul, ((128, 768), (768, 3072)), (-1, 1)),
    "bert layer": Function(bert_layer, _bert_right, BERT, (-0.03, 0.03)),
}


def config() -> libspu.RuntimeConfig:
    found = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64, fxp_fraction_bits=18)
    found.enable_pphlo_profile = True  # the only way that it tells the bytes it sent
    return found


def party(rank: int, hosts: list[str], orders: Connection, log: str) -> None:
    """One of the three: shares in, shares out, and what each run took."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    description = libspu.link.Desc()
    for i, host in enumerate(hosts):
        description.add_party(f"party {i}", host)
    runtime = api.Runtime(libspu.link.create_brpc(description, rank), config())
    while order := orders.recv():
        executable, shares, runs = order
        program = libspu.Executable(**executable)
        for name, share in zip(program.input_names, shares):
            runtime.set_var(name, share)
        spent = []
        for _ in range(runs):
            orders.send("ready")
            orders.recv()
            spent.append(timed(runtime, program, log))
        orders.send((spent, [runtime.get_var(name) for name in program.output_names]))
        for name in (*program.input_names, *program.output_names):
            runtime.del_var(name)


def timed(runtime: api.Runtime, program: libspu.Executable, log: str) -> dict[str, float]:
    """One run of the program in this process."""
    at = os.path.getsize(log)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    runtime.run(program)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    said = SENT.findall(Path(log).read_text()[at:])
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": busy, "bytes": float(said[-1]) if said else float("nan")}


class Trio:
    """The three processes."""

    def __init__(self, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        hosts = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.ends, self.processes = [], []
        for rank in range(3):
            here, there = context.Pipe()
            log = str(Path(folder) / f"party {rank}.log")
            self.processes.append(context.Process(target=party, args=(rank, hosts, there, log), daemon=True))
            self.processes[-1].start()
            self.ends.append(here)
        self.io = api.Io(3, config())

    def measure(self, name: str, runs: int) -> dict[str, Any]:
        """Run one function; the first run does not count."""
        function = FUNCTIONS[name]
        values = operands(function)
        names = [f"in{i}" for i in range(len(values))]
        program, _ = frontend.compile(
            frontend.Kind.JAX, function.run, values, {}, names, [libspu.Visibility.VIS_SECRET] * len(values), outputs
        )
        parts = list(zip(*[self.io.make_shares(value, libspu.Visibility.VIS_SECRET) for value in values]))
        code = {
            "name": program.name,
            "input_names": list(program.input_names),
            "output_names": list(program.output_names),
            "code": program.code,
        }
        for end, mine in zip(self.ends, parts):
            end.send((code, list(mine), runs + 1))
        for _ in range(runs + 1):
            for end in self.ends:
                end.recv()
            for end in self.ends:
                end.send("go")
        answers = [end.recv() for end in self.ends]
        result = self.io.reconstruct([shares[0] for _, shares in answers])
        right = np.asarray(function.right(*values), dtype=np.float64)
        error = float(np.abs(np.asarray(result, dtype=np.float64) - right).max())
        return {"max_error": error, "runs": [list(run) for run in zip(*(spent for spent, _ in answers))][1:]}


def outputs(found: list[Any]) -> list[str]:
    return [f"out{i}" for i in range(len(found))]


def operands(function: Function) -> list[np.ndarray]:
    """Even over the range where there is one of a million numbers, random elsewhere, as for Puma."""
    random = np.random.default_rng(7)
    if len(function.shapes) == 1 and len(function.shapes[0]) == 1:
        return [np.linspace(*function.reach, function.shapes[0][0], dtype=np.float32)]
    return [random.uniform(*function.reach, shape).astype(np.float32) for shape in function.shapes]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    with tempfile.TemporaryDirectory() as folder:
        trio = Trio(folder)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(trio.measure(asked["function"], asked["runs"])), file=answers, flush=True)
        for end in trio.ends:
            end.send(None)


if __name__ == "__main__":
    main()

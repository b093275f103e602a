"""Single functions in three real processes: processor seconds, traffic, rounds, and the error over the whole range."""

from __future__ import annotations

import json
import os
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.functions import FUNCTIONS, Function, operands
from puma import kernels
from puma.crypto.prg import PairKey
from puma.local.cluster import Route, Trio
from puma.mpc.fixed import ACTIVATION

PROGRAM = (str(Path(__file__).with_name("function_party.py")),)
BUCKETS = 240  # of an error's curve


def trio(route: Route | None = None) -> Trio:
    """Three parties in production's settings that run single functions; over TCP, as others that they are compared with
    do."""
    return Trio(route=route or (lambda dialer, listener, port: port), program=PROGRAM)


def measure(parties: Trio, name: str, runs: int, size: int | None = None) -> dict[str, Any]:
    """Medians over `runs` runs after one that does not count; `size` elements instead of a million."""
    function = FUNCTIONS[name]
    words = operands(function, size)
    spent = _run(parties, name, words, runs + 1)[1:]
    result = _answer(parties)
    count = result.numel()
    last = spent[-1]
    online, offline = (8 * sum(party[kind] for party in last) / count for kind in ("online", "offline"))
    return {
        "title": function.title,
        "elements": count,
        "cpu_seconds": statistics.median(sum(party["cpu_seconds"] for party in run) for run in spent),
        "seconds": statistics.median(max(party["seconds"] for party in run) for run in spent),
        "online_bits": online,
        "offline_bits": offline,
        "bits": online + offline,
        "rounds": max(party["rounds"] for party in last),
    } | errors(function, words, result)


def _run(parties: Trio, name: str, words: list[Tensor], runs: int) -> list[list[dict[str, float]]]:
    """Share the operands, let the parties go together `runs` times; their reports, run by run."""
    seeds = [os.urandom(32), os.urandom(32)]
    ms = [masked(w, seeds, f"operand {i}") for i, w in enumerate(words)]
    links = parties.session.links
    for link, mine in zip(links, (seeds, seeds[:1], seeds[1:])):
        asked = {"function": name, "shapes": [list(w.shape) for w in words], "runs": runs}
        link.send_control(json.dumps(asked | {"seeds": [seed.hex() for seed in mine]}).encode())
    for m in ms:
        for link in links[1:]:
            link.send(m.numpy())
    spent = []
    for _ in range(runs):
        for link in links:
            link.recv_control()
        for link in links:
            link.send_control(b"go")
        spent.append([json.loads(link.recv_control()) for link in links])
    return spent


def masked(words: Tensor, seeds: list[bytes], purpose: str) -> Tensor:
    """m = words + l1 + l2, whole words."""
    for seed in seeds:
        words = words + PairKey(seed).stream(purpose).words(tuple(words.shape))
    return words


def _answer(parties: Trio) -> Tensor:
    """The result: decoded if it is a share, 0 and 1 if it is bits."""
    heads = [json.loads(link.recv_control()) for link in parties.session.links]
    shape, bits, frac = heads[1]["shape"], heads[1]["bits"], heads[1]["frac"]
    size = 8 * torch.Size(shape).numel()
    halves = [
        [torch.frombuffer(link.recv(size), dtype=torch.int64).reshape(shape) for _ in range(heads[1]["parts"])]
        for link in parties.session.links[1:]
    ]
    (first, second) = halves
    if len(first) == 1:
        return first[0] ^ second[0]
    assert torch.equal(kernels.signed(first[0], bits), kernels.signed(second[0], bits))
    return kernels.signed(first[0] - first[1] - second[1], bits).double() / 2.0**frac


def errors(function: Function, words: list[Tensor], result: Tensor) -> dict[str, Any]:
    """The largest and the mean error; over the range of an elementwise function of one operand, also as a curve."""
    values = [w.double() / 2.0**ACTIVATION for w in words]
    plain = function.plain(*values).double()
    error = (result.double() - plain).abs()
    relative = function.spacing == "log"
    error = error / plain.abs().clamp(min=1) if relative else error
    found: dict[str, Any] = {"max_error": float(error.max()), "mean_error": float(error.mean()), "relative": relative}
    if not function.elementwise or len(words) > 1:
        return found
    edges = torch.linspace(0, len(error), BUCKETS + 1).long()
    pairs = [(a, b) for a, b in pairwise(edges.tolist()) if b > a]
    curve = [[float(values[0][a]), float(error[a:b].max())] for a, b in pairs]
    return found | {"curve": curve}

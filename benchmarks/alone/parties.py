"""Three parties in one process with a model of public random weights, as real ones hold it; one request, recorded and
played again to each of them alone.

Masks of weights, keys and the request's shares are drawn once, so that each time the same words are computed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any

import msgspec
import torch
from torch import Tensor

from benchmarks.alone.tape import Player, Recorder
from puma import kernels
from puma.crypto.prg import PairKey, fresh_secret
from puma.engine.engine import Engine
from puma.engine.generation import run
from puma.measure.bench import random_ids
from puma.models.config import Config
from puma.mpc.party import DEALER, Party
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Share
from puma.net import Link
from puma.net.memory import pair
from puma.wire.inputs import laid_out, receive_input, share_input
from puma.wire.messages import Encode, Generate
from puma.wire.parameters import KEEP_MASKS_BELOW, tensor_specs

PAIRS = ((0, 1), (0, 2), (1, 2))
QUEUE = 1 << 30  # bytes: the dealer runs ahead as over a network


class Alone:
    """`record` runs a request with all three; `play` runs one party's part of it again."""

    def __init__(self, config: Config, params: Mapping[str, Tensor], job: Encode | Generate) -> None:
        keys = {each: PairKey(fresh_secret()) for each in PAIRS}
        self._keys = [{sum(each) - rank: key for each, key in keys.items() if rank in each} for rank in range(3)]
        self.parties = [Party(rank, {}, self._keys[rank]) for rank in range(3)]
        held: list[dict[str, Share]] = [{}, {}, {}]
        keep = sum(math.prod(spec.shape) for spec in tensor_specs(config)) < KEEP_MASKS_BELOW
        for spec in tensor_specs(config):
            seeds = [PairKey(fresh_secret()) for _ in range(2)]
            size = rest_bytes(spec.shape, spec.bits)
            first, second = (key.stream(f"weight {spec.name}").bytes(size) for key in seeds)
            words = params[spec.name].double().contiguous()
            m = kernels.pack_masked(words, spec.frac, (first, second), spec.bits, torch.empty(size, dtype=torch.uint8))
            for member, own in zip(self.parties, (seeds, seeds[:1], seeds[1:])):
                streams = [key.stream(f"weight {spec.name}") for key in own]
                packed = None if member.rank == DEALER else m
                held[member.rank][spec.name] = Seeded(member, packed, streams, spec.shape, spec.bits, spec.frac, keep)
        self._engines = [Engine(member, config, mine) for member, mine in zip(self.parties, held)]
        shares = share_input(config, laid_out(config, random_ids(config, job.input.lengths)))
        self._jobs = [
            msgspec.structs.replace(
                job, input=msgspec.structs.replace(job.input, masks=share.masks, choices=share.choices)
            )
            for share in shares
        ]
        self._payloads = [share.payload for share in shares]
        self._came: list[dict[int, list[bytes]]] = []
        self.results: list[list[Tensor]] = [[], [], []]

    def record(self) -> None:
        """The request, by three threads."""
        links: list[dict[int, Any]] = [{}, {}, {}]
        for a, b in PAIRS:
            ends = pair(f"P{a}", f"P{b}", queue_bytes=QUEUE)
            links[a][b], links[b][a] = map(Recorder, ends)
        threads = [Thread(target=self._run, args=(rank, links[rank])) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._came = [{peer: link.came for peer, link in mine.items()} for mine in links]

    def play(self, rank: int) -> dict[str, float]:
        """One party's part alone: its seconds, its processor seconds, and those of the thread that calls."""
        links: dict[int, Link] = {peer: Player(came) for peer, came in self._came[rank].items()}
        began, used, own = time.perf_counter(), time.process_time(), time.thread_time()
        self._run(rank, links)
        return {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - used,
            "own_seconds": time.thread_time() - own,
        }

    def _run(self, rank: int, links: dict[int, Link]) -> None:
        party, engine, results = self.parties[rank], self._engines[rank], list[Tensor]()

        def emit(share: Share) -> None:
            results.extend(kernels.pack(component, share.bits) for component in share.components)

        with party.under(party.child_keys("the request"), links):
            given = receive_input(engine.config, party, self._jobs[rank].input, self._payloads[rank])
            run(engine, self._jobs[rank], given, emit)
        self.results[rank] = results

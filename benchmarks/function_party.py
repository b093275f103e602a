"""A party that runs single functions on what the launcher shares with it, as often as asked, and reports the cost.

It meets its peers as puma.party.launched.process does and in the same settings; only what it serves is another thing.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
import torch
from torch import Tensor

from benchmarks.functions import FUNCTIONS
from puma.crypto.prg import PairKey
from puma.kernels.startup import warmup
from puma.mpc.fixed import ACTIVATION
from puma.mpc.party import Party
from puma.mpc.share import Bits, Share
from puma.party.launched import nursery
from puma.party.launched.process import meet
from puma.wire import messages as msg
from puma.wire.launch import Start


def shared(party: Party, client: Any, asked: dict[str, Any]) -> list[Share]:
    """The operands: the launcher sends m to the evaluators, and everybody the seeds of the masks that it holds."""
    bits, shares = FUNCTIONS[asked["function"]].bits, []
    for i, shape in enumerate(asked["shapes"]):
        pads = [PairKey(bytes.fromhex(s)).stream(f"operand {i}").words(tuple(shape)) for s in asked["seeds"]]
        if party.is_dealer:
            shares.append(Share(party, pads[0], pads[1], bits, ACTIVATION))
        else:
            m = torch.frombuffer(client.recv(pads[0].numel() * 8), dtype=torch.int64).reshape(shape)
            shares.append(Share(party, m, pads[0], bits, ACTIVATION))
    return shares


def timed(party: Party, work: Any) -> tuple[Share | Bits, dict[str, float]]:
    """One run, and what it took this party."""
    party.ledger.reset()
    usage, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    spent = party.ledger.total()
    return result, {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "online": spent.online_bytes,
        "offline": spent.offline_bytes,
        "rounds": spent.rounds,
    }


def answer(party: Party, client: Any, asked: dict[str, Any]) -> None:
    """Run it when told to, again and again; the last result goes back as whole words."""
    function = FUNCTIONS[asked["function"]]
    shares = shared(party, client, asked)
    result: Share | Bits | None = None
    for _ in range(asked["runs"]):
        client.send_control(b"ready")
        client.recv_control()
        result, spent = timed(party, lambda: function.secure(*shares))
        client.send_control(json.dumps(spent).encode())
    assert result is not None
    held = parts(result)
    head = {"shape": list(result.shape), "parts": len(held)}
    client.send_control(json.dumps(head | {k: getattr(result, k, None) for k in ("bits", "frac")}).encode())
    for part in held:
        client.send(part.contiguous().numpy())


def parts(result: Share | Bits) -> list[Tensor]:
    """m and the own mask, or the own half of bits; the dealer keeps quiet, its masks are the evaluators'."""
    if result.party.is_dealer:
        return []
    return [result.part] if isinstance(result, Bits) else list(result.components)


def main() -> int:
    torch.set_num_threads(1)
    party, client, *_ = meet(msgspec.json.decode(sys.stdin.readline(), type=Start))
    warmup.compile_kernels()
    goodbye = msg.encode(msg.Quit())
    while (request := client.recv_control()) != goodbye:
        answer(party, client, json.loads(request))
    return 0


if __name__ == "__main__":
    nursery.begin(main)

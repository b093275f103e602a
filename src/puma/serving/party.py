"""A party's process: meet the two peers and the client, then serve the client's requests until it quits.

Started by a launcher that writes one JSON line to standard input (who we are, the session, the cookie) and later the
peers' ports. When standard input closes the launcher is gone, and so are we. What comes in over links is checked by the
frame and message layers; this file must not look at words.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from typing import Any, TypeVar

import msgspec
import torch

from puma import kernels
from puma.crypto.prg import PairKey
from puma.errors import ProtocolError, PumaError
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Share
from puma.net.handshake import Identity
from puma.net.tcp import dial, listen
from puma.serving import messages as msg
from puma.serving import warm
from puma.serving.engine import Engine, selftest, spent
from puma.serving.prompt import Sealed, payload_bytes, unseal

T = TypeVar("T")

SILENCE = 600.0  # a peer may compute this long between two messages; a dead one is noticed at once


class Start(msgspec.Struct, frozen=True):
    """First line on standard input."""

    rank: int
    session: bytes
    config: bytes
    cookie: bytes


class Ports(msgspec.Struct, frozen=True):
    """Second line: where the parties of lower rank listen."""

    ports: list[int]


class Server:
    """Serves one client over one link, as one party."""

    def __init__(self, party: Party, client: Any) -> None:
        self.party, self.client = party, client
        self.engine: Engine | None = None

    def serve(self) -> None:
        """Answer requests until Quit; a failed request ends the session everywhere."""
        while True:
            request = msg.decode_request(self.client.recv_control())
            if isinstance(request, msg.Quit):
                return
            self._answer(request)

    def _answer(self, request: msg.Request) -> None:
        self.party.ledger.reset()
        started, cpu = time.perf_counter(), _cpu_seconds()
        prefill = [0.0]

        def prefilled() -> None:
            prefill[0] = time.perf_counter() - started

        if isinstance(request, msg.Load):
            self.engine = self._load(request)
        elif isinstance(request, msg.Generate):
            self._ready().generate(self._input(request), request, self._emit, prefilled)
        elif isinstance(request, msg.Encode):
            self._ready().encode(self._input(request), request, self._emit)
        elif isinstance(request, msg.SelfTest):
            self._emit(selftest(self.party))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report = msg.Report(spent(self.party), seconds, prefill[0] or seconds, _cpu_seconds() - cpu, peak)
        self.client.send_control(msg.encode(report))

    def _ready(self) -> Engine:
        if self.engine is None:
            raise ProtocolError("a request came before a model", "load a model first")
        return self.engine

    def _load(self, request: msg.Load) -> Engine:
        keys = [PairKey(seed) for seed in request.seeds]
        params: dict[str, Share] = {}
        for spec in request.tensors:
            streams = [key.stream(f"weight {spec.name}") for key in keys]
            packed = None if self.party.is_dealer else self._packed(spec)
            params[spec.name] = Seeded(
                self.party, packed, streams, spec.shape, spec.bits, spec.frac, keep=request.keep_masks
            )
        for name, source in request.alias.items():
            if source not in params:
                raise ProtocolError(f"parameter {name} is to be {source}, which was not shared", "share that first")
            params[name] = params[source]
        return Engine(self.party, request.config, params)

    def _input(self, request: msg.Generate | msg.Encode) -> Choice:
        self._ready().admit(request)
        job, vocabulary = request.input, self._ready().config.vocab_size
        count = payload_bytes(self.party.rank, job.tokens, vocabulary)
        payload = (
            torch.frombuffer(self.client.recv(count), dtype=torch.uint8) if count else torch.empty(0, dtype=torch.uint8)
        )
        return unseal(self.party, Sealed(job.masks, job.choices, payload), job.tokens, vocabulary)

    def _packed(self, spec: msg.TensorSpec) -> torch.Tensor:
        packed = torch.empty(rest_bytes(spec.shape, spec.bits), dtype=torch.uint8)
        for frame in packed.split(rest_bytes((msg.FRAME_WORDS,), spec.bits)):
            frame.copy_(torch.frombuffer(self.client.recv(frame.numel()), dtype=torch.uint8))
        return packed

    def _emit(self, share: Share) -> None:
        self.client.send_control(msg.encode(msg.Result(tuple(share.shape), share.bits, share.frac)))
        self.client.send(*(kernels.pack(c, share.bits).numpy() for c in share.components))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def meet(start: Start) -> tuple[Party, Any]:
    """Listen, tell the launcher the port, dial the parties of lower rank, wait for the others and the client."""
    me = Identity("party", start.rank, start.session, start.config, start.cookie)
    listener = listen()
    higher = range(start.rank + 1, 3)
    listener.welcome(me, [("client", 0), *(("party", r) for r in higher)], timeout=SILENCE)
    print(listener.address[1], flush=True)
    ports = _told(Ports).ports
    threading.Thread(target=_leave_with_launcher, daemon=True).start()
    met = [dial("127.0.0.1", ports[r], me, ("party", r), timeout=SILENCE) for r in range(start.rank)]
    met += [listener.accept(60.0) for _ in range(len(higher) + 1)]
    listener.close()
    links: dict[int, Any] = {m.rank: m.link for m in met if m.role == "party"}
    keys = {m.rank: PairKey(m.secret) for m in met if m.role == "party"}
    client = next(m.link for m in met if m.role == "client")
    client.timeout = 7 * 24 * 3600.0  # a client may think as long as it likes
    return Party(start.rank, links, keys), client


def run(start: Start) -> int:
    """Serve; on an error tell everybody why, by name."""
    party, client = meet(start)
    warm.compile_kernels()  # the launcher has seen to it that they only need loading
    try:
        Server(party, client).serve()
        for link in (*party.links.values(), client):
            link.close()
        return 0
    except PumaError as error:
        failure = msg.Failed(type(error).__name__, error.message, error.hint)
    except Exception as error:
        failure = msg.Failed("ProtocolError", f"P{start.rank} failed: {type(error).__name__}: {error}", "")
        if os.environ.get("PUMA_DEBUG"):
            traceback.print_exc()
    for link in party.links.values():
        link.fail(failure.message)
    with contextlib.suppress(PumaError):
        client.send_control(msg.encode(failure))
    client.close()
    return 1


def _told(kind: type[T]) -> T:
    """The launcher's next line; without a launcher there is nothing to do."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return msgspec.json.decode(line, type=kind)


def _leave_with_launcher() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends us
    torch.set_num_threads(1)
    return run(_told(Start))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to tidy up, and unloading the libraries takes seconds

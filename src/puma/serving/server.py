"""One party's answers to its client: models are loaded or opened, requests run at once or in two phases.

What comes in over links is checked by the frame and message layers; this file must not look at words, nor know
processes and addresses.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from puma import kernels
from puma.errors import MaterialError, ProtocolError, StoreError
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.share import Share
from puma.serving import ahead, loading
from puma.serving import messages as msg
from puma.serving.engine import Emit, Engine, answered, selftest, spent
from puma.serving.material import Material, Shelf
from puma.serving.prompt import Sealed, payload_bytes, unseal
from puma.serving.store import Model, Store

Inference = msg.Generate | msg.Encode


class Server:
    """Serves one client over one link, as one party; `folder` is where it keeps models and material, if anywhere.

    `owner` says that the client is the owner of every model, as in a local trio: it may ask for what shows the model.
    """

    def __init__(self, party: Party, client: Any, folder: str = "", owner: bool = False) -> None:
        self.party, self.client, self._owner = party, client, owner
        self.engine: Engine | None = None
        self._store = Store(folder) if folder else None
        self._shelf = Shelf(folder) if folder else None
        self._sharing = b""  # of the model that is being served
        self._material: Material | None = None  # ready for the next request, and for no other
        self._prepared: set[bytes] = set()

    def serve(self) -> None:
        """Answer requests until Quit; a failed request ends the session everywhere."""
        while True:
            request = msg.decode_request(self.client.recv_control())
            if isinstance(request, msg.Quit):
                return
            if isinstance(request, msg.Open):
                self.client.send_control(msg.encode(self._open(request.name)))
            elif isinstance(request, msg.Take):
                self.client.send_control(msg.encode(self._take(request.id)))
            else:
                material, self._material = self._material, None  # for this request or for none
                self._answer(request, material)

    def _answer(self, request: msg.Request, material: Material | None) -> None:
        self.party.ledger.reset()
        started, cpu = time.perf_counter(), _cpu_seconds()
        prefill, kept = [0.0], 0

        def prefilled() -> None:
            prefill[0] = time.perf_counter() - started

        if isinstance(request, msg.Load):
            self._load(request)
        elif isinstance(request, msg.Generate | msg.Encode):
            self._infer(request, material, prefilled)
        elif isinstance(request, msg.Prepare):
            kept = self._prepare(request)
        elif isinstance(request, msg.SelfTest):
            self._emit(selftest(self.party))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report = msg.Report(spent(self.party), seconds, prefill[0] or seconds, _cpu_seconds() - cpu, peak, kept)
        self.client.send_control(msg.encode(report))

    # -- models ---------------------------------------------------------------------------------------------

    def _open(self, name: str) -> msg.Opened:
        self._material = None
        store, _ = self._kept()
        if not store.holds(name):
            return msg.Opened(b"", None)
        model = store.open(name)
        self._use(model)
        return msg.Opened(model.manifest.sharing, model.manifest.config)

    def _load(self, request: msg.Load) -> None:
        if not request.keep:
            self.engine, self._sharing = loading.received(self.party, self.client, request), request.sharing
            return
        store, shelf = self._kept()
        if store.holds(request.keep):
            shelf.discard(store.sharing(request.keep))  # made for a sharing that is about to be replaced
        self._use(loading.stored(self.party, self.client, request, store))

    def _use(self, model: Model) -> None:
        self.engine, self._sharing = loading.opened(self.party, model), model.manifest.sharing

    def _kept(self) -> tuple[Store, Shelf]:
        if self._store is None or self._shelf is None:
            raise StoreError(f"P{self.party.rank} keeps nothing", "start the parties with a store")
        return self._store, self._shelf

    # -- requests -------------------------------------------------------------------------------------------

    def _ready(self) -> Engine:
        if self.engine is None:
            raise ProtocolError("a request came before a model", "load a model first")
        return self.engine

    def _infer(self, request: Inference, material: Material | None, prefilled: Callable[[], None]) -> None:
        self._ready().admit(request, self._owner)
        if not request.material:
            self._run(request, self._prompt(request.input, self._payload(request.input)), self._emit, prefilled)
            return
        if material is None or material.header.id != request.material:
            raise MaterialError("the request names material that is not ready", "take it before each request")
        made_for = material.header.request
        if msg.bare(made_for) != msg.bare(request):
            raise MaterialError("the material was made for another request", "prepare some for this one")
        if self.party.is_dealer:
            for description, parts in ahead.kept_outputs(material):
                self.party.ledger.sent(len(parts), online=True)
                self.client.send_control(description)
                self.client.send(parts)
            return
        prompt = self._prompt(made_for.input, self._payload(request.input))
        with ahead.performance(self.party, material):
            self._run(request, prompt, self._emit, prefilled)

    def _prepare(self, order: msg.Prepare) -> int:
        """Run a request ahead of its input, under keys that serve no other; how many bytes are kept."""
        self._ready().admit(order.request, self._owner)
        _, shelf = self._kept()
        if order.id in self._prepared:
            raise MaterialError("this material has been made before", "use a fresh id")
        self._prepared.add(order.id)
        job = order.request.input
        nothing = torch.zeros(self._payload_bytes(job), dtype=torch.uint8)
        with ahead.rehearsal(self.party, shelf, self._sharing, order) as writer:
            keep = partial(ahead.keep_output, writer) if self.party.is_dealer else _drop
            self._run(order.request, self._prompt(job, nothing), keep, _nothing)
        return writer.size

    def _take(self, identity: bytes) -> msg.Taken:
        """Use up a piece of material, so that nothing can use it again; what is wrong with it is no error yet."""
        self._material = None
        try:
            found = self._kept()[1].take(self._sharing, identity)
            header = found.header
            if (header.id, header.rank, header.sharing) != (identity, self.party.rank, self._sharing):
                raise MaterialError("the material was made for another party or model", "prepare more of it")
        except StoreError as error:
            return msg.Taken(error.message)
        self._material = found
        return msg.Taken("")

    def _run(self, request: Inference, prompt: Choice, emit: Emit, prefilled: Callable[[], None]) -> None:
        if isinstance(request, msg.Generate):
            self._ready().generate(prompt, request, emit, prefilled)
        else:
            self._ready().encode(prompt, request, emit)

    def _prompt(self, job: msg.Input, payload: torch.Tensor) -> Choice:
        return unseal(self.party, Sealed(job.masks, job.choices, payload), job.tokens, self._ready().config.vocab_size)

    def _payload_bytes(self, job: msg.Input) -> int:
        return payload_bytes(self.party.rank, job.tokens, self._ready().config.vocab_size)

    def _payload(self, job: msg.Input) -> torch.Tensor:
        count = self._payload_bytes(job)
        if not count:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self.client.recv(count), dtype=torch.uint8)

    def _emit(self, share: Share) -> None:
        answered(self.party, share)
        self.client.send_control(msg.encode(msg.Result(tuple(share.shape), share.bits, share.frac)))
        self.client.send(*(kernels.pack(c, share.bits).numpy() for c in share.components))


def _drop(share: Share) -> None:
    """An output of a rehearsal means nothing."""


def _nothing() -> None:
    """Nobody waits for a rehearsal."""


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

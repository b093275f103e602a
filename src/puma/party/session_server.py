"""A session at a party that serves many: what its client or owner may ask, and within which limits.

The same answers as in a local trio; models come from the party's library and are shared between sessions. This file
must not know how the session came to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from puma import kernels, pool
from puma.engine.admission import Allowed, to_clients, total_tokens
from puma.errors import AdmissionError, PeerTimeout, PreprocessingError, ProtocolError
from puma.mpc.party import Party
from puma.net.tcp import Met
from puma.nn.paper import SPLINE
from puma.party.channel import Channel
from puma.party.evidence.statements import Evidence
from puma.party.intake import Intake
from puma.party.joint import Place
from puma.party.limits import Limits, key_of
from puma.party.metrics import Metrics
from puma.party.server import Inference, Server
from puma.store.encrypted import EncryptedStore
from puma.store.library import Library
from puma.store.models import Model
from puma.store.preprocessing import Header, Item, PreprocessingStore, Writer
from puma.wire import messages as msg
from puma.wire.limits import FRAME_BYTES
from puma.wire.policy import allow_approximation

IDLE = 3600.0  # seconds between two requests of a session
PATIENCE = 60.0  # seconds between two messages within one
MAY = {
    "client": (
        msg.Open,
        msg.Fetch,
        msg.List,
        msg.Generate,
        msg.Encode,
        msg.Prepare,
        msg.Take,
        msg.Recall,
        msg.Survey,
        msg.SelfTest,
        msg.Commit,
        msg.Reveal,
    ),
    "owner": (msg.List, msg.Offer, msg.Publish, msg.Delete, msg.SelfTest),
}


class SessionServer(Server):
    """Serves one guest, a client or an owner, over one link."""

    def __init__(
        self, party: Party, guest: Met, library: Library, limits: Limits, metrics: Metrics,
        preprocessing_store: EncryptedStore | None = None, channel: Callable[[], Channel] | None = None,
        evidence: Evidence | None = None,
    ) -> None:  # fmt: skip
        place = Place(channel, guest.session, key_of(guest)) if channel is not None else None
        super().__init__(party, guest.link, library=library, place=place, evidence=evidence)
        self._kept, self._whose = limits.aside, guest.session.hex()
        self._flying = 0  # tokens that count as under way
        self._preprocessing_store = preprocessing_store
        self._latest = b"", b""  # the sharing and the id of what was prepared last
        self._role, self._name, self._counted = guest.role, guest.name or guest.role, key_of(guest)
        self._shelf, self._limits, self._metrics, self._key = library, limits, metrics, guest.fingerprint
        self._intake = Intake(guest.link, library, self._key, partial(metrics.add, "puma_received_bytes_total"))
        self._wanted = SPLINE  # the approximation of the model that is about to be opened
        self.busy = False
        self.stopping = False

    def serve(self) -> None:
        """Answer requests until the client leaves; what was prepared last goes if the session fails."""
        try:
            super().serve()
        except BaseException:
            if (
                self._preprocessing_store
            ):  # the client may have no prepared request for it, and then nobody could use it
                self._preprocessing_store.drop(*self._latest)
            raise
        finally:
            self._kept.forget(self._whose)

    def _heard(self) -> msg.Request:
        if not self.busy:
            self.client.set_timeout(IDLE)
        try:
            request = super()._heard()
        except PeerTimeout as error:
            raise PeerTimeout(f"{self._role} was silent for too long", "open a new session") from error
        if not self.busy:
            self.client.set_timeout(PATIENCE)
        return request

    def answer(self, request: msg.Request) -> None:
        """One request; AdmissionError if this role may not ask it."""
        if not isinstance(request, MAY[self._role]):
            asked = type(request).__name__.lower()
            hint = "the cluster file says who may upload and who may ask: see `puma cluster trust`"
            raise AdmissionError(f"{self._name} as {self._role} may not ask for {asked}", hint)
        self.busy = True
        try:
            self._answered(request)
        finally:
            self.busy = False
        if self.stopping:
            raise AdmissionError(f"P{self.party.rank} is about to stop", "ask again when it has been started again")

    def _answered(self, request: msg.Request) -> None:
        if isinstance(request, msg.Offer):
            self._limits.check_model(request.config)
        if isinstance(request, msg.Survey):  # which costs some dry runs
            self._limits.asked.spend(self._counted, 1)
        if isinstance(request, msg.List):
            self._say(msg.Listing(self._library.models()))
        elif isinstance(request, msg.Fetch):
            self._send_file(request.name)
        elif isinstance(request, msg.Offer) and not request.checksums:
            raise ProtocolError("an upload to a distant party comes with checksums", "run the same version everywhere")
        elif isinstance(request, msg.Delete):
            self._report(request, lambda _: self._delete(request))
        else:
            super().answer(request)

    def _report(self, request: msg.Request, work: Callable[[Callable[[], None]], int]) -> msg.Report:
        report = super()._report(request, work)
        self._book(request, report)
        return report

    def _book(self, request: msg.Request, report: msg.Report) -> None:
        add = self._metrics.add
        add("puma_requests_total", kind=type(request).__name__.lower())
        add("puma_request_seconds_total", report.seconds)
        add("puma_rounds_total", sum(spent.rounds for spent in report.spent))
        add("puma_sent_bytes_total", sum(spent.online + spent.offline for spent in report.spent))
        if isinstance(request, msg.Generate | msg.Encode):
            self._count(request)

    def _count(self, request: msg.Generate | msg.Encode) -> None:
        self._metrics.add("puma_tokens_total", request.input.tokens, kind="prompt")
        self._metrics.add("puma_tokens_total", total_tokens(request) - request.input.tokens, kind="new")

    def _joined(self, jobs: Sequence[msg.Generate], drafts: int) -> None:
        self._limits.spent.spend(self._counted, drafts)
        if drafts:
            self._metrics.add("puma_tokens_total", drafts, kind="draft")
        for job in jobs:
            self._limits.check_memory(f"P{self.party.rank}")
            self._limits.asked.spend(self._counted, 1)
            self._fly(total_tokens(job))
            self._limits.spent.spend(self._counted, total_tokens(job))
            self._metrics.add("puma_requests_total", kind="generate")
            self._count(job)

    def _admit(self, request: msg.Generate | msg.Encode) -> None:
        self._limits.check_memory(f"P{self.party.rank}")
        super()._admit(request)
        self._limits.asked.spend(self._counted, 1)
        self._limits.spent.spend(self._counted, total_tokens(request))

    def _infer(self, request: Inference, preprocessing: Item | None, prefilled: Callable[[], None]) -> None:
        try:
            self._fly(total_tokens(request))
            super()._infer(request, preprocessing, prefilled)
        finally:
            self._limits.flight.end(self._counted, self._flying)
            self._flying = 0

    def _fly(self, tokens: int) -> None:
        """So many tokens more are under way until the request has been answered."""
        self._limits.flight.begin(self._counted, tokens)
        self._flying += tokens

    def _allowed(self) -> Allowed:
        assert self._model is not None
        manifest, limits = self._model.manifest, self._limits
        return to_clients(manifest.config, manifest.card, limits.reveal_logits, limits.tokens)

    def _cpu_seconds(self) -> float:
        return pool.spent() + self._company_cpu  # other sessions run in other threads

    def _prepare(self, order: msg.Prepare) -> int:
        self._latest = self._sharing, order.id
        kept = super()._prepare(order)
        self._told(order)  # once more, now that it is complete: one that has failed fails this session here, too
        return kept

    def _writer(self, header: Header) -> Writer:
        store = self._preprocessing_store
        assert store is not None
        return store.begin(header, self._counted, self._limits.preprocessing_by_key)

    def _stored(self) -> PreprocessingStore:
        if self._preprocessing_store is None:
            what = f"P{self.party.rank} prepares nothing ahead"
            raise PreprocessingError(what, "its operator allows it by `puma party --preprocessing GIB`")
        return self._preprocessing_store

    # -- models ---------------------------------------------------------------------------------------------

    def _open(self, request: msg.Open) -> msg.Opened:
        self._wanted = request.approximation
        return super()._open(request)

    def _use(self, model: Model) -> None:
        allow_approximation(model.manifest.card, self._wanted)
        super()._use(model)
        self.party.approximation = self._wanted
        self._limits.prompts(self.client, self._most_payload)
        self._reveals = self._allowed().logits

    def _send_file(self, name: str) -> None:
        if self._model is None:
            raise ProtocolError("a file was asked for before a model", "open a model first")
        content = self._numbers(name) or memoryview(self._shelf.file(self._model, name))
        for at in range(0, len(content), FRAME_BYTES):
            self.client.send(content[at : at + FRAME_BYTES])

    def _numbers(self, name: str) -> memoryview | None:
        """Of public weights the table of embeddings, in which a client looks its tokens up; None if it is not that."""
        model = self._model
        weights = model.manifest.card.weights if model else None
        table = [spec.name for spec in (weights.table, weights.factors) if spec] if weights else []
        holder = model.base if model and model.base else model
        packed = holder.packed(name) if holder and name in table else None
        return None if packed is None else kernels.to_wire(packed)

    def _delete(self, request: msg.Delete) -> int:
        self._agreed(request)
        old = self._library.sharing(request.name)
        self._library.delete(request.name, self._key)
        self._outdated(old)
        return 0

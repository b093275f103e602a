"""One party's answers to its client: models are loaded or opened, requests run at once or in two phases.

What comes in over links is checked by the frame and message layers; this file must not look at words, nor know
processes and addresses.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch

from puma import kernels
from puma.engine import offline_phase as ahead
from puma.engine import planner
from puma.engine.admission import OWNER, Allowed, admit
from puma.engine.company import Member, Outcome
from puma.engine.engine import Emit, Engine, answered, selftest, spent
from puma.engine.generation import Turn, hidden_flags, nothing, on, run
from puma.engine.kept import AtHand, Kept
from puma.engine.request import Request
from puma.engine.turns import admit_word, follows
from puma.errors import PreprocessingError, ProtocolError, StoreError
from puma.mpc.cost import Entry
from puma.mpc.party import Party, present
from puma.mpc.share import Share
from puma.party import fitting, loading
from puma.party.agreement import Agreement
from puma.party.evidence.statements import Evidence
from puma.party.intake import Intake
from puma.party.joint import Joint, Place
from puma.party.limits import remember
from puma.store.library import InMemory, Library
from puma.store.models import Model, commitment
from puma.store.preprocessing import MISSING, Header, Item, PreprocessingStore, Writer
from puma.wire import messages as msg
from puma.wire.input_share import Given
from puma.wire.inputs import most_bytes, payload_bytes, receive_input
from puma.wire.steps import Item as Numbered

Inference = msg.Generate | msg.Encode


class Server:
    """Serves one client over one link, as one party; `folder` is where it keeps models and preprocessing, or else they
    lie in memory. A library that sessions share comes instead.

    `owner` says that the client is the owner of every model and of this process, as in a local trio: it may ask for
    what shows the model, and is told how much memory the process took.
    """

    def __init__(
        self, party: Party, client: Any, folder: str = "", owner: bool = False,
        library: Library | InMemory | None = None, place: Place | None = None, evidence: Evidence | None = None,
    ) -> None:  # fmt: skip
        self.party, self.client, self._owner, self._place = party, client, owner, place
        self._computes = party  # whose shares inputs become
        self._agreement = Agreement(party.rank, party.links)
        self._evidence = evidence or Evidence()
        self._evidence.watch(party, client, owner)
        self.engine: Engine | None = None
        self._own: Library | InMemory | None = None  # that nobody else uses
        if library is None:
            self._own = Library(folder, party.rank, resting=0.0) if folder else InMemory(party.rank)
        self._library: Library | InMemory = library or self._own  # type: ignore[assignment]
        self._model: Model | None = None  # that is being served
        self._intake = Intake(client, self._library, here=owner)
        self._preprocessing_store = PreprocessingStore(folder) if folder else None
        self._sharing = b""  # of the model that is being served
        self._reveals = False  # whether its owner lets clients see logits
        self._preprocessing: Item | None = None  # ready for the next request, and for no other
        self._prepared: set[bytes] = set()
        self._taken: set[bytes] = set()
        self._kept, self._whose = Kept(), ""  # of requests that run over the session's own links, and under which key
        self._at_hand = AtHand()
        self._requests = 0  # that ran without preprocessing; the same number at all parties
        self._company_cpu = 0.0  # seconds, its part of what was computed in company

    @property
    def library(self) -> Library | InMemory:
        """Where its models come from."""
        return self._library

    def serve(self) -> None:
        """Answer requests until Quit; a failed request ends the session everywhere."""
        try:
            while not isinstance(request := self._heard(), msg.Quit):
                self.answer(request)
        finally:
            self._intake.leave()
            if self._own is not None:
                self._own.close()

    def answer(self, request: msg.Request) -> None:
        """One request, and all that belongs to it."""
        if (audited := self._evidence.commitment.answer(request, self._agreed)) is not None:
            self._place = None  # the session's own links and secrets are all that it is computed with
            self._say(audited)
        elif isinstance(request, msg.Open):
            # Not whatever is open here: of a model that one party lacks the others have opened theirs.
            self._agreed(request)
            opened = self._open(request)
            self._say(opened)
            if opened.config is not None and self._model is not None:
                self._evidence.opened(self._model, self.party.approximation)
        elif isinstance(request, msg.Take | msg.Recall):
            self._agreement.note(request)
            self._say(self._take(request.id) if isinstance(request, msg.Take) else self._recall(request.prefix))
        elif isinstance(request, msg.Offer):
            self._agreement.note(request)
            self._intake.offered(request)
        elif isinstance(request, msg.Survey):
            admit(self._ready().config, self.party.approximation, request.request, self._allowed())
            self._agreed(request)
            self._say(planner.surveyed(self.party, self._ready().config, request.request))
        else:
            preprocessing, self._preprocessing = self._preprocessing, None  # for this request or for none
            self._report(request, partial(self._work, request, preprocessing))

    def _heard(self) -> msg.Request:
        return msg.decode_request(self.client.recv_control())

    def _told(self, word: msg.Request) -> None:
        """Let the others know what the client has said; `check` hears the same of them before anything leaves.

        After what this party refuses by itself: then all that refuse alike say why, and not that another has left.
        """
        self._agreement.say(word, self._sharing, self.party.approximation)

    def _agreed(self, word: msg.Request) -> None:
        """Go on only if all three have been told this."""
        self._agreement.say(word)
        self._agreement.check()

    def _say(self, reply: msg.Reply) -> None:
        self.client.send_control(msg.encode(reply))

    def _report(self, request: msg.Request, work: Callable[[Callable[[], None]], int]) -> msg.Report:
        """Do what was asked, and tell what it cost."""
        self.party.ledger.reset()
        started, cpu, began = time.perf_counter(), self._cpu_seconds(), time.time()
        prefill = [0.0]

        def prefilled() -> None:
            prefill[0] = time.perf_counter() - started

        kept = work(prefilled)
        self._agreement.check()
        seconds = time.perf_counter() - started
        # Of a process that serves others, too, its memory would tell how large their requests are.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if self._owner else 0.0
        receipt = self._evidence.statement(request, self._agreement.digest, began)
        cpu = self._cpu_seconds() - cpu
        report = msg.Report(spent(self.party), seconds, prefill[0] or seconds, cpu, peak, kept, receipt)
        self._say(report)
        return report

    def _work(self, request: msg.Request, preprocessing: Item | None, prefilled: Callable[[], None]) -> int:
        """How many bytes are kept of it."""
        if isinstance(request, msg.Publish):
            self._agreed(request)
            self._fitting(self._intake.arrived, self._intake.discard)
            self._outdated(self._intake.publish())
        elif isinstance(request, msg.Generate | msg.Encode):
            self._infer(request, preprocessing, prefilled)
        elif isinstance(request, msg.Prepare):
            return self._prepare(request)
        elif isinstance(request, msg.SelfTest):
            self._told(request)
            self._emit(selftest(self.party))
        else:
            what = f"P{self.party.rank} does not expect a {type(request).__name__.lower()} here"
            raise ProtocolError(what, "run the same version of Puma everywhere")
        return 0

    # -- models ---------------------------------------------------------------------------------------------

    def _open(self, request: msg.Open) -> msg.Opened:
        self._preprocessing = None
        model = self._fitting(partial(self._library.open, request.name))
        if model is None:
            return msg.Opened(b"", None)
        self._use(model)
        manifest, committed = model.manifest, commitment(model.manifest, self.party.rank)
        return msg.Opened(manifest.sharing, manifest.config, manifest.card, self._reveals, committed)

    def _fitting(self, find: Callable[[], Model | None], unfit: Callable[[], None] = nothing) -> Model | None:
        """A model whose parts at all three parties fit, or `unfit` is called; None if not all of them have it."""
        check, tested = partial(loading.check_vector, self.party), self._library.tested
        return fitting.agreed(self.party.rank, self.party.links, find, check, tested, unfit)

    def _outdated(self, sharing: bytes) -> None:
        """Throw away what was prepared for a sharing that is served no more."""
        if self._preprocessing_store and sharing:
            self._preprocessing_store.discard(sharing)

    def _use(self, model: Model) -> None:
        self.engine, self._sharing, self._model = loading.opened(self.party, model), model.manifest.sharing, model
        self._reveals = model.manifest.card.reveal_logits

    def _stored(self) -> PreprocessingStore:
        if self._preprocessing_store is None:
            raise StoreError(f"P{self.party.rank} keeps nothing", "start the parties with a store")
        return self._preprocessing_store

    # -- requests -------------------------------------------------------------------------------------------

    def _ready(self) -> Engine:
        if self.engine is None:
            raise ProtocolError("a request came before a model", "load a model first")
        return self.engine

    def _infer(self, request: Inference, preprocessing: Item | None, prefilled: Callable[[], None]) -> None:
        self._admit(request)
        if self._place is not None and not request.preprocessing:
            self._take_part(self._place, request, prefilled)
            return
        if not request.preprocessing:
            self._told(request)
            # Steps draw from streams of their own, which start anew for each label: without a key for each request,
            # the masks of its first step would be those of the last request's.
            self._requests += 1
            with self.party.stage(f"request {self._requests}"):
                self._run(request, self._prompt(request.input, self._payload(request.input)), self._emit, prefilled)
            return
        preprocessing = ahead.ready(preprocessing, request)
        self._told(request)
        if self.party.is_dealer:
            self._agreement.check()
            for description, parts in ahead.kept_outputs(preprocessing):
                self.party.ledger.sent(len(parts), online=True)
                self.client.send_control(description)
                self.client.send(parts)
            return
        prompt = self._prompt(preprocessing.header.request.input, self._payload(request.input))
        with ahead.performance(self.party, preprocessing):
            self._run(request, prompt, self._emit, prefilled)

    def _admit(self, request: Inference) -> None:
        """Refuse what cannot or may not be served: every party holds the owner's policy, and none asks another."""
        admit(self._ready().config, self.party.approximation, request, self._allowed())

    def _allowed(self) -> Allowed:
        """What the client may have of the model that is open."""
        return replace(OWNER, logits=self._reveals)

    def _prepare(self, order: msg.Prepare) -> int:
        """Run a request ahead of its input, under keys that serve no other; how many bytes are kept."""
        self._admit(order.request)
        if isinstance(order.request, msg.Generate) and order.request.paced:
            raise PreprocessingError("a paced generation cannot be prepared", "prepare a fixed number of tokens")
        self._stored()
        if order.id in self._prepared:
            raise PreprocessingError("this preprocessing has been made before", "use a fresh id")
        remember(self._prepared, order.id)
        self._told(order)
        job = order.request.input
        blank = torch.zeros(payload_bytes(self._ready().config, self.party.rank, job), dtype=torch.uint8)
        with ahead.rehearsal(self.party, self._writer, self._sharing, order) as writer:
            keep = partial(ahead.keep_output, writer) if self.party.is_dealer else lambda _: None
            self._run(order.request, self._prompt(job, blank), keep, nothing)
        return writer.size

    def _writer(self, header: Header) -> Writer:
        """Preprocessing that is about to be made."""
        return self._stored().begin(header)

    def _take(self, identity: bytes) -> msg.Taken:
        """Use up preprocessing, so that nothing can use it again; what is wrong with it is no error yet."""
        self._preprocessing = None
        try:
            # The evaluators' streams of a run start from their session's key and the id: never twice from both.
            if identity in self._taken:
                raise PreprocessingError(*MISSING)
            remember(self._taken, identity)
            found = self._stored().take(self._sharing, identity)
            header = found.header
            if (header.id, header.rank, header.sharing) != (identity, self.party.rank, self._sharing):
                raise PreprocessingError("the preprocessing was made for another party or model", "prepare more of it")
        except StoreError as error:
            return msg.Taken(error.message)
        self._preprocessing = found
        return msg.Taken("")

    def _run(self, request: Inference, prompt: Given, emit: Emit, prefilled: Callable[[], None]) -> None:
        word, prefix = on, self._at_hand.take(request, self._ready())
        if isinstance(request, msg.Generate) and request.paced:
            word = partial(self._turn, request, count(1))
        made = run(self._ready(), request, prompt, emit, prefilled, word, prefix)
        if isinstance(request, msg.Generate) and request.keep and made.cache is not None:
            self._kept.put(self._whose, request, (self._sharing, self.party.approximation), made.cache)

    def _recall(self, prefix: msg.Prefix) -> msg.Taken:
        """Have what an earlier request of the client left at hand for the next one; no error yet if it is gone."""
        key, kept, party, served = self._whose, self._kept, self.party, (self._sharing, self.party.approximation)
        if self._place is not None:
            key, kept, party = self._place.key, (channel := self._place.channel()).kept, channel.party
        return msg.Taken(self._at_hand.recall(kept, key, prefix, served, party))

    def _turn(self, request: msg.Generate, steps: Iterator[int], requests: Sequence[Request]) -> Turn:
        """The client's word after a result: whether to go on, who leaves, what it chose, who joins."""
        word = self.hear()
        self.told(word)
        return self.turn(request, word, requests, next(steps)) if word.more else Turn(more=False)

    def turn(self, request: msg.Generate, word: msg.Pace, requests: Sequence[Request], step: int) -> Turn:
        """What a word to go on lets happen before this step."""
        flags = hidden_flags(request, step)
        admit_word(self._ready().config, self.party.approximation, requests, word, flags, self._allowed())
        own = word.input
        given = None if own is None else self._prompt(own, self._payload(own, flags), flags)
        joining = [Request.of(job, self._prompt(job.input, self._payload(job.input))) for job in word.join]
        read, gone = follows(word), set(word.leave)
        again = sum(not kept for row, kept in enumerate(word.kept) if row not in gone)
        self._joined(word.join, sum(map(len, read)) + again)
        return Turn(True, word.leave, given, joining, word.kept, read)

    def _joined(self, jobs: Sequence[msg.Generate], drafts: int) -> None:
        """These requests have joined one that is under way; so many drafts are computed besides, or tokens again."""

    # -- requests in company ----------------------------------------------------------------------------------------

    def _take_part(self, place: Place, request: Inference, prefilled: Callable[[], None]) -> None:
        """Through the channel's steps, with requests of others."""
        self._told(request)
        self._requests += 1
        channel = place.channel()
        self._computes = channel.party
        try:
            engine = channel.engine(present(self._model))
            prefix = self._at_hand.take(request, engine)
            given = Request.of(request, self._prompt(request.input, self._payload(request.input)), prefix)
            served = self._sharing, self.party.approximation, request.input.quick
            named = Numbered(place.session, self._requests)
            member = Member.of(named, place.key, served, engine, given)
            Joint(channel, member, self, self._at_hand.bound(self._agreement.digest), prefilled).run()
        finally:
            self._computes = self.party

    def hear(self) -> msg.Pace:
        """The client's next word between two steps."""
        word = self._heard()
        if not isinstance(word, msg.Pace):
            raise ProtocolError(f"a {type(word).__name__.lower()} came between two steps", "say whether to go on")
        return word

    def told(self, word: msg.Request) -> bytes:
        """Let the other parties know of a word; a digest of all words so far."""
        self._told(word)
        return self._agreement.digest

    def give(self, outcome: Outcome) -> None:
        """Results leave for the client, and their cost is the session's."""
        for name, entry in outcome.spent.items():
            self.party.ledger.entries.setdefault(name, Entry()).add(entry)
        self._company_cpu += outcome.cpu_seconds
        self._evidence.took(outcome)
        with self.party.ledger.scope("head"):
            for share in outcome.shares:
                self._emit(share)

    def agree(self) -> None:
        """Raise if the parties were not told alike."""
        self._agreement.check()

    def look(self) -> None:
        """Raise how a link of the session ended, if one did."""
        for link in (self.client, *self.party.links.values()):
            if link.lost:
                link.check()

    def _prompt(self, job: msg.Input, payload: torch.Tensor, flags: int = 0) -> Given:
        return receive_input(self._ready().config, self._computes, job, payload, flags)

    def _most_payload(self, rows: int, flags: int) -> int:
        """Bytes that come with so many tokens, or rows of images, and flags."""
        return most_bytes(self._ready().config, self.party.rank, rows, flags)

    def _payload(self, job: msg.Input, flags: int = 0) -> torch.Tensor:
        size = payload_bytes(self._ready().config, self.party.rank, job, flags)
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        return kernels.from_wire(self.client.recv(size))

    def _cpu_seconds(self) -> float:
        """What a request is charged with: all that this process has used."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def _emit(self, share: Share) -> None:
        self._agreement.check()
        answered(self.party, share)
        self.client.send_control(msg.encode(msg.Result(tuple(share.shape), share.bits, share.frac)))
        self.client.send(*(kernels.to_wire(kernels.pack(c, share.bits)) for c in share.components))

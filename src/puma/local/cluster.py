"""A model served by three party processes on this machine, linked over its own sockets: for trying, not for secrets.

The launcher plays owner and client. Leaving the context, an error or the launcher's death ends all three. It must not
know protocols, how a party answers, nor how processes are started.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Literal

from puma import pool
from puma.client import arguments
from puma.client.channel import Judgement, judgement
from puma.client.client import Answer, Client, Encoding
from puma.client.cost import Cost
from puma.client.evidence.receipt import Receipt
from puma.client.owner import Progress
from puma.client.resume import Plan
from puma.client.session import Session
from puma.config import MOST_DEALERS
from puma.errors import AdmissionError, UsageError
from puma.local import nursery
from puma.local.sessions import Beside, Sessions
from puma.local.sharing import serve_adapted, serve_open, share, stored
from puma.local.trio import PARTY, Route, Trio
from puma.nn.paper import PROFILES, SPLINE
from puma.reference.plain_model import PlainModel
from puma.reference.planning import Settings
from puma.store.models import content_name, owner_key
from puma.store.prepared_requests import PreparedRequest

__all__ = ["Answer", "Encoding", "LocalCluster", "Route", "Trio"]


class LocalCluster(Client):
    """A model served by three processes on this machine, or four.

    `source` is a folder, a GGUF file, a hub name, a model already opened, or None for the embedded model. In the
    folder `store` the parties keep their shares, so that the next cluster with this model need not share it again,
    and whatever `prepare` computed ahead. `trio` are processes already started, which stay. `reveal_logits` is the
    owner's policy: may clients see logits, to sample from them. `approximation` is "spline", "puma" or "mpcformer";
    spline, or the trio's, unless given. `adapter` is a LoRA adapter's folder or hub name, which is merged. `plan` says
    how number formats are made that follow the model; `variants` is as for `connect`. With `weights` "open" only the
    prompt and what is made of it are hidden: the parties read the model files where they lie, and nothing is shared but
    an adapter, which stays secret. `threads` are those of each party, this machine's cores divided by all unless given.
    With two `dealers` a second one checks all that P0 says. Raises the errors of puma.errors.
    """

    in_company = False  # its first session's requests are not computed together with others': see `another`

    def __init__(
        self,
        source: str | Path | PlainModel | None = None,
        progress: Progress | None = None,
        trio: Trio | None = None,
        store: str | Path | None = None,
        reveal_logits: bool = False,
        approximation: str | None = None,
        adapter: str | Path | None = None,
        plan: Settings | None = None,
        weights: Literal["hidden", "open"] = "hidden",
        threads: int | None = None,
        variants: str = "lean",
        dealers: int = 1,
    ) -> None:
        self.variants = arguments.variants(variants)
        if threads is not None:
            arguments.count(threads, "threads", 1, pool.MOST)
            if trio is not None:
                raise UsageError("these parties have their threads already", "pass them to Trio")
        if trio is not None and dealers != 1:
            raise UsageError("these parties have their dealers already", "pass them to Trio")
        arguments.count(dealers, "dealers", 1, MOST_DEALERS)
        arguments.flag(reveal_logits, "reveal_logits")
        arguments.one_of(weights, "weights", ["hidden", "open"])
        arguments.callback(progress, "progress")
        if not (source is None or isinstance(source, PlainModel)):
            source = arguments.path_like(source, "a model")
        if adapter is not None:
            adapter = arguments.path_like(adapter, "an adapter")
            if isinstance(source, PlainModel):
                raise UsageError("an adapter is merged when a model is opened", "pass it to PlainModel")
        if approximation is not None:
            arguments.one_of(approximation, "approximation", [*PROFILES])
        if plan is not None and not isinstance(plan, Settings):
            raise UsageError(f"a plan cannot be of type {type(plan).__name__}", "pass reference.planning.Settings")
        if trio is not None and not hasattr(trio, "session"):
            raise UsageError(f"parties cannot be of type {type(trio).__name__}", "pass a Trio, or leave it out")
        if trio is not None and approximation not in (None, trio.session.approximation):
            raise UsageError(
                f"these parties compute with {trio.session.approximation}, not {approximation}", "start others"
            )
        if trio is None:
            nursery.load(PARTY)  # meanwhile the model is read
        clear = self.model = source if isinstance(source, PlainModel) else PlainModel(source, adapter)
        chosen = approximation or (trio.session.approximation if trio is not None else SPLINE)
        self.plan = clear.plan(plan, progress, chosen)
        self._own = trio is None
        self.sharing: Plan | None = None  # what was shared, with its seeds; not if the parties held it already
        self._trio = trio or Trio(progress, store, approximation=chosen, threads=threads, dealers=dealers)
        self._sessions = Sessions(self._trio.session, self._another)
        self._beside: weakref.WeakSet[Session] = weakref.WeakSet()
        try:
            serve = self._opened if weights == "open" else self._shared
            self._name = serve(clear, reveal_logits, progress)
        except BaseException:
            if self._own:
                self._trio.kill()
            raise

    def _shared(self, clear: PlainModel, reveal_logits: bool, progress: Progress | None) -> str:
        """Share the model, unless the parties' store holds it; what it is called."""
        name, params = "", clear.params
        if self._trio.store:
            key = owner_key(self._trio.store / "owner")
            name = stored(self._trio, content_name(key, self.model.name, self.model.config, params))
        first = self._trio.session
        if not name or not first.open(name) or first.reveals != reveal_logits:
            told = self.plan.provenance
            how = (progress, None, name or "model", reveal_logits, told)
            self.sharing = share(first, self.model.config, params, *how)
        return name or "model"

    def _opened(self, clear: PlainModel, reveal_logits: bool, progress: Progress | None) -> str:
        """Let the parties find the weights where they lie, and share what of an adapter is secret; what the model is
        called."""
        if clear.made_of[1] is not None:
            name, self.sharing = serve_adapted(self._trio, clear, progress, reveal_logits, self.plan.provenance)
            return name
        told = self.plan.provenance
        return serve_open(self._trio, clear.config, clear.params, clear.name, progress, reveal_logits, told)

    @property
    def session(self) -> Session:
        """The calling thread's session with the three processes: the trio's own as long as one thread asks, and while
        something is prepared, which that one alone uses up."""
        prepared = self._trio.session.prepared_requests
        found = self._trio.session if prepared is not None and prepared.all() else self._sessions.mine()
        found.variants = self.variants
        return found

    def another(self) -> Beside:
        """The same parties and model in one more session, whose requests are computed together with those of others
        like it; PumaError where there can be none."""
        session = self._another()
        if session is None:
            raise AdmissionError("these parties take no further sessions", "ask one request at a time")
        self._beside.add(session)
        session.variants = self.variants
        return Beside(session, self.model)

    def _another(self) -> Session | None:
        """A session for one more thread, if the parties let it in."""
        first, another = self._trio.session, getattr(self._trio, "another", None)
        if another is None:
            return None
        session: Session = another()
        if not session.open(self._name) or session.sharing != first.sharing:
            session.close()
            return None
        session.out_of_range, session.table = first.out_of_range, first.table
        return session

    @property
    def out_of_range(self) -> Judgement:
        """As of all clients; for all threads."""
        return self._sessions.first.out_of_range

    @out_of_range.setter
    def out_of_range(self, value: Judgement) -> None:
        for session in (*self._sessions.all(), *self._beside):
            session.out_of_range = judgement(value)

    @property
    def cost(self) -> Cost:
        """What the last request of this thread cost, or the last of all if this thread has made none."""
        found = (self._sessions.present() or self._sessions.latest).cost
        if found is None:
            raise UsageError("no request has finished yet", "run generate or encode first")
        return found

    @property
    def receipt(self) -> Receipt | None:
        """As of all clients; of this thread's last request, or the last of all if this thread has made none."""
        return (self._sessions.present() or self._sessions.latest).receipt

    def prepare(self, prompt: int, tokens: int | None = None, batch: int = 1) -> PreparedRequest:
        """As of all clients; of the first session, whose parties keep it."""
        self._sessions.first.variants = self.variants
        return self._prepare(self._sessions.first, prompt, tokens, batch)

    @property
    def pids(self) -> list[int]:
        """Process ids of P0, P1, P2 and, where there is one, the second dealer."""
        return self._trio.pids

    def close(self) -> None:
        """End the three processes; harmless when repeated."""
        self._sessions.close()
        if self._own:
            self._trio.close()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._own:
            self._trio.__exit__(kind)

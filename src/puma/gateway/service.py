"""What all endpoints share: the model's public side, the queue before the sessions, and what was sent for each request.

Of HTTP it knows who asks, by a request's headers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

from starlette.requests import Request

from puma.client.chat.format import ChatFormat, chat_format
from puma.client.drafts.opening import opened
from puma.client.tokens.remembered import Remembered
from puma.errors import PumaError
from puma.gateway.answers import Wanted
from puma.gateway.cluster import Cluster
from puma.gateway.load.jobs import Job, Run
from puma.gateway.load.keys import Key, Keys
from puma.gateway.load.metrics import Metrics
from puma.gateway.load.worker import Worker
from puma.gateway.refusals import Refused, leaving
from puma.gateway.replies import now
from puma.gateway.settings import Settings
from puma.gateway.watch import ID_HEADER, Watches


class Gateway:
    """One model, served through sessions with a cluster, which `start` makes, to whoever has one of the `keys`."""

    def __init__(
        self, model: Any, start: Callable[[], Cluster], settings: Settings, keys: Keys | None = None
    ) -> None:  # fmt: skip
        self.model, self.settings, self.keys = model, settings, keys or Keys()
        self.watches, self.metrics = Watches(), Metrics()
        self.worker = Worker(start, settings.waiting, settings.together, self.metrics, opened(settings.draft, model))
        self.created, self.draining = now(), False
        self.sound = 0.0  # seconds of it that wait or are heard
        self._memories: dict[str, Remembered] = {}
        self.metrics.gauges |= {
            "puma_gateway_queue": lambda: self.worker.behind,
            "puma_gateway_running": lambda: self.worker.running,
            "puma_gateway_sessions": lambda: self.worker.sessions,
            "puma_gateway_draining": lambda: self.draining,
        }
        with suppress(PumaError):  # who asks for a chat will hear of it
            _ = self.chat
        with suppress(PumaError):  # and who asks for embeddings
            _ = self.model.wording

    @cached_property
    def chat(self) -> ChatFormat:
        """How chats become prompts; read once, before the session is in use, since the parties may hold the files."""
        return chat_format(self.model)

    @property
    def chats(self) -> bool:
        """Whether there is a chat template, and one that can be read."""
        try:
            return self.chat.templated
        except PumaError:
            return False

    def key(self, request: Request) -> Key:
        """Whose request this is; Refused without a key that is known."""
        return self.keys.of(request.headers.get("authorization"))

    def known(self, name: str) -> None:
        """Raises Refused for the name of another model."""
        if name != self.settings.name:
            message = f"there is no model {name[:100]!r} here, only {self.settings.name!r}"
            raise Refused(message, "model", "model_not_found", 404)

    def memory(self, key: Key) -> Remembered | None:
        """What the parties keep of chats that were asked under this key, and for no other."""
        return self._memories.setdefault(key.name, Remembered()) if self.settings.keeps else None

    def submit(self, run: Run | Wanted, request: Request, tokens: int = 0) -> Job:
        """Put a request that takes so many tokens into the queue, under the id that its asker chose for it if any;
        Refused if that is full, or the asker's key does not let it."""
        if self.draining:
            raise leaving(self.settings.drain)
        watch = self.watches.begin(request.headers.get(ID_HEADER))
        try:
            return self.worker.submit(run, watch, self.key(request), tokens)
        except Refused:
            self.watches.forget(watch)
            raise

"""What all endpoints share: the model's public side, the queue before the session, and what was sent for each request.

It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

from puma.client.chat.format import ChatFormat, chat_format
from puma.client.drafts.opening import opened
from puma.errors import PumaError
from puma.gateway.answers import Wanted
from puma.gateway.cluster import Cluster
from puma.gateway.jobs import Job, Run
from puma.gateway.refusals import Refused
from puma.gateway.replies import now
from puma.gateway.settings import Settings
from puma.gateway.watch import Watches, tapped
from puma.gateway.worker import Worker


class Gateway:
    """One model, served through one session at a time, which `start` makes."""

    def __init__(self, model: Any, start: Callable[[], Cluster], settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.watches = Watches()
        draft = opened(settings.draft, model)
        self.worker = Worker(lambda: tapped(start()), settings.waiting, settings.together, draft)
        self.created = now()
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

    def known(self, name: str) -> None:
        """Raises Refused for the name of another model."""
        if name != self.settings.name:
            message = f"there is no model {name[:100]!r} here, only {self.settings.name!r}"
            raise Refused(message, "model", "model_not_found", 404)

    def submit(self, run: Run | Wanted, chosen: str | None) -> Job:
        """Put a request into the queue, under the id that its asker chose for it if any; Refused if that is full."""
        watch = self.watches.begin(chosen)
        try:
            return self.worker.submit(run, watch)
        except Refused:
            self.watches.forget(watch)
            raise

"""The gateway's HTTP side: OpenAI's endpoints in front of one session with the parties, for this machine's programs.

Knows requests, replies and the queue of jobs. It must not know parties, shares or links.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from puma.gateway import answering, replies
from puma.gateway.guard import Guard
from puma.gateway.page import page
from puma.gateway.replies import Refused, refusal
from puma.gateway.requests import Chat, Completion, read
from puma.gateway.requests import Embeddings as Texts
from puma.gateway.watch import Watch
from puma.gateway.worker import Cluster, Worker


@dataclass(frozen=True)
class Settings:
    """How a gateway answers.

    `name` is the model's; `most` the new tokens of an answer at most; `temperature` that of requests which name none.
    `fixed`: parties always compute as many tokens as were asked for, and do not learn how long answers are. `waiting`:
    requests that may queue. `hosts` are the names by which this gateway may be called.
    """

    name: str
    family: str = "causal"
    labels: tuple[str, ...] = ()
    most: int = 512
    temperature: float = 1.0
    fixed: bool = False
    waiting: int = 16
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")


Endpoint = Callable[[Request], Awaitable[Response]]


class Gateway:
    """The endpoints, and what they share."""

    def __init__(self, model: Any, start: Callable[[], Cluster], settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.watch = Watch()
        self.worker = Worker(lambda: self.watch.over(start()), settings.waiting)
        self.created = replies.now()

    def app(self) -> Starlette:
        """The ASGI application; its shutdown ends the session."""
        routes = [
            Route("/", told(self.page)),
            Route("/watch", told(self.seen)),
            Route("/health", told(self.health)),
            Route("/v1/models", told(self.models)),
            Route("/v1/models/{name:path}", told(self.one_model)),
            Route("/v1/completions", told(self.completions), methods=["POST"]),
            Route("/v1/chat/completions", told(self.chat), methods=["POST"]),
            Route("/v1/embeddings", told(self.embeddings), methods=["POST"]),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(Guard, hosts=self.settings.hosts)],
            exception_handlers={HTTPException: _no_such},
            lifespan=self._life,
        )

    @contextlib.asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self.worker.close()

    async def page(self, _: Request) -> Response:
        return HTMLResponse(*page())

    async def seen(self, _: Request) -> Response:
        """What each party has been sent for the last request, and what it cost."""
        return JSONResponse(self.watch.report(), headers={"cache-control": "no-store"})

    async def health(self, _: Request) -> Response:
        """200 unless the last session has failed and no new one has come to be."""
        state = self.worker.state
        body = {"status": state, "model": self.settings.name, "family": self.settings.family}
        body |= {"queued": self.worker.queued}
        return JSONResponse(body, 503 if state == "failed" else 200)

    async def models(self, _: Request) -> Response:
        return JSONResponse(replies.models([self.settings.name], self.created))

    async def one_model(self, request: Request) -> Response:
        self._known(request.path_params["name"])
        return JSONResponse(replies.model(self.settings.name, self.created))

    async def completions(self, request: Request) -> Response:
        asked = read(await request.body(), Completion)
        self._known(asked.model)
        return await answering.completions(self, request, asked)

    async def chat(self, request: Request) -> Response:
        asked = read(await request.body(), Chat)
        self._known(asked.model)
        return await answering.chat(self, request, asked)

    async def embeddings(self, request: Request) -> Response:
        asked = read(await request.body(), Texts)
        self._known(asked.model)
        return await answering.embeddings(self, request, asked)

    def _known(self, name: str) -> None:
        if name != self.settings.name:
            message = f"there is no model {name!r} here, only {self.settings.name!r}"
            raise Refused(message, "model", "model_not_found", 404)


def told(endpoint: Endpoint) -> Endpoint:
    """The endpoint with every error as one that OpenAI's clients can read."""

    async def run(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:
            if isinstance(error, HTTPException):
                raise
            found = refusal(error)
            return JSONResponse(found.body, found.status, found.headers)

    return run


async def _no_such(_: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    found = Refused(str(error.detail).lower(), None, None, error.status_code)
    return JSONResponse(found.body, found.status)


def short_name(source: str | Path | None) -> str:
    """What a model is called over HTTP: a hub's name as it is, a folder's last part, or the embedded model's."""
    if source is None:
        return "stories"
    return Path(source).resolve().name if Path(source).exists() else str(source)

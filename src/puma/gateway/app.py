"""The gateway's HTTP side: OpenAI's endpoints in front of one session with the parties, for this machine's programs.

Knows paths and errors. It must not know what is asked, nor parties, shares or links.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from puma.gateway.endpoints import (
    chat,
    completions,
    embeddings,
    health,
    metrics,
    models,
    page,
    rerank,
    transcriptions,
    watch,
)
from puma.gateway.guard import Guard
from puma.gateway.refusals import Refused, refusal
from puma.gateway.service import Gateway

Endpoint = Callable[[Gateway, Request], Awaitable[Response]]
ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/", page.page),
    ("GET", "/health", health.health),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/watch/{id}", watch.watch),
    ("GET", "/v1/models", models.models),
    ("GET", "/v1/models/{name:path}", models.model),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/chat/completions", chat.chat),
    ("POST", "/v1/embeddings", embeddings.embeddings),
    ("POST", "/v1/audio/transcriptions", transcriptions.transcriptions),
    ("POST", "/v1/audio/translations", transcriptions.translations),
    *(("POST", path, rerank.rerank) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),  # of clients of their own
)


OPEN = ("/", "/health", "/metrics", "/watch/{id}")  # without a key: nothing of any request, or of who knows its id


def application(gateway: Gateway) -> Starlette:
    """The ASGI application; its shutdown ends the session."""

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        gateway.worker.close()

    return Starlette(
        routes=[Route(path, told(gateway, path, endpoint), methods=[method]) for method, path, endpoint in ROUTES],
        middleware=[Middleware(Guard, hosts=gateway.settings.hosts)],
        exception_handlers={HTTPException: _no_such},
        lifespan=life,
    )


def told(gateway: Gateway, path: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint for who has a key, if there are any, counted, and with every error as one that OpenAI's clients can
    read."""

    async def run(request: Request) -> Response:
        try:
            if path not in OPEN:
                gateway.key(request)
            answer = await endpoint(gateway, request)
        except Exception as error:
            if isinstance(error, HTTPException):
                raise
            found = refusal(error)
            answer = JSONResponse(found.body, found.status, found.headers)
        gateway.metrics.add("puma_gateway_requests_total", path=path, status=answer.status_code)
        return answer

    return run


async def _no_such(_: Request, error: Exception) -> Response:
    """Paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    found = Refused(str(error.detail).lower(), None, None, error.status_code)
    return JSONResponse(found.body, found.status)

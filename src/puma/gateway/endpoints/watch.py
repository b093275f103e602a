"""GET /watch/ID: what each party was sent for one request, and what it cost; only who asked knows the id."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma.gateway.service import Gateway


async def watch(gateway: Gateway, request: Request) -> Response:
    """As of now; a request that runs grows from one look to the next."""
    found = gateway.watches.of(request.path_params["id"])
    return JSONResponse(found.report(gateway.worker.ahead(found)), headers={"cache-control": "no-store"})

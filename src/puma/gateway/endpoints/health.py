"""GET /health: whether requests can be answered, by whom, and within which limits. It says nothing of any request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma.gateway.service import Gateway
from puma.models import architecture


async def health(gateway: Gateway, _: Request) -> Response:
    """200 unless the last session has failed and no new one has come to be."""
    settings, worker = gateway.settings, gateway.worker
    body = {
        "status": worker.state, "problem": worker.problem, "queued": worker.queued,
        "model": settings.name, "family": architecture(gateway.model.config).kind,
        "chat": gateway.chats, "context": gateway.model.config.context,
        "max_tokens": settings.most, "temperature": settings.temperature,
        "fixed_length": settings.fixed, "local": settings.local,
        "parties": [{"name": f"P{rank}", "place": place} for rank, place in enumerate(settings.places)],
    }  # fmt: skip
    return JSONResponse(body, 503 if worker.state == "failed" else 200, {"cache-control": "no-store"})

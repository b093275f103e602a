"""GET /health: whether requests can be answered, by whom, and within which limits. It says nothing of any request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma.gateway.service import Gateway
from puma.models import architecture


async def health(gateway: Gateway, _: Request) -> Response:
    """200 unless the last session has failed and no new one has come to be, or the gateway is about to stop."""
    settings, worker = gateway.settings, gateway.worker
    body = {
        "status": "draining" if gateway.draining else worker.state, "problem": worker.problem,
        "queued": worker.queued, "running": worker.running, "sessions": worker.sessions,
        "model": settings.name, "family": architecture(gateway.model.config).kind,
        "chat": gateway.chats, "context": gateway.model.config.context,
        "max_tokens": settings.most, "temperature": settings.temperature,
        "fixed_length": settings.fixed, "local": settings.local, "keys": gateway.keys.asked,
        "parties": [{"name": f"P{rank}", "place": place} for rank, place in enumerate(settings.places)],
    }  # fmt: skip
    well = worker.state != "failed" and not gateway.draining
    return JSONResponse(body, 200 if well else 503, {"cache-control": "no-store"})

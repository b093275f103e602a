"""GET /metrics: numbers for Prometheus. They say nothing of any request, nor of who asked."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from puma.gateway.service import Gateway


async def metrics(gateway: Gateway, _: Request) -> Response:
    """Everything, as text."""
    return PlainTextResponse(gateway.metrics.text(), media_type="text/plain; version=0.0.4")

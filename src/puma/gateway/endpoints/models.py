"""GET /v1/models and /v1/models/NAME: the one model that is served."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma.gateway import replies
from puma.gateway.service import Gateway


async def models(gateway: Gateway, _: Request) -> Response:
    """All models, which are one."""
    return JSONResponse(replies.models([gateway.settings.name], gateway.created))


async def model(gateway: Gateway, request: Request) -> Response:
    """That one by its name."""
    gateway.known(request.path_params["name"])
    return JSONResponse(replies.model(gateway.settings.name, gateway.created))

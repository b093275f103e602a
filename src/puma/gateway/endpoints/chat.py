"""POST /v1/chat/completions: the next turn of a chat."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from puma.gateway.generation import new_tokens, respond, wanted
from puma.gateway.prompts import prompt_ids
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import ChatRequest, read
from puma.gateway.service import Gateway
from puma.gateway.wording import chat_wording
from puma.models import inputs


async def chat(gateway: Gateway, request: Request) -> Response:
    """An answer that names no length may fill the context, up to the gateway's limit."""
    asked = read(await request.body(), ChatRequest)
    gateway.known(asked.model)
    name = "max_tokens" if asked.max_tokens is not None else "max_completion_tokens"
    given = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    if given is None and gateway.settings.fixed:
        raise Refused("this gateway always computes as many tokens as are asked for: name a number", name)
    if given is not None:
        new_tokens(gateway.settings, given, given, name)  # before the prompt's length is looked at
    with blamed("messages"):
        ids = prompt_ids(gateway.model, gateway.chat, asked.asked, given or 1)
    room, limit = inputs(gateway.model.config).room(len(ids)), gateway.model.max_tokens
    room = room if limit is None else min(room, limit - len(ids))
    tokens = new_tokens(gateway.settings, given, min(room, gateway.settings.most), name)
    generation = wanted(gateway.settings, asked, [ids], tokens, [""], memory=gateway.memory(gateway.key(request)))
    return await respond(gateway, request, asked, generation, chat_wording(gateway.settings.name))

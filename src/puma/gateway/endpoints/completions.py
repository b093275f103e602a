"""POST /v1/completions: continue texts, or token ids."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from puma.gateway.generation import new_tokens, respond, wanted
from puma.gateway.refusals import Refused
from puma.gateway.requests import CompletionRequest, read
from puma.gateway.service import Gateway
from puma.gateway.wording import completion_wording

DEFAULT_TOKENS = 16  # of a completion that names no number, as OpenAI has it


async def completions(gateway: Gateway, request: Request) -> Response:
    """All prompts and choices go to the parties in one batch."""
    asked = read(await request.body(), CompletionRequest)
    gateway.known(asked.model)
    tokens = new_tokens(gateway.settings, asked.max_tokens, DEFAULT_TOKENS, "max_tokens")
    if not asked.prompts:
        raise Refused("there is no prompt", "prompt")
    model = gateway.model
    ids = [model.prompt_ids(p, tokens) if isinstance(p, str) else list(p) for p in asked.prompts]
    leads = [p if isinstance(p, str) else model.decode(p) for p in asked.prompts] if asked.echo else [""] * len(ids)
    generation = wanted(gateway.settings, asked, ids, tokens, leads)
    return await respond(gateway, request, asked, generation, completion_wording(gateway.settings.name))

"""POST /v1/completions: continue texts, or token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from puma.gateway.generation import new_tokens, respond, wanted
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import CompletionRequest, read
from puma.gateway.service import Gateway
from puma.gateway.wording import completion_wording
from puma.models.text import check_batch

DEFAULT_TOKENS = 16  # of a completion that names no number, as OpenAI has it


async def completions(gateway: Gateway, request: Request) -> Response:
    """All prompts and choices go to the parties in one batch."""
    asked = read(await request.body(), CompletionRequest)
    gateway.known(asked.model)
    tokens = new_tokens(gateway.settings, asked.max_tokens, DEFAULT_TOKENS, "max_tokens")
    if not asked.prompts:
        raise Refused("there is no prompt", "prompt")
    model = gateway.model
    with blamed("prompt"):
        ids = [_ids(model, prompt, tokens) for prompt in asked.prompts]
    leads = [p if isinstance(p, str) else model.decode(p) for p in asked.prompts] if asked.echo else [""] * len(ids)
    generation = wanted(gateway.settings, asked, ids, tokens, leads)
    return await respond(gateway, request, asked, generation, completion_wording(gateway.settings.name))


def _ids(model: Any, prompt: str | Sequence[int], tokens: int) -> list[int]:
    """Token ids of a text, or those that were given; Refused if the model has no such tokens."""
    if isinstance(prompt, str):
        return model.prompt_ids(prompt, tokens)
    count = model.config.vocab_size
    if not prompt or not all(0 <= token < count for token in prompt):
        raise Refused(f"token ids of this model go from 0 to {count - 1}, at least one in each prompt", "prompt")
    check_batch(model.config, [len(prompt)], tokens)
    return list(prompt)

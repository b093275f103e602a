"""POST /v1/completions: continue texts, or token ids."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from puma.client.model_info import ModelInfo
from puma.gateway.generation import check_answers, new_tokens, respond, wanted
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import CompletionRequest, read
from puma.gateway.scoring import check_scored
from puma.gateway.service import Gateway
from puma.gateway.wording import completion_wording
from puma.models import text

DEFAULT_TOKENS = 16  # of a completion that names no number, as OpenAI has it


async def completions(gateway: Gateway, request: Request) -> Response:
    """All prompts and choices go to the parties in one batch."""
    asked = read(await request.body(), CompletionRequest)
    gateway.known(asked.model)
    given, least = asked.max_tokens, 0 if asked.echo else 1
    tokens = new_tokens(gateway.settings, given, DEFAULT_TOKENS, "max_tokens", least)
    if not asked.prompts:
        raise Refused("there is no prompt", "prompt")
    check_answers(len(asked.prompts), asked)  # before each is read
    model, scores = gateway.model, bool(asked.echo) and asked.logprobs is not None
    with blamed("begin"):
        begun = model.begun(asked.begin or "")
    with blamed("language" if asked.language else "prompt"):
        most = (tokens or 1) + len(begun)
        ids = [_ids(model, prompt, most, asked.language or "") for prompt in asked.prompts]
        if scores:
            check_scored(model.config, ids)
    leads = [p if isinstance(p, str) else model.decode(p) for p in asked.prompts] if asked.echo else [""] * len(ids)
    places = [_places(model, prompt) for prompt in asked.prompts] if scores else []
    generation = wanted(gateway.settings, asked, ids, tokens, leads, places, begun=begun)
    return await respond(gateway, request, asked, generation, completion_wording(gateway.settings.name))


def _places(model: ModelInfo, prompt: str | Sequence[int]) -> list[int]:
    """Where each token begins in the prompt's text."""
    return model.spelling.places_in(prompt) if isinstance(prompt, str) else model.spelling.places(prompt)


def _ids(model: ModelInfo, prompt: str | Sequence[int], tokens: int, language: str) -> list[int]:
    """Token ids of a text, perhaps in this language, or those that were given; Refused if the model has no such."""
    if isinstance(prompt, str):
        return model.prompt_ids(prompt, tokens, language=language)
    if language:
        raise Refused("a language is that of a text, and these are token ids", "language")
    model.check_generates()
    count = model.config.vocab_size
    if not prompt or not all(0 <= token < count for token in prompt):
        raise Refused(f"token ids of this model go from 0 to {count - 1}, at least one in each prompt", "prompt")
    text.checked(model.config, list(prompt), [0] * len(prompt), "leave out padding and other ids that no text has")
    model.check_length(len(prompt), tokens)
    return list(prompt)

"""From a checked request to its response: whole or as a stream of server-sent events, and left when its asker leaves.

It must not know how the parties are reached.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from puma.client.sampling import Sampling
from puma.gateway import chat as chats
from puma.gateway import replies
from puma.gateway.answers import Piece, Wanted, answer
from puma.gateway.replies import Refused, refusal
from puma.gateway.requests import Asked, Chat, Completion, Embeddings
from puma.gateway.wording import Wording, chat_wording, completion_wording
from puma.gateway.worker import Job

if TYPE_CHECKING:
    from puma.gateway.app import Gateway

LOOK = 0.2  # seconds between two looks whether the asker is still there
DEFAULT_COMPLETION = 16  # new tokens of a completion that names no number, as OpenAI has it


async def completions(gateway: Gateway, request: Request, asked: Completion) -> Response:
    """POST /v1/completions."""
    tokens = _tokens(gateway, asked.max_tokens, DEFAULT_COMPLETION, "max_tokens")
    if not asked.prompts:
        raise Refused("there is no prompt", "prompt")
    model = gateway.model
    ids = [model.prompt_ids(p, tokens) if isinstance(p, str) else list(p) for p in asked.prompts]
    leads = [p if isinstance(p, str) else model.decode(p) for p in asked.prompts] if asked.echo else [""] * len(ids)
    wanted = _wanted(gateway, asked, ids, tokens, leads)
    return await _respond(gateway, request, asked, wanted, completion_wording(gateway.settings.name))


async def chat(gateway: Gateway, request: Request, asked: Chat) -> Response:
    """POST /v1/chat/completions; an answer that names no length may fill the context, up to the gateway's limit."""
    name = "max_tokens" if asked.max_tokens is not None else "max_completion_tokens"
    given = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    ids = chats.prompt_ids(gateway.model, asked.messages, given or 1)
    room = gateway.model.config.context - len(ids) + 1
    if given is None and gateway.settings.fixed:
        raise Refused("this gateway always computes as many tokens as are asked for: name a number", name)
    tokens = _tokens(gateway, given, min(room, gateway.settings.most), name)
    wanted = _wanted(gateway, asked, [ids], tokens, [""])
    return await _respond(gateway, request, asked, wanted, chat_wording(gateway.settings.name))


async def embeddings(gateway: Gateway, request: Request, asked: Embeddings) -> Response:
    """POST /v1/embeddings."""
    if gateway.settings.family != "encoder" or gateway.settings.labels:
        raise Refused(f"{gateway.settings.name} makes no embeddings: use a BERT model without a head", "model")
    if asked.encoding_format not in (None, "float", "base64"):
        raise Refused("encoding_format is float or base64", "encoding_format")
    if not asked.texts:
        raise Refused("there is no text", "input")
    tokens = sum(len(gateway.model.sentence_ids(text).ids) for text in asked.texts)

    def run(cluster: Any) -> Generator[list[torch.Tensor], None, None]:
        yield [encoding.values for encoding in cluster.encode(asked.texts)]

    job = gateway.worker.submit(gateway.watch.during(run))
    (vectors,) = [item async for item in _watched(request, job)]
    if asked.dimensions not in (None, len(vectors[0])):
        raise Refused(f"embeddings of this model have {len(vectors[0])} dimensions", "dimensions")
    encoded = [_base64(v) if asked.encoding_format == "base64" else v.tolist() for v in vectors]
    return JSONResponse(replies.embeddings(encoded, gateway.settings.name, tokens))


def _base64(vector: torch.Tensor) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for them."""
    return base64.b64encode(vector.float().numpy().astype("<f4").tobytes()).decode()


def _tokens(gateway: Gateway, given: int | None, otherwise: int, name: str) -> int:
    tokens, most = otherwise if given is None else given, gateway.settings.most
    if tokens < 1 or tokens > most:
        raise Refused(f"{name} must be from 1 to {most} at this gateway", name)
    return tokens


def _wanted(gateway: Gateway, asked: Asked, ids: Sequence[Sequence[int]], tokens: int, leads: Sequence[str]) -> Wanted:
    settings = gateway.settings
    temperature = settings.temperature if asked.temperature is None else asked.temperature
    if not 0 <= temperature <= 2:
        raise Refused("temperature must be from 0 to 2", "temperature")
    alternatives = asked.alternatives  # type: ignore[attr-defined]
    if alternatives is not None and not 0 <= alternatives <= 20:
        raise Refused("at most 20 likeliest tokens", "top_logprobs" if isinstance(asked, Chat) else "logprobs")
    each = range(asked.choices)
    return Wanted(
        prompts=[prompt for prompt in ids for _ in each],
        tokens=tokens,
        sampling=_sampling(asked, temperature),
        paced=not settings.fixed,
        stops=asked.stops,
        leads=[lead for lead in leads for _ in each],
        alternatives=alternatives,
    )


def _sampling(asked: Asked, temperature: float) -> Sampling:
    if temperature == 0:
        return Sampling()  # the likeliest token, whatever else is said
    if asked.top_p is not None and not 0 < asked.top_p <= 1:
        raise Refused("top_p must be above 0 and up to 1", "top_p")
    if asked.top_k is not None and asked.top_k < 0:
        raise Refused("top_k must not be negative", "top_k")
    return Sampling(temperature, asked.top_k or 0, 1.0 if asked.top_p is None else asked.top_p, asked.seed)


async def _respond(gateway: Gateway, request: Request, asked: Asked, wanted: Wanted, words: Wording) -> Response:
    job = gateway.worker.submit(gateway.watch.during(partial(answer, wanted=wanted)))
    prompts = sum(map(len, wanted.prompts)) // asked.choices
    if asked.stream:
        options = asked.stream_options
        count = prompts if options is not None and options.include_usage else None
        first = await _first(request, job)
        events = _events(first, job, words, len(wanted.prompts), count)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
    pieces = [piece async for piece in _watched(request, job)]
    return JSONResponse(words.whole(pieces, len(wanted.prompts), prompts))


async def _first(request: Request, job: Job) -> Piece:
    """The first piece: what goes wrong before it still has an HTTP status of its own."""
    async for piece in _watched(request, job, leave=False):
        return piece
    raise Refused("nothing was generated", status=500, kind="server_error")


async def _events(first: Piece, job: Job, words: Wording, rows: int, prompts: int | None) -> AsyncIterator[str]:
    """The stream, as server-sent events; with the count of prompt tokens, usage comes last."""
    count = 0
    try:
        for event in words.opening(rows):
            yield _event(event)
        count += 1
        yield _event(words.piece(first))
        async for piece in job.items():
            count += 1
            yield _event(words.piece(piece))
        if prompts is not None:
            yield _event(words.usage(prompts, count))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(refusal(error).body)
    finally:
        job.left.set()


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _watched(request: Request, job: Job, leave: bool = True) -> AsyncIterator[Any]:
    """The job's items, as long as the asker is there; afterwards the job is left, unless it goes on elsewhere."""
    watch = asyncio.create_task(_gone(request, job))
    try:
        async for item in job.items(leave):
            yield item
    finally:
        watch.cancel()


async def _gone(request: Request, job: Job) -> None:
    """Leave the job when the asker leaves."""
    while not await request.is_disconnected():
        await asyncio.sleep(LOOK)
    job.leave()

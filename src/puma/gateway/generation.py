"""From a checked request for text to its response: what is wanted of the parties, and the answer whole or streamed.

It must not know how the parties are reached, nor the endpoints that use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from puma.client.sampling import Sampling
from puma.client.tokens.remembered import Remembered
from puma.gateway.answers import Wanted
from puma.gateway.load.jobs import Run
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import ChatRequest, TextRequest
from puma.gateway.scoring import Scored, echoed
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings
from puma.gateway.streams import events, first_item, request_id, while_there
from puma.gateway.wording import Wording

MAX_ANSWERS = 128  # in one request: prompts times choices


def new_tokens(settings: Settings, given: int | None, otherwise: int, name: str, least: int = 1) -> int:
    """How many tokens an answer may have; Refused by the parameter's name beyond the gateway's limit."""
    tokens = otherwise if given is None else given
    if tokens < least or tokens > settings.most:
        raise Refused(f"{name} must be from {least} to {settings.most} at this gateway", name)
    return tokens


def check_answers(prompts: int, asked: TextRequest) -> None:
    """Refused for too many prompts, or answers to them."""
    if prompts * asked.choices > MAX_ANSWERS:
        raise Refused(f"at most {MAX_ANSWERS} answers in one request: prompts times n", "n")


def wanted(
    settings: Settings, asked: TextRequest, ids: Sequence[Sequence[int]], tokens: int, leads: Sequence[str],
    places: Sequence[Sequence[int]] = (), memory: Remembered | None = None, begun: Sequence[int] = (),
) -> Wanted:  # fmt: skip
    """The generation that a request asks for: `ids` of each prompt, and the text to give before each answer; where the
    prompts' tokens begin in it, if these are to be scored. With a `memory` the parties keep it for later ones. Answers
    begin with the tokens `begun`."""
    temperature = settings.temperature if asked.temperature is None else asked.temperature
    if not 0 <= temperature <= 2:
        raise Refused("temperature must be from 0 to 2", "temperature")
    check_answers(len(ids), asked)
    alternatives = asked.alternatives  # type: ignore[attr-defined]
    if alternatives is not None and not 0 <= alternatives <= 20:
        raise Refused("at most 20 likeliest tokens", "top_logprobs" if isinstance(asked, ChatRequest) else "logprobs")
    each = range(asked.choices)
    return Wanted(
        prompts=[prompt for prompt in ids for _ in each],
        tokens=tokens,
        sampling=_sampling(settings, asked, temperature),
        paced=not settings.fixed,
        stops=asked.stops,
        leads=[lead for lead in leads for _ in each],
        places=[place for place in places for _ in each],
        alternatives=alternatives,
        memory=memory,
        begun=begun,
    )


def _sampling(settings: Settings, asked: TextRequest, temperature: float) -> Sampling:
    if temperature == 0:
        return Sampling()  # the likeliest token, whatever else is said
    if asked.top_p is not None and not 0 < asked.top_p <= 1:
        raise Refused("top_p must be above 0 and up to 1", "top_p")
    if asked.top_k is not None and asked.top_k < 0:
        raise Refused("top_k must not be negative", "top_k")
    with blamed("temperature"):
        top_k = settings.top_k if asked.top_k is None else asked.top_k
        top_p = settings.top_p if asked.top_p is None else asked.top_p
        return Sampling(temperature, top_k, top_p, asked.seed)


def _run(generation: Wanted) -> Run | Wanted:
    """What the session's thread does; a generation that is nothing else can go together with others."""
    if generation.scored:
        return Scored(generation)
    return generation if generation.tokens else lambda _: echoed(generation)


async def respond(
    gateway: Gateway, request: Request, asked: TextRequest, generation: Wanted, words: Wording
) -> Response:
    """Put the generation into the queue, and answer as it comes; who goes away is not answered further."""
    read, rows = sum(map(len, generation.prompts)), len(generation.prompts)
    job = gateway.submit(_run(generation), request, read + rows * generation.tokens)
    prompts = read // asked.choices
    if asked.stream:
        options = asked.stream_options
        count = prompts if options is not None and options.include_usage else None
        first = await first_item(request, job)
        headers = request_id(job) | {"cache-control": "no-store"}
        stream = events(first, job, words, rows, count)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    pieces = [piece async for piece in while_there(request, job)]
    return JSONResponse(words.whole(pieces, rows, prompts, job.watch.cached), headers=request_id(job))

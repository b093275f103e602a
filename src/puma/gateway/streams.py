"""A job's items on their way to who asked: as server-sent events, and no longer than the asker stays.

It must not know what the items say beyond their wording, nor how they are made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from puma.gateway.answers import Piece
from puma.gateway.load.jobs import Job
from puma.gateway.refusals import Refused, refusal
from puma.gateway.wording import Wording

LOOK = 0.2  # seconds between two looks whether the asker is still there


def request_id(job: Job) -> dict[str, str]:
    """The header by which an asker learns what to look for at /watch."""
    return {"x-request-id": job.watch.id}


async def while_there(request: Request, job: Job, leave: bool = True) -> AsyncIterator[Any]:
    """The job's items, as long as the asker is there; afterwards the job is left, unless it goes on elsewhere."""
    looking = asyncio.create_task(_leave_with(request, job))
    try:
        async for item in job.items(leave):
            yield item
    finally:
        looking.cancel()


async def _leave_with(request: Request, job: Job) -> None:
    """Leave the job when the asker leaves."""
    while not await request.is_disconnected():
        await asyncio.sleep(LOOK)
    job.leave()


async def first_item(request: Request, job: Job) -> Any:
    """The first item: what goes wrong before it still has an HTTP status of its own."""
    async for item in while_there(request, job, leave=False):
        return item
    raise Refused("nothing was generated", status=500, kind="server_error")


async def events(first: Piece, job: Job, words: Wording, rows: int, prompts: int | None) -> AsyncIterator[str]:
    """The stream, as server-sent events; with the count of prompt tokens, usage comes last."""
    count = 0
    try:
        for opening in words.opening(rows):
            yield _event(opening)
        count += first.new
        yield _event(words.piece(first))
        async for piece in job.items():
            count += piece.new
            yield _event(words.piece(piece))
        if prompts is not None:
            yield _event(words.usage(prompts, count, job.watch.cached))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(refusal(error).body)
    finally:
        job.left.set()


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

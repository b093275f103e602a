"""POST /v1/audio/transcriptions and /v1/audio/translations: sound as text, in the shape of OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from puma.client.speech.transcripts import Task, Transcript, Wanted, check, heard, seconds, transcribing
from puma.gateway.refusals import Refused, blamed
from puma.gateway.service import Gateway
from puma.gateway.streams import request_id, while_there

FORMS = ("json", "text", "verbose_json")
NEUTRAL = {
    "temperature": ("0", "0.0"),
    "prompt": ("",),
    "stream": ("false",),
    "timestamp_granularities[]": ("segment",),
}
KNOWN = ("file", "model", "language", "response_format", "user", *NEUTRAL)
FIELDS = 32


async def transcriptions(gateway: Gateway, request: Request) -> Response:
    """What is said, in the language that is spoken."""
    return await _written(gateway, request, "transcribe")


async def translations(gateway: Gateway, request: Request) -> Response:
    """What is said, in English."""
    return await _written(gateway, request, "translate")


async def _written(gateway: Gateway, request: Request, task: Task) -> Response:
    asked, content = await _asked(request)
    gateway.known(asked.get("model", ""))
    wanted = Wanted(asked.get("language") or None, task)
    with blamed("language"):
        check(gateway.model, wanted, True)
    with blamed("file"):
        pieces = await asyncio.to_thread(heard, gateway.model, content)

    def run(cluster: Any) -> Generator[Transcript | None, None, None]:
        yield from transcribing(cluster.session, cluster.model, pieces, wanted)

    job = gateway.submit(run, request)
    *_, found = [item async for item in while_there(request, job)] or [None]  # nothing for who has left
    return _reply(gateway, found, asked.get("response_format", "json"), task, request_id(job))


async def _asked(request: Request) -> tuple[dict[str, str], bytes]:
    """The fields of a form, and its file."""
    try:
        async with request.form(max_files=1, max_fields=FIELDS) as form:
            _checked(form)
            return {name: str(form[name]) for name in form if name != "file"}, await _sound(form)
    except HTTPException as error:
        raise Refused(f"the body is no form ({error.detail})", None, "wrong_body") from error


def _checked(form: FormData) -> None:
    """Refused for a field that is not honoured."""
    for name, value in form.multi_items():
        if name not in KNOWN:
            raise Refused(f"{name[:100]} is not known here", name[:100], "unknown_parameter")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise Refused(f"{name} is not implemented but as {NEUTRAL[name][0]!r}", name, "unsupported_parameter")
    if form.get("response_format", "json") not in FORMS:
        raise Refused(f"response_format is one of {', '.join(FORMS)} here", "response_format")


async def _sound(form: FormData) -> bytes:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refused("there is no file", "file")
    return await file.read()


def _reply(
    gateway: Gateway, found: Transcript | None, form: str, task: Task, headers: dict[str, str]
) -> Response:  # fmt: skip
    text = found.text if found else ""
    if form == "text":
        return PlainTextResponse(text + "\n", headers=headers)
    answer: dict[str, Any] = {"text": text}
    if form == "verbose_json" and found:
        step = seconds(gateway.model)
        parts = [
            {"id": i, "start": i * step, "end": (i + 1) * step, "text": window, "tokens": found.token_ids[i]}
            for i, window in enumerate(found.windows)
        ]
        answer |= {"task": task, "language": found.language, "duration": step * len(parts), "segments": parts}
    return JSONResponse(answer, headers=headers)

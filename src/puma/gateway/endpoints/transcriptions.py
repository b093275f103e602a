"""POST /v1/audio/transcriptions and /v1/audio/translations: sound as text, in the shape of OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from puma.client.speech import subtitles
from puma.client.speech.transcripts import (
    Task,
    Transcript,
    Wanted,
    check,
    room,
    samples_of,
    seconds,
    tells_times,
    transcribing,
)
from puma.gateway.refusals import Refused, blamed, busy
from puma.gateway.service import Gateway
from puma.gateway.streams import request_id, while_there
from puma.models.hearing.spectrum import RATE

TIMED = {"srt": subtitles.srt, "vtt": subtitles.vtt}
FORMS = ("json", "text", "verbose_json", *TIMED)
NEUTRAL = {
    "temperature": ("0", "0.0"),
    "prompt": ("",),
    "stream": ("false",),
    "timestamp_granularities[]": ("segment",),
}
KNOWN = ("file", "model", "language", "response_format", "user", *NEUTRAL)
FIELDS = 32
LONGEST, MOST = 3600.0, 3 * 3600.0  # seconds of one file, and of all that wait or are heard
SOON = 10.0  # seconds after which some of it may have been heard
_reading = ThreadPoolExecutor(2, "sound")  # a long file takes a gigabyte while it is read


async def transcriptions(gateway: Gateway, request: Request) -> Response:
    """What is said, in the language that is spoken."""
    return await _written(gateway, request, "transcribe")


async def translations(gateway: Gateway, request: Request) -> Response:
    """What is said, in English."""
    return await _written(gateway, request, "translate")


async def _written(gateway: Gateway, request: Request, task: Task) -> Response:
    asked, content = await _asked(request)
    gateway.known(asked.get("model", ""))
    form = asked.get("response_format", "json")
    wanted = Wanted(asked.get("language") or None, task)
    with blamed("language"):
        check(gateway.model, wanted, True)
    with blamed("response_format"):
        check(gateway.model, replace(wanted, times=form in TIMED), True)
    with blamed("file"):
        samples = await asyncio.get_running_loop().run_in_executor(_reading, samples_of, content, LONGEST)
    lasts = len(samples) / RATE
    if gateway.sound + lasts > MOST:
        raise busy(f"{gateway.sound / 60:.0f} minutes of sound wait already", SOON)
    gateway.sound += lasts
    try:
        return await _heard(gateway, request, samples, wanted, form)
    finally:
        gateway.sound -= lasts


async def _heard(gateway: Gateway, request: Request, samples: Any, wanted: Wanted, form: str) -> Response:
    """What is said in so many samples, in one of FORMS."""

    def run(cluster: Any) -> Generator[Transcript | None, None, None]:
        told = form == "verbose_json" and cluster.session.reveals and tells_times(cluster.model)
        how = replace(wanted, times=form in TIMED or told)
        yield from transcribing(cluster.session, cluster.model, samples, how)

    job = gateway.submit(run, request, room(gateway.model))  # of one window, which is what is under way at a time
    *_, found = [item async for item in while_there(request, job)] or [None]  # nothing for who has left
    return _reply(gateway, found, form, wanted.task, len(samples) / RATE, request_id(job))


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
    gateway: Gateway, found: Transcript | None, form: str, task: Task, lasts: float, headers: dict[str, str]
) -> Response:  # fmt: skip
    if form in TIMED:
        return PlainTextResponse(TIMED[form](found.parts if found else []), headers=headers)
    text = found.text if found else ""
    if form == "text":
        return PlainTextResponse(text + "\n", headers=headers)
    answer: dict[str, Any] = {"text": text}
    if form == "verbose_json" and found:
        parts = [
            {"id": i, "start": part.start, "end": part.end, "text": part.text, "tokens": part.token_ids}
            for i, part in enumerate(found.parts or _windows(found, seconds(gateway.model), lasts))
        ]
        answer |= {"task": task, "language": found.language, "duration": lasts, "segments": parts}
    return JSONResponse(answer, headers=headers)


def _windows(found: Transcript, step: float, lasts: float) -> list[subtitles.Said]:
    """Of a model that tells no times, or not to its clients, what is said in each window."""
    each = enumerate(zip(found.windows, found.token_ids, strict=True))
    return [subtitles.Said(i * step, min(lasts, (i + 1) * step), text, tokens) for i, (text, tokens) in each]

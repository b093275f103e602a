"""Who may talk to a gateway: programs that call it by one of its names, and no web page but its own.

A browser lets any page send requests to 127.0.0.1, and a hostile name server can make a page's own name mean
127.0.0.1. Neither knows the right Host header together with the right Origin. This file must not know what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puma.errors import UsageError
from puma.gateway.refusals import Refused
from puma.gateway.settings import called

MAX_BODY, MAX_SOUND = 4 << 20, 25 << 20
SOUND = "/v1/audio/"  # paths of which a body is a form with a file; where it comes from is checked as for all others


class Guard:
    """Refuses other hosts' names, other pages' requests, bodies that are no JSON, or of sound no form, and those that
    are too long."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        form = scope["path"].startswith(SOUND)
        most, kind = (MAX_SOUND, "multipart/form-data") if form else (MAX_BODY, "application/json")
        problem = self._problem(scope["method"], Headers(scope=scope), _reached(scope), most, kind)
        if problem is not None:
            await JSONResponse(problem.body, problem.status)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, most), send)

    def _problem(self, method: str, headers: Headers, reached: str, most: int, kind: str) -> Refused | None:
        host = headers.get("host", "")
        # An address is no name that a hostile name server could have given.
        if _name(host) not in self._hosts and _name(host) != reached:
            return Refused(f"this gateway is not called {host[:100]!r}{_hint(_name(host))}", None, "wrong_host", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return Refused("web pages from elsewhere may not ask", None, "wrong_origin", 403)
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
            return Refused(f"the body must be {kind}", None, "wrong_content_type", 415)
        if int(length) > most if (length := headers.get("content-length", "0")).isdecimal() else True:
            return too_long(most)
        return None


def too_long(most: int = MAX_BODY) -> Refused:
    """The answer, 413, to a body beyond the limit."""
    return Refused(f"the body is longer than {most} bytes", None, "request_too_large", 413)


def _reached(scope: Scope) -> str:
    """The address at which a connection came, as a Host header has it."""
    address = str((scope.get("server") or ("",))[0]).partition("%")[0]
    return f"[{address}]" if ":" in address else address


def _hint(name: str) -> str:
    try:
        return f" (hint: start it with --hostname {called(name)})"
    except UsageError:
        return ""


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.lower().rpartition(":")[0] if not host.endswith("]") and ":" in host else host.lower()


def _bounded(receive: Receive, most: int) -> Receive:
    """The same body, as long as it is short enough; chunked ones name no length beforehand."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message: Any = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_long(most)
        return message

    return bounded

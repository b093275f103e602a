"""GET /: the page to chat, one file under a policy that lets it run its own script and talk to its own server.

Its parts lie in `page/`; they are put together once, and the policy names the digest of what was put in.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from puma.gateway.service import Gateway

PARTS = Path(__file__).parents[1] / "page"
SCRIPTS = ("seen.js", "talk.js", "key.js", "page.js")


async def page(_: Gateway, __: Request) -> Response:
    """The same for everybody: it asks /health where it is."""
    text, headers = built()
    return HTMLResponse(text, headers=headers)


@cache
def built() -> tuple[str, dict[str, str]]:
    """The page and its headers."""
    style = (PARTS / "page.css").read_text(encoding="utf-8")
    script = '"use strict";\n' + "".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    text = (PARTS / "page.html").read_text(encoding="utf-8")
    text = text.replace("<style></style>", f"<style>{style}</style>")
    text = text.replace("<script></script>", f"<script>{script}</script>")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
    return text, headers


def _digest(inside: str) -> str:
    """How a policy names a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}"

"""The page to chat: one file, read once, under a policy that lets it run its own script and talk to its own server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("page.html")


@cache
def page() -> tuple[str, int, dict[str, str]]:
    """The page, its status and its headers."""
    text = FILE.read_text(encoding="utf-8")
    script, style = (_digest(text, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
    return text, 200, headers


def _digest(text: str, tag: str) -> str:
    """How a policy names the one script or style of the page."""
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}"

"""By which names a gateway may be called: its own, those it was given, and the address at which it is reached."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from puma.cli.commands.ask.gateway import _called
from puma.errors import UsageError
from puma.gateway.guard import Guard


def _asked_as(host: str, hosts: tuple[str, ...], reached: str) -> tuple[int, str]:
    """Status and body of a request that names a host, at a gateway with these names, reached at an address."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"host", host.encode())],
        "server": (reached, 8000),
    }
    asyncio.run(Guard(app, hosts)(scope, Any, send))  # type: ignore[arg-type]
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


@pytest.mark.parametrize("host", ["gw.example.org", "GW.example.org:8000", "10.0.0.7:8000", "localhost", "[::1]:80"])
def test_a_gateway_answers_to_its_names_and_its_address(host: str) -> None:
    assert _asked_as(host, _called("0.0.0.0", ("gw.example.org", "other")), "10.0.0.7")[0] == 200


def test_an_address_of_six_groups_is_one_too() -> None:
    assert _asked_as("[fe80::7]:8000", _called("::", ()), "fe80::7%eth0")[0] == 200


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("gw.example.org:8000", "(hint: start it with --hostname gw.example.org)"),
        ("10.0.0.8", "(hint: start it with --hostname 10.0.0.8)"),
        ("<b>", "'<b>'\""),
        ("", "called ''"),
    ],
)
def test_other_names_are_refused_with_the_option_that_adds_them(host: str, hint: str) -> None:
    status, body = _asked_as(host, _called("0.0.0.0", ("other",)), "10.0.0.7")
    assert status == 421 and hint in body


@pytest.mark.parametrize("name", ["http://gw.example.org", "gw.example.org:8000", "*", "", "a b"])
def test_what_is_no_name_is_no_option(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a machine"):
        _called("127.0.0.1", (name,))

"""The program that listens: a socket that is bound before anything is promised, and uvicorn on it.

It must not know what is asked, nor who answers."""

from __future__ import annotations

import socket

import uvicorn

from puma.errors import UsageError
from puma.gateway.app import application
from puma.gateway.service import Gateway

LEAVE_SECONDS = 2  # an answer that runs when the server is stopped may go on for so long


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; port 0 for any that is free. UsageError if it cannot be had."""
    try:
        if not 0 <= port < 1 << 16:
            raise OverflowError("ports go from 0 to 65535")
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error}", "is a gateway running already? else choose another --port"
        ) from None


def configured(gateway: Gateway) -> uvicorn.Server:
    """uvicorn without a log of who asked what."""
    settings = uvicorn.Config(
        application(gateway), log_level="error", access_log=False, server_header=False,
        timeout_graceful_shutdown=LEAVE_SECONDS, lifespan="on",
    )  # fmt: skip
    return uvicorn.Server(settings)


def run(gateway: Gateway, bound: socket.socket) -> None:
    """Serve until the program is told to stop."""
    configured(gateway).run([bound])

"""The program that listens: a socket that is bound before anything is promised, and uvicorn on it.

It must not know what is asked, nor who answers."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import uvicorn

from puma.errors import UsageError
from puma.gateway.app import application
from puma.gateway.service import Gateway

AT_ONCE = 2  # seconds for answers under way once somebody at a terminal wants to leave


class Server(uvicorn.Server):
    """uvicorn that lets answers under way come to their end when it is told to stop, and takes no further requests
    meanwhile; told so from a terminal it is quicker, and told twice at once."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        settings = uvicorn.Config(
            application(gateway), log_level="error", access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, round(gateway.settings.drain)), lifespan="on",
        )  # fmt: skip
        super().__init__(settings)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self.gateway.draining = True
        if sig == signal.SIGINT:
            self.config.timeout_graceful_shutdown = AT_ONCE
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


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


def configured(gateway: Gateway) -> Server:
    """uvicorn without a log of who asked what."""
    return Server(gateway)


def run(gateway: Gateway, bound: socket.socket) -> None:
    """Serve until the program is told to stop."""
    configured(gateway).run([bound])

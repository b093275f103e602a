"""A second port, on this machine alone, where operators look: /health for monitors, /metrics for Prometheus.

Nothing that it tells is secret, yet it listens on 127.0.0.1 only. This file must not know what the numbers mean.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from puma.errors import UsageError

HOST = "127.0.0.1"
TEXT, JSON = "text/plain; version=0.0.4; charset=utf-8", "application/json"
SECONDS = 5.0  # for a whole request


class Health:
    """Serves until closed; `health` gives whether all is well and the facts, `metrics` a text."""

    def __init__(
        self, port: int, health: Callable[[], tuple[bool, dict[str, Any]]], metrics: Callable[[], str]
    ) -> None:
        class Answer(BaseHTTPRequestHandler):
            timeout = SECONDS

            def do_GET(self) -> None:
                if self.path == "/health":
                    healthy, facts = health()
                    self._reply(200 if healthy else 503, JSON, json.dumps(facts) + "\n")
                elif self.path == "/metrics":
                    self._reply(200, TEXT, metrics())
                else:
                    self._reply(404, JSON, json.dumps({"error": "look at /health or /metrics"}) + "\n")

            def _reply(self, code: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Monitors ask every few seconds: nobody wants to read that."""

        try:
            self._server = ThreadingHTTPServer((HOST, port), Answer)
        except OSError as error:
            what = f"cannot listen on {HOST} port {port}: {error.strerror or error}"
            raise UsageError(what, "is this party running already? else pick another port with --metrics") from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="puma health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The real one."""
        return self._server.server_address[1]

    def close(self) -> None:
        """Answer no more, and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

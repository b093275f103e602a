"""`puma party`: run one of the three parties. Standard error carries its events, one JSON object a line."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puma.cli.options import HUMAN, ClusterFile, Count, Flag, Key, Output
from puma.errors import UsageError

GIB = 1 << 30


def party(
    *,
    key: Key,
    store: Path,
    cluster: Path = ClusterFile,
    listen: str | None = None,
    metrics: Count | None = None,
    sessions: Count | None = None,
    max_tokens: Count | None = None,
    memory: Annotated[float | None, Parameter(name="--memory")] = None,
    preprocessing: float | None = None,
    drain: float = 30.0,
    audit: Path | None = None,
    insecure: Flag = False,
    output: Output = HUMAN,
) -> None:
    """Run one of three parties, until it is told to stop (SIGTERM; twice to stop at once).

    Parameters
    ----------
    key
        This party's key; the cluster file says which of the three it is.
    store
        The folder where this party keeps its shares of models.
    cluster
        The cluster file; cluster.toml unless given.
    listen
        HOST:PORT to listen on; all addresses and the port in the cluster file unless given.
    metrics
        A port on 127.0.0.1 for /health and /metrics.
    sessions
        Sessions at a time; no more than the cluster file allows.
    max_tokens
        Tokens of a request; no more than the cluster file allows.
    memory
        GiB that this process may take before it refuses new sessions and requests.
    preprocessing
        GiB of disk for what clients let this party prepare ahead, encrypted; nothing is prepared unless given.
    drain
        Seconds that a party which is told to stop waits for requests to end.
    audit
        The file that says who came; audit.jsonl in the store unless given.
    insecure
        Links without TLS, between processes of this machine only; owners and clients have to say so, too.
    """
    from puma import config
    from puma.party.daemon import Daemon, Settings
    from puma.party.health import Health

    for name, value in (
        ("sessions", sessions),
        ("max-tokens", max_tokens),
        ("memory", memory),
        ("preprocessing", preprocessing),
    ):
        if value is not None and value <= 0:
            raise UsageError(f"--{name} {value} serves nobody", "give a number above 0, or leave it out")
    place = config.split_address(listen) if listen else None
    settings = Settings(
        key=key, cluster=config.read(cluster), store=store, listen=place, sessions=sessions, tokens=max_tokens,
        memory=int((memory or 0) * GIB), audit=audit, plain=insecure,
        preprocessing=int((preprocessing or 0) * GIB),
    )  # fmt: skip
    daemon = Daemon(settings)
    asked = 0

    def stop(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(1)
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    health = Health(metrics, daemon.health, daemon.metrics.text) if metrics is not None else None
    try:
        daemon.run(drain)
    finally:
        if health is not None:
            health.close()

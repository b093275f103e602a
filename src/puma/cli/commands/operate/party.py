"""`puma party`: run one of the three parties. Standard error carries its events, one JSON object a line."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from puma.cli.options import HUMAN, ClusterFile, Count, Flag, Key, Output, Several
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
    sessions_by_key: Count | None = None,
    max_tokens: Count | None = None,
    tokens_by_key: Count | None = None,
    tokens_under_way: Count | None = None,
    requests_by_key: Count | None = None,
    max_model: float | None = None,
    memory: Annotated[float | None, Parameter(name="--memory")] = None,
    preprocessing: float | None = None,
    preprocessing_by_key: float | None = None,
    conversations: float | None = None,
    conversation_minutes: float = 10.0,
    threads: Count | None = None,
    drain: float = 30.0,
    audit: Path | None = None,
    open_weights: Several = (),
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
    sessions_by_key
        Sessions at a time of one client or owner; three quarters of all unless given.
    max_tokens
        Tokens of a request; no more than the cluster file allows.
    tokens_by_key
        Tokens within an hour of one client, of prompts and answers and of what it has prepared; any number unless
        given.
    tokens_under_way
        Tokens of one client that may be computed at a time, of prompts and answers; any number unless given.
    requests_by_key
        Requests within a minute of one client; any number unless given.
    max_model
        GiB of a model's shares; 64 unless given.
    memory
        GiB that this process may take before it refuses new sessions and requests.
    preprocessing
        GiB of disk for what clients let this party prepare ahead, encrypted; nothing is prepared unless given.
    preprocessing_by_key
        GiB of that for one client; three quarters unless given.
    conversations
        GiB of memory for what was computed of requests that their clients may go on from, as chats do, three quarters
        of it for one client; the oldest goes first. 1 unless given; 0 to keep nothing.
    conversation_minutes
        Minutes that it is kept.
    threads
        Threads that compute; unless given, this machine's cores divided by the parties at this one's address.
    drain
        Seconds that a party which is told to stop waits for requests to end.
    audit
        The file that says who came; audit.jsonl in the store unless given.
    open_weights
        A checkpoint that this party has already, a folder or a GGUF file; may be repeated. Of a model whose owner opens
        its weights, what lies there and has the digests that everybody is told is not sent.
    insecure
        Links without TLS, between processes of this machine only; owners and clients have to say so, too.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is loaded

    from puma import config, pool
    from puma.party.daemon import Daemon, Settings
    from puma.party.health import Health
    from puma.party.limits import Limits

    whole = {
        "sessions_by_key": sessions_by_key, "tokens_by_key": tokens_by_key, "tokens_under_way": tokens_under_way,
        "requests_by_key": requests_by_key,
    }  # fmt: skip
    sizes = {
        "memory": memory, "model": max_model, "preprocessing": preprocessing,
        "preprocessing_by_key": preprocessing_by_key,
    }  # fmt: skip
    for name, value in {"sessions": sessions, "max_tokens": max_tokens, **whole, **sizes}.items():
        if value is not None and value <= 0:
            option = {"model": "max-model"}.get(name, name.replace("_", "-"))
            raise UsageError(f"--{option} {value} serves nobody", "give a number above 0, or leave it out")
    if threads is not None and not 1 <= threads <= pool.MOST:
        raise UsageError(f"--threads {threads} compute nothing", f"give 1 to {pool.MOST}, or leave it out")
    given = {name: value for name, value in whole.items() if value is not None}
    given |= {name: int(value * GIB) for name, value in sizes.items() if value is not None}
    if conversation_minutes < 0 or (conversations or 0) < 0:
        raise UsageError("conversations are kept for no less than nothing", "give a number from 0 on")
    keeping: dict[str, Any] = {} if conversations is None else {"kept": int(conversations * GIB)}
    keeping["kept_seconds"] = 60 * conversation_minutes
    if missing := [each for each in open_weights if not Path(each).exists()]:
        raise UsageError(f"there is no checkpoint {missing[0]}", "name a folder or a GGUF file of this machine")
    place = config.split_address(listen) if listen else None
    found = config.read(cluster)
    settings = Settings(
        key=key, cluster=found, store=store, listen=place, audit=audit, plain=insecure, threads=threads,
        limits=Limits.within(found.policy, sessions, max_tokens, **given, **keeping),
        given=[Path(each) for each in open_weights],
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
